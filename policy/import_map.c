/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/import_map.h"

#define NAME_LABEL "kubernetes.io/metadata.name"

/* ---- reading, of the map and of objects ---- */

bool import_is_null(const struct node *node)
{
	static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};

	for (size_t i = 0; i < sizeof(nulls) / sizeof(nulls[0]); i++)
		if (node->kind == NODE_SCALAR && node->plain && strcmp(node->text, nulls[i]) == 0)
			return true;
	return false;
}

bool import_fields(struct reader *reader, const struct node *map, const char *what, const struct key *keys, size_t n)
{
	if (!read_keys(reader, map, what, keys, n))
		return false;
	for (size_t i = 0; i < n; i++)
		if (*keys[i].value && import_is_null(*keys[i].value))
			*keys[i].value = NULL;
	return true;
}

bool import_list(struct reader *reader, const struct node *node, const char *what, struct items *items)
{
	if (node->kind != NODE_LIST) {
		reader_error(reader, node, "%s must be a list", what);
		return false;
	}
	*items = (struct items){node->items, node->n};
	return true;
}

bool import_number(struct reader *reader, const struct node *node, const char *what, uint32_t min, uint32_t max,
		   uint32_t *numberp)
{
	bool ok = node->kind == NODE_SCALAR && node->plain && node->text[0] && strlen(node->text) < 8;
	uint32_t number = 0;

	for (const char *at = ok ? node->text : ""; *at; at++) {
		ok = ok && *at >= '0' && *at <= '9';
		number = number * 10 + (uint32_t)(*at - '0');
	}
	if (!ok || number < min || number > max) {
		reader_error(reader, node, "%s must be a number from %u to %u", what, min, max);
		return false;
	}
	*numberp = number;
	return true;
}

/* Reads a map of strings. Duplicate keys are errors. */
static struct labels read_labels(struct reader *reader, const struct node *node, const char *what, uint32_t room)
{
	struct labels labels = {};

	if (node && node->kind != NODE_MAP) {
		reader_error(reader, node, "%s must be a map of strings", what);
		node = NULL;
	}
	labels.items = arena_array(&reader->arena, (node ? node->n / 2 : 0) + (size_t)room, sizeof(*labels.items));
	for (uint32_t i = 0; labels.items && node && i < node->n; i += 2) {
		const struct node *key = node->items[i], *value = node->items[i + 1];

		if (key->kind != NODE_SCALAR || value->kind != NODE_SCALAR || import_is_null(value))
			reader_error(reader, key, "%s must be a map of strings", what);
		else
			labels.items[labels.n++] = (struct label){key->text, value->text};
	}
	return labels;
}

static int by_key(const void *a, const void *b)
{
	const struct label *x = a, *y = b;

	return strcmp(x->key, y->key);
}

/* Sorts labels, and finds a key given twice. */
static void sort_labels(struct reader *reader, const struct node *node, struct labels *labels)
{
	if (labels->n)
		qsort(labels->items, labels->n, sizeof(*labels->items), by_key);
	for (uint32_t i = 1; i < labels->n; i++)
		if (strcmp(labels->items[i - 1].key, labels->items[i].key) == 0)
			reader_error(reader, node, "label '%s' is given twice", labels->items[i].key);
}

/* ---- one workload, one identity ---- */

#define MAX_CLAIMS 20000U

/* What proves a workload: a pattern, or a unit or cgroup. */
struct claim {
	const struct node *node;
	const char *text;
	struct pattern pattern; /* no segments: it is a unit or cgroup */
	uint32_t workload;	/* index */
};

struct claims {
	struct claim *items;
	size_t n, capacity;
	bool too_many;
};

static void claims_free(struct claims *claims)
{
	free(claims->items);
}

static void claim(struct claims *claims, struct reader *reader, struct claim item)
{
	if (claims->n == MAX_CLAIMS) {
		if (!claims->too_many)
			reader_error(reader, item.node, "more than %u identities in the map", MAX_CLAIMS);
		claims->too_many = true;
		return;
	}
	if (array_grow(&claims->items, &claims->capacity, claims->n, sizeof(item)) < 0)
		reader->arena.out_of_memory = true;
	else
		claims->items[claims->n++] = item;
}

static bool is_wild(const struct pattern *pattern)
{
	bool wild = pattern->rest;

	for (uint32_t i = 0; i < pattern->n_segments; i++)
		wild |= !pattern->segments[i].text;
	return wild;
}

/* Do two patterns have an ID in common? */
static bool patterns_meet(const struct pattern *a, const struct pattern *b)
{
	uint32_t n = a->n_segments < b->n_segments ? a->n_segments : b->n_segments;

	if (!n)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		const struct segment *x = &a->segments[i], *y = &b->segments[i];

		if (x->text && y->text && (x->len != y->len || memcmp(x->text, y->text, x->len) != 0))
			return false;
	}
	if (a->n_segments == b->n_segments)
		return a->rest == b->rest;
	return a->n_segments < b->n_segments ? a->rest : b->rest;
}

static void report_claims(struct reader *reader, const struct cluster *cluster, const struct claim *later,
			  const struct claim *earlier)
{
	if (later->workload == earlier->workload)
		return;
	reader_error(reader, later->node, "'%.100s' also proves the workload '%s'", later->text,
		     cluster->workloads[earlier->workload].name);
	reader_hint(reader, "give each workload an identity of its own, or make them one workload: '%.100s' is at %s",
		    earlier->text, reader_where(reader, earlier->node->at));
}

static void check_claims(struct reader *reader, const struct cluster *cluster, const struct claims *claims)
{
	_cleanup_(intern_free) struct intern texts = {};
	_cleanup_(list_free) struct list owners = {};
	uint32_t number;

	for (uint32_t i = 0; i < claims->n; i++) {
		const struct claim *item = &claims->items[i];
		int r = intern_bytes(&texts, item->text, strlen(item->text), &number);

		if (r < 0 || (r == 1 && list_push(&owners, i) < 0)) {
			reader->arena.out_of_memory = true;
			return;
		}
		if (r == 0)
			report_claims(reader, cluster, item, &claims->items[owners.items[number]]);
	}
	for (size_t i = 0; i < claims->n; i++) {
		const struct claim *wild = &claims->items[i];

		if (!is_wild(&wild->pattern))
			continue;
		for (size_t j = 0; j < claims->n; j++) {
			const struct claim *other = &claims->items[j];

			/* Of two with wildcards, the later one is at fault; equal ones were found above. */
			if (j == i || (j > i && is_wild(&other->pattern)) || strcmp(wild->text, other->text) == 0 ||
			    !patterns_meet(&wild->pattern, &other->pattern))
				continue;
			report_claims(reader, cluster, wild, other);
		}
	}
}

/* ---- the map ---- */

static void read_namespace(struct cluster *cluster, struct reader *reader, const struct node *key,
			   const struct node *value)
{
	struct namespace *namespace = &cluster->namespaces[cluster->n_namespaces];
	const struct node *labels = NULL;
	const struct key keys[] = {{"labels", &labels}};
	uint32_t number;
	int r;

	if (key->kind != NODE_SCALAR || !key->text[0]) {
		reader_error(reader, key, "the name of a namespace must be a string");
		return;
	}
	if (!import_is_null(value) && !import_fields(reader, value, "a namespace", keys, 1))
		return;
	r = intern_bytes(&cluster->namespace_names, key->text, strlen(key->text), &number);
	if (r == 0)
		reader_error(reader, key, "namespace '%s' is given twice", key->text);
	if (r != 1) {
		reader->arena.out_of_memory |= r < 0;
		return;
	}
	*namespace = (struct namespace){.name = key->text, .at = key->at};
	namespace->labels = read_labels(reader, labels, "`labels`", 1);
	for (uint32_t i = 0; i < namespace->labels.n; i++)
		if (strcmp(namespace->labels.items[i].key, NAME_LABEL) == 0) {
			if (strcmp(namespace->labels.items[i].value, key->text) != 0)
				reader_error(reader, labels, "the label " NAME_LABEL " is always the namespace's name");
			namespace->labels.items[i] = namespace->labels.items[--namespace->labels.n];
			break;
		}
	if (namespace->labels.items)
	namespace->labels.items[namespace->labels.n++] = (struct label){NAME_LABEL, key->text};
	sort_labels(reader, key, &namespace->labels);
	cluster->n_namespaces++;
}

/* A local identity is given between quotes, so it must not hold what quotes do not keep. */
static const char *read_place(struct reader *reader, const struct node *node, struct claims *claims, uint32_t workload)
{
	const struct node *unit = NULL, *cgroup = NULL;
	const struct key keys[] = {{"unit", &unit}, {"cgroup", &cgroup}};
	const char *text, *kind;
	char *quoted, *out;

	if (!import_fields(reader, node, "an identity", keys, 2))
		return NULL;
	if (!unit == !cgroup) {
		reader_error(reader, node,
			     "an identity is a SPIFFE ID or pattern, a list of them, {unit: } or {cgroup: }");
		return NULL;
	}
	kind = unit ? "unit" : "cgroup";
	text = read_text(reader, unit ? unit : cgroup, unit ? "`unit`" : "`cgroup`");
	if (!text)
		return NULL;
	quoted = out = arena_array(&reader->arena, strlen(text) + 1, 2);
	for (const char *at = text; *at && quoted; at++) {
		if (*at < ' ' || *at > '~') {
			reader_error(reader, unit ? unit : cgroup, "`%s` may have printable ASCII characters only",
				     kind);
			return NULL;
		}
		if (*at == '"' || *at == '\\')
			*out++ = '\\';
		*out++ = *at;
	}
	text = quoted ? arena_printf(&reader->arena, "{%s: \"%s\"}", kind, quoted) : NULL;
	if (text)
		claim(claims, reader, (struct claim){.node = node, .text = text, .workload = workload});
	return text;
}

static const char *read_patterns(struct reader *reader, const struct node *node, struct claims *claims,
				 uint32_t workload)
{
	const char *text = NULL;
	struct items items;

	if (!read_items(reader, node, "`identity`", &items))
		return NULL;
	for (uint32_t i = 0; i < items.n; i++) {
		struct claim item = {.node = items.items[i], .workload = workload};
		const char *one = read_text(reader, items.items[i], "an identity"), *problem;

		problem = one ? pattern_parse(&item.pattern, &reader->arena, one) : NULL;
		if (problem)
			reader_error(reader, items.items[i], "'%.100s' is not a SPIFFE ID or pattern: %s", one,
				     problem);
		if (!one || problem)
			return NULL;
		item.text = one;
		claim(claims, reader, item);
		text = text ? arena_printf(&reader->arena, "%s,\n    %s", text, one) : one;
		if (!text)
			return NULL;
	}
	return items.n > 1 ? arena_printf(&reader->arena, "[%s]", text) : text;
}

static void read_ports(struct reader *reader, const struct node *node, struct workload *workload)
{
	struct labels ports = read_labels(reader, node, "`ports`", 0);

	workload->ports = arena_array(&reader->arena, ports.n, sizeof(*workload->ports));
	sort_labels(reader, node, &ports);
	for (uint32_t i = 0; i < ports.n && workload->ports; i++) {
		struct service_range range;

		if (service_parse(&range, ports.items[i].value) != SERVICE_OK || range.first != range.last ||
		    range.first >= SERVICE_ICMP) {
			reader_error(reader, node, "port '%.100s' must be one port, such as tcp/8080, not '%.100s'",
				     ports.items[i].key, ports.items[i].value);
			continue;
		}
		workload->ports[workload->n_ports++] = (struct named_port){ports.items[i].key, range.first};
	}
}

static void read_workload(struct cluster *cluster, struct reader *reader, const struct node *node,
			  struct claims *claims)
{
	const struct node *name = NULL, *namespace = NULL, *labels = NULL, *identity = NULL, *ports = NULL;
	const struct key keys[] = {
		{"name", &name},	 {"namespace", &namespace}, {"labels", &labels},
		{"identity", &identity}, {"ports", &ports},
	};
	struct workload workload = {.at = node->at};
	const char *text;
	uint32_t atom;
	bool any;

	if (!import_fields(reader, node, "a workload", keys, sizeof(keys) / sizeof(keys[0])))
		return;
	if (!name || !namespace || !identity) {
		reader_error(reader, node, "the workload has no `%s`",
			     !name	  ? "name"
			     : !namespace ? "namespace"
					  : "identity");
		return;
	}
	if (!read_name(reader, name, "a workload", POLICY_MAX_NAME, &workload.name))
		return;
	if (is_builtin_peer(workload.name, &atom, &any)) {
		reader_error(reader, name, "'%s' is a built-in name of the policy language", workload.name);
		return;
	}
	text = read_text(reader, namespace, "`namespace`");
	if (!text)
		return;
	if (!intern_find(&cluster->namespace_names, text, strlen(text), &workload.namespace)) {
		reader_error(reader, namespace, "no namespace is named '%.100s'", text);
		reader_hint(reader, "list it under `namespaces`, with its labels: a selector may ask for them");
		return;
	}
	workload.identity = identity->kind == NODE_MAP ? read_place(reader, identity, claims, cluster->n_workloads)
						       : read_patterns(reader, identity, claims, cluster->n_workloads);
	workload.labels = read_labels(reader, labels, "`labels`", 0);
	sort_labels(reader, labels ? labels : node, &workload.labels);
	read_ports(reader, ports, &workload);
	if (workload.identity)
		cluster->workloads[cluster->n_workloads++] = workload;
}

/* Names are unique: they are the names of identities in the policy. */
static void check_names(struct reader *reader, const struct cluster *cluster)
{
	_cleanup_(intern_free) struct intern names = {};
	uint32_t number;

	for (uint32_t i = 0; i < cluster->n_workloads; i++) {
		const struct workload *workload = &cluster->workloads[i];
		int r = intern_bytes(&names, workload->name, strlen(workload->name), &number);

		reader->arena.out_of_memory |= r < 0;
		if (r)
			continue;
		diagnostics_error(reader->diagnostics, workload->at, "workload '%s' is given twice", workload->name);
		reader_hint(reader, "a workload's name becomes the name of an identity, whatever its namespace");
	}
}

void cluster_read(struct cluster *cluster, struct reader *reader, const struct node *root)
{
	_cleanup_(claims_free) struct claims claims = {};
	const struct node *namespaces = NULL, *workloads = NULL;
	const struct key keys[] = {{"namespaces", &namespaces}, {"workloads", &workloads}};
	struct items items = {};

	if (!import_fields(reader, root, "the map of the cluster", keys, 2))
		return;
	if (!namespaces || namespaces->kind != NODE_MAP) {
		reader_error(reader, namespaces ? namespaces : root, "the map needs `namespaces`, a map of names");
		return;
	}
	if (!workloads || !import_list(reader, workloads, "`workloads`", &items) || !items.n) {
		reader_error(reader, workloads ? workloads : root,
			     "the map needs `workloads`, a list that is not empty");
		return;
	}
	if (namespaces->n / 2 > IMPORT_MAX_NAMESPACES || items.n > IMPORT_MAX_WORKLOADS) {
		reader_error(reader, root, "the map has more than %u namespaces or %u workloads", IMPORT_MAX_NAMESPACES,
			     IMPORT_MAX_WORKLOADS);
		return;
	}
	cluster->namespaces = arena_array(&reader->arena, namespaces->n / 2, sizeof(*cluster->namespaces));
	cluster->workloads = arena_array(&reader->arena, items.n, sizeof(*cluster->workloads));
	cluster->selected = arena_array(&reader->arena, namespaces->n / 2, sizeof(*cluster->selected));
	if (!cluster->namespaces || !cluster->workloads || !cluster->selected)
		return;
	for (uint32_t i = 0; i < namespaces->n; i += 2)
		read_namespace(cluster, reader, namespaces->items[i], namespaces->items[i + 1]);
	for (uint32_t i = 0; i < items.n; i++)
		read_workload(cluster, reader, items.items[i], &claims);
	check_names(reader, cluster);
	check_claims(reader, cluster, &claims);
}

void cluster_free(struct cluster *cluster)
{
	intern_free(&cluster->namespace_names);
}

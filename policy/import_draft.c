/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/import_draft.h"

#define MAX_LINE 110U
#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"

struct section {
	FILE *out;
	char *text;
	size_t size;
};

struct names {
	struct intern taken;
	struct list next; /* by number: the number to try when the name comes up again */
};

struct draft {
	struct arena arena;
	struct section identities;
	struct section networks;
	struct section rules;
	struct names peer_names;
	struct names rule_names;
	struct intern network_contents; /* the value of a network as it is written */
	const char **network_names;	/* by number in `network_contents` */
	size_t n_network_names, network_names_capacity;
	size_t written;
};

static bool section_open(struct section *section)
{
	section->out = open_memstream(&section->text, &section->size);
	return section->out;
}

static void section_free(struct section *section)
{
	if (section->out)
		fclose(section->out);
	free(section->text);
}

static void names_free(struct names *names)
{
	intern_free(&names->taken);
	list_free(&names->next);
}

struct draft *draft_new(void)
{
	struct draft *draft = calloc(1, sizeof(*draft));

	if (draft &&
	    (!section_open(&draft->identities) || !section_open(&draft->networks) || !section_open(&draft->rules)))
		draft_freep(&draft);
	return draft;
}

void draft_freep(struct draft **draftp)
{
	struct draft *draft = *draftp;

	if (!draft)
		return;
	section_free(&draft->identities);
	section_free(&draft->networks);
	section_free(&draft->rules);
	names_free(&draft->peer_names);
	names_free(&draft->rule_names);
	intern_free(&draft->network_contents);
	free(draft->network_names);
	arena_free(&draft->arena);
	free(draft);
	*draftp = NULL;
}

bool draft_is_full(const struct draft *draft)
{
	return draft->written > POLICY_MAX_SOURCE_BYTES;
}

static void __attribute__((format(printf, 3, 4)))
write_text(struct draft *draft, struct section *section, const char *format, ...)
{
	va_list args;
	int len;

	if (draft_is_full(draft))
		return;
	va_start(args, format);
	len = vfprintf(section->out, format, args);
	va_end(args);
	if (len < 0)
		draft->arena.out_of_memory = true;
	else
		draft->written += (size_t)len;
}

/* Nothing in a comment may end its line: of what is not ASCII, YAML takes some for line breaks. */
static void write_comment(struct draft *draft, struct section *section, const char *indent, const char *text)
{
	while (text && *text) {
		size_t len = strcspn(text, "\n");
		char *line = arena_copy(&draft->arena, text, len);

		if (!line)
			return;
		for (size_t i = 0; i < len; i++)
			if (line[i] < ' ' || line[i] > '~')
				line[i] = '?';
		write_text(draft, section, "%s#%s%s\n", indent, len ? " " : "", line);
		text += len + (text[len] == '\n');
	}
}

/* What has an origin of its own stands apart. */
static void separate(struct draft *draft)
{
	if (ftello(draft->rules.out) > 0)
		write_text(draft, &draft->rules, "\n");
}

void draft_comment(struct draft *draft, const char *text)
{
	separate(draft);
	write_comment(draft, &draft->rules, "  ", text);
}

/* ---- names ---- */

/* Returns 1 if the name was free, 0 with its number if it is taken, or -ENOMEM. */
static int take_name(struct names *names, const char *name, uint32_t *numberp)
{
	int r = list_reserve(&names->next) < 0 ? -ENOMEM : intern_bytes(&names->taken, name, strlen(name), numberp);

	if (r == 1)
		list_push(&names->next, 2);
	return r;
}

/* A name from text: of the characters that a name has, cut to length, and numbered until it is free. */
static const char *unique_name(struct draft *draft, struct names *names, const char *wanted, size_t max)
{
	char *name = arena_alloc(&draft->arena, max + 1), suffix[16];
	size_t len = strlen(wanted), more;
	uint32_t first, number;
	int r;

	if (!name)
		return NULL;
	len = len > max ? max : len;
	memcpy(name, wanted, len);
	for (size_t i = 0; i < len; i++)
		if (!strchr(NAME_CHARACTERS, name[i]) || (!i && strchr("_.-", name[i])))
			name[i] = i ? '-' : 'x';
	r = take_name(names, name, &first);
	while (r == 0) {
		more = (size_t)snprintf(suffix, sizeof(suffix), ".%u", names->next.items[first]++);
		memcpy(name + (len + more > max ? max - more : len), suffix, more + 1);
		r = take_name(names, name, &number);
	}
	draft->arena.out_of_memory |= r < 0;
	return r < 0 ? NULL : name;
}

bool draft_identity(struct draft *draft, const char *name, const char *value, const char *origin)
{
	uint32_t number;
	int r = take_name(&draft->peer_names, name, &number);

	draft->arena.out_of_memory |= r < 0;
	if (r != 1)
		return r < 0;
	write_comment(draft, &draft->identities, "  ", origin);
	write_text(draft, &draft->identities, "  %s: %s\n", name, value);
	return true;
}

/* ---- networks ---- */

static unsigned prefix_of(const struct address_range *range)
{
	address size = range->last - range->first;
	unsigned host = 0;

	while (host < 128 && size >> host)
		host++;
	return (range->v4 ? 32 : 128) - host;
}

static void write_blocks(FILE *out, const struct address_range *ranges, size_t n)
{
	char text[ADDRESS_TEXT_BYTES];
	size_t column = 0;

	putc('[', out);
	for (size_t i = 0; i < n; i++) {
		address_format(text, ranges[i].first, ranges[i].v4, prefix_of(&ranges[i]));
		if (i)
			column += (size_t)fprintf(out, ",%s", column > MAX_LINE ? "\n     " : " ");
		column = column > MAX_LINE ? 0 : column;
		/* A colon is YAML's own. */
		column += (size_t)fprintf(out, ranges[i].v4 ? "%s" : "\"%s\"", text);
	}
	putc(']', out);
}

static void section_close(struct section *section)
{
	section_free(section);
}

static const char *network_name(struct draft *draft, const char *wanted, const struct address_range *first,
				const char *more)
{
	char text[ADDRESS_TEXT_BYTES], name[ADDRESS_TEXT_BYTES + 16];
	unsigned prefix = prefix_of(first);

	if (!wanted) {
		address_format(text, first->first, first->v4, prefix);
		if (prefix)
			snprintf(name, sizeof(name), "ip-%s%s", text, more);
		else
			snprintf(name, sizeof(name), "%s%s", first->v4 ? "ipv4" : "ipv6", more);
		wanted = name;
	}
	return unique_name(draft, &draft->peer_names, wanted, POLICY_MAX_NAME);
}

const char *draft_network(struct draft *draft, const char *name, const struct address_range *include, size_t n_include,
			  const struct address_range *except, size_t n_except, const char *origin)
{
	_cleanup_(section_close) struct section value = {};
	uint32_t number;
	int r;

	if (!section_open(&value)) {
		draft->arena.out_of_memory = true;
		return NULL;
	}
	if (n_except)
		fputs("{include: ", value.out);
	write_blocks(value.out, include, n_include);
	if (n_except) {
		fputs(",\n    except: ", value.out);
		write_blocks(value.out, except, n_except);
		putc('}', value.out);
	}
	r = fflush(value.out) ? -ENOMEM : intern_bytes(&draft->network_contents, value.text, value.size, &number);
	if (r == 0)
		return draft->network_names[number];
	if (r < 0 || array_grow(&draft->network_names, &draft->network_names_capacity, draft->n_network_names,
				sizeof(*draft->network_names)) < 0) {
		draft->arena.out_of_memory = true;
		return NULL;
	}
	name = network_name(draft, name, &include[0], n_except ? "-except" : n_include > 1 ? "-etc" : "");
	draft->network_names[draft->n_network_names++] = name;
	write_comment(draft, &draft->networks, "  ", origin);
	write_text(draft, &draft->networks, "  %s: %s\n", name ? name : "", value.text);
	return name;
}

/* ---- rules ---- */

/* A list in flow style, or its one item alone. Returns the column after it. */
static size_t write_names(struct draft *draft, const char *const *names, size_t n, size_t column)
{
	struct section *out = &draft->rules;
	size_t indent = column + 1;

	if (n != 1)
		write_text(draft, out, "[");
	for (size_t i = 0; i < n; i++) {
		if (i && column + strlen(names[i]) > MAX_LINE) {
			write_text(draft, out, ",\n%*s", (int)indent, "");
			column = indent;
		} else if (i) {
			write_text(draft, out, ", ");
			column += 2;
		}
		write_text(draft, out, "%s", names[i]);
		column += strlen(names[i]);
	}
	if (n != 1)
		write_text(draft, out, "]");
	return column + 1;
}

static void write_union(struct draft *draft, const struct draft_end *end, size_t column)
{
	const char **names = arena_array(&draft->arena, end->n_who + end->n_where, sizeof(*names));

	if (!names)
		return;
	for (size_t i = 0; i < end->n_who; i++)
		names[i] = end->who[i];
	for (size_t i = 0; i < end->n_where; i++)
		names[end->n_who + i] = end->where[i];
	write_names(draft, names, end->n_who + end->n_where, column);
}

static void write_end(struct draft *draft, const char *key, const struct draft_end *end)
{
	struct section *out = &draft->rules;
	size_t column = strlen(key) + 6;

	write_text(draft, out, "    %s: ", key);
	if (!end->n_who && !end->n_where) {
		write_text(draft, out, "any");
	} else if (end->both && end->n_who && end->n_where) {
		write_text(draft, out, "{identity: ");
		column = write_names(draft, end->who, end->n_who, column + 11);
		write_text(draft, out, ", network: ");
		write_names(draft, end->where, end->n_where, column + 11);
		write_text(draft, out, "}");
	} else {
		write_union(draft, end, column);
	}
	write_text(draft, out, "\n");
}

static void write_services(struct draft *draft, const struct draft_rule *rule)
{
	struct section *out = &draft->rules;
	size_t column = 13;

	if (!rule->n_services)
		return;
	write_text(draft, out, "    service: %s", rule->n_services > 1 ? "[" : "");
	for (uint32_t i = 0; i < rule->n_services; i++) {
		char text[64];
		int len = service_format(text, sizeof(text), rule->services[i]);

		if (i && column > MAX_LINE - 16) {
			write_text(draft, out, ",\n%*s", 14, "");
			column = 14;
		} else if (i) {
			write_text(draft, out, ", ");
		}
		write_text(draft, out, "%s", text);
		column += (size_t)len + 2;
	}
	write_text(draft, out, "%s\n", rule->n_services > 1 ? "]" : "");
}

void draft_rule(struct draft *draft, const struct draft_rule *rule)
{
	static const char *const actions[] = {[RULE_DENY] = "deny", [RULE_PASS] = "pass", [RULE_ALLOW] = "allow"};
	struct section *out = &draft->rules;
	const char *name = unique_name(draft, &draft->rule_names, rule->name, POLICY_MAX_RULE_NAME);

	if (rule->origin)
		separate(draft);
	write_comment(draft, out, "  ", rule->origin);
	write_text(draft, out, "  - name: %s\n", name ? name : "");
	if (rule->tier)
		write_text(draft, out, "    tier: %s\n", rule->tier);
	if (rule->priority)
		write_text(draft, out, "    priority: %d\n", rule->priority);
	write_text(draft, out, "    action: %s\n", actions[rule->action]);
	write_end(draft, "from", &rule->from);
	write_end(draft, "to", &rule->to);
	write_services(draft, rule);
	if (rule->directions != (RULE_EGRESS | RULE_INGRESS))
		write_text(draft, out, "    direction: %s\n", rule->directions == RULE_EGRESS ? "egress" : "ingress");
}

/* ---- the whole ---- */

static bool section_end(struct section *section)
{
	bool ok = !ferror(section->out) && !fclose(section->out);

	section->out = NULL;
	return ok;
}

static void write_whole(FILE *out, const struct draft *draft, const char *const *tiers, size_t n)
{
	fputs("bulkhead: 1\n", out);
	if (draft->identities.size)
		fprintf(out, "\nidentities:\n%s", draft->identities.text);
	if (draft->networks.size)
		fprintf(out, "\nnetworks:\n%s", draft->networks.text);
	if (n) {
		fputs("\ntiers: [", out);
		for (size_t i = 0; i < n; i++)
			fprintf(out, "%s%s", i ? ", " : "", tiers[i]);
		fputs("]\n", out);
	}
	fputs("\ndefaults: {action: deny, log: denied}\n", out);
	if (draft->rules.size)
		fprintf(out, "\nrules:\n%s", draft->rules.text);
}

int draft_finish(struct draft *draft, const char *head, const char *const *tiers, size_t n_tiers, char **textp)
{
	struct section whole = {};
	bool ok;

	*textp = NULL;
	ok = section_end(&draft->identities) && section_end(&draft->networks) && section_end(&draft->rules) &&
	     section_open(&whole);
	if (draft_is_full(draft)) {
		section_free(&whole);
		return 1;
	}
	if (!ok || draft->arena.out_of_memory) {
		section_free(&whole);
		return -ENOMEM;
	}
	write_comment(draft, &whole, "", head);
	write_whole(whole.out, draft, tiers, n_tiers);
	if (!section_end(&whole) || draft->arena.out_of_memory) {
		free(whole.text);
		return -ENOMEM;
	}
	*textp = whole.text;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_service.c - services: protocols with ports or types, and names for lists of them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/read.h"

struct ranges {
	struct service_range *items;
	size_t n, capacity;
};

static void ranges_free(struct ranges *ranges)
{
	free(ranges->items);
}

static void push_range(struct reader *reader, struct ranges *ranges, struct service_range range)
{
	if (array_grow(&ranges->items, &ranges->capacity, ranges->n, sizeof(range)) < 0)
		reader->arena.out_of_memory = true;
	else
		ranges->items[ranges->n++] = range;
}

/* A list of services that itself is used in many lists must not make memory the product of both. */
static bool spend_ranges(struct reader *reader, const struct node *node, size_t n)
{
	bool had = reader->n_ranges <= POLICY_MAX_RANGES;

	if (!had)
		return false;
	reader->n_ranges += n;
	if (reader->n_ranges <= POLICY_MAX_RANGES)
		return true;
	reader_error(reader, node, "the services of the policy are too large: more than %zu ranges of ports in all",
		     POLICY_MAX_RANGES);
	reader_hint(reader,
		    "a list that many rules use costs nothing if it has a name and stands alone: `service: NAME`");
	return false;
}

/* ---- inline ---- */

static void report_inline(struct reader *reader, const struct node *node, const char *text,
			  enum service_problem problem)
{
	struct suggestion suggestion = {.wrong = text};
	const char *other;

	if (problem == SERVICE_HAS_A_NAME) {
		reader_error(reader, node, "'%.80s': %s", text, service_problem_text(problem));
		reader_hint(reader, "write %s", service_protocol_meant(text));
		return;
	}
	reader_error(reader, node, "'%.80s': %s", text, service_problem_text(problem));
	if (problem != SERVICE_TYPE || !diagnostics_may_suggest(reader->diagnostics, 60))
		return;
	other = service_suggest_type(&suggestion, text);
	if (other)
		reader_hint(reader, "%s has this type: %s%s", other, other, strchr(text, '/'));
	else if (suggestion.best)
		reader_hint(reader, "did you mean '%s'?", suggestion.best);
	else
		reader_hint(reader, "a type is a name such as echo-request, or a number from 0 to 255");
}

/* Returns false if the text is no inline service at all; *okp: nothing is wrong with it. */
static bool read_inline(struct reader *reader, const struct node *node, struct service_range *range, bool *okp)
{
	enum service_problem problem = service_parse(range, node->text);

	*okp = problem == SERVICE_OK;
	if (problem == SERVICE_NOT_INLINE)
		return false;
	if (problem != SERVICE_OK)
		report_inline(reader, node, node->text, problem);
	return true;
}

/* ---- names ---- */

static void report_service(struct reader *reader, const struct node *node, const char *name)
{
	struct suggestion suggestion = {.wrong = name};
	uint32_t number;

	if (reader->incomplete)
		return;
	if (strchr(name, '/')) {
		reader_error(reader, node, "'%.80s' is not a protocol with a port", name);
		reader_hint(reader, "such as tcp/443, tcp/6432-6440, udp, icmp/echo-request, proto/47");
		return;
	}
	reader_error(reader, node, "no service is named '%.100s'", name);
	if (strcmp(name, "any") == 0) {
		reader_hint(reader, "a rule without `service` is about every service");
		return;
	}
	if (intern_find(&reader->policy->peer_names, name, strlen(name), &number)) {
		reader_hint(reader, "'%s' is %s", name, reader->peers.items[number] & 1 ? "a network" : "an identity");
		return;
	}
	if (strspn(name, "0123456789-") == strlen(name)) {
		reader_hint(reader, "a port has a protocol: tcp/%.11s or udp/%.11s", name, name);
		return;
	}
	if (!diagnostics_may_suggest(reader->diagnostics, reader->policy->n_services))
		return;
	for (size_t i = 0; i < reader->policy->n_services; i++)
		suggestion_offer(&suggestion, reader->policy->services[i].name);
	if (suggestion.best)
		reader_hint(reader, "did you mean '%s'?", suggestion.best);
}

/* The service that is named, or NULL after an error. */
static struct service *find_service(struct reader *reader, const struct node *node, uint32_t *numberp)
{
	if (intern_find(&reader->service_names, node->text, strlen(node->text), numberp))
		return &reader->policy->services[*numberp];
	report_service(reader, node, node->text);
	return NULL;
}

/* ---- definitions ---- */

void read_service(struct reader *reader, const struct node *key, const struct node *value)
{
	struct policy *policy = reader->policy;
	struct service service = {.at = key->at};
	uint32_t number;
	int r;

	if (!read_name(reader, key, "a service", POLICY_MAX_NAME, &service.name))
		return;
	if (service_is_protocol(service.name) || strcmp(service.name, "any") == 0) {
		reader_error(reader, key, "'%s' is a built-in name and cannot be defined", service.name);
		return;
	}
	r = array_grow(&policy->services, &policy->services_capacity, policy->n_services, sizeof(service));
	if (r == 0)
		r = array_grow(&reader->services, &reader->services_capacity, policy->n_services,
			       sizeof(*reader->services));
	if (r == 0)
		r = intern_bytes(&reader->service_names, service.name, strlen(service.name), &number);
	if (r < 0) {
		policy->arena.out_of_memory = true;
		return;
	}
	if (r == 0) {
		reader_error(reader, key, "duplicate name '%s': it is a service already", service.name);
		reader_hint(reader, "defined at %s", reader_where(reader, policy->services[number].at));
		return;
	}
	reader->services[policy->n_services] = (struct service_draft){.value = value};
	policy->services[policy->n_services++] = service;
}

static bool resolve_service(struct reader *reader, uint32_t number, unsigned depth);

/* A service named within the definition of another. */
static void gather_inner(struct reader *reader, const struct node *node, uint32_t outer, unsigned depth,
			 struct ranges *ranges)
{
	const struct policy *policy = reader->policy;
	struct service *inner;
	uint32_t number;

	inner = find_service(reader, node, &number);
	if (!inner)
		return;
	inner->used = true;
	if (reader->services[number].state == DRAFT_OPEN) {
		reader_error(reader, node, "the service '%s' is made of itself", inner->name);
		if (number != outer)
			reader_hint(reader, "'%s' leads back to it", policy->services[outer].name);
		return;
	}
	if (!resolve_service(reader, number, depth + 1)) {
		reader_error(reader, node, "services within services, more than %u deep", POLICY_MAX_SERVICE_DEPTH);
		return;
	}
	if (reader->services[outer].height <= reader->services[number].height)
		reader->services[outer].height = reader->services[number].height + 1;
	if (!spend_ranges(reader, node, inner->n_ranges))
		return;
	for (uint32_t i = 0; i < inner->n_ranges; i++)
		push_range(reader, ranges, inner->ranges[i]);
}

/* Returns false where services lie too deep within each other to go on. */
static bool resolve_service(struct reader *reader, uint32_t number, unsigned depth)
{
	struct service_draft *draft = &reader->services[number];
	struct service *service = &reader->policy->services[number];
	_cleanup_(ranges_free) struct ranges ranges = {};
	struct service_range range;
	struct items items;
	bool ok;

	if (depth + (draft->state == DRAFT_DONE ? draft->height : 0) > POLICY_MAX_SERVICE_DEPTH)
		return false;
	if (draft->state == DRAFT_DONE)
		return true;
	draft->state = DRAFT_OPEN;
	if (read_items(reader, draft->value, "a service", &items))
		for (uint32_t i = 0; i < items.n; i++) {
			if (!read_text(reader, items.items[i], "a service"))
				continue;
			if (!read_inline(reader, items.items[i], &range, &ok))
				gather_inner(reader, items.items[i], number, depth, &ranges);
			else if (ok)
				push_range(reader, &ranges, range);
		}
	service->n_ranges = service_normalise(ranges.items, (uint32_t)ranges.n);
	service->ranges =
		arena_copy(&reader->policy->arena, ranges.items, service->n_ranges * sizeof(*service->ranges));
	draft->state = DRAFT_DONE;
	return true;
}

void resolve_services(struct reader *reader)
{
	for (uint32_t i = 0; i < reader->policy->n_services; i++)
		resolve_service(reader, i, 0);
}

/* ---- use ---- */

static void use_everything(struct reader *reader, struct service_range **rangesp, uint32_t *np)
{
	if (!reader->everything) {
		reader->everything = arena_array(&reader->policy->arena, SERVICE_N_EVERYTHING, sizeof(**rangesp));
		if (reader->everything)
			service_everything(reader->everything);
	}
	*rangesp = reader->everything;
	*np = reader->everything ? SERVICE_N_EVERYTHING : 0;
}

/* Returns the service that is named, or NULL for an inline one (which is pushed) and after an error. */
static const struct service *gather_service(struct reader *reader, const struct node *node, struct ranges *ranges)
{
	struct service_range range;
	struct service *service;
	uint32_t number;
	bool ok;

	if (!read_text(reader, node, "`service`"))
		return NULL;
	if (read_inline(reader, node, &range, &ok)) {
		if (ok && spend_ranges(reader, node, 1))
			push_range(reader, ranges, range);
		return NULL;
	}
	service = find_service(reader, node, &number);
	if (service)
		service->used = true;
	return service;
}

void read_services(struct reader *reader, const struct node *node, struct service_range **rangesp, uint32_t *np)
{
	_cleanup_(ranges_free) struct ranges ranges = {};
	const struct service *service;
	struct items items;

	if (!node) {
		use_everything(reader, rangesp, np);
		return;
	}
	if (!read_items(reader, node, "`service`", &items))
		return;
	for (uint32_t i = 0; i < items.n; i++) {
		service = gather_service(reader, items.items[i], &ranges);
		if (service && items.n == 1) {
			*rangesp = service->ranges;
			*np = service->n_ranges;
			return;
		}
		if (service && !spend_ranges(reader, items.items[i], service->n_ranges))
			return;
		for (uint32_t j = 0; service && j < service->n_ranges; j++)
			push_range(reader, &ranges, service->ranges[j]);
	}
	*np = service_normalise(ranges.items, (uint32_t)ranges.n);
	*rangesp = arena_copy(&reader->policy->arena, ranges.items, *np * sizeof(**rangesp));
}

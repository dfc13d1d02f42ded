/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/nft_match.h"

struct nft_box nft_box_whole(enum nft_family family)
{
	return (struct nft_box){
		.ends = {nft_set_addresses(family), nft_set_addresses(family)},
		.services = nft_set_services(),
		.states = NFT_ANY_STATE,
	};
}

bool nft_box_is_empty(const struct nft_box *box)
{
	return !box->ends[0].n || !box->ends[1].n || !box->services.n || !box->states;
}

bool nft_box_equal(const struct nft_box *a, const struct nft_box *b)
{
	return a->states == b->states && nft_set_equal(a->ends[0], b->ends[0]) &&
	       nft_set_equal(a->ends[1], b->ends[1]) && nft_set_equal(a->services, b->services);
}

/* ---- values ---- */

enum value_kind {
	VALUE_V4,
	VALUE_V6,
	VALUE_PORT,
	VALUE_PROTOCOL,
	VALUE_ICMP,
	VALUE_ICMP6,
	VALUE_STATE,
	VALUE_FAMILY,
};

struct word {
	const char *name;
	unsigned value;
};

static const struct word protocol_words[] = {
	{"icmp", IPPROTO_ICMP},
	{"igmp", IPPROTO_IGMP},
	{"ipencap", 4},
	{"tcp", IPPROTO_TCP},
	{"egp", IPPROTO_EGP},
	{"udp", IPPROTO_UDP},
	{"dccp", IPPROTO_DCCP},
	{"ipv6", IPPROTO_IPV6},
	{"gre", IPPROTO_GRE},
	{"esp", IPPROTO_ESP},
	{"ah", IPPROTO_AH},
	{"icmpv6", IPPROTO_ICMPV6},
	{"ipv6-icmp", IPPROTO_ICMPV6},
	{"ospf", 89},
	{"pim", IPPROTO_PIM},
	{"comp", IPPROTO_COMP},
	{"vrrp", 112},
	{"l2tp", 115},
	{"sctp", IPPROTO_SCTP},
	{"udplite", IPPROTO_UDPLITE},
	{"mpls-in-ip", 137},
};

static const struct word icmp_words[] = {
	{"echo-reply", 0},	   {"destination-unreachable", 3}, {"source-quench", 4},	{"redirect", 5},
	{"echo-request", 8},	   {"router-advertisement", 9},	   {"router-solicitation", 10}, {"time-exceeded", 11},
	{"parameter-problem", 12}, {"timestamp-request", 13},	   {"timestamp-reply", 14},	{"info-request", 15},
	{"info-reply", 16},	   {"address-mask-request", 17},   {"address-mask-reply", 18},
};

static const struct word icmp6_words[] = {
	{"destination-unreachable", 1},	 {"packet-too-big", 2},		{"time-exceeded", 3},
	{"parameter-problem", 4},	 {"echo-request", 128},		{"echo-reply", 129},
	{"mld-listener-query", 130},	 {"mld-listener-report", 131},	{"mld-listener-done", 132},
	{"mld-listener-reduction", 132}, {"nd-router-solicit", 133},	{"nd-router-advert", 134},
	{"nd-neighbor-solicit", 135},	 {"nd-neighbor-advert", 136},	{"nd-redirect", 137},
	{"router-renumbering", 138},	 {"ind-neighbor-solicit", 141}, {"ind-neighbor-advert", 142},
	{"mld2-listener-report", 143},
};

static const struct word state_words[] = {
	{"new", NFT_NEW},	  {"established", NFT_ESTABLISHED}, {"related", NFT_RELATED},
	{"invalid", NFT_INVALID}, {"untracked", NFT_UNTRACKED},
};

static const struct word family_words[] = {{"ipv4", NFT_V4}, {"ip", NFT_V4}, {"ipv6", NFT_V6}, {"ip6", NFT_V6}};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
	const struct word *words;
	size_t n;
	unsigned max; /* of a number */
} kinds[] = {
	[VALUE_PORT] = {NULL, 0, 65535},
	[VALUE_PROTOCOL] = {protocol_words, COUNT(protocol_words), 255},
	[VALUE_ICMP] = {icmp_words, COUNT(icmp_words), 255},
	[VALUE_ICMP6] = {icmp6_words, COUNT(icmp6_words), 255},
	[VALUE_STATE] = {state_words, COUNT(state_words), 0},
	[VALUE_FAMILY] = {family_words, COUNT(family_words), 0},
};

/* One value that is not an address. */
static bool read_number(const json_t *value, enum value_kind kind, address *numberp)
{
	const char *text = json_string_value(value);

	if (json_is_integer(value) && kinds[kind].max) {
		json_int_t number = json_integer_value(value);

		*numberp = (address)number;
		return number >= 0 && number <= kinds[kind].max;
	}
	for (size_t i = 0; text && i < kinds[kind].n; i++)
		if (strcmp(text, kinds[kind].words[i].name) == 0) {
			*numberp = kinds[kind].words[i].value;
			return true;
		}
	return false;
}

static bool read_one(const json_t *value, enum value_kind kind, address *numberp)
{
	const char *text = json_string_value(value);

	if (kind != VALUE_V4 && kind != VALUE_V6)
		return read_number(value, kind, numberp);
	return text && !strchr(text, '/') && !strchr(text, ':') == (kind == VALUE_V4) &&
	       address_parse(numberp, text, strlen(text)) == ADDRESS_OK &&
	       address_is_v4(*numberp) == (kind == VALUE_V4);
}

static bool read_prefix(const json_t *prefix, enum value_kind kind, struct nft_span *span)
{
	const char *text = json_string_value(json_object_get(prefix, "addr"));
	json_int_t len = json_integer_value(json_object_get(prefix, "len"));
	char block[ADDRESS_TEXT_BYTES];
	struct address_range range;
	int n;

	if (!text || !json_is_integer(json_object_get(prefix, "len")) || len < 0 || len > 128)
		return false;
	n = snprintf(block, sizeof(block), "%s/%d", text, (int)len);
	if (n < 0 || (size_t)n >= sizeof(block) || address_range_parse(&range, block) != ADDRESS_OK ||
	    range.v4 != (kind == VALUE_V4))
		return false;
	*span = (struct nft_span){range.first, range.last};
	return true;
}

struct spans {
	struct nft_span *items;
	size_t n, capacity;
};

static void spans_free(struct spans *spans)
{
	free(spans->items);
}

/* A value that is no set: one, a prefix, a range, or an element with trimmings. Returns NULL or why not. */
static const char *read_value(const json_t *value, enum value_kind kind, struct spans *spans)
{
	const json_t *element = json_object_get(value, "elem"), *range = json_object_get(value, "range");
	struct nft_span span;
	bool ok;

	if (element) {
		/* fail2ban and its like: what is in the set now says little. */
		if (json_object_get(element, "timeout") || json_object_get(element, "expires"))
			return "an element that expires";
		value = json_object_get(element, "val");
		range = json_object_get(value, "range");
	}
	if (range)
		ok = json_array_size(range) == 2 && read_one(json_array_get(range, 0), kind, &span.first) &&
		     read_one(json_array_get(range, 1), kind, &span.last) && span.first <= span.last;
	else if (json_object_get(value, "prefix") && (kind == VALUE_V4 || kind == VALUE_V6))
		ok = read_prefix(json_object_get(value, "prefix"), kind, &span);
	else
		ok = read_one(value, kind, &span.first) && (span.last = span.first, true);
	if (!ok)
		return "a value that is not understood";
	if (array_grow(&spans->items, &spans->capacity, spans->n, sizeof(span)) < 0)
		return "out of memory";
	spans->items[spans->n++] = span;
	return NULL;
}

const json_t *nft_elements(const struct nft_matcher *matcher, const json_t *value, const char **whyp)
{
	const char *name = json_string_value(value), *key;
	const json_t *set, *flags;
	size_t i;
	json_t *flag;

	*whyp = NULL;
	if (!name)
		return json_object_get(value, "set");
	if (name[0] != '@')
		return NULL;
	key = arena_printf(matcher->arena, "%s %s %s", matcher->family, matcher->table, name + 1);
	set = key ? json_object_get(matcher->sets, key) : NULL;
	if (!set) {
		*whyp = "no such set";
		return NULL;
	}
	flags = json_object_get(set, "flags");
	json_array_foreach(flags, i,
			   flag) if (json_string_value(flag) && (strcmp(json_string_value(flag), "timeout") == 0 ||
								 strcmp(json_string_value(flag), "dynamic") == 0))
	{
		*whyp = "a set whose elements come and go";
		return NULL;
	}
	return json_object_get(set, "elem");
}

/* A value, or a set of them: the spans it stands for. Returns NULL or why not. */
static const char *read_values(const struct nft_matcher *matcher, const json_t *value, enum value_kind kind,
			       struct nft_set *set)
{
	_cleanup_(spans_free) struct spans spans = {};
	const char *why = NULL, *name = json_string_value(value);
	const json_t *elements = nft_elements(matcher, value, &why);
	struct nft_span *kept;
	json_t *element;
	size_t i;

	if (why)
		return why;
	/* A list without a set is one of flags, as of `ct state`. */
	if (!elements && json_is_array(value))
		elements = value;
	/* A named set that is empty has no elements at all. */
	if (!elements && !(name && name[0] == '@'))
		why = read_value(value, kind, &spans);
	json_array_foreach(elements, i, element)
	{
		if (!why)
			why = read_value(element, kind, &spans);
	}
	if (why)
		return why;
	kept = arena_copy(matcher->arena, spans.items, spans.n * sizeof(*spans.items));
	*set = nft_set_of(kept, kept ? spans.n : 0);
	return NULL;
}

/* What stands in a relation to the values, within `whole`. Returns NULL or why not. */
static const char *read_relation(const struct nft_matcher *matcher, const char *op, const json_t *right,
				 enum value_kind kind, struct nft_set whole, struct nft_set *set)
{
	const char *why = read_values(matcher, right, kind, set);
	struct nft_span *span;

	if (why)
		return why;
	if (strcmp(op, "==") == 0 || strcmp(op, "in") == 0)
		return NULL;
	if (strcmp(op, "!=") == 0) {
		*set = nft_set_subtract(matcher->arena, whole, *set);
		return NULL;
	}
	span = arena_alloc(matcher->arena, sizeof(*span));
	if (!span || set->n != 1 || set->items[0].first != set->items[0].last || whole.n != 1)
		return "a relation that is not understood";
	*span = whole.items[0];
	if (strcmp(op, "<=") == 0 || strcmp(op, "<") == 0)
		span->last = set->items[0].last;
	else if (strcmp(op, ">=") == 0 || strcmp(op, ">") == 0)
		span->first = set->items[0].first;
	else
		return "a relation that is not understood";
	*set = (struct nft_set){span, 1};
	/* "<" and ">" leave out the number itself. */
	if (!op[1])
		*set = nft_set_subtract(matcher->arena, *set,
					(struct nft_set){&(struct nft_span){op[0] == '<' ? span->last : span->first,
									    op[0] == '<' ? span->last : span->first},
							 1});
	return NULL;
}

/* ---- fields ---- */

static void narrow_end(const struct nft_matcher *matcher, struct nft_box *box, enum nft_end end, struct nft_set set)
{
	box->ends[end] = nft_set_intersect(matcher->arena, box->ends[end], set);
	box->set_names[end] = NULL;
}

static void narrow_family(const struct nft_matcher *matcher, struct nft_box *box, enum nft_family family)
{
	struct nft_set set = nft_set_addresses(family);

	for (enum nft_end end = NFT_SOURCE; end <= NFT_DESTINATION; end++)
		if (!nft_set_equal(nft_set_intersect(matcher->arena, box->ends[end], set), box->ends[end]))
			narrow_end(matcher, box, end, set);
}

static void narrow_services(const struct nft_matcher *matcher, struct nft_box *box, struct nft_set set)
{
	box->services = nft_set_intersect(matcher->arena, box->services, set);
}

static const char *match_address(const struct nft_matcher *matcher, struct nft_box *box, bool v4, enum nft_end end,
				 const char *op, const json_t *right)
{
	enum nft_family family = v4 ? NFT_V4 : NFT_V6;
	const char *name = json_string_value(right), *why;
	struct nft_set set, before;

	why = read_relation(matcher, op, right, v4 ? VALUE_V4 : VALUE_V6, nft_set_addresses(family), &set);
	if (why)
		return why;
	narrow_family(matcher, box, family);
	before = box->ends[end];
	narrow_end(matcher, box, end, set);
	if (name && name[0] == '@' && strcmp(op, "!=") != 0 && nft_set_equal(before, nft_set_addresses(family)))
		box->set_names[end] = name + 1;
	return NULL;
}

/* Moves numbers to where a protocol has them on the line of services. */
static struct nft_set shift(const struct nft_matcher *matcher, struct nft_set set, uint32_t base)
{
	struct nft_span *spans = arena_array(matcher->arena, set.n, sizeof(*spans));

	for (size_t i = 0; spans && i < set.n; i++)
		spans[i] = (struct nft_span){set.items[i].first + base, set.items[i].last + base};
	return (struct nft_set){spans, spans ? set.n : 0};
}

static const struct numbers {
	const char *protocol;
	const char *field;
	enum value_kind kind;
	uint32_t base;
	unsigned last;
} numbers[] = {
	{"tcp", "dport", VALUE_PORT, SERVICE_TCP, 65535},    {"udp", "dport", VALUE_PORT, SERVICE_UDP, 65535},
	{"sctp", "dport", VALUE_PORT, SERVICE_SCTP, 65535},  {"icmp", "type", VALUE_ICMP, SERVICE_ICMP, 255},
	{"icmpv6", "type", VALUE_ICMP6, SERVICE_ICMP6, 255},
};

static const char *match_numbers(const struct nft_matcher *matcher, struct nft_box *box, const struct numbers *field,
				 const char *op, const json_t *right)
{
	const struct nft_set whole = {&(struct nft_span){0, field->last}, 1};
	struct nft_set set;
	const char *why = read_relation(matcher, op, right, field->kind, whole, &set);

	if (!why)
		narrow_services(matcher, box, shift(matcher, set, field->base));
	return why;
}

/* `th dport`: the port of whatever transport, which must be known by then. */
static const char *match_transport(const struct nft_matcher *matcher, struct nft_box *box, const char *op,
				   const json_t *right)
{
	const struct nft_set whole = {&(struct nft_span){0, 65535}, 1};
	const struct nft_set transports = {&(struct nft_span){SERVICE_TCP, SERVICE_ICMP - 1}, 1};
	struct nft_span *spans;
	struct nft_set set;
	const char *why = read_relation(matcher, op, right, VALUE_PORT, whole, &set);

	if (why)
		return why;
	if (nft_set_subtract(matcher->arena, box->services, transports).n)
		return "`th` without `meta l4proto` before it, of tcp, udp or sctp";
	spans = arena_array(matcher->arena, set.n * 3, sizeof(*spans));
	for (size_t i = 0; spans && i < set.n * 3; i++)
		spans[i] = (struct nft_span){set.items[i / 3].first + (i % 3) * 65536,
					     set.items[i / 3].last + (i % 3) * 65536};
	narrow_services(matcher, box, nft_set_of(spans, spans ? set.n * 3 : 0));
	return NULL;
}

/* Where a protocol lies on the line of services. */
static struct nft_span span_of_protocol(unsigned protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return (struct nft_span){SERVICE_TCP, SERVICE_UDP - 1};
	case IPPROTO_UDP:
		return (struct nft_span){SERVICE_UDP, SERVICE_SCTP - 1};
	case IPPROTO_SCTP:
		return (struct nft_span){SERVICE_SCTP, SERVICE_ICMP - 1};
	case IPPROTO_ICMP:
		return (struct nft_span){SERVICE_ICMP, SERVICE_ICMP6 - 1};
	case IPPROTO_ICMPV6:
		return (struct nft_span){SERVICE_ICMP6, SERVICE_PROTO - 1};
	default:
		return (struct nft_span){SERVICE_PROTO + protocol, SERVICE_PROTO + protocol};
	}
}

static const char *match_protocol(const struct nft_matcher *matcher, struct nft_box *box, const char *op,
				  const json_t *right)
{
	const struct nft_set whole = {&(struct nft_span){0, 255}, 1};
	struct nft_span *spans = arena_array(matcher->arena, 256, sizeof(*spans));
	struct nft_set set;
	const char *why = read_relation(matcher, op, right, VALUE_PROTOCOL, whole, &set);
	size_t n = 0;

	if (why)
		return why;
	for (size_t i = 0; spans && i < set.n; i++)
		for (unsigned p = (unsigned)set.items[i].first; p <= set.items[i].last; p++)
			spans[n++] = span_of_protocol(p);
	narrow_services(matcher, box, nft_set_of(spans, n));
	return NULL;
}

static const char *match_state(const struct nft_matcher *matcher, struct nft_box *box, const char *op,
			       const json_t *right)
{
	struct nft_set set;
	const char *why = read_values(matcher, right, VALUE_STATE, &set);
	unsigned states = 0;

	if (why)
		return why;
	/* Neighbouring numbers were joined to spans: take them apart again. */
	for (size_t i = 0; i < set.n; i++)
		for (unsigned state = 1; state < NFT_ANY_STATE; state <<= 1)
			if (state >= set.items[i].first && state <= set.items[i].last)
				states |= state;
	if (strcmp(op, "!=") == 0)
		states = NFT_ANY_STATE & ~states;
	else if (strcmp(op, "==") != 0 && strcmp(op, "in") != 0)
		return "a relation that is not understood";
	box->states &= states;
	return NULL;
}

static const char *match_family(const struct nft_matcher *matcher, struct nft_box *box, const char *op,
				const json_t *right)
{
	address family;

	if (!read_number(right, VALUE_FAMILY, &family) || (strcmp(op, "==") != 0 && strcmp(op, "!=") != 0))
		return "a value that is not understood";
	if (op[0] == '!')
		family = family == NFT_V4 ? NFT_V6 : NFT_V4;
	narrow_family(matcher, box, (enum nft_family)family);
	return NULL;
}

/* Packets on `lo` go from this host to this host; by address, only those of loopback are known to. */
static const char *match_interface(const struct nft_matcher *matcher, struct nft_box *box, const char *op,
				   const json_t *right)
{
	static const struct nft_span loopback[] = {{1, 1},
						   {ADDRESS_V4_FIRST | 0x7f000000U, ADDRESS_V4_FIRST | 0x7fffffffU}};
	const char *name = json_string_value(right);

	if (!name || strcmp(name, "lo") != 0 || strcmp(op, "==") != 0)
		return "a policy knows no interfaces";
	if (!matcher->lo_by_address)
		return "a policy knows no interfaces; --lo-by-address takes lo for 127.0.0.0/8 and ::1";
	for (enum nft_end end = NFT_SOURCE; end <= NFT_DESTINATION; end++) {
		narrow_end(matcher, box, end, (struct nft_set){loopback, 2});
		if (nft_set_equal(box->ends[end], (struct nft_set){loopback, 2}))
			box->set_names[end] = "loopback";
	}
	return NULL;
}

static bool is_word(const char *text, const char *word)
{
	return text && strcmp(text, word) == 0;
}

static const char *match_payload(const struct nft_matcher *matcher, struct nft_box *box, const json_t *payload,
				 const char *op, const json_t *right)
{
	const char *protocol = json_string_value(json_object_get(payload, "protocol"));
	const char *field = json_string_value(json_object_get(payload, "field"));
	bool v4 = is_word(protocol, "ip");

	if (v4 || is_word(protocol, "ip6")) {
		if (is_word(field, "saddr") || is_word(field, "daddr"))
			return match_address(matcher, box, v4, field[0] == 's' ? NFT_SOURCE : NFT_DESTINATION, op,
					     right);
		if (is_word(field, v4 ? "protocol" : "nexthdr")) {
			narrow_family(matcher, box, v4 ? NFT_V4 : NFT_V6);
			return match_protocol(matcher, box, op, right);
		}
	}
	if (is_word(protocol, "th") && is_word(field, "dport"))
		return match_transport(matcher, box, op, right);
	if (is_word(field, "sport"))
		return "a policy knows no source ports";
	for (size_t i = 0; i < COUNT(numbers); i++)
		if (is_word(protocol, numbers[i].protocol) && is_word(field, numbers[i].field))
			return match_numbers(matcher, box, &numbers[i], op, right);
	return "a policy knows addresses, ports, ICMP types and protocols only";
}

const char *nft_box_match(const struct nft_matcher *matcher, struct nft_box *box, const json_t *left, const char *op,
			  const json_t *right)
{
	const json_t *payload = json_object_get(left, "payload");
	const char *meta = json_string_value(json_object_get(json_object_get(left, "meta"), "key"));
	const char *ct = json_string_value(json_object_get(json_object_get(left, "ct"), "key"));

	if (payload)
		return match_payload(matcher, box, payload, op, right);
	if (is_word(ct, "state"))
		return match_state(matcher, box, op, right);
	if (is_word(meta, "l4proto"))
		return match_protocol(matcher, box, op, right);
	if (is_word(meta, "nfproto") || is_word(meta, "protocol"))
		return match_family(matcher, box, op, right);
	if (is_word(meta, "iif") || is_word(meta, "iifname") || is_word(meta, "oif") || is_word(meta, "oifname"))
		return match_interface(matcher, box, op, right);
	return "a policy knows addresses, ports, ICMP types and protocols only";
}

const char *nft_box_reject(const struct nft_matcher *matcher, struct nft_box *box, const json_t *reject)
{
	static const struct nft_span tcp[] = {{SERVICE_TCP, SERVICE_UDP - 1}};
	const char *type = json_string_value(json_object_get(reject, "type"));

	if (!type || strcmp(type, "icmpx") == 0)
		return NULL;
	if (strcmp(type, "icmp") == 0)
		narrow_family(matcher, box, NFT_V4);
	else if (strcmp(type, "icmpv6") == 0)
		narrow_family(matcher, box, NFT_V6);
	else if (strcmp(type, "tcp reset") == 0)
		narrow_services(matcher, box, (struct nft_set){tcp, 1});
	else
		return "a kind of rejection that is not understood";
	return NULL;
}

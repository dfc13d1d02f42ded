/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <stdlib.h>

#include "cli/nft_sets.h"

#define LAST_ADDRESS (~(address)0)

struct nft_set nft_set_addresses(enum nft_family family)
{
	static const struct nft_span v4[] = {{ADDRESS_V4_FIRST, ADDRESS_V4_LAST}};
	static const struct nft_span v6[] = {{0, ADDRESS_V4_FIRST - 1}, {ADDRESS_V4_LAST + 1, LAST_ADDRESS}};
	static const struct nft_span both[] = {{0, LAST_ADDRESS}};

	switch (family) {
	case NFT_V4:
		return (struct nft_set){v4, 1};
	case NFT_V6:
		return (struct nft_set){v6, 2};
	case NFT_BOTH:
		break;
	}
	return (struct nft_set){both, 1};
}

struct nft_set nft_set_services(void)
{
	static const struct nft_span all[] = {{0, SERVICE_END - 1}};

	return (struct nft_set){all, 1};
}

static int by_first(const void *a, const void *b)
{
	const struct nft_span *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

struct nft_set nft_set_of(struct nft_span *spans, size_t n)
{
	size_t kept = 0;

	if (!n)
		return (struct nft_set){};
	qsort(spans, n, sizeof(*spans), by_first);
	for (size_t i = 1; i < n; i++) {
		struct nft_span *last = &spans[kept];

		if (last->last != LAST_ADDRESS && spans[i].first > last->last + 1)
			spans[++kept] = spans[i];
		else if (spans[i].last > last->last)
			last->last = spans[i].last;
	}
	return (struct nft_set){spans, kept + 1};
}

struct nft_set nft_set_intersect(struct arena *arena, struct nft_set a, struct nft_set b)
{
	struct nft_span *out = arena_array(arena, a.n + b.n, sizeof(*out));
	size_t n = 0;

	for (size_t i = 0, j = 0; out && i < a.n && j < b.n;) {
		address first = a.items[i].first > b.items[j].first ? a.items[i].first : b.items[j].first;
		address last = a.items[i].last < b.items[j].last ? a.items[i].last : b.items[j].last;

		if (first <= last)
			out[n++] = (struct nft_span){first, last};
		if (a.items[i].last < b.items[j].last)
			i++;
		else
			j++;
	}
	return (struct nft_set){out, n};
}

struct nft_set nft_set_subtract(struct arena *arena, struct nft_set a, struct nft_set b)
{
	struct nft_span *out = arena_array(arena, a.n + b.n, sizeof(*out));
	size_t n = 0, j = 0;

	for (size_t i = 0; out && i < a.n; i++) {
		address first = a.items[i].first, last = a.items[i].last;
		bool left = true;

		while (j < b.n && b.items[j].last < first)
			j++;
		for (size_t k = j; left && k < b.n && b.items[k].first <= last; k++) {
			if (b.items[k].first > first)
				out[n++] = (struct nft_span){first, b.items[k].first - 1};
			left = b.items[k].last < last;
			first = left ? b.items[k].last + 1 : first;
		}
		if (left)
			out[n++] = (struct nft_span){first, last};
	}
	return (struct nft_set){out, n};
}

bool nft_set_equal(struct nft_set a, struct nft_set b)
{
	for (size_t i = 0; i < a.n && a.n == b.n; i++)
		if (a.items[i].first != b.items[i].first || a.items[i].last != b.items[i].last)
			return false;
	return a.n == b.n;
}

/* The blocks of one span within a family, of which there are two for each bit at most. */
static size_t blocks_of(struct nft_span span, bool v4, struct address_range *out)
{
	address first = span.first;
	size_t n = 0;

	for (bool more = true; more; n++) {
		unsigned bits;
		address last = address_block(first, span.last, &bits);

		out[n] = (struct address_range){first, last, v4};
		more = last < span.last;
		first = last + 1;
	}
	return n;
}

size_t nft_set_blocks(struct arena *arena, struct nft_set set, struct address_range **rangesp)
{
	struct nft_set v4 = nft_set_intersect(arena, set, nft_set_addresses(NFT_V4));
	struct nft_set v6 = nft_set_intersect(arena, set, nft_set_addresses(NFT_V6));
	struct nft_set whole = nft_set_addresses(NFT_V6);
	struct address_range blocks[512];
	size_t n = 0, count = 0;

	/* `::/0` is all of IPv6 and none of IPv4: a hole of ours, not of IPv6. */
	if (nft_set_equal(v6, whole))
		v6 = nft_set_addresses(NFT_BOTH);
	for (int pass = 0; pass < 2; pass++) {
		n = 0;
		for (size_t i = 0; i < v4.n + v6.n; i++) {
			bool is_v4 = i < v4.n;
			size_t more = blocks_of(is_v4 ? v4.items[i] : v6.items[i - v4.n], is_v4, blocks);

			for (size_t j = 0; pass && j < more; j++)
				(*rangesp)[n + j] = blocks[j];
			n += more;
		}
		if (!pass) {
			count = n;
			*rangesp = arena_array(arena, count, sizeof(**rangesp));
			if (!*rangesp)
				return 0;
		}
	}
	return n;
}

/* The parts of the line of services that one range of a rule may lie in. Protocols that have a name have no number there. */
static const struct part {
	uint32_t first;
	uint32_t last;
	bool ports;
} parts[] = {
	{SERVICE_TCP, SERVICE_UDP - 1, true},
	{SERVICE_UDP, SERVICE_SCTP - 1, true},
	{SERVICE_SCTP, SERVICE_ICMP - 1, true},
	{SERVICE_ICMP, SERVICE_ICMP6 - 1, false},
	{SERVICE_ICMP6, SERVICE_PROTO - 1, false},
	{SERVICE_PROTO, SERVICE_PROTO, false},
	{SERVICE_PROTO + IPPROTO_ICMP + 1, SERVICE_PROTO + IPPROTO_TCP - 1, false},
	{SERVICE_PROTO + IPPROTO_TCP + 1, SERVICE_PROTO + IPPROTO_UDP - 1, false},
	{SERVICE_PROTO + IPPROTO_UDP + 1, SERVICE_PROTO + IPPROTO_ICMPV6 - 1, false},
	{SERVICE_PROTO + IPPROTO_ICMPV6 + 1, SERVICE_PROTO + IPPROTO_SCTP - 1, false},
	{SERVICE_PROTO + IPPROTO_SCTP + 1, SERVICE_END - 1, false},
};
#define N_PARTS (sizeof(parts) / sizeof(parts[0]))

uint32_t nft_set_ranges(struct arena *arena, struct nft_set set, struct service_range **rangesp)
{
	struct service_range *out = arena_array(arena, set.n + N_PARTS, sizeof(*out));
	uint32_t n = 0;

	*rangesp = out;
	for (size_t i = 0; out && i < set.n; i++)
		for (size_t p = 0; p < N_PARTS; p++) {
			uint32_t first = (uint32_t)set.items[i].first, last = (uint32_t)set.items[i].last;

			first = first > parts[p].first ? first : parts[p].first;
			last = last < parts[p].last ? last : parts[p].last;
			if (parts[p].ports && first == parts[p].first)
				first++;
			if (first <= last)
				out[n++] = (struct service_range){first, last};
		}
	return n;
}

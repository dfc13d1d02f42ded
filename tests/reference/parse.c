/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/reference/parse.h"

#include <stdbool.h>
#include <string.h>

enum {
	HOP_BY_HOP = 0,
	ICMP = 1,
	TCP = 6,
	UDP = 17,
	ROUTING = 43,
	FRAGMENT = 44,
	ICMP6 = 58,
	NO_NEXT = 59,
	DESTINATION = 60,
	SCTP = 132,
};

/* ---- the parser ---- */

struct view {
	const uint8_t *bytes;
	size_t len;   /* of what is there */
	size_t at;    /* of the header looked at */
	size_t claim; /* where the IP header says that the packet ends */
	bool v6;
};

static uint16_t get16(const struct view *v, size_t at)
{
	return (uint16_t)(v->bytes[v->at + at] << 8 | v->bytes[v->at + at + 1]);
}

static bool has(const struct view *v, size_t n)
{
	return v->at + n <= v->len;
}

static struct parse_result refuse(enum bh_reason reason)
{
	return (struct parse_result){.reason = reason};
}

/* RFC 9293, RFC 768, RFC 792, RFC 4443, RFC 9260. */
static struct parse_result parse_transport(const struct view *v, struct parse_result r)
{
	const uint8_t *h = v->bytes + v->at;
	size_t header;

	r.transport = (uint32_t)v->at;
	switch (r.proto) {
	case TCP:
		if (!has(v, 20))
			return refuse(BH_REASON_PARSE);
		header = (size_t)(h[12] >> 4) * 4;
		if (header < 20 || v->at + header > v->claim)
			return refuse(BH_REASON_PARSE);
		r.sport = get16(v, 0);
		r.dport = get16(v, 2);
		memcpy(&r.seq, h + 4, 4);
		memcpy(&r.ack, h + 8, 4);
		r.tcp_header = (uint8_t)header;
		r.tcp_flags = h[13];
		r.payload_len = (uint32_t)(v->claim - v->at - header);
		return r;
	case UDP:
		if (!has(v, 8))
			return refuse(BH_REASON_PARSE);
		r.sport = get16(v, 0);
		r.dport = get16(v, 2);
		return r;
	default:
		break;
	}
	if (v->claim != v->len || v->at > v->len || r.proto == NO_NEXT)
		return refuse(BH_REASON_PARSE);
	if (r.proto == ICMP || r.proto == ICMP6) {
		if ((r.proto == ICMP6) != v->v6 || !has(v, 8))
			return refuse(BH_REASON_PARSE);
		r.icmp_type = h[0];
		r.sport = get16(v, 4);
	}
	if (r.proto == SCTP) {
		if (!has(v, 12))
			return refuse(BH_REASON_PARSE);
		r.sport = get16(v, 0);
		r.dport = get16(v, 2);
	}
	return r;
}

/* RFC 791. */
static struct parse_result parse_ipv4(struct view *v)
{
	struct parse_result r = {};

	if (!has(v, 20) || v->bytes[0] != 0x45)
		return refuse(BH_REASON_PARSE);
	if (get16(v, 6) & 0x3fff) /* more fragments, or an offset */
		return refuse(BH_REASON_FRAGMENT);
	v->claim = get16(v, 2);
	r.proto = v->bytes[9];
	r.src.w[2] = r.dst.w[2] = __builtin_bswap32(0xffff);
	memcpy(&r.src.w[3], v->bytes + 12, 4);
	memcpy(&r.dst.w[3], v->bytes + 16, 4);
	v->at = 20;
	return parse_transport(v, r);
}

/* RFC 8200. */
static struct parse_result parse_ipv6(struct view *v)
{
	struct parse_result r = {};
	unsigned extensions = 0;
	uint8_t next;

	if (!has(v, 40) || v->bytes[0] >> 4 != 6)
		return refuse(BH_REASON_PARSE);
	v->v6 = true;
	v->claim = 40U + get16(v, 4);
	memcpy(&r.src, v->bytes + 8, 16);
	memcpy(&r.dst, v->bytes + 24, 16);
	next = v->bytes[6];
	v->at = 40;
	while (next == HOP_BY_HOP || next == ROUTING || next == DESTINATION) {
		const uint8_t *h = v->bytes + v->at;

		if (extensions == 8 || !has(v, 8) || (next == HOP_BY_HOP && extensions) || (next == ROUTING && h[3]))
			return refuse(BH_REASON_PARSE);
		extensions++;
		next = h[0];
		v->at += 8U + h[1] * 8U;
	}
	if (next == FRAGMENT)
		return refuse(BH_REASON_FRAGMENT);
	r.proto = next;
	return parse_transport(v, r);
}

struct parse_result ref_parse(const struct ref_packet *packet)
{
	struct view v = {.bytes = packet->bytes, .len = packet->len};

	if (packet->ethertype == 0x0800)
		return parse_ipv4(&v);
	if (packet->ethertype == 0x86dd)
		return parse_ipv6(&v);
	return refuse(BH_REASON_PROTO);
}

/* ---- packets ---- */

static uint8_t *append(struct ref_packet *packet, size_t n)
{
	uint8_t *at = packet->bytes + packet->len;

	memset(at, 0, n);
	packet->len += n;
	return at;
}

void ref_packet_ipv6(struct ref_packet *packet, uint8_t next)
{
	*packet = (struct ref_packet){.ethertype = 0x86dd};
	uint8_t *h = append(packet, 40);

	h[0] = 0x60;
	h[6] = next;
	h[7] = 64;
	h[8] = 0xfd;
	h[23] = 1;
	h[24] = 0xfd;
	h[39] = 2;
}

void ref_packet_ipv4(struct ref_packet *packet, uint8_t protocol)
{
	*packet = (struct ref_packet){.ethertype = 0x0800};
	uint8_t *h = append(packet, 20);

	h[0] = 0x45;
	h[8] = 64;
	h[9] = protocol;
	memcpy(h + 12, (const uint8_t[]){10, 77, 0, 1, 10, 77, 0, 2}, 8);
}

void ref_packet_extension(struct ref_packet *packet, uint8_t kind, uint8_t next, unsigned units)
{
	uint8_t *h = append(packet, units * 8);

	h[0] = next;
	h[1] = (uint8_t)(units - 1);
	if (kind == ROUTING || kind == FRAGMENT)
		return;
	h[2] = 1; /* PadN over the rest; it holds 255 bytes at most */
	h[3] = (uint8_t)(units * 8 - 4);
}

void ref_packet_transport(struct ref_packet *packet, uint8_t protocol)
{
	uint8_t *h;

	switch (protocol) {
	case TCP:
		h = append(packet, 24);
		h[12] = 0x50;
		h[13] = 0x12;
		h[7] = 9;
		h[11] = 8;
		break;
	case UDP:
		h = append(packet, 12);
		h[5] = 12;
		break;
	case ICMP:
	case ICMP6:
		h = append(packet, 12);
		h[0] = protocol == ICMP ? 8 : 128;
		break;
	default:
		h = append(packet, 12);
		break;
	}
	h[0] = protocol == ICMP || protocol == ICMP6 ? h[0] : 0x12;
	h[3] = 0x34;
}

void ref_packet_finish(struct ref_packet *packet)
{
	size_t len = packet->ethertype == 0x86dd ? packet->len - 40 : packet->len;
	uint8_t *at = packet->bytes + (packet->ethertype == 0x86dd ? 4 : 2);

	at[0] = (uint8_t)(len >> 8);
	at[1] = (uint8_t)len;
}

/* xorshift64* */
static uint32_t draw(uint64_t *seed, uint32_t below)
{
	uint64_t x = *seed;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*seed = x;
	return (uint32_t)((x * 0x2545f4914f6cdd1dULL) >> 32) % below;
}

static uint8_t draw_protocol(uint64_t *seed)
{
	static const uint8_t known[] = {TCP, UDP, ICMP, ICMP6, SCTP, 47, 50, 51, 136, NO_NEXT, FRAGMENT, 135, 4, 41, 0};

	return draw(seed, 8) ? known[draw(seed, sizeof(known))] : (uint8_t)draw(seed, 256);
}

static void draw_ipv6(struct ref_packet *packet, uint64_t *seed)
{
	static const uint8_t kinds[] = {DESTINATION, ROUTING, DESTINATION, ROUTING, DESTINATION, HOP_BY_HOP, FRAGMENT};
	unsigned n = draw(seed, 3) ? draw(seed, 3) : draw(seed, 12);
	uint8_t kind[12], last = draw_protocol(seed);

	for (unsigned i = 0; i < n; i++)
		kind[i] = draw(seed, 12) ? kinds[draw(seed, 5)] : kinds[draw(seed, sizeof(kinds))];
	if (n && !draw(seed, 3))
		kind[0] = HOP_BY_HOP;
	ref_packet_ipv6(packet, n ? kind[0] : last);
	for (unsigned i = 0; i < n; i++) {
		ref_packet_extension(packet, kind[i], i + 1 < n ? kind[i + 1] : last, 1 + draw(seed, 3));
		if (kind[i] == ROUTING && !draw(seed, 20))
			packet->bytes[packet->len - 5] = 1; /* of one with 8 bytes: segments left */
	}
	ref_packet_transport(packet, last);
}

void ref_packet_random(struct ref_packet *packet, uint64_t *seed)
{
	uint8_t protocol = draw_protocol(seed);

	if (draw(seed, 4)) {
		draw_ipv6(packet, seed);
	} else {
		ref_packet_ipv4(packet, protocol);
		ref_packet_transport(packet, protocol);
	}
	append(packet, draw(seed, 20));
	ref_packet_finish(packet);
	/* Every other one is damaged: cut, longer, or with other bytes where headers stand. */
	if (draw(seed, 2))
		return;
	if (!draw(seed, 3))
		packet->len = 20 + draw(seed, (uint32_t)packet->len - 19);
	if (!draw(seed, 6))
		append(packet, 1 + draw(seed, 9));
	for (unsigned i = draw(seed, 4); i; i--)
		packet->bytes[draw(seed, (uint32_t)packet->len)] = (uint8_t)draw(seed, 256);
	if (!draw(seed, 30))
		packet->ethertype = draw(seed, 2) ? (uint16_t)(0x0800 ^ 0x86dd ^ packet->ethertype) : (uint16_t)0x88b5;
}

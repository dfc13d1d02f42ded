/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "policy/address.h"

static address from_bytes(const unsigned char bytes[16])
{
	address a = 0;

	for (int i = 0; i < 16; i++)
		a = a << 8 | bytes[i];
	return a;
}

static enum address_problem parse_either(address *ap, bool *v4p, const char *text, size_t len)
{
	char copy[INET6_ADDRSTRLEN + 1];
	unsigned char bytes[16];
	struct in_addr v4;

	if (memchr(text, '%', len))
		return ADDRESS_ZONE;
	if (!len || len > INET6_ADDRSTRLEN)
		return ADDRESS_INVALID;
	memcpy(copy, text, len);
	copy[len] = 0;
	*v4p = !memchr(text, ':', len);
	if (*v4p) {
		if (inet_pton(AF_INET, copy, &v4) != 1)
			return ADDRESS_INVALID;
		*ap = ADDRESS_V4_FIRST | ntohl(v4.s_addr);
		return ADDRESS_OK;
	}
	if (inet_pton(AF_INET6, copy, bytes) != 1)
		return ADDRESS_INVALID;
	*ap = from_bytes(bytes);
	return ADDRESS_OK;
}

/* Digits only, no leading zero, at most `max`. */
static bool parse_prefix(unsigned *prefixp, const char *text, unsigned max)
{
	unsigned value = 0;

	if (!*text || (text[0] == '0' && text[1]))
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (unsigned)(*text - '0');
		if (value > max)
			return false;
	}
	*prefixp = value;
	return true;
}

enum address_problem address_range_parse(struct address_range *range, const char *text)
{
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	enum address_problem problem;
	unsigned bits, prefix;
	address host;

	problem = parse_either(&range->first, &range->v4, text, len);
	if (problem != ADDRESS_OK)
		return problem;
	bits = prefix = range->v4 ? 32 : 128;
	if (slash && !parse_prefix(&prefix, slash + 1, bits))
		return ADDRESS_PREFIX;
	host = prefix == 0 && bits == 128 ? ~(address)0 : ((address)1 << (bits - prefix)) - 1;
	range->last = range->first | host;
	if (!range->v4 && address_is_v4(range->first) && prefix >= 96)
		return ADDRESS_MAPPED;
	if (!(range->first & host))
		return ADDRESS_OK;
	range->first &= ~host;
	return ADDRESS_HOST_BITS;
}

enum address_problem address_parse(address *addressp, const char *text, size_t len)
{
	bool v4;

	return parse_either(addressp, &v4, text, len);
}

void address_format(char *out, address a, bool v4, unsigned prefix)
{
	char text[INET6_ADDRSTRLEN];
	unsigned char bytes[16];
	struct in_addr addr4 = {htonl((uint32_t)a)};

	for (int i = 15; i >= 0; i--, a >>= 8)
		bytes[i] = (unsigned char)a;
	if (v4)
		inet_ntop(AF_INET, &addr4, text, sizeof(text));
	else
		inet_ntop(AF_INET6, bytes, text, sizeof(text));
	snprintf(out, ADDRESS_TEXT_BYTES, "%s/%u", text, prefix);
}

address address_block(address first, address last, unsigned *bitsp)
{
	address size = 0; /* less one: the whole of IPv6 has no size */

	for (*bitsp = 0; *bitsp < 128; ++*bitsp) {
		address larger = size << 1 | 1;

		if (first & larger || last - first < larger)
			break;
		size = larger;
	}
	return first + size;
}

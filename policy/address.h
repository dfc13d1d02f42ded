/* SPDX-License-Identifier: Apache-2.0 */
/*
 * address.h - addresses and CIDR blocks. An address is one number of 128 bits; IPv4 lies in ::ffff:0:0/96 as in abi_flow.h,
 * but a range belongs to one family: `::/0` is all of IPv6 and none of IPv4.
 */
#ifndef BULKHEAD_POLICY_ADDRESS_H
#define BULKHEAD_POLICY_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned __int128 address;

#define ADDRESS_V4_FIRST ((address)0xffff << 32)
#define ADDRESS_V4_LAST (ADDRESS_V4_FIRST | 0xffffffffU)

struct address_range {
	address first;
	address last;
	bool v4;
};

enum address_problem {
	ADDRESS_OK,
	ADDRESS_INVALID,   /* neither address nor CIDR */
	ADDRESS_PREFIX,	   /* prefix length out of range */
	ADDRESS_HOST_BITS, /* bits set behind the prefix; the range is the block that was meant */
	ADDRESS_MAPPED,	   /* IPv4-mapped IPv6 */
	ADDRESS_ZONE,	   /* fe80::1%eth0 */
};

/* An address, or a CIDR block. */
enum address_problem address_range_parse(struct address_range *range, const char *text);
/* One address; IPv4-mapped is the IPv4 address. */
enum address_problem address_parse(address *addressp, const char *text, size_t len);
static inline bool address_is_v4(address a)
{
	return a >= ADDRESS_V4_FIRST && a <= ADDRESS_V4_LAST;
}
/* The last address of the largest CIDR block that begins with `first` and does not reach beyond `last`. *bitsp: how many bits
 * stand behind its prefix. */
address address_block(address first, address last, unsigned *bitsp);
/* Writes a CIDR block; `out` has ADDRESS_TEXT_BYTES. */
#define ADDRESS_TEXT_BYTES 64U
void address_format(char *out, address a, bool v4, unsigned prefix);

#endif

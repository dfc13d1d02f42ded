/* SPDX-License-Identifier: Apache-2.0 */
#include "spiffe_id_fault.h"

#include <string.h>

#define SCHEME "spiffe://"
#define SCHEME_LEN (sizeof(SCHEME) - 1)
#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define OTHERS "0123456789.-_"

/* The first byte from `at` on that is in `set`, or, with `others`, that is not; `len` if there is none. */
static size_t find(const char *id, size_t len, size_t at, const char *set, int others)
{
	while (at < len && (id[at] != '\0' && strchr(set, id[at]) != NULL) == others)
		at++;
	return at;
}

static size_t scheme_fault(const char *id, size_t len)
{
	size_t at = 0;

	while (at < len && at < SCHEME_LEN && id[at] == SCHEME[at])
		at++;
	return at;
}

/* The '/' at which an empty or dotted segment begins is that segment's; its first byte is behind. */
static size_t segment_fault(const char *id, size_t len, size_t at, int rule)
{
	while (at < len) {
		size_t begin = at + 1, end = find(id, len, begin, "/", 0);
		size_t n = end - begin;

		if (rule == 13 ? n == 0 : (n == 1 || n == 2) && strspn(id + begin, ".") >= n)
			return begin;
		at = end;
	}
	return len;
}

size_t spiffe_id_fault(const char *id, size_t len, int rule)
{
	size_t path = find(id, len, SCHEME_LEN, "/", 0), bracket = find(id, path, SCHEME_LEN, "[", 0);

	switch (rule) {
	case 1:
	case 8:
		return scheme_fault(id, len);
	case 3:
		return find(id, len, SCHEME_LEN, "?", 0);
	case 4:
		return find(id, len, SCHEME_LEN, "#", 0);
	case 5:
		return find(id, path, SCHEME_LEN, "@", 0);
	case 6:
		return find(id, path, SCHEME_LEN, ":", 0);
	case 7:
		return find(id, path, SCHEME_LEN, UPPER, 0);
	case 9:
		return bracket < path ? bracket : find(id, path, SCHEME_LEN, LOWER OTHERS, 1);
	case 10:
		return find(id, path, SCHEME_LEN, "%", 0);
	case 12:
		return find(id, len, path, "%", 0);
	case 13:
	case 14:
		return segment_fault(id, len, path, rule);
	case 15:
		return len - 1;
	case 16:
		return find(id, len, path, LOWER UPPER OTHERS "/", 1);
	case 18:
		return SPIFFE_ID_MAX;
	case 19:
		return SCHEME_LEN + SPIFFE_TRUST_DOMAIN_MAX;
	case 29:
		return len;
	default: /* 2: where the trust domain would be */
		return SCHEME_LEN < len ? SCHEME_LEN : len;
	}
}

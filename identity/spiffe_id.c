/* SPDX-License-Identifier: Apache-2.0 */
#include "spiffe_id.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#define SCHEME "spiffe://"
#define SCHEME_LEN (sizeof(SCHEME) - 1)

static bool is_lower_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_upper(char c)
{
	return c >= 'A' && c <= 'Z';
}

static bool is_mark(char c)
{
	return c == '.' || c == '-' || c == '_';
}

/* The most telling rule first: `user:pw@td` is about userinfo, not about a port. */
int spiffe_trust_domain_check(const char *name, size_t len)
{
	if (len == 0)
		return 2;
	if (memchr(name, '@', len) != NULL)
		return 5;
	if (memchr(name, '[', len) != NULL)
		return 9;
	if (memchr(name, ':', len) != NULL)
		return 6;
	if (memchr(name, '%', len) != NULL)
		return 10;
	for (size_t i = 0; i < len; i++) {
		if (is_upper(name[i]))
			return 7;
		if (!is_lower_or_digit(name[i]) && !is_mark(name[i]))
			return 9;
	}
	return len > SPIFFE_TRUST_DOMAIN_MAX ? 19 : 0;
}

static int segment_check(const char *segment, size_t len, bool last)
{
	if (len == 0)
		return last ? 15 : 13;
	if ((len == 1 && segment[0] == '.') || (len == 2 && segment[0] == '.' && segment[1] == '.'))
		return 14;
	return 0;
}

/* `path` begins with its '/'. */
static int path_check(const char *path, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = path[i];

		if (c == '%')
			return 12;
		if (!is_lower_or_digit(c) && !is_upper(c) && !is_mark(c) && c != '/')
			return 16;
	}
	for (size_t at = 1; at <= len;) {
		const char *end = at < len ? memchr(path + at, '/', len - at) : NULL;
		size_t segment_len = (end != NULL ? (size_t)(end - path) : len) - at;
		int rule = segment_check(path + at, segment_len, end == NULL);

		if (rule != 0)
			return rule;
		at += segment_len + 1;
	}
	return 0;
}

/* What holds for every ID. Then *tdp is where its trust domain stands, *restp what follows that: "" or a path. */
static int id_split(const char *id, size_t len, const char **tdp, size_t *td_lenp, const char **restp)
{
	const char *path;

	if (len < SCHEME_LEN || memcmp(id, SCHEME, SCHEME_LEN) != 0)
		return len >= SCHEME_LEN && strncasecmp(id, SCHEME, SCHEME_LEN) == 0 ? 8 : 1;
	if (len > SPIFFE_ID_MAX)
		return 18;
	for (size_t i = SCHEME_LEN; i < len; i++) {
		if (id[i] == '?')
			return 3;
		if (id[i] == '#')
			return 4;
	}
	*tdp = id + SCHEME_LEN;
	path = memchr(*tdp, '/', len - SCHEME_LEN);
	*td_lenp = path != NULL ? (size_t)(path - *tdp) : len - SCHEME_LEN;
	*restp = *tdp + *td_lenp;
	return spiffe_trust_domain_check(*tdp, *td_lenp);
}

int spiffe_id_check(const char *id, size_t len)
{
	const char *td, *path;
	size_t td_len;
	int rule = id_split(id, len, &td, &td_len, &path);

	if (rule != 0)
		return rule;
	return path == id + len ? 29 : path_check(path, (size_t)(id + len - path));
}

int spiffe_signer_id_check(const char *id, size_t len)
{
	const char *td, *path;
	size_t td_len;
	int rule = id_split(id, len, &td, &td_len, &path);

	if (rule != 0)
		return rule;
	return id + len - path > 1 ? 52 : 0;
}

void spiffe_id_trust_domain(const char *id, char *out)
{
	const char *authority = id + SCHEME_LEN;
	size_t len = strcspn(authority, "/");

	if (len > SPIFFE_TRUST_DOMAIN_MAX)
		len = SPIFFE_TRUST_DOMAIN_MAX;
	memcpy(out, authority, len);
	out[len] = '\0';
}

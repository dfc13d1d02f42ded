/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <strings.h>

#include "policy/pattern.h"

#define SCHEME_LEN (sizeof(SPIFFE_SCHEME) - 1)

/* SPIFFE-ID.md 2.1. Nothing is folded: two spellings would be two identities to everyone else. */
static const char *trust_domain_problem(const char *text, size_t len)
{
	if (!len)
		return "the trust domain is empty (SPIFFE-ID 2.1)";
	if (len > PATTERN_MAX_TRUST_DOMAIN)
		return "the trust domain is longer than 255 bytes (SPIFFE-ID 2.3)";
	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_')
			continue;
		if (c == '*')
			return "a trust domain cannot have a wildcard: name each trust domain";
		if (c >= 'A' && c <= 'Z')
			return "the trust domain must be in lower case (SPIFFE-ID 2.1)";
		if (c == ':')
			return "a trust domain has no port (SPIFFE-ID 2.1)";
		if (c == '@')
			return "a trust domain has no user (SPIFFE-ID 2.1)";
		if (c == '%')
			return "a SPIFFE ID has no percent-encoding (SPIFFE-ID 2.1)";
		if (c == '?' || c == '#')
			return "a SPIFFE ID has no query and no fragment (SPIFFE-ID 2)";
		return "a trust domain has only a-z, 0-9, '.', '-' and '_' (SPIFFE-ID 2.1)";
	}
	return NULL;
}

/* SPIFFE-ID.md 2.2. */
static const char *segment_problem(const char *text, size_t len)
{
	if (!len)
		return "an empty path segment: no '//' and no '/' at the end (SPIFFE-ID 2.2)";
	if ((len == 1 && text[0] == '.') || (len == 2 && text[0] == '.' && text[1] == '.'))
		return "a path segment cannot be '.' or '..' (SPIFFE-ID 2.2)";
	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
		    c == '-' || c == '_')
			continue;
		if (c == '%')
			return "a SPIFFE ID has no percent-encoding (SPIFFE-ID 2.2)";
		if (c == '?' || c == '#')
			return "a SPIFFE ID has no query and no fragment (SPIFFE-ID 2)";
		if (c == '*')
			return "'*' stands for one whole path segment, it cannot be part of one";
		return "a path has only a-z, A-Z, 0-9, '.', '-', '_' and '/' (SPIFFE-ID 2.2)";
	}
	return NULL;
}

/* The parts of an ID or pattern, one after the other: trust domain, then path segments. */
static bool next_segment(const char **atp, const char *end, struct segment *segment)
{
	const char *at = *atp, *slash;

	if (!at)
		return false;
	slash = memchr(at, '/', (size_t)(end - at));
	*segment = (struct segment){at, (uint32_t)((slash ? slash : end) - at)};
	*atp = slash ? slash + 1 : NULL;
	return true;
}

static const char *scheme_problem(const char *text, size_t len)
{
	if (len >= SCHEME_LEN && memcmp(text, SPIFFE_SCHEME, SCHEME_LEN) == 0)
		return NULL;
	if (len >= SCHEME_LEN && strncasecmp(text, SPIFFE_SCHEME, SCHEME_LEN) == 0)
		return "the scheme must be in lower case, 'spiffe://' (SPIFFE-ID 2)";
	return "a SPIFFE ID begins with 'spiffe://' (SPIFFE-ID 2)";
}

/* `pattern` may be NULL, then wildcards are not allowed; `segments` has room for all. */
static const char *parse(struct pattern *pattern, const char *text, size_t len)
{
	const char *at = text + SCHEME_LEN, *end = text + len, *problem;
	struct segment segment;
	uint32_t n = 0;

	problem = scheme_problem(text, len);
	if (problem)
		return problem;
	if (len > PATTERN_MAX_BYTES)
		return "a SPIFFE ID has at most 2048 bytes (SPIFFE-ID 2.3)";
	while (next_segment(&at, end, &segment)) {
		bool star = n && segment.len == 1 && segment.text[0] == '*';
		bool rest = n && segment.len == 2 && memcmp(segment.text, "**", 2) == 0;

		if (pattern && rest && at)
			return "'**' can only stand at the end";
		if (!pattern || (!star && !rest)) {
			problem = n ? segment_problem(segment.text, segment.len)
				    : trust_domain_problem(segment.text, segment.len);
			if (problem)
				return problem;
		}
		n++;
		if (!pattern)
			continue;
		if (rest) {
			pattern->rest = true;
			continue;
		}
		if (star)
			segment.text = NULL;
		pattern->segments[pattern->n_segments++] = segment;
	}
	if (n < 2)
		return "a workload's SPIFFE ID has a path (X509-SVID 3.1)";
	return NULL;
}

const char *pattern_parse(struct pattern *pattern, struct arena *arena, const char *text)
{
	size_t len = strlen(text), n = 1;

	for (size_t i = 0; i < len && len <= PATTERN_MAX_BYTES; i++)
		n += text[i] == '/';
	*pattern = (struct pattern){.text = text, .segments = arena_array(arena, n, sizeof(struct segment))};
	if (!pattern->segments)
		return "out of memory";
	return parse(pattern, text, len);
}

const char *spiffe_id_problem(const char *id, size_t len)
{
	return parse(NULL, id, len);
}

bool pattern_match(const struct pattern *pattern, const char *id, size_t len)
{
	const char *at = id + SCHEME_LEN;
	struct segment segment;
	uint32_t n = 0;

	if (scheme_problem(id, len))
		return false;
	for (; n < pattern->n_segments; n++) {
		const struct segment *want = &pattern->segments[n];

		if (!next_segment(&at, id + len, &segment))
			return false;
		if (want->text && (want->len != segment.len || memcmp(want->text, segment.text, want->len) != 0))
			return false;
	}
	return pattern->rest ? at != NULL : at == NULL;
}

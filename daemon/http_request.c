/* SPDX-License-Identifier: Apache-2.0 */
#include "http_request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *http_reason(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 421:
		return "Misdirected Request";
	case 431:
		return "Request Header Fields Too Large";
	case 503:
		return "Service Unavailable";
	case 505:
		return "HTTP Version Not Supported";
	}
	return "Bad Request";
}

struct span {
	const char *at;
	size_t len;
};

static bool is(struct span s, const char *text)
{
	return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

static bool is_case(struct span s, const char *text)
{
	return s.len == strlen(text) && strncasecmp(s.at, text, s.len) == 0;
}

static bool is_token(struct span s)
{
	static const char marks[] = "!#$%&'*+-.^_`|~";

	for (size_t i = 0; i < s.len; i++) {
		char c = s.at[i];

		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		      (c && strchr(marks, c))))
			return false;
	}
	return s.len;
}

static bool contains_case(struct span s, const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i + len <= s.len; i++)
		if (strncasecmp(s.at + i, text, len) == 0)
			return true;
	return false;
}

/* The part up to the next space; `rest` is what follows it. */
static struct span word(struct span *rest)
{
	const char *space = memchr(rest->at, ' ', rest->len);
	struct span s = {rest->at, space ? (size_t)(space - rest->at) : rest->len};

	rest->at += s.len + !!space;
	rest->len -= s.len + !!space;
	return s;
}

static int request_line(struct span line, const char *path, bool *host_needed)
{
	struct span rest = line, method = word(&rest), target = word(&rest), version = rest;

	*host_needed = is(version, "HTTP/1.1");
	if (!is_token(method) || !target.len || memchr(version.at, ' ', version.len))
		return 400;
	for (size_t i = 0; i < target.len; i++)
		if (target.at[i] <= 0x20 || target.at[i] >= 0x7f)
			return 400;
	if (version.len != 8 || memcmp(version.at, "HTTP/", 5) != 0)
		return 400;
	if (!is(version, "HTTP/1.1") && !is(version, "HTTP/1.0"))
		return 505;
	if (!is(method, "GET"))
		return 405;
	return is(target, path) ? 200 : 404;
}

/* 127.0.0.0/8, ::1 or localhost, with or without a port. */
static bool is_local(struct span host)
{
	struct span name = host;
	size_t dots = 0;
	char *colon;

	if (name.len >= 5 && memcmp(name.at, "[::1]", 5) == 0)
		return name.len == 5 || name.at[5] == ':';
	colon = memchr(name.at, ':', name.len);
	if (colon)
		name.len = (size_t)(colon - name.at);
	if (is_case(name, "localhost"))
		return true;
	if (name.len < 9 || memcmp(name.at, "127.", 4) != 0)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		dots += name.at[i] == '.';
		if (name.at[i] != '.' && (name.at[i] < '0' || name.at[i] > '9'))
			return false;
	}
	return dots == 3;
}

struct fields {
	unsigned hosts;
	bool other_host;
	bool body;
	bool open, plain; /* formats that are asked for */
};

/* Returns whether the line is well-formed. */
static bool field(struct span line, struct fields *f)
{
	const char *colon = memchr(line.at, ':', line.len);
	struct span name, value;

	if (!colon)
		return false;
	name = (struct span){line.at, (size_t)(colon - line.at)};
	value = (struct span){colon + 1, line.len - name.len - 1};
	if (!is_token(name)) /* also a folded line */
		return false;
	for (size_t i = 0; i < value.len; i++)
		if (((unsigned char)value.at[i] < 0x20 && value.at[i] != '\t') || value.at[i] == 0x7f)
			return false;
	while (value.len && (*value.at == ' ' || *value.at == '\t')) {
		value.at++;
		value.len--;
	}
	while (value.len && (value.at[value.len - 1] == ' ' || value.at[value.len - 1] == '\t'))
		value.len--;
	if (is_case(name, "host")) {
		f->hosts++;
		f->other_host |= !is_local(value);
	} else if (is_case(name, "transfer-encoding") || (is_case(name, "content-length") && !is(value, "0"))) {
		f->body = true;
	} else if (is_case(name, "accept")) {
		f->open |= contains_case(value, "application/openmetrics-text");
		f->plain |= contains_case(value, "text/plain");
	}
	return true;
}

/* The next line without its CR LF; *restp goes past it. Returns false where none is complete, or a CR or LF stands alone. */
static bool line_next(struct span *rest, struct span *line, bool *bad)
{
	const char *lf = memchr(rest->at, '\n', rest->len), *cr = memchr(rest->at, '\r', rest->len);

	*bad = (lf && (!cr || cr + 1 != lf)) || (cr && !lf && cr + 1 != rest->at + rest->len);
	if (!lf || *bad)
		return false;
	*line = (struct span){rest->at, (size_t)(cr - rest->at)};
	rest->len -= (size_t)(lf + 1 - rest->at);
	rest->at = lf + 1;
	return true;
}

int http_request_read(const char *bytes, size_t len, const char *path, bool local, struct http_request *request)
{
	struct span rest = {bytes, len}, line;
	struct fields f = {0};
	bool bad = false, host_needed;
	int status;

	*request = (struct http_request){0};
	if (!line_next(&rest, &line, &bad))
		return bad ? 400 : len >= HTTP_MAX_REQUEST ? 431 : HTTP_MORE;
	status = request_line(line, path, &host_needed);
	if (status == 400)
		return 400;
	while (line_next(&rest, &line, &bad)) {
		if (line.len == 0) {
			if (f.body || f.hosts > 1 || (host_needed && !f.hosts))
				return 400;
			if (local && f.other_host)
				return 421;
			request->plain = f.plain && !f.open;
			return status;
		}
		if (!field(line, &f))
			return 400;
	}
	return bad ? 400 : len >= HTTP_MAX_REQUEST ? 431 : HTTP_MORE;
}

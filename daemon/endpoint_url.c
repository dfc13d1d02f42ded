/* SPDX-License-Identifier: Apache-2.0 */
#include "endpoint_url.h"

#include <stddef.h>
#include <string.h>

#define SCHEME "https://"
#define SCHEME_LEN (sizeof(SCHEME) - 1)

#define DIGITS "0123456789"
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
/* Of a path and a query: RFC 3986 unreserved and reserved ones, and % for what is encoded. */
#define OTHERS "-._~/?:@!$&'()*+,;=%"

static const char *port_flaw(const char *port, size_t len)
{
	unsigned number = 0;

	if (!len || len > 5)
		return "has a port that is no number from 1 to 65535";
	for (size_t i = 0; i < len; i++) {
		if (port[i] < '0' || port[i] > '9')
			return "has a port that is no number from 1 to 65535";
		number = number * 10 + (unsigned)(port[i] - '0');
	}
	return number && number <= 65535 ? NULL : "has a port that is no number from 1 to 65535";
}

/* Everything between the slashes; the host is a name, an IPv4 address, or an IPv6 address in brackets. */
static const char *authority_flaw(const char *text, size_t len)
{
	size_t host;

	if (memchr(text, '@', len))
		return "has userinfo before its host; an endpoint's URL has none";
	if (*text == '[') {
		host = 1 + strspn(text + 1, DIGITS "abcdefABCDEF:.");
		if (host < 4 || host >= len || text[host] != ']')
			return "has brackets without an IPv6 address in them";
		host++;
	} else {
		host = strspn(text, DIGITS LETTERS "-._");
		if (host > len)
			host = len;
		if (!host || *text == '.' || *text == '-')
			return "has no host";
	}
	if (host == len)
		return NULL;
	return text[host] == ':' ? port_flaw(text + host + 1, len - host - 1)
				 : "has a host with a character that no host name has";
}

const char *endpoint_url_flaw(const char *url)
{
	const char *authority = url + SCHEME_LEN, *flaw;
	size_t len;

	if (strlen(url) >= ENDPOINT_URL_MAX)
		return "is longer than 1023 bytes";
	if (strncmp(url, SCHEME, SCHEME_LEN) != 0)
		return "does not begin with https://";
	len = strcspn(authority, "/?#");
	if (!len)
		return "has no host";
	flaw = authority_flaw(authority, len);
	if (flaw)
		return flaw;
	authority += len;
	if (strchr(authority, '#'))
		return "has a fragment (#), which no server ever sees";
	if (strspn(authority, DIGITS LETTERS OTHERS) != strlen(authority))
		return "has a character that no URL has; write it as %XX";
	return NULL;
}

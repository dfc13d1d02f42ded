/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "policy/flow_end.h"
#include "policy/service.h"

int flow_error(char **errorp, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	if (vasprintf(errorp, format, args) < 0)
		*errorp = NULL;
	va_end(args);
	return 1;
}

static int parse_address(struct flow_end *end, const char *text, size_t len, char **errorp)
{
	switch (address_parse(&end->address, text, len)) {
	case ADDRESS_OK:
		end->has_address = true;
		return 0;
	case ADDRESS_ZONE:
		return flow_error(errorp, "'%.*s': leave out the zone of the address", (int)len, text);
	default:
		return flow_error(errorp, "'%.*s' is not an address", (int)len, text);
	}
}

static bool is_word(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && memcmp(text, word, len) == 0;
}

int flow_end_parse(struct flow_end *end, const char *text, char **errorp)
{
	const char *at = strrchr(text, '@'), *problem;
	size_t len = at ? (size_t)(at - text) : strlen(text);

	end->has_address = false;
	end->id[0] = 0;
	if (!text[0])
		return flow_error(errorp, "an end of the flow is empty");
	if (at && parse_address(end, at + 1, strlen(at + 1), errorp))
		return 1;
	if (strncmp(text, SPIFFE_SCHEME, strlen(SPIFFE_SCHEME)) == 0) {
		problem = spiffe_id_problem(text, len);
		if (problem)
			return flow_error(errorp, "'%s' is not a SPIFFE ID: %s", text, problem);
		end->kind = FLOW_END_SPIFFE;
	} else if (is_word(text, len, "unidentified")) {
		end->kind = FLOW_END_UNIDENTIFIED;
	} else if (is_word(text, len, "host")) {
		end->kind = FLOW_END_HOST;
	} else if (is_word(text, len, "world")) {
		end->kind = FLOW_END_WORLD;
	} else if (is_word(text, len, "any") || is_word(text, len, "verified")) {
		return flow_error(errorp, "'%.*s' is many peers; name one: a SPIFFE ID, a local identity or an address",
				  (int)len, text);
	} else if (!at && (strchr(text, ':') || strspn(text, "0123456789.") == len)) {
		end->kind = FLOW_END_WORLD;
		return parse_address(end, text, len, errorp);
	} else {
		end->kind = FLOW_END_NAME;
	}
	if (len > PATTERN_MAX_BYTES)
		return flow_error(errorp, "an end of the flow is too long");
	memcpy(end->id, text, len);
	end->id[len] = 0;
	return 0;
}

int flow_service_parse(uint32_t *pointp, const char *text, char **errorp)
{
	struct service_range range;
	enum service_problem problem = service_parse(&range, text);

	if (problem == SERVICE_NOT_INLINE)
		return flow_error(errorp, "'%s' is not a service such as tcp/443 or icmp/echo-request", text);
	if (problem == SERVICE_HAS_A_NAME)
		return flow_error(errorp, "'%s': write %s", text, service_protocol_meant(text));
	if (problem != SERVICE_OK)
		return flow_error(errorp, "'%s': %s", text, service_problem_text(problem));
	if (range.first != range.last)
		return flow_error(errorp, "'%s' is many services; name one, such as tcp/443", text);
	*pointp = range.first;
	return 0;
}

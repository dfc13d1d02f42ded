/* SPDX-License-Identifier: Apache-2.0 */
#include "federation.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "identity/rules.h"
#include "identity/spiffe_id.h"
#include "policy/suggestion.h"

#define KEYS "trust_domain, url, profile, endpoint_spiffe_id, endpoint_trust_domain, bundle"

static const char *const profiles[] = {
	[FEDERATION_HTTPS_WEB] = "https_web",
	[FEDERATION_HTTPS_SPIFFE] = "https_spiffe",
};

const char *federation_profile_name(uint32_t profile)
{
	return profile == FEDERATION_HTTPS_WEB || profile == FEDERATION_HTTPS_SPIFFE ? profiles[profile] : "";
}

static __attribute__((format(printf, 3, 4))) int flaw(char *why, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, size, format, args);
	va_end(args);
	return 1;
}

struct field {
	const char *key;
	size_t offset;
	size_t size;
};

#define FIELD(name)                                                                                                    \
	{                                                                                                              \
#name, offsetof(struct federation, name), sizeof(((struct federation *)NULL)->name)                    \
	}

static const struct field fields[] = {
	FIELD(trust_domain), FIELD(url), FIELD(endpoint_spiffe_id), FIELD(endpoint_trust_domain), FIELD(bundle),
};

static int unknown_key(const char *key, char *why, size_t size)
{
	struct suggestion suggestion = {.wrong = key};

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		suggestion_offer(&suggestion, fields[i].key);
	suggestion_offer(&suggestion, "profile");
	if (suggestion.best)
		return flaw(why, size, "unknown key \"%.64s\" of a federation; did you mean \"%s\"?", key,
			    suggestion.best);
	return flaw(why, size, "unknown key \"%.64s\" of a federation; known: " KEYS, key);
}

static int profile_set(struct federation *entry, const char *value, char *why, size_t size)
{
	if (entry->profile)
		return flaw(why, size, "profile is set twice");
	for (uint32_t i = FEDERATION_HTTPS_WEB; i <= FEDERATION_HTTPS_SPIFFE; i++)
		if (strcmp(value, profiles[i]) == 0)
			entry->profile = i;
	return entry->profile ? 0 : flaw(why, size, "profile \"%.64s\" is neither https_web nor https_spiffe", value);
}

int federation_set(struct federation *entry, const char *key, const char *value, char *why, size_t size)
{
	const struct field *field = NULL;
	char *into;

	if (strcmp(key, "profile") == 0)
		return profile_set(entry, value, why, size);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]) && !field; i++)
		if (strcmp(key, fields[i].key) == 0)
			field = &fields[i];
	if (!field)
		return unknown_key(key, why, size);
	into = (char *)entry + field->offset;
	if (*into)
		return flaw(why, size, "%s is set twice", key);
	if (!*value)
		return flaw(why, size, "%s is empty", key);
	if (strlen(value) >= field->size)
		return flaw(why, size, "%s is longer than %zu bytes", key, field->size - 1);
	strcpy(into, value);
	return 0;
}

/* ---- an entry as a whole ---- */

static int trust_domain_check(const struct federation *entry, char *why, size_t size)
{
	int rule = spiffe_trust_domain_check(entry->trust_domain, strlen(entry->trust_domain));

	if (!*entry->trust_domain)
		return flaw(why, size,
			    "a federation has no trust_domain; it is never taken from the URL (SPIFFE Federation 5.1)");
	if (strncmp(entry->trust_domain, "spiffe:", 7) == 0)
		return flaw(why, size, "trust_domain is the name alone, without spiffe://");
	if (rule)
		return flaw(why, size, "\"%.100s\" is no trust domain: %s", entry->trust_domain, svid_rule_text(rule));
	if (strlen(entry->trust_domain) > FEDERATION_TRUST_DOMAIN_MAX)
		return flaw(why, size, "trust_domain is longer than %d bytes", FEDERATION_TRUST_DOMAIN_MAX);
	return 0;
}

static int bundle_file_check(const struct federation *entry, char *why, size_t size)
{
	const char *path = entry->bundle;
	size_t len = strlen(path);

	if (!len)
		return 0;
	if (*path != '/')
		return flaw(why, size, "bundle \"%.200s\" is not an absolute path", path);
	if ((len > 4 && strcmp(path + len - 4, ".pem") == 0) || (len > 5 && strcmp(path + len - 5, ".json") == 0))
		return 0;
	return flaw(why, size, "bundle \"%.200s\" is neither a .pem nor a .json (SPIFFE bundle) file", path);
}

/* https_web takes no parameter but the URL (5.2.1.2); https_spiffe has to say whom it expects, and by whose bundle. */
static int endpoint_check(const struct federation *entry, char *why, size_t size)
{
	const char *id = entry->endpoint_spiffe_id;
	char domain[SPIFFE_TRUST_DOMAIN_MAX + 1];
	bool own;
	int rule;

	if (entry->profile == FEDERATION_HTTPS_WEB) {
		if (*id || *entry->endpoint_trust_domain)
			return flaw(why, size,
				    "%s belongs to profile https_spiffe; the server of https_web is known by "
				    "the host in its URL",
				    *id ? "endpoint_spiffe_id" : "endpoint_trust_domain");
		return 0;
	}
	if (!*id)
		return flaw(why, size, "https_spiffe needs endpoint_spiffe_id: whom the endpoint has to be");
	rule = spiffe_id_check(id, strlen(id));
	if (rule)
		return flaw(why, size, "endpoint_spiffe_id \"%.100s\" is no SPIFFE ID: %s", id, svid_rule_text(rule));
	spiffe_id_trust_domain(id, domain);
	own = strcmp(domain, entry->trust_domain) == 0;
	if (own && *entry->endpoint_trust_domain && strcmp(entry->endpoint_trust_domain, domain) != 0)
		return flaw(why, size, "endpoint_trust_domain \"%.100s\" is not that of endpoint_spiffe_id",
			    entry->endpoint_trust_domain);
	if (own && !*entry->bundle)
		return flaw(why, size,
			    "the endpoint proves itself by the bundle that it serves: `bundle` has to name a file with "
			    "the first one");
	if (!own && strcmp(entry->endpoint_trust_domain, domain) != 0)
		return flaw(why, size,
			    "endpoint_spiffe_id is of trust domain %.100s, not of %.100s: if that is meant, write "
			    "`endpoint_trust_domain: %.100s`, and configure a bundle for it",
			    domain, entry->trust_domain, domain);
	return 0;
}

int federation_check(const struct federation *entry, char *why, size_t size)
{
	const char *url_flaw;

	if (trust_domain_check(entry, why, size))
		return 1;
	if (!*entry->url)
		return flaw(why, size, "the federation with %.100s has no url", entry->trust_domain);
	url_flaw = endpoint_url_flaw(entry->url);
	if (url_flaw)
		return flaw(why, size, "url \"%.200s\" %s", entry->url, url_flaw);
	if (!*federation_profile_name(entry->profile))
		return flaw(why, size, "the federation with %.100s has no profile (https_web or https_spiffe)",
			    entry->trust_domain);
	if (bundle_file_check(entry, why, size))
		return 1;
	return endpoint_check(entry, why, size);
}

static bool terminated(const struct federation *entry)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (!memchr((const char *)entry + fields[i].offset, '\0', fields[i].size))
			return false;
	return true;
}

int federation_check_all(const struct federation *entries, size_t n, char *why, size_t size)
{
	if (n > FEDERATION_MAX)
		return flaw(why, size, "more than %d federations", FEDERATION_MAX);
	for (size_t i = 0; i < n; i++) {
		if (!terminated(&entries[i]))
			return flaw(why, size, "a federation's text is not terminated");
		if (federation_check(&entries[i], why, size))
			return 1;
		for (size_t j = 0; j < i; j++)
			if (strcmp(entries[i].trust_domain, entries[j].trust_domain) == 0)
				return flaw(why, size, "there are two federations with %.100s",
					    entries[i].trust_domain);
	}
	return 0;
}

uint64_t federation_wait_usec(uint32_t refresh_s, uint32_t random)
{
	uint64_t usec = refresh_s * FEDERATION_SECOND_USEC;

	return usec - usec / 10 * (random % 1024) / 1024;
}

uint64_t federation_again_usec(unsigned failures, uint32_t refresh_s, uint32_t random)
{
	uint64_t usec = FEDERATION_SECOND_USEC, most = federation_wait_usec(refresh_s, random);

	for (unsigned i = 1; i < failures && usec < most; i++)
		usec *= 2;
	usec += usec * (random % 1024) / 1024;
	return usec < most ? usec : most;
}

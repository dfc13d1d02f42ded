/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config_internal.h"

#include <string.h>

#include "daemon/metrics_listen.h"

#define WORKLOAD_SCHEME "unix://"

static bool instance_valid(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";

	return *name && *name != '.' && *name != '-' && strspn(name, allowed) == strlen(name);
}

const char *config_path_flaw(const char *path, enum config_key key)
{
	if (*path != '/')
		return "is not an absolute path";
	for (const char *p = path; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return "contains a control character";
	if (!strcmp(path, "/"))
		return key == CONFIG_KEY_SUBTREE ? NULL : "must not be the root directory";
	for (const char *p = path; *p;) {
		size_t len = strcspn(++p, "/");

		if (!len)
			return "has an empty component";
		if ((len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
			return "has a component \".\" or \"..\"";
		p += len;
	}
	if (key == CONFIG_KEY_RUN_DIR && strlen(path) >= CONFIG_RUN_DIR_MAX)
		return "is too long for the names of the sockets in it";
	return NULL;
}

/* A whole number of hours, as digits; 0: it is none, or not within the bounds. */
static unsigned hours_of(const char *text)
{
	unsigned hours = 0;

	for (const char *p = text; *p; p++) {
		if (*p < '0' || *p > '9' || hours > CONFIG_KEY_HOURS_MAX)
			return 0;
		hours = hours * 10 + (unsigned)(*p - '0');
	}
	return hours <= CONFIG_KEY_HOURS_MAX ? hours : 0;
}

unsigned config_key_hours(const struct daemon_config *config)
{
	return hours_of(config->key_hours);
}

const char *config_workload_socket(const struct daemon_config *config)
{
	return strcmp(config->workload_api, CONFIG_WORKLOAD_OFF) != 0 ? config->workload_api + strlen(WORKLOAD_SCHEME)
								      : NULL;
}

/* unix:///PATH as in SPIFFE_Workload_Endpoint.md 4, of a path that fits into a socket's address. Says what is wrong, or NULL. */
static const char *workload_flaw(const char *value)
{
	if (!strcmp(value, CONFIG_WORKLOAD_OFF))
		return NULL;
	if (strncmp(value, WORKLOAD_SCHEME, strlen(WORKLOAD_SCHEME)) || value[strlen(WORKLOAD_SCHEME)] != '/')
		return "is neither off nor unix:///PATH; other transports would not tell who serves it";
	if (strlen(value + strlen(WORKLOAD_SCHEME)) >= 108)
		return "has a path that is too long for a socket";
	if (strpbrk(value, "?#%@ "))
		return "has a character that a socket's URI cannot have";
	return NULL;
}

/* Where metrics are told may be a path. */
static bool is_path(enum config_key key, const char *value)
{
	return key != CONFIG_KEY_INSTANCE && key != CONFIG_KEY_KEY_HOURS && key != CONFIG_KEY_DEVICES &&
	       key != CONFIG_KEY_WORKLOAD_API && key != CONFIG_KEY_FIPS && key != CONFIG_KEY_DEVICE_HOOK &&
	       key < CONFIG_KEY_ALLOW_PROC_FALLBACK && (key != CONFIG_KEY_METRICS || *value == '/');
}

bool config_is_true(const char *value)
{
	return strcmp(value, "true") == 0;
}

/* "30m" in seconds; 0: it is none. */
static uint64_t lifetime_of(const char *text)
{
	static const struct {
		char unit;
		uint64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	uint64_t n = 0;

	for (; *text >= '0' && *text <= '9'; text++) {
		n = n * 10 + (uint64_t)(*text - '0');
		if (n > CONFIG_LIFETIME_MAX_S)
			return 0;
	}
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (text[0] == units[i].unit && !text[1])
			return n * units[i].seconds <= CONFIG_LIFETIME_MAX_S ? n * units[i].seconds : 0;
	return 0;
}

uint64_t config_max_lifetime_s(const struct daemon_config *config)
{
	return lifetime_of(config->max_lifetime);
}

/* Device names with * and ?, separated by commas; blanks around them do not count. Says what is wrong, or NULL. */
static const char *devices_flaw(char *value)
{
	char *to = value;

	for (const char *p = value; *p; p++)
		if (*p != ' ')
			*to++ = *p;
	*to = '\0';
	for (const char *p = value;; p++) {
		size_t len = strcspn(p, ",");

		if (!len)
			return "has an empty name";
		if (len > 15)
			return "has a name of more than 15 bytes";
		for (size_t i = 0; i < len; i++)
			if (p[i] < '!' || p[i] > '~' || p[i] == '/' || p[i] == '[')
				return "has a name with a character that no name has";
		p += len;
		if (!*p)
			return NULL;
	}
}

/* Settings that are a word or a list of their own kind. Says what is wrong, or NULL. */
static const char *word_flaw(enum config_key key, char *value)
{
	switch (key) {
	case CONFIG_KEY_DEVICES:
		return devices_flaw(value);
	case CONFIG_KEY_ALLOW_PROC_FALLBACK:
	case CONFIG_KEY_ALLOW_DELEGATED:
		return strcmp(value, "true") && strcmp(value, "false") ? "is neither true nor false" : NULL;
	case CONFIG_KEY_MAX_LIFETIME:
		return strcmp(value, "none") && !lifetime_of(value) ? "is no time like 30m, 12h or 7d, nor none" : NULL;
	case CONFIG_KEY_SVIDS:
		return config_svids_flaw(value);
	case CONFIG_KEY_WORKLOAD_API:
		return workload_flaw(value);
	default:
		return config_path_flaw(value, key);
	}
}

int config_set(struct daemon_config_file *set, enum config_key key, const char *value, char *why, size_t size)
{
	const struct config_setting *s = &config_settings[key];
	char *out = config_value(&set->values, key);
	size_t len = strlen(value);
	union metrics_address address;
	const char *flaw;

	/* "/run/x/" and "/run/x" are the same directory. */
	while (is_path(key, value) && len > 1 && value[len - 1] == '/')
		len--;
	if (!len) {
		config_say(why, size, "%s is empty", s->key);
		return 1;
	}
	if (len >= s->size) {
		config_say(why, size, "%s is longer than %zu bytes", s->key, s->size - 1);
		return 1;
	}
	memmove(out, value, len);
	out[len] = '\0';
	if (key == CONFIG_KEY_INSTANCE) {
		if (!instance_valid(out)) {
			config_say(why, size,
				   "instance \"%s\": letters, digits, '_', '-' and '.', not starting with '-' or '.'",
				   out);
			return 1;
		}
	} else if (key == CONFIG_KEY_KEY_HOURS) {
		if (!hours_of(out)) {
			config_say(why, size, "key_hours \"%s\": a whole number of hours from 1 to %d", out,
				   CONFIG_KEY_HOURS_MAX);
			return 1;
		}
	} else if (key == CONFIG_KEY_DEVICE_HOOK) {
		if (strcmp(out, "auto") != 0 && strcmp(out, "tcx") != 0 && strcmp(out, "clsact") != 0) {
			config_say(why, size, "device_hook \"%s\": auto, tcx or clsact", out);
			return 1;
		}
	} else if (key == CONFIG_KEY_METRICS && !is_path(key, out)) {
		if (metrics_address_read(out, &address) < 0) {
			config_say(why, size,
				   "metrics \"%s\": off, the absolute path of a socket, or a port on the loopback "
				   "interface "
				   "(127.0.0.1:PORT, [::1]:PORT)",
				   out);
			return 1;
		}
	} else if (key == CONFIG_KEY_FIPS) {
		if (strcmp(out, "off") != 0 && strcmp(out, CONFIG_FIPS_REQUIRE) != 0) {
			config_say(why, size, "fips \"%s\": off or " CONFIG_FIPS_REQUIRE, out);
			return 1;
		}
	} else {
		flaw = word_flaw(key, out);
		if (flaw) {
			config_say(why, size, "%s \"%s\" %s", s->key, out, flaw);
			return 1;
		}
	}
	set->present |= 1U << key;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "daemon/metrics_listen.h"
#include "policy/suggestion.h"

#define WORKLOAD_SCHEME "unix://"
#define WORKLOAD_OFF "off"

struct setting {
	const char *key; /* in the file; the option is the same with '-' */
	const char *argument;
	const char *help;
	size_t offset;
	size_t size;
};

#define SETTING(field, arg, text)                                                                                      \
	{                                                                                                              \
#field, arg, text, offsetof(struct daemon_config, field),                                              \
			sizeof(((struct daemon_config *)NULL)->field)                                                  \
	}

/* In the order of enum config_key. */
static const struct setting settings[CONFIG_KEYS] = {
	SETTING(instance, "NAME", "name of this instance; default paths contain it (" CONFIG_INSTANCE ")"),
	SETTING(subtree, "PATH", "managed subtree, below the cgroup2 mount (/)"),
	SETTING(run_dir, "DIR", "sockets (/run/bulkhead)"),
	SETTING(state_dir, "DIR", "revisions (/var/lib/bulkhead)"),
	SETTING(audit_log, "FILE", "audit log (/var/log/bulkhead/audit.jsonl)"),
	SETTING(bundle_dir, "DIR", "trust bundles, TRUSTDOMAIN.pem or .json (/etc/bulkhead/bundles)"),
	SETTING(policy_dir, "DIR", "policy files, *.yaml (/etc/bulkhead/policy.d)"),
	SETTING(pin_dir, "DIR", "pinned BPF objects (BPFFS/bulkhead)"),
	SETTING(key_hours, "HOURS", "how long one key signs identities in handshakes (24)"),
	SETTING(metrics, "WHERE", "tell metrics on a socket PATH, or 127.0.0.1:PORT (off)"),
	SETTING(devices, "NAMES", "managed devices, as veth*,tap* (none)"),
	SETTING(fips, "MODE", "require: cryptography of OpenSSL's FIPS module only (off)"),
	SETTING(fips_config, "FILE", "what `openssl fipsinstall` wrote (OpenSSL's fipsmodule.cnf)"),
	SETTING(device_hook, "KIND", "how devices are covered: tcx, clsact, or auto (auto)"),
	SETTING(federation_ca, "FILE", "authorities of https_web bundle endpoints, PEM (the system's)"),
	SETTING(workload_api, "SOCKET", "unix:///PATH of a SPIFFE Workload API to take bundles from (off)"),
	SETTING(allow_proc_fallback, "true", "before Linux 6.13, attest by /proc (false: not at all)"),
	SETTING(allow_delegated, "true", "give identities to cgroups that others than root can enter (false)"),
	SETTING(max_lifetime, "TIME", "longest life of an identity by one proof, as 12h (none)"),
	SETTING(svids, "LIST", "SVIDs to prove, as DIR=unit:NAME,DIR=cgroup:PATH (none)"),
};

static char *setting_value(struct daemon_config *config, enum config_key key)
{
	return (char *)config + settings[key].offset;
}

static __attribute__((format(printf, 3, 4))) void say(char *why, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, size, format, args);
	va_end(args);
}

/* ---- values ---- */

static bool instance_valid(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";

	return *name && *name != '.' && *name != '-' && strspn(name, allowed) == strlen(name);
}

/* Absolute, without empty, "." and ".." components, without control characters. Says what is wrong, or NULL. */
static const char *path_flaw(const char *path, enum config_key key)
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
	return strcmp(config->workload_api, WORKLOAD_OFF) != 0 ? config->workload_api + strlen(WORKLOAD_SCHEME) : NULL;
}

/* unix:///PATH as in SPIFFE_Workload_Endpoint.md 4, of a path that fits into a socket's address. Says what is wrong, or NULL. */
static const char *workload_flaw(const char *value)
{
	if (!strcmp(value, WORKLOAD_OFF))
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

/* Takes an item off the front of a list. Says what is wrong with it, or NULL. */
static const char *svid_read(const char **listp, struct config_svid *out)
{
	size_t len = strcspn(*listp, ","), dir_len = strcspn(*listp, ",=");
	const char *place = *listp + dir_len + (dir_len < len), *end = *listp + len;
	size_t kind_len;

	*out = (struct config_svid){.unit = strncmp(place, "unit:", 5) == 0};
	if (!out->unit && strncmp(place, "cgroup:", 7) != 0)
		return "an item is not DIR=unit:NAME or DIR=cgroup:PATH";
	kind_len = out->unit ? 5 : 7;
	if (dir_len >= sizeof(out->dir) || (size_t)(end - place) - kind_len >= sizeof(out->place))
		return "a path is too long";
	memcpy(out->dir, *listp, dir_len);
	memcpy(out->place, place + kind_len, (size_t)(end - place) - kind_len);
	*listp = end + (*end == ',');
	if (path_flaw(out->dir, CONFIG_KEY_SVIDS))
		return "a directory is not an absolute path without empty, \".\" and \"..\" components";
	if (out->unit ? !out->place[0] || strchr(out->place, '/') || strpbrk(out->place, " \t\n")
		      : path_flaw(out->place, CONFIG_KEY_SVIDS) != NULL)
		return "a place is neither the name of a unit nor the path of a cgroup below the managed subtree";
	return NULL;
}

static const char *svids_flaw(const char *list)
{
	struct config_svid svid;
	const char *flaw = NULL;

	while (*list && !flaw)
		flaw = svid_read(&list, &svid);
	return flaw;
}

bool config_svid(const struct daemon_config *config, size_t i, struct config_svid *out)
{
	const char *list = config->svids;

	while (*list && !svid_read(&list, out))
		if (i-- == 0)
			return true;
	return false;
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
		return svids_flaw(value);
	case CONFIG_KEY_WORKLOAD_API:
		return workload_flaw(value);
	default:
		return path_flaw(value, key);
	}
}

/* Takes one value into `set`. Returns 0, or 1 with the reason in `why`. */
static int setting_set(struct daemon_config_file *set, enum config_key key, const char *value, char *why, size_t size)
{
	const struct setting *s = &settings[key];
	char *out = setting_value(&set->values, key);
	size_t len = strlen(value);
	union metrics_address address;
	const char *flaw;

	/* "/run/x/" and "/run/x" are the same directory. */
	while (is_path(key, value) && len > 1 && value[len - 1] == '/')
		len--;
	if (!len) {
		say(why, size, "%s is empty", s->key);
		return 1;
	}
	if (len >= s->size) {
		say(why, size, "%s is longer than %zu bytes", s->key, s->size - 1);
		return 1;
	}
	memmove(out, value, len);
	out[len] = '\0';
	if (key == CONFIG_KEY_INSTANCE) {
		if (!instance_valid(out)) {
			say(why, size,
			    "instance \"%s\": letters, digits, '_', '-' and '.', not starting with '-' or '.'", out);
			return 1;
		}
	} else if (key == CONFIG_KEY_KEY_HOURS) {
		if (!hours_of(out)) {
			say(why, size, "key_hours \"%s\": a whole number of hours from 1 to %d", out,
			    CONFIG_KEY_HOURS_MAX);
			return 1;
		}
	} else if (key == CONFIG_KEY_DEVICE_HOOK) {
		if (strcmp(out, "auto") != 0 && strcmp(out, "tcx") != 0 && strcmp(out, "clsact") != 0) {
			say(why, size, "device_hook \"%s\": auto, tcx or clsact", out);
			return 1;
		}
	} else if (key == CONFIG_KEY_METRICS && !is_path(key, out)) {
		if (metrics_address_read(out, &address) < 0) {
			say(why, size,
			    "metrics \"%s\": off, the absolute path of a socket, or a port on the loopback interface "
			    "(127.0.0.1:PORT, [::1]:PORT)",
			    out);
			return 1;
		}
	} else if (key == CONFIG_KEY_FIPS) {
		if (strcmp(out, "off") != 0 && strcmp(out, CONFIG_FIPS_REQUIRE) != 0) {
			say(why, size, "fips \"%s\": off or " CONFIG_FIPS_REQUIRE, out);
			return 1;
		}
	} else {
		flaw = word_flaw(key, out);
		if (flaw) {
			say(why, size, "%s \"%s\" %s", s->key, out, flaw);
			return 1;
		}
	}
	set->present |= 1U << key;
	return 0;
}

/* ---- file ---- */

struct reader {
	yaml_parser_t parser;
	yaml_event_t event;
	bool have_event;
	const char *name;
	char *why;
	size_t why_size;
};

static void reader_close(struct reader *r)
{
	if (r->have_event)
		yaml_event_delete(&r->event);
	yaml_parser_delete(&r->parser);
}

static __attribute__((format(printf, 3, 4))) int flaw_at(struct reader *r, const yaml_mark_t *mark, const char *format,
							 ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	say(r->why, r->why_size, "%s:%zu:%zu: error: %s", r->name, mark->line + 1, mark->column + 1, text);
	return 1;
}

/* Moves to the next event. Returns 0, 1 (not YAML; reported) or -ENOMEM. */
static int reader_next(struct reader *r)
{
	if (r->have_event)
		yaml_event_delete(&r->event);
	r->have_event = false;
	if (yaml_parser_parse(&r->parser, &r->event)) {
		r->have_event = true;
		return 0;
	}
	if (r->parser.error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	return flaw_at(r, &r->parser.problem_mark, "%s", r->parser.problem ? r->parser.problem : "not YAML");
}

static int unknown_key(struct reader *r, const char *key)
{
	struct suggestion suggestion = {.wrong = key};

	for (size_t i = 0; i < CONFIG_KEYS; i++)
		suggestion_offer(&suggestion, settings[i].key);
	suggestion_offer(&suggestion, "federation");
	if (suggestion.best)
		return flaw_at(r, &r->event.start_mark, "unknown key \"%.64s\"; did you mean \"%s\"?", key,
			       suggestion.best);
	return flaw_at(r, &r->event.start_mark,
		       "unknown key \"%.64s\"; known: instance, subtree, run_dir, state_dir, audit_log, bundle_dir, "
		       "policy_dir, pin_dir, key_hours, metrics, devices, fips, fips_config, device_hook, "
		       "federation, federation_ca, workload_api, allow_proc_fallback, allow_delegated, max_lifetime, "
		       "svids",
		       key);
}

/* The scalar under the cursor as a string without NUL bytes. Returns 0 or 1 (reported). */
static int scalar(struct reader *r, const char *what, const char **textp)
{
	const yaml_event_t *e = &r->event;

	if (e->type != YAML_SCALAR_EVENT)
		return flaw_at(r, &e->start_mark, "%s must be a plain text", what);
	if (e->data.scalar.anchor || e->data.scalar.tag)
		return flaw_at(r, &e->start_mark, "anchors and tags are not supported");
	*textp = (const char *)e->data.scalar.value;
	if (strlen(*textp) != e->data.scalar.length)
		return flaw_at(r, &e->start_mark, "%s contains a NUL byte", what);
	return 0;
}

/* A list of texts under the cursor, joined with commas. Returns 0 or 1 (reported). */
static int scalar_list(struct reader *r, const char *what, char *out, size_t size)
{
	const char *text;
	size_t used = 0;
	int rc;

	out[0] = '\0';
	for (;;) {
		rc = reader_next(r);
		if (rc)
			return rc;
		if (r->event.type == YAML_SEQUENCE_END_EVENT)
			return 0;
		rc = scalar(r, what, &text);
		if (rc)
			return rc;
		if (strchr(text, ','))
			return flaw_at(r, &r->event.start_mark, "a name has no comma");
		used += (size_t)snprintf(out + used, size - used, "%s%s", used ? "," : "", text);
		if (used >= size)
			return flaw_at(r, &r->event.start_mark, "%s is longer than %zu bytes", what, size - 1);
	}
}

/* {dir: DIR, unit: NAME} or {dir: DIR, cgroup: PATH}; the cursor is on its beginning. Returns 0, 1 (reported) or -ENOMEM. */
static int svid_map(struct reader *r, char *out, size_t size)
{
	char dir[CONFIG_PATH_MAX] = "", place[CONFIG_PATH_MAX] = "", key[16];
	yaml_mark_t start = r->event.start_mark;
	const char *text;
	size_t used = strlen(out);
	int rc;

	if (r->event.type != YAML_MAPPING_START_EVENT)
		return flaw_at(r, &start,
			       "an item of svids must be {dir: DIR, unit: NAME} or {dir: DIR, cgroup: PATH}");
	for (;;) {
		rc = reader_next(r);
		if (rc)
			return rc;
		if (r->event.type == YAML_MAPPING_END_EVENT)
			break;
		rc = scalar(r, "a key", &text);
		if (rc)
			return rc;
		snprintf(key, sizeof(key), "%s", text);
		if ((strcmp(key, "dir") || *dir) && ((strcmp(key, "unit") && strcmp(key, "cgroup")) || *place))
			return flaw_at(r, &r->event.start_mark,
				       "\"%.15s\": an item of svids has `dir` and one of `unit` and `cgroup`", key);
		rc = reader_next(r);
		if (!rc)
			rc = scalar(r, key, &text);
		if (rc)
			return rc;
		if (!*text || strpbrk(text, ",=") || strlen(text) >= CONFIG_PATH_MAX - 8)
			return flaw_at(r, &r->event.start_mark, "%s is empty, too long, or has a comma or '='", key);
		if (!strcmp(key, "dir"))
			snprintf(dir, sizeof(dir), "%s", text);
		else
			snprintf(place, sizeof(place), "%s:%s", strcmp(key, "unit") ? "cgroup" : "unit", text);
	}
	if (!*dir || !*place)
		return flaw_at(r, &start, "an item of svids has `dir` and one of `unit` and `cgroup`");
	used += (size_t)snprintf(out + used, size - used, "%s%s=%s", used ? "," : "", dir, place);
	return used >= size ? flaw_at(r, &start, "svids is longer than %zu bytes", size - 1) : 0;
}

/* A list of such maps under the cursor. */
static int svid_list(struct reader *r, char *out, size_t size)
{
	int rc;

	out[0] = '\0';
	for (;;) {
		rc = reader_next(r);
		if (rc)
			return rc;
		if (r->event.type == YAML_SEQUENCE_END_EVENT)
			return 0;
		rc = svid_map(r, out, size);
		if (rc)
			return rc;
	}
}

/* ---- federation ---- */

/* One relationship; the cursor is on the start of its mapping. A flaw of one key is shown at the key, or its value; one of
 * the whole where it begins. */
static int federation_read(struct reader *r, struct federation *entry)
{
	yaml_mark_t start = r->event.start_mark;
	char key[64], why[600];
	const char *text;
	int rc;

	if (r->event.type != YAML_MAPPING_START_EVENT)
		return flaw_at(r, &start, "a federation is `trust_domain:`, `url:`, `profile:` and so on");
	for (;;) {
		yaml_mark_t at;

		rc = reader_next(r);
		if (rc)
			return rc;
		if (r->event.type == YAML_MAPPING_END_EVENT)
			break;
		at = r->event.start_mark;
		rc = scalar(r, "a key", &text);
		if (rc)
			return rc;
		snprintf(key, sizeof(key), "%s", text);
		rc = reader_next(r);
		if (!rc)
			rc = scalar(r, key, &text);
		if (rc)
			return rc;
		if (federation_set(entry, key, text, why, sizeof(why)))
			return flaw_at(r, &at, "%s", why);
	}
	return federation_check(entry, why, sizeof(why)) ? flaw_at(r, &start, "%s", why) : 0;
}

/* The list; the cursor is on the key. */
static int federations_read(struct reader *r, struct daemon_config *out)
{
	yaml_mark_t at = r->event.start_mark;
	char why[600];
	int rc;

	if (out->n_federation)
		return flaw_at(r, &at, "federation is set twice");
	rc = reader_next(r);
	if (rc)
		return rc;
	if (r->event.type != YAML_SEQUENCE_START_EVENT)
		return flaw_at(r, &r->event.start_mark,
			       "federation must be a list, each item with `- trust_domain: ...`");
	for (;;) {
		rc = reader_next(r);
		if (rc || r->event.type == YAML_SEQUENCE_END_EVENT)
			return rc;
		if (out->n_federation == FEDERATION_MAX)
			return flaw_at(r, &r->event.start_mark, "more than %d federations", FEDERATION_MAX);
		at = r->event.start_mark;
		rc = federation_read(r, &out->federation[out->n_federation]);
		if (rc)
			return rc;
		if (federation_check_all(out->federation, ++out->n_federation, why, sizeof(why)))
			return flaw_at(r, &at, "%s", why);
	}
}

/* One `key: value`; the cursor is on the key. */
static int parse_entry(struct reader *r, struct daemon_config_file *out)
{
	char why[400], list[CONFIG_SVIDS_MAX];
	const char *text;
	yaml_mark_t at;
	size_t key;
	int rc;

	rc = scalar(r, "a key", &text);
	if (rc)
		return rc;
	if (!strcmp(text, "federation"))
		return federations_read(r, &out->values);
	for (key = 0; key < CONFIG_KEYS; key++)
		if (!strcmp(text, settings[key].key))
			break;
	if (key == CONFIG_KEYS)
		return unknown_key(r, text);
	if (out->present & 1U << key)
		return flaw_at(r, &r->event.start_mark, "%s is set twice", settings[key].key);
	rc = reader_next(r);
	if (rc)
		return rc;
	at = r->event.start_mark;
	if (key == CONFIG_KEY_DEVICES && r->event.type == YAML_SEQUENCE_START_EVENT) {
		rc = scalar_list(r, settings[key].key, list, CONFIG_DEVICES_MAX);
		text = list;
	} else if (key == CONFIG_KEY_SVIDS && r->event.type == YAML_SEQUENCE_START_EVENT) {
		rc = svid_list(r, list, sizeof(list));
		text = list;
	} else {
		rc = scalar(r, settings[key].key, &text);
	}
	if (rc)
		return rc;
	/* An empty list says what the default is. */
	if ((key == CONFIG_KEY_DEVICES || key == CONFIG_KEY_SVIDS) && !*text)
		return 0;
	if (setting_set(out, (enum config_key)key, text, why, sizeof(why)))
		return flaw_at(r, &at, "%s", why);
	return 0;
}

static int parse_document(struct reader *r, struct daemon_config_file *out)
{
	int rc = reader_next(r);

	if (rc)
		return rc;
	/* A file of comments only has a document with an empty scalar, or none. */
	if (r->event.type == YAML_SCALAR_EVENT && !r->event.data.scalar.length)
		return reader_next(r);
	if (r->event.type != YAML_MAPPING_START_EVENT)
		return flaw_at(r, &r->event.start_mark, "the file must be a list of `key: value` lines");
	for (;;) {
		rc = reader_next(r);
		if (rc)
			return rc;
		if (r->event.type == YAML_MAPPING_END_EVENT)
			return reader_next(r);
		rc = parse_entry(r, out);
		if (rc)
			return rc;
	}
}

int config_parse_yaml(const char *text, size_t len, const char *name, struct daemon_config_file *out, char *why,
		      size_t why_size)
{
	__attribute__((cleanup(reader_close))) struct reader r = {.name = name, .why = why, .why_size = why_size};
	int rc;

	memset(out, 0, sizeof(*out));
	if (!yaml_parser_initialize(&r.parser))
		return -ENOMEM;
	if (len > CONFIG_MAX_BYTES) {
		say(why, why_size, "%s: error: larger than %u bytes", name, CONFIG_MAX_BYTES);
		return 1;
	}
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	rc = reader_next(&r); /* start of stream */
	if (!rc)
		rc = reader_next(&r);
	if (rc)
		return rc;
	if (r.event.type == YAML_STREAM_END_EVENT)
		return 0;
	rc = parse_document(&r, out); /* leaves the cursor on the end of the document */
	if (!rc)
		rc = reader_next(&r);
	if (!rc && r.event.type != YAML_STREAM_END_EVENT)
		rc = flaw_at(&r, &r.event.start_mark, "one document per file");
	return rc;
}

/* ---- options ---- */

enum {
	OPTION_CONFIG = 256,
	OPTION_HELP,
	OPTION_VERSION,
	OPTION_SETTING, /* + enum config_key */
};

enum config_action config_parse_options(int argc, char **argv, struct daemon_options *out, char *why, size_t why_size)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, OPTION_CONFIG},
		{"help", no_argument, NULL, OPTION_HELP},
		{"version", no_argument, NULL, OPTION_VERSION},
		{"instance", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_INSTANCE},
		{"subtree", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_SUBTREE},
		{"run-dir", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_RUN_DIR},
		{"state-dir", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_STATE_DIR},
		{"audit-log", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_AUDIT_LOG},
		{"bundle-dir", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_BUNDLE_DIR},
		{"policy-dir", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_POLICY_DIR},
		{"pin-dir", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_PIN_DIR},
		{"key-hours", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_KEY_HOURS},
		{"metrics", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_METRICS},
		{"devices", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_DEVICES},
		{"fips", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_FIPS},
		{"fips-config", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_FIPS_CONFIG},
		{"device-hook", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_DEVICE_HOOK},
		{"federation-ca", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_FEDERATION_CA},
		{"workload-api", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_WORKLOAD_API},
		{"allow-proc-fallback", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_ALLOW_PROC_FALLBACK},
		{"allow-delegated", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_ALLOW_DELEGATED},
		{"max-lifetime", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_MAX_LIFETIME},
		{"svids", required_argument, NULL, OPTION_SETTING + CONFIG_KEY_SVIDS},
		{NULL, 0, NULL, 0},
	};
	int option;

	memset(out, 0, sizeof(*out));
	out->config = CONFIG_FILE;
	optind = 0;
	opterr = 0;
	while ((option = getopt_long(argc, argv, "+:h", options, NULL)) != -1) {
		switch (option) {
		case OPTION_CONFIG:
			out->config = optarg;
			out->config_given = 1;
			break;
		case 'h':
		case OPTION_HELP:
			return CONFIG_SHOW_HELP;
		case OPTION_VERSION:
			return CONFIG_SHOW_VERSION;
		case ':':
			say(why, why_size, "option %s needs a value", argv[optind - 1]);
			return CONFIG_USAGE_ERROR;
		case '?':
			say(why, why_size, "unknown option %s", argv[optind - 1]);
			return CONFIG_USAGE_ERROR;
		default:
			if (setting_set(&out->set, (enum config_key)(option - OPTION_SETTING), optarg, why, why_size))
				return CONFIG_USAGE_ERROR;
		}
	}
	if (optind < argc) {
		say(why, why_size, "unexpected argument %s", argv[optind]);
		return CONFIG_USAGE_ERROR;
	}
	return CONFIG_RUN;
}

void config_print_help(FILE *out)
{
	fputs("Usage: bulkheadd [OPTION]...\n"
	      "Decides by verified identity which workloads may talk to each other, and enforces it in the kernel.\n\n",
	      out);
	fprintf(out, "  --%-22s %s\n", "config FILE", "configuration (" CONFIG_FILE ")");
	for (size_t i = 0; i < CONFIG_KEYS; i++) {
		char option[40];

		snprintf(option, sizeof(option), "%s %s", settings[i].key, settings[i].argument);
		for (char *p = option; *p; p++)
			if (*p == '_')
				*p = '-';
		fprintf(out, "  --%-22s %s\n", option, settings[i].help);
	}
	fputs("  --help                   this text\n"
	      "  --version                version\n\n"
	      "The keys of the configuration file are the same words with '_'. Options win over the file.\n"
	      "An instance NAME other than \"" CONFIG_INSTANCE "\" has bulkhead-NAME for bulkhead in the defaults of\n"
	      "--run-dir, --state-dir, --audit-log and --pin-dir.\n",
	      out);
}

/* ---- result ---- */

static void config_defaults(struct daemon_config *out, const char *instance)
{
	const char *dash = strcmp(instance, CONFIG_INSTANCE) ? "-" : "";
	const char *suffix = *dash ? instance : "";

	memset(out, 0, sizeof(*out));
	snprintf(out->instance, sizeof(out->instance), "%s", instance);
	strcpy(out->subtree, "/");
	snprintf(out->run_dir, sizeof(out->run_dir), "/run/bulkhead%s%s", dash, suffix);
	snprintf(out->state_dir, sizeof(out->state_dir), "/var/lib/bulkhead%s%s", dash, suffix);
	snprintf(out->audit_log, sizeof(out->audit_log), "/var/log/bulkhead%s%s/audit.jsonl", dash, suffix);
	strcpy(out->bundle_dir, "/etc/bulkhead/bundles");
	strcpy(out->policy_dir, "/etc/bulkhead/policy.d");
	strcpy(out->key_hours, "24");
	strcpy(out->metrics, METRICS_OFF);
	strcpy(out->fips, "off");
	strcpy(out->device_hook, "auto");
	strcpy(out->workload_api, WORKLOAD_OFF);
	strcpy(out->allow_proc_fallback, "false");
	strcpy(out->allow_delegated, "false");
	strcpy(out->max_lifetime, "none");
}

/* A set that came through a pipe may be anything: every string is checked again as if it were typed. */
static int set_check(struct daemon_config_file *out, const struct daemon_config_file *in, char *why, size_t size)
{
	memset(out, 0, sizeof(*out));
	if (!in)
		return 0;
	if (in->present >> CONFIG_KEYS) {
		say(why, size, "configuration: unknown settings %#x", in->present);
		return 1;
	}
	for (size_t key = 0; key < CONFIG_KEYS; key++) {
		const char *value = (const char *)&in->values + settings[key].offset;

		if (!(in->present & 1U << key))
			continue;
		if (!memchr(value, '\0', settings[key].size)) {
			say(why, size, "configuration: %s is not terminated", settings[key].key);
			return 1;
		}
		if (setting_set(out, (enum config_key)key, value, why, size))
			return 1;
	}
	if (federation_check_all(in->values.federation, in->values.n_federation, why, size))
		return 1;
	out->values.n_federation = in->values.n_federation;
	memcpy(out->values.federation, in->values.federation, sizeof(out->values.federation));
	return 0;
}

static void set_overlay(struct daemon_config *config, const struct daemon_config_file *set)
{
	for (size_t key = 0; key < CONFIG_KEYS; key++)
		if (set->present & 1U << key)
			memcpy(setting_value(config, (enum config_key)key),
			       (const char *)&set->values + settings[key].offset, settings[key].size);
	if (set->values.n_federation) {
		config->n_federation = set->values.n_federation;
		memcpy(config->federation, set->values.federation, sizeof(config->federation));
	}
}

int config_merge(struct daemon_config *out, const struct daemon_config_file *file,
		 const struct daemon_config_file *options, char *why, size_t why_size)
{
	struct daemon_config_file from_file, from_options;
	const char *instance = CONFIG_INSTANCE;

	if (set_check(&from_file, file, why, why_size) || set_check(&from_options, options, why, why_size))
		return 1;
	if (from_options.present & 1U << CONFIG_KEY_INSTANCE)
		instance = from_options.values.instance;
	else if (from_file.present & 1U << CONFIG_KEY_INSTANCE)
		instance = from_file.values.instance;
	config_defaults(out, instance);
	set_overlay(out, &from_file);
	set_overlay(out, &from_options);
	return 0;
}

int config_pin_dir(const struct daemon_config *config, const char *bpffs, char *out, size_t size)
{
	bool plain = !strcmp(config->instance, CONFIG_INSTANCE);
	int len;

	if (config->pin_dir[0])
		len = snprintf(out, size, "%s", config->pin_dir);
	else
		len = snprintf(out, size, "%s/bulkhead%s%s", bpffs, plain ? "" : "-", plain ? "" : config->instance);
	return len >= 0 && (size_t)len < size ? 0 : -ENAMETOOLONG;
}

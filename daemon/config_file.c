/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config_internal.h"

#include <errno.h>
#include <string.h>

#include "policy/suggestion.h"

static int unknown_key(struct config_reader *r, const char *key)
{
	struct suggestion suggestion = {.wrong = key};

	for (size_t i = 0; i < CONFIG_KEYS; i++)
		suggestion_offer(&suggestion, config_settings[i].key);
	suggestion_offer(&suggestion, "federation");
	if (suggestion.best)
		return config_flaw_at(r, &r->event.start_mark, "unknown key \"%.64s\"; did you mean \"%s\"?", key,
				      suggestion.best);
	return config_flaw_at(
		r, &r->event.start_mark,
		"unknown key \"%.64s\"; known: instance, subtree, run_dir, state_dir, audit_log, bundle_dir, "
		"policy_dir, pin_dir, key_hours, metrics, devices, fips, fips_config, device_hook, "
		"federation, federation_ca, workload_api, allow_proc_fallback, allow_delegated, max_lifetime, "
		"svids",
		key);
}

/* One `key: value`; the cursor is on the key. */
static int parse_entry(struct config_reader *r, struct daemon_config_file *out)
{
	char why[400], list[CONFIG_SVIDS_MAX];
	const char *text;
	yaml_mark_t at;
	size_t key;
	int rc;

	rc = config_scalar(r, "a key", &text);
	if (rc)
		return rc;
	if (!strcmp(text, "federation"))
		return config_federations_read(r, &out->values);
	for (key = 0; key < CONFIG_KEYS; key++)
		if (!strcmp(text, config_settings[key].key))
			break;
	if (key == CONFIG_KEYS)
		return unknown_key(r, text);
	if (out->present & 1U << key)
		return config_flaw_at(r, &r->event.start_mark, "%s is set twice", config_settings[key].key);
	rc = config_reader_next(r);
	if (rc)
		return rc;
	at = r->event.start_mark;
	if (key == CONFIG_KEY_DEVICES && r->event.type == YAML_SEQUENCE_START_EVENT) {
		rc = config_list_read(r, config_settings[key].key, config_item_scalar, list, CONFIG_DEVICES_MAX);
		text = list;
	} else if (key == CONFIG_KEY_SVIDS && r->event.type == YAML_SEQUENCE_START_EVENT) {
		rc = config_list_read(r, config_settings[key].key, config_item_svid, list, sizeof(list));
		text = list;
	} else {
		rc = config_scalar(r, config_settings[key].key, &text);
	}
	if (rc)
		return rc;
	/* An empty list says what the default is. */
	if ((key == CONFIG_KEY_DEVICES || key == CONFIG_KEY_SVIDS) && !*text)
		return 0;
	if (config_set(out, (enum config_key)key, text, why, sizeof(why)))
		return config_flaw_at(r, &at, "%s", why);
	return 0;
}

static int parse_document(struct config_reader *r, struct daemon_config_file *out)
{
	int rc = config_reader_next(r);

	if (rc)
		return rc;
	/* A file of comments only has a document with an empty scalar, or none. */
	if (r->event.type == YAML_SCALAR_EVENT && !r->event.data.scalar.length)
		return config_reader_next(r);
	if (r->event.type != YAML_MAPPING_START_EVENT)
		return config_flaw_at(r, &r->event.start_mark, "the file must be a list of `key: value` lines");
	for (;;) {
		rc = config_reader_next(r);
		if (rc)
			return rc;
		if (r->event.type == YAML_MAPPING_END_EVENT)
			return config_reader_next(r);
		rc = parse_entry(r, out);
		if (rc)
			return rc;
	}
}

int config_parse_yaml(const char *text, size_t len, const char *name, struct daemon_config_file *out, char *why,
		      size_t why_size)
{
	__attribute__((cleanup(config_reader_close))) struct config_reader r = {
		.name = name, .why = why, .why_size = why_size};
	int rc;

	memset(out, 0, sizeof(*out));
	if (!yaml_parser_initialize(&r.parser))
		return -ENOMEM;
	if (len > CONFIG_MAX_BYTES) {
		config_say(why, why_size, "%s: error: larger than %u bytes", name, CONFIG_MAX_BYTES);
		return 1;
	}
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	rc = config_reader_next(&r); /* start of stream */
	if (!rc)
		rc = config_reader_next(&r);
	if (rc)
		return rc;
	if (r.event.type == YAML_STREAM_END_EVENT)
		return 0;
	rc = parse_document(&r, out); /* leaves the cursor on the end of the document */
	if (!rc)
		rc = config_reader_next(&r);
	if (!rc && r.event.type != YAML_STREAM_END_EVENT)
		rc = config_flaw_at(&r, &r.event.start_mark, "one document per file");
	return rc;
}

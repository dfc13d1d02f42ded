/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config_internal.h"

#include <string.h>

/* One relationship; the cursor is on the start of its mapping. A flaw of one key is shown at the key, or its value; one of
 * the whole where it begins. */
static int federation_read(struct config_reader *r, struct federation *entry)
{
	yaml_mark_t start = r->event.start_mark;
	char key[64], why[600];
	const char *text;
	int rc;

	if (r->event.type != YAML_MAPPING_START_EVENT)
		return config_flaw_at(r, &start, "a federation is `trust_domain:`, `url:`, `profile:` and so on");
	for (;;) {
		yaml_mark_t at;

		rc = config_reader_next(r);
		if (rc)
			return rc;
		if (r->event.type == YAML_MAPPING_END_EVENT)
			break;
		at = r->event.start_mark;
		rc = config_scalar(r, "a key", &text);
		if (rc)
			return rc;
		snprintf(key, sizeof(key), "%s", text);
		rc = config_reader_next(r);
		if (!rc)
			rc = config_scalar(r, key, &text);
		if (rc)
			return rc;
		if (federation_set(entry, key, text, why, sizeof(why)))
			return config_flaw_at(r, &at, "%s", why);
	}
	return federation_check(entry, why, sizeof(why)) ? config_flaw_at(r, &start, "%s", why) : 0;
}

int config_federations_read(struct config_reader *r, struct daemon_config *out)
{
	yaml_mark_t at = r->event.start_mark;
	char why[600];
	int rc;

	if (out->n_federation)
		return config_flaw_at(r, &at, "federation is set twice");
	rc = config_reader_next(r);
	if (rc)
		return rc;
	if (r->event.type != YAML_SEQUENCE_START_EVENT)
		return config_flaw_at(r, &r->event.start_mark,
				      "federation must be a list, each item with `- trust_domain: ...`");
	for (;;) {
		rc = config_reader_next(r);
		if (rc || r->event.type == YAML_SEQUENCE_END_EVENT)
			return rc;
		if (out->n_federation == FEDERATION_MAX)
			return config_flaw_at(r, &r->event.start_mark, "more than %d federations", FEDERATION_MAX);
		at = r->event.start_mark;
		rc = federation_read(r, &out->federation[out->n_federation]);
		if (rc)
			return rc;
		if (federation_check_all(out->federation, ++out->n_federation, why, sizeof(why)))
			return config_flaw_at(r, &at, "%s", why);
	}
}

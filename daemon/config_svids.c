/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config_internal.h"

#include <string.h>

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
	if (config_path_flaw(out->dir, CONFIG_KEY_SVIDS))
		return "a directory is not an absolute path without empty, \".\" and \"..\" components";
	if (out->unit ? !out->place[0] || strchr(out->place, '/') || strpbrk(out->place, " \t\n")
		      : config_path_flaw(out->place, CONFIG_KEY_SVIDS) != NULL)
		return "a place is neither the name of a unit nor the path of a cgroup below the managed subtree";
	return NULL;
}

const char *config_svids_flaw(const char *list)
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

int config_item_svid(struct config_reader *r, const char *what, char *out, size_t size)
{
	char dir[CONFIG_PATH_MAX] = "", place[CONFIG_PATH_MAX] = "", key[16];
	yaml_mark_t start = r->event.start_mark;
	const char *text;
	int rc;

	if (r->event.type != YAML_MAPPING_START_EVENT)
		return config_flaw_at(r, &start,
				      "an item of svids must be {dir: DIR, unit: NAME} or {dir: DIR, cgroup: PATH}");
	for (;;) {
		rc = config_reader_next(r);
		if (rc)
			return rc;
		if (r->event.type == YAML_MAPPING_END_EVENT)
			break;
		rc = config_scalar(r, "a key", &text);
		if (rc)
			return rc;
		snprintf(key, sizeof(key), "%s", text);
		if ((strcmp(key, "dir") || *dir) && ((strcmp(key, "unit") && strcmp(key, "cgroup")) || *place))
			return config_flaw_at(r, &r->event.start_mark,
					      "\"%.15s\": an item of svids has `dir` and one of `unit` and `cgroup`",
					      key);
		rc = config_reader_next(r);
		if (!rc)
			rc = config_scalar(r, key, &text);
		if (rc)
			return rc;
		if (!*text || strpbrk(text, ",=") || strlen(text) >= CONFIG_PATH_MAX - 8)
			return config_flaw_at(r, &r->event.start_mark, "%s is empty, too long, or has a comma or '='",
					      key);
		if (!strcmp(key, "dir"))
			snprintf(dir, sizeof(dir), "%s", text);
		else
			snprintf(place, sizeof(place), "%s:%s", strcmp(key, "unit") ? "cgroup" : "unit", text);
	}
	if (!*dir || !*place)
		return config_flaw_at(r, &start, "an item of svids has `dir` and one of `unit` and `cgroup`");
	if ((size_t)snprintf(out, size, "%s=%s", dir, place) >= size)
		return config_flaw_at(r, &start, "an item of %s is longer than %zu bytes", what, size - 1);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_internal.h - what the parts of the configuration share:
 *
 *   config.c             the settings, options, and what is in effect
 *   config_values.c      what a value of each may be
 *   config_file.c        the file: its keys
 *   config_reader.c      the file: YAML, and where a flaw is
 *   config_svids.c       the list of SVIDs, as a value and in the file
 *   config_federation.c  the list of federations, in the file
 */
#ifndef BULKHEAD_DAEMON_CONFIG_INTERNAL_H
#define BULKHEAD_DAEMON_CONFIG_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <yaml.h>

#include "daemon/config.h"

#define CONFIG_WORKLOAD_OFF "off"

/* ---- config.c ---- */

struct config_setting {
	const char *key; /* in the file; the option is the same with '-' */
	const char *argument;
	const char *help;
	size_t offset;
	size_t size;
};

/* In the order of enum config_key. */
extern const struct config_setting config_settings[CONFIG_KEYS];

static inline char *config_value(struct daemon_config *config, enum config_key key)
{
	return (char *)config + config_settings[key].offset;
}

__attribute__((format(printf, 3, 4))) void config_say(char *why, size_t size, const char *format, ...);

/* ---- config_values.c ---- */

/* Takes one value into `set`. Returns 0, or 1 with the reason in `why`. */
int config_set(struct daemon_config_file *set, enum config_key key, const char *value, char *why, size_t size);
/* Absolute, without empty, "." and ".." components, without control characters. Says what is wrong, or NULL. */
const char *config_path_flaw(const char *path, enum config_key key);

/* ---- config_reader.c ---- */

struct config_reader {
	yaml_parser_t parser;
	yaml_event_t event;
	bool have_event;
	const char *name;
	char *why;
	size_t why_size;
};

void config_reader_close(struct config_reader *r);
/* Moves to the next event. Returns 0, 1 (not YAML; reported) or -ENOMEM. */
int config_reader_next(struct config_reader *r);
/* Reports what is wrong there. Returns 1. */
__attribute__((format(printf, 3, 4))) int config_flaw_at(struct config_reader *r, const yaml_mark_t *mark,
							 const char *format, ...);
/* The scalar under the cursor as a string without NUL bytes. Returns 0 or 1 (reported). */
int config_scalar(struct config_reader *r, const char *what, const char **textp);
/* Writes the item of the list `what` under the cursor as a text without comma. Returns 0, 1 (reported) or -ENOMEM. */
typedef int config_item_read(struct config_reader *r, const char *what, char *out, size_t size);
/* An item that is a text. */
config_item_read config_item_scalar;
/* A list under the cursor, its items joined with commas. Returns 0, 1 (reported) or -ENOMEM. */
int config_list_read(struct config_reader *r, const char *what, config_item_read *read, char *out, size_t size);

/* ---- config_svids.c ---- */

/* Of the value of `svids`. Says what is wrong, or NULL. */
const char *config_svids_flaw(const char *list);
/* An item that is {dir: DIR, unit: NAME} or {dir: DIR, cgroup: PATH}, as it stands in the value of `svids`. */
config_item_read config_item_svid;

/* ---- config_federation.c ---- */

/* The list; the cursor is on the key. Returns 0, 1 (reported) or -ENOMEM. */
int config_federations_read(struct config_reader *r, struct daemon_config *out);

#endif

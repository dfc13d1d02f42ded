/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carry_found.h - what is pinned in the pin directory, and which maps the pinned links' programs use.
 *
 * A map is pinned as NAME_NUMBER, its layout number; builds before numbers pinned it as NAME.
 */
#ifndef BULKHEAD_DAEMON_CARRY_FOUND_H
#define BULKHEAD_DAEMON_CARRY_FOUND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Names in the pin directory, and the maps that attached programs use. Begins as all 0. */
struct carry_found {
	char **names;
	size_t n_names;
	uint32_t *in_use; /* map ids */
	size_t n_in_use;
};

/* Returns 0 or -errno; to be cleared in any case. */
int carry_found_read(struct carry_found *found, const char *pin_dir);
void carry_found_clear(struct carry_found *found);
bool carry_found_uses(const struct carry_found *found, uint32_t id);
/* The layout number in the name of a pin of this map; 0: a build before numbers; -1: another map's. */
int carry_number_of(const char *pin, const char *map);

#endif

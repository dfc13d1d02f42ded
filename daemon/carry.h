/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carry.h - what the kernel remembers, taken over from the maps of a build with another layout.
 *
 * Maps are pinned by name and layout number (bpf/abi_layout.h). Of each map, the build that starts opens the one with its
 * own number. Where there is none, or one that nothing uses while programs use another number, it makes the map anew and
 * carries over what has to survive, as one table (carry.c) says of each map. What the programs in force use is what counts:
 * a pin that no attached program refers to is a leftover, and never a source where there is a better one.
 *
 * Order: plan, load the object, carry what only daemons write, fill the tables, pin, carry what programs write, replace the
 * programs, wait until the old ones have ended, carry what they wrote meanwhile, remove the old pins. Before the programs are
 * replaced nothing that enforces is touched, so a fault, or a daemon killed at any step, leaves enforcement as it was. One
 * that is killed while programs are replaced leaves some of each build: the next start, of either build, finds both layouts
 * in use and brings the rest over.
 */
#ifndef BULKHEAD_DAEMON_CARRY_H
#define BULKHEAD_DAEMON_CARRY_H

#include <stdbool.h>
#include <stddef.h>

struct bpf_object;
struct carry;

enum carry_pass {
	CARRY_BEFORE, /* the programs are replaced */
	CARRY_AFTER,
};

/* Looks at what is pinned, and prepares each pinned map of the object, which is open and not loaded yet: opened from its pin,
 * or made anew. Returns 0 or -errno with a sentence; -EPROTONOSUPPORT: what is there cannot be read. */
int carry_plan(struct carry **carryp, struct bpf_object *object, const char *pin_dir, char *why, size_t why_size);
/* Carries what only daemons write, after loading. Returns 0 or -errno with a sentence. */
int carry_settled(struct carry *carry, char *why, size_t why_size);
/* Pins what was made anew. Returns 0 or -errno with a sentence. */
int carry_pin(struct carry *carry, char *why, size_t why_size);
/* Carries what the programs write. Returns 0 or -errno with a sentence. */
int carry_live(struct carry *carry, enum carry_pass pass, char *why, size_t why_size);
/* The programs of this build are in force: removes the pins of all other layouts. */
void carry_finish(struct carry *carry);
/* They will not be: removes the pins that carry_pin() made. */
void carry_abandon(struct carry *carry);
/* Is anything carried from another layout? */
bool carry_is_due(const struct carry *carry);
void carry_freep(struct carry **carryp);

/* The layout number of a map of this build; 0: a map that the table does not know. */
unsigned carry_layout(const char *map);

/* Does any pin no longer name its map? Names the first such in `path`. */
bool carry_pins_hold(const struct carry *carry, char *path, size_t size);
/* Pins every map again that is not pinned. Returns 0 or -errno. */
int carry_pins_restore(struct carry *carry);

#endif

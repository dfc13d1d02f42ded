/* SPDX-License-Identifier: Apache-2.0 */
/*
 * until.h - when rules end, in the kernel's clock.
 *
 * A rule says `until` a moment of the calendar. The kernel programs compare with CLOCK_BOOTTIME, which nobody can set; so the
 * moments of an image (seconds since 1970) are worked out when its tables are filled, and again whenever the clock is set.
 */
#ifndef BULKHEAD_DAEMON_UNTIL_H
#define BULKHEAD_DAEMON_UNTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct enforcer;

/* What CLOCK_BOOTTIME shows (ns) at a moment, given what both clocks show now. A moment before the host booted is 0. */
uint64_t until_boottime_ns(uint64_t seconds, uint64_t realtime_ns, uint64_t boottime_ns);

/* Writes the moments of the tables of an image to where a copy of the tables is in use: each with one store, as a program may
 * be reading it. Both clocks are read here. Returns whether there are any. */
bool until_write(void *copy, const void *tables);

/* Is `copy` what until_write() made of the tables of an image, whatever the clock showed? */
bool until_is_copy(const void *copy, const void *tables, size_t len);

/* The next moment at which a rule of tables in use ends (CLOCK_BOOTTIME, ns), or BH_FOREVER. */
uint64_t until_next(const void *tables, uint64_t boottime_ns);

/* Watches the clock for the time of the enforcer; when it is set, the tables in force follow. Returns 0 or -errno. */
int enforcer_clock_watch(struct enforcer *enforcer);

#endif

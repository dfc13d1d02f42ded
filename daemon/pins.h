/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pins.h - names in bpffs. A pin is what lets a map or a link outlive the daemon; other processes of root's can remove it,
 * or put another object in its place, so it is looked at again and again.
 */
#ifndef BULKHEAD_DAEMON_PINS_H
#define BULKHEAD_DAEMON_PINS_H

#include <stdbool.h>
#include <stdint.h>

/* Is it, or what there is of the way to it, in a bpffs? Nothing else keeps pins. Returns 1: it is, 0: it is not, or -errno: that
 * cannot be found out. */
int pins_directory_possible(const char *path);
/* Makes the directory and those above it. Returns 0 or -errno. */
int pins_directory_make(const char *path);
/* Does the path name this object? */
bool pin_names(const char *path, int fd);
/* Pins the object, in the place of what the path names already, without a moment in which neither is there. Returns 0 or
 * -errno. */
int pin_replace(const char *path, int fd);

#endif

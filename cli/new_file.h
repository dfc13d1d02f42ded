/* SPDX-License-Identifier: Apache-2.0 */
/*
 * new_file.h - a file that is there whole or not at all.
 */
#ifndef BULKHEAD_CLI_NEW_FILE_H
#define BULKHEAD_CLI_NEW_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Writes it beside, and gives it its name when it is on disk. `replace`: in the place of a file of this name, else that is
 * -EEXIST and stays as it is. `mode` is taken as it stands. Returns 0 or -errno; says nothing. */
int new_file_write(const char *path, const void *bytes, size_t len, mode_t mode, bool replace);

#endif

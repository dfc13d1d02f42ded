/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.h - reading and writing whole files, bounded.
 */
#ifndef BULKHEAD_DAEMON_FILES_H
#define BULKHEAD_DAEMON_FILES_H

#include <stddef.h>

/* Reads a regular file of at most `max` bytes into malloc()ed memory with a NUL behind. Returns 0, -EFBIG or -errno. */
int file_read(int dir_fd, const char *path, size_t max, char **textp, size_t *lenp);
/* Writes all bytes, whatever write(2) takes at a time. Returns 0 or -errno. */
int file_write_all(int fd, const void *bytes, size_t len);

#endif

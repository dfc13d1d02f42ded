/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.h - reading and writing whole files, bounded; reading directories.
 */
#ifndef BULKHEAD_DAEMON_FILES_H
#define BULKHEAD_DAEMON_FILES_H

#include <dirent.h>
#include <stddef.h>

/* Reads a regular file of at most `max` bytes into malloc()ed memory with a NUL behind. Returns 0, -EFBIG or -errno. */
int file_read(int dir_fd, const char *path, size_t max, char **textp, size_t *lenp);
/* Writes all bytes, whatever write(2) takes at a time. Returns 0 or -errno. */
int file_write_all(int fd, const void *bytes, size_t len);
/* Opens a directory to be read from its beginning, whatever was read of `dir_fd` (AT_FDCWD: a path of its own) before. Returns 0,
 * then the caller closes it, or -errno. */
int directory_open(int dir_fd, const char *path, DIR **dirp);
/* The next entry, which is the directory's until it is asked again. Returns 1, 0 at the end, or -errno: then not all was read. */
int directory_next(DIR *dir, struct dirent **entryp);

#endif

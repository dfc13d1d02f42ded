/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/cleanup.h"

static int fill(int fd, const char *bytes, size_t len, mode_t mode)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		len -= (size_t)n;
	}
	return fchmod(fd, mode) < 0 || fsync(fd) < 0 ? -errno : 0;
}

int new_file_write(const char *path, const void *bytes, size_t len, mode_t mode, bool replace)
{
	__attribute__((cleanup(freep))) char *beside = NULL;
	__attribute__((cleanup(closep))) int fd = -1;
	const char *slash = strrchr(path, '/');
	int r;

	if (asprintf(&beside, "%.*s.%s.XXXXXX", slash ? (int)(slash + 1 - path) : 0, path, slash ? slash + 1 : path) <
	    0) {
		beside = NULL;
		return -ENOMEM;
	}
	fd = mkostemp(beside, O_CLOEXEC); /* 0600 until it is filled */
	if (fd < 0)
		return -errno;
	r = fill(fd, bytes, len, mode);
	if (r == 0 && renameat2(AT_FDCWD, beside, AT_FDCWD, path, replace ? 0 : RENAME_NOREPLACE) < 0)
		r = -errno;
	if (r < 0)
		unlink(beside);
	return r;
}

// SPDX-License-Identifier: Apache-2.0
#include "confirmation.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "files.h"

#define FILE_NAME "confirmation"
#define FILE_NAME_NEW "confirmation.new"
#define CONFIRMATION_MAGIC "BHCNF1\0"

struct confirmation_file {
	char magic[8];
	uint32_t revision;
	uint32_t previous;
	uint64_t deadline_ns;
	char boot_id[37];
	char pad[3];
};

int confirmation_boot_id(char out[37])
{
	__attribute__((cleanup(closep))) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, out, 36);
	if (n != 36)
		return n < 0 ? -errno : -EIO;
	out[36] = '\0';
	return 0;
}

int confirmation_write(int dir_fd, const struct confirmation *confirmation)
{
	__attribute__((cleanup(closep))) int fd =
		openat(dir_fd, FILE_NAME_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct confirmation_file file = {
		.magic = CONFIRMATION_MAGIC,
		.revision = confirmation->revision,
		.previous = confirmation->previous,
		.deadline_ns = confirmation->deadline_ns,
	};
	int r;

	if (fd < 0)
		return -errno;
	memcpy(file.boot_id, confirmation->boot_id, sizeof(file.boot_id));
	r = file_write_all(fd, &file, sizeof(file));
	if (!r && (fsync(fd) < 0 || renameat(dir_fd, FILE_NAME_NEW, dir_fd, FILE_NAME) < 0 || fsync(dir_fd) < 0))
		r = -errno;
	if (r)
		unlinkat(dir_fd, FILE_NAME_NEW, 0);
	return r;
}

int confirmation_read(int dir_fd, struct confirmation *confirmation)
{
	struct confirmation_file file;
	char *bytes;
	size_t len;
	int r = file_read(dir_fd, FILE_NAME, sizeof(file), &bytes, &len);

	*confirmation = (struct confirmation){};
	if (r)
		return r == -EFBIG ? -EBADMSG : r;
	if (len == sizeof(file))
		memcpy(&file, bytes, sizeof(file));
	free(bytes);
	if (len != sizeof(file) || memcmp(file.magic, CONFIRMATION_MAGIC, sizeof(file.magic)) != 0 || !file.revision ||
	    file.boot_id[sizeof(file.boot_id) - 1])
		return -EBADMSG;
	confirmation->revision = file.revision;
	confirmation->previous = file.previous;
	confirmation->deadline_ns = file.deadline_ns;
	memcpy(confirmation->boot_id, file.boot_id, sizeof(file.boot_id));
	return 0;
}

int confirmation_remove(int dir_fd)
{
	if (unlinkat(dir_fd, FILE_NAME, 0) < 0)
		return errno == ENOENT ? 0 : -errno;
	return fsync(dir_fd) < 0 ? -errno : 0;
}

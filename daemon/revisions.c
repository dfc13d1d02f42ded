// SPDX-License-Identifier: Apache-2.0
#include "revisions.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "policy/image.h"
#include "policy_pack.h"

#define REVISION_MAGIC "BHREV1\0"

struct revision_header {
	char magic[8];
	uint32_t number;
	uint32_t uid;
	uint64_t applied_usec;
	uint64_t pack_len;
	uint64_t image_len;
	char digest[65];
	char comment[512];
	char pad[7];
};

static void closep(int *fdp)
{
	if (*fdp >= 0)
		close(*fdp);
}

static void name_of(uint32_t number, char *out, size_t size)
{
	snprintf(out, size, "%08u.rev", number);
}

void revision_clear(struct revision *revision)
{
	free(revision->pack);
	free(revision->image);
	*revision = (struct revision){};
}

static int read_all(int fd, void *bytes, size_t len)
{
	char *p = bytes;

	while (len) {
		ssize_t n = read(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static void prune(int dir_fd, uint32_t latest)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		uint32_t number;

		if (sscanf(entry->d_name, "%8u.rev", &number) == 1 && number + REVISIONS_KEPT <= latest)
			unlinkat(dir_fd, entry->d_name, 0);
	}
	if (dir)
		closedir(dir);
}

int revisions_store(int dir_fd, const struct revision *revision)
{
	__attribute__((cleanup(closep))) int fd = -1;
	struct revision_header h = {
		.magic = REVISION_MAGIC,
		.number = revision->number,
		.uid = revision->uid,
		.applied_usec = revision->applied_usec,
		.pack_len = revision->pack_len,
		.image_len = revision->image_len,
	};
	char name[32];
	int r;

	memcpy(h.digest, revision->digest, sizeof(h.digest));
	memcpy(h.comment, revision->comment, sizeof(h.comment));
	name_of(revision->number, name, sizeof(name));
	fd = openat(dir_fd, "new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = file_write_all(fd, &h, sizeof(h));
	if (!r)
		r = file_write_all(fd, revision->pack, revision->pack_len);
	if (!r)
		r = file_write_all(fd, revision->image, revision->image_len);
	if (!r && (fsync(fd) < 0 || renameat(dir_fd, "new", dir_fd, name) < 0 || fsync(dir_fd) < 0))
		r = -errno;
	if (r) {
		unlinkat(dir_fd, "new", 0);
		return r;
	}
	prune(dir_fd, revision->number);
	return 0;
}

int revisions_load(int dir_fd, uint32_t number, struct revision *revision)
{
	__attribute__((cleanup(closep))) int fd = -1;
	struct revision_header h;
	char name[32];
	int r;

	*revision = (struct revision){};
	name_of(number, name, sizeof(name));
	fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = read_all(fd, &h, sizeof(h));
	if (r)
		return r;
	if (memcmp(h.magic, REVISION_MAGIC, sizeof(h.magic)) != 0 || h.number != number ||
	    h.pack_len > POLICY_PACK_MAX_BYTES || h.image_len > POLICY_IMAGE_MAX_BYTES || h.digest[64] ||
	    h.comment[sizeof(h.comment) - 1])
		return -EBADMSG;
	revision->pack = malloc(h.pack_len ? h.pack_len : 1);
	revision->image = malloc(h.image_len ? h.image_len : 1);
	r = revision->pack && revision->image ? 0 : -ENOMEM;
	if (!r)
		r = read_all(fd, revision->pack, h.pack_len);
	if (!r)
		r = read_all(fd, revision->image, h.image_len);
	if (r) {
		revision_clear(revision);
		return r;
	}
	revision->number = number;
	revision->uid = h.uid;
	revision->applied_usec = h.applied_usec;
	revision->pack_len = h.pack_len;
	revision->image_len = h.image_len;
	memcpy(revision->digest, h.digest, sizeof(h.digest));
	memcpy(revision->comment, h.comment, sizeof(h.comment));
	return 0;
}

uint32_t revisions_latest(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	uint32_t latest = 0;

	while (dir && (entry = readdir(dir))) {
		uint32_t number;

		if (sscanf(entry->d_name, "%8u.rev", &number) == 1 && number > latest)
			latest = number;
	}
	if (dir)
		closedir(dir);
	return latest;
}

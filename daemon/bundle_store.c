/* SPDX-License-Identifier: Apache-2.0 */
#include "bundle_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "files.h"

#define SUFFIX ".bundle"
#define NEW_FILE "new~" /* no name of a trust domain has a tilde */
#define MAGIC "BHBUNDL1"

struct head {
	char magic[8];
	struct bundle_kept kept;
	uint64_t len;
};

static int file_name(const char *trust_domain, char out[NAME_MAX + 1])
{
	return snprintf(out, NAME_MAX + 1, "%s%s", trust_domain, SUFFIX) > NAME_MAX ? -ENAMETOOLONG : 0;
}

int bundle_store_write(int dir_fd, const struct bundle_kept *kept, const void *text, size_t len)
{
	__attribute__((cleanup(closep))) int fd = -1;
	struct head head = {.kept = *kept, .len = len};
	char name[NAME_MAX + 1];
	int r = file_name(kept->trust_domain, name);

	if (r < 0)
		return r;
	memcpy(head.magic, MAGIC, sizeof(head.magic));
	fd = openat(dir_fd, NEW_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = file_write_all(fd, &head, sizeof(head));
	if (r == 0)
		r = file_write_all(fd, text, len);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(dir_fd, NEW_FILE, dir_fd, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(dir_fd, NEW_FILE, 0);
	else if (fsync(dir_fd) < 0)
		r = -errno;
	return r;
}

static int is_terminated(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

int bundle_store_read(int dir_fd, const char *trust_domain, struct bundle_kept *kept, char **textp, size_t *lenp)
{
	char name[NAME_MAX + 1], *bytes;
	struct head head = {.len = 0};
	size_t len;
	int r = file_name(trust_domain, name);

	if (r == 0)
		r = file_read(dir_fd, name, sizeof(head) + BUNDLE_MAX_BYTES, &bytes, &len);
	if (r < 0)
		return r;
	if (len >= sizeof(head))
		memcpy(&head, bytes, sizeof(head));
	if (len < sizeof(head) || memcmp(head.magic, MAGIC, sizeof(head.magic)) != 0 ||
	    head.len != len - sizeof(head) || !is_terminated(head.kept.trust_domain, sizeof(head.kept.trust_domain)) ||
	    !is_terminated(head.kept.origin, sizeof(head.kept.origin)) ||
	    strcmp(head.kept.trust_domain, trust_domain) != 0) {
		free(bytes);
		return -EBADMSG;
	}
	*kept = head.kept;
	*lenp = head.len;
	memmove(bytes, bytes + sizeof(head), *lenp + 1);
	*textp = bytes;
	return 0;
}

int bundle_store_remove(int dir_fd, const char *trust_domain)
{
	char name[NAME_MAX + 1];
	int r = file_name(trust_domain, name);

	if (r < 0)
		return r == -ENAMETOOLONG ? 0 : r;
	return unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int bundle_store_each(int dir_fd, void (*one)(void *ctx, const char *trust_domain), void *ctx)
{
	struct dirent *entry;
	DIR *dir;
	int r = directory_open(dir_fd, ".", &dir);

	if (r < 0)
		return r;
	while ((r = directory_next(dir, &entry)) > 0) {
		size_t len = strlen(entry->d_name), suffix = strlen(SUFFIX);

		if (len <= suffix || strcmp(entry->d_name + len - suffix, SUFFIX) != 0)
			continue;
		entry->d_name[len - suffix] = '\0';
		one(ctx, entry->d_name);
	}
	closedir(dir);
	return r;
}

// SPDX-License-Identifier: Apache-2.0
#include "svid_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc.h"
#include "svid_prove.h"

#define VOLUME_STATE "..data"

static void fd_closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

__attribute__((format(printf, 4, 5))) static int fail(int error, char *why, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, size, format, args);
	va_end(args);
	return error;
}

static bool is_roots(const struct stat *st, bool last)
{
	return st->st_uid == 0 && (!(st->st_mode & (S_IWGRP | S_IWOTH)) || (!last && (st->st_mode & S_ISVTX)));
}

static int refuse_owner(char *why, size_t size, const char *path, int len, const char *name)
{
	return fail(
		-EPERM, why, size,
		"%.*s%s%s belongs to others than root, or they may write in it: who can write there could choose the "
		"identity",
		len, path, *name ? "/" : "", name);
}

/* Component by component: none may be a link, or somebody else's. The last one may be of /tmp's kind only as a volume. */
static int directory_open(const char *path, bool *sharedp, char *why, size_t size)
{
	int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), next;
	struct stat st;
	char name[256];

	for (const char *at = path + 1, *end; fd >= 0 && *at; at = *end ? end + 1 : end) {
		end = at + strcspn(at, "/");
		if ((size_t)(end - at) >= sizeof(name)) {
			close(fd);
			return fail(-ENAMETOOLONG, why, size, "%s: a component is too long", path);
		}
		memcpy(name, at, (size_t)(end - at));
		name[end - at] = '\0';
		next = openat(fd, name, (*end ? O_PATH : O_RDONLY) | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd);
		if (next < 0)
			return fail(-errno, why, size, "cannot open %.*s: %s", (int)(end - path), path,
				    errno == ELOOP || errno == ENOTDIR ? "it is no directory, or a symbolic link"
								       : strerror(errno));
		fd = next;
		if (fstat(fd, &st) < 0 || !is_roots(&st, false)) {
			close(fd);
			return refuse_owner(why, size, path, (int)(end - path), "");
		}
		*sharedp = !is_roots(&st, true);
	}
	return fd < 0 ? fail(-errno, why, size, "cannot open /: %m") : fd;
}

/* ---- a volume ---- */

/* Where the link leads, byte by byte. Returns 1, 0 if it is no link, or -errno with a sentence. */
static int link_read(const struct svid_dir *dir, int dir_fd, const char *name, char target[256], char *why, size_t size)
{
	__attribute__((cleanup(fd_closep))) int fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	ssize_t len;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(-errno, why, size, "cannot open %s/%s: %s", dir->path, name, strerror(errno));
	if (!S_ISLNK(st.st_mode))
		return 0;
	if (st.st_uid != 0)
		return fail(-EPERM, why, size, "%s/%s is a link that is not root's", dir->path, name);
	len = readlinkat(fd, "", target, 255);
	if (len < 0)
		return fail(-errno, why, size, "cannot read the link %s/%s: %s", dir->path, name, strerror(errno));
	target[len] = '\0';
	return 1;
}

static int link_check(const struct svid_dir *dir, int dir_fd, const char *name, char *why, size_t size)
{
	char target[256], wanted[64];
	int r = link_read(dir, dir_fd, name, target, why, size);

	if (r == 0)
		return fail(-EPERM, why, size, "%s/%s is no link, and " SVID_DIR_CHAIN " is one", dir->path, name);
	snprintf(wanted, sizeof(wanted), VOLUME_STATE "/%s", name);
	if (r > 0 && strcmp(target, wanted) != 0)
		return fail(-EPERM, why, size, "%s/%s is a link to %.100s, not to %s as in a Kubernetes volume",
			    dir->path, name, target, wanted);
	return r < 0 ? r : 0;
}

/* The directory that holds what the volume is now. */
static int volume_open(const struct svid_dir *dir, int dir_fd, char *why, size_t size)
{
	char target[256];
	struct stat st;
	int fd, r = link_read(dir, dir_fd, VOLUME_STATE, target, why, size);

	if (r == 0)
		return fail(-EPERM, why, size, "%s/" VOLUME_STATE " is no link", dir->path);
	if (r > 0 && (strchr(target, '/') || !*target || !strcmp(target, ".") || !strcmp(target, "..")))
		return fail(-EPERM, why, size, "%s/" VOLUME_STATE " leads to %.100s, and not to a directory beside it",
			    dir->path, target);
	r = r < 0 ? r : link_check(dir, dir_fd, SVID_DIR_CHAIN, why, size);
	r = r < 0 ? r : link_check(dir, dir_fd, SVID_DIR_KEY, why, size);
	if (r < 0)
		return r;
	fd = openat(dir_fd, target, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail(-errno, why, size, "cannot open %s/%s: %s", dir->path, target,
			    errno == ELOOP || errno == ENOTDIR ? "it is no directory, or a symbolic link"
							       : strerror(errno));
	if (fstat(fd, &st) == 0 && is_roots(&st, true))
		return fd;
	close(fd);
	return refuse_owner(why, size, dir->path, (int)strlen(dir->path), target);
}

/* The directory with the files themselves. */
static int files_open(const struct svid_dir *dir, char *why, size_t size)
{
	bool shared = false;
	int fd = directory_open(dir->path, &shared, why, size), volume;
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstatat(fd, SVID_DIR_CHAIN, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode)) {
		volume = volume_open(dir, fd, why, size);
		close(fd);
		return volume;
	}
	if (!shared)
		return fd;
	close(fd);
	return refuse_owner(why, size, dir->path, (int)strlen(dir->path), "");
}

/* ---- the files ---- */

static int file_open(const struct svid_dir *dir, int dir_fd, const char *name, bool key, struct stat *st, char *why,
		     size_t size)
{
	unsigned max = key ? SVID_FILES_MAX_KEY : SVID_FILES_MAX_CHAIN;
	int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return fail(-errno, why, size, "cannot open %s/%s: %s", dir->path, name,
			    errno == ELOOP ? "it is a symbolic link" : strerror(errno));
	if (fstat(fd, st) == 0 && S_ISREG(st->st_mode) && is_roots(st, true) && !(key && (st->st_mode & S_IROTH)) &&
	    st->st_size <= (off_t)max)
		return fd;
	close(fd);
	return fail(-EPERM, why, size,
		    "%s/%s must be a file of root's that nobody else may write%s, of at most %u bytes", dir->path, name,
		    key ? " and not everybody may read" : "", max);
}

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       memcmp(&a->st_mtim, &b->st_mtim, sizeof(a->st_mtim)) == 0 &&
	       memcmp(&a->st_ctim, &b->st_ctim, sizeof(a->st_ctim)) == 0;
}

static int read_all(int fd, char *to, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, to + done, len - done, (off_t)done);

		if (n <= 0)
			return n < 0 ? -errno : -EAGAIN;
		done += (size_t)n;
	}
	return 0;
}

/* -EAGAIN: they changed under our hands. */
static int files_take(const int fds[2], const struct stat st[2], int *fdp)
{
	uint32_t chain_len = (uint32_t)st[0].st_size;
	size_t len = sizeof(chain_len) + (size_t)st[0].st_size + (size_t)st[1].st_size;
	char *body = malloc(len);
	struct stat now[2];
	int r = body ? 0 : -ENOMEM;

	if (r == 0) {
		memcpy(body, &chain_len, sizeof(chain_len));
		r = read_all(fds[0], body + sizeof(chain_len), chain_len);
	}
	if (r == 0)
		r = read_all(fds[1], body + sizeof(chain_len) + chain_len, (size_t)st[1].st_size);
	if (r == 0 && (fstat(fds[0], &now[0]) < 0 || fstat(fds[1], &now[1]) < 0 || !is_same(&now[0], &st[0]) ||
		       !is_same(&now[1], &st[1])))
		r = -EAGAIN;
	if (r == 0)
		*fdp = ipc_memfd("bulkhead-svid", body, len);
	if (body)
		explicit_bzero(body, len);
	free(body);
	return r < 0 ? r : *fdp < 0 ? *fdp : 0;
}

int svid_dir_look(struct svid_dir *dir, int *fdp, char *why, size_t why_size)
{
	__attribute__((cleanup(fd_closep))) int dir_fd = files_open(dir, why, why_size);
	__attribute__((cleanup(fd_closep))) int chain = -1, key = -1;
	struct stat st[2];
	bool settled;
	int r;

	*fdp = -1;
	if (dir_fd < 0)
		return dir_fd;
	chain = file_open(dir, dir_fd, SVID_DIR_CHAIN, false, &st[0], why, why_size);
	if (chain < 0)
		return chain;
	key = file_open(dir, dir_fd, SVID_DIR_KEY, true, &st[1], why, why_size);
	if (key < 0)
		return key;
	settled = is_same(&st[0], &dir->seen[0]) && is_same(&st[1], &dir->seen[1]);
	memcpy(dir->seen, st, sizeof(st));
	if (!settled || (!dir->again && is_same(&st[0], &dir->taken[0]) && is_same(&st[1], &dir->taken[1])))
		return 0;
	r = files_take((const int[]){chain, key}, st, fdp);
	if (r == -EAGAIN)
		return 0;
	if (r < 0)
		return fail(r, why, why_size, "cannot read the files in %s: %s", dir->path, strerror(-r));
	memcpy(dir->taken, st, sizeof(st));
	dir->again = false;
	return 1;
}

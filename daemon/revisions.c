// SPDX-License-Identifier: Apache-2.0
#include "revisions.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "files.h"
#include "policy/image.h"
#include "policy_pack.h"

#define REVISION_MAGIC "BHREV2\0"
#define REVISION_MAGIC_1 "BHREV1\0" /* the head only */

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

/* Behind the head, since the second version. */
struct revision_origin {
	uint32_t cause;
	uint32_t replaced;
	uint32_t predecessor;
	uint32_t target;
	uint32_t confirm_s;
	uint32_t login_uid;
	char via[160];
	char from[64];
};

/* Behind all of it: SHA-256 of what stands before. A file of an earlier build ends without, and earlier builds read on no
 * further than they know. */
#define SUM_BYTES 32

/* Names the file of the last revision; older versions wrote none. */
#define LATEST "latest"

static void name_of(uint32_t number, char *out, size_t size)
{
	snprintf(out, size, "%08u.rev", number);
}

/* Copies that an editor or an operator left beside it are no revisions. */
static bool number_of(const char *name, uint32_t *number)
{
	char whole[32];

	if (sscanf(name, "%8u", number) != 1)
		return false;
	name_of(*number, whole, sizeof(whole));
	return strcmp(name, whole) == 0;
}

/* ---- the last one ---- */

static uint32_t latest_read(int dir_fd)
{
	char name[32];
	ssize_t n = readlinkat(dir_fd, LATEST, name, sizeof(name) - 1);
	uint32_t number;

	if (n < 0)
		return 0;
	name[n] = '\0';
	return number_of(name, &number) ? number : 0;
}

/* 0: there is none. Reaches the disk with the directory. */
static int latest_write(int dir_fd, uint32_t number)
{
	char name[32];

	if (!number)
		return unlinkat(dir_fd, LATEST, 0) < 0 && errno != ENOENT ? -errno : 0;
	name_of(number, name, sizeof(name));
	unlinkat(dir_fd, LATEST "~", 0);
	if (symlinkat(name, dir_fd, LATEST "~") < 0)
		return -errno;
	return renameat(dir_fd, LATEST "~", dir_fd, LATEST) < 0 ? -errno : 0;
}

/* ---- files ---- */

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

static void digest_freep(EVP_MD_CTX **digest)
{
	EVP_MD_CTX_free(*digest);
}

/* Of the first `len` bytes of a file. */
static int sum_of(int fd, off_t len, unsigned char sum[SUM_BYTES])
{
	__attribute__((cleanup(digest_freep))) EVP_MD_CTX *digest = EVP_MD_CTX_new();
	unsigned char block[16384];

	if (!digest || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
		return -ENOMEM;
	for (off_t at = 0; at < len;) {
		size_t want = len - at < (off_t)sizeof(block) ? (size_t)(len - at) : sizeof(block);
		ssize_t n = pread(fd, block, want, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		if (EVP_DigestUpdate(digest, block, (size_t)n) != 1)
			return -ENOMEM;
		at += n;
	}
	return EVP_DigestFinal_ex(digest, sum, NULL) == 1 ? 0 : -ENOMEM;
}

/* The descriptor stands where the sum begins. */
static int sum_check(int fd)
{
	unsigned char sum[SUM_BYTES], stored[SUM_BYTES + 1];
	off_t len = lseek(fd, 0, SEEK_CUR);
	ssize_t n = pread(fd, stored, sizeof(stored), len);
	int r;

	if (n <= 0)
		return n < 0 ? -errno : 0;
	r = sum_of(fd, len, sum);
	return r ? r : n == SUM_BYTES && memcmp(sum, stored, sizeof(sum)) == 0 ? 0 : -EBADMSG;
}

static void prune(int dir_fd, uint32_t latest)
{
	struct dirent *entry;
	DIR *dir;

	if (directory_open(dir_fd, ".", &dir) < 0)
		return;
	while ((entry = readdir(dir))) {
		uint32_t number;

		if (number_of(entry->d_name, &number) && number + REVISIONS_KEPT <= latest)
			unlinkat(dir_fd, entry->d_name, 0);
	}
	closedir(dir);
}

/* ---- a draft ---- */

#define DRAFT_NAME "new"
#define DRAFT_PACK_AT (sizeof(struct revision_header) + sizeof(struct revision_origin))

void revision_draft_begin(struct revision_draft *draft, int dir_fd, void *pack, size_t pack_len)
{
	*draft = (struct revision_draft){.dir_fd = dir_fd, .fd = -1, .pack = pack, .pack_len = pack_len};
	draft->fd = openat(dir_fd, DRAFT_NAME, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	/* What stands before the sources is known when the rest is. */
	if (draft->fd < 0 || lseek(draft->fd, DRAFT_PACK_AT, SEEK_SET) < 0)
		draft->fault = -errno;
	else
		draft->fault = file_write_all(draft->fd, pack, pack_len);
}

void revision_draft_clear(struct revision_draft *draft)
{
	if (draft->fd >= 0) {
		unlinkat(draft->dir_fd, DRAFT_NAME, 0);
		close(draft->fd);
	}
	free(draft->pack);
	*draft = (struct revision_draft){.fd = -1};
}

void revision_draft_forget(int dir_fd)
{
	unlinkat(dir_fd, DRAFT_NAME, 0);
}

/* ---- store ---- */

static void header_fill(struct revision_header *h, const struct revision *revision, size_t pack_len)
{
	*h = (struct revision_header){
		.magic = REVISION_MAGIC,
		.number = revision->number,
		.uid = revision->uid,
		.applied_usec = revision->applied_usec,
		.pack_len = pack_len,
		.image_len = revision->image_len,
	};
	memcpy(h->digest, revision->digest, sizeof(h->digest));
	memcpy(h->comment, revision->comment, sizeof(h->comment));
}

static void origin_fill(struct revision_origin *origin, const struct revision *revision)
{
	*origin = (struct revision_origin){
		.cause = revision->cause,
		.replaced = revision->replaced,
		.predecessor = revision->predecessor,
		.target = revision->target,
		.confirm_s = revision->confirm_s,
		.login_uid = revision->login_uid,
	};
	memcpy(origin->via, revision->via, sizeof(origin->via));
	memcpy(origin->from, revision->from, sizeof(origin->from));
}

/* The draft stands behind its sources. */
static int draft_finish(const struct revision *revision, const struct revision_draft *draft)
{
	struct {
		struct revision_header header;
		struct revision_origin origin;
	} head;
	unsigned char sum[SUM_BYTES];
	int fd = draft->fd, r;

	_Static_assert(sizeof(head) == DRAFT_PACK_AT, "head");
	header_fill(&head.header, revision, draft->pack_len);
	origin_fill(&head.origin, revision);
	r = file_write_all(fd, revision->image, revision->image_len);
	if (!r && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (!r)
		r = file_write_all(fd, &head, sizeof(head));
	if (!r && lseek(fd, 0, SEEK_END) < 0)
		r = -errno;
	if (r)
		return r;
	/* The disk has something to do while the sum is made. Whether all has been written fsync() says; but what fails here may be
	 * told only once. Not every kernel and file system can do it. */
	if (sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE) < 0 && errno != ENOSYS && errno != ESPIPE &&
	    errno != EINVAL)
		return -errno;
	r = sum_of(fd, lseek(fd, 0, SEEK_CUR), sum);
	if (!r)
		r = file_write_all(fd, sum, sizeof(sum));
	return !r && fsync(fd) < 0 ? -errno : r;
}

int revisions_store(const struct revision *revision, struct revision_draft *draft)
{
	int dir_fd = draft->dir_fd, r = draft->fault;
	char name[32];

	name_of(revision->number, name, sizeof(name));
	if (!r)
		r = draft_finish(revision, draft);
	if (!r && renameat(dir_fd, DRAFT_NAME, dir_fd, name) < 0)
		r = -errno;
	if (!r) {
		close(draft->fd);
		draft->fd = -1;
	}
	revision_draft_clear(draft);
	if (r)
		return r;
	/* After the file: it never names one that is not there yet. */
	if (latest_read(dir_fd) < revision->number)
		r = latest_write(dir_fd, revision->number);
	if (!r && fsync(dir_fd) < 0)
		r = -errno;
	/* What is answered not to be stored must not be there with the next boot. */
	if (r) {
		revisions_remove(dir_fd, revision->number);
		return r;
	}
	prune(dir_fd, revision->number);
	return 0;
}

/* ---- load ---- */

static int origin_read(int fd, const struct revision_header *h, struct revision *revision)
{
	struct revision_origin origin = {
		.replaced = REVISION_UNKNOWN,
		.predecessor = REVISION_UNKNOWN,
		.login_uid = REVISION_NO_LOGIN,
	};
	int r;

	if (memcmp(h->magic, REVISION_MAGIC, sizeof(h->magic)) == 0) {
		r = read_all(fd, &origin, sizeof(origin));
		if (r)
			return r;
		if (origin.via[sizeof(origin.via) - 1] || origin.from[sizeof(origin.from) - 1])
			return -EBADMSG;
	} else if (memcmp(h->magic, REVISION_MAGIC_1, sizeof(h->magic)) != 0) {
		return -EBADMSG;
	}
	revision->cause = origin.cause;
	revision->replaced = origin.replaced;
	revision->predecessor = origin.predecessor;
	revision->target = origin.target;
	revision->confirm_s = origin.confirm_s;
	revision->login_uid = origin.login_uid;
	memcpy(revision->via, origin.via, sizeof(revision->via));
	memcpy(revision->from, origin.from, sizeof(revision->from));
	return 0;
}

/* Leaves the descriptor at the sources, whose length and the image's are set in the result. */
static int head_read(int dir_fd, uint32_t number, struct revision *revision)
{
	struct revision_header h;
	char name[32];
	int fd, r;

	*revision = (struct revision){};
	name_of(number, name, sizeof(name));
	fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = read_all(fd, &h, sizeof(h));
	if (!r && (h.number != number || h.pack_len > POLICY_PACK_MAX_BYTES || h.image_len > POLICY_IMAGE_MAX_BYTES ||
		   h.digest[64] || h.comment[sizeof(h.comment) - 1]))
		r = -EBADMSG;
	if (!r)
		r = origin_read(fd, &h, revision);
	if (r) {
		close(fd);
		*revision = (struct revision){};
		return r;
	}
	revision->number = h.number;
	revision->uid = h.uid;
	revision->applied_usec = h.applied_usec;
	revision->pack_len = h.pack_len;
	revision->image_len = h.image_len;
	memcpy(revision->digest, h.digest, sizeof(h.digest));
	memcpy(revision->comment, h.comment, sizeof(h.comment));
	return fd;
}

int revisions_load_head(int dir_fd, uint32_t number, struct revision *revision)
{
	int fd = head_read(dir_fd, number, revision);

	if (fd < 0)
		return fd;
	close(fd);
	revision->pack_len = revision->image_len = 0;
	return 0;
}

int revisions_load(int dir_fd, uint32_t number, struct revision *revision)
{
	__attribute__((cleanup(closep))) int fd = head_read(dir_fd, number, revision);
	int r;

	if (fd < 0)
		return fd;
	revision->pack = malloc(revision->pack_len ? revision->pack_len : 1);
	revision->image = malloc(revision->image_len ? revision->image_len : 1);
	r = revision->pack && revision->image ? 0 : -ENOMEM;
	if (!r)
		r = read_all(fd, revision->pack, revision->pack_len);
	if (!r)
		r = read_all(fd, revision->image, revision->image_len);
	if (!r)
		r = sum_check(fd);
	if (r)
		revision_clear(revision);
	return r;
}

static int number_order(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

int revisions_list(int dir_fd, uint32_t **numbersp, size_t *np)
{
	uint32_t *numbers = NULL, number;
	struct dirent *entry;
	size_t n = 0, room = 0;
	DIR *dir;
	int r = directory_open(dir_fd, ".", &dir);

	if (r < 0)
		return r;
	while ((r = directory_next(dir, &entry)) > 0) {
		if (!number_of(entry->d_name, &number))
			continue;
		if (n == room) {
			uint32_t *more = reallocarray(numbers, room = room ? 2 * room : 64, sizeof(*more));

			if (!more) {
				r = -ENOMEM;
				break;
			}
			numbers = more;
		}
		numbers[n++] = number;
	}
	closedir(dir);
	if (r) {
		free(numbers);
		return r;
	}
	if (n)
		qsort(numbers, n, sizeof(*numbers), number_order);
	*numbersp = numbers;
	*np = n;
	return 0;
}

uint32_t revisions_latest(int dir_fd)
{
	uint32_t *numbers = NULL, latest = latest_read(dir_fd);
	size_t n = 0;

	if (revisions_list(dir_fd, &numbers, &n) < 0)
		return latest;
	/* An older version stored it. */
	if (n && numbers[n - 1] > latest)
		latest = numbers[n - 1];
	free(numbers);
	return latest;
}

void revisions_remove(int dir_fd, uint32_t number)
{
	uint32_t *numbers = NULL, before = 0;
	char name[32];
	size_t n = 0;

	/* Before the file goes: a crash in between must not make it one that is missing. */
	if (latest_read(dir_fd) == number && revisions_list(dir_fd, &numbers, &n) == 0) {
		for (size_t i = 0; i < n && numbers[i] < number; i++)
			before = numbers[i];
		latest_write(dir_fd, before);
	}
	free(numbers);
	name_of(number, name, sizeof(name));
	unlinkat(dir_fd, name, 0);
	fsync(dir_fd);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * revisions.h - the policies that were in force, on disk: one file a revision, with the sources as they were given and
 * the image that was made of them. A file appears whole (written aside, synced, renamed) before its policy is enforced.
 */
#ifndef BULKHEAD_DAEMON_REVISIONS_H
#define BULKHEAD_DAEMON_REVISIONS_H

#include <stddef.h>
#include <stdint.h>

#define REVISIONS_KEPT 64

struct revision {
	uint32_t number;
	uint32_t uid;	       /* who applied it */
	uint64_t applied_usec; /* CLOCK_REALTIME */
	char digest[65];
	char comment[512];
	void *pack; /* policy_pack() of the sources; owned */
	size_t pack_len;
	void *image; /* owned */
	size_t image_len;
};

void revision_clear(struct revision *revision);
/* Stores a revision and drops the oldest beyond REVISIONS_KEPT. Returns 0 or -errno. */
int revisions_store(int dir_fd, const struct revision *revision);
/* Loads one. Returns 0, -ENOENT, -EBADMSG if the file is damaged, or -errno. */
int revisions_load(int dir_fd, uint32_t number, struct revision *revision);
/* The highest number stored; 0 if none. */
uint32_t revisions_latest(int dir_fd);

#endif

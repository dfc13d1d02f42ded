/* SPDX-License-Identifier: Apache-2.0 */
/*
 * revisions.h - the policies that were in force, on disk: one file a revision, with the sources as they were given and
 * the image that was made of them. A file appears whole (written aside, synced, renamed) before its policy is enforced, and
 * ends with a sum of itself: tables are well-formed with one bit changed, too, and allow something else. A link, `latest`, names the
 * last one: a file that is missing is to be told from one that never was, and no earlier policy taken for it.
 */
#ifndef BULKHEAD_DAEMON_REVISIONS_H
#define BULKHEAD_DAEMON_REVISIONS_H

#include <stddef.h>
#include <stdint.h>

#define REVISIONS_KEPT 64
#define REVISION_NO_LOGIN UINT32_MAX
#define REVISION_UNKNOWN UINT32_MAX /* older versions did not record it */

enum revision_cause {
	REVISION_APPLIED = 0,
	REVISION_FIRST_START = 1, /* from the policy directory */
	REVISION_ROLLED_BACK = 2, /* an operator went back to an earlier one */
	REVISION_REVERTED = 3,	  /* nobody confirmed the one before it in time */
};

struct revision {
	uint32_t number;
	uint32_t uid;	       /* who applied it */
	uint64_t applied_usec; /* CLOCK_REALTIME */
	char digest[65];
	char comment[512];
	uint32_t cause;	      /* enum revision_cause */
	uint32_t replaced;    /* in force before it; 0: none; REVISION_UNKNOWN */
	uint32_t predecessor; /* what a rollback from it goes back to; 0: none; REVISION_UNKNOWN */
	uint32_t target;      /* the one gone back to; 0: none */
	uint32_t confirm_s;   /* how long it had to be confirmed in; 0: it had not to be */
	uint32_t login_uid;   /* as whom that operator logged in; REVISION_NO_LOGIN: not known */
	char via[160];	      /* the processes it came through */
	char from[64];	      /* the other end of the operator's connection */
	void *pack;	      /* policy_pack() of the sources; owned */
	size_t pack_len;
	void *image; /* owned */
	size_t image_len;
};

/* The file of a revision to come, written as far as it is known: while its image is being made there is time for that. */
struct revision_draft {
	int dir_fd;
	int fd;	    /* -1: there is none */
	int fault;  /* 0, or -errno: why it could not be written, for who then stores the revision */
	void *pack; /* policy_pack() of the sources; owned */
	size_t pack_len;
};

void revision_clear(struct revision *revision);
/* Begins a file with these sources; takes over `pack`. There is one at a time in a directory. */
void revision_draft_begin(struct revision_draft *draft, int dir_fd, void *pack, size_t pack_len);
/* Takes it away where it was not stored. */
void revision_draft_clear(struct revision_draft *draft);
/* Takes one away that a crash has left. For who alone uses the directory, before it begins one. */
void revision_draft_forget(int dir_fd);
/* Stores a revision, whose sources are those of the draft, and drops the oldest beyond REVISIONS_KEPT. The draft is used up.
 * Returns 0 or -errno. */
int revisions_store(const struct revision *revision, struct revision_draft *draft);
/* Loads one. Returns 0, -ENOENT, -EBADMSG if the file is damaged, or -errno. */
int revisions_load(int dir_fd, uint32_t number, struct revision *revision);
/* The same without sources and image. */
int revisions_load_head(int dir_fd, uint32_t number, struct revision *revision);
/* Takes one away that never came into force: the one before it is the latest again. */
void revisions_remove(int dir_fd, uint32_t number);
/* The numbers stored, ascending; *numbersp is malloc()ed. Returns 0 or -errno. */
int revisions_list(int dir_fd, uint32_t **numbersp, size_t *np);
/* The highest number that was stored, whether its file is there or not; 0 if none. */
uint32_t revisions_latest(int dir_fd);

#endif

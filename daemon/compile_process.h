/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile_process.h - the process that does one job of the compiler, as the enforcer has it.
 *
 * To start one (load the program, give up all rights) takes as long as to compile a policy of some thousand rules. So it is
 * started without a job, and waits for one when it can do nothing any more but read and write what it was given; the enforcer
 * keeps one that waits. It does one job and ends, or ends with the enforcer.
 *
 * Input, body and text are memfds; what is said over the socketpair is only that there is a job, and that it is done. What
 * the process leaves is sealed before it is looked at: from then on nobody can change it, and nothing need be copied.
 */
#ifndef BULKHEAD_DAEMON_COMPILE_PROCESS_H
#define BULKHEAD_DAEMON_COMPILE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From the enforcer. */
struct compile_start {
	uint32_t job; /* enum compile_job */
};

/* To the enforcer. The body is an image, or what else the job makes. */
struct compile_done {
	uint32_t status; /* 0 done, 1 not valid, 2 out of memory or unexpected */
	uint32_t text_len;
	uint64_t body_len;
};

/* Descriptors in the process. */
enum compile_fd { COMPILE_FD_SOCKET, COMPILE_FD_INPUT, COMPILE_FD_BODY, COMPILE_FD_TEXT, COMPILE_FDS };

#define COMPILE_MAX_TEXT (4U << 20) /* of text */

struct compile_process;

/* Starts one. `name` is what a configuration's text is called, else "". Returns 0 or -errno. */
int compile_process_new(struct compile_process **processp, const char *name);
/* Ends it if it has not ended, and waits for that. */
void compile_process_freep(struct compile_process **processp);
/* Does it still wait for its job, as far as is known? */
bool compile_process_waits(const struct compile_process *process);
/* Gives it its job. Returns 0, -ESRCH where it has ended before (how, compile_process_wait() tells), or -errno. */
int compile_process_begin(struct compile_process *process, uint32_t job, const void *input, size_t len);
/*
 * Waits until it says that it is done, and kills it then, or when it takes too long. The caller does nothing else meanwhile.
 * Returns 0, or -errno, with a sentence in *textp (malloc()ed) where it is about the process: it ended, it took too long, or what it left is
 * not what it says.
 */
int compile_process_wait(struct compile_process *process, struct compile_done *done, char **textp);
/* What it left, sealed and of the lengths that it said: the descriptor, to be closed by the caller. */
int compile_process_take_body(struct compile_process *process);
/* The text, malloc()ed, or NULL where there is none. Returns 0 or -errno. */
int compile_process_text(const struct compile_process *process, char **textp);

#endif

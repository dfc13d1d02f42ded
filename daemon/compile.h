/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compile.h - the compiler role: text in, image out, in a process that lives for one job.
 *
 * The enforcer holds CAP_BPF and parses no text, neither policies nor its own configuration. It starts the program anew
 * as compiler, which drops everything it could do before it reads the first byte, and takes back a block of bytes that
 * it checks again. Where it can, it starts the process ahead of the job (compile_process.h).
 */
#ifndef BULKHEAD_DAEMON_COMPILE_H
#define BULKHEAD_DAEMON_COMPILE_H

#include <stddef.h>

#include "compile_process.h"
#include "config.h"
#include "policy/policy.h"

enum compile_job {
	COMPILE_POLICY = 1, /* input: policy_pack(); output: image, text: warnings or diagnostics */
	COMPILE_STORED = 3, /* likewise, without running the tests of the policy */
	COMPILE_CONFIG = 2, /* input: the file's text; output: struct daemon_config_file, text: the error */
};

/* What the enforcer does while the child works. */
struct compile_meanwhile {
	void (*work)(void *ctx);
	void *ctx;
};

/*
 * Compiles a policy in a child, and runs its tests and checks its invariants as of now. *processp is a process that waits for a
 * job; where it is NULL or waits no more, a new one takes its place. Afterwards it is the one that did the job, of no more use,
 * which the caller frees when there is time for that. `meanwhile` may be NULL.
 *
 * Returns 0 with the image (*imagep: a sealed memfd, to be closed by the caller; its contents are not checked), 1 (not valid, or a
 * test fails), or -errno (the child failed or took longer than 20 s); *textp is malloc()ed or NULL: warnings, diagnostics, or
 * what happened to the child.
 */
int compile_policy(struct compile_process **processp, const struct policy_source *files, size_t n,
		   const struct compile_meanwhile *meanwhile, int *imagep, char **textp);
/* Likewise a policy that has been in force: it comes back also where a test of it has failed since, as when a rule's `until`
 * is over. */
int compile_stored_policy(struct compile_process **processp, const struct policy_source *files, size_t n,
			  const struct compile_meanwhile *meanwhile, int *imagep, char **textp);
/* Parses a configuration text likewise. */
int compile_config(const char *text, size_t len, const char *name, struct daemon_config_file *out, char **textp);

/* The child's main function. Returns its exit status. */
int role_compiler_main(const char *name, const int fds[COMPILE_FDS]);

#endif

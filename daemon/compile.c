// SPDX-License-Identifier: Apache-2.0
#include "compile.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "compile_process.h"
#include "files.h"
#include "ipc.h"
#include "policy/image.h"
#include "policy/verify.h"
#include "policy_pack.h"
#include "sandbox.h"

#define COMPILE_MEMORY (2ULL << 30)

/* ---- child ---- */

/* Both are written before the word that they are there: what comes after it counts for nothing. */
static int result_write(const int *fds, uint32_t status, const void *body, size_t body_len, const char *text)
{
	size_t text_len = text ? strlen(text) : 0;
	struct compile_done done = {.status = status, .body_len = body_len};
	int r;

	done.text_len = (uint32_t)(text_len < COMPILE_MAX_TEXT ? text_len : COMPILE_MAX_TEXT);
	r = file_write_all(fds[COMPILE_FD_BODY], body, body_len);
	if (!r)
		r = file_write_all(fds[COMPILE_FD_TEXT], text, done.text_len);
	if (!r)
		r = file_write_all(fds[COMPILE_FD_SOCKET], &done, sizeof(done));
	return r ? EXIT_FAILURE : EXIT_SUCCESS;
}

static char *diagnostics_text(const struct policy_diagnostics *diagnostics)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	policy_diagnostics_print(diagnostics, f, false);
	fclose(f);
	return text;
}

/* Tests and invariants of a policy that is otherwise valid. Returns 0, 1 with what fails in *textp, or -errno. */
static int verify_policy(const struct policy *policy, char **textp)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int r;

	if (!f)
		return -ENOMEM;
	r = policy_verify(policy, time(NULL), f);
	if (fclose(f) != 0)
		r = -ENOMEM;
	if (r > 0)
		*textp = text;
	else
		free(text);
	return r;
}

static int job_policy(const void *input, size_t len, bool verify, const int *fds)
{
	__attribute__((cleanup(policy_diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;
	__attribute__((cleanup(policy_freep))) struct policy *policy = NULL;
	__attribute__((cleanup(freep))) char *text = NULL;
	__attribute__((cleanup(freep))) void *image = NULL;
	struct policy_source *files = NULL;
	size_t n = 0, image_len = 0;
	char *error = NULL;
	int r;

	r = policy_unpack(input, len, &files, &n);
	if (!r)
		r = policy_parse(&policy, &diagnostics, files, n);
	if (diagnostics)
		text = diagnostics_text(diagnostics);
	if (!r) {
		r = policy_compile(policy, &image, &image_len, &error);
		if (r > 0) {
			free(text);
			text = error;
		}
	}
	if (!r && verify) {
		r = verify_policy(policy, &error);
		if (r > 0) {
			free(text);
			text = error;
		}
	}
	r = result_write(fds, r < 0 ? 2 : (uint32_t)r, r ? NULL : image, r ? 0 : image_len, text);
	policy_sources_free(files, n);
	return r;
}

static int job_config(const void *input, size_t len, const char *name, const int *fds)
{
	struct daemon_config_file *file = calloc(1, sizeof(*file));
	char why[1024] = "";
	int r;

	if (!file)
		return EXIT_FAILURE;
	r = config_parse_yaml(input, len, name, file, why, sizeof(why));
	r = result_write(fds, r < 0 ? 2 : (uint32_t)r, r ? NULL : file, r ? 0 : sizeof(*file), why);
	free(file);
	return r;
}

int role_compiler_main(const char *name, const int fds[COMPILE_FDS])
{
	__attribute__((cleanup(freep))) void *input = NULL;
	const struct rlimit size = {POLICY_IMAGE_MAX_BYTES, POLICY_IMAGE_MAX_BYTES};
	struct compile_start start;
	size_t len = 0;
	ssize_t n;

	setrlimit(RLIMIT_FSIZE, &size);
#ifndef __SANITIZE_ADDRESS__
	struct rlimit memory = {COMPILE_MEMORY, COMPILE_MEMORY};

	setrlimit(RLIMIT_AS, &memory);
#endif
	if (role_sandbox(SANDBOX_COMPILER) < 0)
		return EXIT_FAILURE;
	do {
		n = read(fds[COMPILE_FD_SOCKET], &start, sizeof(start));
	} while (n < 0 && errno == EINTR);
	if (n == 0) /* there is nothing to be done any more */
		return EXIT_SUCCESS;
	if (n != sizeof(start) || ipc_memfd_read(fds[COMPILE_FD_INPUT], POLICY_PACK_MAX_BYTES, &input, &len) < 0)
		return EXIT_FAILURE;
	switch (start.job) {
	case COMPILE_POLICY:
	case COMPILE_STORED:
		return job_policy(input, len, start.job == COMPILE_POLICY, fds);
	case COMPILE_CONFIG:
		return job_config(input, len, name, fds);
	}
	return EXIT_FAILURE;
}

/* ---- parent ---- */

/* Gives the job to the process that waits, or to a new one where none does. */
static int job_begin(struct compile_process **processp, enum compile_job job, const char *name, const void *input,
		     size_t len)
{
	int r = compile_process_waits(*processp) ? compile_process_begin(*processp, job, input, len) : -ESRCH;

	/* Nothing is wrong with the job where what waited for it was killed, say for want of memory elsewhere. */
	if (r != -ESRCH)
		return r;
	compile_process_freep(processp);
	r = compile_process_new(processp, name);
	if (r < 0)
		return r;
	r = compile_process_begin(*processp, job, input, len);
	/* One that has ended so soon is waited for all the same: that tells how it ended. */
	return r == -ESRCH ? 0 : r;
}

/* Runs one job. Returns its status with the text (malloc()ed), or -errno. */
static int job_run(struct compile_process **processp, enum compile_job job, const char *name, const void *input,
		   size_t len, const struct compile_meanwhile *meanwhile, struct compile_done *done, char **textp)
{
	int r = job_begin(processp, job, name, input, len);

	if (r < 0)
		return r;
	if (meanwhile)
		meanwhile->work(meanwhile->ctx);
	r = compile_process_wait(*processp, done, textp);
	if (r == 0)
		r = compile_process_text(*processp, textp);
	return r < 0 ? r : done->status == 2 ? -ENOMEM : (int)done->status;
}

static int compile_files(struct compile_process **processp, enum compile_job job, const struct policy_source *files,
			 size_t n, const struct compile_meanwhile *meanwhile, int *imagep, char **textp)
{
	__attribute__((cleanup(freep))) void *input = NULL;
	struct compile_done done;
	size_t len = 0;
	int r;

	*imagep = -1;
	*textp = NULL;
	r = policy_pack(files, n, &input, &len);
	if (r == 0)
		r = job_run(processp, job, "", input, len, meanwhile, &done, textp);
	if (r == 0)
		*imagep = compile_process_take_body(*processp);
	return r;
}

int compile_policy(struct compile_process **processp, const struct policy_source *files, size_t n,
		   const struct compile_meanwhile *meanwhile, int *imagep, char **textp)
{
	return compile_files(processp, COMPILE_POLICY, files, n, meanwhile, imagep, textp);
}

int compile_stored_policy(struct compile_process **processp, const struct policy_source *files, size_t n,
			  const struct compile_meanwhile *meanwhile, int *imagep, char **textp)
{
	return compile_files(processp, COMPILE_STORED, files, n, meanwhile, imagep, textp);
}

int compile_config(const char *text, size_t len, const char *name, struct daemon_config_file *out, char **textp)
{
	__attribute__((cleanup(compile_process_freep))) struct compile_process *process = NULL;
	__attribute__((cleanup(closep))) int fd = -1;
	__attribute__((cleanup(freep))) void *body = NULL;
	struct compile_done done;
	size_t body_len = 0;
	int r;

	*textp = NULL;
	r = job_run(&process, COMPILE_CONFIG, name, text, len, NULL, &done, textp);
	if (r)
		return r;
	fd = compile_process_take_body(process);
	r = ipc_memfd_read(fd, sizeof(*out), &body, &body_len);
	if (r == 0 && body_len != sizeof(*out))
		r = -EBADMSG;
	if (r < 0) {
		free(*textp);
		if (asprintf(textp, "the compiler left no configuration: %s", strerror(-r)) < 0)
			*textp = NULL;
		return r;
	}
	memcpy(out, body, sizeof(*out));
	return 0;
}

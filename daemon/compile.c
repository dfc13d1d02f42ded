// SPDX-License-Identifier: Apache-2.0
#include "compile.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "files.h"
#include "ipc.h"
#include "log.h"
#include "policy/image.h"
#include "policy/verify.h"
#include "policy_pack.h"
#include "roles.h"
#include "sandbox.h"

#define COMPILE_TIMEOUT_MS 20000
#define COMPILE_WAIT_MS 1000 /* between two signs of life to the service manager */
#define COMPILE_POLL_MS 10   /* where the kernel gives no pidfd to wait with */
#define COMPILE_MAX_TEXT (4U << 20)
#define COMPILE_MEMORY (2ULL << 30)

/* What the child writes: this, then `body_len` bytes, then `text_len` bytes. */
struct compile_result {
	uint32_t status; /* 0 done, 1 not valid, 2 out of memory or unexpected */
	uint32_t text_len;
	uint64_t body_len;
};

/* ---- child ---- */

static int result_write(int fd, uint32_t status, const void *body, size_t body_len, const char *text)
{
	size_t text_len = text ? strlen(text) : 0;
	struct compile_result result = {.status = status, .body_len = body_len};
	int r;

	result.text_len = (uint32_t)(text_len < COMPILE_MAX_TEXT ? text_len : COMPILE_MAX_TEXT);
	r = file_write_all(fd, &result, sizeof(result));
	if (!r && body_len)
		r = file_write_all(fd, body, body_len);
	if (!r && result.text_len)
		r = file_write_all(fd, text, result.text_len);
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

static int job_policy(const void *input, size_t len, bool verify, int out_fd)
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
	r = result_write(out_fd, r < 0 ? 2 : (uint32_t)r, r ? NULL : image, r ? 0 : image_len, text);
	policy_sources_free(files, n);
	return r;
}

static int job_config(const void *input, size_t len, const char *name, int out_fd)
{
	struct daemon_config_file *file = calloc(1, sizeof(*file));
	char why[1024] = "";
	int r;

	if (!file)
		return EXIT_FAILURE;
	r = config_parse_yaml(input, len, name, file, why, sizeof(why));
	r = result_write(out_fd, r < 0 ? 2 : (uint32_t)r, r ? NULL : file, r ? 0 : sizeof(*file), why);
	free(file);
	return r;
}

/* OpenSSL reads its configuration when it is first used: that has to be before files are out of reach. */
static bool digest_ready(void)
{
	uint8_t digest[EVP_MAX_MD_SIZE];

	return EVP_Digest("", 0, digest, NULL, EVP_sha256(), NULL) == 1;
}

int role_compiler_main(enum compile_job job, const char *name, int in_fd, int out_fd)
{
	__attribute__((cleanup(freep))) void *input = NULL;
	size_t len = 0;

#ifndef __SANITIZE_ADDRESS__
	struct rlimit memory = {COMPILE_MEMORY, COMPILE_MEMORY};

	setrlimit(RLIMIT_AS, &memory);
#endif
	if (!digest_ready() || role_sandbox(SANDBOX_COMPILER) < 0 ||
	    ipc_memfd_read(in_fd, POLICY_PACK_MAX_BYTES, &input, &len) < 0)
		return EXIT_FAILURE;
	switch (job) {
	case COMPILE_POLICY:
	case COMPILE_STORED:
		return job_policy(input, len, job == COMPILE_POLICY, out_fd);
	case COMPILE_CONFIG:
		return job_config(input, len, name, out_fd);
	}
	return EXIT_FAILURE;
}

/* ---- parent ---- */

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Returns whether the child ended in time. The caller does nothing else meanwhile, but it is not hung. */
static bool child_ends(pid_t pid, int *statusp)
{
	__attribute__((cleanup(closep))) int pidfd = pidfd_open(pid, 0);
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int64_t now = now_ms(), until = now + COMPILE_TIMEOUT_MS, told = now;

	while (now < until) {
		poll(&p, 1, pidfd < 0 ? COMPILE_POLL_MS : COMPILE_WAIT_MS);
		if (waitpid(pid, statusp, WNOHANG) == pid)
			return true;
		now = now_ms();
		if (now - told >= COMPILE_WAIT_MS) {
			sd_notify(0, "WATCHDOG=1");
			told = now;
		}
	}
	return false;
}

/* Waits for the child, and ends one that does not. Returns 0, or -errno with a sentence. */
static int child_wait(pid_t pid, char **textp)
{
	int status = 0;

	if (!child_ends(pid, &status)) {
		kill(pid, SIGKILL);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		if (asprintf(textp, "the compiler took longer than %d s and was ended", COMPILE_TIMEOUT_MS / 1000) < 0)
			*textp = NULL;
		return -ETIMEDOUT;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (asprintf(textp, "the compiler ended by %s %d", WIFSIGNALED(status) ? "signal" : "exit status",
		     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)) < 0)
		*textp = NULL;
	return -EIO;
}

/* Runs one job. Returns its status with body and text (malloc()ed), or -errno. */
static int job_run(enum compile_job job, const char *name, const void *input, size_t len,
		   const struct compile_meanwhile *meanwhile, void **bodyp, size_t *body_len, char **textp)
{
	__attribute__((cleanup(closep))) int in = ipc_memfd("bulkhead-input", input, len);
	__attribute__((cleanup(closep))) int out = memfd_create("bulkhead-result", MFD_CLOEXEC);
	__attribute__((cleanup(freep))) void *bytes = NULL;
	struct compile_result result;
	size_t bytes_len = 0;
	pid_t pid;
	int r;

	if (in < 0 || out < 0)
		return in < 0 ? in : -errno;
	pid = role_spawn_compiler(job, name, in, out);
	if (pid < 0)
		return (int)pid;
	if (meanwhile)
		meanwhile->work(meanwhile->ctx);
	r = child_wait(pid, textp);
	if (r < 0)
		return r;
	if (lseek(out, 0, SEEK_SET) < 0)
		return -errno;
	r = ipc_memfd_read(out, sizeof(result) + POLICY_IMAGE_MAX_BYTES + COMPILE_MAX_TEXT, &bytes, &bytes_len);
	if (r < 0)
		return r;
	if (bytes_len < sizeof(result))
		return -EBADMSG;
	memcpy(&result, bytes, sizeof(result));
	if (result.body_len > bytes_len - sizeof(result) ||
	    result.text_len != bytes_len - sizeof(result) - result.body_len || result.status > 2)
		return -EBADMSG;
	if (result.text_len) {
		*textp = strndup((char *)bytes + sizeof(result) + result.body_len, result.text_len);
		if (!*textp)
			return -ENOMEM;
	}
	if (result.body_len) {
		*bodyp = malloc(result.body_len);
		if (!*bodyp)
			return -ENOMEM;
		memcpy(*bodyp, (char *)bytes + sizeof(result), result.body_len);
	}
	*body_len = result.body_len;
	return result.status == 2 ? -ENOMEM : (int)result.status;
}

static int compile_files(enum compile_job job, const struct policy_source *files, size_t n,
			 const struct compile_meanwhile *meanwhile, void **imagep, size_t *lenp, char **textp)
{
	__attribute__((cleanup(freep))) void *input = NULL;
	size_t len = 0;
	int r;

	*imagep = NULL;
	*textp = NULL;
	r = policy_pack(files, n, &input, &len);
	if (r < 0)
		return r;
	return job_run(job, "", input, len, meanwhile, imagep, lenp, textp);
}

int compile_policy(const struct policy_source *files, size_t n, const struct compile_meanwhile *meanwhile,
		   void **imagep, size_t *lenp, char **textp)
{
	return compile_files(COMPILE_POLICY, files, n, meanwhile, imagep, lenp, textp);
}

int compile_stored_policy(const struct policy_source *files, size_t n, const struct compile_meanwhile *meanwhile,
			  void **imagep, size_t *lenp, char **textp)
{
	return compile_files(COMPILE_STORED, files, n, meanwhile, imagep, lenp, textp);
}

int compile_config(const char *text, size_t len, const char *name, struct daemon_config_file *out, char **textp)
{
	__attribute__((cleanup(freep))) void *body = NULL;
	size_t body_len = 0;
	int r;

	*textp = NULL;
	r = job_run(COMPILE_CONFIG, name, text, len, NULL, &body, &body_len, textp);
	if (r)
		return r;
	if (body_len != sizeof(*out))
		return -EBADMSG;
	memcpy(out, body, sizeof(*out));
	return 0;
}

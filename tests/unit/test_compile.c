/* SPDX-License-Identifier: Apache-2.0 */
/* The compiler as the enforcer starts it: this program anew, in its sandbox. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/compile.h"
#include "daemon/image_file.h"
#include "daemon/ipc.h"
#include "daemon/roles.h"

static char *policy_text(unsigned identities, unsigned rules)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	fputs("bulkhead: 1\nidentities:\n", f);
	for (unsigned i = 0; i < identities; i++)
		fprintf(f, "  id%u: spiffe://prod.example/app/%u\n", i, i);
	fputs("rules:\n", f);
	for (unsigned i = 0; i < rules; i++)
		fprintf(f, "  - {name: rule%u, action: %s, from: id%u, to: id%u, service: tcp/%u}\n", i,
			i % 3 == 2 ? "deny" : "allow", i % identities, i * 7 % identities, 7000 + i % 20);
	fclose(f);
	return text;
}

/* By a process that is started for it. */
static int compile(unsigned identities, unsigned rules, size_t *image_len, char **textp)
{
	struct compile_process *process = NULL;
	char *text = policy_text(identities, rules);
	struct policy_source source = {.name = "policy.yaml", .text = text, .len = strlen(text)};
	struct stat st = {};
	int image, r = compile_policy(&process, &source, 1, NULL, &image, textp);

	assert_int_equal(image >= 0, r == 0);
	if (r == 0) {
		assert_int_equal(fstat(image, &st), 0);
		close(image);
	}
	*image_len = (size_t)st.st_size;
	compile_process_freep(&process);
	free(text);
	return r;
}

static void assert_compiles(unsigned identities, unsigned rules)
{
	size_t len = 0;
	char *text = NULL;
	int r = compile(identities, rules, &len, &text);

	if (r)
		print_error("%s\n", text ? text : "");
	assert_int_equal(r, 0);
	assert_true(len > 0);
	free(text);
}

static void policies_of_many_identities_compile(void **state)
{
	(void)state;
	assert_compiles(2, 1);
	assert_compiles(400, 400);
	assert_compiles(400, 2000);
}

/* `stored`: a policy that has been in force. */
static int compile_text(const char *policy, bool stored, char **textp)
{
	struct policy_source source = {.name = "policy.yaml", .text = policy, .len = strlen(policy)};
	struct compile_process *process = NULL;
	int image, r = (stored ? compile_stored_policy : compile_policy)(&process, &source, 1, NULL, &image, textp);

	if (image >= 0)
		close(image);
	compile_process_freep(&process);
	return r;
}

static void a_policy_whose_tests_fail_does_not_compile(void **state)
{
	static const char failing[] = "bulkhead: 1\nidentities: {web: spiffe://prod.example/web}\n"
				      "rules: [{name: self, action: allow, from: web, to: web, service: tcp/80}]\n"
				      "tests: [{from: web, to: web, service: tcp/81, expect: allow}]\n"
				      "invariants: [{never: {from: web, to: web}}]\n";
	char *text = NULL;

	(void)state;
	assert_int_equal(compile_text(failing, false, &text), 1);
	assert_non_null(strstr(text, "policy.yaml:4:9: error: the test fails: web -> web tcp/81: allow\n"));
	assert_non_null(
		strstr(text, "policy.yaml:5:14: error: the invariant does not hold: never: {from: web, to: web}"));
	free(text);
	text = NULL;
	/* What was in force comes back whatever its tests say by now. */
	assert_int_equal(compile_text(failing, true, &text), 0);
	free(text);
}

/* Whether its tables fit is the compiler's to say; it is not to be killed by what it needs to find out. */
static void a_policy_of_ten_thousand_rules_gets_an_answer(void **state)
{
	char *text = NULL;
	size_t len = 0;
	int r;

	(void)state;
	r = compile(1000, 10000, &len, &text);
	if (r < 0)
		print_error("%s\n", text ? text : "");
	assert_in_range(r, 0, 1);
	if (r == 1)
		assert_non_null(text);
	free(text);
}

/* The only child of this process. */
static pid_t child(void)
{
	char path[64];
	FILE *f;
	int pid = 0;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	f = fopen(path, "r");
	assert_non_null(f);
	if (fscanf(f, "%d", &pid) != 1)
		pid = 0;
	fclose(f);
	return pid;
}

static void assert_compiles_by(struct compile_process **processp)
{
	static const char policy[] = "bulkhead: 1\n";
	struct policy_source source = {.name = "policy.yaml", .text = policy, .len = sizeof(policy) - 1};
	struct policy_image *image = NULL;
	char *text = NULL;
	int fd;

	assert_int_equal(compile_policy(processp, &source, 1, NULL, &fd, &text), 0);
	assert_int_equal(image_file_open(&image, fd, NULL), 0);
	assert_int_equal(image_file_fd(image), fd);
	assert_true(ipc_memfd_is_sealed(fd));
	assert_int_equal(policy_image_rule_count(image), 0);
	policy_image_freep(&image);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	free(text);
}

static void a_process_that_waits_does_one_job(void **state)
{
	struct compile_process *process = NULL;
	pid_t pid;

	(void)state;
	assert_int_equal(compile_process_new(&process, ""), 0);
	assert_true(compile_process_waits(process));
	pid = child();
	assert_compiles_by(&process);
	assert_false(compile_process_waits(process));
	/* Whether it has ended by now or not: it is this one's child still, and no other has been started. */
	assert_int_equal(child(), pid);
	assert_compiles_by(&process);
	assert_int_not_equal(child(), pid);
	compile_process_freep(&process);
	assert_int_equal(child(), 0);
	assert_false(compile_process_waits(process));
}

static void one_that_was_killed_while_it_waited_is_replaced(void **state)
{
	struct compile_process *process = NULL;
	siginfo_t si;
	pid_t pid;

	(void)state;
	assert_int_equal(compile_process_new(&process, ""), 0);
	pid = child();
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)pid, &si, WEXITED | WNOWAIT), 0);
	assert_compiles_by(&process);
	assert_int_not_equal(child(), pid);
	compile_process_freep(&process);
	assert_int_equal(child(), 0);
}

static void one_that_is_killed_over_its_job_is_told(void **state)
{
	struct compile_process *process = NULL;
	struct compile_done done;
	char *text = NULL;

	(void)state;
	assert_int_equal(compile_process_new(&process, ""), 0);
	assert_int_equal(kill(child(), SIGSTOP), 0);
	assert_int_equal(compile_process_begin(process, COMPILE_POLICY, "", 0), 0);
	assert_int_equal(kill(child(), SIGKILL), 0);
	assert_int_equal(compile_process_wait(process, &done, &text), -EIO);
	assert_string_equal(text, "the compiler ended by signal 9");
	free(text);
	text = NULL;
	compile_process_freep(&process);
	/* Input that is none: it ends by itself. */
	assert_int_equal(compile_process_new(&process, ""), 0);
	assert_int_equal(compile_process_begin(process, 99, "", 0), 0);
	assert_int_equal(compile_process_wait(process, &done, &text), -EIO);
	assert_string_equal(text, "the compiler ended by exit status 1");
	free(text);
	compile_process_freep(&process);
	assert_int_equal(child(), 0);
}

/* A process that has started a compiler, and ends when it is told to. */
struct starter {
	pid_t pid;
	int ends[2];
};

/* Returns the compiler's pid. */
static pid_t starter_begin(struct starter *starter)
{
	struct compile_process *process = NULL;
	pid_t pid = 0;
	char told;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, starter->ends), 0);
	starter->pid = fork();
	assert_true(starter->pid >= 0);
	if (starter->pid == 0) {
		if (compile_process_new(&process, "") < 0)
			_exit(1);
		pid = child();
		if (write(starter->ends[1], &pid, sizeof(pid)) != sizeof(pid) || read(starter->ends[1], &told, 1) != 1)
			_exit(1);
		_exit(0);
	}
	assert_int_equal(read(starter->ends[0], &pid, sizeof(pid)), sizeof(pid));
	return pid;
}

static void starter_end(struct starter *starter)
{
	int status;

	assert_int_equal(write(starter->ends[0], "x", 1), 1);
	assert_int_equal(waitpid(starter->pid, &status, 0), starter->pid);
	assert_int_equal(status, 0);
	close(starter->ends[0]);
	close(starter->ends[1]);
}

/* Its end is that of the other end of its socket. */
static void one_that_waits_ends_with_who_started_it(void **state)
{
	struct pollfd p = {.events = POLLIN};
	struct starter starter;
	pid_t pid = starter_begin(&starter);

	(void)state;
	p.fd = pidfd_open(pid, 0);
	assert_true(p.fd >= 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	starter_end(&starter);
	assert_int_equal(poll(&p, 1, 10000), 1);
	close(p.fd);
}

static const char *status_line(pid_t pid, const char *key)
{
	static char line[256];
	char path[64];
	size_t len = strlen(key);
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, key, len) == 0) {
			fclose(f);
			return line + len;
		}
	if (f)
		fclose(f);
	return "";
}

/* Also where it does not look at its socket, here because it is stopped. */
static void one_that_works_ends_with_who_started_it(void **state)
{
	struct pollfd p = {.events = POLLIN};
	struct starter starter;
	pid_t pid = starter_begin(&starter);
	int status;

	(void)state;
	p.fd = pidfd_open(pid, 0);
	assert_true(p.fd >= 0);
	/* Until it has a filter it may not have asked for it yet. */
	for (int i = 0; i < 1000 && strcmp(status_line(pid, "Seccomp:"), "\t2\n") != 0; i++)
		poll(NULL, 0, 10);
	assert_string_equal(status_line(pid, "Seccomp:"), "\t2\n");
	assert_int_equal(kill(pid, SIGSTOP), 0);
	starter_end(&starter);
	status = poll(&p, 1, 10000);
	if (status != 1)
		pidfd_send_signal(p.fd, SIGKILL, NULL, 0);
	assert_int_equal(status, 1);
	close(p.fd);
}

static void one_whose_starter_is_gone_does_not_begin(void **state)
{
	static const char config[] = "not: [a, configuration\n";
	struct compile_start start = {.job = COMPILE_CONFIG};
	int fds[COMPILE_FDS], pair[2], status;
	struct stat st;
	pid_t pid;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	fds[COMPILE_FD_SOCKET] = pair[1];
	for (size_t i = COMPILE_FD_INPUT; i < COMPILE_FDS; i++)
		fds[i] = memfd_create("given", MFD_CLOEXEC);
	assert_int_equal(write(fds[COMPILE_FD_INPUT], config, sizeof(config) - 1), sizeof(config) - 1);
	assert_int_equal(send(pair[0], &start, sizeof(start), 0), sizeof(start));
	close(pair[0]);
	pid = role_spawn_compiler("config.yaml", fds, COMPILE_FDS);
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), EXIT_FAILURE);
	assert_int_equal(fstat(fds[COMPILE_FD_TEXT], &st), 0);
	assert_int_equal(st.st_size, 0);
	for (size_t i = 0; i < COMPILE_FDS; i++)
		close(fds[i]);
}

/* ---- one that has been taken over ---- */

#define ENDS_AT_ONCE "ends at once"
#define LIVES_ON "says that it is done and lives on"
#define LIES "says that it has left more than it has"
#define HOLES "leaves a hole"

/* What it does instead of role_compiler_main(). */
static int hostile_main(const char *name)
{
	struct compile_done done = {.body_len = 5};
	struct compile_start start;

	/* Where the test has failed, nobody ends it. */
	alarm(60);
	if (strcmp(name, ENDS_AT_ONCE) == 0)
		return 7;
	if (strcmp(name, HOLES) == 0) {
		done.body_len = 1U << 20;
		if (pwrite(ROLE_FD_IPC + COMPILE_FD_BODY, "", 1, (off_t)done.body_len - 1) != 1)
			return 1;
	} else if (strcmp(name, LIVES_ON) == 0 && write(ROLE_FD_IPC + COMPILE_FD_BODY, "image", 5) != 5) {
		return 1;
	}
	if (read(ROLE_FD_IPC, &start, sizeof(start)) != sizeof(start) ||
	    write(ROLE_FD_IPC, &done, sizeof(done)) != sizeof(done))
		return 1;
	for (;;)
		pause();
}

/* It has ended already when it is given its job: the input takes longer to write than it lives. */
static void one_that_ends_before_its_job_is_told(void **state)
{
	struct daemon_config_file *out = calloc(1, sizeof(*out));
	size_t len = 32U << 20;
	char *input = malloc(len), *text = NULL;
	struct compile_process *process = NULL;
	struct compile_done done;
	siginfo_t si;

	(void)state;
	assert_non_null(out);
	assert_non_null(input);
	memset(input, '#', len);
	assert_int_equal(compile_config(input, len, ENDS_AT_ONCE, out, &text), -EIO);
	assert_string_equal(text, "the compiler ended by exit status 7");
	free(text);
	text = NULL;
	assert_int_equal(compile_process_new(&process, ENDS_AT_ONCE), 0);
	assert_int_equal(waitid(P_PID, (id_t)child(), &si, WEXITED | WNOWAIT), 0);
	assert_int_equal(compile_process_begin(process, COMPILE_CONFIG, "", 0), -ESRCH);
	assert_int_equal(compile_process_wait(process, &done, &text), -EIO);
	assert_string_equal(text, "the compiler ended by exit status 7");
	compile_process_freep(&process);
	free(text);
	free(input);
	free(out);
}

static void one_that_is_done_does_not_live_on(void **state)
{
	struct compile_process *process = NULL;
	struct compile_done done;
	struct pollfd p = {.events = POLLIN};
	char *text = NULL;

	(void)state;
	assert_int_equal(compile_process_new(&process, LIVES_ON), 0);
	p.fd = pidfd_open(child(), 0);
	assert_true(p.fd >= 0);
	assert_int_equal(compile_process_begin(process, COMPILE_POLICY, "", 0), 0);
	assert_int_equal(compile_process_wait(process, &done, &text), 0);
	assert_int_equal(done.body_len, 5);
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_null(text);
	close(p.fd);
	compile_process_freep(&process);
}

static void a_result_that_does_not_hold_is_told(void **state)
{
	static const char *const names[] = {LIES, HOLES};
	struct compile_process *process = NULL;
	struct compile_done done;
	char *text = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_int_equal(compile_process_new(&process, names[i]), 0);
		assert_int_equal(compile_process_begin(process, COMPILE_POLICY, "", 0), 0);
		assert_int_equal(compile_process_wait(process, &done, &text), -EBADMSG);
		assert_string_equal(text, "the compiler left a result that does not hold");
		free(text);
		text = NULL;
		compile_process_freep(&process);
	}
}

static bool is_hostile(const char *name)
{
	return strcmp(name, ENDS_AT_ONCE) == 0 || strcmp(name, LIVES_ON) == 0 || strcmp(name, LIES) == 0 ||
	       strcmp(name, HOLES) == 0;
}

/* Who could still change it could do so after it has been checked. */
static void an_image_that_is_not_sealed_is_not_opened(void **state)
{
	struct policy_image *image = NULL;
	const char *why = NULL;
	int fd = memfd_create("image", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	(void)state;
	assert_int_equal(write(fd, "image", 5), 5);
	assert_int_equal(image_file_open(&image, fd, &why), -EPERM);
	assert_null(image);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	/* And what is sealed is checked. */
	fd = ipc_memfd("image", "image", 5);
	assert_int_equal(image_file_open(&image, fd, &why), -EBADMSG);
	assert_string_equal(why, "not an image of this version");
	fd = ipc_memfd("image", "", 0);
	assert_int_equal(image_file_open(&image, fd, &why), -EBADMSG);
	assert_string_equal(why, "it is empty or too large");
	assert_null(image);
}

static void an_invalid_policy_is_an_answer(void **state)
{
	struct policy_source source = {.name = "policy.yaml", .text = "bulkhead: 2\n", .len = 12};
	struct compile_process *process = NULL;
	char *text = NULL;
	int image;

	(void)state;
	assert_int_equal(compile_policy(&process, &source, 1, NULL, &image, &text), 1);
	assert_int_equal(image, -1);
	compile_process_freep(&process);
	assert_non_null(strstr(text, "policy.yaml:1:"));
	free(text);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_policy_whose_tests_fail_does_not_compile),
		cmocka_unit_test(policies_of_many_identities_compile),
		cmocka_unit_test(a_policy_of_ten_thousand_rules_gets_an_answer),
		cmocka_unit_test(an_invalid_policy_is_an_answer),
		cmocka_unit_test(a_process_that_waits_does_one_job),
		cmocka_unit_test(one_that_was_killed_while_it_waited_is_replaced),
		cmocka_unit_test(one_that_is_killed_over_its_job_is_told),
		cmocka_unit_test(one_that_waits_ends_with_who_started_it),
		cmocka_unit_test(one_that_works_ends_with_who_started_it),
		cmocka_unit_test(one_whose_starter_is_gone_does_not_begin),
		cmocka_unit_test(one_that_ends_before_its_job_is_told),
		cmocka_unit_test(one_that_is_done_does_not_live_on),
		cmocka_unit_test(a_result_that_does_not_hold_is_told),
		cmocka_unit_test(an_image_that_is_not_sealed_is_not_opened),
	};
	int status;

	if (argc == 4 && strcmp(argv[1], "--role") == 0 && is_hostile(argv[3]))
		return hostile_main(argv[3]);
	if (role_dispatch(argc, argv, &status))
		return status;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

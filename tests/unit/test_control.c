/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real server in a child process, real sd-bus clients over a real socket; only the operations are made up: they answer
 * with what they were called with, so that the clients can tell what arrived.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/control.h"
#include "daemon/control_api.h"

#define BIG (1U << 20)

struct server {
	char dir[64];
	char path[96];
	pid_t pid;
};

/* ---- operations ---- */

static int fake_apply(void *ctx, const struct control_change *change, const struct control_caller *caller,
		      struct control_change_result *out, char **textp)
{
	const char *comment = change->comment;
	size_t bytes = 0;

	(void)ctx;
	for (size_t i = 0; i < change->n; i++)
		for (size_t k = 0; k < change->files[i].len; k++)
			bytes += (unsigned char)change->files[i].text[k];
	if (!strcmp(comment, "invalid")) {
		*textp = strdup("a.yaml:1:2: error: \xff\xc3( \xc3\xa4");
		return CONTROL_INVALID;
	}
	if (!strcmp(comment, "fault"))
		return -EIO;
	if (!strcmp(comment, "told fault")) {
		*textp = strdup("the map is full");
		return -ENOSPC;
	}
	if (!strcmp(comment, "session")) {
		*textp = strdup("your own connection");
		return CONTROL_WOULD_CUT;
	}
	if (!strcmp(comment, "waiting")) {
		*textp = strdup("revision 6 waits");
		return CONTROL_WAITING;
	}
	*out = (struct control_change_result){7, 6, change->confirm_s, (uint32_t)bytes};
	return asprintf(textp, "%zu %s %u %d %s %d", change->n, change->n ? change->files[change->n - 1].name : "-",
			caller->uid, (int)caller->pid, caller->session, change->even_if_cut) < 0
		       ? -ENOMEM
		       : CONTROL_DONE;
}

static int fake_preview(void *ctx, const struct policy_source *files, size_t n, const struct control_caller *caller,
			struct control_preview *out, char **textp)
{
	(void)ctx, (void)files;
	*out = (struct control_preview){.sockets_cut = (uint32_t)n, .session_cut = true};
	*textp = strdup(caller->session);
	return CONTROL_DONE;
}

static int fake_rollback(void *ctx, uint32_t revision, bool even_if_cut, const struct control_caller *caller,
			 struct control_change_result *out, char **textp)
{
	(void)ctx;
	if (revision == 9) {
		*textp = strdup("there is no revision 9");
		return CONTROL_NO_REVISION;
	}
	*out = (struct control_change_result){8, 7, revision, even_if_cut};
	*textp = strdup(caller->session);
	return CONTROL_DONE;
}

static int fake_confirm(void *ctx, const struct control_caller *caller, uint32_t *revision, char **textp)
{
	(void)ctx, (void)textp;
	*revision = (uint32_t)caller->pid;
	return CONTROL_DONE;
}

static int fake_history(void *ctx, char **textp)
{
	(void)ctx, (void)textp;
	*textp = strdup("nothing was applied");
	return CONTROL_NOT_WAITING;
}

static int fake_show(void *ctx, uint32_t revision, struct control_revision *out, char **textp)
{
	(void)ctx;
	if (revision == 9) {
		*textp = strdup("there is no revision 9");
		return CONTROL_NO_REVISION;
	}
	out->revision = revision;
	out->n_files = 2;
	out->files = calloc(2, sizeof(*out->files));
	out->files[0] = (struct policy_source){strdup("a.yaml"), strdup("bulkhead: 1\n"), 12};
	out->files[1] = (struct policy_source){strdup("\xff.yaml"), strdup(""), 0};
	strcpy(out->digest, "abcd");
	out->applied_usec = 1700000000000000;
	out->uid = 12;
	out->comment = strdup("why");
	return CONTROL_DONE;
}

static int fake_status(void *ctx, char **textp)
{
	(void)ctx;
	*textp = calloc(1, BIG + 1); /* more than a socket buffer takes */
	memset(*textp, 'x', BIG);
	return CONTROL_DONE;
}

static int fake_identities(void *ctx, char **textp)
{
	(void)ctx;
	*textp = strdup("[]");
	return CONTROL_DONE;
}

static int fake_revoke(void *ctx, const char *identity, uid_t uid, pid_t pid, struct control_revoke_result *out,
		       char **textp)
{
	(void)ctx, (void)uid, (void)pid;
	if (strcmp(identity, "spiffe://a/b")) {
		*textp = strdup("nobody carries it");
		return CONTROL_NO_IDENTITY;
	}
	*out = (struct control_revoke_result){.tags = 2, .sockets_cut = 3};
	return CONTROL_DONE;
}

static int fake_reload(void *ctx, uid_t uid, pid_t pid, char **textp)
{
	(void)ctx, (void)uid, (void)pid, (void)textp;
	return CONTROL_DONE;
}

static int fake_rotate_key(void *ctx, uid_t uid, pid_t pid, uint64_t *epoch, char **textp)
{
	(void)ctx, (void)uid, (void)pid, (void)textp;
	*epoch = 7;
	return CONTROL_DONE;
}

static const struct control_ops ops = {
	.apply = fake_apply,
	.preview = fake_preview,
	.rollback = fake_rollback,
	.confirm = fake_confirm,
	.history = fake_history,
	.show = fake_show,
	.status = fake_status,
	.identities = fake_identities,
	.revoke = fake_revoke,
	.rotate_key = fake_rotate_key,
	.reload = fake_reload,
};

/* ---- server and clients ---- */

static int on_term(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	(void)info, (void)userdata;
	return sd_event_exit(sd_event_source_get_event(source), 0);
}

static void serve(const char *path, int ready)
{
	struct control *control = NULL;
	sd_event *event = NULL;
	sigset_t term;
	int rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	rc = sd_event_new(&event);
	if (rc >= 0)
		rc = sd_event_add_signal(event, NULL, SIGTERM, on_term, NULL);
	if (rc >= 0)
		rc = control_new(&control, event, path, &ops, NULL);
	if (rc < 0 || write(ready, "x", 1) != 1)
		_exit(1);
	rc = sd_event_loop(event);
	if (control_connections(control) > CONTROL_MAX_CONNECTIONS)
		rc = -1;
	control_freep(&control);
	sd_event_unref(event);
	exit(rc ? 1 : 0); /* with the leak check of the sanitizer */
}

static int start(void **state)
{
	struct server *s = calloc(1, sizeof(*s));
	int ready[2];
	char byte;

	strcpy(s->dir, "/tmp/test-control-XXXXXX");
	if (!mkdtemp(s->dir) || pipe(ready) < 0)
		return -1;
	snprintf(s->path, sizeof(s->path), "%s/%s", s->dir, BH_CONTROL_SOCKET);
	s->pid = fork();
	if (!s->pid)
		serve(s->path, ready[1]);
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		return -1;
	close(ready[0]);
	*state = s;
	return 0;
}

/* The server ends well, whatever the test did to it, and takes its socket with it. */
static int stop(void **state)
{
	struct server *s = *state;
	int status = -1, gone;

	kill(s->pid, SIGTERM);
	waitpid(s->pid, &status, 0);
	gone = access(s->path, F_OK) < 0;
	unlink(s->path);
	rmdir(s->dir);
	free(s);
	return status || !gone;
}

static int dial(const struct server *s)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, s->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static sd_bus *client(const struct server *s)
{
	sd_bus *bus = NULL;
	int fd = dial(s);

	assert_true(sd_bus_new(&bus) >= 0);
	assert_true(sd_bus_set_fd(bus, fd, fd) >= 0);
	assert_true(sd_bus_set_method_call_timeout(bus, 20000000) >= 0);
	assert_true(sd_bus_start(bus) >= 0);
	return bus;
}

static int call(sd_bus *bus, const char *member, sd_bus_error *error, sd_bus_message **reply, const char *types, ...)
{
	sd_bus_message *m = NULL;
	va_list args;
	int rc;

	assert_true(sd_bus_message_new_method_call(bus, &m, NULL, BH_BUS_PATH, BH_BUS_INTERFACE, member) >= 0);
	va_start(args, types);
	assert_true(sd_bus_message_appendv(m, types, args) >= 0);
	va_end(args);
	rc = sd_bus_call(bus, m, 20000000, error, reply);
	sd_bus_message_unref(m);
	return rc;
}

static void append_files(sd_bus_message *m)
{
	static const unsigned char bytes[] = {0xff, 0, 0xfe, 2};

	assert_true(sd_bus_message_open_container(m, 'a', "(say)") >= 0);
	for (int i = 0; i < 20; i++) {
		assert_true(sd_bus_message_open_container(m, 'r', "say") >= 0);
		assert_true(sd_bus_message_append(m, "s", i == 19 ? "last.yaml" : "a.yaml") >= 0);
		assert_true(sd_bus_message_append_array(m, 'y', bytes, i == 19 ? sizeof(bytes) : 0) >= 0);
		assert_true(sd_bus_message_close_container(m) >= 0);
	}
	assert_true(sd_bus_message_close_container(m) >= 0);
}

static int apply(sd_bus *bus, const char *comment, sd_bus_error *error, sd_bus_message **reply)
{
	sd_bus_message *m = NULL;
	int rc;

	assert_true(sd_bus_message_new_method_call(bus, &m, NULL, BH_BUS_PATH, BH_BUS_INTERFACE, "Apply") >= 0);
	append_files(m);
	assert_true(sd_bus_message_append(m, "susb", comment, 60, "1.2.3.4 5 6.7.8.9 22", 1) >= 0);
	rc = sd_bus_call(bus, m, 20000000, error, reply);
	sd_bus_message_unref(m);
	return rc;
}

/* ---- tests ---- */

static void apply_hands_on_files_and_the_caller_that_the_kernel_names(void **state)
{
	sd_bus *bus = client(*state);
	sd_bus_message *reply = NULL;
	const char *warnings;
	char expected[96];
	uint32_t revision, replaced, rules, cut;

	assert_true(apply(bus, "new", NULL, &reply) >= 0);
	assert_true(sd_bus_message_read(reply, "uuuus", &revision, &replaced, &rules, &cut, &warnings) >= 0);
	assert_int_equal(revision, 7);
	assert_int_equal(replaced, 6);
	assert_int_equal(rules, 60);
	assert_int_equal(cut, 0xff + 0xfe + 2);
	snprintf(expected, sizeof(expected), "20 last.yaml %u %d 1.2.3.4 5 6.7.8.9 22 1", getuid(), (int)getpid());
	assert_string_equal(warnings, expected);
	sd_bus_message_unref(reply);
	sd_bus_flush_close_unref(bus);
}

static void each_kind_of_no_has_its_error(void **state)
{
	static const struct {
		const char *comment, *name, *text;
	} cases[] = {
		{"invalid", BH_ERROR_INVALID,
		 "a.yaml:1:2: error: ?\x3f( \xc3\xa4"}, /* made UTF-8: else no answer at all */
		{"fault", BH_ERROR_FAILED, "Input/output error"},
		{"told fault", BH_ERROR_FAILED, "the map is full"},
		{"session", BH_ERROR_WOULD_CUT, "your own connection"},
		{"waiting", BH_ERROR_WAITING, "revision 6 waits"},
	};
	sd_bus *bus = client(*state);
	sd_bus_error error = SD_BUS_ERROR_NULL;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_true(apply(bus, cases[i].comment, &error, NULL) < 0);
		assert_string_equal(error.name, cases[i].name);
		assert_string_equal(error.message, cases[i].text);
		sd_bus_error_free(&error);
	}
	assert_true(call(bus, "Show", &error, NULL, "u", 9) < 0);
	assert_string_equal(error.name, BH_ERROR_NO_REVISION);
	sd_bus_error_free(&error);
	assert_true(call(bus, "Rollback", &error, NULL, "usb", 9, "", 0) < 0);
	assert_string_equal(error.name, BH_ERROR_NO_REVISION);
	sd_bus_error_free(&error);
	assert_true(call(bus, "History", &error, NULL, "") < 0);
	assert_string_equal(error.name, BH_ERROR_NOT_WAITING);
	assert_string_equal(error.message, "nothing was applied");
	sd_bus_error_free(&error);
	assert_true(call(bus, "Revoke", &error, NULL, "s", "spiffe://a/c") < 0);
	assert_string_equal(error.name, BH_ERROR_NO_IDENTITY);
	sd_bus_error_free(&error);
	assert_true(call(bus, "Revoke", &error, NULL, "u", 1) < 0); /* wrong signature */
	sd_bus_error_free(&error);
	assert_true(call(bus, "Frobnicate", &error, NULL, "") < 0);
	assert_string_equal(error.name, SD_BUS_ERROR_UNKNOWN_METHOD);
	sd_bus_error_free(&error);
	sd_bus_flush_close_unref(bus);
}

static void show_gives_the_revision_with_its_files(void **state)
{
	sd_bus *bus = client(*state);
	sd_bus_message *reply = NULL;
	const char *name, *digest, *comment;
	const void *text;
	uint32_t revision, uid;
	uint64_t applied;
	size_t len;

	assert_true(call(bus, "Show", NULL, &reply, "u", 3) >= 0);
	assert_true(sd_bus_message_read(reply, "u", &revision) > 0);
	assert_int_equal(revision, 3);
	assert_true(sd_bus_message_enter_container(reply, 'a', "(say)") > 0);
	assert_true(sd_bus_message_enter_container(reply, 'r', "say") > 0);
	assert_true(sd_bus_message_read(reply, "s", &name) > 0);
	assert_true(sd_bus_message_read_array(reply, 'y', &text, &len) > 0);
	assert_string_equal(name, "a.yaml");
	assert_int_equal(len, 12);
	assert_memory_equal(text, "bulkhead: 1\n", 12);
	assert_true(sd_bus_message_exit_container(reply) > 0);
	assert_true(sd_bus_message_skip(reply, "(say)") > 0);
	assert_int_equal(sd_bus_message_at_end(reply, 0), 1);
	assert_true(sd_bus_message_exit_container(reply) > 0);
	assert_true(sd_bus_message_read(reply, "stus", &digest, &applied, &uid, &comment) > 0);
	assert_string_equal(digest, "abcd");
	assert_int_equal(applied, 1700000000000000);
	assert_int_equal(uid, 12);
	assert_string_equal(comment, "why");
	sd_bus_message_unref(reply);
	sd_bus_flush_close_unref(bus);
}

static void revisions_are_looked_at_confirmed_and_gone_back_to(void **state)
{
	sd_bus *bus = client(*state);
	sd_bus_message *m = NULL, *reply = NULL;
	uint32_t revision, replaced, rules, cut;
	const char *text;
	int session_cut;

	assert_true(sd_bus_message_new_method_call(bus, &m, NULL, BH_BUS_PATH, BH_BUS_INTERFACE, "Preview") >= 0);
	append_files(m);
	assert_true(sd_bus_message_append(m, "s", "hint") >= 0);
	assert_true(sd_bus_call(bus, m, 20000000, NULL, &reply) >= 0);
	assert_true(sd_bus_message_read(reply, "ubs", &cut, &session_cut, &text) > 0);
	assert_int_equal(cut, 20);
	assert_true(session_cut);
	assert_string_equal(text, "hint");
	sd_bus_message_unref(m);
	reply = sd_bus_message_unref(reply);
	assert_true(call(bus, "Rollback", NULL, &reply, "usb", 3, "hint", 1) >= 0);
	assert_true(sd_bus_message_read(reply, "uuuus", &revision, &replaced, &rules, &cut, &text) > 0);
	assert_int_equal(revision, 8);
	assert_int_equal(replaced, 7);
	assert_int_equal(rules, 3);
	assert_int_equal(cut, 1);
	assert_string_equal(text, "hint");
	reply = sd_bus_message_unref(reply);
	assert_true(call(bus, "Confirm", NULL, &reply, "") >= 0);
	assert_true(sd_bus_message_read(reply, "u", &revision) > 0);
	assert_int_equal(revision, getpid());
	sd_bus_message_unref(reply);
	sd_bus_flush_close_unref(bus);
}

static void the_other_methods_answer(void **state)
{
	sd_bus *bus = client(*state);
	sd_bus_message *reply = NULL;
	uint32_t tags, cut;
	const char *text;

	assert_true(call(bus, "Identities", NULL, &reply, "") >= 0);
	assert_true(sd_bus_message_read(reply, "s", &text) > 0);
	assert_string_equal(text, "[]");
	reply = sd_bus_message_unref(reply);
	assert_true(call(bus, "Status", NULL, &reply, "") >= 0);
	assert_true(sd_bus_message_read(reply, "s", &text) > 0);
	assert_int_equal(strlen(text), BIG);
	reply = sd_bus_message_unref(reply);
	assert_true(call(bus, "Revoke", NULL, &reply, "s", "spiffe://a/b") >= 0);
	assert_true(sd_bus_message_read(reply, "uu", &tags, &cut) > 0);
	assert_int_equal(tags, 2);
	assert_int_equal(cut, 3);
	reply = sd_bus_message_unref(reply);
	assert_true(call(bus, "Reload", NULL, NULL, "") >= 0);
	sd_bus_flush_close_unref(bus);
}

static void answers(const struct server *s)
{
	sd_bus *bus = client(s);

	assert_true(call(bus, "Identities", NULL, NULL, "") >= 0);
	sd_bus_flush_close_unref(bus);
}

static void more_connections_than_places_do_not_shut_out_the_next(void **state)
{
	int fds[CONTROL_MAX_CONNECTIONS + 8];

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		fds[i] = dial(*state);
	answers(*state);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		close(fds[i]);
	for (int i = 0; i < 3 * CONTROL_MAX_CONNECTIONS; i++)
		answers(*state);
}

static void a_peer_that_asks_and_never_reads_is_cut_and_stops_nobody(void **state)
{
	sd_bus *bus = client(*state);
	int rc = 0, sent;

	assert_true(call(bus, "Identities", NULL, NULL, "") >= 0);
	for (sent = 0; rc >= 0 && sent < 200; sent++) {
		sd_bus_message *m = NULL;
		uint64_t cookie; /* asks for a reply */

		assert_true(sd_bus_message_new_method_call(bus, &m, NULL, BH_BUS_PATH, BH_BUS_INTERFACE, "Status") >=
			    0);
		rc = sd_bus_send(bus, m, &cookie);
		sd_bus_message_unref(m);
		answers(*state);
	}
	assert_in_range(sent, 16, 199);
	sd_bus_close_unref(bus);
}

static void a_peer_that_talks_nonsense_stops_nobody(void **state)
{
	static const char nonsense[] = "\0AUTH EXTERNAL 3939\r\nBEGIN\r\n\xff\xff\xff\xff garbage \0\0\0";
	int half = dial(*state), bad = dial(*state);
	char word[9] = "";

	assert_int_equal(write(half, "", 1), 1);
	assert_true(write(bad, nonsense, sizeof(nonsense)) > 0);
	answers(*state);
	close(half);
	assert_int_equal(recv(bad, word, 8, MSG_WAITALL), 8);
	assert_string_equal(word, "REJECTED");
	close(bad);
	answers(*state);
}

static void others_may_not_connect(void **state)
{
	const struct server *s = *state;
	struct stat st;
	pid_t pid;
	int status;

	assert_int_equal(stat(s->path, &st), 0);
	assert_int_equal(st.st_mode & 0007, 0);
	if (getuid())
		skip();
	assert_int_equal(chmod(s->dir, 0755), 0);
	pid = fork();
	if (!pid) {
		struct sockaddr_un address = {.sun_family = AF_UNIX};
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);

		strcpy(address.sun_path, s->path);
		if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
			_exit(2);
		_exit(connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 && errno == EACCES ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
}

static void a_live_socket_is_not_taken_over_and_a_dead_one_is(void **state)
{
	const struct server *s = *state;
	struct control *control = NULL;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	sd_event *event = NULL;
	int fd;

	assert_true(sd_event_new(&event) >= 0);
	assert_int_equal(control_new(&control, event, s->path, &ops, NULL), -EADDRINUSE);
	answers(s);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/dead", s->dir);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	assert_int_equal(control_new(&control, event, address.sun_path, &ops, NULL), 0);
	control_freep(&control);
	assert_int_equal(access(address.sun_path, F_OK), -1);
	sd_event_unref(event);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(apply_hands_on_files_and_the_caller_that_the_kernel_names, start, stop),
		cmocka_unit_test_setup_teardown(each_kind_of_no_has_its_error, start, stop),
		cmocka_unit_test_setup_teardown(show_gives_the_revision_with_its_files, start, stop),
		cmocka_unit_test_setup_teardown(revisions_are_looked_at_confirmed_and_gone_back_to, start, stop),
		cmocka_unit_test_setup_teardown(the_other_methods_answer, start, stop),
		cmocka_unit_test_setup_teardown(more_connections_than_places_do_not_shut_out_the_next, start, stop),
		cmocka_unit_test_setup_teardown(a_peer_that_asks_and_never_reads_is_cut_and_stops_nobody, start, stop),
		cmocka_unit_test_setup_teardown(a_peer_that_talks_nonsense_stops_nobody, start, stop),
		cmocka_unit_test_setup_teardown(others_may_not_connect, start, stop),
		cmocka_unit_test_setup_teardown(a_live_socket_is_not_taken_over_and_a_dead_one_is, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

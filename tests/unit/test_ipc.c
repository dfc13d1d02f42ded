/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/ipc.h"

struct pair {
	int a, b;
	uint8_t buf[IPC_MAX_PACKET];
};

static int pair_setup(void **state)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	pair->a = fds[0];
	pair->b = fds[1];
	*state = pair;
	return 0;
}

static int pair_teardown(void **state)
{
	struct pair *pair = *state;

	close(pair->a);
	close(pair->b);
	free(pair);
	return 0;
}

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count;
}

static void send_raw(int sock, const void *bytes, size_t len, const int *fds, size_t nfds)
{
	union {
		struct cmsghdr align;
		char bytes[256];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)bytes, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds > 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, nfds * sizeof(int));
	}
	assert_int_equal(sendmsg(sock, &msg, 0), len);
}

static void packet_arrives_as_it_was_sent(void **state)
{
	struct pair *pair = *state;
	struct ipc_tag_reply reply = {.h = {IPC_TAG_REPLY, sizeof(reply)}, .request = 7, .code = 9, .text = "binding"};
	int fd;

	assert_int_equal(ipc_send(pair->a, &reply, -1), 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), IPC_TAG_REPLY);
	assert_int_equal(fd, -1);
	assert_memory_equal(pair->buf, &reply, sizeof(reply));
}

/* A role that was taken over says what it wants; it reaches no terminal and no log as it is. */
static void what_roles_say_to_people_arrives_printable(void **state)
{
	struct pair *pair = *state;
	struct ipc_fetched fetched = {.h = {IPC_FETCHED, sizeof(fetched)},
				      .why = "one\n<3>bulkheadd: two\x1b[2J\x9b\x7f~ "};
	struct ipc_workload_state told = {.h = {IPC_WORKLOAD_STATE, sizeof(told)}, .why = "a\r\tb"};
	struct ipc_bundle_loaded loaded = {.h = {IPC_BUNDLE_LOADED, sizeof(loaded)}, .why = "\001"};
	struct ipc_tag_request refused = {.h = {IPC_ATTEST_REFUSED, sizeof(refused)},
					  .issuer = "CN=\n",
					  .text = "\xc3\xbc",
					  .device = "veth\n",
					  .spiffe_id = "spiffe://prod.example/\x1b[2J",
					  .trust_domain = "prod\r"};
	struct ipc_bundle_entry entry = {.h = {IPC_BUNDLE_ENTRY, sizeof(entry)}, .text = "\b"};
	struct ipc_bundle_authority authority = {.h = {IPC_BUNDLE_AUTHORITY, sizeof(authority)}, .subject = "\a"};
	const struct {
		const void *packet;
		size_t at;
		const char *text;
	} cases[] = {
		{&fetched, offsetof(struct ipc_fetched, why), "one?<3>bulkheadd: two?[2J??~ "},
		{&told, offsetof(struct ipc_workload_state, why), "a??b"},
		{&loaded, offsetof(struct ipc_bundle_loaded, why), "?"},
		{&refused, offsetof(struct ipc_tag_request, issuer), "CN=?"},
		{&refused, offsetof(struct ipc_tag_request, text), "??"},
		{&refused, offsetof(struct ipc_tag_request, spiffe_id), "spiffe://prod.example/?[2J"},
		{&refused, offsetof(struct ipc_tag_request, trust_domain), "prod?"},
		{&refused, offsetof(struct ipc_tag_request, device), "veth?"},
		{&entry, offsetof(struct ipc_bundle_entry, text), "?"},
		{&authority, offsetof(struct ipc_bundle_authority, subject), "?"},
	};
	int fd;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(ipc_send(pair->a, cases[i].packet, -1), 0);
		assert_true(ipc_receive(pair->b, pair->buf, &fd) > 0);
		assert_string_equal((const char *)pair->buf + cases[i].at, cases[i].text);
	}
}

/* A role that has to tell something waits as long as the enforcer is busy. */
static void what_has_to_be_told_waits_for_room(void **state)
{
	struct pair *pair = *state;
	struct ipc_fetched fetched = {.h = {IPC_FETCHED, sizeof(fetched)}};
	uint64_t wanted = 0;
	int fd, status;
	pid_t pid;

	assert_int_equal(fcntl(pair->a, F_SETFL, O_NONBLOCK), 0);
	while (ipc_send(pair->a, &fetched, -1) == 0)
		fetched.request++;
	pid = fork();
	if (pid == 0)
		_exit(ipc_send_wait(pair->a, &fetched, -1) != 0);
	do {
		assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), IPC_FETCHED);
		assert_int_equal(((struct ipc_fetched *)pair->buf)->request, wanted);
	} while (wanted++ < fetched.request);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(pair->b);
	pair->b = -1;
	assert_int_equal(ipc_send_wait(pair->a, &fetched, -1), -EPIPE);
}

static void body_travels_as_sealed_memfd(void **state)
{
	struct pair *pair = *state;
	struct ipc_bundle bundle = {.h = {IPC_BUNDLE, sizeof(bundle)}, .trust_domain = "td"};
	int memfd = ipc_memfd("bundle", "some text", 9), fd;
	void *bytes;
	size_t len;

	assert_true(memfd >= 0);
	assert_true(write(memfd, "x", 1) < 0 && errno == EPERM);
	assert_int_equal(ipc_send(pair->a, &bundle, memfd), 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), IPC_BUNDLE);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(ipc_memfd_read(fd, 8, &bytes, &len), -EFBIG);
	assert_int_equal(ipc_memfd_read(fd, 9, &bytes, &len), 0);
	assert_int_equal(len, 9);
	assert_string_equal(bytes, "some text");
	free(bytes);
	close(fd);
	close(memfd);
}

static void empty_memfd_is_an_empty_text(void **state)
{
	int memfd = ipc_memfd("empty", "", 0);
	void *bytes;
	size_t len;

	(void)state;
	assert_int_equal(ipc_memfd_read(memfd, 10, &bytes, &len), 0);
	assert_int_equal(len, 0);
	assert_string_equal(bytes, "");
	free(bytes);
	close(memfd);
}

static void what_is_no_regular_file_is_no_memfd(void **state)
{
	struct pair *pair = *state;
	void *bytes;
	size_t len;

	assert_int_equal(ipc_memfd_read(pair->a, 10, &bytes, &len), -EBADMSG);
}

static void end_of_file_is_zero(void **state)
{
	struct pair *pair = *state;
	int fd;

	close(pair->a);
	pair->a = -1;
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), 0);
	assert_int_equal(fd, -1);
}

static void packet_of_wrong_size_or_type_is_refused(void **state)
{
	struct pair *pair = *state;
	struct ipc_tag_reply reply = {.h = {IPC_TAG_REPLY, sizeof(reply)}};
	struct ipc_header shorter = {IPC_TAG_REPLY, sizeof(shorter)}, unknown = {99, sizeof(unknown)};
	uint8_t longest[IPC_MAX_PACKET + 1] = {0};
	int fd;

	send_raw(pair->a, &shorter, sizeof(shorter), NULL, 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	send_raw(pair->a, &unknown, sizeof(unknown), NULL, 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	send_raw(pair->a, "abc", 3, NULL, 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	send_raw(pair->a, &reply, sizeof(reply) - 1, NULL, 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	reply.h.len--;
	send_raw(pair->a, &reply, sizeof(reply), NULL, 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	send_raw(pair->a, longest, sizeof(longest), NULL, 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
}

static void text_without_end_is_refused(void **state)
{
	struct pair *pair = *state;
	struct ipc_notice notice = {.h = {IPC_AUDIT_NOTICE, sizeof(notice)}};
	struct ipc_tag_request request = {.h = {IPC_ATTEST_REFUSED, sizeof(request)}};
	int fd;

	memset(notice.digest, 'x', sizeof(notice.digest));
	assert_int_equal(ipc_send(pair->a, &notice, -1), 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	memset(notice.digest, 0, sizeof(notice.digest));
	memset(notice.text, 'x', sizeof(notice.text));
	assert_int_equal(ipc_send(pair->a, &notice, -1), 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	memset(request.spiffe_id, 'x', sizeof(request.spiffe_id));
	assert_int_equal(ipc_send(pair->a, &request, -1), 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	request.spiffe_id[sizeof(request.spiffe_id) - 1] = '\0';
	assert_int_equal(ipc_send(pair->a, &request, -1), 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), IPC_ATTEST_REFUSED);
}

static void descriptors_that_do_not_belong_are_closed(void **state)
{
	struct pair *pair = *state;
	struct ipc_header ready = {IPC_READY, sizeof(ready)};
	struct ipc_bundle bundle = {.h = {IPC_BUNDLE, sizeof(bundle)}};
	struct ipc_tag_request request = {.h = {IPC_TAG_REQUEST, sizeof(request)}};
	int fds[] = {pair->a, pair->a, pair->a, pair->a, pair->a, pair->a}, fd;
	unsigned before = open_descriptors();

	send_raw(pair->a, &ready, sizeof(ready), fds, 1);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	send_raw(pair->a, &bundle, sizeof(bundle), fds, 2);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	send_raw(pair->a, &bundle, sizeof(bundle), fds, 6);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	assert_int_equal(ipc_send(pair->a, &request, -1), 0);
	assert_int_equal(ipc_receive(pair->b, pair->buf, &fd), -EBADMSG);
	assert_int_equal(fd, -1);
	assert_int_equal(open_descriptors(), before);
}

static void full_socket_does_not_block_a_non_blocking_sender(void **state)
{
	struct pair *pair = *state;
	struct ipc_notice notice = {.h = {IPC_AUDIT_NOTICE, sizeof(notice)}};
	int r = 0;

	assert_int_equal(fcntl(pair->a, F_SETFL, O_NONBLOCK), 0);
	for (int i = 0; i < 10000 && r == 0; i++)
		r = ipc_send(pair->a, &notice, -1);
	assert_int_equal(r, -EAGAIN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pair_setup, pair_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(packet_arrives_as_it_was_sent),
		TEST(what_roles_say_to_people_arrives_printable),
		TEST(what_has_to_be_told_waits_for_room),
		TEST(body_travels_as_sealed_memfd),
		TEST(empty_memfd_is_an_empty_text),
		TEST(what_is_no_regular_file_is_no_memfd),
		TEST(end_of_file_is_zero),
		TEST(packet_of_wrong_size_or_type_is_refused),
		TEST(text_without_end_is_refused),
		TEST(descriptors_that_do_not_belong_are_closed),
		TEST(full_socket_does_not_block_a_non_blocking_sender),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Over a real socketpair, as roles have it, with a reader that reads late. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/ipc.h"
#include "daemon/outbox.h"

#define IDENTITIES 16000

struct ends {
	int sender;
	int reader;
	struct outbox outbox;
};

static int ends_make(void **state)
{
	struct ends *ends = calloc(1, sizeof(*ends));
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	ends->sender = pair[0];
	ends->reader = pair[1];
	*state = ends;
	return 0;
}

static int ends_remove(void **state)
{
	struct ends *ends = *state;

	outbox_clear(&ends->outbox, NULL, NULL);
	close(ends->sender);
	if (ends->reader >= 0)
		close(ends->reader);
	free(ends);
	return 0;
}

static struct ipc_audit_name name_packet(uint32_t identity)
{
	struct ipc_audit_name packet = {.h = {.type = IPC_AUDIT_NAME, .len = sizeof(packet)}, .identity = identity};

	snprintf(packet.name, sizeof(packet.name), "spiffe://prod.example/ns/shop/sa/%u", identity);
	return packet;
}

static void names_send(struct ends *ends, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct ipc_audit_name packet = name_packet(i);

		assert_int_equal(outbox_send(&ends->outbox, ends->sender, &packet, -1), 0);
	}
}

static void every_name_arrives_in_order_at_a_slow_reader(void **state)
{
	struct ends *ends = *state;
	struct ipc_header log = {.type = IPC_AUDIT_LOG, .len = sizeof(log)};
	_Alignas(8) char buf[IPC_MAX_PACKET];
	const struct ipc_audit_name *name = (const struct ipc_audit_name *)buf;
	int log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC), fd, r = -EAGAIN;
	uint32_t next = 0;

	names_send(ends, IDENTITIES);
	assert_int_equal(outbox_send(&ends->outbox, ends->sender, &log, log_fd), 0);
	close(log_fd); /* it was borrowed */
	assert_true(ends->outbox.n_packets > IDENTITIES / 2);
	for (;;) {
		int type = ipc_receive(ends->reader, buf, &fd);

		if (type == -EAGAIN) {
			assert_int_equal(r, -EAGAIN); /* there is more */
			r = outbox_flush(&ends->outbox, ends->sender);
			continue;
		}
		if (type == IPC_AUDIT_LOG)
			break;
		assert_int_equal(type, IPC_AUDIT_NAME);
		assert_int_equal(name->identity, next);
		next++;
	}
	assert_int_equal(next, IDENTITIES);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
	assert_int_equal(r, 0);
	assert_int_equal(ends->outbox.n_packets, 0);
	assert_int_equal(ends->outbox.n_bytes, 0);
}

static void a_reader_that_never_reads_is_told_only_so_much(void **state)
{
	struct ends *ends = *state;
	struct ipc_audit_name packet = name_packet(0);
	int r = 0;

	for (unsigned i = 0; i <= 2 * OUTBOX_MAX_PACKETS && r == 0; i++)
		r = outbox_send(&ends->outbox, ends->sender, &packet, -1);
	assert_int_equal(r, -ENOBUFS);
	assert_true(ends->outbox.n_packets <= OUTBOX_MAX_PACKETS);
	assert_true(ends->outbox.n_bytes <= OUTBOX_MAX_BYTES);
}

static void count_unsent(void *ctx, const void *packet)
{
	const struct ipc_audit_name *name = packet;
	uint32_t *last = ctx;

	if (*last)
		assert_int_equal(name->identity, *last + 1);
	*last = name->identity;
}

static void what_was_not_sent_is_handed_back_in_order(void **state)
{
	struct ends *ends = *state;
	uint32_t last = 0;
	int r;

	names_send(ends, 1000);
	close(ends->reader);
	ends->reader = -1;
	r = outbox_flush(&ends->outbox, ends->sender);
	assert_true(r < 0 && r != -EAGAIN);
	outbox_clear(&ends->outbox, count_unsent, &last);
	assert_int_equal(last, 999);
	assert_int_equal(ends->outbox.n_packets, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_name_arrives_in_order_at_a_slow_reader, ends_make, ends_remove),
		cmocka_unit_test_setup_teardown(a_reader_that_never_reads_is_told_only_so_much, ends_make, ends_remove),
		cmocka_unit_test_setup_teardown(what_was_not_sent_is_handed_back_in_order, ends_make, ends_remove),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The auditor: its callbacks on a plain file, and the whole role in its own process on a real event ring (as root). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "audit_json.h"
#include "daemon/role_auditor.h"

#define SECOND 1000000000ULL

static const struct auditor_config config = {.epoch = 1, .host_id = "deadbeef", .host_name = "h", .version = "0.1.0"};

/* ---- reading the log back ---- */

struct log {
	char *text;
	json_t *lines[4096];
	size_t n;
};

static void log_free(struct log *log)
{
	for (size_t i = 0; i < log->n; i++)
		json_decref(log->lines[i]);
	free(log->text);
	*log = (struct log){0};
}

static void log_read(struct log *log, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *at, *end;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	*log = (struct log){.text = malloc((size_t)st.st_size + 1)};
	assert_int_equal(read(fd, log->text, (size_t)st.st_size), st.st_size);
	close(fd);
	for (at = log->text; at < log->text + st.st_size; at = end + 1) {
		end = memchr(at, '\n', (size_t)(log->text + st.st_size - at));
		assert_non_null(end);
		assert_true(log->n < sizeof(log->lines) / sizeof(*log->lines));
		log->lines[log->n++] = audit_parse(at, (size_t)(end - at) + 1);
	}
}

static const char *action(const struct log *log, size_t i)
{
	return json_string_value(audit_get(log->lines[i], "event.action"));
}

static int temporary(char path[64])
{
	int fd;

	strcpy(path, "/tmp/bulkhead-audit-XXXXXX");
	fd = mkostemp(path, O_APPEND | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* ---- callbacks ---- */

static void each_event_is_a_line_and_counted(void **state)
{
	struct bh_event event = {.subject = 16, .peer = BH_ID_WORLD, .count = 1, .reason = BH_REASON_NO_FLOW};
	struct ipc_audit_name name = {{IPC_AUDIT_NAME, sizeof(name)}, 16, 0, "spiffe://a/b"};
	struct ipc_notice notice = {.h = {IPC_AUDIT_NOTICE, sizeof(notice)}, .kind = NOTICE_POLICY_APPLIED};
	struct bh_counters counters = {0};
	struct auditor *auditor;
	struct log log;
	char path[64], second[64];

	(void)state;
	assert_int_equal(auditor_new(&auditor, -1, &counters, -1, &config), 0);
	auditor_set_log(auditor, temporary(path));
	assert_int_equal(auditor_packet(auditor, &name, IPC_AUDIT_NAME, -1), 0);
	assert_int_equal(auditor_event(auditor, &event, sizeof(event)), 0);
	assert_int_equal(auditor_packet(auditor, &notice, IPC_AUDIT_NOTICE, -1), 0);
	/* Rotation: the next line goes to the new file. */
	assert_int_equal(auditor_packet(auditor, &notice, IPC_AUDIT_LOG, temporary(second)), 0);
	assert_int_equal(auditor_event(auditor, &event, sizeof(event)), 0);
	assert_int_equal(auditor_packet(auditor, &notice, 9999, -1), -EBADMSG);
	assert_int_equal(auditor_packet(auditor, &notice, IPC_AUDIT_LOG, -1), -EBADMSG);
	assert_int_equal(counters.events_written, 2);
	assert_int_equal(counters.notices_written, 1);
	assert_int_equal(counters.events_lost + counters.notices_lost, 0);
	log_read(&log, path);
	assert_int_equal(log.n, 2);
	assert_string_equal(action(&log, 0), "flow-denied");
	assert_number(log.lines[0], "event.sequence", 1);
	assert_string_equal(action(&log, 1), "policy-applied");
	assert_number(log.lines[1], "event.sequence", 2);
	log_free(&log);
	log_read(&log, second);
	assert_int_equal(log.n, 1);
	assert_number(log.lines[0], "event.sequence", 3);
	log_free(&log);
	auditor_freep(&auditor);
	unlink(path);
	unlink(second);
}

static void half_a_line_of_a_crash_is_ended_first(void **state)
{
	struct bh_event event = {.count = 1};
	struct bh_counters counters = {0};
	struct auditor *auditor;
	char path[64], text[4096] = "";
	int fd;

	(void)state;
	assert_int_equal(auditor_new(&auditor, -1, &counters, -1, &config), 0);
	fd = temporary(path);
	assert_int_equal(write(fd, "{\"torn", 6), 6);
	auditor_set_log(auditor, fd);
	auditor_event(auditor, &event, sizeof(event));
	assert_true(pread(fd, text, sizeof(text) - 1, 0) > 0);
	assert_memory_equal(text, "{\"torn\n{\"@timestamp", 19);
	auditor_freep(&auditor);
	unlink(path);
}

/* A file system of a few pages fills up in the middle of a line. */
static void losses_on_a_full_disk_are_summed_exactly(void **state)
{
	struct bh_event event = {.count = 1, .subject = BH_ID_UNIDENTIFIED};
	struct ipc_notice notice = {.h = {IPC_AUDIT_NOTICE, sizeof(notice)}, .kind = NOTICE_ROLE_RESTARTED};
	struct bh_counters counters = {.events_lost = 5, .events_lost_reported = 3};
	char dir[] = "/tmp/bulkhead-full-XXXXXX", path[64], filler[64];
	uint64_t lost[4] = {0}, written = 0, log_file;
	struct auditor *auditor;
	struct log log;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	if (mount("tmpfs", dir, "tmpfs", MS_NOSUID | MS_NODEV, "size=96k") < 0) {
		rmdir(dir);
		skip();
	}
	snprintf(path, sizeof(path), "%s/audit.jsonl", dir);
	snprintf(filler, sizeof(filler), "%s/filler", dir);
	fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(posix_fallocate(fd, 0, 32768), 0);
	close(fd);
	assert_int_equal(auditor_new(&auditor, -1, &counters, -1, &config), 0);
	auditor_set_log(auditor, open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
	for (int i = 0; i < 200; i++)
		auditor_event(auditor, &event, sizeof(event));
	auditor_packet(auditor, &notice, IPC_AUDIT_NOTICE, -1);
	counters.events_lost += 7; /* the kernel, meanwhile */
	written = counters.events_written;
	assert_true(written > 30 && written < 200);
	/* The one that the end of the disk cut is not decided yet. */
	assert_int_equal(written + counters.events_lost, 200 + 5 + 7 - 1);
	log_file = counters.events_lost - 5 - 7;
	assert_int_equal(counters.notices_lost, 1);
	auditor_report_losses(auditor, SECOND);
	assert_int_equal(counters.events_lost_reported, 3);
	unlink(filler);
	auditor_report_losses(auditor, SECOND);
	auditor_event(auditor, &event, sizeof(event));
	counters.events_lost += 2;
	auditor_report_losses(auditor, SECOND + SECOND / 2); /* too soon */
	log_read(&log, path);				     /* every line is whole */
	for (size_t i = 0; i < log.n; i++) {
		const char *stage = json_string_value(audit_get(log.lines[i], "zt.lost.stage"));
		uint64_t n = (uint64_t)json_integer_value(audit_get(log.lines[i], "zt.lost.count"));

		if (!stage)
			continue;
		if (!strcmp(json_string_value(audit_get(log.lines[i], "zt.lost.what")), "notice"))
			lost[3] += n;
		else
			lost[!strcmp(stage, "kernel-ring") ? 0 : !strcmp(stage, "log-file") ? 1 : 2] += n;
	}
	log_free(&log);
	assert_int_equal(lost[0], 7);
	assert_int_equal(counters.events_written, written + 2);
	assert_int_equal(lost[1], log_file);
	assert_int_equal(lost[2], 2);
	assert_int_equal(lost[3], 1);
	assert_int_equal(counters.events_lost - counters.events_lost_reported, 2);
	auditor_report_losses(auditor, 2 * SECOND);
	assert_int_equal(counters.events_lost, counters.events_lost_reported);
	log_read(&log, path);
	assert_int_equal(log.n, counters.events_written + counters.notices_written);
	assert_int_equal(counters.notices_made, counters.notices_written);
	log_free(&log);
	auditor_freep(&auditor);
	umount(dir);
	rmdir(dir);
}

/* ---- the role on a real ring ---- */

struct kernel {
	int ring, counters, value, prog;
	struct bh_event *event; /* what the next run of the program puts into the ring */
	struct bh_counters *count;
};

static int mmapable(const char *name, uint32_t size, void **addressp)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, name, 4, size, 1, &opts);

	if (fd >= 0)
		*addressp = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return fd;
}

/* A program that puts the event, as it stands in its map, into the ring, and counts it as the datapath does. */
static bool kernel_new(struct kernel *k)
{
	k->ring = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "t_ring", 0, 0, 4096, NULL);
	k->counters = mmapable("t_counters", sizeof(struct bh_counters), (void **)&k->count);
	k->value = mmapable("t_event", sizeof(struct bh_event), (void **)&k->event);
	if (k->ring < 0 || k->counters < 0 || k->value < 0)
		return false;
	struct bpf_insn insns[] = {
		{.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = k->ring},
		{0},
		{.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 2, .src_reg = BPF_PSEUDO_MAP_VALUE, .imm = k->value},
		{0},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = sizeof(struct bh_event)},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 4},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_ringbuf_output},
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 6, .src_reg = 0},
		{.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_VALUE, .imm = k->counters},
		{0},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .imm = 1},
		{.code = BPF_STX | BPF_ATOMIC | BPF_DW,
		 .dst_reg = 1,
		 .src_reg = 2,
		 .off = offsetof(struct bh_counters, events_made),
		 .imm = BPF_ADD},
		{.code = BPF_JMP | BPF_JEQ | BPF_K, .dst_reg = 6, .off = 1},
		{.code = BPF_STX | BPF_ATOMIC | BPF_DW,
		 .dst_reg = 1,
		 .src_reg = 2,
		 .off = offsetof(struct bh_counters, events_lost),
		 .imm = BPF_ADD},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	k->prog = bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, "t_emit", "GPL", insns, sizeof(insns) / sizeof(*insns),
				NULL);
	return k->prog >= 0;
}

static void emit(struct kernel *k, int repeat)
{
	char packet[64] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet, .data_size_in = sizeof(packet), .repeat = repeat);

	assert_int_equal(bpf_prog_test_run_opts(k->prog, &opts), 0);
}

static uint64_t load(const __u64 *counter)
{
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static void await(const __u64 *counter, uint64_t value)
{
	for (int i = 0; i < 10000 && load(counter) < value; i++)
		poll(NULL, 0, 1);
	assert_int_equal(load(counter), value);
}

static uint32_t answer(int sock)
{
	char packet[IPC_MAX_PACKET];
	struct pollfd p = {.fd = sock, .events = POLLIN};
	int fd;

	assert_int_equal(poll(&p, 1, 10000), 1);
	return (uint32_t)ipc_receive(sock, packet, &fd);
}

static void the_role_writes_all_of_a_real_ring_and_ends_with_the_enforcer(void **state)
{
	struct ipc_audit_name name = {{IPC_AUDIT_NAME, sizeof(name)}, 16, 0, "spiffe://prod.example/web"};
	struct ipc_notice notice = {.h = {IPC_AUDIT_NOTICE, sizeof(notice)}, .kind = NOTICE_DAEMON_STARTED};
	struct ipc_header log_packet = {IPC_AUDIT_LOG, sizeof(log_packet)}, ping = {IPC_PING, sizeof(ping)};
	int sock[2], log_fd, cgroup, status;
	struct kernel k = {0};
	struct timespec now;
	struct log log;
	char path[64];
	pid_t pid;

	(void)state;
	if (geteuid() != 0 || !kernel_new(&k))
		skip();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock), 0);
	cgroup = open("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	log_fd = temporary(path);
	pid = fork();
	if (!pid) {
		close(sock[0]);
		_exit(role_auditor_main(sock[1], k.ring, k.counters, cgroup, &config));
	}
	close(sock[1]);
	assert_int_equal(answer(sock[0]), IPC_READY);

	/* Before there is a log, events wait. */
	clock_gettime(CLOCK_BOOTTIME, &now);
	*k.event = (struct bh_event){
		.time_ns = (uint64_t)now.tv_sec * SECOND, .subject = 16, .peer = BH_ID_WORLD, .count = 1, .proto = 6};
	emit(&k, 10);
	assert_int_equal(load(&k.count->events_written), 0);
	assert_int_equal(ipc_send(sock[0], &name, -1), 0);
	assert_int_equal(ipc_send(sock[0], &log_packet, log_fd), 0);
	await(&k.count->events_written, 10);
	assert_int_equal(ipc_send(sock[0], &ping, -1), 0);
	assert_int_equal(answer(sock[0]), IPC_PING);
	assert_int_equal(ipc_send(sock[0], &notice, -1), 0);
	await(&k.count->notices_written, 1);

	/* More at once than the ring holds: some are lost in the kernel, and the log says how many. */
	kill(pid, SIGSTOP);
	emit(&k, 500);
	assert_true(load(&k.count->events_lost) > 400);
	kill(pid, SIGTERM); /* meant for the daemon as a whole: the auditor stays to the end */
	kill(pid, SIGCONT);
	await(&k.count->events_lost_reported, load(&k.count->events_lost));

	/* The last events before the enforcer is gone are still written. */
	kill(pid, SIGSTOP);
	emit(&k, 5);
	close(sock[0]);
	kill(pid, SIGCONT);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(load(&k.count->events_made), 515);
	assert_int_equal(load(&k.count->events_written) + load(&k.count->events_lost), 515);
	log_read(&log, path);
	assert_int_equal(log.n, load(&k.count->events_written) + load(&k.count->notices_written));
	assert_text(log.lines[0], "zt.destination.kind", "world");
	assert_text(log.lines[5], "user.id", "spiffe://prod.example/web");
	for (size_t i = 0; i < log.n; i++)
		assert_number(log.lines[i], "event.sequence", (long long)i + 1);
	log_free(&log);
	unlink(path);
	close(log_fd);
}

/* No pass or fail: prints what one core writes to a file. */
static void throughput(void **state)
{
	struct bh_event event = {
		.subject = 16, .peer = 17, .count = 1, .proto = 6, .cgroup = 1, .verdict = 1, .rule = 1};
	struct ipc_audit_name name = {{IPC_AUDIT_NAME, sizeof(name)}, 16, 0, "spiffe://prod.example/ns/shop/sa/web"};
	struct bh_counters counters = {0};
	struct timespec start, end;
	struct auditor *auditor;
	char path[64];
	double seconds;

	(void)state;
	assert_int_equal(auditor_new(&auditor, -1, &counters, -1, &config), 0);
	auditor_set_log(auditor, temporary(path));
	auditor_packet(auditor, &name, IPC_AUDIT_NAME, -1);
	name.identity = 17;
	auditor_packet(auditor, &name, IPC_AUDIT_NAME, -1);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int i = 0; i < 50000; i++) {
		event.time_ns = (uint64_t)i * 10000;
		event.src.w[3] = (uint32_t)i + 1;
		event.dst.w[3] = 1;
		auditor_event(auditor, &event, sizeof(event));
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_int_equal(counters.events_written, 50000);
	seconds = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
	print_message("%.0f events/s\n", 50000 / seconds);
	auditor_freep(&auditor);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_event_is_a_line_and_counted),
		cmocka_unit_test(half_a_line_of_a_crash_is_ended_first),
		cmocka_unit_test(losses_on_a_full_disk_are_summed_exactly),
		cmocka_unit_test(the_role_writes_all_of_a_real_ring_and_ends_with_the_enforcer),
		cmocka_unit_test(throughput),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

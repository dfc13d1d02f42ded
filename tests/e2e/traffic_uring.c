/* SPDX-License-Identifier: Apache-2.0 */
/* One message, by ways to a socket that are not the usual system calls. */
#include <errno.h>
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "traffic.h"

#define ENTRIES 8

struct ring {
	int fd;
	unsigned flags;
	unsigned *sq_tail, *sq_mask, *sq_array, *sq_flags;
	unsigned *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static int ring_open(struct ring *ring, bool sqpoll)
{
	struct io_uring_params params = {.flags = sqpoll ? IORING_SETUP_SQPOLL : 0, .sq_thread_idle = 1000};
	size_t size;
	char *at;

	ring->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &params);
	if (ring->fd < 0)
		return -errno;
	if (!(params.features & IORING_FEAT_SINGLE_MMAP))
		return -ENOSYS;
	size = params.sq_off.array + params.sq_entries * sizeof(unsigned);
	if (size < params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe))
		size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
	ring->sqes = mmap(NULL, params.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES);
	if (at == MAP_FAILED || ring->sqes == MAP_FAILED)
		return -errno;
	ring->flags = params.flags;
	ring->sq_tail = (unsigned *)(at + params.sq_off.tail);
	ring->sq_mask = (unsigned *)(at + params.sq_off.ring_mask);
	ring->sq_array = (unsigned *)(at + params.sq_off.array);
	ring->sq_flags = (unsigned *)(at + params.sq_off.flags);
	ring->cq_head = (unsigned *)(at + params.cq_off.head);
	ring->cq_tail = (unsigned *)(at + params.cq_off.tail);
	ring->cq_mask = (unsigned *)(at + params.cq_off.ring_mask);
	ring->cqes = (struct io_uring_cqe *)(at + params.cq_off.cqes);
	return 0;
}

/* Has one operation done. Returns its result; -ETIME if it has none by then. */
static int ring_do(struct ring *ring, const struct io_uring_sqe *sqe, uint64_t timeout_ms)
{
	uint64_t deadline = now_ns() + timeout_ms * 1000000U;
	unsigned tail = *ring->sq_tail, slot = tail & *ring->sq_mask, head = *ring->cq_head;
	unsigned enter = 0, submit = 1;
	struct pollfd pfd = {.fd = ring->fd, .events = POLLIN};
	int result;

	ring->sqes[slot] = *sqe;
	ring->sq_array[slot] = slot;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (ring->flags & IORING_SETUP_SQPOLL) {
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		submit = 0;
		if (__atomic_load_n(ring->sq_flags, __ATOMIC_ACQUIRE) & IORING_SQ_NEED_WAKEUP)
			enter = IORING_ENTER_SQ_WAKEUP;
	}
	if ((submit || enter) && syscall(SYS_io_uring_enter, ring->fd, 1, 0, enter, NULL, 0) < 0)
		return -errno;
	while (__atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE) == head) {
		uint64_t now = now_ns();

		if (now >= deadline)
			return -ETIME;
		poll(&pfd, 1, (int)((deadline - now) / 1000000U) + 1);
	}
	result = ring->cqes[head & *ring->cq_mask].res;
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return result;
}

static int report(const char *step, int result)
{
	emit("outcome", "\"step\": \"%s\", \"result\": \"%s\"", step, result < 0 ? errno_name(-result) : "ok");
	return result < 0;
}

/* Opens a socket, connects or names the destination, and sends, all through the ring. */
static int uring(const struct options *options, int type)
{
	struct iovec iov = {(void *)(uintptr_t)options->text, strlen(options->text)};
	struct endpoint to = options->to;
	struct msghdr msg = {.msg_name = &to.addr, .msg_namelen = to.len, .msg_iov = &iov, .msg_iovlen = 1};
	struct io_uring_sqe make = {.opcode = IORING_OP_SOCKET, .fd = to.addr.ss_family, .off = (uint64_t)type};
	struct io_uring_sqe connect = {.opcode = IORING_OP_CONNECT, .addr = (uintptr_t)&to.addr, .off = to.len};
	struct io_uring_sqe send = {
		.opcode = IORING_OP_SEND, .addr = (uintptr_t)iov.iov_base, .len = (unsigned)iov.iov_len};
	struct io_uring_sqe sendmsg = {.opcode = IORING_OP_SENDMSG, .addr = (uintptr_t)&msg, .len = 1};
	struct ring ring;
	int r = ring_open(&ring, options->sqpoll), fd;

	if (r < 0)
		return report("setup", r);
	fd = ring_do(&ring, &make, options->timeout_ms);
	if (fd < 0)
		return report("socket", fd);
	if (type == SOCK_DGRAM) {
		sendmsg.fd = fd;
		return report("sendmsg", ring_do(&ring, &sendmsg, options->timeout_ms));
	}
	connect.fd = send.fd = fd;
	r = ring_do(&ring, &connect, options->timeout_ms);
	if (r < 0)
		return report("connect", r);
	return report("send", ring_do(&ring, &send, options->timeout_ms));
}

int uring_tcp(const struct options *options)
{
	return uring(options, SOCK_STREAM);
}

int uring_udp(const struct options *options)
{
	return uring(options, SOCK_DGRAM);
}

/* Three datagrams with one system call. */
int udp_mmsg(const struct options *options)
{
	struct iovec iov = {(void *)(uintptr_t)options->text, strlen(options->text)};
	struct endpoint to = options->to;
	struct mmsghdr msgs[3];
	int fd = socket_or_die(&to, SOCK_DGRAM, 0), n;

	for (size_t i = 0; i < 3; i++)
		msgs[i] = (struct mmsghdr){
			.msg_hdr = {.msg_name = &to.addr, .msg_namelen = to.len, .msg_iov = &iov, .msg_iovlen = 1}};
	n = sendmmsg(fd, msgs, 3, 0);
	return report("sendmmsg", n < 0 ? -errno : n < 3 ? -EIO : 0);
}

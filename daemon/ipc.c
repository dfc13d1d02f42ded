/* SPDX-License-Identifier: Apache-2.0 */
#include "ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum fd_rule {
	FD_NONE,
	FD_MAYBE,
	FD_MUST,
};

/* A char array of a packet, which must hold a NUL. */
struct text {
	size_t at;
	size_t size;
	bool said; /* to people, by a role that reads what strangers wrote */
};

#define IPC_MAX_TEXTS 9

struct shape {
	enum ipc_type type;
	size_t size;
	enum fd_rule fd;
	struct text texts[IPC_MAX_TEXTS]; /* up to the first of size 0 */
};

#define TEXT(structure, field)                                                                                         \
	{                                                                                                              \
		offsetof(struct structure, field), sizeof(((struct structure *)0)->field), false                       \
	}
#define SAID(structure, field)                                                                                         \
	{                                                                                                              \
		offsetof(struct structure, field), sizeof(((struct structure *)0)->field), true                        \
	}

static const struct shape shapes[] = {
	{IPC_BUNDLE, sizeof(struct ipc_bundle), FD_MAYBE, {TEXT(ipc_bundle, trust_domain)}},
	{IPC_TAG_REPLY, sizeof(struct ipc_tag_reply), FD_NONE, {TEXT(ipc_tag_reply, text)}},
	{IPC_PEER_FACTS, sizeof(struct ipc_peer_facts), FD_MAYBE, {{0, 0, false}}},
	{IPC_SVID_FILES, sizeof(struct ipc_svid_files), FD_MUST, {{0, 0, false}}},
	{IPC_SVID_PROVED,
	 sizeof(struct ipc_tag_request),
	 FD_NONE,
	 {SAID(ipc_tag_request, spiffe_id), SAID(ipc_tag_request, trust_domain), SAID(ipc_tag_request, serial),
	  SAID(ipc_tag_request, issuer), SAID(ipc_tag_request, text), SAID(ipc_tag_request, device)}},
	{IPC_PEER_QUERY, sizeof(struct ipc_peer_query), FD_MUST, {{0, 0, false}}},
	{IPC_BUNDLE_LOADED,
	 sizeof(struct ipc_bundle_loaded),
	 FD_NONE,
	 {TEXT(ipc_bundle_loaded, trust_domain), SAID(ipc_bundle_loaded, why)}},
	{IPC_BUNDLE_AUTHORITY,
	 sizeof(struct ipc_bundle_authority),
	 FD_NONE,
	 {TEXT(ipc_bundle_authority, trust_domain), SAID(ipc_bundle_authority, subject),
	  SAID(ipc_bundle_authority, key_id)}},
	{IPC_BUNDLE_ENTRY,
	 sizeof(struct ipc_bundle_entry),
	 FD_NONE,
	 {TEXT(ipc_bundle_entry, trust_domain), SAID(ipc_bundle_entry, text)}},
	{IPC_VOUCH, sizeof(struct ipc_vouch), FD_NONE, {{0, 0, false}}},
	{IPC_TAG_ENDED, sizeof(struct ipc_tag_ended), FD_NONE, {{0, 0, false}}},
	{IPC_TAG_REQUEST,
	 sizeof(struct ipc_tag_request),
	 FD_MUST,
	 {SAID(ipc_tag_request, spiffe_id), SAID(ipc_tag_request, trust_domain), SAID(ipc_tag_request, serial),
	  SAID(ipc_tag_request, issuer), SAID(ipc_tag_request, text), SAID(ipc_tag_request, device)}},
	{IPC_ATTEST_REFUSED,
	 sizeof(struct ipc_tag_request),
	 FD_NONE,
	 {SAID(ipc_tag_request, spiffe_id), SAID(ipc_tag_request, trust_domain), SAID(ipc_tag_request, serial),
	  SAID(ipc_tag_request, issuer), SAID(ipc_tag_request, text), SAID(ipc_tag_request, device)}},
	{IPC_AUDIT_LOG, sizeof(struct ipc_header), FD_MUST, {{0, 0, false}}},
	{IPC_AUDIT_IMAGE, sizeof(struct ipc_audit_image), FD_MUST, {{0, 0, false}}},
	{IPC_AUDIT_NAME, sizeof(struct ipc_audit_name), FD_NONE, {TEXT(ipc_audit_name, name)}},
	{IPC_AUDIT_DEVICE, sizeof(struct ipc_audit_device), FD_NONE, {TEXT(ipc_audit_device, name)}},
	{IPC_AUDIT_NOTICE,
	 sizeof(struct ipc_notice),
	 FD_NONE,
	 {TEXT(ipc_notice, spiffe_id), TEXT(ipc_notice, cgroup_path), TEXT(ipc_notice, serial),
	  TEXT(ipc_notice, issuer), TEXT(ipc_notice, digest), TEXT(ipc_notice, text), TEXT(ipc_notice, via),
	  TEXT(ipc_notice, from), TEXT(ipc_notice, other_path)}},
	{IPC_AUDIT_STATE, sizeof(struct ipc_audit_state), FD_NONE, {{0, 0, false}}},
	{IPC_METRICS_ASK, sizeof(struct ipc_header), FD_NONE, {{0, 0, false}}},
	{IPC_METRICS, sizeof(struct ipc_header), FD_MUST, {{0, 0, false}}},
	{IPC_READY, sizeof(struct ipc_header), FD_NONE, {{0, 0, false}}},
	{IPC_PING, sizeof(struct ipc_header), FD_NONE, {{0, 0, false}}},
	{IPC_FETCH,
	 sizeof(struct ipc_fetch),
	 FD_MAYBE,
	 {TEXT(ipc_fetch, url), TEXT(ipc_fetch, ca_file), TEXT(ipc_fetch, endpoint_spiffe_id)}},
	{IPC_WORKLOAD_WATCH, sizeof(struct ipc_workload_watch), FD_NONE, {TEXT(ipc_workload_watch, path)}},
	{IPC_FETCHED, sizeof(struct ipc_fetched), FD_MAYBE, {SAID(ipc_fetched, why)}},
	{IPC_WORKLOAD_BUNDLE, sizeof(struct ipc_workload_bundle), FD_MUST, {TEXT(ipc_workload_bundle, trust_domain)}},
	{IPC_WORKLOAD_STATE, sizeof(struct ipc_workload_state), FD_NONE, {SAID(ipc_workload_state, why)}},
};

_Static_assert(sizeof(struct ipc_notice) <= IPC_MAX_PACKET, "IPC_MAX_PACKET");
_Static_assert(sizeof(struct ipc_tag_request) <= IPC_MAX_PACKET, "IPC_MAX_PACKET");

static void fd_closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static const struct shape *shape_find(uint32_t type)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		if (shapes[i].type == type)
			return &shapes[i];
	}
	return NULL;
}

static bool shape_matches(const uint8_t *packet, size_t len, bool with_fd)
{
	const struct ipc_header *header = (const struct ipc_header *)packet;
	const struct shape *shape;

	if (len < sizeof(*header) || header->len != len)
		return false;
	shape = shape_find(header->type);
	if (shape == NULL || shape->size != len)
		return false;
	if ((with_fd && shape->fd == FD_NONE) || (!with_fd && shape->fd == FD_MUST))
		return false;
	for (size_t i = 0; i < IPC_MAX_TEXTS && shape->texts[i].size > 0; i++) {
		if (memchr(packet + shape->texts[i].at, '\0', shape->texts[i].size) == NULL)
			return false;
	}
	return true;
}

/* Here and not where they are made: who took over a role would leave it out, and a terminal or a log obeys what it is sent. */
static void make_printable(uint8_t *packet)
{
	const struct shape *shape = shape_find(((const struct ipc_header *)packet)->type);

	for (size_t i = 0; i < IPC_MAX_TEXTS && shape->texts[i].size > 0; i++) {
		for (uint8_t *c = packet + shape->texts[i].at; shape->texts[i].said && *c != '\0'; c++) {
			if (*c < ' ' || *c > '~')
				*c = '?';
		}
	}
}

int ipc_send(int sock, const void *packet, int fd)
{
	const struct ipc_header *header = packet;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)packet, .iov_len = header->len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (fd >= 0) {
		struct cmsghdr *cmsg = &control.align;

		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	}
	do {
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int ipc_send_wait(int sock, const void *packet, int fd)
{
	struct pollfd room = {.fd = sock, .events = POLLOUT};
	int r;

	while ((r = ipc_send(sock, packet, fd)) == -EAGAIN)
		if (poll(&room, 1, -1) < 0 && errno != EINTR)
			return -errno;
	return r;
}

/* Takes the first descriptor and closes any other; two fit where alignment leaves room. Returns how many came. */
static unsigned take_fds(struct msghdr *msg, int *fdp)
{
	unsigned count = 0;

	*fdp = -1;
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
			if (count++ == 0)
				*fdp = fd;
			else
				close(fd);
		}
	}
	return count;
}

int ipc_receive(int sock, void *buf, int *fdp)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(4 * sizeof(int))]; /* room to see, and close, more than the one allowed */
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = IPC_MAX_PACKET};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	__attribute__((cleanup(fd_closep))) int fd = -1;
	unsigned fds;
	ssize_t n;

	*fdp = -1;
	do {
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	fds = take_fds(&msg, &fd);
	if (n == 0 && fds == 0)
		return 0;
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || fds > 1 || !shape_matches(buf, (size_t)n, fds == 1))
		return -EBADMSG;
	make_printable(buf);
	*fdp = fd;
	fd = -1;
	return (int)((const struct ipc_header *)buf)->type;
}

static int write_all(int fd, const void *bytes, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const char *)bytes + done, len - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

/* pwrite() leaves the offset at 0. */
int ipc_memfd(const char *name, const void *bytes, size_t len)
{
	__attribute__((cleanup(fd_closep))) int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int taken, r;

	if (fd < 0)
		return -errno;
	r = write_all(fd, bytes, len);
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return -errno;
	taken = fd;
	fd = -1;
	return taken;
}

bool ipc_memfd_is_sealed(int fd)
{
	const int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & wanted) == wanted;
}

static void freep(void *p)
{
	free(*(void **)p);
}

/* Copies: what is checked is then what is used, whether or not the sender sealed it. */
int ipc_memfd_read(int fd, size_t max, void **bytesp, size_t *lenp)
{
	__attribute__((cleanup(freep))) char *bytes = NULL;
	struct stat st;
	size_t len, done = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < 0)
		return -EBADMSG;
	if ((uintmax_t)st.st_size > max)
		return -EFBIG;
	len = (size_t)st.st_size;
	bytes = malloc(len + 1);
	if (bytes == NULL)
		return -ENOMEM;
	while (done < len) {
		ssize_t n = pread(fd, bytes + done, len - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG; /* it shrank meanwhile */
		done += (size_t)n;
	}
	bytes[len] = '\0';
	*bytesp = bytes;
	*lenp = len;
	bytes = NULL;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "attest_message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "identity/process.h"

static void take_control(struct attest_message *message, struct msghdr *msg)
{
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cmsg->cmsg_level != SOL_SOCKET)
			continue;
		if (cmsg->cmsg_type == PROCESS_SCM_PIDFD && n == 1)
			memcpy(&message->pidfd, CMSG_DATA(cmsg), sizeof(int));
		if (cmsg->cmsg_type == SCM_CREDENTIALS && cmsg->cmsg_len == CMSG_LEN(sizeof(struct ucred))) {
			struct ucred credentials;

			memcpy(&credentials, CMSG_DATA(cmsg), sizeof(credentials));
			message->pid = credentials.pid;
		}
		if (cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		message->rights = true;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
			close(fd);
		}
	}
}

int attest_message_receive(int sock, uint8_t *buffer, size_t size, struct attest_message *message)
{
	union {
		struct cmsghdr align;
		char bytes[512];
	} control;
	struct iovec iov = {.iov_base = buffer, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return -errno;
	*message = (struct attest_message){.len = (size_t)n, .pidfd = -ENOPROTOOPT};
	message->truncated = (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
	take_control(message, &msg);
	if (n == 0 && message->pidfd >= 0) {
		close(message->pidfd);
		message->pidfd = -ENOPROTOOPT;
	}
	return n > 0;
}

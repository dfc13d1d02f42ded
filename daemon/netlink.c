// SPDX-License-Identifier: Apache-2.0
#include "netlink.h"

#include <errno.h>
#include <sys/socket.h>

struct mnl_socket *netlink_open(int protocol)
{
	struct mnl_socket *nl = mnl_socket_open2(protocol, SOCK_CLOEXEC);

	if (nl && mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		int err = errno;

		mnl_socket_close(nl);
		errno = err;
		return NULL;
	}
	return nl;
}

void netlink_closep(struct mnl_socket **nlp)
{
	if (*nlp)
		mnl_socket_close(*nlp);
}

int netlink_exchange(struct mnl_socket *nl, const struct nlmsghdr *request, mnl_cb_t callback, void *data)
{
	char buf[65536];
	int r;

	if (mnl_socket_sendto(nl, request, request->nlmsg_len) < 0)
		return -errno;
	do {
		ssize_t n = mnl_socket_recvfrom(nl, buf, sizeof(buf));

		if (n < 0)
			return -errno;
		r = mnl_cb_run(buf, (size_t)n, 0, mnl_socket_get_portid(nl), callback, data);
	} while (r > MNL_CB_STOP);
	return r < 0 ? -errno : 0;
}

// SPDX-License-Identifier: Apache-2.0
#include "netlink.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
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

int netlink_sockets_list(struct mnl_socket *nl, uint8_t protocol, uint32_t states, mnl_cb_t callback, void *data)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	int r = 0;

	for (size_t i = 0; i < sizeof(families) && r == 0; i++) {
		char buf[MNL_NLMSG_HDRLEN + sizeof(struct inet_diag_req_v2) + 16];
		struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
		struct inet_diag_req_v2 *req;

		nlh->nlmsg_type = SOCK_DIAG_BY_FAMILY;
		nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
		req = mnl_nlmsg_put_extra_header(nlh, sizeof(*req));
		req->sdiag_family = families[i];
		req->sdiag_protocol = protocol;
		req->idiag_states = states;
		r = netlink_exchange(nl, nlh, callback, data);
	}
	return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * netlink.h - one question and its answers over a netlink socket.
 */
#ifndef BULKHEAD_DAEMON_NETLINK_H
#define BULKHEAD_DAEMON_NETLINK_H

#include <libmnl/libmnl.h>

/* Opens a socket in the network namespace of the caller. Returns NULL with errno set. */
struct mnl_socket *netlink_open(int protocol);
void netlink_closep(struct mnl_socket **nlp);
/* Sends a request and calls `callback` (may be NULL) for each message of the answer. Returns 0 or -errno: a fault, or the
 * error that the kernel answers with. */
int netlink_exchange(struct mnl_socket *nl, const struct nlmsghdr *request, mnl_cb_t callback, void *data);

#endif

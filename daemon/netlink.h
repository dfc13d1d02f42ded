/* SPDX-License-Identifier: Apache-2.0 */
/*
 * netlink.h - one question and its answers over a netlink socket.
 */
#ifndef BULKHEAD_DAEMON_NETLINK_H
#define BULKHEAD_DAEMON_NETLINK_H

#include <libmnl/libmnl.h>
#include <stdint.h>

/* Opens a socket in the network namespace of the caller. Returns NULL with errno set. */
struct mnl_socket *netlink_open(int protocol);
void netlink_closep(struct mnl_socket **nlp);
/* Sends a request and calls `callback` (may be NULL) for each message of the answer. Returns 0 or -errno: a fault, or the
 * error that the kernel answers with. */
int netlink_exchange(struct mnl_socket *nl, const struct nlmsghdr *request, mnl_cb_t callback, void *data);
/* Lists the sockets of a protocol (IPPROTO_TCP, IPPROTO_UDP) in the namespace, both families: `callback` gets each as struct
 * inet_diag_msg. `states`: a bit for each TCP_ state. `nl` is one of NETLINK_SOCK_DIAG. Returns as netlink_exchange(). */
int netlink_sockets_list(struct mnl_socket *nl, uint8_t protocol, uint32_t states, mnl_cb_t callback, void *data);

#endif

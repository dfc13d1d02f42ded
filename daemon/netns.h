/* SPDX-License-Identifier: Apache-2.0 */
/*
 * netns.h - work in the network namespaces of the workloads: their addresses, and their sockets.
 *
 * Both are asked of the kernel over netlink, which answers for the namespace of the caller; so the enforcer enters each
 * namespace for the moment of the question. The capability for that is raised only there.
 */
#ifndef BULKHEAD_DAEMON_NETNS_H
#define BULKHEAD_DAEMON_NETNS_H

#include <stdbool.h>

#include "cgroup_tree.h"
#include "datapath.h"

/* Calls `work` in the caller's own namespace and in that of each process in tree->pids; always comes back. A namespace
 * that cannot be entered is skipped (its processes ended meanwhile) or logged. Returns the first fault of `work`, or
 * -errno if there is no way back, after which nothing else may run. */
int netns_each(const struct cgroup_tree *tree, int (*work)(void *ctx), void *ctx);

/* Is the namespace that the caller is in owned by the enforcer's own user namespace? Of a descendant's, somebody is root who is
 * nobody here, and can enter it, move devices and take any address in it. */
bool netns_is_trusted(void);

/* An address that is bound to a managed device. Where a namespace of a workload has it too, that is who is meant. */
struct netns_address {
	struct bh_addr addr;
	uint64_t device; /* BH_DEVICE_BIT and its index */
};

/*
 * Brings the map of addresses up to date with what the namespaces have now. Only namespaces of the enforcer's own user
 * namespace count: in one that a workload made for itself, it can add any address, and so take a stranger's name away or
 * fill the map. The same reason bounds the addresses of one namespace. Where the map is full, nobody is known at the addresses
 * that it has no room for, and what goes there is denied, but not taken for the world: -E2BIG. Returns 0 or -errno.
 */
int netns_addresses_refresh(struct datapath *datapath, const struct cgroup_tree *tree,
			    const struct netns_address *bound, size_t n_bound);

/* The address that a message of the kernel's tells of, and the device that has it; false if it is none, or a loopback one. */
struct nlmsghdr;
bool netns_address_read(const struct nlmsghdr *nlh, struct bh_addr *addr, uint32_t *ifindex);

/* More than a device can be bound with: who has too many shall be seen to. */
#define NETNS_VETH_ADDRESSES 16

/* A veth in the namespace of a workload, whose other end is in the enforcer's own namespace. */
struct netns_veth {
	ino_t netns;
	uint32_t ifindex; /* of the other end */
	uint32_t inside;  /* of this one */
	uint32_t n_addresses;
	struct bh_addr addresses[NETNS_VETH_ADDRESSES];
};

/* Finds those of all namespaces that the enforcer's own user namespace owns: in another, somebody who is nobody here decides who
 * enters it. *vethsp is the caller's to free(), also with a fault. Returns 0, or -errno: some namespaces were not read; -EAGAIN: a
 * process ended before its namespace was entered. */
int netns_veths_read(const struct cgroup_tree *tree, struct netns_veth **vethsp, size_t *np);

/* Judges every TCP socket and connected UDP socket of managed workloads again, with the tables and tags in force, and destroys those that are no
 * longer allowed, so that both ends learn at once. Returns how many, or -errno. */
int netns_sockets_cut(struct datapath *datapath, const struct cgroup_tree *tree);

/* A tag that a policy would make, in the place of what the kernel has for this cgroup. */
struct netns_tag {
	uint64_t cgroup_id;
	struct bh_tag tag;
};

/* What a policy that is not in force yet would make of the sockets there are. */
struct netns_view {
	const uint8_t *tables;
	uint64_t now;		      /* in the unit of these tables (bpf/decide.h) */
	const uint16_t *who;	      /* BH_MAX_IDENTITIES items: who index by identity number */
	const struct netns_tag *tags; /* sorted by cgroup_id */
	size_t n_tags;
};

struct netns_connection {
	struct bh_addr local;
	struct bh_addr remote;
	uint16_t lport;
	uint16_t rport;
};

/* A connection that would be cut, from the end that would not be allowed. */
struct netns_victim {
	struct netns_connection connection;
	uint64_t cgroup_id;
	uint32_t cell; /* the verdict (abi.h) */
	uint8_t kind;  /* BH_SOCK_ACTIVE or BH_SOCK_PASSIVE */
};

/* In: the session that asks, by its sockets and by what its client says of it. Out: what would be cut. */
struct netns_preview {
	const uint64_t *sockets; /* inode numbers, sorted */
	size_t n_sockets;
	struct netns_connection hint; /* lport 0: none */
	/* ---- */
	uint32_t n_cut;
	bool session_known; /* `session`: a connection of one of the sockets */
	struct netns_connection session;
	bool session_cut; /* `victim`: it, or its other end where that is on this host too */
	struct netns_victim victim;
};

/* Judges them as netns_sockets_cut() would under the view, and destroys none. Returns 0, -EAGAIN if processes ended
 * meanwhile (their namespaces are left out), or another -errno. */
int netns_sockets_preview(struct datapath *datapath, const struct cgroup_tree *tree, const struct netns_view *view,
			  struct netns_preview *preview);

/* Endpoints that no socket held when last looked. All 0: none. */
struct netns_stale {
	struct netns_stale_item *items; /* sorted */
	size_t n;
	bool warned;
};

/*
 * Puts UDP endpoints right whose registering socket has not held the port at two calls in a row: a socket that is
 * disconnected loses its port without a hook that could tell, and a port in the wrong name would give its identity to
 * whoever binds it next. Where other sockets hold the place they get it, else it is removed; the kernel makes the endpoint
 * of a live socket again when it sends, so nothing is lost by a wrong guess. Returns how many, or -errno (nothing was
 * done).
 */
int netns_endpoints_clean(struct datapath *datapath, const struct cgroup_tree *tree, struct netns_stale *stale);
void netns_stale_clear(struct netns_stale *stale);

/* A TCP socket that was not found, while something was kept of it. */
struct netns_gone_socket {
	uint64_t cookie;
	unsigned looks; /* in a row */
};

/* Those of the last look. All 0: none. */
struct netns_gone {
	struct netns_gone_socket *sockets; /* sorted by cookie */
	size_t n;
	bool warned;
};

/*
 * Lets go of what the kernel programs keep of TCP sockets that were gone at two calls in a row, and were closed. In a namespace that no
 * workload lives in any more nobody looks, and the kernel may still be sending what a process has left behind: there, only after
 * so many calls that it has long given up. As many it takes where nobody knows whether a process has the socket, which a listener
 * made; and then only where one looks. Returns how many, or -errno (nothing was done).
 */
int netns_connections_clean(struct datapath *datapath, const struct cgroup_tree *tree, struct netns_gone *gone);
void netns_gone_clear(struct netns_gone *gone);

#endif

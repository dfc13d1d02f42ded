/* SPDX-License-Identifier: Apache-2.0 */
/*
 * datapath.h - the kernel side, as the enforcer handles it: programs, links and maps.
 *
 * Everything is pinned below one directory. Opening loads the programs of this build over the maps that are pinned
 * there, or carries over what maps of another layout hold (carry.h); attaching replaces the program of each pinned link in
 * place, which is atomic, or makes the link. So a start, a restart, an upgrade and a downgrade are one path, and none has
 * a moment without enforcement.
 *
 * What a cached verdict rests on is named by one generation, which datapath_changed() raises.
 */
#ifndef BULKHEAD_DAEMON_DATAPATH_H
#define BULKHEAD_DAEMON_DATAPATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/abi.h"
#include "device_link.h"

struct datapath;

struct datapath_config {
	const char *pin_dir;
	int cgroup_fd; /* the managed subtree */
	uint64_t cgroup_id;
	uint32_t subtree_level; /* of the managed subtree in the hierarchy: 0 is the root */
	bool devices;		/* there may be managed devices: without, their programs are not loaded */
	enum device_hook_kind hook_kind;
};

/* Loads programs and opens or makes the maps. *adoptedp: links of an earlier daemon enforce already. Returns 0 or -errno
 * with a sentence in `why`; -EBUSY: another daemon has this pin directory. */
int datapath_open(struct datapath **datapathp, const struct datapath_config *config, bool *adoptedp, char *why,
		  size_t why_size);
/* Puts the loaded programs into force. Returns 0 or -errno; on failure what was in force stays. */
int datapath_attach(struct datapath *datapath, char *why, size_t why_size);
/* Is everything as it was put there: each program on the managed subtree, in its link, and each pin? If not, says what is
 * wrong. */
bool datapath_holds(const struct datapath *datapath, char *why, size_t why_size);
/* Puts everything in its place again: on another directory, after the managed subtree was removed (which detaches
 * everything) and made again, or where somebody detached or replaced a program, or removed pins. What is in place stays. */
int datapath_restore(struct datapath *datapath, int cgroup_fd, uint64_t cgroup_id, char *why, size_t why_size);
/* Removes the pins of maps that nothing enforces with: for a start that failed before anything was attached. */
void datapath_unpin_unused(struct datapath *datapath);
/* Lets go of the descriptors; pins and enforcement stay. */
void datapath_freep(struct datapath **datapathp);

/* Programs by index, for status. Returns the name, or NULL past the end; *attachedp: the kernel still has it on the
 * managed subtree. */
const char *datapath_program(const struct datapath *datapath, size_t index, bool *attachedp);

/* How full a map is. One that evicts gives the place of the oldest entry away, any other takes no more when it is full. */
struct datapath_map {
	const char *name;
	unsigned layout;
	uint32_t max_entries;
	int64_t entries; /* or -errno */
	bool evicts;
};
/* The maps whose entries come and go, by index. Returns false past the end. Counting reads them: not for every packet. */
bool datapath_map(const struct datapath *datapath, size_t index, struct datapath_map *out);

int datapath_ring_fd(const struct datapath *datapath);
int datapath_counters_fd(const struct datapath *datapath);
int datapath_pairs_fd(const struct datapath *datapath);
int datapath_look_tcp_fd(const struct datapath *datapath); /* the program for an iterator over TCP sockets */
int datapath_look_udp_fd(const struct datapath *datapath); /* and over the sums of UDP flows */
int datapath_udp_recent_fd(const struct datapath *datapath);
struct bh_counters *datapath_counters(struct datapath *datapath);

/* ---- the key of the handshake ---- */

/* Another key from now on; connections that are being made are not refused for it. Returns 0 or -errno. */
int datapath_key_rotate(struct datapath *datapath);
uint64_t datapath_key_epoch(const struct datapath *datapath);
uint64_t datapath_key_since(const struct datapath *datapath); /* CLOCK_BOOTTIME ns */

/* ---- policy ---- */

/* Waits until no program looks at the table set that is not in use any more, if one still can: 10 ms or more, which the next
 * swap would else have to wait. */
void datapath_settle(struct datapath *datapath);
/* Fills the table set that is not in use and makes it the one in force, with one store. `who` has BH_MAX_IDENTITIES
 * items: who index by identity number. Returns 0 or -errno (nothing changed). */
int datapath_policy_swap(struct datapath *datapath, const void *tables, size_t len, const uint16_t *who,
			 uint32_t revision);
/* Works out again when the rules of the tables in force end, of which `tables` is the original. Returns 1, 0 (none ends), or
 * -errno. */
int datapath_policy_untils(struct datapath *datapath, const void *tables);
/* Revision in force; 0 if none was ever loaded. */
uint32_t datapath_revision(const struct datapath *datapath);
/* Tables and who indices in force, for judging sockets as the kernel does. `tables` borrowed until the next swap. */
const uint8_t *datapath_tables(const struct datapath *datapath);
uint16_t datapath_who(const struct datapath *datapath, uint32_t identity);
void datapath_who_set(struct datapath *datapath, uint32_t identity, uint16_t who);

/* ---- tags ---- */

int datapath_tag_set(struct datapath *datapath, uint64_t cgroup_id, const struct bh_tag *tag);
int datapath_tag_get(const struct datapath *datapath, uint64_t cgroup_id, struct bh_tag *tag); /* 0 or -ENOENT */
int datapath_tag_delete(struct datapath *datapath, uint64_t cgroup_id);
/* Iterates: `cgroup_id` NULL starts. Returns 0 with *next, or -ENOENT at the end. */
int datapath_tag_next(const struct datapath *datapath, const uint64_t *cgroup_id, uint64_t *next);
/* Who vouches for the identity of a tag; kept beside it. Deleting what is not there is no error. */
int datapath_vouchers_set(struct datapath *datapath, uint64_t cgroup_id, const struct bh_vouchers *vouchers);
int datapath_vouchers_get(const struct datapath *datapath, uint64_t cgroup_id, struct bh_vouchers *vouchers);
int datapath_vouchers_delete(struct datapath *datapath, uint64_t cgroup_id);
/* What a cached verdict rests on has changed: every flow is judged again at its next packet. To be called after each change of a
 * tag, or of who has it, but an extension of its deadline: what the kernel programs keep of a tag counts, under the same word,
 * until the deadline that they have seen. */
void datapath_changed(struct datapath *datapath);

/* Identity numbers: what each stands for, pinned with the tags. */
int datapath_name_set(struct datapath *datapath, uint32_t identity, const struct bh_name *name);
int datapath_name_get(const struct datapath *datapath, uint32_t identity, struct bh_name *name);
int datapath_name_next(const struct datapath *datapath, const uint32_t *identity, uint32_t *next);

/* ---- addresses of network namespaces ---- */

int datapath_address_set(struct datapath *datapath, const struct bh_addr *address, uint64_t netns_cookie);
int datapath_address_delete(struct datapath *datapath, const struct bh_addr *address);
int datapath_address_get(const struct datapath *datapath, const struct bh_addr *address, uint64_t *netns_cookie);
int datapath_address_next(const struct datapath *datapath, const struct bh_addr *address, struct bh_addr *next,
			  uint64_t *netns_cookie);
/* The bits (bh_unlisted_bit()) of the addresses that found no room: BH_UNLISTED_BITS / 64 words, or NULL for none. `add`: beside
 * those that there are. */
void datapath_unlisted_set(struct datapath *datapath, const uint64_t *bits, bool add);

/* ---- managed devices: their places in the map, and the pinned links ---- */

int datapath_device_set(struct datapath *datapath, uint32_t ifindex, const struct bh_device *device);
int datapath_device_get(const struct datapath *datapath, uint32_t ifindex, struct bh_device *device);
int datapath_device_delete(struct datapath *datapath, uint32_t ifindex);
/* Iterates: `ifindex` NULL starts. Returns 0 with *next, or -ENOENT at the end. */
int datapath_device_next(const struct datapath *datapath, const uint32_t *ifindex, uint32_t *next);
/* The pinned link of a hook if it is still on this device, or -ENOENT. */
int datapath_device_link_open(const struct datapath *datapath, uint32_t ifindex, enum device_hook hook);
/* Puts the program of this build on the hook: in the place of the one that *link has, or with a new link, which is pinned; or as a
 * filter, which has no link and no pin. */
int datapath_device_attach(struct datapath *datapath, uint32_t ifindex, enum device_hook hook, int *link);
/* How devices are covered: DEVICE_TCX or DEVICE_CLSACT; DEVICE_AUTO where none are managed. */
enum device_hook_kind datapath_device_kind(const struct datapath *datapath);
/* Are programs of ours on both hooks, of whichever build and kind? */
bool datapath_device_is_ours(const struct datapath *datapath, uint32_t ifindex);
/* It is covered: takes away what an earlier daemon covered it with in the other way. */
void datapath_device_settle(struct datapath *datapath, uint32_t ifindex);
/* Covers a device by filters, whatever the kind. Returns 0 or -errno as device_filter_set(). */
int datapath_device_filters_set(struct datapath *datapath, uint32_t ifindex);
/* Of a device that is to be managed no more, or by links. */
void datapath_device_filters_remove(uint32_t ifindex);
/* Is the link, or filter where there is none (-1), on this hook of this device, with the program of this build in it? */
bool datapath_device_holds(const struct datapath *datapath, uint32_t ifindex, enum device_hook hook, int link);
/* Pins a link again where somebody removed its pin. */
int datapath_device_pin(struct datapath *datapath, uint32_t ifindex, enum device_hook hook, int link);
/* Removes the pins of both hooks: nothing holds the links but open descriptors then. */
void datapath_device_unpin(struct datapath *datapath, uint32_t ifindex);

/* ---- UDP endpoints, as the kernel programs note them ---- */

/* Iterates: `key` NULL starts. *cookie names the registration. Returns 0 or -ENOENT at the end. */
int datapath_endpoint_next(const struct datapath *datapath, const struct bh_endpoint_key *key,
			   struct bh_endpoint_key *next, uint64_t *cookie);
int datapath_endpoint_get(const struct datapath *datapath, const struct bh_endpoint_key *key,
			  struct bh_endpoint *endpoint); /* 0 or -ENOENT */
/* Replaces one that is there. */
int datapath_endpoint_set(struct datapath *datapath, const struct bh_endpoint_key *key,
			  const struct bh_endpoint *endpoint);
int datapath_endpoint_delete(struct datapath *datapath, const struct bh_endpoint_key *key);

/* ---- UDP flows, likewise ---- */

int datapath_udp_flow_get(const struct datapath *datapath, const struct bh_udp_key *key,
			  struct bh_udp_flow *flow); /* 0 or -ENOENT */
int datapath_udp_flow_delete(struct datapath *datapath, const struct bh_udp_key *key);

/* ---- TCP sockets, as the kernel programs note them ---- */

/* By the cookie of the socket. Returns 0 or -ENOENT. */
int datapath_tcp_get(const struct datapath *datapath, uint64_t cookie, struct bh_tcp *tcp);
/* Iterates over those whose slot was taken: `cookie` NULL starts. Returns 0 or -ENOENT at the end. */
int datapath_tcp_more_next(const struct datapath *datapath, const uint64_t *cookie, uint64_t *next);
/* Of slot `index`, below BH_TCP_SLOTS; a cookie of 0 is nobody's. */
void datapath_tcp_slot(const struct datapath *datapath, uint32_t index, struct bh_tcp *tcp);
/* Of a socket that seems to be no more: what is kept of it is let go if no process can use it. Returns 0 or -errno. */
int datapath_tcp_forget(struct datapath *datapath, uint64_t cookie);

#endif

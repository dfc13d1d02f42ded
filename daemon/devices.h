/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices.h - the managed devices: those of the daemon's network namespace whose names fit the configuration.
 *
 * rtnetlink tells of each device as it appears; it is put on a list and covered as soon as the event loop has a turn. To make a
 * link the kernel waits for a grace period, and everything waits that configures the network meanwhile; a filter takes none. So a
 * device that comes is covered by filters at once, and by links, which cost its packets less, when it has stayed for a while; one
 * device a turn, because attestations shall not wait for a crowd.
 * When messages are lost (ENOBUFS), all devices are asked for again. A device that is gone takes its links, its place in the
 * map and its tag with it: the next one that gets its number begins with nothing.
 *
 * The links are pinned as PINS/device_N_from and _to, N being the device's index, so that a daemon that ends leaves them in
 * force, and the next one puts its programs in their place.
 */
#ifndef BULKHEAD_DAEMON_DEVICES_H
#define BULKHEAD_DAEMON_DEVICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "datapath.h"
#include "device_link.h"

struct device {
	uint32_t ifindex;
	char name[16];
	uint16_t type;	 /* ARPHRD_* */
	uint32_t master; /* the bridge that it is a port of; 0: none */
	ino_t behind; /* the network namespace that it was last found to lead to, when its tag was derived from there */
	uint32_t n_left; /* addresses there that were not bound: told when it changes */
	bool shared;	 /* that several identities are there is told */
	bool covered;
	bool again;	 /* it was covered before: its tag stays */
	bool told;	 /* that it cannot be covered */
	bool by_filter;	 /* for now */
	unsigned stayed; /* looks that found it covered by filters */
	bool seen;	 /* while the kernel's list is read */
	int error;	 /* why it is not covered: negative errno, or 0: its turn has not come */
	int links[DEVICE_HOOKS];
	struct bh_device kernel; /* as in the map */
};

struct devices_ops {
	/* What stood under this number is gone: nothing of it may count any more. */
	void (*gone)(void *ctx, uint32_t ifindex, const char *name);
	/* It is covered now, or has another name. */
	void (*named)(void *ctx, const struct device *device);
};

struct devices;

/*
 * Covers what there is, and lets go of what is no longer to be managed. `patterns`: names with * and ?, separated by commas; ""
 * manages none. Returns 0 or -errno with a sentence in `why`.
 */
int devices_new(struct devices **devicesp, sd_event *event, struct datapath *datapath, const char *patterns,
		const struct devices_ops *ops, void *ctx, char *why, size_t why_size);
/* Links and pins stay. */
void devices_freep(struct devices **devicesp);

/* Looks whether the kernel still has all links, puts back what it has not, and tries again what failed. Returns how many devices
 * had lost theirs. */
unsigned devices_check(struct devices *devices);

size_t devices_count(const struct devices *devices);
/* Borrowed until the event loop runs again. */
const struct device *devices_at(const struct devices *devices, size_t index);
/* For what is noted of a device by who binds it. */
struct device *devices_edit(struct devices *devices, size_t index);
const struct device *devices_find(const struct devices *devices, const char *name);
const struct device *devices_by_index(const struct devices *devices, uint32_t ifindex);
/* Which device has the address; NULL: none. */
const struct device *devices_with_address(const struct devices *devices, const struct bh_addr *address);

/* Sets the addresses that the workload behind a covered device may have. Returns 0 or -errno. */
int devices_bind(struct devices *devices, uint32_t ifindex, const struct bh_addr *addresses, uint32_t n);

/* What a negative errno of covering a device means, as a sentence's end. */
const char *devices_error(int error);

/* May a device with this name be managed at all, and does it fit the patterns? */
bool devices_match(const char *patterns, const char *name);

#endif

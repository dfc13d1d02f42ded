/* SPDX-License-Identifier: Apache-2.0 */
/*
 * datapath_internal.h - what the parts of the datapath share:
 *
 *   datapath.c          opens, puts into force, restores: all parts together; the pin directory
 *   datapath_links.c    the programs on the managed subtree, and the link of each
 *   datapath_devices.c  the programs on managed devices: links or filters
 *   datapath_policy.c   the tables in force, the generation, the key of the handshake
 *   datapath_maps.c     entries of maps: tags, names, addresses, endpoints, flows, sockets
 */
#ifndef BULKHEAD_DAEMON_DATAPATH_INTERNAL_H
#define BULKHEAD_DAEMON_DATAPATH_INTERNAL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bulkhead.skel.h"
#include "datapath.h"

#define DATAPATH_PATH_BYTES 1200
#define DATAPATH_MAX_PROGRAMS 16
#define DATAPATH_PIN_LOST "the pin %s was removed or replaced: what it stands for would have ended with the daemon"

struct datapath {
	struct bulkhead *skeleton;
	struct datapath_config config;
	char pin_dir[1024];
	int pin_fd; /* of the directory: locked as long as we live */
	struct carry *carry;
	bool attached; /* once everything was in force */
	int links[DATAPATH_MAX_PROGRAMS];
	int replaced
		[DATAPATH_MAX_PROGRAMS]; /* of those that another link has replaced: goes on until all is carried over */
	struct bh_state *state;		 /* mapped */
	struct bh_counters *counters;	 /* mapped */
	uint16_t *who;			 /* mapped, both slots */
	const uint8_t *tables;		 /* mapped read-only, both slots; for user space's own judgements */
	bool settled;			 /* all programs that run have begun since the last swap */
	struct bh_tcp *tcp;		 /* mapped: BH_TCP_SLOTS */
	uint64_t *unlisted;		 /* mapped: BH_UNLISTED_BITS */
};

/* What a system call of bpf() returned, as 0 or -errno. */
static inline int datapath_result(int r)
{
	return r < 0 ? -errno : 0;
}

/* ---- datapath_links.c ---- */

/* The pinned links that are still on our cgroup. Returns whether enough are there to say that an earlier daemon enforces. */
bool datapath_links_open(struct datapath *dp);
void datapath_links_close(struct datapath *dp);
/* Replaces the program of each link, or makes the link: all of them or none. Returns 0 or -errno with a sentence. */
int datapath_links_attach(struct datapath *dp, char *why, size_t why_size);
/* All is carried over: lets go of links that others have replaced. */
void datapath_links_settle(struct datapath *dp);
/* Is each program of this build in its link, on the managed subtree, and pinned? If not, says what is wrong. */
bool datapath_links_hold(const struct datapath *dp, char *why, size_t why_size);
/* Lets go of links that are not on the managed subtree any more. */
void datapath_links_drop(struct datapath *dp);
/* Attaches each that can be, whatever becomes of the others. Returns 0 or the first -errno, with a sentence. */
int datapath_links_restore(struct datapath *dp, char *why, size_t why_size);
/* Pins those again whose pin is gone. Returns 0 or -errno. */
int datapath_links_pin(const struct datapath *dp);
/* Is any link there, or pinned? */
bool datapath_links_any(const struct datapath *dp);
/* Removes pins of links of programs that this build has not: they would go on with maps that nobody keeps. */
void datapath_links_remove_strange(const struct datapath *dp);

/* ---- datapath_devices.c ---- */

/* Settles DEVICE_AUTO by what the kernel can. */
void datapath_devices_kind_settle(struct datapath *dp);
/* Those of another build go with the rest: what they note for each other and for sockets stands in the same maps. A device
 * that is gone has taken its link with it; what else fails is tried again when the devices are covered. */
void datapath_devices_replace(struct datapath *dp);

/* ---- datapath_policy.c ---- */

/* Waits until every program that runs now has ended. */
void datapath_programs_wait(void);

#endif

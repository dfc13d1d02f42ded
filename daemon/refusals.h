/* SPDX-License-Identifier: Apache-2.0 */
/*
 * refusals.h - which refusals the enforcer is told one by one, and which together.
 *
 * A refusal costs its cause next to nothing, but a line of the audit log, and a look at the cgroups, where it is told. So the
 * first of each user in each cgroup are told as they come; what goes beyond that is held, one entry for each user, cgroup and
 * reason, and told once a second with the number that it stands for. Where there is no room for another entry, one stands
 * for all that have none. No refusal is told twice or not at all: the sum of what is told is exact.
 */
#ifndef BULKHEAD_DAEMON_REFUSALS_H
#define BULKHEAD_DAEMON_REFUSALS_H

#include <stdbool.h>
#include <stdint.h>

#include "ipc.h"

#define REFUSALS_BURST 16      /* of a user in a cgroup, told one by one */
#define REFUSALS_PER_S 2       /* and so many more in each second */
#define REFUSALS_ALL_BURST 128 /* of all together */
#define REFUSALS_ALL_PER_S 32
#define REFUSALS_ENTRIES 64 /* held at a time; a further one is for those that have none */

struct refusals;

int refusals_new(struct refusals **refusalsp);
void refusals_freep(struct refusals **refusalsp);
/* Whether a refusal of this user in this cgroup may be told by itself now (`now_ns`: any clock that does not go back). Counts
 * it as told. */
bool refusals_take_turn(struct refusals *refusals, uint32_t uid, uint64_t cgroup_id, uint64_t now_ns);
/* Holds a refusal that is not told now. */
void refusals_hold(struct refusals *refusals, const struct ipc_tag_request *refusal);
/* The entry held longest, ready to be sent: `count` and `text` say what it stands for. Returns whether there is one. */
bool refusals_next(const struct refusals *refusals, struct ipc_tag_request *out);
/* That one was sent. */
void refusals_told(struct refusals *refusals);
/* How many refusals are held. */
uint64_t refusals_held(const struct refusals *refusals);

#endif

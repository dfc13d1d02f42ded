/* SPDX-License-Identifier: Apache-2.0 */
/*
 * enforcer_internal.h - the enforcer's state, and its parts:
 *
 *   enforcer.c           start, event loop, stop; roles and bundles
 *   enforcer_policy.c    compile, store, swap; adopting what is in force
 *   enforcer_tags.c      identities and tags: attest, renew, expire, revoke, remove; local identities
 *   enforcer_notice.c    what the daemon itself has to say to the audit log
 *   enforcer_status.c    the answers of the control socket
 */
#ifndef BULKHEAD_DAEMON_ENFORCER_INTERNAL_H
#define BULKHEAD_DAEMON_ENFORCER_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "cgroup_tree.h"
#include "config.h"
#include "control.h"
#include "datapath.h"
#include "ipc.h"
#include "netns.h"
#include "policy/image.h"
#include "roles.h"

/* One tag, with what people want to know of it. The kernel's map is the truth; this is its mirror. */
struct tag {
	uint64_t cgroup_id;
	uint64_t deadline_ns; /* 0: expired or revoked; it stays so that the workload does not fall back to its parent's */
	int64_t not_after; /* UTC seconds; 0: local or unknown */
	uint32_t identity;
	uint32_t pid;
	bool local;
	char path[1024];
	char serial[64];
};

struct bundle {
	char trust_domain[256];
	int authorities; /* negative errno: the last text was refused */
	uint32_t dropped;
	char why[256];
	bool present; /* while reloading */
};

struct revocation {
	char *spiffe_id;
	int64_t time; /* UTC seconds: SVIDs issued until then are refused */
};

#define NOTICE_QUEUE 256

struct enforcer {
	struct daemon_config config;
	sd_event *event;
	struct datapath *datapath;
	struct control *control;
	struct role *identity;
	struct role *auditor;

	char cgroup_mount[1024];
	char pin_dir[1200];
	int cgroup_fd; /* managed subtree */
	int attest_fd;
	int state_fd; /* directory */
	int revisions_fd; /* directory */
	int counters_fd_dup;
	bool adopted;
	bool identity_ready;
	uint64_t started_ns; /* CLOCK_BOOTTIME */

	/* policy in force */
	struct policy_image *image;
	uint32_t revision;
	uint64_t applied_usec;

	/* identities by number; name NULL: free */
	struct bh_name **names;
	uint32_t next_identity;

	struct tag *tags;
	size_t n_tags, tags_room;
	struct revocation *revocations;
	size_t n_revocations;
	struct bundle *bundles;
	size_t n_bundles;

	struct ipc_notice *queue; /* NOTICE_QUEUE items, waiting for the auditor */
	size_t queue_head, queue_len;

	sd_event_source *sweep_timer;
	sd_event_source *expiry_timer;
	sd_event_source *queue_timer;
};

/* ---- enforcer_policy.c ---- */

/* Loads what shall be in force at start: the adopted revision, else the last one, else the policy directory, else the
 * built-in policy, which denies everything. Returns 0 or -errno with `why`. */
int enforcer_policy_start(struct enforcer *e, char *why, size_t why_size);
int enforcer_apply(void *ctx, const struct policy_source *files, size_t n, const char *comment, uid_t uid, pid_t pid,
		   struct control_apply_result *out, char **textp);
int enforcer_show(void *ctx, uint32_t revision, struct control_revision *out, char **textp);
/* Tells the auditor the names of the rules in force. */
void enforcer_policy_tell(struct enforcer *e);

/* ---- enforcer_tags.c ---- */

int enforcer_tags_start(struct enforcer *e); /* adopts names and tags from the kernel */
void enforcer_tags_free(struct enforcer *e);
void enforcer_tag_request(struct enforcer *e, const struct ipc_tag_request *request, int pidfd);
/* Who index of an identity number under the given policy. */
uint16_t enforcer_who_of(const struct enforcer *e, const struct policy_image *image, uint32_t identity);
/* Brings tags in line with the cgroups there are and the policy in force; `cut`: also judges all sockets again. Returns
 * the number of sockets destroyed. */
int enforcer_sweep(struct enforcer *e, bool cut, const char *why);
int enforcer_revoke(void *ctx, const char *identity, uid_t uid, pid_t pid, struct control_revoke_result *out,
		    char **textp);
void enforcer_names_tell(struct enforcer *e); /* to the auditor */
/* "spiffe://..." or a local identity's name; "" if unknown. */
const char *enforcer_identity_name(const struct enforcer *e, uint32_t identity);

/* ---- enforcer_notice.c ---- */

/* A notice with kind and time set, to be filled and posted. */
struct ipc_notice enforcer_notice(enum notice_kind kind);
/* Posts to the auditor; queued while it does not take them, counted as lost beyond NOTICE_QUEUE. */
void enforcer_notice_post(struct enforcer *e, const struct ipc_notice *notice);
void enforcer_notice_flush(struct enforcer *e);
int enforcer_audit_open(struct enforcer *e); /* opens the audit log (again) and hands it to the auditor */

/* ---- enforcer_status.c ---- */

int enforcer_status(void *ctx, char **textp);
int enforcer_identities(void *ctx, char **textp);

/* ---- enforcer.c ---- */

int enforcer_reload(void *ctx, uid_t uid, pid_t pid, char **textp);
uint64_t enforcer_boottime_ns(void);
uint64_t enforcer_realtime_ns(void);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * audit_record.h - one event or notice in, one line of the audit log out: JSON in Elastic Common Schema field names.
 *
 * docs/audit.md lists the fields. The module is pure: times, names and numbers come in, bytes go out; what is the same
 * in every line is rendered once. A line is always valid, at most AUDIT_LINE_MAX bytes, and cut only inside strings:
 * where one had to be, zt.shortened says so.
 */
#ifndef BULKHEAD_DAEMON_AUDIT_RECORD_H
#define BULKHEAD_DAEMON_AUDIT_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "audit_names.h"
#include "bpf/abi.h"
#include "ipc.h"

#define AUDIT_LINE_MAX 16384

/* Who writes the log. All strings end with NUL. */
struct auditor_config {
	uint64_t epoch;	 /* counts up with every start of the auditor on this host, else event.id would repeat */
	char host_id[9]; /* see auditor_host_id() */
	char host_name[256];
	char instance[64];
	char subtree[1024];
	char version[32];
};

/* What goes with every line. */
struct audit_stamp {
	uint64_t time_ns;  /* CLOCK_REALTIME */
	uint64_t sequence; /* of this line in this epoch, from 1 */
};

enum audit_loss_stage {
	AUDIT_LOSS_KERNEL_RING,	 /* the ring was full */
	AUDIT_LOSS_DAEMON,	 /* a notice did not reach the auditor */
	AUDIT_LOSS_LOG_FILE,	 /* the log could not be written */
	AUDIT_LOSS_BEFORE_START, /* lost, and not yet reported, when this auditor started */
	AUDIT_LOSS_STAGES
};

struct audit_record;

int audit_record_new(struct audit_record **recordp, const struct auditor_config *config);
void audit_record_freep(struct audit_record **recordp);

/*
 * Each writes one line with its newline into `out` (AUDIT_LINE_MAX bytes) and returns the length, never 0.
 *
 * `cgroup_path` (of a device: its name) is NULL if it is not known. `boot_to_real_ns` added to CLOCK_BOOTTIME gives CLOCK_REALTIME (it may be
 * "negative" by wrapping).
 */
size_t audit_record_flow(struct audit_record *record, char *out, const struct bh_event *event,
			 const struct audit_names *names, const char *cgroup_path, uint64_t boot_to_real_ns,
			 uint64_t sequence);
size_t audit_record_notice(struct audit_record *record, char *out, const struct ipc_notice *notice,
			   const struct audit_stamp *stamp);
/* `what` is "flow" or "notice"; `total`: lost since the counters were made, this loss included. */
size_t audit_record_lost(struct audit_record *record, char *out, const char *what, enum audit_loss_stage stage,
			 uint64_t count, uint64_t total, const struct audit_stamp *stamp);

/* Name of a notice kind as in event.action ("identity-attested"), or NULL. */
const char *audit_notice_action(unsigned kind);

#endif

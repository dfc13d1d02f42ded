/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role_auditor.h - the auditor: from the kernel's event ring and the enforcer's notices to the audit log.
 *
 * The promise is an exact account: made = written + lost. An event is written with one write(2) before the ring is told
 * that it was read, and counted after; so an auditor that dies in between leaves an event that its successor writes once
 * more, never one that nobody counted. What could not be written is counted as lost where it was lost, and the loss is
 * itself a line of the log as soon as there is a log to write to.
 *
 * The process is nobody, sandboxed, and gets everything as descriptors. It ends when the enforcer does: signals that are
 * meant for the daemon as a whole are ignored, so that the last words of the enforcer are still written.
 */
#ifndef BULKHEAD_DAEMON_ROLE_AUDITOR_H
#define BULKHEAD_DAEMON_ROLE_AUDITOR_H

#include <stddef.h>
#include <stdint.h>

#include "audit_record.h"
#include "ipc.h"

/*
 * The role's main function; returns its exit status. All descriptors are owned by the process:
 *   ring_fd        map of type BPF_MAP_TYPE_RINGBUF with struct bh_event
 *   counters_fd    BPF_F_MMAPABLE array map whose first value is struct bh_counters
 *   cgroup_dir_fd  the managed subtree, O_RDONLY | O_DIRECTORY
 * The ring is not read before the first IPC_AUDIT_LOG: events wait there rather than get lost. So an enforcer that starts
 * the role anew sends it the names and images in use first, and the log last.
 */
int role_auditor_main(int ipc_fd, int ring_fd, int counters_fd, int cgroup_dir_fd, const struct auditor_config *config);

/* Writes the 8 hex digits that name this host in event.id: the first of /etc/machine-id, else of a hash of the boot id. */
void auditor_host_id(char out[9]);

/* ---- its parts, for tests ---- */

struct auditor;

/* `counters` is borrowed. ipc_fd may be -1: there is no enforcer then. */
int auditor_new(struct auditor **auditorp, int ipc_fd, struct bh_counters *counters, int cgroup_dir_fd,
		const struct auditor_config *config);
void auditor_freep(struct auditor **auditorp);
/* Takes over `fd` as the audit log. */
void auditor_set_log(struct auditor *auditor, int fd);
/* Handles one packet from the enforcer and takes over `fd`. Returns 0 or -errno. */
int auditor_packet(struct auditor *auditor, const void *packet, int type, int fd);
/* Callback of the ring (ring_buffer_sample_fn). Returns 0, or -ECANCELED to let others have their turn: the event is
 * done with all the same. */
int auditor_event(void *auditor, void *data, size_t size);
/* Writes what was lost since it was last written: at most once a second, unless `now` is UINT64_MAX. CLOCK_BOOTTIME. */
void auditor_report_losses(struct auditor *auditor, uint64_t now_ns);

#endif

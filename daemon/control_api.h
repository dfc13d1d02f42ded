/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_api.h - the control socket: D-Bus, peer to peer, over RUNDIR/control.sock.
 *
 * Root and members of the group `bulkhead` may connect (the mode of the socket says so). One object, one interface.
 * Results that people look at come as JSON text, made by the daemon, so that `policyctl --json` prints what the daemon
 * said. Signatures are D-Bus's.
 *
 *   Apply(a(say) files, s comment, u confirm_s, s session, b even_if_cut)
 *           -> (u revision, u replaced, u rules, u sockets_cut, s warnings)
 *       Compiles and makes it the policy in force; with confirm_s (CONFIRM_MIN_S to CONFIRM_MAX_S) for so many seconds,
 *       unless Confirm() comes. `session` is the caller's SSH_CONNECTION, or "". Errors, and then nothing changed:
 *       BH_ERROR_INVALID with the diagnostics as text; BH_ERROR_WAITING while another waits to be confirmed;
 *       BH_ERROR_WOULD_CUT if it would end the connection that the caller came through, and not even_if_cut.
 *   Preview(a(say) files, s session) -> (u sockets_cut, b session_cut, s text)
 *       What Apply() would cut now; text says how the caller's own connection fares, if it is cut. Changes nothing.
 *   Confirm() -> (u revision)      the revision that waits stays. Error BH_ERROR_NOT_WAITING if none does.
 *   Rollback(u revision, s session, b even_if_cut) -> as Apply
 *       Applies the sources of an earlier revision as a new one. 0: the revision before the one in force; while one waits
 *       to be confirmed, the one that was in force before it. Errors: BH_ERROR_NO_REVISION, and those of Apply().
 *   History() -> (s json)          array of revisions, newest first
 *   Show(u revision) -> (u revision, a(say) files, s digest, t applied_usec, u uid, s comment)
 *       revision 0: the one in force. Error BH_ERROR_NO_REVISION.
 *   Status() -> (s json)
 *   Identities() -> (s json)       array of tags in force
 *   Bundles() -> (s json)          array of trust bundles
 *   Top() -> (s json)              what each pair of identities has done
 *   Revoke(s identity) -> (u tags, u sockets_cut)     a SPIFFE ID or a local identity's name; also future renewals of
 *       the same SVID are refused until a new one is issued. Error BH_ERROR_NO_IDENTITY if no tag carries it.
 *   RotateKey() -> (t epoch)       the handshake is signed by a new key from now on
 *   Reload() -> ()                 trust bundles read again, audit log opened again
 */
#ifndef BULKHEAD_DAEMON_CONTROL_API_H
#define BULKHEAD_DAEMON_CONTROL_API_H

#define BH_BUS_PATH "/org/bulkhead/Daemon"
#define BH_BUS_INTERFACE "org.bulkhead.Daemon1"
#define BH_ERROR_INVALID "org.bulkhead.Error.Invalid"
#define BH_ERROR_NO_REVISION "org.bulkhead.Error.NoRevision"
#define BH_ERROR_NO_IDENTITY "org.bulkhead.Error.NoIdentity"
#define BH_ERROR_WOULD_CUT "org.bulkhead.Error.WouldCutSession"
#define BH_ERROR_WAITING "org.bulkhead.Error.WaitsForConfirmation"
#define BH_ERROR_NOT_WAITING "org.bulkhead.Error.NothingToConfirm"
#define BH_ERROR_FAILED "org.bulkhead.Error.Failed"

#define BH_RUN_DIR "/run/bulkhead" /* default; policyctl --run-dir, BULKHEAD_RUN_DIR */
#define BH_CONTROL_SOCKET "control.sock"
#define BH_ATTEST_SOCKET "attest.sock"

/* Status JSON:
 * {"version", "instance", "pid", "uptime_s", "adopted": bool,
 *  "enforcing": bool, "subtree", "cgroup_mount", "pins", "attest_socket", "audit_log", "metrics",
 *  "policy": {"revision", "digest", "rules", "applied": RFC 3339, "table_bytes", "table_bytes_max",
 *             "waiting": {"revision", "previous", "seconds_left", "deadline": RFC 3339} | null},
 *  "roles": [{"role", "pid", "restarts"}],
 *  "identities": {"tags", "max", "nearest_deadline": RFC 3339 | null, "nearest_identity"},
 *  "devices": {"patterns", "hook": "tcx" | "clsact" | null, "covered", "bound", "uncovered": [{"name", "error"}],
 *              "items": [{"name", "ifindex", "covered": bool, "identity": string | null, "by_cgroup": string | null}]}, at most 64,
 *  "bundles": [{"trust_domain", "authorities", "dropped", "error": string | null}]; what is in the bundle directory and is no bundle:
 *              "trust_domain" null, and "origin",
 *  "events": {"made", "written", "lost", "notices_made", "notices_written", "notices_lost", "denials_folded"},
 *  "handshakes": {"verified", "forged", "replayed", "stripped"},
 *  "key": {"epoch", "since": RFC 3339, "hours": until the next one},
 *  "programs": [{"name", "attached": bool}], "not_enforced": [string],
 *  "maps": [{"name", "layout", "entries", "max", "evicts": bool}], "map_full"}
 *
 * Identities JSON: [{"spiffe_id" | "local", "identity": number, "cgroup_id", "cgroup", "deadline": RFC 3339 | null,
 *  "seconds_left": number | null, "serial", "pid"}]. Of a device, "cgroup" is "device:NAME", "cgroup_id" 0, and there are
 *  "device", "ifindex" and "addresses"; of one that has it by the cgroup of who is behind it, "by_cgroup" with the cgroup's path.
 *
 * Bundles JSON: [{"trust_domain", "source": "file" | "https_web" | "https_spiffe" | "workload_api", "origin": file or URL,
 *  "format": "pem" | "spiffe" | "der" | null, "sequence": string (64 bits) | null,
 *  "authorities": [{"subject", "key_id", "not_after": RFC 3339, "sha256"}],
 *  "loaded": RFC 3339 | null (when this text came into force), "age_s": number | null, "tried": RFC 3339 | null,
 *  "refresh_s", "dropped", "entries": [{"index", "rule", "rule_name", "dropped": bool, "text"}],
 *  "error": string | null (why the last attempt failed)}]. What is in the bundle directory and is no bundle of any trust domain has
 *  null as "trust_domain".
 *
 * Top JSON: {"taken_usec", "pairs_counted", "pairs_max", "pairs": [{"from", "to", "direction": "egress" | "ingress",
 *  "protocol", "flows", "denied", "sent_bytes", "received_bytes", "retransmits", "rtt_us", "rtt_samples"}]}
 *  All numbers only grow (struct bh_pair in bpf/abi_event.h says what they count), until the pair is forgotten some time after one
 *  of its identities has gone; rtt_us is the sum of rtt_samples samples. The end that counted is "from" where the
 *  direction is egress, and "to" where it is ingress. "other" is who found no room among pairs_max.
 *
 * History JSON: [{"revision", "digest", "applied": RFC 3339, "uid", "login_uid": number | null, "via", "from", "comment",
 *  "cause": "applied" | "first-start" | "rolled-back" | "not-confirmed", "replaced", "target": number | null, "confirm_s",
 *  "state": "in-force" | "waiting" | "not-confirmed" | "past"}]
 */

#endif

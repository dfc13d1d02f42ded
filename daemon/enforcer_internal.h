/* SPDX-License-Identifier: Apache-2.0 */
/*
 * enforcer_internal.h - the enforcer's state, and its parts:
 *
 *   enforcer.c           start, event loop, stop; roles and bundles
 *   enforcer_policy.c    compile, store, swap; adopting what is in force
 *   enforcer_change.c    what an operator asks for: apply, rollback
 *   enforcer_confirm.c   a policy on trial: confirmed, or gone back from
 *   enforcer_preview.c   what a policy would cut, before it does
 *   enforcer_tags.c      tags: the mirror of the kernel's; end, expire, remove
 *   enforcer_names.c     identity numbers, and what they stand for
 *   enforcer_attest.c    tags by attestation: given, renewed, refused
 *   enforcer_revoke.c    revocation
 *   enforcer_lifetimes.c how long tags live: limits, warnings, the clock
 *   enforcer_svids.c     SVIDs in directories, proved on behalf of workloads
 *   enforcer_shared.c    SVIDs in force in more than one place
 *   enforcer_peers.c     which process, of which cgroup
 *   enforcer_devices.c   managed devices: their tags, addresses, and who may bind them
 *   enforcer_behind.c    managed devices by the cgroup of who is behind them
 *   enforcer_sweep.c     tags, addresses and sockets in line with the cgroups there are
 *   enforcer_subtree.c   the managed subtree, and that the kernel still enforces on it
 *   enforcer_bundles.c   trust bundles, wherever they come from
 *   enforcer_bundle_dir.c  those in the bundle directory
 *   enforcer_vouch.c     the tags of who can no longer be verified
 *   enforcer_federation.c  those of bundle endpoints, and when they are asked
 *   enforcer_workload.c  those of the SPIFFE Workload API
 *   enforcer_keys.c      the key of the handshake, and when it is replaced
 *   enforcer_notice.c    what the daemon itself has to say to the audit log
 *   enforcer_status.c    the answers of the control socket
 *   enforcer_metrics.c   what is counted, for policyctl top and the metrics role
 */
#ifndef BULKHEAD_DAEMON_ENFORCER_INTERNAL_H
#define BULKHEAD_DAEMON_ENFORCER_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "backoff.h"
#include "cgroup_tree.h"
#include "compile_process.h"
#include "config.h"
#include "confirmation.h"
#include "control.h"
#include "datapath.h"
#include "devices.h"
#include "identity/process.h"
#include "id_index.h"
#include "ipc.h"
#include "netns.h"
#include "author.h"
#include "identity/bundle_text.h"
#include "policy/image.h"
#include "revisions.h"
#include "roles.h"

/* Begins the `path` of a device's tag; its name follows. */
#define BH_DEVICE_PLACE "device:"

/* One tag, with what people want to know of it. The kernel's map is the truth; this is its mirror. */
struct tag {
	uint64_t cgroup_id; /* or BH_DEVICE_BIT with a device's index */
	uint64_t
		deadline_ns; /* 0: expired or revoked; it stays so that the workload does not fall back to its parent's */
	int64_t not_after;   /* UTC seconds: when deadline_ns is; 0: local or unknown */
	int64_t svid_not_after; /* of the SVID's chain, which may be later */
	int64_t not_before;	/* of the SVID; 0: unknown */
	uint64_t proved_ns;	/* CLOCK_BOOTTIME of the last proof, or of the start that adopted it */
	uint64_t extended_ns;	/* of the last one that made it live longer */
	bool warned;		/* that it is about to end */
	uint32_t identity;
	uint32_t pid;
	uint32_t uid; /* of who proved it; POLICY_ANY_UID: not known any more */
	bool local;
	bool derived;	 /* a device's, by the cgroup of who is behind it */
	uint64_t source; /* of one derived: that cgroup; 0: not looked at since the start */
	uint64_t shared; /* group of those that are known to share SVIDs (enforcer_shared.c); 0: none */
	uint32_t entry;	 /* of `svids` in the configuration, from 1, that gave it; 0: none, or not known */
	char path[1024];
	char serial[64];
	struct bh_vouchers vouchers; /* all 0: not known, as an older version gave it */
};

/* Where a bundle comes from. A trust domain has one source at a time: bundles are never merged, and a second source would be
 * a way round the first one's sequence. */
enum bundle_source_kind {
	BUNDLE_FROM_FILE = 1,	  /* origin: the file's name in the bundle directory */
	BUNDLE_FROM_WEB,	  /* origin: URL, https_web */
	BUNDLE_FROM_SPIFFE,	  /* origin: URL, https_spiffe */
	BUNDLE_FROM_WORKLOAD_API, /* origin: the socket */
};

struct bundle_source {
	enum bundle_source_kind kind;
	char origin[512];
};

struct bundle_authority {
	uint8_t id[32]; /* SHA-256 of the certificate */
	int64_t not_after;
	char subject[256];
	char key_id[64];
};

/* A text that the identity role has not judged yet, with what it has said so far. */
struct bundle_offer {
	struct bundle_offer *next;
	uint64_t number;
	struct bundle_source source;
	enum bundle_format format;
	int fd;
	bool again;	/* it was in force already: no event, and nothing to be kept */
	unsigned tries; /* identity roles that ended over it */
	uint64_t sent;	/* counts over all bundles: the order in which they are answered */
	int64_t loaded_s;
	struct bundle_authority *authorities;
	size_t n_authorities;
	struct bundle_entry entries[BUNDLE_MAX_TOLD];
	size_t n_entries;
};

/* The bundle of one trust domain: what is in force, and how the last attempt to replace it went. */
struct bundle {
	char trust_domain[256];
	struct bundle_source source;
	enum bundle_format format;
	bool loaded; /* false: never yet, and nobody new is verified; tags that were adopted stay */
	int text_fd; /* what is in force, for an identity role that starts again; -1: not loaded */
	struct bundle_authority *authorities;
	size_t n_authorities;
	struct bundle_entry entries[BUNDLE_MAX_TOLD]; /* those dropped, and those that need a word */
	size_t n_entries;
	uint32_t dropped;
	bool has_sequence;
	uint64_t sequence;
	uint32_t refresh_s;	     /* how often its source shall be asked */
	int64_t loaded_s;	     /* UTC seconds, when this text came into force; over restarts */
	int64_t tried_s;	     /* UTC seconds, last offer or failure */
	char why[400];		     /* why the last attempt failed; "": it did not */
	bool present;		     /* while the directory is read */
	bool judged;		     /* the identities in force were held to it */
	bool unkept;		     /* it is in force, and could not be written for the next start */
	struct bundle_offer *offers; /* in order */
};

/* What is in the bundle directory, or the directory itself, and is no bundle of any trust domain. */
struct bundle_stray {
	char file[CONFIG_PATH_MAX]; /* printable */
	char why[400];
};

struct revocation {
	char *spiffe_id;
	int64_t time; /* UTC seconds: SVIDs issued until then are refused */
};

/* What keeps the audit log from being written, as far as it is known. */
struct audit_state {
	int open_error;	 /* positive errno of the last attempt to open it; 0: it worked */
	int write_error; /* likewise of the auditor's last write */
	bool handed;	 /* the auditor that runs was given one */
	int64_t since_s; /* UTC seconds, of the first of what there is now */
};

#define NOTICE_QUEUE 256

struct enforcer {
	struct daemon_config config;
	sd_event *event;
	struct datapath *datapath;
	struct control *control;
	struct devices *devices;
	struct role *identity;
	struct role *auditor;
	struct role *metrics; /* NULL: nobody asked for it */
	struct role *fetcher; /* likewise */
	struct federations *federations;
	struct workload *workload; /* NULL: no Workload API */

	char cgroup_mount[1024];
	char pin_dir[1200];
	char subtree_path[2100];
	int cgroup_fd; /* managed subtree; the number never changes */
	uint64_t cgroup_id;
	int cgroup_mount_fd;   /* of the whole cgroup2 file system; -1 unless /proc may be looked into */
	bool enforcement_lost; /* and not restored yet */
	uint64_t held_ns;      /* CLOCK_BOOTTIME, when everything was last seen in its place */
	int attest_fd;
	int metrics_fd;	       /* where the metrics role listens; -1: off */
	uint64_t looked_ns;    /* CLOCK_BOOTTIME, when live connections were looked at last */
	uint64_t told_ns;      /* when the metrics role was answered last */
	uint64_t pairs_due_ns; /* when pairs are to be cleaned next */
	int state_fd;	       /* directory */
	int revisions_fd;      /* directory */
	bool adopted;
	bool identity_ready;
	uint64_t started_ns; /* CLOCK_BOOTTIME */

	struct compile_process
		*compiler; /* that waits for a policy, or has done its job; NULL: none could be started */

	/* policy in force */
	struct policy_image *image;
	uint32_t revision;
	uint64_t applied_usec;
	struct confirmation waiting; /* the revision in force, where it is on trial */
	uint64_t revert_retry_ns;    /* until the next attempt to go back from it; 0: none failed */

	/* identities by number; name NULL: free */
	struct bh_name **names;
	uint32_t next_identity;

	/* what was told of full maps, and is not told again */
	bool local_failed;
	bool addresses_full;
	uint64_t map_full_seen; /* of the counter */
	uint64_t maps_full;	/* bit: index of datapath_map() */

	bool cut_due; /* sockets have to be judged again, and could not be yet */
	struct netns_stale stale_endpoints;
	uint64_t endpoints_due_ns; /* CLOCK_BOOTTIME */
	struct netns_gone gone_connections;
	uint64_t connections_due_ns; /* CLOCK_BOOTTIME */
	struct tag *tags;
	size_t n_tags, tags_room;
	struct id_index tags_index;
	struct revocation *revocations;
	size_t n_revocations;
	struct bundle *bundles;
	size_t n_bundles;
	uint64_t bundle_offers; /* number of the last one */
	uint64_t bundles_sent;	/* to an identity role, all in all */
	int bundles_fd;		/* directory of what is kept of them */
	struct bound_svid *svids;
	size_t n_svids;
	uint64_t shared_groups; /* number of the last one */
	uint64_t svid_requests; /* number of the last one */

	struct audit_state audit;
	struct ipc_notice *queue; /* NOTICE_QUEUE items, waiting for the auditor to run */
	size_t queue_head, queue_len;

	sd_event_source *compiler_used; /* NULL: none was, yet */
	sd_event_source *confirm_timer;
	sd_event_source *sweep_timer;
	sd_event_source *guard_timer;
	sd_event_source *expiry_timer;
	sd_event_source *queue_timer;
	sd_event_source *key_timer;
	sd_event_source *bundle_watch; /* of the directory; NULL: there is none to watch */
	sd_event_source *bundle_timer; /* until it is read, or a watch is tried again */
	sd_event_source *bundle_again; /* NULL: no file of it is to be offered once more */
	struct backoff bundle_backoff;
	bool bundle_unwatched;	     /* and that was told */
	struct bundle_stray *strays; /* NULL: nothing is wrong in the directory itself */
	size_t n_strays;
	uint64_t *strays_told; /* digests of all of them, in order: these were logged */
	size_t n_strays_told;
	sd_event_source *svid_timer;
};

/* ---- enforcer_policy.c ---- */

/* Loads what shall be in force at start: the adopted revision, else the last one; where there never was one, the policy directory;
 * else the built-in policy, which denies everything. Returns 0 or -errno with `why`. */
int enforcer_policy_start(struct enforcer *e, char *why, size_t why_size);
int enforcer_show(void *ctx, uint32_t revision, struct control_revision *out, char **textp);
/* Tells the auditor the names of the rules in force. */
void enforcer_policy_tell(struct enforcer *e);

/* A policy that is to come into force. Borrows what it points to. */
struct policy_change {
	enum revision_cause cause;
	const struct policy_source *files;
	size_t n;
	const char *comment;
	uint32_t target;	      /* the revision gone back to; 0: none */
	uint32_t confirm_s;	      /* 0: for good */
	struct author *author;	      /* NULL: nobody */
	struct revision_draft *draft; /* of its revision; used up when that is stored */
};

/* Compiles and opens. Returns 0, 1 (not valid, *textp says why), or -errno. */
int enforcer_image_make(struct enforcer *e, const struct policy_source *files, size_t n, struct policy_image **imagep,
			char **textp);
/* Likewise for a change, whose revision is begun meanwhile. Of what was in force once neither tests nor invariants keep it from
 * coming back. */
int enforcer_change_image(struct enforcer *e, const struct policy_change *change, struct policy_image **imagep,
			  char **textp);
/* Lets a compiler start and wait for its job, as soon as there is nothing else to do. */
void enforcer_compiler_arm(struct enforcer *e);
/* Who index of every identity number under `image`; malloc()ed, BH_MAX_IDENTITIES items, or NULL. */
uint16_t *enforcer_who_table(const struct enforcer *e, const struct policy_image *image);
/* Swaps to the image, which becomes the enforcer's. Returns 0 or -errno: nothing changed. */
int enforcer_image_enforce(struct enforcer *e, struct policy_image **imagep, uint32_t revision, uint64_t applied_usec);
/* Begins the draft of a change's revision. A fault is told when it is stored. */
void enforcer_revision_begin(struct enforcer *e, const struct policy_change *change);
/* Stores what comes into force as revision `number`, and begins the draft where that was not done. */
int enforcer_revision_write(struct enforcer *e, const struct policy_image *image, const struct policy_change *change,
			    uint32_t number, uint64_t applied_usec);
/* The sources of a stored revision, for policy_sources_free(); 0: the built-in policy. */
int enforcer_revision_files(struct enforcer *e, uint32_t number, struct policy_source **filesp, size_t *np);
/* The image of a stored revision; compiled again from its sources if this version reads another format. */
int enforcer_revision_image(struct enforcer *e, uint32_t number, struct policy_image **imagep, uint64_t *applied_usec);

/* ---- enforcer_change.c ---- */

int enforcer_apply(void *ctx, const struct control_change *asked, const struct control_caller *caller,
		   struct control_change_result *out, char **textp);
int enforcer_rollback(void *ctx, uint32_t number, bool even_if_cut, const struct control_caller *caller,
		      struct control_change_result *out, char **textp);
/* Stores and swaps; the image becomes the enforcer's. Sockets are not judged yet. Returns 0 or -errno: nothing changed. */
int enforcer_change(struct enforcer *e, const struct policy_change *change, struct policy_image **imagep,
		    struct control_change_result *out, char **textp);
/* Says which there are. Returns CONTROL_NO_REVISION. */
int enforcer_revision_unknown(struct enforcer *e, uint32_t number, bool damaged, char **textp);
struct ipc_notice enforcer_policy_notice(struct enforcer *e, enum notice_kind kind, const struct author *author);

/* ---- enforcer_confirm.c ---- */

/* Puts the revision that is about to come into force on trial: on disk, and with a timer. Returns 0, or -errno
 * with a sentence. */
int enforcer_confirm_begin(struct enforcer *e, uint32_t revision, uint32_t seconds, char **textp);
/* Nothing is on trial any more. `for_good`: nor for who starts after us. */
void enforcer_confirm_end(struct enforcer *e, bool for_good);
/* Is one on trial? Says which, and until when. */
bool enforcer_confirm_waiting(struct enforcer *e, char **textp);
int enforcer_confirm(void *ctx, const struct control_caller *caller, uint32_t *revision, char **textp);
/* At start, with the revision that the kernel enforces (0: none): waits on, or goes back at once. Returns 1 if it went
 * back: then a policy is in force; else 0. */
int enforcer_confirm_start(struct enforcer *e, uint32_t in_force);

/* ---- enforcer_preview.c ---- */

/* What the image would cut. Fills author->from. Returns 0, with a sentence if the session would be cut, or -errno. */
int enforcer_preview_image(struct enforcer *e, const struct policy_image *image, struct author *author,
			   const char *session, struct control_preview *out, char **textp);
int enforcer_preview(void *ctx, const struct policy_source *files, size_t n, const struct control_caller *caller,
		     struct control_preview *out, char **textp);

/* ---- enforcer_tags.c ---- */

int enforcer_tags_start(struct enforcer *e); /* adopts names and tags from the kernel */
void enforcer_tags_free(struct enforcer *e);

/* The mirror. Pointers hold until the next tag is added or removed. */
struct tag *enforcer_tag_find(struct enforcer *e, uint64_t cgroup_id);
struct tag *enforcer_tag_add(struct enforcer *e, uint64_t cgroup_id);
void enforcer_tag_drop(struct enforcer *e, struct tag *tag);	   /* from the mirror alone */
int enforcer_tag_write(struct enforcer *e, const struct tag *tag); /* to the kernel */
/* Keeps in the kernel what the tag's proof rests on, for a daemon that adopts it. */
int enforcer_tag_keep(struct enforcer *e, struct tag *tag);
void enforcer_tag_remove(struct enforcer *e, struct tag *tag, const char *why); /* what carried it is gone */
void enforcer_tag_restore(struct enforcer *e, struct tag *tag, const struct tag *before);
void enforcer_tag_end(struct enforcer *e, struct tag *tag, enum notice_kind kind, const char *text);
struct ipc_notice enforcer_tag_notice(struct enforcer *e, enum notice_kind kind, const struct tag *tag);
bool enforcer_tags_expire(struct enforcer *e); /* returns whether any did */
void enforcer_expiry_arm(struct enforcer *e);

/* ---- enforcer_names.c ---- */

int enforcer_names_start(struct enforcer *e); /* adopts those in the kernel */
void enforcer_names_free(struct enforcer *e);
void enforcer_names_tell(struct enforcer *e); /* to the auditor */
/* "spiffe://..." or a local identity's name; "" if unknown. */
const char *enforcer_identity_name(const struct enforcer *e, uint32_t identity);
/* The number of an identity, a new one if it was never seen. Returns 0 or -errno. */
int enforcer_identity_number(struct enforcer *e, const char *text, bool local, uint32_t *number);
/* Who index of an identity number under the given policy. */
uint16_t enforcer_who_of(const struct enforcer *e, const struct policy_image *image, uint32_t identity);

/* ---- enforcer_revoke.c ---- */

/* From the state directory. Returns 0, or -errno, logged: without knowing what was revoked nobody can be let in. */
int enforcer_revocations_load(struct enforcer *e);
void enforcer_revocations_free(struct enforcer *e);
/* Ends what is in force and was revoked: the daemon before ended in between. Of one adopted from an older version it may not be known
 * whether its SVID came after; then it ends. */
void enforcer_revocations_enforce(struct enforcer *e);
/* When an identity was last revoked, in UTC seconds, or 0. */
int64_t enforcer_revoked_at(const struct enforcer *e, const char *spiffe_id);
int enforcer_revoke(void *ctx, const char *identity, uid_t uid, pid_t pid, struct control_revoke_result *out,
		    char **textp);

/* ---- enforcer_attest.c ---- */

void enforcer_tag_request(struct enforcer *e, const struct ipc_tag_request *request, int pidfd);

/* One attestation that the identity role has verified. */
struct tag_attempt {
	const struct ipc_tag_request *request;
	const struct cgroup_node *node; /* of the caller */
	uint64_t key;			/* what shall carry the identity: cgroup id, or device */
	const char *place;		/* its name: the cgroup's path, or device:NAME */
	uint32_t uid;			/* of the caller; root's where there is none: files of root's are what proves */
	int pidfd;			/* of the caller; -1: nobody, the daemon speaks for the cgroup */
	uint64_t proved_ns;		/* CLOCK_BOOTTIME: when the proof was made that it rests on; 0: now */
	uint32_t entry;			/* of `svids`, from 1; 0: a process proved it */
	int64_t until;			/* UTC seconds: end of the tag that was given */
	uint32_t code;
	bool renewal;
	bool taken_back; /* a tag that was in force for a moment */
	char device_place[32];
	char text[512];
};

__attribute__((format(printf, 3, 4))) void enforcer_attempt_refuse(struct tag_attempt *a, uint32_t code,
								   const char *format, ...);

/* Gives the tag that an attempt, verified so far, is about, if nothing is against it. With pidfd -1 nobody has to be there: the
 * daemon speaks for the cgroup. */
bool enforcer_attempt_make(struct enforcer *e, struct tag_attempt *a);
/* Into the audit log. */
void enforcer_attempt_tell(struct enforcer *e, const struct tag_attempt *a);

/* ---- enforcer_lifetimes.c ---- */

/* Sets how long the tag lives from now on; a renewal only extends. */
void enforcer_tag_proved(struct enforcer *e, struct tag *tag, const struct ipc_tag_request *request, bool renewal,
			 uint64_t proved_ns);
/* Is little of its life left? */
bool enforcer_tag_is_ending(const struct tag *tag, uint64_t now_ns);
/* Tells of those, once each. */
void enforcer_tags_warn(struct enforcer *e);
/* The clock was set. Returns whether a tag ended. */
bool enforcer_tags_follow_clock(struct enforcer *e);

/* ---- enforcer_svids.c ---- */

/* Begins to look into the directories of the configuration. Returns 0 or -errno. */
int enforcer_svids_start(struct enforcer *e);
/* Has all of them proved anew. */
void enforcer_svids_again(struct enforcer *e);
/* What the identity role says of one. */
void enforcer_svid_proved(struct enforcer *e, const struct ipc_tag_request *proved);
/* Tags the cgroups there are with what was proved for them. Returns whether a tag is new. */
bool enforcer_svids_give(struct enforcer *e, const struct cgroup_tree *tree);
json_t *enforcer_svids_json(const struct enforcer *e);
void enforcer_svids_free(struct enforcer *e);

/* ---- enforcer_shared.c ---- */

/* A tag was given: tells the audit log if its SVID is in force elsewhere, and that is news. */
void enforcer_shared_look(struct enforcer *e, const struct tag_attempt *a);
/* What adopted tags share was told by the daemon before. */
void enforcer_shared_start(struct enforcer *e);
/* By index of tag, in how many other places its SVID is in force; malloc()ed, or NULL. */
uint32_t *enforcer_shared_counts(const struct enforcer *e);

/* ---- enforcer_peers.c ---- */

/* What the kernel says of a process; or /proc, where it cannot and the configuration allows it. As process_query(). */
int enforcer_process_query(struct enforcer *e, int pidfd, struct process_facts *facts);
/* Answers the identity role, which cannot tell who connected. */
void enforcer_peer_query(struct enforcer *e, const struct ipc_peer_query *query, int fd);

/* ---- enforcer_devices.c ---- */

/* Covers the managed devices there are. Returns 0 or -errno with `why`. */
int enforcer_devices_start(struct enforcer *e, char *why, size_t why_size);
void enforcer_devices_tell(struct enforcer *e); /* names, to the auditor */
/* Puts back what somebody took off. Returns whether there was anything: then flows are judged again. */
bool enforcer_devices_check(struct enforcer *e);
/* netns_addresses_refresh() with the addresses that are bound to devices. */
int enforcer_addresses_refresh(struct enforcer *e, const struct cgroup_tree *tree);
/* May the caller bind this device, with these addresses? If not, says why. */
bool enforcer_device_fits(struct enforcer *e, struct tag_attempt *a);
/* No loopback, multicast or unspecified one. */
bool enforcer_address_can_be_bound(const struct bh_addr *a);
int enforcer_device_bind(struct enforcer *e, const struct tag_attempt *a);

/* ---- enforcer_behind.c ---- */

/* Gives managed devices the identity of the workload that is found behind them, and takes it away where that is no longer so.
 * Returns whether anything changed: then flows are to be judged again. */
bool enforcer_devices_derive(struct enforcer *e, const struct cgroup_tree *tree);

/* ---- enforcer_sweep.c ---- */

/* Brings tags in line with the cgroups there are and the policy in force; `cut`: also judges all sockets again. Returns
 * the number of sockets destroyed. */
int enforcer_sweep(struct enforcer *e, bool cut, const char *why);

/* ---- enforcer_subtree.c ---- */

/* Opens the managed subtree, making it and its keeper where they are not there. Returns 0 or -errno. */
int enforcer_subtree_open(struct enforcer *e);
/* From now on, looks twice a second whether the kernel still enforces on it and every pin is there, and puts it right where
 * not. Returns 0 or -errno. */
int enforcer_subtree_guard(struct enforcer *e);

/* ---- enforcer_bundles.c ---- */

/*
 * The bytes of a bundle (a memfd, borrowed) for a trust domain, from a source. They are judged by the identity role; until its
 * answer, and if it refuses them, the bundle in force stays. What becomes of them stands in the audit log and in the
 * bundle's `why`. Returns 0; -EEXIST: the trust domain has its bundle from another kind of source, which was told as an
 * alarm; -EINVAL: no name of a trust domain; or -errno.
 */
int enforcer_bundle_offer(struct enforcer *e, const char *trust_domain, const struct bundle_source *source,
			  enum bundle_format format, int fd);
/* The source will be asked: until it answers, what it gave the daemon before stays in force. To be called for each source but
 * files before enforcer_bundles_start(), which ends the identities of all trust domains that have none. Returns as
 * enforcer_bundle_offer(). */
int enforcer_bundle_expect(struct enforcer *e, const char *trust_domain, const struct bundle_source *source);
/* The source could not be asked, or what it has could not be read: the bundle in force stays. An alarm if `why` is news. */
void enforcer_bundle_failed(struct enforcer *e, const char *trust_domain, const struct bundle_source *source,
			    const char *why);
/* The source no longer speaks for the trust domain: its identities end. Nothing happens if it is another kind of source's. */
void enforcer_bundle_withdraw(struct enforcer *e, const char *trust_domain, enum bundle_source_kind kind);
/* NULL: there is none. Holds until one is added or removed. */
struct bundle *enforcer_bundle_find(const struct enforcer *e, const char *trust_domain);
/* Is this one of its authorities? By the beginning of the id, of 16 bytes. */
const struct bundle_authority *enforcer_bundle_authority(const struct bundle *bundle, const uint8_t *id);
const char *enforcer_bundle_source_name(enum bundle_source_kind kind);
void enforcer_bundles_free(struct enforcer *e);
/* The identity role was started again: it has to be told all. */
void enforcer_bundles_tell(struct enforcer *e);
/* What the identity role says of an offer. */
void enforcer_bundle_packet(struct enforcer *e, int type, const void *packet);

/* ---- enforcer_bundle_dir.c ---- */

/* Reads the directory and watches it from now on. */
void enforcer_bundles_start(struct enforcer *e);
/* Reads the directory again. */
void enforcer_bundles_reload(struct enforcer *e);
/* By a fault, what is in it could not be read or taken: it is read once more, soon. */
void enforcer_bundles_again(struct enforcer *e);
/* Its end: nothing is watched or read any more. */
void enforcer_bundles_unwatch(struct enforcer *e);

/* ---- enforcer_vouch.c ---- */

/* Does the bundle in force still have one of the authorities by which the role has verified the SVID? */
bool enforcer_vouch_holds(struct enforcer *e, const struct ipc_tag_request *request);
bool enforcer_vouch_known(const struct bh_vouchers *vouchers);
/* Adds to what vouches for a tag. `anew`: what vouched for it before was of another identity. */
void enforcer_vouch_merge(struct bh_vouchers *vouchers, const struct ipc_voucher *more, bool anew);
/* The identity role has found other authorities for an identity in force. */
void enforcer_vouch_more(struct enforcer *e, const struct ipc_vouch *vouch);
/* The authorities of a bundle were replaced: ends the tags that none of those in force vouches for, and their connections. */
void enforcer_vouch_check(struct enforcer *e, const struct bundle *bundle, const struct bundle_authority *former,
			  size_t n_former);
/* Ends the tags of trust domains that have no bundle, and their connections. */
void enforcer_vouch_check_domains(struct enforcer *e);

/* ---- enforcer_federation.c ---- */

/* Begins the relationships of the configuration, ends those that are no more in it, and asks all endpoints now. Before
 * enforcer_bundles_start(). Returns 0 or -errno: one could not begin. */
int enforcer_federation_start(struct enforcer *e);
/* The same with what the configuration file says now. Returns 0, or -errno with a sentence: nothing changed. */
int enforcer_federation_reload(struct enforcer *e, char **textp);
void enforcer_federation_free(struct enforcer *e);
/* What the fetcher role says. */
void enforcer_fetched(struct enforcer *e, const struct ipc_fetched *fetched, int fd);
void enforcer_federation_fetcher_ended(struct enforcer *e);
/* When the endpoint is asked next, CLOCK_BOOTTIME; 0: now, or there is no endpoint. */
uint64_t enforcer_federation_due_ns(const struct enforcer *e, const char *trust_domain);

/* ---- enforcer_workload.c ---- */

/* Before enforcer_bundles_start(). Returns 0 or -errno. */
int enforcer_workload_start(struct enforcer *e);
void enforcer_workload_free(struct enforcer *e);
/* The fetcher role runs: it is told what to watch. */
void enforcer_workload_watch(struct enforcer *e);
void enforcer_workload_packet(struct enforcer *e, int type, const void *packet, int fd);
/* What it said could not be taken: it is asked once more, soon. */
void enforcer_workload_again(struct enforcer *e);
/* Something that it said was taken. Once nothing is open any more, the next failure is the first. */
void enforcer_workload_taken(struct enforcer *e);

/* ---- enforcer_keys.c ---- */

/* Sets the timer for the next key. */
void enforcer_key_arm(struct enforcer *e);
int enforcer_rotate_key(void *ctx, uid_t uid, pid_t pid, uint64_t *epoch, char **textp);

/* ---- enforcer_notice.c ---- */

/* A notice with kind and time set, to be filled and posted. */
struct ipc_notice enforcer_notice(enum notice_kind kind);
/* Posts to the auditor; queued while it does not run, counted as lost beyond NOTICE_QUEUE. */
void enforcer_notice_post(struct enforcer *e, const struct ipc_notice *notice);
/* The auditor ended before it took this one: it is posted again, without being counted as made again. */
void enforcer_notice_keep(struct enforcer *e, const struct ipc_notice *notice);
/* The auditor ended: what it had taken and not written is lost, so that made = written + lost (+ queued) holds. */
void enforcer_notice_account(struct enforcer *e);
void enforcer_notice_flush(struct enforcer *e);
int enforcer_audit_open(struct enforcer *e); /* opens the audit log (again) and hands it to the auditor */
/* The auditor says how it gets on. */
void enforcer_audit_packet(struct enforcer *e, const struct ipc_audit_state *state);
/* Is the audit log not written, or not the one it should be? Then a sentence says why, and what to do. */
bool enforcer_audit_problem(const struct enforcer *e, char *text, size_t size);

/* ---- enforcer_status.c ---- */

int enforcer_status(void *ctx, char **textp);
int enforcer_identities(void *ctx, char **textp);
int enforcer_history(void *ctx, char **textp);
int enforcer_bundles(void *ctx, char **textp);

/* ---- enforcer_metrics.c ---- */

int enforcer_top(void *ctx, char **textp);
/* Answers the metrics role. */
void enforcer_metrics_tell(struct enforcer *e);
/* Forgets pairs of identities that have gone; now and then. */
void enforcer_pairs_clean(struct enforcer *e);

/* ---- enforcer.c ---- */

int enforcer_reload(void *ctx, uid_t uid, pid_t pid, char **textp);
/* Why a map took no more. */
const char *enforcer_full_text(int r);
uint64_t enforcer_boottime_ns(void);
uint64_t enforcer_realtime_ns(void);

#endif

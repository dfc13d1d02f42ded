/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ipc.h - what the roles of bulkheadd say to each other.
 *
 * Each role holds one end of a SOCK_SEQPACKET socketpair to the enforcer. A packet is one of the structures below, of
 * exactly its size, with at most one file descriptor beside it. Strings are NUL-terminated within their array; the
 * receiver checks type, size, and termination before it uses anything, because the sender may have been taken over.
 * Larger bodies (bundles, images, policy text) travel as sealed memfds.
 */
#ifndef BULKHEAD_DAEMON_IPC_H
#define BULKHEAD_DAEMON_IPC_H

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define IPC_MAX_ADDRESSES 8 /* as of identity/attest.h and bpf/abi.h */

enum ipc_type {
	/* enforcer -> identity */
	IPC_BUNDLE = 1,	    /* struct ipc_bundle, fd: its text; without fd: the trust domain is gone */
	IPC_TAG_REPLY = 2,  /* struct ipc_tag_reply */
	IPC_TAG_ENDED = 3,  /* struct ipc_tag_ended: its chain need not be kept */
	IPC_PEER_FACTS = 8, /* struct ipc_peer_facts, fd: pidfd of the peer, unless it was refused */
	IPC_SVID_FILES = 9, /* struct ipc_svid_files, fd: see svid_prove.h */
	/* identity -> enforcer */
	IPC_BUNDLE_LOADED = 16,	 /* struct ipc_bundle_loaded */
	IPC_TAG_REQUEST = 17,	 /* struct ipc_tag_request, fd: pidfd of the peer */
	IPC_ATTEST_REFUSED = 18, /* struct ipc_tag_request with its refusal filled, for the audit log; no fd */
	/* before an IPC_BUNDLE_LOADED that is no refusal, one of each for: */
	IPC_BUNDLE_AUTHORITY = 19, /* struct ipc_bundle_authority: an authority of the bundle */
	IPC_BUNDLE_ENTRY = 20,	   /* struct ipc_bundle_entry: an entry that is not used, or needs a word */
	IPC_VOUCH = 21,		   /* struct ipc_vouch: an identity in force that chains to the bundle in another way */
	IPC_PEER_QUERY = 22,	   /* struct ipc_peer_query, fd: the connection */
	IPC_SVID_PROVED = 23,	   /* struct ipc_tag_request, with the number in `request`, or a refusal; no fd */
	/* metrics -> enforcer */
	IPC_METRICS_ASK = 24, /* struct ipc_header: a snapshot, please */
	/* enforcer -> auditor */
	IPC_AUDIT_LOG = 32,    /* struct ipc_header, fd: audit log, O_APPEND; replaces the one in use (rotation) */
	IPC_AUDIT_IMAGE = 33,  /* struct ipc_audit_image, fd: compiled policy of a revision */
	IPC_AUDIT_NAME = 34,   /* struct ipc_audit_name */
	IPC_AUDIT_NOTICE = 35, /* struct ipc_notice */
	IPC_AUDIT_DEVICE = 36, /* struct ipc_audit_device */

	/* auditor -> enforcer */
	IPC_AUDIT_STATE = 37, /* struct ipc_audit_state, when it has changed */
	/* enforcer -> metrics */
	IPC_METRICS = 40, /* struct ipc_header, fd: struct metrics */
	/* any role -> enforcer */
	IPC_READY = 48, /* struct ipc_header */
	/* enforcer -> any role, and back: watchdog */
	IPC_PING = 49, /* struct ipc_header */
	/* enforcer -> fetcher */
	IPC_FETCH = 56,		 /* struct ipc_fetch, fd: the bundle that an https_spiffe endpoint proves itself by */
	IPC_WORKLOAD_WATCH = 57, /* struct ipc_workload_watch */
	/* fetcher -> enforcer */
	IPC_FETCHED = 64, /* struct ipc_fetched, fd: what came; without fd: it failed */
	/* A message of the Workload API: one of these for each trust domain in it, and the state after the last. */
	IPC_WORKLOAD_BUNDLE = 65, /* struct ipc_workload_bundle, fd: DER certificates */
	IPC_WORKLOAD_STATE = 66,  /* struct ipc_workload_state */
};

struct ipc_header {
	uint32_t type; /* enum ipc_type */
	uint32_t len;  /* of the whole packet */
};

struct ipc_bundle {
	struct ipc_header h;
	uint64_t offer;	 /* comes back in the answer; one without a file descriptor is not answered */
	uint32_t format; /* enum bundle_format */
	uint32_t pad;
	char trust_domain[256];
};

struct ipc_bundle_loaded {
	struct ipc_header h;
	uint64_t offer;
	uint64_t sequence;
	int32_t authorities; /* negative errno: not loaded, the former bundle stays */
	uint32_t dropped;
	uint32_t has_sequence;
	uint32_t refresh_s;
	uint32_t rule;	  /* that the text breaks; 0: none, or no refusal */
	uint32_t changed; /* 0: the authorities are those that the role had before */
	char trust_domain[256];
	char why[400];
};

struct ipc_bundle_authority {
	struct ipc_header h;
	uint64_t offer;
	int64_t not_after; /* UTC seconds */
	uint8_t id[32];	   /* SHA-256 of the certificate */
	char trust_domain[256];
	char subject[256];
	char key_id[64];
};

struct ipc_bundle_entry {
	struct ipc_header h;
	uint64_t offer;
	uint32_t index; /* of the entry, from 0 */
	uint32_t rule;
	uint32_t dropped;
	uint32_t pad;
	char trust_domain[256];
	char text[256];
};

/* By which authorities a chain is valid, and until when by each. */
#define IPC_VOUCHERS 4 /* as of bpf/abi.h */

struct ipc_voucher {
	uint8_t authority[16]; /* beginning of the SHA-256 of its certificate */
	int64_t not_after;     /* UTC seconds; 0: not used */
};

struct ipc_vouch {
	struct ipc_header h;
	uint64_t key; /* of the tag */
	struct ipc_voucher vouchers[IPC_VOUCHERS];
};

struct ipc_tag_ended {
	struct ipc_header h;
	uint64_t key;
};

/* A verified SVID with its possession proved; or, as IPC_ATTEST_REFUSED, why not (then fields may be empty). */
struct ipc_tag_request {
	struct ipc_header h;
	uint64_t request;
	uint64_t cgroup_id;   /* as challenged and signed */
	uint64_t deadline_ns; /* CLOCK_BOOTTIME; earliest notAfter on the path */
	int64_t not_before;   /* UTC seconds */
	int64_t not_after;
	uint32_t pid; /* for people; never for decisions */
	uint32_t uid;
	uint32_t code;	/* enum attest_code, of a refusal */
	uint32_t count; /* refusals that this one stands for; 0: only itself */
	char spiffe_id[2049];
	char trust_domain[256];
	char serial[64];
	char issuer[256];
	char text[512]; /* sentence of a refusal */
	uint8_t leaf_sha256[32];
	/* for a device instead of the cgroup: its name, else "" */
	char device[16];
	uint32_t n_addresses;
	uint32_t pad2;
	uint8_t addresses[IPC_MAX_ADDRESSES][16];
	struct ipc_voucher vouchers[IPC_VOUCHERS];
};

struct ipc_tag_reply {
	struct ipc_header h;
	uint64_t request;
	uint64_t cgroup_id;
	uint32_t code;	  /* enum attest_code */
	uint32_t renewal; /* 1: the cgroup carried this identity already */
	char text[512];
	uint64_t key;	   /* of the tag: the cgroup's id, or the device's */
	int64_t not_after; /* UTC seconds: until when the tag holds, which may be less than the SVID */
};

/* An SVID in files, to be proved for the cgroup that the configuration binds it to. */
struct ipc_svid_files {
	struct ipc_header h;
	uint64_t number; /* comes back with the answer */
};

/* Who connected? Asked where the kernel cannot tell the identity role, which has no /proc to look in (Linux before 6.13). */
struct ipc_peer_query {
	struct ipc_header h;
	uint64_t request;
	uint64_t accepted_ns; /* CLOCK_BOOTTIME */
};

struct ipc_peer_facts {
	struct ipc_header h;
	uint64_t request;
	uint64_t cgroup_id;
	int32_t error; /* 0, or -errno; -EOPNOTSUPP: the configuration does not allow looking there */
	uint32_t pid;
	uint32_t uid;
	uint32_t pad;
};

/* Revision `revision` may appear in events from now on. */
struct ipc_audit_image {
	struct ipc_header h;
	uint32_t revision;
	uint32_t pad;
};

/* Identity number `identity` may appear in events from now on. */
struct ipc_audit_name {
	struct ipc_header h;
	uint32_t identity;
	uint32_t local; /* 1: a local identity; its name in the policy stands in `name` */
	char name[2049];
};

/* The managed device with this index may appear in events from now on. */
struct ipc_audit_device {
	struct ipc_header h;
	uint32_t ifindex;
	uint32_t pad;
	char name[16];
};

enum notice_kind {
	NOTICE_IDENTITY_ATTESTED = 1,
	NOTICE_IDENTITY_RENEWED,
	NOTICE_IDENTITY_REFUSED,
	NOTICE_IDENTITY_EXPIRED,
	NOTICE_IDENTITY_REVOKED,
	NOTICE_IDENTITY_REMOVED, /* its cgroup is gone */
	NOTICE_IDENTITY_LOCAL,	 /* a local identity was tagged */
	NOTICE_POLICY_APPLIED,
	NOTICE_POLICY_REFUSED,
	NOTICE_BUNDLE_LOADED,
	NOTICE_BUNDLE_REFUSED,
	NOTICE_DAEMON_STARTED, /* text: adopted or fresh */
	NOTICE_DAEMON_STOPPED,
	NOTICE_ROLE_RESTARTED,	 /* text: which, why */
	NOTICE_SOCKETS_CUT,	 /* count: sockets destroyed; text: why */
	NOTICE_ENFORCEMENT_LOST, /* text: what the kernel no longer has, and where */
	NOTICE_ENFORCEMENT_RESTORED,
	NOTICE_POLICY_CONFIRMED,
	NOTICE_POLICY_ROLLED_BACK, /* an operator went back to an earlier revision */
	NOTICE_POLICY_REVERTED,	   /* nobody confirmed the policy in time */
	NOTICE_KEY_ROTATED,	   /* the handshake is signed by a new key */
	NOTICE_BUNDLE_REMOVED,
	NOTICE_IDENTITY_ENDING, /* soon, and nobody has renewed it */
	NOTICE_IDENTITY_SHARED, /* its SVID is in force in another place too; count: in how many */
};

/* An event of the daemon itself. Fields that a kind has no use for are 0 or "". */
struct ipc_notice {
	struct ipc_header h;
	uint32_t kind;	  /* enum notice_kind */
	uint32_t code;	  /* enum attest_code of a refusal */
	uint64_t time_ns; /* CLOCK_REALTIME */
	uint64_t cgroup_id;
	int64_t not_before; /* UTC seconds */
	int64_t not_after;  /* of a policy: until when it waits to be confirmed */
	uint32_t identity;
	uint32_t pid; /* workload, or operator's policyctl */
	uint32_t uid;
	uint32_t revision;
	uint32_t previous_revision;
	uint32_t count;
	uint32_t login_uid; /* policy: as whom the operator logged in; UINT32_MAX: not known */
	uint32_t pad;
	char via[160];	      /* policy: the processes that the operator came through */
	char from[64];	      /* policy: the other end of the operator's connection */
	char spiffe_id[2049]; /* or local identity's name; trust domain for bundle notices */
	char cgroup_path[1024];
	char serial[64];
	char issuer[256];
	char digest[65]; /* policy: SHA-256, hex */
	char text[512];	 /* reason, or operator's comment */
	uint8_t leaf_sha256[32];
	uint64_t other_id; /* as cgroup_id and cgroup_path: of the other one that it is about */
	char other_path[1024];
};

struct ipc_fetch {
	struct ipc_header h;
	uint64_t request; /* comes back in the answer */
	uint32_t format;  /* enum bundle_format of what is beside it */
	uint32_t pad;
	char url[1024];
	char ca_file[1024];	       /* https_web; "": the system's authorities */
	char endpoint_spiffe_id[2049]; /* "": https_web */
};

struct ipc_fetched {
	struct ipc_header h;
	uint64_t request;
	char why[400];	      /* it failed */
	uint32_t interrupted; /* 1: by a fault of our own, before the endpoint could say anything */
	uint32_t pad;
};

/* Take bundles from the Workload API on this socket from now on; "": no more. */
struct ipc_workload_watch {
	struct ipc_header h;
	char path[108];
};

struct ipc_workload_bundle {
	struct ipc_header h;
	char trust_domain[256];
};

enum workload_state {
	WORKLOAD_COMPLETE = 1, /* the bundles told since the last state are all there are */
	WORKLOAD_DENIED,       /* PermissionDenied: whatever was told is taken back */
	WORKLOAD_LOST,	       /* no connection, or what came cannot be read: whatever was told stays */
};

struct ipc_workload_state {
	struct ipc_header h;
	uint32_t state; /* enum workload_state */
	uint32_t pad;
	char why[400];
};

/* How the last write to the audit log went. */
struct ipc_audit_state {
	struct ipc_header h;
	int32_t error; /* 0, or a positive errno: it is not written */
	uint32_t pad;
};

/* Largest packet of all. */
#define IPC_MAX_PACKET 8192

/*
 * Sends one packet, of h->len bytes, with `fd` beside it unless it is -1 (not closed). Blocks at most until the socket
 * takes it; with a non-blocking socket returns -EAGAIN. Returns 0 or -errno.
 */
int ipc_send(int sock, const void *packet, int fd);
/* The same for a role that has nothing to do before this is told: waits until a non-blocking socket takes the packet. The enforcer
 * reads all the time, and never waits for a role. */
int ipc_send_wait(int sock, const void *packet, int fd);
/*
 * Receives one packet into `buf` (IPC_MAX_PACKET bytes), sets *fdp to the descriptor beside it (owned by the caller,
 * O_CLOEXEC) or -1. Checks that the packet's size is that of its type and that every string in it ends; what identity and
 * fetcher say to people arrives as printable ASCII, with anything else made '?'. Returns the type, 0 at end of file, or -errno (-EBADMSG: malformed, already closed what came with it).
 */
int ipc_receive(int sock, void *buf, int *fdp);
/* A sealed memfd with these bytes, read offset 0. Returns the descriptor or -errno. */
int ipc_memfd(const char *name, const void *bytes, size_t len);
/* Is it a memfd that nobody can change any more? */
bool ipc_memfd_is_sealed(int fd);
/* Reads a whole memfd (at most `max` bytes) into malloc()ed memory with a NUL behind. Returns 0 or -errno. */
int ipc_memfd_read(int fd, size_t max, void **bytesp, size_t *lenp);

#endif

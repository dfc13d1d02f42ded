/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attest.h - the attestation protocol: proof that the process at the other end of a Unix socket holds the key of an SVID
 * and lives in the cgroup that the daemon sees.
 *
 * Four messages, one SOCK_SEQPACKET packet each: HELLO (chain) -> CHALLENGE (nonce and the daemon's view of the peer)
 * -> PROOF (signature over both) -> RESULT. The client compares the cgroup in the challenge with its own before it
 * signs: a proof relayed for a process of another cgroup is never made. Integers are little-endian. The signed text has
 * the shape of RFC 8446 4.4.3 with a context string of its own, so it can never pass for a TLS signature.
 *
 * The codec below is pure; the client is the only piece that signs, and its check cannot be skipped.
 */
#ifndef BULKHEAD_IDENTITY_ATTEST_H
#define BULKHEAD_IDENTITY_ATTEST_H

#include <openssl/evp.h>
#include <stddef.h>
#include <stdint.h>

#include "svid.h"

#define ATTEST_MAGIC 0x3141545aU /* "ZTA1" */
#define ATTEST_VERSION 1
#define ATTEST_VERSION_DEVICE 2 /* of a HELLO that asks for a device */
#define ATTEST_MAX_ADDRESSES 8
#define ATTEST_MAX_PACKET (SVID_MAX_CHAIN_BYTES + 256)
#define ATTEST_TTL_MS 5000

enum attest_type {
	ATTEST_HELLO = 1,
	ATTEST_CHALLENGE = 2,
	ATTEST_PROOF = 3,
	ATTEST_RESULT = 4,
};

/* Answer codes of RESULT: stable numbers. 1000 + rule number: the SVID breaks that rule (rules.h). */
enum attest_code {
	ATTEST_OK = 0,
	ATTEST_E_PROTOCOL = 1,	   /* malformed or unexpected message */
	ATTEST_E_NO_PIDFD = 2,	   /* this kernel cannot tell who the peer is (SO_PEERPIDFD, PIDFD_GET_INFO) */
	ATTEST_E_PEER_GONE = 3,	   /* the connecting process is dead */
	ATTEST_E_PEER_DIFFERS = 4, /* sender of a message is not the connecting process: passed or inherited socket */
	ATTEST_E_CGROUP_UNMANAGED = 5, /* the peer's cgroup is not below the managed subtree */
	ATTEST_E_CGROUP_MOVED = 6,     /* the peer changed its cgroup during the attestation */
	ATTEST_E_EXPIRED = 7,	       /* challenge older than its time to live */
	ATTEST_E_SIGNATURE = 8,	       /* proof does not verify with the leaf's key, or algorithm not allowed */
	ATTEST_E_BINDING = 9,	       /* the policy binds this ID to another cgroup or unit */
	ATTEST_E_OTHER_IDENTITY = 10,  /* the cgroup carries another identity already */
	ATTEST_E_FULL = 11,	       /* a limit or a map is full */
	ATTEST_E_INTERNAL = 12,
	ATTEST_E_CGROUP_DEPTH = 13,	/* deeper below the managed subtree than tags are looked up */
	ATTEST_E_CGROUP_DELEGATED = 14, /* cgroup is writable by others than root: anyone could enter it */
	ATTEST_E_REVOKED = 15,		/* the identity was revoked after this SVID was issued */
	ATTEST_E_DEVICE = 16,		/* no managed device of this name */
	ATTEST_E_DEVICE_CALLER = 17,	/* only root of the host, in the daemon's network namespace, binds devices */
	ATTEST_E_DEVICE_ADDRESS = 18,	/* an address that cannot be bound, or is another device's */
	ATTEST_E_FILES = 19,		/* an SVID in files, which are not there or not root's alone */
	ATTEST_E_MANY = 20,		/* in the audit log only: more refusals than are told apart */
	ATTEST_E_SVID = 1000,
};

/* Stable name of a code ("binding"), for the audit log and messages. For ATTEST_E_SVID + n: the rule's name. */
const char *attest_code_name(unsigned code);

/* A HELLO may ask for a device instead of the caller's cgroup: root attests for the workload behind it. What it says here is
 * signed with the rest. */
struct attest_device {
	char name[16]; /* of the host's end */
	uint32_t n_addresses;
	uint8_t addresses[ATTEST_MAX_ADDRESSES][16]; /* the workload's; IPv4 as IPv4-mapped addresses */
};

struct attest_challenge {
	uint8_t nonce[32];
	uint8_t boot_id[16];
	uint64_t cgroup_id;
	uint64_t pidfd_inode;
	uint8_t leaf_sha256[32];
	uint64_t issued_ns; /* CLOCK_BOOTTIME */
	uint32_t ttl_ms;
	uint16_t sigalg; /* TLS SignatureScheme that the proof must use */
};

struct attest_result {
	uint32_t code;	      /* enum attest_code */
	uint64_t valid_until; /* UTC seconds; 0 unless ok */
	uint64_t
		renew_after; /* UTC seconds: half of the remaining life; of a refusal: from when on another try may go better, or 0 */
	uint64_t cgroup_id;
	char text[512]; /* the same sentence as in the audit log */
};

/* ---- codec; encoders return the packet's length, or 0 if it does not fit; decoders return 0 or -EBADMSG ---- */

size_t attest_hello_encode(uint8_t *out, size_t size, const struct svid_chain *chain);
/* On success der/len point into `packet`; *np is at most SVID_MAX_CERTIFICATES. */
int attest_hello_decode(const uint8_t *packet, size_t len, const uint8_t **der, size_t *der_len, size_t *np);
/* The same, for a device. The decoder takes both kinds: without a device its name is "". */
size_t attest_hello_encode_device(uint8_t *out, size_t size, const struct svid_chain *chain,
				  const struct attest_device *device);
int attest_hello_decode_device(const uint8_t *packet, size_t len, const uint8_t **der, size_t *der_len, size_t *np,
			       struct attest_device *device);
size_t attest_challenge_encode(uint8_t *out, size_t size, const struct attest_challenge *challenge);
int attest_challenge_decode(const uint8_t *packet, size_t len, struct attest_challenge *challenge);
size_t attest_proof_encode(uint8_t *out, size_t size, uint16_t sigalg, const uint8_t *sig, size_t sig_len);
int attest_proof_decode(const uint8_t *packet, size_t len, uint16_t *sigalg, const uint8_t **sig, size_t *sig_len);
size_t attest_result_encode(uint8_t *out, size_t size, const struct attest_result *result);
int attest_result_decode(const uint8_t *packet, size_t len, struct attest_result *result);

/* ---- signature ---- */

/* The SignatureScheme for a key (P-256/384/521, RSA-PSS, Ed25519), or 0 if its kind is not allowed. */
uint16_t attest_sigalg_for(EVP_PKEY *key);
/* Signs / verifies "64 spaces, context, 0, SHA-256(hello || challenge)". Return 0, or -EKEYREJECTED. */
int attest_sign(EVP_PKEY *key, uint16_t sigalg, const uint8_t *hello, size_t hello_len, const uint8_t *challenge,
		size_t challenge_len, uint8_t *sig, size_t *sig_len);
int attest_verify(EVP_PKEY *key, uint16_t sigalg, const uint8_t *hello, size_t hello_len, const uint8_t *challenge,
		  size_t challenge_len, const uint8_t *sig, size_t sig_len);

/* ---- client ---- */

/*
 * Attests the calling process's cgroup over the daemon's socket at `path`. Checks that the server runs as root and that
 * the challenge names the caller's own cgroup and leaf, before it signs. On success *fdp (if not NULL) is the open
 * connection, owned by the caller. Returns 0 with *result (code may be a refusal), or -errno with `why` filled when
 * there is no answer: no daemon, server not root, or a challenge that was not made for this process (-EPERM).
 */
int attest_client(const char *path, const struct svid_chain *chain, EVP_PKEY *key, struct attest_result *result,
		  int *fdp, char *why, size_t why_size);
/* The same for a device; NULL: for the caller's cgroup. */
int attest_client_device(const char *path, const struct svid_chain *chain, EVP_PKEY *key,
			 const struct attest_device *device, struct attest_result *result, int *fdp, char *why,
			 size_t why_size);

#endif

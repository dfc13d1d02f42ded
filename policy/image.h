/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.h - the compiled policy: a flat, position-independent, bounds-checked block of bytes.
 *
 * It is made by the compiler role, which read hostile text, and opened by the enforcer, which holds CAP_BPF: opening
 * checks every offset, count and index once, so that no later access needs trust. Beside the kernel's tables (abi_policy.h,
 * struct bh_tables) it holds what user space needs: the classifier that maps a SPIFFE ID to its class, the local
 * identities, the bindings of IDs to cgroups, and the names of the rules.
 *
 * The classifier is a deterministic automaton over the segments of an ID, so that classifying costs the length of the
 * ID, not the number of patterns, and needs no backtracking.
 */
#ifndef BULKHEAD_POLICY_IMAGE_H
#define BULKHEAD_POLICY_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POLICY_IMAGE_MAX_BYTES (64U << 20)

struct policy_image;

/*
 * Checks `bytes` and takes a copy. Returns 0, -ENOMEM, or -EBADMSG with what is wrong in *whyp (a literal; may be NULL).
 * Any bytes may be given.
 */
int policy_image_open(struct policy_image **imagep, const void *bytes, size_t len, const char **whyp);

/* Whose the bytes of an image are. */
struct policy_image_owner {
	void (*release)(void *ctx); /* when the image is freed */
	void *ctx;
};

/* Likewise without a copy: of bytes that nobody can change until the owner is told to release them, aligned to 8. Where it does
 * not return 0 they stay the caller's. */
int policy_image_open_unchanging(struct policy_image **imagep, const void *bytes, size_t len,
				 const struct policy_image_owner *owner, const char **whyp);
/* All 0 for one that has a copy. */
const struct policy_image_owner *policy_image_owner(const struct policy_image *image);
void policy_image_freep(struct policy_image **imagep);

/* The whole image as it was opened, for storing or passing on. Borrowed. */
const void *policy_image_bytes(const struct policy_image *image, size_t *lenp);
/* The kernel's tables: struct bh_tables and what follows it. At most BH_TABLES_BYTES. Borrowed. */
const void *policy_image_tables(const struct policy_image *image, size_t *lenp);
/* SHA-256 of the sources' names and texts, as lower-case hex: names the policy in the audit log. Borrowed. */
const char *policy_image_digest(const struct policy_image *image);

/* ---- who ---- */

/* Who index of a SPIFFE ID (already valid by SPIFFE-ID.md). Never fails: an ID that no pattern names is in a class of
 * its own kind, "verified". */
uint32_t policy_image_classify(const struct policy_image *image, const char *spiffe_id);

enum policy_local_kind {
	POLICY_LOCAL_UNIT,   /* a systemd unit */
	POLICY_LOCAL_CGROUP, /* a path under the managed subtree */
};

struct policy_local {
	const char *name; /* identity name in the policy */
	const char *path; /* unit name, or absolute path under the managed subtree */
	enum policy_local_kind kind;
	uint32_t who;
};

/* Local identities, by index. One identity may have several entries (a list). Returns false past the end. Borrowed. */
bool policy_image_local(const struct policy_image *image, size_t index, struct policy_local *local);
/* The local identity that a cgroup carries, by its path relative to the managed subtree ("/system.slice/x.service"). A
 * unit matches a cgroup with its name below *.slice cgroups only: a directory of that name that a user made in a
 * delegated cgroup is not the unit. Exact cgroup only: descendants inherit in the kernel. Returns false if none. */
bool policy_image_local_of(const struct policy_image *image, const char *cgroup_path, struct policy_local *local);
/* Can a local identity lie below this cgroup? Tells which directories need watching. */
bool policy_image_local_below(const struct policy_image *image, const char *cgroup_path);

#define POLICY_ANY_UID UINT32_MAX

/* May this ID, proved by a process of this (real) uid, be carried by that cgroup? An identity with `only:` binds the IDs it matches
 * to cgroups or units (at or below), and to uids. POLICY_ANY_UID: it is not known whose process proved it, so it is nobody's that
 * the ID may be bound to. Returns true, or false with a sentence naming identity and binding in `why`. */
bool policy_image_binding(const struct policy_image *image, const char *spiffe_id, const char *cgroup_path,
			  uint32_t uid, char *why, size_t why_size);

/* ---- rules ---- */

struct policy_rule_name {
	const char *name; /* "default" for number 0 */
	const char *file; /* NULL for the built-in default */
	uint32_t line;
	const char *tier; /* NULL for the default */
};

/* Name of a rule number found in a cell. Returns false if there is no such rule. Borrowed. */
bool policy_image_rule(const struct policy_image *image, uint32_t number, struct policy_rule_name *rule);
uint32_t policy_image_rule_count(const struct policy_image *image);

#endif

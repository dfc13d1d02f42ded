/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bundle_text.h - the text of a trust bundle: PEM certificates, a SPIFFE bundle (a JWK Set, Trust Domain and Bundle section 4,
 * X509-SVID section 6), or DER certificates as the Workload API sends them.
 *
 * A text is refused as a whole where it cannot be told what its publisher meant: then the bundle in force stays. An entry
 * that cannot be used is dropped and told, and the others count: a publisher adds kinds of keys that we have never heard of.
 * A text that is read and has no usable authority is a bundle too: nobody is verified by it (rules 85, 86).
 */
#ifndef BULKHEAD_IDENTITY_BUNDLE_TEXT_H
#define BULKHEAD_IDENTITY_BUNDLE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "spiffe_id.h"

#define BUNDLE_MAX_BYTES (4U << 20)
#define BUNDLE_MAX_AUTHORITIES 256
#define BUNDLE_MAX_TOLD 16 /* entries that a report describes; all are counted */

/* How often a source is asked again, in seconds: what its bundle says, within bounds (rules 82, 83). */
#define BUNDLE_REFRESH_USUAL_S 300
#define BUNDLE_REFRESH_MIN_S 30
#define BUNDLE_REFRESH_MAX_S 86400

enum bundle_format {
	BUNDLE_PEM = 1,
	BUNDLE_JWKS = 2,
	BUNDLE_DER = 3, /* certificates one behind the other */
};

struct bundle_set;

/* One entry that is not used, or (not dropped) that is and needs a word. */
struct bundle_entry {
	unsigned index; /* in the text, from 0 */
	int rule;
	bool dropped;
	char text[200];
};

/* What was found in a text. */
struct bundle_report {
	int rule;	/* that the whole text breaks; 0: it was taken */
	char why[320];	/* "NAME (rule N): what is wrong" */
	bool changed;	/* other authorities than before */
	unsigned total; /* authorities */
	unsigned dropped;
	unsigned n_entries;
	struct bundle_entry entries[BUNDLE_MAX_TOLD];
	bool has_sequence;
	uint64_t sequence;
	uint32_t refresh_s;
};

/*
 * Makes the text the bundle of the trust domain. Refuses one with an older sequence than the bundle that is there (rule 79),
 * and one with the same sequence and other authorities (rule 80); without a sequence the last one counts. Returns the number
 * of authorities; -EINVAL with rule and why filled, and then nothing changed; or -ENOMEM.
 */
int bundle_set_load(struct bundle_set *set, const char *trust_domain, enum bundle_format format, const char *text,
		    size_t len, struct bundle_report *report);

/* An authority, for people and to be told from others. */
struct bundle_authority_info {
	uint8_t id[32];	   /* SHA-256 of the certificate */
	char subject[256]; /* RFC 2253 */
	char key_id[64];   /* subject key identifier; without one the beginning of the key's SHA-256; hex */
	int64_t not_after; /* UTC seconds */
};

/* Authority `i` of a trust domain. Returns whether there is one. */
bool bundle_set_authority(const struct bundle_set *set, const char *trust_domain, size_t i,
			  struct bundle_authority_info *info);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trial_ca.h - a directory that is a certificate authority for trials.
 *
 * It has ca.json, which says what there is, and for each authority N its certificate and key, authority-N.pem and
 * authority-N.key, with intermediate-N-1.pem and .key and so on where there are intermediates. ca.json is written last: what it
 * names is there. The sequence number of the bundle counts up with each change of the authorities. Functions say what is
 * wrong on stderr, and leave the directory as it was.
 */
#ifndef BULKHEAD_CLI_TRIAL_CA_H
#define BULKHEAD_CLI_TRIAL_CA_H

#include <stdbool.h>

#include "cli/trial_cert.h"
#include "identity/spiffe_id.h"

#define TRIAL_MAX_AUTHORITIES 16
#define TRIAL_MAX_INTERMEDIATES 3

struct trial_ca {
	const char *dir; /* borrowed */
	int lock;	 /* the directory, locked */
	char trust_domain[SPIFFE_TRUST_DOMAIN_MAX + 1];
	unsigned intermediates; /* below each authority */
	enum trial_key key;	/* of authorities and intermediates */
	json_int_t sequence;
	size_t n; /* authorities, oldest first; the last one signs */
	unsigned authorities[TRIAL_MAX_AUTHORITIES];
};

void trial_ca_close(struct trial_ca *ca);

/* In a new or empty directory, or with `replace` in the place of a CA that is there. All return 0 or -errno. */
int trial_ca_init(struct trial_ca *ca, const char *dir, const char *trust_domain, unsigned intermediates,
		  enum trial_key key, time_t until, bool replace);
int trial_ca_open(struct trial_ca *ca, const char *dir);
/* Makes another authority, with its intermediates, that signs from here on. */
int trial_ca_rotate(struct trial_ca *ca, enum trial_key key, time_t until);
/* Takes authority `number` out of the bundle and removes its files; not the last one. -EINVAL: there is none of that number. */
int trial_ca_remove(struct trial_ca *ca, unsigned number);

/* The certificate of an authority; malloc()ed PEM in *pemp if that is not NULL. */
int trial_ca_authority(const struct trial_ca *ca, unsigned number, X509 **certp, char **pemp);
/* `id` is a valid SPIFFE ID. Makes an SVID by the newest authority: its chain (leaf and intermediates) and key in PEM, malloc()ed. */
int trial_ca_issue(const struct trial_ca *ca, const char *id, enum trial_key key, time_t until, char **chainp,
		   char **keyp);

#endif

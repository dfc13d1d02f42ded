/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crypto.h - which implementations of cryptography a process uses, where it must be those of a FIPS module.
 *
 * OpenSSL finds an algorithm in a library context. The usual one has what the system's configuration activates; a process
 * that is bound to FIPS 140 makes one of its own, which has the FIPS provider and the encoders of the base provider and
 * finds nothing that is not approved. It is then made the one that every call finds which names none: a context passed as
 * a parameter would leave the call that forgets it, ours or a library's, with the usual algorithms, and nobody would see.
 * Here that call fails instead.
 */
#ifndef BULKHEAD_IDENTITY_CRYPTO_H
#define BULKHEAD_IDENTITY_CRYPTO_H

#include <openssl/x509.h>
#include <stddef.h>

struct crypto;

/*
 * Makes a context of the FIPS provider, has the module test itself, and checks that what identities need is in it.
 * `config` is what `openssl fipsinstall` wrote; NULL: fipsmodule.cnf in OpenSSL's own directory, or none where the module
 * carries its checksum in itself. Reads files, so call it before they are out of reach. Returns 0; 1 with `why`, which
 * says what is missing and what to do; or -ENOMEM.
 */
int crypto_fips_new(struct crypto **cryptop, const char *config, char *why, size_t why_size);
/* A context of one provider that finds only what has these properties. Returns likewise. */
int crypto_provider_new(struct crypto **cryptop, const char *provider, const char *properties, char *why,
			size_t why_size);
/* From here on, and until it is freed, it is what this thread uses. */
void crypto_use(struct crypto *crypto);
void crypto_freep(struct crypto **cryptop);

/* In FIPS mode: the name of the certificate's kind of key, if the module has nothing for it; else NULL. `name` is room for
 * it. */
const char *crypto_lacks_key(X509 *certificate, char *name, size_t size);

#endif

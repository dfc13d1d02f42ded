/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wrong_file.h - what a file is that was given as certificates or as a key and is none, and how to make one of it.
 *
 * Agents and issuers hand out the same certificate in a dozen forms. A parser only says that it is not the one it reads; people
 * want to know which one they have. These are hints: what a file is good for is decided elsewhere.
 */
#ifndef BULKHEAD_CLI_WRONG_FILE_H
#define BULKHEAD_CLI_WRONG_FILE_H

#include <stddef.h>

/* Of a file that is no chain of certificates in PEM, leaf first: what it seems to be and what to do. A static text, NULL if there is
 * nothing to say. */
const char *wrong_chain_hint(const char *text, size_t len);
/* Likewise of one that is no private key in PEM without a passphrase. */
const char *wrong_key_hint(const char *text, size_t len);
/* Likewise of one that is no bundle: `json` says what its name made us take it for. */
const char *wrong_bundle_hint(const char *text, size_t len, int json);

#endif

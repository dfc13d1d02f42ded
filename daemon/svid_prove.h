/* SPDX-License-Identifier: Apache-2.0 */
/*
 * svid_prove.h - an SVID in files of root's, proved in the identity role on behalf of the cgroup that the configuration binds
 * it to (spiffe-helper and its like write such files).
 *
 * The files are read by the enforcer and parsed here, where there is nothing to gain. The chain is verified by the same rules
 * as one that a workload shows; that the key is the leaf's is proved by a signature over a nonce, checked with the leaf's
 * public key: that a key file names the right public key says nothing of its private part. The key is kept no longer than
 * that takes.
 */
#ifndef BULKHEAD_DAEMON_SVID_PROVE_H
#define BULKHEAD_DAEMON_SVID_PROVE_H

#include "identity/bundle.h"
#include "ipc.h"

/* Both files at most, as one body: length of the chain's PEM (uint32_t), that PEM, the key's PEM. */
#define SVID_FILES_MAX_CHAIN (2U * SVID_MAX_CHAIN_BYTES)
#define SVID_FILES_MAX_KEY 65536U
#define SVID_FILES_MAX_BYTES (4U + SVID_FILES_MAX_CHAIN + SVID_FILES_MAX_KEY)

/* Answers IPC_SVID_FILES: `out` is an IPC_SVID_PROVED with code 0, or with a code and a sentence. */
void svid_prove(const struct bundle_set *bundles, const struct ipc_svid_files *files, int fd,
		struct ipc_tag_request *out);

#endif

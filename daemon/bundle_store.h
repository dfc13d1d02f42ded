/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bundle_store.h - the last bundle of each trust domain that was in force, in the state directory.
 *
 * It is there for a daemon that starts again. A bundle that cannot be read at that moment is no reason to know nobody any
 * more, and an older one must not pass for a new one: its sequence is in the text that is kept. Files are replaced as a
 * whole.
 */
#ifndef BULKHEAD_DAEMON_BUNDLE_STORE_H
#define BULKHEAD_DAEMON_BUNDLE_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "identity/bundle_text.h"

struct bundle_kept {
	char trust_domain[256];
	char origin[512];
	uint32_t source; /* enum bundle_source_kind */
	uint32_t format; /* enum bundle_format */
	int64_t loaded_s;
};

/* Returns 0 or -errno; after an error what was there before is there. */
int bundle_store_write(int dir_fd, const struct bundle_kept *kept, const void *text, size_t len);
/* Returns 0 with the text, which the caller frees; -ENOENT; -EBADMSG: not such a file, or damaged; or -errno. */
int bundle_store_read(int dir_fd, const char *trust_domain, struct bundle_kept *kept, char **textp, size_t *lenp);
/* Returns 0, also if there is none, or -errno. */
int bundle_store_remove(int dir_fd, const char *trust_domain);
/* Calls `one` for each trust domain of which something is kept; it may remove it. Returns 0 or -errno. */
int bundle_store_each(int dir_fd, void (*one)(void *ctx, const char *trust_domain), void *ctx);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * svid_dir.h - a directory of root's in which something keeps an SVID fresh: svid.pem and svid_key.pem, as spiffe-helper
 * writes them, by rename or in place.
 *
 * Who can write there can make itself the identity of the workload that the directory is bound to, so every directory on the
 * way must be root's and writable for nobody else (but /tmp's kind, where others cannot replace what is root's), and no
 * component a symbolic link; the files likewise, and the key readable for no stranger. Files are looked at, not watched: they
 * count when they have not changed between two looks, so neither half of a write nor a pair that is being replaced is taken.
 * Nothing is parsed here.
 *
 * Links are followed in one shape, that of a volume which the kubelet writes: both files are links to ..data/NAME, and ..data is one
 * to a directory beside it, which holds a state as a whole and is replaced as a whole. Each link must be root's, so that the directory
 * may be of /tmp's kind, as a mounted Secret is; the one beside it must be root's alone. They are read one by one and never
 * resolved by the kernel: no other way through them exists.
 */
#ifndef BULKHEAD_DAEMON_SVID_DIR_H
#define BULKHEAD_DAEMON_SVID_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#define SVID_DIR_CHAIN "svid.pem"
#define SVID_DIR_KEY "svid_key.pem"

struct svid_dir {
	const char *path; /* borrowed */
	struct stat seen[2], taken[2];
	bool again; /* the next look takes them though they are the same */
};

/* Looks once. Returns 1 with both files in a memfd (svid_prove.h says how) that the caller owns, 0 if there is nothing new, or
 * -errno with a sentence. */
int svid_dir_look(struct svid_dir *dir, int *fdp, char *why, size_t why_size);

#endif

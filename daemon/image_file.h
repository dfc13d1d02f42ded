/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_file.h - an image in a sealed memfd, as the compiler leaves it: it is checked, used, and passed on to the auditor where it
 * lies. Nobody can change what is sealed, so there need not be a copy of it for each.
 */
#ifndef BULKHEAD_DAEMON_IMAGE_FILE_H
#define BULKHEAD_DAEMON_IMAGE_FILE_H

#include "policy/image.h"

/*
 * Opens what the memfd holds. Takes over the descriptor, whatever it returns: 0, -EBADMSG with what is wrong in *whyp (a literal;
 * may be NULL), -EPERM where it is not sealed, or -errno.
 */
int image_file_open(struct policy_image **imagep, int fd, const char **whyp);
/* The descriptor of an image that was opened so, borrowed; -1: it was not. */
int image_file_fd(const struct policy_image *image);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_check.h - is a block of bytes an image of which every access is safe?
 *
 * Everything that is later used as an offset, an index or a count is looked at here, once: by user space through the
 * view, and by the kernel programs, which mask offsets but trust them otherwise. What an image says (which rule decides
 * what) is not judged: the compiler may say anything, but nothing that reads or writes out of bounds or never ends.
 */
#ifndef BULKHEAD_POLICY_IMAGE_CHECK_H
#define BULKHEAD_POLICY_IMAGE_CHECK_H

#include <stddef.h>

#include "policy/image.h"
#include "policy/image_format.h"

#define IMAGE_START_STATE 1U

struct image_view {
	const struct image_header *head;
	const void *tables;
	const char *strings;
	const struct image_rule *rules;
	const struct image_local *locals;
	const struct image_state *states;
	const struct image_edge *edges;
	const struct image_class *classes;
	const uint32_t *class_bindings;
	const struct image_binding *bindings;
	const struct image_place *places;
};

/* `bytes` must be aligned to 8 and outlive the view. Returns NULL, or what is wrong (a literal). */
const char *image_check(struct image_view *view, const void *bytes, size_t len);
/* The tables alone. */
const char *image_check_tables(const void *bytes, size_t len);

#endif

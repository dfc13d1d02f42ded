/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diff_text.h - changes in words: from joined boxes to what policy_diff (diff.h) shows.
 */
#ifndef BULKHEAD_POLICY_DIFF_TEXT_H
#define BULKHEAD_POLICY_DIFF_TEXT_H

#include "policy/diff.h"
#include "policy/diff_boxes.h"

struct diff_memory {
	struct arena arena;
	struct diff_boxes changes;
};

/* Makes diff->changes of diff->memory->changes. Returns 0 or -ENOMEM. */
int diff_write_changes(struct policy_diff *diff, const struct policy *const policies[2]);

#endif

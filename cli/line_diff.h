/* SPDX-License-Identifier: Apache-2.0 */
/*
 * line_diff.h - the difference of two texts, in the unified format.
 */
#ifndef BULKHEAD_CLI_LINE_DIFF_H
#define BULKHEAD_CLI_LINE_DIFF_H

#include "cli/cli.h"

/* Prints to stdout what turns one text into the other. Where they differ in thousands of lines, the difference may be larger
 * than it has to be. */
void line_diff_print(const struct cli *cli, const char *name, const char *old, size_t old_len, const char *new,
		     size_t new_len);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * yaml_quick.h - the part of YAML that nearly every policy is written in, read ten times as fast as by libyaml.
 *
 * A hundred thousand rules are ten megabytes of YAML, and reading them was most of what applying them took. What is read
 * here is a strict part of the language: block maps and lists, flow ones, also over several lines, scalars of one line that
 * are plain or quoted without an escape, comments; all of it in ASCII. Whatever else comes up (an anchor, a tag, a tab, a
 * block scalar, a second document, a mistake) ends the attempt, and libyaml reads the text from its beginning: so this
 * reader has nothing to report, and only one thing to be right about: what it does read, libyaml reads as the same tree,
 * positions included. test_yaml_quick.c holds it to that.
 */
#ifndef BULKHEAD_POLICY_YAML_QUICK_H
#define BULKHEAD_POLICY_YAML_QUICK_H

#include "policy/yaml_tree.h"

/*
 * Reads `text`, without a byte order mark, as source number `source`. Returns the root, made in the arena with a copy of the
 * text, and the number of nodes in *nodesp; NULL where the text is not for this reader, has more than `max_nodes`, or memory
 * ran out: what was made in the arena by then stays there.
 */
struct node *yaml_quick_read(struct arena *arena, const char *text, size_t len, uint32_t source, uint32_t max_nodes,
			     uint32_t *nodesp);

#endif

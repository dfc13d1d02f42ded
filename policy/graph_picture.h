/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_picture.h - what the picture and the page around it share.
 */
#ifndef BULKHEAD_POLICY_GRAPH_PICTURE_H
#define BULKHEAD_POLICY_GRAPH_PICTURE_H

#include "policy/graph.h"

/* "identity", "local", "network", "both" or "builtin": the class of a node in the style. */
const char *graph_kind_name(enum graph_kind kind);
/* What stands behind an arrow, in lines, as XML text. */
void graph_write_edge_text(const struct graph *graph, const struct graph_edge *edge, FILE *out);
/* The <svg> element. Returns 0 or -ENOMEM. */
int graph_write_picture(const struct graph *graph, FILE *out);

#endif

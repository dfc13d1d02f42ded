/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics_text.h - a snapshot as text for Prometheus and its like.
 *
 * OpenMetrics 1.0 is the format; the older text format of Prometheus (version 0.0.4) is for readers that ask for text/plain.
 * They differ in how families of counters are named, in types, and in the line that ends an exposition. docs/metrics.md
 * lists the families: names and meanings are kept.
 */
#ifndef BULKHEAD_DAEMON_METRICS_TEXT_H
#define BULKHEAD_DAEMON_METRICS_TEXT_H

#include <stddef.h>

#include "metrics.h"

enum metrics_format {
	METRICS_OPENMETRICS,
	METRICS_PROMETHEUS,
	METRICS_FORMATS,
};

/* The value of Content-Type. */
const char *metrics_content_type(enum metrics_format format);
/* *textp is malloc()ed. Returns 0 or -ENOMEM. */
int metrics_text(const struct metrics *metrics, enum metrics_format format, char **textp, size_t *lenp);

#endif

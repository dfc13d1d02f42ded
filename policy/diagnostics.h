/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diagnostics.h - collecting what is wrong with a policy (the public half is in policy.h).
 *
 * A diagnostic keeps a copy of its source line, so it can be printed after the sources are gone. Text comes from
 * hostile files and goes to terminals: control characters and broken UTF-8 never get through.
 */
#ifndef BULKHEAD_POLICY_DIAGNOSTICS_H
#define BULKHEAD_POLICY_DIAGNOSTICS_H

#include <stdarg.h>

#include "policy/memory.h"
#include "policy/policy.h"
#include "policy/suggestion.h"

/* After so many the rest is only counted: a broken generator must not make a report of gigabytes. */
#define POLICY_MAX_DIAGNOSTICS 1000U

/* A place in a source. */
struct position {
	uint32_t source;
	uint32_t line;	 /* from 1; 0: the file as a whole */
	uint32_t column; /* from 1, in characters */
};

/* The sources must outlive the adding, not the diagnostics. Returns NULL when out of memory. */
struct policy_diagnostics *diagnostics_new(const struct policy_source *sources, size_t n_sources);
/* Adds one, with the hint given by diagnostics_hint() afterwards. */
void diagnostics_add(struct policy_diagnostics *diagnostics, enum policy_severity severity, struct position at,
		     const char *format, va_list args);
void diagnostics_error(struct policy_diagnostics *diagnostics, struct position at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void diagnostics_warning(struct policy_diagnostics *diagnostics, struct position at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void diagnostics_note(struct policy_diagnostics *diagnostics, struct position at, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Gives the diagnostic added last a code; a literal. */
void diagnostics_code(struct policy_diagnostics *diagnostics, const char *code);
/* Gives the diagnostic added last a hint. */
void diagnostics_hint(struct policy_diagnostics *diagnostics, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* Is another search among so many names worth its time? False after the first hundred, or many names. */
bool diagnostics_may_suggest(struct policy_diagnostics *diagnostics, size_t names);
/* Will a hint to the diagnostic added last be seen? */
bool diagnostics_may_hint(const struct policy_diagnostics *diagnostics);
/* Sorts by file and line. Returns 0 or -ENOMEM if anything was lost for want of memory. */
int diagnostics_finish(struct policy_diagnostics *diagnostics);
/* After diagnostics_finish: more can be added, with the same sources, until it is called again. */
void diagnostics_reopen(struct policy_diagnostics *diagnostics, const struct policy_source *sources);
const char *diagnostics_source_name(const struct policy_diagnostics *diagnostics, uint32_t source);

#endif

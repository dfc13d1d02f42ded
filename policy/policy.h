/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy.h - policy text in; diagnostics, compiled image and explanations out.
 *
 * A policy is the union of its sources (files). It is parsed to a tree that keeps the position of every node, checked as
 * a whole, and compiled to an image (image.h). The library is pure: no files, no clock, no globals. Limits on size and
 * nesting bound the memory and time that a hostile text can cost.
 */
#ifndef BULKHEAD_POLICY_POLICY_H
#define BULKHEAD_POLICY_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define POLICY_MAX_SOURCE_BYTES (16U << 20)
#define POLICY_MAX_SOURCES 1024U

/* One file of a policy, as its owner read it. Borrowed: must outlive the policy. */
struct policy_source {
	const char *name; /* as shown in diagnostics */
	const char *text; /* `len` bytes, any bytes */
	size_t len;
};

/* ---- diagnostics ---- */

enum policy_severity {
	POLICY_ERROR,
	POLICY_WARNING,
	POLICY_NOTE, /* nothing to mend, but good to know */
};

struct policy_diagnostic {
	enum policy_severity severity;
	const char *file;
	unsigned line;	 /* from 1; 0: the file as a whole */
	unsigned column; /* from 1, in characters */
	const char *text;
	const char *hint; /* "did you mean ...", "defined at FILE:LINE"; NULL if there is none */
	const char *code; /* what kind of warning, for programs and to disable it (lint.h); NULL if it has none */
};

struct policy_diagnostics;

void policy_diagnostics_freep(struct policy_diagnostics **diagnosticsp);
size_t policy_diagnostics_count(const struct policy_diagnostics *diagnostics, enum policy_severity severity);
/* In the order of files and lines. Returns NULL past the end. Borrowed. */
const struct policy_diagnostic *policy_diagnostics_get(const struct policy_diagnostics *diagnostics, size_t index);
/* "error", "warning", "note" */
const char *policy_severity_name(enum policy_severity severity);
/* Takes those with this code out. */
void policy_diagnostics_drop(struct policy_diagnostics *diagnostics, const char *code);
/* Writes each as `FILE:LINE:COL: error: TEXT`, or `warning: TEXT [CODE]`, the source line, a caret, and the hint. `colour`:
 * ANSI colours. */
void policy_diagnostics_print(const struct policy_diagnostics *diagnostics, FILE *out, bool colour);

/* ---- parse and check ---- */

struct policy;

/*
 * Parses and checks the sources as one policy. All errors are collected, not only the first. On success *policyp is the
 * policy and *diagnosticsp holds warnings (possibly none); on bad input *policyp is NULL and *diagnosticsp says why.
 * Both are owned by the caller. Returns 0 (valid), 1 (invalid), or -ENOMEM.
 */
int policy_parse(struct policy **policyp, struct policy_diagnostics **diagnosticsp, const struct policy_source *sources,
		 size_t n_sources);
void policy_freep(struct policy **policyp);

size_t policy_rule_count(const struct policy *policy);
size_t policy_identity_count(const struct policy *policy);

/* ---- compile ---- */

/*
 * Compiles to an image (image.h), the same bytes for the same sources. Returns 0; 1 if the tables would not fit, with
 * the size and the limit in *errorp (owned by the caller); or -ENOMEM. *imagep is malloc()ed.
 */
int policy_compile(const struct policy *policy, void **imagep, size_t *lenp, char **errorp);

/* ---- explain ---- */

/* One end of a flow as an operator writes it: SPIFFE ID, name of a local identity, a built-in name (`unidentified`,
 * `host`, `world`), an address, or one of the former with `@ADDRESS`. An end given by address only is `world`. */
struct policy_judgement {
	bool judged; /* false: this end is outside any managed workload, it judges nothing */
	bool allow;
	bool audit;	  /* allowed only because the rule that denies it is in audit mode */
	const char *tier; /* of the rule; NULL when no rule decided */
	const char *rule; /* name; "default" when no rule decided */
	const char *file; /* of the rule, or of `defaults`; NULL for the built-in default */
	unsigned line;
};

struct policy_explanation {
	bool allow; /* both judgements */
	struct policy_judgement egress;
	struct policy_judgement ingress;
};

/*
 * Judges a flow with the compiled tables, by the function that the kernel programs use, as at `now` (seconds since 1970:
 * what `until` of a rule is compared with). `service` as in a rule, one port: `tcp/5432`, `icmp/echo-request`. Strings in *explanation are borrowed from the image. Returns 0, or 1 with the
 * reason in *errorp (owned by the caller) when an end or the service cannot be understood.
 */
struct policy_image;
int policy_explain(const struct policy_image *image, const char *from, const char *to, const char *service, int64_t now,
		   struct policy_explanation *explanation, char **errorp);

#endif

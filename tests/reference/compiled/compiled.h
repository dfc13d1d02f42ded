/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compiled.h - a reference policy, as the policy library reads and compiles it: what the reference is compared with.
 */
#ifndef BULKHEAD_TESTS_COMPILED_H
#define BULKHEAD_TESTS_COMPILED_H

#include "bpf/abi.h"
#include "policy/image.h"
#include "policy/policy.h"
#include "tests/reference/reference.h"

struct ref_compiled {
	struct policy *policy;
	struct policy_image *image;
};

typedef int (*ref_compiler)(const struct policy *policy, void **bytesp, size_t *lenp, char **errorp);

/* By a compiler of one's own. */
void ref_compile_by(ref_compiler compile, struct ref_compiled *compiled, const struct ref_policy *policy);
/* Ends the program with the reason where the library refuses the policy: it is valid by construction. */
void ref_compile(struct ref_compiled *compiled, const struct ref_policy *policy);
/* Likewise, as if the policy were so large that selectors that fit many are kept apart from those that fit few. */
void ref_compile_apart(struct ref_compiled *compiled, const struct ref_policy *policy);
void ref_compiled_clear(struct ref_compiled *compiled);
/* What `explain` takes, as the reference has it: the reverse of ref_end_format(). Ends the program if it cannot be read. */
void ref_end_parse(const char *text, struct ref_end *out);
/* Who index of an end. */
uint32_t ref_who(const struct policy_image *image, const struct ref_end *end);
/* Its address as the kernel has it. An end without one gets an address that is in no network of the policy; returns false if
 * there is none. */
bool ref_address(const struct ref_policy *policy, const struct ref_end *end, struct bh_addr *address);
/* The cell that a verdict must have. */
uint32_t ref_cell(struct ref_verdict verdict);
/* Prints the policy and the flow of a difference. */
void ref_report(const struct ref_policy *policy, const struct ref_flow *flow, uint64_t seed, const char *what);

#endif

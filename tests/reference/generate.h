/* SPDX-License-Identifier: Apache-2.0 */
/*
 * generate.h - what the parts of the generator share: the texts in the making, and chance.
 */
#ifndef BULKHEAD_TESTS_GENERATE_H
#define BULKHEAD_TESTS_GENERATE_H

#include "tests/reference/reference.h"

enum section { IDENTITIES, NETWORKS, SERVICES, RULES, HEAD, SECTIONS };

/* The texts in the making: each file's sections, put together at the end in any order. */
struct writer {
	struct ref_policy *policy;
	FILE *out[REF_MAX_FILES][SECTIONS];
	char *text[REF_MAX_FILES][SECTIONS];
	size_t size[REF_MAX_FILES][SECTIONS];
	FILE *now; /* where the item at hand is written */
};

static inline int below(struct writer *w, int n)
{
	return (int)ref_random(w->policy, (uint32_t)n);
}

/* ---- generate_names.c ---- */

/* Those that services are made of: flows hit their ends. */
#define GENERATE_PORTS 10
extern const int generate_ports[GENERATE_PORTS];

void make_id(struct ref_policy *policy, char *out, bool pattern);
struct ref_set *set_new(struct writer *w);
struct ref_set *make_algebra(struct writer *w, int known, int depth);
void make_identity(struct writer *w, int number);
void make_address(struct ref_policy *policy, unsigned char bytes[16], bool v4);
void make_network(struct writer *w, int number);
void make_service(struct writer *w, struct ref_service *service);
void make_service_name(struct writer *w, int number);

#endif

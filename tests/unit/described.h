/* SPDX-License-Identifier: Apache-2.0 */
/*
 * described.h - what has to hold of a description (identity/describe.h), whatever the certificate is. What does not hold ends the
 * test, by cmocka's assertions.
 */
#ifndef BULKHEAD_TESTS_UNIT_DESCRIBED_H
#define BULKHEAD_TESTS_UNIT_DESCRIBED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "identity/describe.h"
#include "tests/chains/chains.h"

static inline bool names(const struct certificate_description *description, int rule)
{
	for (unsigned i = 0; i < description->n_problems; i++) {
		if (description->problems[i].rule == rule)
			return true;
	}
	return false;
}

static inline void expect_printable(const char *text)
{
	for (; *text != '\0'; text++)
		assert_true(*text >= ' ' && *text <= '~');
}

static inline void expect_all_printable(const struct certificate_description *d)
{
	const char *const texts[] = {d->spiffe_id, d->subject,	 d->issuer, d->serial,
				     d->key,	   d->signature, d->usage,  d->extended};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		expect_printable(texts[i]);
	for (unsigned i = 0; i < d->n_problems; i++)
		expect_printable(d->problems[i].detail);
}

/* Certificates, and chains in which one cannot be read. */
struct described {
	unsigned good, bad, unreadable;
};

/* What no certificate shows on its own: who vouches for it, and what stands above it. */
static inline bool is_of_the_path(int rule)
{
	return rule == 44 || rule == 58 || rule == 61 || rule == 65;
}

static inline void check_certificate(const struct chain_case *c, size_t i, const struct certificate_description *d,
				     struct described *tally)
{
	expect_all_printable(d);
	/* Further certificates may be there to be passed over. */
	if (c->told == 0 && c->n <= 2) {
		if (d->n_problems != 0)
			fail_msg("%s, certificate %zu: accepted, but described with rule %d: %s", c->name, i,
				 d->problems[0].rule, d->problems[0].detail);
		tally->good++;
	}
	/* A CA in the place of the leaf is described as the CA that it is. */
	if (c->told == 0 || c->depth != (int)i || is_of_the_path(c->told) || (i == 0 && d->role != DESCRIBE_LEAF))
		return;
	if (!names(d, c->told))
		fail_msg("%s, certificate %zu: refused by rule %d, and described with %u others", c->name, i, c->told,
			 d->n_problems);
	tally->bad++;
}

/* Each certificate shows on its own what it will be refused for. */
static inline void check_described(const struct chain_case *c, struct described *tally)
{
	struct certificate_list *list = NULL;
	struct certificate_description description;
	char *pem = chains_pem(c->chain, c->n), why[256] = "";
	int r = certificate_list_parse(&list, pem, strlen(pem), why, sizeof(why));

	free(pem);
	if (r != 0) {
		assert_int_equal(c->told, 201);
		assert_true(why[0] != '\0');
		tally->unreadable++;
		return;
	}
	assert_int_equal(certificate_list_count(list), c->n);
	for (size_t i = 0; i < c->n; i++) {
		certificate_describe(list, i, c->at, &description);
		check_certificate(c, i, &description, tally);
	}
	certificate_list_freep(&list);
}

#endif

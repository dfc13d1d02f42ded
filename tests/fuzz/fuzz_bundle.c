/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_bundle.c - any bytes as a trust bundle of each form. The first byte says which. What is refused changes nothing and
 * says why; what is taken can be asked for its authorities, and is taken again.
 */
#include <stdlib.h>
#include <string.h>

#include "identity/bundle_text.h"
#include "identity/svid.h"
#include "tests/fuzz/fuzz.h"

#define TD "prod.example"

#define MUST(condition)                                                                                                \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			abort();                                                                                       \
	} while (0)

static void check_text(const char *text, size_t size)
{
	MUST(memchr(text, '\0', size) != NULL);
	for (; *text != '\0'; text++)
		MUST(*text >= ' ' && *text <= '~');
}

static void check_report(const struct bundle_report *report, int r)
{
	MUST(r >= 0 ? report->rule == 0 && (unsigned)r == report->total : report->rule != 0);
	MUST(report->total <= BUNDLE_MAX_AUTHORITIES && report->n_entries <= BUNDLE_MAX_TOLD);
	MUST(report->refresh_s >= BUNDLE_REFRESH_MIN_S && report->refresh_s <= BUNDLE_REFRESH_MAX_S);
	check_text(report->why, sizeof(report->why));
	for (unsigned i = 0; i < report->n_entries; i++)
		check_text(report->entries[i].text, sizeof(report->entries[i].text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bundle_set *set = NULL;
	struct bundle_authority_info info;
	struct bundle_report first, second;
	enum bundle_format format;
	int r;

	if (size == 0 || bundle_set_new(&set) < 0)
		return 0;
	format = data[0] == 'P' ? BUNDLE_PEM : data[0] == 'D' ? BUNDLE_DER : BUNDLE_JWKS;
	r = bundle_set_load(set, TD, format, (const char *)data + 1, size - 1, &first);
	check_report(&first, r);
	MUST(bundle_set_authorities(set, TD) == (r < 0 ? -2 : r)); /* -ENOENT */
	for (size_t i = 0; bundle_set_authority(set, TD, i, &info); i++) {
		check_text(info.subject, sizeof(info.subject));
		check_text(info.key_id, sizeof(info.key_id));
	}
	MUST(bundle_set_load(set, TD, format, (const char *)data + 1, size - 1, &second) == r);
	check_report(&second, r);
	MUST(r < 0 || (!second.changed && second.sequence == first.sequence));
	bundle_set_freep(&set);
	return 0;
}

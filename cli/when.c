/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/when.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/instant.h"

#define FORM "a time is 2026-11-21T08:00:00Z, or 90s, 30min, 12h, 7d ago"
#define MAX_AGO 1000000000UL /* of whatever unit */

static int64_t unit_seconds(const char *unit)
{
	static const struct {
		const char *name;
		int64_t seconds;
	} units[] = {{"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(unit, units[i].name) == 0)
			return units[i].seconds;
	return 0;
}

const char *cli_parse_when(const char *text, int64_t now, int64_t *secondsp)
{
	size_t digits = strspn(text, "0123456789");
	int64_t unit = unit_seconds(text + digits);

	if (digits && digits < 11 && unit) {
		unsigned long ago = strtoul(text, NULL, 10);

		if (ago > MAX_AGO)
			return "too long ago";
		*secondsp = now - (int64_t)ago * unit;
		return NULL;
	}
	switch (instant_parse(secondsp, text)) {
	case INSTANT_OK:
		return NULL;
	case INSTANT_NO_ZONE:
		return "the time zone is missing: Z for UTC, or +01:00";
	case INSTANT_DATE:
		return "the time of day is missing, as in 2026-11-21T08:00:00Z";
	case INSTANT_NO_SUCH:
		return "there is no such time";
	case INSTANT_FRACTION:
		return "no parts of a second";
	case INSTANT_FORM:
		break;
	}
	return FORM;
}

bool cli_parse_timestamp(const char *text, int64_t *secondsp)
{
	const char *dot = strchr(text, '.');
	char whole[64];

	if (dot)
		snprintf(whole, sizeof(whole), "%.*s%s", (int)(dot - text < 32 ? dot - text : 32), text,
			 dot + 1 + strspn(dot + 1, "0123456789"));
	else
		snprintf(whole, sizeof(whole), "%s", text);
	return instant_parse(secondsp, whole) == INSTANT_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/format.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cli_format_duration(int64_t seconds, char *out, size_t size)
{
	if (seconds <= 0)
		snprintf(out, size, "expired");
	else if (seconds < 120)
		snprintf(out, size, "%" PRId64 " s", seconds);
	else if (seconds < 2 * 3600)
		snprintf(out, size, "%" PRId64 " min", seconds / 60);
	else if (seconds < 48 * 3600)
		snprintf(out, size, "%" PRId64 " h %" PRId64 " min", seconds / 3600, seconds / 60 % 60);
	else
		snprintf(out, size, "%" PRId64 " d %" PRId64 " h", seconds / 86400, seconds / 3600 % 24);
}

void cli_format_bytes(uint64_t bytes, char *out, size_t size)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes / 1024;
	size_t unit = 0;

	if (bytes < 1024) {
		snprintf(out, size, "%" PRIu64 " B", bytes);
		return;
	}
	while (value >= 1024 && unit < 3) {
		value /= 1024;
		unit++;
	}
	snprintf(out, size, value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

int cli_parse_count(const char *text, unsigned long max, unsigned long *out)
{
	char *end;

	if (*text < '0' || *text > '9')
		return -1;
	*out = strtoul(text, &end, 10);
	return *end || !*out || *out > max ? -1 : 0;
}

int cli_parse_duration(const char *text, unsigned long min, unsigned long max, unsigned long *seconds)
{
	static const struct {
		const char *name;
		unsigned long seconds;
	} units[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
	unsigned long n;
	char *unit;

	if (*text < '0' || *text > '9')
		return -1;
	n = strtoul(text, &unit, 10);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(unit, units[i].name) != 0)
			continue;
		if (n > max / units[i].seconds || n * units[i].seconds < min)
			return -1;
		*seconds = n * units[i].seconds;
		return 0;
	}
	return -1;
}

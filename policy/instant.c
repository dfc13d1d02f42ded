/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "policy/instant.h"

#define DAY 86400

/* Exactly `n` digits. Moves on only if they are there. */
static bool take_digits(const char **atp, int n, int *valuep)
{
	const char *at = *atp;
	int value = 0;

	for (int i = 0; i < n; i++, at++) {
		if (*at < '0' || *at > '9')
			return false;
		value = value * 10 + (*at - '0');
	}
	*valuep = value;
	*atp = at;
	return true;
}

static bool take(const char **atp, const char *any_of)
{
	if (!**atp || !strchr(any_of, **atp))
		return false;
	++*atp;
	return true;
}

/* Days since 1970-01-01 in the proleptic Gregorian calendar, of years from 0 on. The year is counted from March, so that
 * the day that leap years have is the last one. */
static int64_t days_of(int year, int month, int day)
{
	int64_t y = month > 2 ? year : year - 1;
	int64_t era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
	int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int days_in(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap);
}

/* "Z", or "+hh:mm" as seconds to take off. */
static enum instant_problem parse_zone(int64_t *offsetp, const char *at)
{
	int hour, minute, sign = *at == '-' ? -1 : 1;

	*offsetp = 0;
	if (!*at)
		return INSTANT_NO_ZONE;
	if (take(&at, "Zz"))
		return *at ? INSTANT_FORM : INSTANT_OK;
	if (!take(&at, "+-") || !take_digits(&at, 2, &hour) || !take(&at, ":") || !take_digits(&at, 2, &minute) || *at)
		return INSTANT_FORM;
	if (hour > 23 || minute > 59)
		return INSTANT_NO_SUCH;
	*offsetp = sign * (hour * 3600 + minute * 60);
	return INSTANT_OK;
}

enum instant_problem instant_parse(int64_t *secondsp, const char *text)
{
	int year, month, day, hour, minute, second;
	enum instant_problem problem;
	const char *at = text;
	int64_t offset;

	if (!take_digits(&at, 4, &year) || !take(&at, "-") || !take_digits(&at, 2, &month) || !take(&at, "-") ||
	    !take_digits(&at, 2, &day))
		return INSTANT_FORM;
	if (!*at)
		return INSTANT_DATE;
	if (!take(&at, "Tt ") || !take_digits(&at, 2, &hour) || !take(&at, ":") || !take_digits(&at, 2, &minute) ||
	    !take(&at, ":") || !take_digits(&at, 2, &second))
		return INSTANT_FORM;
	if (*at == '.' || *at == ',')
		return INSTANT_FRACTION;
	problem = parse_zone(&offset, at);
	if (problem != INSTANT_OK)
		return problem;
	if (month < 1 || month > 12 || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 59)
		return INSTANT_NO_SUCH;
	*secondsp = days_of(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
	return INSTANT_OK;
}

void instant_format(char out[INSTANT_TEXT_BYTES], int64_t seconds)
{
	int64_t days = seconds >= 0 ? seconds / DAY : (seconds - DAY + 1) / DAY, rest = seconds - days * DAY;
	int year = 1970, month = 1;

	/* Whole centuries first: what is left is at most a hundred years to count. */
	while (days_of(year + 100, 1, 1) <= days)
		year += 100;
	while (days_of(year, 1, 1) > days)
		year--;
	while (days_of(year + 1, 1, 1) <= days)
		year++;
	while (month < 12 && days_of(year, month + 1, 1) <= days)
		month++;
	snprintf(out, INSTANT_TEXT_BYTES, "%04d-%02d-%02dT%02d:%02d:%02dZ", year % 10000, month,
		 (int)(days - days_of(year, month, 1)) % 32 + 1, (int)(rest / 3600) % 24, (int)(rest / 60 % 60),
		 (int)(rest % 60));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Section D, rules 62 and 74: validity, to the second, and the forms in which its ends may be written. */
#include "tests/chains/chains.h"

/* Valid from 1000 s ago for 2000 s. */
#define EDGES .from = -1000, .until = 1000

static void edges(struct chain_maker *maker)
{
	static const struct chain_recipe recipes[] = {
		{NO("time-leaf-expired", 62, 0), LEAF(.from = -100, .until = -10)},
		{NO("time-leaf-future", 62, 0), LEAF(.from = 100)},
		{NO("time-leaf-never", 62, 0), LEAF(.from = 100, .until = -100)},
		{NO("time-int-expired", 62, 1), BETWEEN(.from = -100, .until = -10)},
		{NO("time-int-future", 62, 1), BETWEEN(.from = 100)},
		{NO("time-root-expired", 62, 2), ROOT(.from = -100, .until = -10)},
		{NO("time-root-future", 62, 2), ROOT(.from = 100)},
		{NO("time-leaf-second-before", 62, 0), LEAF(EDGES), .at = -1001},
		{OK("time-leaf-first-second", 62), LEAF(EDGES), .at = -1000},
		{OK("time-leaf-last-second", 62), LEAF(EDGES), .at = 999},
		{NO("time-leaf-second-of-end", 62, 0), LEAF(EDGES), .at = 1000},
		{NO("time-leaf-second-after", 62, 0), LEAF(EDGES), .at = 1001},
		{NO("time-int-second-before", 62, 1), BETWEEN(EDGES), .at = -1001},
		{OK("time-int-first-second", 62), BETWEEN(EDGES), .at = -1000},
		{OK("time-int-last-second", 62), BETWEEN(EDGES), .at = 999},
		{NO("time-int-second-of-end", 62, 1), BETWEEN(EDGES), .at = 1000},
		{NO("time-root-second-before", 62, 2), ROOT(EDGES), .at = -1001},
		{OK("time-root-first-second", 62), ROOT(EDGES), .at = -1000},
		{OK("time-root-last-second", 62), ROOT(EDGES), .at = 999},
		{NO("time-root-second-of-end", 62, 2), ROOT(EDGES), .at = 1000},
		{OK("time-leaf-outlives-int", 74), LEAF(.until = 5000), BETWEEN(EDGES)},
		{OK("time-leaf-outlives-root", 74), LEAF(.until = 5000), ROOT(EDGES)},
		{OK("time-leaf-older-than-int", 62), LEAF(.from = -3000), BETWEEN(.from = -500)},
	};

	CHAINS_MAKE_ALL(maker, recipes);
}

struct form {
	const char *name;
	int told;
	const char *at;	   /* which end */
	const char *value; /* element with tag and length */
	size_t len;
};

#define FORM(told, at, text) told, at, text, sizeof(text) - 1
#define UTC(text) "\x17" text
#define GENERALIZED(text) "\x18" text

/* RFC 5280 4.1.2.5: UTCTime or GeneralizedTime, each to the second, in Greenwich time, without a fraction. */
static const struct form forms[] = {
	{"time-form-utc", FORM(0, DER_NOT_AFTER,
			       UTC("\x0d"
				   "491231235959Z"))},
	{"time-form-utc-1950", FORM(0, DER_NOT_BEFORE,
				    UTC("\x0d"
					"500101000000Z"))},
	{"time-form-utc-wraps", FORM(62, DER_NOT_AFTER,
				     UTC("\x0d"
					 "500101000000Z"))},
	{"time-form-utc-no-seconds", FORM(62, DER_NOT_AFTER,
					  UTC("\x0b"
					      "4912312359Z"))},
	{"time-form-utc-offset", FORM(62, DER_NOT_AFTER,
				      UTC("\x11"
					  "491231235959+0000"))},
	{"time-form-utc-no-z", FORM(62, DER_NOT_AFTER,
				    UTC("\x0c"
					"491231235959"))},
	{"time-form-utc-month-13", FORM(62, DER_NOT_AFTER,
					UTC("\x0d"
					    "491331235959Z"))},
	{"time-form-utc-day-0", FORM(62, DER_NOT_AFTER,
				     UTC("\x0d"
					 "491200235959Z"))},
	{"time-form-utc-february-30", FORM(62, DER_NOT_AFTER,
					   UTC("\x0d"
					       "480230235959Z"))},
	{"time-form-utc-february-29", FORM(0, DER_NOT_AFTER,
					   UTC("\x0d"
					       "480229235959Z"))},
	{"time-form-utc-hour-24", FORM(62, DER_NOT_AFTER,
				       UTC("\x0d"
					   "491231240000Z"))},
	{"time-form-utc-second-60", FORM(62, DER_NOT_AFTER,
					 UTC("\x0d"
					     "491231235960Z"))},
	{"time-form-utc-letters", FORM(62, DER_NOT_AFTER,
				       UTC("\x0d"
					   "4912x1235959Z"))},
	{"time-form-utc-empty", FORM(62, DER_NOT_AFTER, UTC("\x00"))},
	{"time-form-generalized", FORM(0, DER_NOT_AFTER,
				       GENERALIZED("\x0f"
						   "20500101000000Z"))},
	{"time-form-generalized-9999", FORM(0, DER_NOT_AFTER,
					    GENERALIZED("\x0f"
							"99991231235959Z"))},
	{"time-form-generalized-early", FORM(0, DER_NOT_AFTER,
					     GENERALIZED("\x0f"
							 "20491231235959Z"))},
	{"time-form-generalized-1900", FORM(0, DER_NOT_BEFORE,
					    GENERALIZED("\x0f"
							"19000101000000Z"))},
	{"time-form-generalized-fraction", FORM(62, DER_NOT_AFTER,
						GENERALIZED("\x11"
							    "20500101000000.5Z"))},
	{"time-form-generalized-offset", FORM(62, DER_NOT_AFTER,
					      GENERALIZED("\x13"
							  "20500101000000+0000"))},
	{"time-form-generalized-no-seconds", FORM(62, DER_NOT_AFTER,
						  GENERALIZED("\x0d"
							      "205001010000Z"))},
	{"time-form-generalized-no-z", FORM(62, DER_NOT_AFTER,
					    GENERALIZED("\x0e"
							"20500101000000"))},
	{"time-form-before-fraction", FORM(62, DER_NOT_BEFORE,
					   GENERALIZED("\x11"
						       "20000101000000.5Z"))},
	{"time-form-before-offset", FORM(62, DER_NOT_BEFORE,
					 UTC("\x11"
					     "000101000000+0000"))},
	{"time-form-before-no-seconds", FORM(62, DER_NOT_BEFORE,
					     UTC("\x0b"
						 "0001010000Z"))},
};

void recipes_time(struct chain_maker *maker)
{
	edges(maker);
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		const struct form *form = &forms[i];

		chains_make(maker, &(struct chain_recipe){
					   .name = form->name,
					   .rule = 62,
					   .told = form->told,
					   .leaf.edits = {{form->at, DER_REPLACE, form->value, form->len}},
				   });
	}
	chains_make(maker, &(struct chain_recipe){
				   NO("time-form-int-fraction", 62, 1),
				   .between.edits = {{DER_NOT_AFTER, DER_REPLACE,
						      BYTES(GENERALIZED("\x11"
									"20500101000000.5Z"))}},
			   });
}

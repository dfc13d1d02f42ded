/* SPDX-License-Identifier: Apache-2.0 */
/*
 * schema.h - the language as a JSON Schema (draft-07, which editors know best): they complete, explain and underline with it.
 *
 * It says what a schema can say: keys, words, forms of names, IDs, addresses and services. Whether names are defined, used
 * once and mean what is asked for, only policy_parse() says. A test compares the two.
 */
#ifndef BULKHEAD_POLICY_SCHEMA_H
#define BULKHEAD_POLICY_SCHEMA_H

/* The schema as JSON text (schema.json). */
const char *policy_schema(void);

#endif

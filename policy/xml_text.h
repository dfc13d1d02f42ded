/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xml_text.h - text of others within XML or HTML.
 */
#ifndef BULKHEAD_POLICY_XML_TEXT_H
#define BULKHEAD_POLICY_XML_TEXT_H

#include <stdio.h>

/* Between tags, or within a quoted attribute. XML has no control characters but newline and tab, not even escaped: '?' stands
 * for them. */
void xml_text_write(const char *text, FILE *out);

#endif

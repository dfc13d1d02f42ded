// SPDX-License-Identifier: Apache-2.0
#include "policy/xml_text.h"

void xml_text_write(const char *text, FILE *out)
{
	for (; *text; text++)
		switch (*text) {
		case '&':
			fputs("&amp;", out);
			break;
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		case '\'':
			fputs("&#39;", out);
			break;
		default:
			putc((unsigned char)*text < 0x20 && *text != '\n' && *text != '\t' ? '?' : *text, out);
		}
}

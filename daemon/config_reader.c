/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void config_reader_close(struct config_reader *r)
{
	if (r->have_event)
		yaml_event_delete(&r->event);
	yaml_parser_delete(&r->parser);
}

int config_flaw_at(struct config_reader *r, const yaml_mark_t *mark, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	config_say(r->why, r->why_size, "%s:%zu:%zu: error: %s", r->name, mark->line + 1, mark->column + 1, text);
	return 1;
}

int config_reader_next(struct config_reader *r)
{
	if (r->have_event)
		yaml_event_delete(&r->event);
	r->have_event = false;
	if (yaml_parser_parse(&r->parser, &r->event)) {
		r->have_event = true;
		return 0;
	}
	if (r->parser.error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	return config_flaw_at(r, &r->parser.problem_mark, "%s", r->parser.problem ? r->parser.problem : "not YAML");
}

int config_scalar(struct config_reader *r, const char *what, const char **textp)
{
	const yaml_event_t *e = &r->event;

	if (e->type != YAML_SCALAR_EVENT)
		return config_flaw_at(r, &e->start_mark, "%s must be a plain text", what);
	if (e->data.scalar.anchor || e->data.scalar.tag)
		return config_flaw_at(r, &e->start_mark, "anchors and tags are not supported");
	*textp = (const char *)e->data.scalar.value;
	if (strlen(*textp) != e->data.scalar.length)
		return config_flaw_at(r, &e->start_mark, "%s contains a NUL byte", what);
	return 0;
}

int config_item_scalar(struct config_reader *r, const char *what, char *out, size_t size)
{
	const char *text;
	int rc = config_scalar(r, what, &text);

	if (rc)
		return rc;
	if (strchr(text, ','))
		return config_flaw_at(r, &r->event.start_mark, "a name has no comma");
	if (strlen(text) >= size)
		return config_flaw_at(r, &r->event.start_mark, "a name is longer than %zu bytes", size - 1);
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

int config_list_read(struct config_reader *r, const char *what, config_item_read *read, char *out, size_t size)
{
	char item[2 * CONFIG_PATH_MAX];
	size_t used = 0;

	out[0] = '\0';
	for (;;) {
		yaml_mark_t start;
		int rc = config_reader_next(r);

		if (rc || r->event.type == YAML_SEQUENCE_END_EVENT)
			return rc;
		start = r->event.start_mark;
		rc = read(r, what, item, sizeof(item));
		if (rc)
			return rc;
		used += (size_t)snprintf(out + used, size - used, "%s%s", used ? "," : "", item);
		if (used >= size)
			return config_flaw_at(r, &start, "%s is longer than %zu bytes", what, size - 1);
	}
}

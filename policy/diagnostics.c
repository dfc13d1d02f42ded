/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/diagnostics.h"
#include "policy/text.h"

#define MAX_SUGGESTIONS 100U
#define MAX_NAMES_COMPARED ((size_t)4 << 20) /* by all suggestions; about a second */
#define MAX_LINE_CHARS 160U		     /* of a source line shown */

struct diagnostic {
	struct policy_diagnostic public;
	struct position at;
	size_t order;
	const char *line; /* source line, printable; NULL: none to show */
	unsigned caret;	  /* characters before the caret in `line` */
};

/* Places of a source, so many characters apart: a report of a thousand errors must not read the file, or the one line that
 * it is, a thousand times. */
#define MILESTONE_CHARS 4096U

struct milestone {
	uint32_t line;
	uint32_t column;
	size_t offset;
};

struct milestones {
	struct milestone *items; /* NULL: not made yet */
	size_t n;
};

struct policy_diagnostics {
	struct arena arena;
	const struct policy_source *sources;
	const char **names;
	size_t n_sources;
	struct milestones *milestones; /* by source, made when first needed */
	struct diagnostic *items;
	size_t n;
	size_t capacity;
	size_t suppressed;
	size_t counts[POLICY_NOTE + 1];
	unsigned suggestions;
	size_t names_compared;
	bool last_suppressed;
};

struct policy_diagnostics *diagnostics_new(const struct policy_source *sources, size_t n_sources)
{
	struct policy_diagnostics *diagnostics = calloc(1, sizeof(*diagnostics));

	if (!diagnostics)
		return NULL;
	diagnostics->sources = sources;
	diagnostics->n_sources = n_sources;
	diagnostics->names = arena_array(&diagnostics->arena, n_sources, sizeof(char *));
	diagnostics->milestones = arena_array(&diagnostics->arena, n_sources, sizeof(struct milestones));
	for (size_t i = 0; i < n_sources && !diagnostics->arena.out_of_memory; i++)
		diagnostics->names[i] = text_printable(&diagnostics->arena, sources[i].name, strlen(sources[i].name));
	if (diagnostics->arena.out_of_memory)
		policy_diagnostics_freep(&diagnostics);
	return diagnostics;
}

void policy_diagnostics_freep(struct policy_diagnostics **diagnosticsp)
{
	struct policy_diagnostics *diagnostics = *diagnosticsp;

	if (!diagnostics)
		return;
	arena_free(&diagnostics->arena);
	free(diagnostics->items);
	free(diagnostics);
	*diagnosticsp = NULL;
}

/* To the next character. */
static void step(const struct policy_source *source, struct milestone *at)
{
	if (text_line_break(source->text, source->len, at->offset)) {
		at->line++;
		at->column = 0;
	}
	at->column++;
	at->offset += text_char_len(source->text + at->offset, source->len - at->offset);
}

static void make_milestones(struct policy_diagnostics *diagnostics, uint32_t index)
{
	const struct policy_source *source = &diagnostics->sources[index];
	struct milestones *milestones = &diagnostics->milestones[index];
	struct milestone at = {1, 1, 0};

	milestones->items =
		arena_array(&diagnostics->arena, source->len / MILESTONE_CHARS + 1, sizeof(*milestones->items));
	if (!milestones->items)
		return;
	if (source->len >= 3 && memcmp(source->text, "\xef\xbb\xbf", 3) == 0)
		at.offset = 3;
	milestones->items[milestones->n++] = at;
	for (size_t chars = 1; at.offset < source->len; chars++) {
		step(source, &at);
		if (chars % MILESTONE_CHARS == 0)
			milestones->items[milestones->n++] = at;
	}
}

static bool is_before(const struct milestone *a, uint32_t line, uint32_t column)
{
	return a->line < line || (a->line == line && a->column < column);
}

/* Where a column of a line begins. Returns false where the source has no such place. */
static bool find_offset(struct policy_diagnostics *diagnostics, struct position place, size_t *offsetp)
{
	const struct policy_source *source = &diagnostics->sources[place.source];
	struct milestones *milestones = &diagnostics->milestones[place.source];
	size_t low = 0, high;
	struct milestone at;

	if (!milestones->items)
		make_milestones(diagnostics, place.source);
	high = milestones->n;
	if (!high)
		return false;
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (is_before(&milestones->items[middle], place.line, place.column))
			low = middle;
		else
			high = middle;
	}
	at = milestones->items[low];
	while (is_before(&at, place.line, place.column) && at.offset < source->len)
		step(source, &at);
	*offsetp = at.offset;
	return at.line == place.line;
}

/* Keeps the line, or of a long one the part around the column. */
static void keep_line(struct policy_diagnostics *diagnostics, struct diagnostic *item)
{
	const struct policy_source *s = &diagnostics->sources[item->at.source];
	struct position from = item->at;
	size_t start, stop;

	if (!item->at.line)
		return;
	from.column = item->at.column > MAX_LINE_CHARS * 3 / 4 ? item->at.column - MAX_LINE_CHARS / 2 + 1 : 1;
	if (!find_offset(diagnostics, from, &start))
		return;
	stop = start;
	for (unsigned chars = 0; chars < MAX_LINE_CHARS && stop < s->len; chars++) {
		if (s->text[stop] == '\n' || s->text[stop] == '\r')
			break;
		stop += text_char_len(s->text + stop, s->len - stop);
	}
	item->line = text_printable(&diagnostics->arena, s->text + start, stop - start);
	item->caret = item->at.column > from.column ? item->at.column - from.column : 0;
}

void diagnostics_add(struct policy_diagnostics *diagnostics, enum policy_severity severity, struct position at,
		     const char *format, va_list args)
{
	struct diagnostic item = {.at = at, .order = diagnostics->n};
	char *text = NULL;

	diagnostics->last_suppressed = diagnostics->n >= POLICY_MAX_DIAGNOSTICS;
	diagnostics->counts[severity]++;
	if (diagnostics->last_suppressed) {
		diagnostics->suppressed++;
		return;
	}
	if (array_grow(&diagnostics->items, &diagnostics->capacity, diagnostics->n, sizeof(item)) < 0 ||
	    vasprintf(&text, format, args) < 0) {
		diagnostics->arena.out_of_memory = true;
		diagnostics->last_suppressed = true;
		return;
	}
	item.public = (struct policy_diagnostic){
		.severity = severity,
		.file = diagnostics->names[at.source],
		.line = at.line,
		.column = at.column,
		.text = text_printable(&diagnostics->arena, text, strlen(text)),
	};
	free(text);
	keep_line(diagnostics, &item);
	diagnostics->items[diagnostics->n++] = item;
}

void diagnostics_error(struct policy_diagnostics *diagnostics, struct position at, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	diagnostics_add(diagnostics, POLICY_ERROR, at, format, args);
	va_end(args);
}

void diagnostics_warning(struct policy_diagnostics *diagnostics, struct position at, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	diagnostics_add(diagnostics, POLICY_WARNING, at, format, args);
	va_end(args);
}

void diagnostics_note(struct policy_diagnostics *diagnostics, struct position at, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	diagnostics_add(diagnostics, POLICY_NOTE, at, format, args);
	va_end(args);
}

void diagnostics_code(struct policy_diagnostics *diagnostics, const char *code)
{
	if (!diagnostics->last_suppressed && diagnostics->n)
		diagnostics->items[diagnostics->n - 1].public.code = code;
}

void diagnostics_hint(struct policy_diagnostics *diagnostics, const char *format, ...)
{
	va_list args;
	char *text = NULL;

	if (diagnostics->last_suppressed || !diagnostics->n)
		return;
	va_start(args, format);
	if (vasprintf(&text, format, args) < 0) {
		text = NULL;
		diagnostics->arena.out_of_memory = true;
	}
	va_end(args);
	if (text)
		diagnostics->items[diagnostics->n - 1].public.hint =
			text_printable(&diagnostics->arena, text, strlen(text));
	free(text);
}

bool diagnostics_may_suggest(struct policy_diagnostics *diagnostics, size_t names)
{
	if (diagnostics->last_suppressed || diagnostics->suggestions >= MAX_SUGGESTIONS ||
	    names > MAX_NAMES_COMPARED - diagnostics->names_compared)
		return false;
	diagnostics->suggestions++;
	diagnostics->names_compared += names;
	return true;
}

bool diagnostics_may_hint(const struct policy_diagnostics *diagnostics)
{
	return !diagnostics->last_suppressed;
}

static int compare_diagnostics(const void *a, const void *b)
{
	const struct diagnostic *x = a, *y = b;

	if (x->at.source != y->at.source)
		return x->at.source < y->at.source ? -1 : 1;
	if (x->at.line != y->at.line)
		return x->at.line < y->at.line ? -1 : 1;
	if (x->at.column != y->at.column)
		return x->at.column < y->at.column ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

int diagnostics_finish(struct policy_diagnostics *diagnostics)
{
	if (diagnostics->n)
		qsort(diagnostics->items, diagnostics->n, sizeof(*diagnostics->items), compare_diagnostics);
	diagnostics->sources = NULL;
	return diagnostics->arena.out_of_memory ? -ENOMEM : 0;
}

void diagnostics_reopen(struct policy_diagnostics *diagnostics, const struct policy_source *sources)
{
	diagnostics->sources = sources;
}

const char *diagnostics_source_name(const struct policy_diagnostics *diagnostics, uint32_t source)
{
	return diagnostics->names[source];
}

size_t policy_diagnostics_count(const struct policy_diagnostics *diagnostics, enum policy_severity severity)
{
	return diagnostics->counts[severity];
}

const struct policy_diagnostic *policy_diagnostics_get(const struct policy_diagnostics *diagnostics, size_t index)
{
	return index < diagnostics->n ? &diagnostics->items[index].public : NULL;
}

const char *policy_severity_name(enum policy_severity severity)
{
	static const char *const names[] = {"error", "warning", "note"};

	return names[severity];
}

void policy_diagnostics_drop(struct policy_diagnostics *diagnostics, const char *code)
{
	size_t kept = 0;

	for (size_t i = 0; i < diagnostics->n; i++) {
		const struct policy_diagnostic *d = &diagnostics->items[i].public;

		if (d->code && strcmp(d->code, code) == 0)
			diagnostics->counts[d->severity]--;
		else
			diagnostics->items[kept++] = diagnostics->items[i];
	}
	diagnostics->n = kept;
}

static void print_line(const struct diagnostic *item, FILE *out, const char *caret_colour, const char *reset)
{
	size_t at = 0, len = strlen(item->line);

	fprintf(out, "  %s\n  ", item->line);
	for (unsigned i = 0; i < item->caret; i++) {
		/* A tab stays a tab, so that the caret stands below its character. */
		fputc(at < len && item->line[at] == '\t' ? '\t' : ' ', out);
		at += at < len ? text_char_len(item->line + at, len - at) : 0;
	}
	fprintf(out, "%s^%s\n", caret_colour, reset);
}

void policy_diagnostics_print(const struct policy_diagnostics *diagnostics, FILE *out, bool colour)
{
	const char *bold = colour ? "\033[1m" : "", *red = colour ? "\033[1;31m" : "";
	const char *yellow = colour ? "\033[1;33m" : "", *green = colour ? "\033[1;32m" : "";
	const char *reset = colour ? "\033[0m" : "";
	const char *const severity_colours[] = {red, yellow, bold};

	for (size_t i = 0; i < diagnostics->n; i++) {
		const struct diagnostic *item = &diagnostics->items[i];
		const struct policy_diagnostic *d = &item->public;
		fprintf(out, "%s%s:", bold, d->file);
		if (d->line)
			fprintf(out, "%u:%u:", d->line, d->column);
		fprintf(out, "%s %s%s:%s %s", reset, severity_colours[d->severity], policy_severity_name(d->severity),
			reset, d->text);
		if (d->code)
			fprintf(out, " [%s]", d->code);
		fputc('\n', out);
		if (item->line)
			print_line(item, out, green, reset);
		if (d->hint)
			fprintf(out, "  hint: %s\n", d->hint);
	}
	if (diagnostics->suppressed)
		fprintf(out, "and %zu more\n", diagnostics->suppressed);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_svg.c - the picture. Its colours follow the reader's light or dark scheme; on paper they are those of light. What
 * stands behind a node or an arrow is its <title>, which browsers show.
 */
#include <errno.h>
#include <string.h>

#include "policy/graph_layout.h"
#include "policy/graph_picture.h"
#include "policy/xml_text.h"

static const char style[] =
	".graph{--ground:#fff;--ink:#1f2328;--line:#57606a;--faint:#8c959f;--no:#cf222e;"
	"--identity:#ddf4ff;--local:#dafbe1;--network:#fff8c5;--both:#fbefff;--builtin:#eaeef2;"
	"background:var(--ground);font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:12px}\n"
	"@media (prefers-color-scheme:dark){.graph{--ground:#0d1117;--ink:#e6edf3;--line:#9198a1;--faint:#6e7681;"
	"--no:#ff7b72;--identity:#0c2d6b;--local:#033a16;--network:#4b2900;--both:#3c1e70;--builtin:#30363d}}\n"
	"@media print{.graph{--ground:#fff;--ink:#000;--line:#333;--faint:#666;--no:#b00;--identity:#fff;--local:#fff;"
	"--network:#fff;--both:#fff;--builtin:#fff}}\n"
	".graph .ground{fill:var(--ground)}\n"
	".graph text{fill:var(--ink)}\n"
	".graph .node rect{stroke:var(--line);fill:var(--identity)}\n"
	".graph .node.local rect{fill:var(--local)}.graph .node.network rect{fill:var(--network)}"
	".graph .node.both rect{fill:var(--both)}.graph .node.builtin rect{fill:var(--builtin)}\n"
	".graph .node text{text-anchor:middle}\n"
	".graph .edge path{fill:none;stroke:var(--line);stroke-width:1.3}\n"
	".graph .edge path.wide{stroke:transparent;stroke-width:11;pointer-events:stroke}\n"
	".graph .edge.part path.line{stroke-dasharray:6 4}\n"
	".graph .edge.denied path.line{stroke:var(--no);stroke-dasharray:2 4}\n"
	".graph .edge rect{fill:var(--ground);opacity:.85}\n"
	".graph .edge text{font-size:10px}.graph .edge.denied text{fill:var(--no)}\n"
	".graph .arrow{fill:var(--line)}.graph .arrow.no{fill:var(--no)}\n"
	".graph .off{opacity:.12}.graph .on path.line{stroke-width:2.6}.graph .on rect{opacity:1}\n";

const char *graph_kind_name(enum graph_kind kind)
{
	static const char *const names[] = {
		[GRAPH_IDENTITY] = "identity", [GRAPH_LOCAL] = "local",	    [GRAPH_NETWORK] = "network",
		[GRAPH_BOTH] = "both",	       [GRAPH_BUILTIN] = "builtin",
	};

	return names[kind];
}

static void write_text(double x, double y, const char *text, FILE *out)
{
	fprintf(out, "<text x=\"%.1f\" y=\"%.1f\">", x, y);
	xml_text_write(text, out);
	fputs("</text>", out);
}

static int write_node(const struct graph_node *node, const struct graph_place *place, uint32_t number,
		      struct arena *arena, FILE *out)
{
	const char *name = graph_shorten(arena, node->name, GRAPH_MAX_NAME);
	bool round = node->kind == GRAPH_NETWORK || node->kind == GRAPH_BUILTIN;

	if (!name)
		return -ENOMEM;
	fprintf(out, "<g class=\"node %s\" data-node=\"%u\"><title>", graph_kind_name(node->kind), number);
	xml_text_write(node->name, out);
	fputs("\n", out);
	xml_text_write(node->about, out);
	fprintf(out, "</title><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"%d\"/>", place->x,
		place->y, place->width, place->height, round ? 14 : 4);
	write_text(place->x + place->width / 2, place->y + place->height / 2 + 4, name, out);
	fputs("</g>\n", out);
	return 0;
}

/* The way of an arrow: curves with level ends between columns, lines across them. */
static void write_way(const struct graph_stroke *stroke, const struct graph_place *from, FILE *out)
{
	if (stroke->loop) {
		fprintf(out, "M%.1f %.1fc-14 -26 26 -26 12 0", from->x + from->width / 2 - 6, from->y);
		return;
	}
	for (uint32_t i = 0; i + 1 < stroke->n_points; i += 2) {
		const struct graph_point *a = &stroke->points[i], *b = &stroke->points[i + 1];
		double middle = (a->x + b->x) / 2;

		fprintf(out, "%c%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f", i ? 'L' : 'M', a->x, a->y, middle, a->y,
			middle, b->y, b->x, b->y);
	}
}

static void begin_stroke(const struct graph *graph, const struct graph_stroke *stroke, FILE *out)
{
	const struct graph_edge *edge = &graph->edges[stroke->edge];

	fprintf(out, "<g class=\"edge%s\" data-edge=\"%u\" data-from=\"%u\" data-to=\"%u\"><title>",
		stroke->denied ? " denied"
		: *edge->all   ? ""
			       : " part",
		stroke->edge, edge->from, edge->to);
	graph_write_edge_text(graph, edge, out);
	fputs("</title>", out);
}

static void write_line(const struct graph *graph, const struct graph_layout *layout, const struct graph_stroke *stroke,
		       FILE *out)
{
	const struct graph_place *from = &layout->nodes[graph->edges[stroke->edge].from];

	begin_stroke(graph, stroke, out);
	fputs("<path class=\"wide\" d=\"", out);
	write_way(stroke, from, out);
	fputs("\"/><path class=\"line\" d=\"", out);
	write_way(stroke, from, out);
	fprintf(out, "\" marker-end=\"url(#%s)\"/></g>\n", stroke->denied ? "no" : "yes");
}

/* Above all lines. */
static void write_label(const struct graph *graph, const struct graph_stroke *stroke, FILE *out)
{
	begin_stroke(graph, stroke, out);
	fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\"/>", stroke->label.x,
		stroke->label.y, stroke->label.width, stroke->label.height);
	for (int i = 0; i < 2 && stroke->lines[i]; i++)
		write_text(stroke->label.x + 3, stroke->label.y + 10.5 + i * GRAPH_LABEL_LINE, stroke->lines[i], out);
	fputs("</g>\n", out);
}

void graph_write_edge_text(const struct graph *graph, const struct graph_edge *edge, FILE *out)
{
	xml_text_write(graph->nodes[edge->from].name, out);
	fputs(" → ", out);
	xml_text_write(graph->nodes[edge->to].name, out);
	fputs("\n", out);
	if (*edge->all)
		xml_text_write(edge->all, out);
	fputs(*edge->all ? "\n" : "", out);
	if (*edge->part) {
		fputs("part of: ", out);
		xml_text_write(edge->part, out);
		fputs("\n", out);
	}
	if (*edge->denied) {
		fputs("denied: ", out);
		xml_text_write(edge->denied, out);
		fputs("\n", out);
	}
	xml_text_write(edge->rules, out);
}

static void write_marker(const char *id, const char *class, FILE *out)
{
	fprintf(out,
		"<marker id=\"%s\" viewBox=\"0 0 8 8\" refX=\"7.5\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" "
		"markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"%s\" d=\"M0 0L8 4L0 8z\"/></marker>",
		id, class);
}

int graph_write_picture(const struct graph *graph, FILE *out)
{
	_cleanup_(graph_layout_freep) struct graph_layout *layout = NULL;
	int r = graph_layout_new(&layout, graph);

	if (r < 0)
		return r;
	fprintf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"graph\" role=\"img\" width=\"%.0f\" height=\"%.0f\" "
		"viewBox=\"0 0 %.0f %.0f\">\n<title>Who may talk to whom: ",
		layout->width, layout->height, layout->width, layout->height);
	xml_text_write(graph->title, out);
	fprintf(out, "</title>\n<style>%s</style>\n<defs>", style);
	write_marker("yes", "arrow", out);
	write_marker("no", "arrow no", out);
	fputs("</defs>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n", out);
	for (uint32_t i = 0; i < layout->n_strokes; i++)
		write_line(graph, layout, &layout->strokes[i], out);
	for (uint32_t i = 0; i < layout->n_strokes; i++)
		write_label(graph, &layout->strokes[i], out);
	for (uint32_t i = 0; i < graph->n_nodes && r == 0; i++)
		r = write_node(&graph->nodes[i], &layout->nodes[i], i, &layout->arena, out);
	fputs("</svg>\n", out);
	return r;
}

int graph_write_svg(const struct graph *graph, FILE *out)
{
	fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", out);
	return graph_write_picture(graph, out);
}

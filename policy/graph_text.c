/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_text.c - the graph in the languages of Graphviz and Mermaid. Names stand in quotes and are escaped; nodes are
 * numbered, so no name is ever read as an identifier.
 */
#include <string.h>

#include "policy/graph.h"

/* The label of an arrow: "pg, ping", "part of: any", or both on two lines. */
static void write_label(const struct graph_edge *edge, const char *newline, void (*write)(const char *text, FILE *out),
			FILE *out)
{
	write(edge->all, out);
	if (*edge->all && *edge->part)
		fputs(newline, out);
	if (*edge->part) {
		write("part of: ", out);
		write(edge->part, out);
	}
}

/* ---- DOT ---- */

static void dot_text(const char *text, FILE *out)
{
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putc('\\', out);
		if (*text == '\n')
			fputs("\\n", out);
		else
			putc(*text, out);
	}
}

static const char *dot_shape(enum graph_kind kind)
{
	switch (kind) {
	case GRAPH_NETWORK:
		return "shape=ellipse";
	case GRAPH_BOTH:
		return "shape=octagon";
	case GRAPH_BUILTIN:
		return "shape=hexagon";
	case GRAPH_LOCAL:
		return "shape=box, peripheries=2";
	default:
		return "shape=box";
	}
}

static void dot_edge(const struct graph_edge *edge, FILE *out)
{
	if (*edge->all || *edge->part) {
		fprintf(out, "  n%u -> n%u [label=\"", edge->from, edge->to);
		write_label(edge, "\\n", dot_text, out);
		fprintf(out, "\"%s, tooltip=\"", *edge->all ? "" : ", style=dashed");
		dot_text(edge->rules, out);
		fputs("\"];\n", out);
	}
	if (*edge->denied) {
		fprintf(out, "  n%u -> n%u [label=\"denied: ", edge->from, edge->to);
		dot_text(edge->denied, out);
		fputs("\", style=dotted, color=red, fontcolor=red, arrowhead=tee, tooltip=\"", out);
		dot_text(edge->rules, out);
		fputs("\"];\n", out);
	}
}

void graph_write_dot(const struct graph *graph, FILE *out)
{
	fputs("digraph policy {\n  rankdir=LR;\n  label=\"", out);
	dot_text(graph->title, out);
	fputs("\";\n  node [fontname=\"monospace\"];\n  edge [fontname=\"monospace\", fontsize=10];\n", out);
	for (uint32_t i = 0; i < graph->n_nodes; i++) {
		fprintf(out, "  n%u [label=\"", i);
		dot_text(graph->nodes[i].name, out);
		fprintf(out, "\", %s, tooltip=\"", dot_shape(graph->nodes[i].kind));
		dot_text(graph->nodes[i].about, out);
		fputs("\"];\n", out);
	}
	for (uint32_t i = 0; i < graph->n_edges; i++)
		dot_edge(&graph->edges[i], out);
	fputs("}\n", out);
}

/* ---- Mermaid ---- */

/* Whatever could be markup, Markdown or the end of the string is written as Mermaid's entity, #CODE; . */
static void mermaid_text(const char *text, FILE *out)
{
	for (; *text; text++) {
		if (*text == '\n')
			fputs("<br/>", out);
		else if (strchr("\"#;`<>&\\*_~|{}[]()", *text))
			fprintf(out, "#%d;", *text);
		else
			putc(*text, out);
	}
}

static void mermaid_node(const struct graph_node *node, uint32_t number, FILE *out)
{
	static const char *const shapes[][2] = {
		[GRAPH_IDENTITY] = {"[", "]"}, [GRAPH_LOCAL] = {"[[", "]]"},   [GRAPH_NETWORK] = {"([", "])"},
		[GRAPH_BOTH] = {"[/", "/]"},   [GRAPH_BUILTIN] = {"{{", "}}"},
	};

	fprintf(out, "  n%u%s\"", number, shapes[node->kind][0]);
	mermaid_text(node->name, out);
	fprintf(out, "\"%s\n", shapes[node->kind][1]);
}

void graph_write_mermaid(const struct graph *graph, FILE *out)
{
	uint32_t n_links = 0;

	fputs("flowchart LR\n", out);
	for (uint32_t i = 0; i < graph->n_nodes; i++)
		mermaid_node(&graph->nodes[i], i, out);
	for (uint32_t i = 0; i < graph->n_edges; i++) {
		const struct graph_edge *edge = &graph->edges[i];

		if (*edge->all || *edge->part) {
			fprintf(out, "  n%u %s|\"", edge->from, *edge->all ? "-->" : "-.->");
			write_label(edge, "<br/>", mermaid_text, out);
			fprintf(out, "\"| n%u\n", edge->to);
			n_links++;
		}
		if (*edge->denied) {
			fprintf(out, "  n%u -.-x|\"denied: ", edge->from);
			mermaid_text(edge->denied, out);
			fprintf(out, "\"| n%u\n  linkStyle %u stroke:#c00\n", edge->to, n_links++);
		}
	}
}

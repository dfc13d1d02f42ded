/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_html.c - one page with the picture, a table of all arrows, and a script that searches both.
 *
 * The page loads nothing, and its Content-Security-Policy allows no script but its own, which is named by its hash: so a
 * name that got past the escaping would still be text. The script takes what it shows from the table as text.
 */

#include "policy/graph_picture.h"
#include "policy/xml_text.h"

static const char style[] =
	":root{color-scheme:light dark;--bg:#fff;--fg:#1f2328;--edge:#d1d9e0;--soft:#59636e}\n"
	"@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--edge:#3d444d;--soft:#9198a1}}\n"
	"body{margin:0;background:var(--bg);color:var(--fg);font:14px/1.45 system-ui,sans-serif}\n"
	"header{position:sticky;top:0;left:0;z-index:1;display:flex;flex-wrap:wrap;gap:.4rem 1.2rem;align-items:center;"
	"padding:.6rem 1rem;background:var(--bg);border-bottom:1px solid var(--edge)}\n"
	"h1{font-size:1rem;margin:0}h1 span{font-weight:normal;color:var(--soft)}\n"
	"input{font:inherit;padding:.2rem .5rem;width:16rem;max-width:100%;color:inherit;background:transparent;"
	"border:1px solid var(--edge);border-radius:4px}\n"
	".legend{color:var(--soft);font-size:12px}.legend b{font-weight:normal;padding:0 "
	".4em;border-radius:3px;color:#1f2328}\n"
	".identity b{background:#ddf4ff}.local b{background:#dafbe1}.network b{background:#fff8c5}.both "
	"b{background:#fbefff}"
	".builtin b{background:#eaeef2}\n"
	"main{overflow:auto}main svg{display:block;margin:0 auto}\n"
	"#about{position:fixed;right:1rem;bottom:1rem;max-width:34rem;padding:.6rem .9rem;background:var(--bg);"
	"border:1px solid var(--edge);border-radius:6px;box-shadow:0 2px 12px #0003;white-space:pre-line;"
	"font:12px/1.5 ui-monospace,monospace;overflow-wrap:anywhere}\n"
	"#about:empty{display:none}\n"
	"table{border-collapse:collapse;margin:1rem;font-size:13px}\n"
	"th,td{text-align:left;vertical-align:top;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--edge);"
	"overflow-wrap:anywhere}\n"
	"td.rules{white-space:pre-line;color:var(--soft)}tr.on td{background:#8c959f22}\n"
	"@media "
	"print{header{position:static}input,#about,.hint{display:none}:root{--bg:#fff;--fg:#000;--edge:#999;--soft:#"
	"333}"
	"main{overflow:visible}main svg{max-width:100%;height:auto}tr{break-inside:avoid}}\n";

static const char script[] =
	"'use strict';\n"
	"const all=(q,e=document)=>[...e.querySelectorAll(q)];\n"
	"const about=document.getElementById('about'),search=document.getElementById('search');\n"
	"const nodes=all('.node'),edges=all('.edge'),rows=all('tbody tr');\n"
	"const text=e=>e.querySelector('title').textContent;\n"
	"let pinned=null;\n"
	"function show(on){\n"
	"  for(const e of [...nodes,...edges])e.classList.toggle('off',on!==null&&!on.has(e));\n"
	"  for(const e of edges)e.classList.toggle('on',on!==null&&on.has(e));\n"
	"}\n"
	"function around(n){\n"
	"  const on=new Set([n]),id=n.dataset.node;\n"
	"  for(const e of edges)if(e.dataset.from===id||e.dataset.to===id){\n"
	"    on.add(e);on.add(nodes[e.dataset.from]);on.add(nodes[e.dataset.to]);\n"
	"  }\n"
	"  return on;\n"
	"}\n"
	"function ends(e){\n"
	"  const same=edges.filter(x=>x.dataset.edge===e.dataset.edge);\n"
	"  return new Set([...same,nodes[e.dataset.from],nodes[e.dataset.to]]);\n"
	"}\n"
	"function found(){\n"
	"  const q=search.value.trim().toLowerCase();\n"
	"  if(!q){for(const r of rows)r.hidden=false;return null;}\n"
	"  const on=new Set();\n"
	"  for(const n of nodes)if(text(n).toLowerCase().includes(q))for(const x of around(n))on.add(x);\n"
	"  for(const e of edges)if(text(e).toLowerCase().includes(q))for(const x of ends(e))on.add(x);\n"
	"  for(const r of rows)r.hidden=!edges.some(e=>e.dataset.edge===r.dataset.edge&&on.has(e));\n"
	"  return on;\n"
	"}\n"
	"function rest(){about.textContent='';for(const r of rows)r.classList.remove('on');show(pinned??found());}\n"
	"function look(e,on){\n"
	"  e.addEventListener('mouseenter',()=>{about.textContent=text(e);show(on(e));\n"
	"    for(const r of rows)r.classList.toggle('on',r.dataset.edge===e.dataset.edge);});\n"
	"  e.addEventListener('mouseleave',rest);\n"
	"  e.addEventListener('click',v=>{v.stopPropagation();pinned=pinned?null:on(e);show(pinned??on(e));});\n"
	"}\n"
	"for(const n of nodes)look(n,around);\n"
	"for(const e of edges)look(e,ends);\n"
	"for(const r of rows){\n"
	"  const of=edges.filter(e=>e.dataset.edge===r.dataset.edge);\n"
	"  r.addEventListener('mouseenter',()=>{if(of.length)show(ends(of[0]));});\n"
	"  r.addEventListener('mouseleave',rest);\n"
	"}\n"
	"document.addEventListener('click',()=>{pinned=null;rest();});\n"
	"search.addEventListener('input',()=>{pinned=null;rest();});\n"
	"document.addEventListener('keydown',v=>{\n"
	"  if(v.key==='Escape'){search.value='';pinned=null;rest();}\n"
	"  if(v.key==='/'&&document.activeElement!==search){v.preventDefault();search.focus();}\n"
	"});\n";

/* SHA-256 of the script in base64: a browser runs nothing else. tests/unit/check_graph.py says the new one after a change. */
#define SCRIPT_HASH "OdhlXIHnLHvDb7VOwcOGIhwNOzUu7mTcfszIpMQ+goc="

static void write_head(const struct graph *graph, FILE *out)
{
	fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
	      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
	      "base-uri 'none'; form-action 'none'; script-src 'sha256-" SCRIPT_HASH
	      "'\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>Who may talk to whom: ",
	      out);
	xml_text_write(graph->title, out);
	fprintf(out, "</title>\n<style>%s</style>\n</head>\n", style);
}

static void write_header(const struct graph *graph, FILE *out)
{
	fputs("<header>\n<h1>Who may talk to whom <span>", out);
	xml_text_write(graph->title, out);
	fprintf(out,
		"</span></h1>\n<input id=\"search\" type=\"search\" placeholder=\"search ( / )\" aria-label=\"search\" "
		"autocomplete=\"off\">\n<span class=\"legend\">%u names, %u arrows · ",
		graph->n_nodes, graph->n_edges);
	fputs("<span class=\"identity\"><b>identity</b></span> <span class=\"local\"><b>unit or cgroup</b></span> "
	      "<span class=\"network\"><b>network</b></span> <span class=\"both\"><b>identity at network</b></span> "
	      "<span class=\"builtin\"><b>built-in</b></span> · solid: everyone in it; dashed: part of them; an arrow "
	      "holds "
	      "for all within its ends</span>\n<span class=\"legend hint\">hover shows the rules, click keeps</span>\n"
	      "</header>\n",
	      out);
}

static void write_row(const struct graph *graph, uint32_t number, FILE *out)
{
	const struct graph_edge *edge = &graph->edges[number];

	fprintf(out, "<tr data-edge=\"%u\"><td>", number);
	xml_text_write(graph->nodes[edge->from].name, out);
	fputs("</td><td>", out);
	xml_text_write(graph->nodes[edge->to].name, out);
	fputs("</td><td>", out);
	xml_text_write(edge->all, out);
	fputs("</td><td>", out);
	xml_text_write(edge->part, out);
	fputs("</td><td>", out);
	xml_text_write(edge->denied, out);
	fputs("</td><td class=\"rules\">", out);
	xml_text_write(edge->rules, out);
	fputs("</td></tr>\n", out);
}

int graph_write_html(const struct graph *graph, FILE *out)
{
	int r;

	write_head(graph, out);
	fputs("<body>\n", out);
	write_header(graph, out);
	fputs("<main>\n", out);
	r = graph_write_picture(graph, out);
	fputs("</main>\n<div id=\"about\" role=\"status\"></div>\n<table>\n<thead><tr><th>from</th><th>to</th><th>all "
	      "of them on</th>"
	      "<th>part of them on</th><th>denied</th><th>rules</th></tr></thead>\n<tbody>\n",
	      out);
	for (uint32_t i = 0; i < graph->n_edges; i++)
		write_row(graph, i, out);
	fprintf(out, "</tbody>\n</table>\n<script>%s</script>\n</body>\n</html>\n", script);
	return r;
}

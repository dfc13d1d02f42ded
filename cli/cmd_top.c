/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli/bus.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/top_pairs.h"

#define INTERVAL_S 2.0
#define INTERVAL_MIN_S 0.1
#define INTERVAL_MAX_S 3600.0
#define COLUMNS 10

struct top {
	struct cli *cli;
	enum top_sort sort;
	double interval; /* 0: none was given */
	bool follow;	 /* refreshes until it is interrupted */
};

static int look(struct top *top, struct top_pairs *pairs)
{
	json_t *answer;
	int code = cli_bus_json(top->cli, "Top", &answer);

	if (code != CLI_OK)
		return code;
	code = top_pairs_read(pairs, answer) ? cli_bus_malformed(top->cli, "Top") : CLI_OK;
	json_decref(answer);
	return code;
}

static void wait_seconds(double seconds)
{
	struct timespec left = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};

	while (nanosleep(&left, &left))
		;
}

/* ---- table ---- */

static const char *format_number(double value, bool rate, char *out, size_t size)
{
	if (value == 0)
		snprintf(out, size, "0");
	else
		snprintf(out, size, rate && value < 100 ? "%.1f" : "%.0f", value);
	return out;
}

static const char *format_bytes(double value, char *out, size_t size)
{
	cli_format_bytes((uint64_t)(value + 0.5), out, size);
	return out;
}

static const char *format_rtt(double us, char *out, size_t size)
{
	if (us < 0)
		snprintf(out, size, "-");
	else
		snprintf(out, size, us < 10000 ? "%.2f ms" : "%.0f ms", us / 1000);
	return out;
}

/* The end of a SPIFFE ID tells more than its beginning. */
static void shorten(const char *name, size_t max, char *out, size_t size)
{
	size_t len = strlen(name);

	if (!max || len <= max)
		snprintf(out, size, "%s", name);
	else
		snprintf(out, size, "\xe2\x80\xa6%s", name + len - (max - 1));
}

static void row_print(struct cli_table *table, const struct top_row *row, bool rates, size_t name_max)
{
	char from[2100], to[2100], flows[32], denied[32], sent[32], received[32], retransmits[32], rtt[32];
	bool tcp = row->total[TOP_RTT_SAMPLES];
	bool bytes = tcp || row->total[TOP_SENT] || row->total[TOP_RECEIVED];

	shorten(row->from, name_max, from, sizeof(from));
	shorten(row->to, name_max, to, sizeof(to));
	cli_table_row(
		table,
		(const char *[COLUMNS]){
			from,
			to,
			row->direction,
			row->protocol,
			format_number(row->shown[TOP_FLOWS], rates, flows, sizeof(flows)),
			format_number(row->shown[TOP_DENIED], rates, denied, sizeof(denied)),
			bytes ? format_bytes(row->shown[TOP_SENT], sent, sizeof(sent)) : "-",
			bytes ? format_bytes(row->shown[TOP_RECEIVED], received, sizeof(received)) : "-",
			tcp ? format_number(row->shown[TOP_RETRANSMITS], rates, retransmits, sizeof(retransmits)) : "-",
			format_rtt(row->rtt_us, rtt, sizeof(rtt)),
		});
}

static void table_print(const struct top *top, const struct top_pairs *pairs, size_t rows, size_t name_max)
{
	struct cli_table *table = cli_table_new(COLUMNS);
	bool rates = pairs->seconds > 0;

	if (rates)
		cli_table_row(table, (const char *[COLUMNS]){"FROM", "TO", "DIRECTION", "PROTO", "FLOWS/S", "DENIED/S",
							     "SENT/S", "RECEIVED/S", "RETRANS/S", "RTT"});
	else
		cli_table_row(table, (const char *[COLUMNS]){"FROM", "TO", "DIRECTION", "PROTO", "FLOWS", "DENIED",
							     "SENT", "RECEIVED", "RETRANS", "RTT"});
	for (size_t i = 0; i < pairs->n && i < rows; i++)
		row_print(table, &pairs->rows[i], rates, name_max);
	cli_table_print(top->cli, table);
}

static void print(const struct top *top, const struct top_pairs *pairs, size_t rows, size_t name_max)
{
	if (!pairs->n) {
		puts("nothing has been judged yet: no workload has had a flow allowed or a packet denied");
		return;
	}
	table_print(top, pairs, rows, name_max);
	if (rows < pairs->n)
		printf("and %zu more; `policyctl top --once` shows all\n", pairs->n - rows);
	for (size_t i = 0; i < pairs->n; i++) {
		if (strcmp(pairs->rows[i].from, "other"))
			continue;
		printf("\"other\" are those that found no room among %" PRIu64 " pairs of identities\n",
		       pairs->pairs_max);
		break;
	}
}

static void screen_print(const struct top *top, const struct top_pairs *pairs)
{
	struct winsize size;
	/* All columns but the names, as wide as they usually are. */
	size_t fixed = 84, name_max;
	char now[64];

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_row || !size.ws_col)
		size = (struct winsize){.ws_row = 24, .ws_col = 80};
	name_max = size.ws_col > fixed + 40 ? (size.ws_col - fixed) / 2 : 20;
	cli_format_time((uint64_t)time(NULL), now, sizeof(now));
	/* From the top left corner, over what stood there. */
	fputs("\033[H\033[J", stdout);
	printf("%s  %" PRIu64 " of %" PRIu64 " pairs of identities, per second over %.1f s\n\n", now,
	       pairs->pairs_counted, pairs->pairs_max, pairs->seconds);
	print(top, pairs, size.ws_row > 8 ? (size_t)size.ws_row - 6 : 2, name_max);
	fflush(stdout);
}

/* ---- running ---- */

static int follow(struct top *top, struct top_pairs *before)
{
	__attribute__((cleanup(top_pairs_clear))) struct top_pairs now = {0};
	double pause = top->interval < 1 ? top->interval : 1; /* nobody likes to wait for the first screen */

	for (;;) {
		int code;

		wait_seconds(pause);
		pause = top->interval;
		code = look(top, &now);
		if (code != CLI_OK)
			return code;
		top_pairs_since(&now, before);
		top_pairs_sort(&now, top->sort);
		screen_print(top, &now);
		if (ferror(stdout))
			return CLI_OK;
		top_pairs_clear(before);
		*before = now;
		now = (struct top_pairs){0};
	}
}

static int once(struct top *top, struct top_pairs *before)
{
	__attribute__((cleanup(top_pairs_clear))) struct top_pairs now = {0};
	struct top_pairs *shown = before;
	int code;

	if (top->interval > 0) {
		wait_seconds(top->interval);
		code = look(top, &now);
		if (code != CLI_OK)
			return code;
		top_pairs_since(&now, before);
		shown = &now;
	}
	top_pairs_sort(shown, top->sort);
	if (top->cli->json)
		cli_print_json(top_pairs_json(shown));
	else
		print(top, shown, SIZE_MAX, 0);
	return CLI_OK;
}

static int parse_interval(const char *text, double *out)
{
	char *end;

	if (*text < '0' || *text > '9')
		return -1;
	*out = strtod(text, &end);
	return *end || !(*out >= INTERVAL_MIN_S && *out <= INTERVAL_MAX_S) ? -1 : 0;
}

static int run(struct cli *cli, int argc, char **argv)
{
	__attribute__((cleanup(top_pairs_clear))) struct top_pairs pairs = {0};
	struct top top = {.cli = cli, .sort = TOP_BY_BYTES, .follow = isatty(STDOUT_FILENO) && !cli->json};
	int code;

	for (int i = 1; i < argc; i++) {
		const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (!strcmp(option, "--once")) {
			top.follow = false;
			continue;
		}
		if (!value || strncmp(option, "--", 2))
			return cli_usage_error(&cmd_top, "unexpected argument %s, or its value is missing", option);
		i++;
		if (!strcmp(option, "--interval") && !parse_interval(value, &top.interval))
			continue;
		if (!strcmp(option, "--sort") && !top_sort_parse(value, &top.sort))
			continue;
		return cli_usage_error(&cmd_top, "%s %s cannot be understood", option, value);
	}
	code = look(&top, &pairs);
	if (code != CLI_OK)
		return code;
	if (!top.follow)
		return once(&top, &pairs);
	if (top.interval == 0)
		top.interval = INTERVAL_S;
	return follow(&top, &pairs);
}

const struct cli_command cmd_top = {
	.name = "top",
	.summary = "Shows what each pair of identities does: flows, denials, bytes, retransmits",
	.usage = "[--interval S] [--once] [--sort flows|bytes|denied|rtt|retrans]",
	.help = "  --interval S  seconds between two looks, 0.1 to 3600 (2)\n"
		"  --once        one table, also on a terminal\n"
		"  --sort KEY    the largest first, by flows, bytes (the default), denied, rtt or retrans\n\n"
		"On a terminal the table is shown again and again, with rates per second, until it is interrupted.\n"
		"Elsewhere it is shown once: the totals since counting began, or, with --interval, the rates between "
		"two\n"
		"looks. A flow between two workloads of this host is counted at both ends, as egress by its source and "
		"as\n"
		"ingress by its destination; sent and received are as that end sees them. Bytes, retransmits and the "
		"mean\n"
		"round-trip time are TCP's own.\n\n"
		"Exit codes: 0 shown; 3 the daemon is not reachable or failed.\n",
	.run = run,
};

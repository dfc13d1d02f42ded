/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bus.h"
#include "cli/format.h"
#include "cli/svid.h"
#include "cli/wrong_file.h"
#include "identity/describe.h"
#include "identity/rules.h"

#define MAX_BYTES (4U << 20)

static void freep(void *p)
{
	free(*(void **)p);
}

static void format_time(time_t t, char out[32])
{
	if (t < 0)
		snprintf(out, 32, "unreadable");
	else
		cli_format_time((uint64_t)t, out, 32);
}

static void format_digest(const uint8_t digest[32], char out[65])
{
	for (size_t i = 0; i < 32; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

/* ---- text ---- */

static void print_line(const char *name, const char *text)
{
	if (text[0] != '\0')
		printf("  %-13s%s\n", name, text);
}

static void print_validity(const struct certificate_description *d, time_t at)
{
	char from[32], until[32], left[64], text[160];

	format_time(d->not_before, from);
	format_time(d->not_after, until);
	if (at < d->not_before)
		snprintf(left, sizeof(left), "not yet");
	else
		cli_format_duration(d->not_after - at, left, sizeof(left));
	snprintf(text, sizeof(text), "%s to %s, %s%s", from, until, left,
		 at >= d->not_before && at < d->not_after ? " left" : "");
	print_line("valid", text);
}

static void print_problems(const struct cli *cli, const struct certificate_description *d)
{
	for (unsigned i = 0; i < d->n_problems; i++)
		printf("  %s%-13s%s%s (rule %d): %s\n", cli_colour(cli, "red"), "problem", cli_colour(cli, "reset"),
		       svid_rule_name(d->problems[i].rule), d->problems[i].rule, d->problems[i].detail);
}

static void print_certificate(const struct cli *cli, size_t i, const struct certificate_description *d, time_t at)
{
	char text[400], digest[65];

	printf("%s%scertificate %zu: %s%s\n", i > 0 ? "\n" : "", cli_colour(cli, "bold"), i,
	       describe_role_name(d->role), cli_colour(cli, "reset"));
	print_line("SPIFFE ID", d->spiffe_id[0] != '\0' ? d->spiffe_id : "none");
	print_line("subject", d->subject);
	print_line("issuer", d->issuer);
	print_validity(d, at);
	snprintf(text, sizeof(text), "%s, %d bits of security", d->key, d->key_bits);
	print_line("key", text);
	print_line("signed with", d->signature);
	snprintf(text, sizeof(text), "%s%s", d->usage[0] != '\0' ? d->usage : "none",
		 d->usage_critical ? " (critical)" : "");
	print_line("key usage", text);
	print_line("extended", d->extended);
	if (d->path_len >= 0) {
		snprintf(text, sizeof(text), "at most %ld intermediate%s below it", d->path_len,
			 d->path_len == 1 ? "" : "s");
		print_line("path length", text);
	}
	print_line("serial", d->serial);
	format_digest(d->sha256, digest);
	print_line("SHA-256", digest);
	print_problems(cli, d);
}

/* ---- JSON ---- */

static json_t *problems_json(const struct certificate_description *d)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < d->n_problems; i++)
		json_array_append_new(list,
				      json_pack("{s:i, s:s, s:s, s:s}", "rule", d->problems[i].rule, "name",
						svid_rule_name(d->problems[i].rule), "requirement",
						svid_rule_text(d->problems[i].rule), "detail", d->problems[i].detail));
	return list;
}

/* "a, b" as a list; null where there is no such extension. */
static json_t *words_json(const char *text)
{
	json_t *list;

	if (text[0] == '\0')
		return json_null();
	list = json_array();
	for (;;) {
		const char *end = strstr(text, ", ");

		json_array_append_new(list, json_stringn(text, end != NULL ? (size_t)(end - text) : strlen(text)));
		if (end == NULL)
			return list;
		text = end + 2;
	}
}

static json_t *certificate_json(const struct certificate_description *d, time_t at)
{
	char from[32], until[32], digest[65];

	format_time(d->not_before, from);
	format_time(d->not_after, until);
	format_digest(d->sha256, digest);
	return json_pack("{s:s, s:s?, s:s, s:s, s:s, s:s, s:I, s:s, s:i, s:s, s:o, s:b, s:o, s:o, s:s, s:s, s:o}",
			 "role", describe_role_name(d->role), "spiffe_id",
			 d->spiffe_id[0] != '\0' ? d->spiffe_id : NULL, "subject", d->subject, "issuer", d->issuer,
			 "not_before", from, "not_after", until, "seconds_left",
			 (json_int_t)(d->not_after > at ? d->not_after - at : 0), "key", d->key, "security_bits",
			 d->key_bits, "signature", d->signature, "key_usage", words_json(d->usage),
			 "key_usage_critical", d->usage_critical, "extended_key_usage", words_json(d->extended),
			 "path_length", d->path_len >= 0 ? json_integer(d->path_len) : json_null(), "serial", d->serial,
			 "sha256", digest, "problems", problems_json(d));
}

int svid_show(struct cli *cli, const char *path, time_t at)
{
	__attribute__((cleanup(certificate_list_freep))) struct certificate_list *list = NULL;
	__attribute__((cleanup(freep))) char *text = NULL;
	struct certificate_description d;
	json_t *certificates;
	int code = CLI_OK, r;
	char why[200];
	size_t len;

	if (cli_read_file(path, MAX_BYTES, &text, &len) < 0)
		return CLI_USAGE;
	r = certificate_list_parse(&list, text, len, why, sizeof(why));
	if (r != 0) {
		const char *hint = r == 1 ? wrong_chain_hint(text, len) : NULL;

		cli_error("%s: %s", strcmp(path, "-") == 0 ? "standard input" : path, r == 1 ? why : "out of memory");
		if (hint != NULL)
			fprintf(stderr, "  hint: %s\n", hint);
		return CLI_NO;
	}
	certificates = json_array();
	for (size_t i = 0; i < certificate_list_count(list); i++) {
		certificate_describe(list, i, at, &d);
		if (d.n_problems > 0)
			code = CLI_NO;
		if (cli->json)
			json_array_append_new(certificates, certificate_json(&d, at));
		else
			print_certificate(cli, i, &d, at);
	}
	if (cli->json)
		cli_print_json(json_pack("{s:b, s:O}", "ok", code == CLI_OK, "certificates", certificates));
	json_decref(certificates);
	return code;
}

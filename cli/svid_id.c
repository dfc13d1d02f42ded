/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/svid.h"
#include "identity/rules.h"
#include "identity/spiffe_id_fault.h"

/* One column for each byte, so that a caret under byte N is in column N. */
static char *printable_bytes(const char *id, size_t len)
{
	char *text = strdup(id);

	for (size_t i = 0; text != NULL && i < len; i++) {
		if (text[i] < ' ' || text[i] > '~')
			text[i] = '?';
	}
	return text;
}

static json_t *valid_json(const char *id, const char *trust_domain, const char *path)
{
	return json_pack("{s:b, s:s, s:s, s:s}", "ok", 1, "spiffe_id", id, "trust_domain", trust_domain, "path", path);
}

/* An ID that is not UTF-8 cannot stand in JSON as it is. */
static json_t *invalid_json(const char *text, int rule, size_t at)
{
	return json_pack("{s:b, s:s, s:i, s:s, s:s, s:I}", "ok", 0, "given", text, "rule", rule, "name",
			 svid_rule_name(rule), "requirement", svid_rule_text(rule), "offset", (json_int_t)at);
}

static void print_invalid(const struct cli *cli, const char *text, int rule, size_t at)
{
	printf("%sinvalid%s %s\n", cli_colour(cli, "red"), cli_colour(cli, "reset"), text);
	printf("        %*s%s^%s %s (rule %d): %s\n", (int)at, "", cli_colour(cli, "bold"), cli_colour(cli, "reset"),
	       svid_rule_name(rule), rule, svid_rule_text(rule));
}

static int check_one(struct cli *cli, const char *id, json_t *results)
{
	char trust_domain[SPIFFE_TRUST_DOMAIN_MAX + 1];
	size_t len = strlen(id), at;
	int rule = spiffe_id_check(id, len);
	const char *path;
	char *text;

	if (rule == 0) {
		spiffe_id_trust_domain(id, trust_domain);
		path = id + strlen("spiffe://") + strlen(trust_domain);
		json_array_append_new(results, valid_json(id, trust_domain, path));
		if (!cli->json)
			printf("%sok%s      %s\n        trust domain %s, path %s\n", cli_colour(cli, "green"),
			       cli_colour(cli, "reset"), id, trust_domain, path);
		return CLI_OK;
	}
	at = spiffe_id_fault(id, len, rule);
	text = printable_bytes(id, len);
	if (text == NULL) {
		cli_error("out of memory");
		return CLI_NO;
	}
	json_array_append_new(results, invalid_json(text, rule, at));
	if (!cli->json)
		print_invalid(cli, text, rule, at);
	free(text);
	return CLI_NO;
}

int svid_id_check(struct cli *cli, char *const *ids, size_t n)
{
	json_t *results = json_array();
	int code = CLI_OK;

	for (size_t i = 0; i < n; i++) {
		if (check_one(cli, ids[i], results) != CLI_OK)
			code = CLI_NO;
	}
	if (cli->json)
		cli_print_json(json_pack("{s:b, s:O}", "ok", code == CLI_OK, "ids", results));
	json_decref(results);
	return code;
}

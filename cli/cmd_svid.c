/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/bus.h"
#include "cli/cli.h"
#include "cli/svid.h"
#include "cli/wrong_file.h"
#include "identity/bundle_text.h"
#include "identity/crypto.h"
#include "identity/rules.h"
#include "identity/svid.h"
#include "policy/instant.h"

#define CHAIN_MAX_BYTES (1U << 20) /* PEM of 64 KiB DER and what people write around it */

struct svid_arguments {
	const char *bundle;
	const char *trust_domain;
	const char *chain;
	const char *fips_config;
	bool fips;
	time_t at;
};

static void freep(void *p)
{
	free(*(void **)p);
}

/* RFC 3339, or seconds since 1970. Returns -1 for anything else. */
static time_t parse_time(const char *text)
{
	char *number_end;
	int64_t seconds;

	if (instant_parse(&seconds, text) == INSTANT_OK)
		return seconds >= 0 ? (time_t)seconds : -1;
	seconds = strtoll(text, &number_end, 10);
	return number_end != text && *number_end == '\0' && seconds >= 0 ? (time_t)seconds : -1;
}

static int parse_arguments(struct svid_arguments *arguments, int argc, char **argv)
{
	bool verify = strcmp(argv[1], "verify") == 0;
	int rule;

	*arguments = (struct svid_arguments){.at = time(NULL)};
	for (int i = 2; i < argc; i++) {
		bool more = i + 1 < argc;

		if (strcmp(argv[i], "--bundle") == 0 && verify && more) {
			arguments->bundle = argv[++i];
		} else if (strcmp(argv[i], "--trust-domain") == 0 && verify && more) {
			arguments->trust_domain = argv[++i];
		} else if (strcmp(argv[i], "--fips") == 0 && verify) {
			arguments->fips = true;
		} else if (strcmp(argv[i], "--fips-config") == 0 && verify && more) {
			arguments->fips_config = argv[++i];
		} else if (strcmp(argv[i], "--at") == 0 && more) {
			arguments->at = parse_time(argv[++i]);
			if (arguments->at == -1)
				return cli_usage_error(&cmd_svid, "%s is no time like 2026-01-31T12:00:00Z", argv[i]);
		} else if (arguments->chain == NULL && (argv[i][0] != '-' || argv[i][1] == '\0')) {
			arguments->chain = argv[i];
		} else {
			return cli_usage_error(&cmd_svid, "unexpected argument %s, or its value is missing", argv[i]);
		}
	}
	if (!verify)
		return arguments->chain != NULL ? CLI_OK : cli_usage_error(&cmd_svid, "which FILE is to be shown?");
	if (arguments->fips_config != NULL && !arguments->fips)
		return cli_usage_error(&cmd_svid, "--fips-config goes with --fips");
	if (arguments->bundle == NULL || arguments->trust_domain == NULL || arguments->chain == NULL)
		return cli_usage_error(&cmd_svid, "--bundle FILE, --trust-domain NAME and CHAIN.pem are needed");
	rule = spiffe_trust_domain_check(arguments->trust_domain, strlen(arguments->trust_domain));
	if (rule != 0)
		return cli_usage_error(&cmd_svid, "%s is no trust domain name: %s", arguments->trust_domain,
				       strncmp(arguments->trust_domain, "spiffe:", 7) == 0
					       ? "it is what follows \"spiffe://\", up to the next slash"
					       : svid_rule_text(rule));
	return CLI_OK;
}

/* The name says what is in it, as in the bundle directory. */
static enum bundle_format format_of(const char *path)
{
	size_t len = strlen(path);

	return len > 5 && strcmp(path + len - 5, ".json") == 0 ? BUNDLE_JWKS : BUNDLE_PEM;
}

static void print_hint(const char *hint)
{
	if (hint != NULL)
		fprintf(stderr, "  hint: %s\n", hint);
}

static int load_bundle(struct bundle_set *bundles, const struct svid_arguments *arguments)
{
	__attribute__((cleanup(freep))) char *text = NULL;
	struct bundle_report report;
	size_t len;

	if (cli_read_file(arguments->bundle, BUNDLE_MAX_BYTES, &text, &len) < 0)
		return CLI_USAGE;
	if (bundle_set_load(bundles, arguments->trust_domain, format_of(arguments->bundle), text, len, &report) < 0) {
		cli_error("bundle %s: %s", arguments->bundle, report.why);
		print_hint(format_of(arguments->bundle) == BUNDLE_PEM ? wrong_chain_hint(text, len) : NULL);
		return CLI_NO;
	}
	for (unsigned i = 0; i < report.n_entries; i++)
		cli_error("bundle %s: entry %u%s: %s (rule %d)", arguments->bundle, report.entries[i].index,
			  report.entries[i].dropped ? " is not used" : "", report.entries[i].text,
			  report.entries[i].rule);
	return CLI_OK;
}

static int verify(const struct bundle_set *bundles, const struct svid_arguments *arguments,
		  struct svid_verdict *verdict, const char **hintp)
{
	__attribute__((cleanup(svid_chain_freep))) struct svid_chain *chain = NULL;
	__attribute__((cleanup(freep))) char *pem = NULL;
	size_t len;
	int r;

	if (cli_read_file(arguments->chain, CHAIN_MAX_BYTES, &pem, &len) < 0)
		return CLI_USAGE;
	r = svid_chain_parse_pem(&chain, pem, len, verdict);
	if (r == 0)
		r = svid_verify(chain, bundles, arguments->at, verdict);
	if (r < 0)
		cli_error("out of memory");
	if (r > 0)
		*hintp = wrong_chain_hint(pem, len);
	return r == 0 ? CLI_OK : CLI_NO;
}

static void print_json(const struct svid_verdict *verdict, const char *until)
{
	char text[512], digest[65];

	for (size_t i = 0; i < sizeof(verdict->leaf_sha256); i++)
		snprintf(digest + 2 * i, 3, "%02x", verdict->leaf_sha256[i]);
	if (verdict->rule == 0) {
		cli_print_json(json_pack("{s:b, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "ok", 1, "spiffe_id",
					 verdict->spiffe_id, "trust_domain", verdict->trust_domain, "not_after", until,
					 "serial", verdict->serial, "issuer", verdict->issuer, "leaf_sha256", digest,
					 "note", verdict->note));
		return;
	}
	svid_verdict_text(verdict, text, sizeof(text));
	cli_print_json(json_pack("{s:b, s:i, s:s, s:s, s:s, s:s, s:o}", "ok", 0, "rule", verdict->rule, "name",
				 svid_rule_name(verdict->rule), "requirement", svid_rule_text(verdict->rule), "detail",
				 verdict->detail, "text", text, "certificate",
				 verdict->depth >= 0 ? json_integer(verdict->depth) : json_null()));
}

static void print_text(const struct cli *cli, const struct svid_verdict *verdict, const char *until)
{
	char text[512];

	if (verdict->rule == 0) {
		printf("%sok%s %s %s\n", cli_colour(cli, "green"), cli_colour(cli, "reset"), verdict->spiffe_id, until);
		if (verdict->note[0] != '\0')
			cli_error("note: %s", verdict->note);
		return;
	}
	svid_verdict_text(verdict, text, sizeof(text));
	printf("%srefused:%s %s\n", cli_colour(cli, "red"), cli_colour(cli, "reset"), text);
	fflush(stdout); /* the two may go to one file */
	fprintf(stderr, "  the rule: %s\n", svid_rule_text(verdict->rule));
}

static int use_fips(const struct svid_arguments *arguments, struct crypto **cryptop)
{
	char why[1024];
	int r = arguments->fips ? crypto_fips_new(cryptop, arguments->fips_config, why, sizeof(why)) : 0;

	if (r != 0) {
		cli_error("%s", r == 1 ? why : "out of memory");
		return CLI_NO;
	}
	if (*cryptop != NULL)
		crypto_use(*cryptop);
	return CLI_OK;
}

static int run_verify(struct cli *cli, const struct svid_arguments *arguments)
{
	__attribute__((cleanup(crypto_freep))) struct crypto *crypto = NULL;
	__attribute__((cleanup(bundle_set_freep))) struct bundle_set *bundles = NULL;
	struct svid_verdict verdict = {0};
	const char *hint = NULL;
	char until[32];
	int code = use_fips(arguments, &crypto);

	if (code != CLI_OK)
		return code;
	if (bundle_set_new(&bundles) < 0) {
		cli_error("out of memory");
		return CLI_NO;
	}
	code = load_bundle(bundles, arguments);
	if (code != CLI_OK)
		return code;
	code = verify(bundles, arguments, &verdict, &hint);
	if (code == CLI_USAGE || (code == CLI_NO && verdict.rule == 0))
		return code;
	cli_format_time((uint64_t)verdict.not_after, until, sizeof(until));
	if (cli->json)
		print_json(&verdict, until);
	else
		print_text(cli, &verdict, until);
	print_hint(hint);
	return code;
}

static int check_ids(struct cli *cli, int n, char **ids)
{
	int kept = 0;

	for (int i = 0; i < n; i++) {
		if (strcmp(ids[i], "--") == 0) {
			while (++i < n)
				ids[kept++] = ids[i];
		} else if (ids[i][0] == '-' && ids[i][1] != '\0') {
			return cli_usage_error(&cmd_svid, "\"svid id check\" has no option %s; behind `--` it is an ID",
					       ids[i]);
		} else {
			ids[kept++] = ids[i];
		}
	}
	n = kept;
	return n > 0 ? svid_id_check(cli, ids, (size_t)n) : cli_usage_error(&cmd_svid, "which IDs are to be checked?");
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct svid_arguments arguments;
	int code;

	if (argc > 2 && strcmp(argv[1], "id") == 0 && strcmp(argv[2], "check") == 0)
		return check_ids(cli, argc - 3, argv + 3);
	if (argc < 2 || (strcmp(argv[1], "verify") != 0 && strcmp(argv[1], "show") != 0))
		return cli_usage_error(&cmd_svid, "\"svid\" has the subcommands verify, show and id check");
	code = parse_arguments(&arguments, argc, argv);
	if (code != CLI_OK)
		return code;
	if (strcmp(argv[1], "show") == 0)
		return svid_show(cli, arguments.chain, arguments.at);
	return run_verify(cli, &arguments);
}

const struct cli_command cmd_svid = {
	.name = "svid",
	.summary = "Verifies and shows X.509-SVIDs offline, and checks SPIFFE IDs",
	.usage = "verify|show|id check ...",
	.help = "  verify --bundle FILE --trust-domain NAME CHAIN.pem     verifies it as the daemon would\n"
		"  show FILE                       shows the certificates of a chain or bundle, PEM or DER, and the "
		"rules\n"
		"                                  that each breaks on its own\n"
		"  id check ID...                  whether these are SPIFFE IDs of workloads, and where not\n"
		"      --bundle FILE               authorities of the trust domain: PEM, or, as .json, a SPIFFE "
		"bundle\n"
		"      --trust-domain NAME         whose bundle it is\n"
		"      --at TIME                   as of this time (2026-01-31T12:00:00Z or seconds since 1970)\n"
		"      --fips                      with OpenSSL's FIPS module only, as with `fips: require`\n"
		"      --fips-config FILE          what `openssl fipsinstall` wrote for it\n"
		"      CHAIN.pem                   certificates in PEM, leaf first; - for standard input\n\n"
		"verify prints \"ok SPIFFE-ID UNTIL\", where UNTIL is the earliest end of validity on the path, or "
		"\"refused: "
		"NAME\n"
		"(rule N): WHY; certificate D\", where D counts from the leaf (0) towards the authority. show needs no "
		"bundle,\n"
		"so it cannot say whether a certificate counts. docs/spiffe-rules.md has the rules.\n\n"
		"Exit codes: 0 valid, or no problem; 1 refused, invalid, or the bundle or the FIPS module is not "
		"usable; 2\n"
		"usage, or a file cannot be read.\n\n"
		"Example: policyctl svid verify --bundle ca.pem --trust-domain prod.example web.pem\n"
		"         policyctl svid show web.pem\n"
		"         policyctl svid id check spiffe://prod.example/web\n",
	.run = run,
};

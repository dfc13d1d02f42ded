/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/bus.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/new_file.h"
#include "cli/trial_ca.h"
#include "daemon/cleanup.h"
#include "identity/rules.h"
#include "policy/instant.h"

#define DAY 86400UL
#define AUTHORITY_SECONDS (30 * DAY)
#define SVID_SECONDS 3600
#define LIFE_MAX (3650 * DAY)
#define REFRESH_HINT_SECONDS 300
#define FOR_TRIALS "for trials, not for production"

struct ca_arguments {
	const char *verb;
	const char *dir;
	const char *what; /* SPIFFE ID, or number of an authority */
	const char *trust_domain, *out;
	unsigned long ttl, refresh_hint, intermediates;
	enum trial_key key; /* TRIAL_KEYS: not given */
	bool spiffe, force;
};

/* A subcommand: which options it has, as letters of those in option_take(), and whether a word follows the directory. */
struct verb {
	const char *name, *options, *what;
	int (*run)(struct cli *cli, const struct ca_arguments *arguments);
};

static void secret_freep(char **text)
{
	if (*text != NULL)
		explicit_bzero(*text, strlen(*text));
	free(*text);
}

static void json_freep(json_t **value)
{
	json_decref(*value);
}

static void x509_freep(X509 **x509)
{
	X509_free(*x509);
}

static void end_of(X509 *x509, char out[32])
{
	struct tm tm = {0};

	snprintf(out, 32, "%s", "");
	if (ASN1_TIME_to_tm(X509_get0_notAfter(x509), &tm) == 1)
		cli_format_time((uint64_t)timegm(&tm), out, 32);
}

/* ---- results ---- */

/* Faults were told where they arose. What is there and stays, or is not as it has to be, is an answer; the rest is a name on the
 * command line that leads to nothing that can be read or written. */
static int code_of(int r)
{
	switch (r) {
	case -ENOMEM:
		cli_error("out of memory");
		return CLI_NO;
	case -EEXIST:
	case -EINVAL:
	case -EBUSY:
	case -ENOSPC:
	case -EIO:
		return CLI_NO;
	default:
		return r < 0 ? CLI_USAGE : CLI_OK;
	}
}

static int authorities_json(const struct trial_ca *ca, json_t **listp)
{
	__attribute__((cleanup(json_freep))) json_t *list = json_array();

	for (size_t i = 0; i < ca->n; i++) {
		__attribute__((cleanup(x509_freep))) X509 *x509 = NULL;
		char file[PATH_MAX], until[32];
		int r = trial_ca_authority(ca, ca->authorities[i], &x509, NULL);

		if (r < 0)
			return r;
		end_of(x509, until);
		snprintf(file, sizeof(file), "%s/authority-%u.pem", ca->dir, ca->authorities[i]);
		json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:b}", "number", (int)ca->authorities[i], "file",
						      file, "not_after", until, "signs", i + 1 == ca->n));
	}
	*listp = json_incref(list);
	return 0;
}

static int print_ca(struct cli *cli, const struct trial_ca *ca, const char *done)
{
	__attribute__((cleanup(json_freep))) json_t *list = NULL;
	int r = authorities_json(ca, &list);
	json_t *authority;
	size_t i;

	if (r < 0)
		return code_of(r);
	if (cli->json) {
		cli_print_json(json_pack("{s:b, s:b, s:s, s:s, s:I, s:i, s:s, s:O}", "ok", 1, "trial", 1, "directory",
					 ca->dir, "trust_domain", ca->trust_domain, "sequence", ca->sequence,
					 "intermediates", (int)ca->intermediates, "key_type", trial_key_name(ca->key),
					 "authorities", list));
		return CLI_OK;
	}
	printf("%s%s: trial CA of %s (" FOR_TRIALS "), bundle %" JSON_INTEGER_FORMAT "\n", done, ca->dir,
	       ca->trust_domain, ca->sequence);
	json_array_foreach(list, i, authority)
		printf("  %s  until %s%s\n", json_string_value(json_object_get(authority, "file")),
		       json_string_value(json_object_get(authority, "not_after")),
		       i + 1 == ca->n ? (ca->intermediates ? ", signs by its intermediates" : ", signs") : "");
	return CLI_OK;
}

/* ---- subcommands ---- */

static int ca_init(struct cli *cli, const struct ca_arguments *arguments)
{
	struct trial_ca ca = {.lock = -1};
	int rule, r;

	if (arguments->trust_domain == NULL)
		return cli_usage_error(&cmd_ca, "--trust-domain NAME is needed");
	rule = spiffe_trust_domain_check(arguments->trust_domain, strlen(arguments->trust_domain));
	if (rule != 0)
		return cli_usage_error(&cmd_ca, "%s is no trust domain name: %s", arguments->trust_domain,
				       svid_rule_text(rule));
	r = trial_ca_init(&ca, arguments->dir, arguments->trust_domain, (unsigned)arguments->intermediates,
			  arguments->key == TRIAL_KEYS ? TRIAL_P256 : arguments->key,
			  time(NULL) + (time_t)(arguments->ttl ?: AUTHORITY_SECONDS), arguments->force);
	r = r < 0 ? code_of(r) : print_ca(cli, &ca, "");
	trial_ca_close(&ca);
	return r;
}

static int ca_show(struct cli *cli, const struct ca_arguments *arguments)
{
	struct trial_ca ca;
	int r = trial_ca_open(&ca, arguments->dir);

	r = r < 0 ? code_of(r) : print_ca(cli, &ca, "");
	trial_ca_close(&ca);
	return r;
}

static int ca_rotate(struct cli *cli, const struct ca_arguments *arguments)
{
	struct trial_ca ca;
	int r = trial_ca_open(&ca, arguments->dir);

	if (r == 0)
		r = trial_ca_rotate(&ca, arguments->key == TRIAL_KEYS ? ca.key : arguments->key,
				    time(NULL) + (time_t)(arguments->ttl ?: AUTHORITY_SECONDS));
	r = r < 0 ? code_of(r) : print_ca(cli, &ca, "rotated ");
	trial_ca_close(&ca);
	return r;
}

static int ca_remove(struct cli *cli, const struct ca_arguments *arguments)
{
	unsigned long number;
	struct trial_ca ca;
	int r;

	if (cli_parse_count(arguments->what, 1000000, &number) < 0)
		return cli_usage_error(&cmd_ca, "%s is no number of an authority", arguments->what);
	r = trial_ca_open(&ca, arguments->dir);
	if (r == 0)
		r = trial_ca_remove(&ca, (unsigned)number);
	r = r < 0 ? code_of(r) : print_ca(cli, &ca, "removed ");
	trial_ca_close(&ca);
	return r;
}

/* Both files or none, as far as that can be known beforehand. The key is first: who watches the chain finds its key. */
static int write_svid(const struct ca_arguments *arguments, const char *prefix, const char *chain, const char *key)
{
	char files[2][PATH_MAX];
	const char *texts[] = {key, chain};

	for (size_t i = 0; i < 2; i++) {
		if ((size_t)snprintf(files[i], PATH_MAX, "%s.%s", prefix, i == 0 ? "key" : "pem") >= PATH_MAX) {
			cli_error("--out is too long a name");
			return CLI_USAGE;
		}
		if (!arguments->force && access(files[i], F_OK) == 0) {
			cli_error("%s is there already; --force replaces it", files[i]);
			return CLI_NO;
		}
	}
	for (size_t i = 0; i < 2; i++) {
		int r = new_file_write(files[i], texts[i], strlen(texts[i]), i == 0 ? 0600 : 0644, arguments->force);

		if (r < 0) {
			cli_error("cannot write %s: %s", files[i], strerror(-r));
			return code_of(r);
		}
	}
	return CLI_OK;
}

static int ca_issue(struct cli *cli, const struct ca_arguments *arguments)
{
	__attribute__((cleanup(secret_freep))) char *key = NULL;
	__attribute__((cleanup(freep))) char *chain = NULL;
	const char *id = arguments->what, *prefix = arguments->out;
	char trust_domain[SPIFFE_TRUST_DOMAIN_MAX + 1], until_text[32];
	time_t until = time(NULL) + (time_t)(arguments->ttl ?: SVID_SECONDS);
	struct trial_ca ca;
	int rule = spiffe_id_check(id, strlen(id)), r;

	if (rule != 0)
		return cli_usage_error(&cmd_ca, "%s is no SPIFFE ID of a workload: %s", id, svid_rule_text(rule));
	if (prefix == NULL)
		prefix = strrchr(id, '/') + 1;
	spiffe_id_trust_domain(id, trust_domain);
	r = trial_ca_open(&ca, arguments->dir);
	if (r == 0 && strcmp(trust_domain, ca.trust_domain) != 0) {
		cli_error("%s is not of the trust domain %s, which %s signs for", id, ca.trust_domain, ca.dir);
		r = -EINVAL;
	}
	if (r == 0)
		r = trial_ca_issue(&ca, id, arguments->key == TRIAL_KEYS ? TRIAL_P256 : arguments->key, until, &chain,
				   &key);
	trial_ca_close(&ca);
	if (r < 0)
		return code_of(r);
	r = write_svid(arguments, prefix, chain, key);
	if (r != CLI_OK)
		return r;
	cli_format_time((uint64_t)until, until_text, sizeof(until_text));
	if (cli->json) {
		cli_print_json(json_pack("{s:b, s:b, s:s, s:s+, s:s+, s:s}", "ok", 1, "trial", 1, "spiffe_id", id,
					 "chain", prefix, ".pem", "key", prefix, ".key", "not_after", until_text));
		return CLI_OK;
	}
	printf("%s.pem, %s.key: %s until %s (" FOR_TRIALS ")\n", prefix, prefix, id, until_text);
	return CLI_OK;
}

/* ---- bundle ---- */

static int bundle_pem(const struct trial_ca *ca, char **textp)
{
	__attribute__((cleanup(freep))) char *text = strdup("");

	for (size_t i = 0; text != NULL && i < ca->n; i++) {
		__attribute__((cleanup(x509_freep))) X509 *x509 = NULL;
		__attribute__((cleanup(freep))) char *pem = NULL;
		int r = trial_ca_authority(ca, ca->authorities[i], &x509, &pem);
		char *longer;

		if (r < 0)
			return r;
		if (asprintf(&longer, "%s%s", text, pem) < 0)
			longer = NULL;
		free(text);
		text = longer;
	}
	*textp = text;
	text = NULL;
	return *textp != NULL ? 0 : -ENOMEM;
}

static int bundle_spiffe(const struct trial_ca *ca, unsigned long refresh_hint, json_t **documentp)
{
	__attribute__((cleanup(json_freep))) json_t *keys = json_array();

	for (size_t i = 0; i < ca->n; i++) {
		__attribute__((cleanup(x509_freep))) X509 *x509 = NULL;
		int r = trial_ca_authority(ca, ca->authorities[i], &x509, NULL);

		if (r < 0)
			return r;
		if (json_array_append_new(keys, trial_cert_jwk(x509)) < 0)
			return -ENOMEM;
	}
	*documentp = json_pack("{s:O, s:I, s:I}", "keys", keys, "spiffe_sequence", ca->sequence, "spiffe_refresh_hint",
			       (json_int_t)refresh_hint);
	return *documentp != NULL ? 0 : -ENOMEM;
}

static int write_bundle(const struct ca_arguments *arguments, const char *text)
{
	int r = new_file_write(arguments->out, text, strlen(text), 0644, arguments->force);

	if (r == -EEXIST)
		cli_error("%s is there already; --force replaces it", arguments->out);
	else if (r < 0)
		cli_error("cannot write %s: %s", arguments->out, strerror(-r));
	return code_of(r);
}

static int print_bundle(struct cli *cli, const struct ca_arguments *arguments, const struct trial_ca *ca,
			const char *text, json_t *document)
{
	const char *format = arguments->spiffe ? "spiffe" : "pem";

	if (cli->json)
		cli_print_json(json_pack("{s:b, s:b, s:s, s:s, s:I, s:i, s:s?, s:o}", "ok", 1, "trial", 1,
					 "trust_domain", ca->trust_domain, "format", format, "sequence", ca->sequence,
					 "authorities", (int)ca->n, "out", arguments->out, "bundle",
					 document != NULL ? json_incref(document) : json_string(text)));
	else if (arguments->out == NULL)
		fputs(text, stdout);
	else
		printf("%s: %zu %s of %s (" FOR_TRIALS "), bundle %" JSON_INTEGER_FORMAT "\n", arguments->out, ca->n,
		       ca->n == 1 ? "authority" : "authorities", ca->trust_domain, ca->sequence);
	return CLI_OK;
}

static int ca_bundle(struct cli *cli, const struct ca_arguments *arguments)
{
	__attribute__((cleanup(json_freep))) json_t *document = NULL;
	__attribute__((cleanup(freep))) char *text = NULL, *body = NULL;
	struct trial_ca ca;
	int r = trial_ca_open(&ca, arguments->dir), code;

	if (r == 0 && arguments->spiffe) {
		r = bundle_spiffe(&ca, arguments->refresh_hint ?: REFRESH_HINT_SECONDS, &document);
		body = document != NULL ? json_dumps(document, JSON_INDENT(2)) : NULL;
		if (body != NULL && asprintf(&text, "%s\n", body) < 0)
			text = NULL;
	} else if (r == 0) {
		r = bundle_pem(&ca, &text);
	}
	trial_ca_close(&ca);
	if (r < 0 || text == NULL)
		return code_of(r < 0 ? r : -ENOMEM);
	code = arguments->out != NULL ? write_bundle(arguments, text) : CLI_OK;
	if (code != CLI_OK)
		return code;
	return print_bundle(cli, arguments, &ca, text, document);
}

/* ---- arguments ---- */

static const struct verb verbs[] = {
	{"init", "dtkif", NULL, ca_init},
	{"issue", "tkof", "a SPIFFE ID", ca_issue},
	{"bundle", "mrof", NULL, ca_bundle},
	{"rotate", "tk", NULL, ca_rotate},
	{"remove", "", "the number of an authority", ca_remove},
	{"show", "", NULL, ca_show},
};

static const struct {
	char letter;
	const char *name;
	const char *value; /* what its value is; NULL: it has none */
} options[] = {
	{'d', "--trust-domain", "a trust domain"},
	{'t', "--ttl", "a time from 1s to 3650d, as 1h or 30d"},
	{'k', "--key-type", "p256, p384, rsa2048 or ed25519"},
	{'i', "--intermediates", "a number from 0 to 3"},
	{'o', "--out", "a name of a file"},
	{'m', "--format", "pem or spiffe"},
	{'r', "--refresh-hint", "a time from 1s to 30d, as 5m"},
	{'f', "--force", NULL},
};

/* Whether the value is one of the option. */
static bool option_take(struct ca_arguments *arguments, char letter, const char *value)
{
	switch (letter) {
	case 'd':
		arguments->trust_domain = value;
		return true;
	case 't':
		return cli_parse_duration(value, 1, LIFE_MAX, &arguments->ttl) == 0;
	case 'k':
		arguments->key = trial_key_of(value);
		return arguments->key != TRIAL_KEYS;
	case 'i':
		if (strlen(value) != 1 || *value < '0' || *value > '0' + TRIAL_MAX_INTERMEDIATES)
			return false;
		arguments->intermediates = (unsigned long)(*value - '0');
		return true;
	case 'o':
		arguments->out = value;
		return *value != '\0';
	case 'm':
		arguments->spiffe = strcmp(value, "spiffe") == 0;
		return arguments->spiffe || strcmp(value, "pem") == 0;
	case 'r':
		return cli_parse_duration(value, 1, 30 * DAY, &arguments->refresh_hint) == 0;
	default:
		arguments->force = true;
		return true;
	}
}

/* Takes argv[*ip], which is an option. */
static int parse_option(struct ca_arguments *arguments, const struct verb *verb, char **argv, int *ip)
{
	const char *name = argv[*ip];

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		if (strcmp(name, options[i].name) != 0 || strchr(verb->options, options[i].letter) == NULL)
			continue;
		if (options[i].value != NULL && argv[++*ip] == NULL)
			return cli_usage_error(&cmd_ca, "%s needs %s", name, options[i].value);
		if (!option_take(arguments, options[i].letter, argv[*ip]))
			return cli_usage_error(&cmd_ca, "%s: %s is not %s", name, argv[*ip], options[i].value);
		return CLI_OK;
	}
	return cli_usage_error(&cmd_ca, "\"ca %s\" has no option %s", verb->name, name);
}

static int parse_arguments(struct ca_arguments *arguments, const struct verb *verb, int argc, char **argv)
{
	*arguments = (struct ca_arguments){.verb = verb->name, .key = TRIAL_KEYS};
	for (int i = 2; i < argc; i++) {
		int code = CLI_OK;

		if (argv[i][0] == '-')
			code = parse_option(arguments, verb, argv, &i);
		else if (arguments->dir == NULL)
			arguments->dir = argv[i];
		else if (verb->what != NULL && arguments->what == NULL)
			arguments->what = argv[i];
		else
			code = cli_usage_error(&cmd_ca, "unexpected argument %s", argv[i]);
		if (code != CLI_OK)
			return code;
	}
	if (arguments->dir == NULL)
		return cli_usage_error(&cmd_ca, "the directory of the trial CA is missing");
	if (verb->what != NULL && arguments->what == NULL)
		return cli_usage_error(&cmd_ca, "%s is missing", verb->what);
	return CLI_OK;
}

static int run(struct cli *cli, int argc, char **argv)
{
	struct ca_arguments arguments;
	int code;

	for (size_t i = 0; argc > 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(argv[1], verbs[i].name) != 0)
			continue;
		code = parse_arguments(&arguments, &verbs[i], argc, argv);
		return code == CLI_OK ? verbs[i].run(cli, &arguments) : code;
	}
	return cli_usage_error(&cmd_ca, "\"ca\" has the subcommands init, issue, bundle, rotate, remove and show");
}

const struct cli_command cmd_ca = {
	.name = "ca",
	.summary = "A certificate authority for trials: SVIDs and bundles, not for production",
	.usage = "init|issue|bundle|rotate|remove|show DIR ...",
	.help = "  init DIR --trust-domain NAME      makes a CA in DIR: one authority, valid for --ttl (30d)\n"
		"      --intermediates N             with N intermediates (0 to 3) below each authority\n"
		"      --key-type TYPE               p256 (default), p384, rsa2048 or ed25519\n"
		"  issue DIR SPIFFE-ID               makes an SVID, valid for --ttl (1h), and its key\n"
		"      --out PREFIX                  files PREFIX.pem (chain) and PREFIX.key; without it PREFIX is "
		"the\n"
		"                                    last part of the ID\n"
		"  bundle DIR                        prints the trust bundle, or writes it to --out FILE\n"
		"      --format pem|spiffe           as PEM (default), or as SPIFFE bundle (JWK set)\n"
		"      --refresh-hint TIME           what a SPIFFE bundle asks its readers for (5m)\n"
		"  rotate DIR                        makes another authority, that signs from now on; both are in the\n"
		"                                    bundle\n"
		"  remove DIR N                      takes authority N away\n"
		"  show DIR                          lists the authorities\n"
		"      --ttl TIME                    1s to 3650d, as 90s, 15m, 1h, 30d\n"
		"      --force                       replaces files that are there\n\n"
		"Keys lie in DIR and beside the SVIDs, readable by their owner only, without passphrase: this is for "
		"trials and\n"
		"tests. Each certificate says so in its subject. In production an issuer such as SPIRE has this "
		"part.\n\n"
		"Exit codes: 0 done; 1 refused; 2 usage, or a file or directory that cannot be read or written.\n\n"
		"Example: policyctl ca init ca --trust-domain prod.example\n"
		"         policyctl ca bundle ca --out bundles/prod.example.pem\n"
		"         policyctl ca issue ca spiffe://prod.example/ns/shop/sa/web\n",
	.run = run,
};

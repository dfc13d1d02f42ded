/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/attester.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/un.h>
#include <time.h>

#include "cli/bus.h"
#include "cli/wrong_file.h"
#include "daemon/control_api.h"

#define MAX_KEY_BYTES 65536U
#define LOOK_S 1 /* how often the daemon's socket is looked at */
#define BACKOFF_MIN_S 1
#define BACKOFF_MAX_S 30
#define FULL_PATIENCE_MS 10000 /* places that stalled clients hold come free after 5 s */
#define FULL_PAUSE_MIN_MS 20U
#define FULL_PAUSE_MAX_MS 500U
#define JITTER_PART 5 /* renewal is due up to a fifth earlier: between 40 % and 50 % of the life */

static void key_freep(EVP_PKEY **keyp)
{
	EVP_PKEY_free(*keyp);
}

static void bio_freep(BIO **biop)
{
	BIO_free(*biop);
}

static void x509_freep(X509 **certificatep)
{
	X509_free(*certificatep);
}

struct secret {
	char *text;
	size_t len;
};

static void secret_free(struct secret *secret)
{
	if (secret->text)
		OPENSSL_cleanse(secret->text, secret->len);
	free(secret->text);
}

/* Says what is wrong, unless it was said the last time. Returns whether it was said. */
static __attribute__((format(printf, 2, 3))) bool complain(struct attester *a, const char *format, ...)
{
	char text[sizeof(a->problem)];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (!strcmp(text, a->problem))
		return false;
	cli_error("%s", text);
	strcpy(a->problem, text);
	return true;
}

/* A key with a passphrase cannot be used: nobody is there to type it at a renewal. */
static int no_passphrase(char *buf, int size, int rwflag, void *u)
{
	(void)buf, (void)size, (void)rwflag, (void)u;
	return 0;
}

/* cli_read_file tells of its own failures; a missing file would be told again at each retry. */
static int read_again(struct attester *a, const char *path, size_t max, char **textp, size_t *lenp)
{
	struct stat st;

	if (stat(path, &st) < 0) {
		complain(a, "cannot read %s: %s", path, strerror(errno));
		return -1;
	}
	return cli_read_file(path, max, textp, lenp);
}

/* Returns CLI_OK with the key; CLI_USAGE if the file cannot be read, CLI_NO if it is none. */
static int key_read(struct attester *a, EVP_PKEY **keyp)
{
	__attribute__((cleanup(secret_free))) struct secret pem = {0};
	__attribute__((cleanup(bio_freep))) BIO *bio = NULL;

	if (read_again(a, a->key_path, MAX_KEY_BYTES, &pem.text, &pem.len))
		return CLI_USAGE;
	bio = BIO_new_mem_buf(pem.text, (int)pem.len);
	*keyp = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
	if (!*keyp)
		complain(a, "%s is no private key in PEM: %s", a->key_path,
			 wrong_key_hint(pem.text, pem.len) ?: "it cannot be read");
	ERR_clear_error();
	return *keyp ? CLI_OK : CLI_NO;
}

/* What the leaf calls itself, for messages; the daemon decides what it is worth. */
static void read_spiffe_id(struct attester *a, const struct svid_chain *chain)
{
	__attribute__((cleanup(x509_freep))) X509 *leaf = NULL;
	GENERAL_NAMES *names;
	const uint8_t *der;
	size_t len;

	snprintf(a->spiffe_id, sizeof(a->spiffe_id), "an SVID without a SPIFFE ID");
	der = svid_chain_der(chain, 0, &len);
	leaf = der ? d2i_X509(NULL, &der, (long)len) : NULL;
	names = leaf ? X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL) : NULL;
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		if (name->type == GEN_URI)
			snprintf(a->spiffe_id, sizeof(a->spiffe_id), "%.*s",
				 ASN1_STRING_length(name->d.uniformResourceIdentifier),
				 (const char *)ASN1_STRING_get0_data(name->d.uniformResourceIdentifier));
	}
	GENERAL_NAMES_free(names);
}

/* The same answers. */
static int chain_read(struct attester *a, struct svid_chain **chainp)
{
	__attribute__((cleanup(secret_free))) struct secret pem = {0};
	struct svid_verdict verdict = {0};
	int rc;

	if (read_again(a, a->svid_path, 2 * SVID_MAX_CHAIN_BYTES, &pem.text, &pem.len))
		return CLI_USAGE;
	rc = svid_chain_parse_pem(chainp, pem.text, pem.len, &verdict);
	if (rc < 0) {
		complain(a, "%s: %s", a->svid_path, strerror(-rc));
		return CLI_NO;
	}
	if (rc > 0) {
		const char *hint = wrong_chain_hint(pem.text, pem.len);
		char text[512];

		svid_verdict_text(&verdict, text, sizeof(text));
		if (complain(a, "%s refused: %s", a->svid_path, text) && hint)
			fprintf(stderr, "  hint: %s\n", hint);
		return CLI_NO;
	}
	read_spiffe_id(a, *chainp);
	a->chain_hint = wrong_chain_hint(pem.text, pem.len);
	return CLI_OK;
}

/* Looks at the daemon's socket; the one we saw before may be gone or another. Returns whether there is a new one. */
static bool socket_is_new(struct attester *a)
{
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", a->cli->run_dir, BH_ATTEST_SOCKET);
	if (stat(path, &st) < 0) {
		a->socket.st_ino = 0;
		return false;
	}
	/* An inode number may be used again at once: the time of creation tells as well. */
	if (a->socket.st_ino == st.st_ino && a->socket.st_dev == st.st_dev &&
	    !memcmp(&a->socket.st_ctim, &st.st_ctim, sizeof(st.st_ctim)))
		return false;
	a->socket = st;
	return true;
}

static bool file_is_new(const char *path, struct stat *known)
{
	struct stat st = {0};
	bool same;

	stat(path, &st);
	same = st.st_ino == known->st_ino && st.st_dev == known->st_dev && st.st_size == known->st_size &&
	       !memcmp(&st.st_mtim, &known->st_mtim, sizeof(st.st_mtim)) &&
	       !memcmp(&st.st_ctim, &known->st_ctim, sizeof(st.st_ctim));
	*known = st;
	return !same;
}

/* Looks at the files of the SVID. Returns whether either is another than at the last look. */
static bool files_are_new(struct attester *a)
{
	bool chain_new = file_is_new(a->svid_path, &a->svid_file);

	return file_is_new(a->key_path, &a->key_file) || chain_new;
}

static bool key_is_of(const EVP_PKEY *key, const struct svid_chain *chain)
{
	return EVP_PKEY_eq(key, svid_chain_leaf_key(chain)) == 1;
}

static int64_t boottime_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Between 0 and `max`; not the same for all who begin at the same moment. */
static uint32_t random_below(uint32_t max)
{
	uint32_t random = 0;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
		random = 0;
	return (uint32_t)((uint64_t)max * random / UINT32_MAX);
}

static bool is_told_to_end(void)
{
	sigset_t pending;

	return sigpending(&pending) == 0 && (sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT));
}

/* Asks again, with growing pauses, while bulkheadd says that it has no place now. */
static int prove_when_there_is_room(struct attester *a, const char *path, const struct svid_chain *chain, EVP_PKEY *key,
				    char *why, size_t why_size)
{
	const struct attest_device *device = a->device.name[0] ? &a->device : NULL;
	int64_t until = boottime_ms() + FULL_PATIENCE_MS;
	uint32_t pause_ms = FULL_PAUSE_MIN_MS;

	for (;;) {
		int rc = attest_client_device(path, chain, key, device, &a->result, NULL, why, why_size);
		uint32_t ms = pause_ms / 2 + random_below(pause_ms / 2);

		if (rc < 0 || a->result.code != ATTEST_E_FULL || !a->result.renew_after || is_told_to_end() ||
		    boottime_ms() + ms > until)
			return rc;
		nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
		pause_ms = 2 * pause_ms > FULL_PAUSE_MAX_MS ? FULL_PAUSE_MAX_MS : 2 * pause_ms;
	}
}

static int prove(struct attester *a)
{
	__attribute__((cleanup(svid_chain_freep))) struct svid_chain *chain = NULL;
	__attribute__((cleanup(key_freep))) EVP_PKEY *key = NULL;
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)], why[512] = "";
	int len, rc, code;

	memset(&a->result, 0, sizeof(a->result));
	len = snprintf(path, sizeof(path), "%s/%s", a->cli->run_dir, BH_ATTEST_SOCKET);
	if (len < 0 || (size_t)len >= sizeof(path)) {
		complain(a, "run directory %s: the path is too long for a socket", a->cli->run_dir);
		a->hopeless = true;
		return CLI_USAGE;
	}
	files_are_new(a);
	code = chain_read(a, &chain);
	if (code == CLI_OK)
		code = key_read(a, &key);
	if (code != CLI_OK)
		return code;
	/* As long as only one of the two files is replaced; to the daemon it would look like a theft. */
	if (!key_is_of(key, chain)) {
		if (complain(a, "%s: the key is not that of the certificate in %s", a->key_path, a->svid_path) &&
		    a->chain_hint)
			fprintf(stderr, "  hint: %s\n", a->chain_hint);
		return CLI_NO;
	}
	socket_is_new(a);
	rc = prove_when_there_is_room(a, path, chain, key, why, sizeof(why));
	if (rc < 0) {
		complain(a, "not attested: %s", *why ? why : strerror(-rc));
		return rc == -EKEYREJECTED ? CLI_NO : CLI_UNREACHABLE;
	}
	if (a->result.code != ATTEST_OK) {
		/* The text of a broken SVID rule begins with the rule's name. */
		if (a->result.code > ATTEST_E_SVID)
			complain(a, "%.256s refused: %s", a->spiffe_id, a->result.text);
		else
			complain(a, "%.256s refused: %s: %s", a->spiffe_id, attest_code_name(a->result.code),
				 a->result.text);
		return CLI_NO;
	}
	a->problem[0] = '\0';
	return CLI_OK;
}

/* "attested; NOTE": the daemon says what is odd though accepted. */
static const char *note_of(const struct attester *a)
{
	const char *semicolon = strstr(a->result.text, "; ");

	return semicolon ? semicolon + 2 : NULL;
}

void attester_print(const struct attester *a)
{
	const char *note = note_of(a);
	char until[32];

	cli_format_time(a->result.valid_until, until, sizeof(until));
	if (a->cli->json) {
		json_t *line = json_pack("{s:b, s:s, s:s, s:I}", "ok", 1, "attested", a->spiffe_id, "until", until,
					 "cgroup_id", (json_int_t)a->result.cgroup_id);

		if (a->device.name[0])
			json_object_set_new(line, "device", json_string(a->device.name));
		if (note)
			json_object_set_new(line, "note", json_string(note));
		json_dumpf(line, stdout, JSON_COMPACT);
		json_decref(line);
		putchar('\n');
	} else if (a->device.name[0]) {
		printf("attested %s until %s (device %s)\n", a->spiffe_id, until, a->device.name);
	} else {
		printf("attested %s until %s (cgroup %" PRIu64 ")\n", a->spiffe_id, until, a->result.cgroup_id);
	}
	fflush(stdout);
	if (note && !a->cli->json)
		cli_error("note: %s", note);
}

static int64_t boottime_s(void)
{
	return boottime_ms() / 1000;
}

/* Not all at the same moment: workloads that were started together, or waited for the same daemon, would be. */
static void plan_renewal(struct attester *a)
{
	uint64_t now = (uint64_t)time(NULL), after = a->result.renew_after;
	uint64_t left = after > now ? after - now : 0;

	a->renew_s = a->proved_s + (int64_t)(left - (left / JITTER_PART * random_below(1U << 20) >> 20));
}

int attester_prove(struct attester *a)
{
	a->code = prove(a);
	a->proved_s = boottime_s();
	plan_renewal(a);
	if (a->code == CLI_OK || !a->backoff_s)
		a->backoff_s = BACKOFF_MIN_S;
	else
		a->backoff_s = 2 * a->backoff_s > BACKOFF_MAX_S ? BACKOFF_MAX_S : 2 * a->backoff_s;
	return a->code;
}

/* Whether it is time for the next proof. At most one a second: an SVID at its end must not make us spin. */
static bool due(const struct attester *a)
{
	int64_t since = boottime_s() - a->proved_s;

	if (a->code != CLI_OK)
		return since >= a->backoff_s;
	/* By the clock that runs through suspend; by the other too, which may have been set. */
	return since >= 1 && (boottime_s() >= a->renew_s || (uint64_t)time(NULL) >= a->result.renew_after);
}

void attester_wait(struct attester *a, const sigset_t *signals, siginfo_t *info)
{
	static const struct timespec look = {.tv_sec = LOOK_S};

	while (sigtimedwait(signals, info, &look) <= 0) {
		uint64_t until = a->result.valid_until;

		/* A pair that has just changed may be half of a change: the next look finds it settled. */
		bool changed = files_are_new(a), settled = a->files_changed && !changed;

		a->files_changed = changed;
		if (!socket_is_new(a) && !settled && !due(a))
			continue;
		if (attester_prove(a) == CLI_OK && a->result.valid_until != until && !a->quiet)
			attester_print(a);
	}
}

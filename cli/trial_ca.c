/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/trial_ca.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/new_file.h"
#include "daemon/cleanup.h"

#define FILE_MAX_BYTES 65536
#define BACKDATED_SECONDS 60 /* of authorities: clocks differ */

struct path {
	char text[PATH_MAX];
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

/* Level 0 is the authority, 1 and up its intermediates. */
static struct path path_of(const struct trial_ca *ca, unsigned number, unsigned level, const char *suffix)
{
	struct path path;

	if (level == 0)
		snprintf(path.text, sizeof(path.text), "%s/authority-%u.%s", ca->dir, number, suffix);
	else
		snprintf(path.text, sizeof(path.text), "%s/intermediate-%u-%u.%s", ca->dir, number, level, suffix);
	return path;
}

static struct path state_path(const char *dir)
{
	struct path path;

	snprintf(path.text, sizeof(path.text), "%s/ca.json", dir);
	return path;
}

void trial_ca_close(struct trial_ca *ca)
{
	if (ca->lock >= 0)
		close(ca->lock);
	ca->lock = -1;
}

/* ---- files ---- */

static int write_file(const char *path, const char *text, mode_t mode, bool replace)
{
	int r = text != NULL ? new_file_write(path, text, strlen(text), mode, replace) : -ENOMEM;

	if (r == -EEXIST)
		cli_error("%s is there already; nothing was overwritten", path);
	else if (r < 0)
		cli_error("cannot write %s: %s", path, strerror(-r));
	return r;
}

static int write_cert(const struct trial_ca *ca, unsigned number, unsigned level, const struct trial_cert *cert,
		      bool replace)
{
	__attribute__((cleanup(secret_freep))) char *key = trial_key_pem(cert->key);
	__attribute__((cleanup(freep))) char *pem = trial_cert_pem(cert->x509);
	int r = write_file(path_of(ca, number, level, "key").text, key, 0600, replace);

	return r < 0 ? r : write_file(path_of(ca, number, level, "pem").text, pem, 0644, replace);
}

static int write_state(const struct trial_ca *ca)
{
	__attribute__((cleanup(json_freep))) json_t *numbers = json_array();
	__attribute__((cleanup(json_freep))) json_t *state = NULL;
	__attribute__((cleanup(freep))) char *text = NULL;

	for (size_t i = 0; i < ca->n; i++)
		json_array_append_new(numbers, json_integer(ca->authorities[i]));
	state = json_pack("{s:s, s:i, s:s, s:s, s:i, s:I, s:O}", "purpose", "trials and tests, not production",
			  "version", 1, "trust_domain", ca->trust_domain, "key_type", trial_key_name(ca->key),
			  "intermediates", (int)ca->intermediates, "sequence", ca->sequence, "authorities", numbers);
	text = state != NULL ? json_dumps(state, JSON_INDENT(2)) : NULL;
	return write_file(state_path(ca->dir).text, text, 0644, true);
}

static int read_cert(const struct trial_ca *ca, unsigned number, unsigned level, X509 **certp, char **pemp)
{
	__attribute__((cleanup(freep))) char *pem = NULL;
	struct path path = path_of(ca, number, level, "pem");
	size_t len;
	int r = cli_read_file(path.text, FILE_MAX_BYTES, &pem, &len);

	if (r < 0)
		return r;
	*certp = trial_cert_read(pem);
	if (*certp == NULL) {
		cli_error("%s is no certificate in PEM", path.text);
		return -EINVAL;
	}
	if (pemp != NULL) {
		*pemp = pem;
		pem = NULL;
	}
	return 0;
}

int trial_ca_authority(const struct trial_ca *ca, unsigned number, X509 **certp, char **pemp)
{
	return read_cert(ca, number, 0, certp, pemp);
}

static int read_key(const struct trial_ca *ca, unsigned number, unsigned level, EVP_PKEY **keyp)
{
	__attribute__((cleanup(secret_freep))) char *pem = NULL;
	struct path path = path_of(ca, number, level, "key");
	size_t len;
	int r = cli_read_file(path.text, FILE_MAX_BYTES, &pem, &len);

	if (r < 0)
		return r;
	*keyp = trial_key_read(pem);
	if (*keyp == NULL) {
		cli_error("%s is no private key in PEM", path.text);
		return -EINVAL;
	}
	return 0;
}

/* ---- state ---- */

/* A path that is cut off would name another file. */
static int directory_check(const char *dir)
{
	if (strlen(dir) + 40 < PATH_MAX)
		return 0;
	cli_error("the name of the directory is too long");
	return -ENAMETOOLONG;
}

static int directory_lock(struct trial_ca *ca)
{
	ca->lock = open(ca->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ca->lock < 0 || flock(ca->lock, LOCK_EX) < 0) {
		int r = -errno;

		cli_error("cannot open the directory %s: %s", ca->dir, strerror(-r));
		return r;
	}
	return 0;
}

static bool numbers_read(struct trial_ca *ca, const json_t *numbers)
{
	ca->n = json_array_size(numbers);
	if (ca->n == 0 || ca->n > TRIAL_MAX_AUTHORITIES)
		return false;
	for (size_t i = 0; i < ca->n; i++) {
		json_int_t number = json_integer_value(json_array_get(numbers, i));

		if (number < 1 || number > 1000000 || (i > 0 && number <= ca->authorities[i - 1]))
			return false;
		ca->authorities[i] = (unsigned)number;
	}
	return true;
}

static bool state_read(struct trial_ca *ca, json_t *state)
{
	const char *trust_domain, *key;
	json_t *numbers;
	int version, intermediates;

	if (json_unpack(state, "{s:i, s:s, s:s, s:i, s:I, s:o}", "version", &version, "trust_domain", &trust_domain,
			"key_type", &key, "intermediates", &intermediates, "sequence", &ca->sequence, "authorities",
			&numbers) < 0)
		return false;
	if (version != 1 || spiffe_trust_domain_check(trust_domain, strlen(trust_domain)) != 0 || intermediates < 0 ||
	    intermediates > TRIAL_MAX_INTERMEDIATES || ca->sequence < 1)
		return false;
	snprintf(ca->trust_domain, sizeof(ca->trust_domain), "%s", trust_domain);
	ca->intermediates = (unsigned)intermediates;
	ca->key = trial_key_of(key);
	return ca->key != TRIAL_KEYS && numbers_read(ca, numbers);
}

int trial_ca_open(struct trial_ca *ca, const char *dir)
{
	__attribute__((cleanup(json_freep))) json_t *state = NULL;
	__attribute__((cleanup(freep))) char *text = NULL;
	size_t len;
	int r = directory_check(dir);

	*ca = (struct trial_ca){.dir = dir, .lock = -1};
	if (r == 0)
		r = directory_lock(ca);
	if (r == 0 && access(state_path(dir).text, F_OK) < 0) {
		cli_error("%s is no trial CA: it has no ca.json; `policyctl ca init %s --trust-domain NAME` makes one",
			  dir, dir);
		r = -EINVAL;
	}
	if (r == 0)
		r = cli_read_file(state_path(dir).text, FILE_MAX_BYTES, &text, &len);
	if (r < 0)
		return r;
	state = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	if (state == NULL || !state_read(ca, state)) {
		cli_error("%s is not as `policyctl ca` writes it", state_path(dir).text);
		return -EINVAL;
	}
	return 0;
}

/* ---- authorities ---- */

static void authority_unlink(const struct trial_ca *ca, unsigned number)
{
	for (unsigned level = 0; level <= ca->intermediates; level++) {
		unlink(path_of(ca, number, level, "key").text);
		unlink(path_of(ca, number, level, "pem").text);
	}
}

/* An authority and the intermediates below it, in files. */
static int authority_make(const struct trial_ca *ca, unsigned number, enum trial_key key, time_t until, bool replace)
{
	struct trial_cert above = {0}, cert = {0};
	char uri[SPIFFE_TRUST_DOMAIN_MAX + 16], name[40];
	int r = 0;

	snprintf(uri, sizeof(uri), "spiffe://%s", ca->trust_domain);
	for (unsigned level = 0; r == 0 && level <= ca->intermediates; level++) {
		if (level == 0)
			snprintf(name, sizeof(name), "authority %u", number);
		else
			snprintf(name, sizeof(name), "intermediate %u.%u", number, level);
		r = trial_cert_make(&cert, &(struct trial_request){
						   .issuer = level > 0 ? &above : NULL,
						   .name = name,
						   .uri = uri,
						   .path_len = (int)(ca->intermediates - level),
						   .key = key,
						   .from = time(NULL) - BACKDATED_SECONDS,
						   .until = until,
					   });
		if (r == 0)
			r = write_cert(ca, number, level, &cert, replace);
		trial_cert_free(&above);
		above = cert;
		cert = (struct trial_cert){0};
	}
	trial_cert_free(&above);
	return r;
}

/* What the CA that was there before had, and the new one has not. */
static void remove_former(const struct trial_ca *ca, const struct trial_ca *former)
{
	for (size_t i = 0; i < former->n; i++) {
		for (unsigned level = 0; level <= former->intermediates; level++) {
			if (former->authorities[i] == ca->authorities[0] && level <= ca->intermediates)
				continue;
			unlink(path_of(former, former->authorities[i], level, "key").text);
			unlink(path_of(former, former->authorities[i], level, "pem").text);
		}
	}
}

int trial_ca_init(struct trial_ca *ca, const char *dir, const char *trust_domain, unsigned intermediates,
		  enum trial_key key, time_t until, bool replace)
{
	struct trial_ca former = {.lock = -1};
	int r = directory_check(dir);

	*ca = (struct trial_ca){
		.dir = dir, .lock = -1, .intermediates = intermediates, .key = key, .sequence = 1, .n = 1};
	ca->authorities[0] = 1;
	snprintf(ca->trust_domain, sizeof(ca->trust_domain), "%s", trust_domain);
	if (r == 0 && mkdir(dir, 0700) < 0 && errno != EEXIST) {
		r = -errno;
		cli_error("cannot make the directory %s: %s", dir, strerror(-r));
	}
	if (r < 0)
		return r;
	if (access(state_path(dir).text, F_OK) == 0) {
		if (!replace) {
			cli_error("%s is a trial CA already; --force replaces it, and what it has issued is worth "
				  "nothing then",
				  dir);
			return -EEXIST;
		}
		r = trial_ca_open(&former, dir);
		/* A bundle that was loaded before must look older. */
		ca->sequence = r == 0 ? former.sequence + 1 : 1;
		ca->lock = former.lock;
	} else {
		r = directory_lock(ca);
	}
	if (r == 0)
		r = authority_make(ca, 1, key, until, replace);
	if (r == 0)
		r = write_state(ca);
	if (r == 0)
		remove_former(ca, &former);
	return r;
}

int trial_ca_rotate(struct trial_ca *ca, enum trial_key key, time_t until)
{
	unsigned number = ca->authorities[ca->n - 1] + 1;
	int r;

	if (ca->n == TRIAL_MAX_AUTHORITIES) {
		cli_error("%s has %d authorities; `policyctl ca remove` takes old ones away", ca->dir,
			  TRIAL_MAX_AUTHORITIES);
		return -ENOSPC;
	}
	/* Files of this number that ca.json does not name are of a run that was interrupted. */
	r = authority_make(ca, number, key, until, true);
	if (r == 0) {
		ca->authorities[ca->n++] = number;
		ca->sequence++;
		r = write_state(ca);
	}
	return r;
}

int trial_ca_remove(struct trial_ca *ca, unsigned number)
{
	size_t at = 0;
	int r;

	while (at < ca->n && ca->authorities[at] != number)
		at++;
	if (at == ca->n) {
		cli_error("%s has no authority %u; `policyctl ca show %s` lists them", ca->dir, number, ca->dir);
		return -EINVAL;
	}
	if (ca->n == 1) {
		cli_error("authority %u is the only one; `policyctl ca rotate %s` makes another", number, ca->dir);
		return -EBUSY;
	}
	ca->n--;
	memmove(&ca->authorities[at], &ca->authorities[at + 1], (ca->n - at) * sizeof(ca->authorities[0]));
	ca->sequence++;
	r = write_state(ca);
	if (r == 0)
		authority_unlink(ca, number);
	return r;
}

/* ---- SVIDs ---- */

/* PEM of the leaf, and of the intermediates from the lowest up. */
static int chain_text(const struct trial_ca *ca, unsigned number, X509 *leaf, char **chainp)
{
	__attribute__((cleanup(freep))) char *chain = trial_cert_pem(leaf);

	for (unsigned level = ca->intermediates; chain != NULL && level > 0; level--) {
		__attribute__((cleanup(freep))) char *pem = NULL;
		char *longer;
		X509 *x509 = NULL;
		int r = read_cert(ca, number, level, &x509, &pem);

		X509_free(x509);
		if (r < 0)
			return r;
		if (asprintf(&longer, "%s%s", chain, pem) < 0)
			longer = NULL;
		free(chain);
		chain = longer;
	}
	*chainp = chain;
	chain = NULL;
	return *chainp != NULL ? 0 : -ENOMEM;
}

static int check_life(const struct trial_ca *ca, X509 *issuer, time_t until)
{
	time_t end = until;

	if (X509_cmp_time(X509_get0_notAfter(issuer), &end) >= 0)
		return 0;
	cli_error("the SVID would outlive the authority that signs it; give it a shorter --ttl, or make another "
		  "authority with `policyctl ca rotate %s`",
		  ca->dir);
	return -EINVAL;
}

int trial_ca_issue(const struct trial_ca *ca, const char *id, enum trial_key key, time_t until, char **chainp,
		   char **keyp)
{
	struct trial_cert issuer = {0}, svid = {0};
	unsigned number = ca->authorities[ca->n - 1];
	char name[65]; /* the most that X.520 allows a common name */
	int r = read_cert(ca, number, ca->intermediates, &issuer.x509, NULL);

	snprintf(name, sizeof(name), "%s", strrchr(id, '/') + 1);

	*chainp = *keyp = NULL;
	if (r == 0)
		r = read_key(ca, number, ca->intermediates, &issuer.key);
	if (r == 0)
		r = check_life(ca, issuer.x509, until);
	if (r == 0)
		r = trial_cert_make(&svid, &(struct trial_request){
						   .issuer = &issuer,
						   .name = name,
						   .uri = id,
						   .path_len = -1,
						   .key = key,
						   .from = time(NULL), /* so that it is newer than a revocation */
						   .until = until,
					   });
	if (r == 0)
		r = chain_text(ca, number, svid.x509, chainp);
	if (r == 0) {
		*keyp = trial_key_pem(svid.key);
		r = *keyp != NULL ? 0 : -ENOMEM;
	}
	trial_cert_free(&issuer);
	trial_cert_free(&svid);
	return r;
}

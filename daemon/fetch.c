/* SPDX-License-Identifier: Apache-2.0 */
#include "fetch.h"

#include <curl/curl.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "endpoint_url.h"
#include "identity/svid.h"

struct fetch {
	const struct fetch_job *job;
	CURL *curl;
	struct bundle_set *bundles; /* https_spiffe: of one trust domain */
	bool verified;		    /* https_spiffe: the connection in use is to whom it has to be */
	char *body;
	size_t len;
	bool too_large;
	char refusal[600]; /* of the server's certificate */
	char error[CURL_ERROR_SIZE];
	char *why;
	size_t why_size;
};

static void fetch_close(struct fetch *f)
{
	curl_easy_cleanup(f->curl);
	bundle_set_freep(&f->bundles);
	free(f->body);
}

static __attribute__((format(printf, 3, 4))) int fail(struct fetch *f, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(f->why, f->why_size, format, args);
	va_end(args);
	return error;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *context)
{
	struct fetch *f = context;
	size_t len = size * n;
	char *more;

	if (len > FETCH_MAX_BYTES - f->len) {
		f->too_large = true;
		return 0;
	}
	more = realloc(f->body, f->len + len + 1);
	if (!more)
		return 0;
	memcpy(more + f->len, bytes, len);
	f->body = more;
	f->len += len;
	f->body[f->len] = '\0';
	return len;
}

/* ---- https_spiffe ---- */

static void chain_free(uint8_t **der, size_t n)
{
	for (size_t i = 0; i < n; i++)
		OPENSSL_free(der[i]);
}

/* What the server sent, leaf first, by our verifier. Returns whether it is who it has to be. */
static bool server_check(struct fetch *f, STACK_OF(X509) * sent)
{
	__attribute__((cleanup(svid_chain_freep))) struct svid_chain *chain = NULL;
	uint8_t *der[SVID_MAX_CERTIFICATES] = {NULL};
	size_t len[SVID_MAX_CERTIFICATES], n = sent ? (size_t)sk_X509_num(sent) : 0;
	struct svid_verdict verdict = {.rule = -1};
	int r = 0;

	if (!n || n > SVID_MAX_CERTIFICATES) {
		snprintf(f->refusal, sizeof(f->refusal), "it sent %zu certificates; a chain has 1 to %d", n,
			 SVID_MAX_CERTIFICATES);
		return false;
	}
	for (size_t i = 0; i < n && r >= 0; i++) {
		r = i2d_X509(sk_X509_value(sent, (int)i), &der[i]);
		len[i] = r < 0 ? 0 : (size_t)r;
	}
	r = r < 0 ? -ENOMEM : svid_chain_parse_der(&chain, (const uint8_t *const *)der, len, n, &verdict);
	if (r == 0)
		r = svid_verify(chain, f->bundles, time(NULL), &verdict);
	chain_free(der, n);
	if (r < 0)
		snprintf(f->refusal, sizeof(f->refusal), "%s", strerror(-r));
	else if (r > 0)
		svid_verdict_text(&verdict, f->refusal, sizeof(f->refusal));
	else if (strcmp(verdict.spiffe_id, f->job->endpoint_spiffe_id) != 0)
		snprintf(f->refusal, sizeof(f->refusal), "it proved to be %.300s", verdict.spiffe_id);
	else
		return true;
	return false;
}

/* In place of all that OpenSSL would verify. */
static int on_certificate(X509_STORE_CTX *store, void *context)
{
	struct fetch *f = context;

	f->verified = server_check(f, X509_STORE_CTX_get0_untrusted(store));
	X509_STORE_CTX_set_error(store, f->verified ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
	return f->verified;
}

static CURLcode on_context(CURL *curl, void *context, void *user)
{
	(void)curl;
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_cert_verify_callback(context, on_certificate, user);
	return CURLE_OK;
}

static int bundle_load(struct fetch *f)
{
	char domain[SPIFFE_TRUST_DOMAIN_MAX + 1];
	struct bundle_report report;
	int r;

	spiffe_id_trust_domain(f->job->endpoint_spiffe_id, domain);
	if (!f->job->bundle)
		return fail(
			f, -ENOKEY,
			"https_spiffe: there is no bundle of trust domain %.100s, by which the endpoint could prove "
			"itself",
			domain);
	r = bundle_set_new(&f->bundles);
	if (r == 0)
		r = bundle_set_load(f->bundles, domain, f->job->format, f->job->bundle, f->job->bundle_len, &report);
	if (r == -EINVAL)
		return fail(f, r, "https_spiffe: the bundle of %.100s cannot be read: %s", domain, report.why);
	return r < 0 ? fail(f, r, "https_spiffe: the bundle of %.100s: %s", domain, strerror(-r)) : 0;
}

/* ---- the exchange ---- */

#define SET(option, value)                                                                                             \
	do {                                                                                                           \
		if (curl_easy_setopt(f->curl, option, value) != CURLE_OK)                                              \
			return fail(f, -EIO, "libcurl does not take " #option);                                        \
	} while (0)

/* Nothing is taken from the environment, no secret is ever sent, and nothing outlives the fetch (5.2.1.3: no client has to
 * authenticate). */
static int prepare(struct fetch *f)
{
	bool web = !*f->job->endpoint_spiffe_id;

	f->curl = curl_easy_init();
	if (!f->curl)
		return fail(f, -ENOMEM, "out of memory");
	SET(CURLOPT_ERRORBUFFER, f->error);
	SET(CURLOPT_PROTOCOLS_STR, "https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_SESSIONID_CACHE, 0L);
	SET(CURLOPT_FRESH_CONNECT, 1L);
	SET(CURLOPT_USERAGENT, "bulkhead/" BULKHEAD_VERSION);
	SET(CURLOPT_CONNECTTIMEOUT, (long)FETCH_CONNECT_SECONDS);
	SET(CURLOPT_MAXFILESIZE, (long)FETCH_MAX_BYTES);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, f);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, web ? 2L : 0L);
	if (web && *f->job->ca_file) {
		SET(CURLOPT_CAINFO, f->job->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	if (web)
		return 0;
	SET(CURLOPT_CAINFO, NULL);
	SET(CURLOPT_CAPATH, NULL);
	SET(CURLOPT_SSL_CTX_FUNCTION, on_context);
	SET(CURLOPT_SSL_CTX_DATA, f);
	return bundle_load(f);
}

static int failed(struct fetch *f, CURLcode code, const char *url)
{
	const char *profile = *f->job->endpoint_spiffe_id ? "https_spiffe" : "https_web";

	if (f->too_large || code == CURLE_FILESIZE_EXCEEDED)
		return fail(f, -EFBIG, "%s sends more than %u MiB", url, FETCH_MAX_BYTES >> 20);
	if (f->refusal[0])
		return fail(f, -EKEYREJECTED, "https_spiffe: the server is not %s: %s", f->job->endpoint_spiffe_id,
			    f->refusal);
	if (code == CURLE_OPERATION_TIMEDOUT)
		return fail(f, -ETIMEDOUT, "%s did not answer in time", url);
	return fail(f, code == CURLE_PEER_FAILED_VERIFICATION ? -EKEYREJECTED : -EIO, "%s: %s: %s", profile, url,
		    f->error[0] ? f->error : curl_easy_strerror(code));
}

/* One request. Returns 0 with the body, 1 with where to go instead in `next`, or -errno. */
static int request(struct fetch *f, const char *url, int64_t until_ms, char *next, size_t size)
{
	int64_t left_ms = until_ms - now_ms();
	char *location = NULL;
	const char *flaw;
	CURLcode code;
	long status;

	if (left_ms <= 0)
		return fail(f, -ETIMEDOUT, "no answer within %d s", FETCH_SECONDS);
	f->len = 0;
	f->verified = false;
	SET(CURLOPT_URL, url);
	SET(CURLOPT_TIMEOUT_MS, (long)left_ms);
	code = curl_easy_perform(f->curl);
	if (code != CURLE_OK)
		return failed(f, code, url);
	if (*f->job->endpoint_spiffe_id && !f->verified)
		return fail(f, -EKEYREJECTED, "https_spiffe: %s answered without showing a certificate", url);
	curl_easy_getinfo(f->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status == 200)
		return f->body ? 0 : fail(f, -EBADMSG, "%s sent nothing", url);
	curl_easy_getinfo(f->curl, CURLINFO_REDIRECT_URL, &location);
	if (status < 300 || status > 399 || !location)
		return fail(f, -EPROTO, "%s answered with status %ld", url, status);
	flaw = endpoint_url_flaw(location);
	if (flaw)
		return fail(f, -EPROTO, "%s redirects to %.200s, which %s", url, location, flaw);
	snprintf(next, size, "%s", location);
	return 1;
}

int fetch_bundle(const struct fetch_job *job, char **bodyp, size_t *lenp, char *why, size_t why_size)
{
	__attribute__((cleanup(fetch_close))) struct fetch f = {.job = job, .why = why, .why_size = why_size};
	char url[ENDPOINT_URL_MAX], next[ENDPOINT_URL_MAX];
	int64_t until_ms = now_ms() + FETCH_SECONDS * 1000;
	int r = prepare(&f);

	if (r < 0)
		return r;
	snprintf(url, sizeof(url), "%s", job->url);
	for (int hop = 0;; hop++) {
		r = request(&f, url, until_ms, next, sizeof(next));
		if (r <= 0)
			break;
		if (hop == FETCH_MAX_REDIRECTS)
			return fail(&f, -ELOOP, "more than %d redirects", FETCH_MAX_REDIRECTS);
		strcpy(url, next);
	}
	if (r < 0)
		return r;
	*bodyp = f.body;
	*lenp = f.len;
	f.body = NULL;
	return 0;
}

int fetch_init(void)
{
	uint8_t byte;

	if (OPENSSL_init_ssl(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS |
				     OPENSSL_INIT_LOAD_CRYPTO_STRINGS,
			     NULL) != 1 ||
	    RAND_bytes(&byte, 1) != 1 || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return -EIO;
	return 0;
}

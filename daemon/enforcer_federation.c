// SPDX-License-Identifier: Apache-2.0
/*
 * Foreign trust domains: when their bundle endpoints are asked, and what becomes of the answer (SPIFFE_Federation.md 4, 6). The
 * fetcher role asks; the bytes that it brings go on to the identity role unread. Between two polls there is the whole interval,
 * whether the first one failed or not (6.2); the bundle that there is stays meanwhile, and over restarts.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "compile.h"
#include "fetch.h"
#include "files.h"
#include "log.h"

/* The fetcher answers in FETCH_SECONDS; if it is not well, a little later its process for the fetch is ended. */
#define OVERDUE_USEC ((FETCH_SECONDS + 30) * 1000000ULL)
/* What a bundle hints at is known only when the identity role has read it: until then the next look is after the shortest
 * interval there is. */
#define LOOK_USEC (BUNDLE_REFRESH_MIN_S * FEDERATION_SECOND_USEC)
/* How soon to look again for a bundle that is about to come. */
#define SOON_USEC 200000ULL

struct relation {
	struct enforcer *e;
	struct federation with;
	sd_event_source *timer;
	uint64_t request;  /* that the fetcher has not answered; 0: none */
	uint64_t asked_ns; /* CLOCK_BOOTTIME; 0: never */
	uint64_t overdue_ns;
	unsigned faults; /* of our own, in a row: the endpoint was not heard */
	uint32_t random;
};

struct federations {
	struct relation *relations[FEDERATION_MAX];
	size_t n;
	uint64_t requests;
};

static void freep(void *p)
{
	free(*(void **)p);
}

static struct bundle_source source_of(const struct federation *with)
{
	struct bundle_source source = {.kind = with->profile == FEDERATION_HTTPS_WEB ? BUNDLE_FROM_WEB
										     : BUNDLE_FROM_SPIFFE};

	snprintf(source.origin, sizeof(source.origin), "%.*s", (int)sizeof(source.origin) - 1, with->url);
	return source;
}

/* ---- asking ---- */

static uint64_t due_ns(const struct relation *relation)
{
	const struct bundle *bundle = enforcer_bundle_find(relation->e, relation->with.trust_domain);
	uint32_t refresh_s = bundle && bundle->refresh_s ? bundle->refresh_s : BUNDLE_REFRESH_USUAL_S;
	uint64_t usec = relation->faults ? federation_again_usec(relation->faults, refresh_s, relation->random)
					 : federation_wait_usec(refresh_s, relation->random);

	return relation->asked_ns ? relation->asked_ns + usec * 1000 : 0;
}

static void relation_arm(struct relation *relation, uint64_t usec)
{
	sd_event_source_set_time_relative(relation->timer, usec);
	sd_event_source_set_enabled(relation->timer, SD_EVENT_ONESHOT);
}

/* The next look: when it is due, but not much later than now, as what is due may change. */
static void relation_arm_next(struct relation *relation)
{
	uint64_t now = enforcer_boottime_ns(), due = due_ns(relation), usec = due > now ? (due - now) / 1000 : 0;

	relation_arm(relation, usec < LOOK_USEC ? usec : LOOK_USEC);
}

static void relation_failed(struct relation *relation, const char *why)
{
	struct bundle_source source = source_of(&relation->with);

	relation->request = 0;
	enforcer_bundle_failed(relation->e, relation->with.trust_domain, &source, why);
	relation_arm_next(relation);
}

/* It ended before the endpoint could say anything. The wait counts from now: many ends in a row are no reason to hurry. */
static void relation_interrupted(struct relation *relation, const char *why)
{
	relation->faults++;
	relation->asked_ns = enforcer_boottime_ns();
	relation_failed(relation, why);
}

static struct relation *relation_find(const struct enforcer *e, const char *trust_domain)
{
	for (size_t i = 0; i < e->federations->n; i++)
		if (strcmp(e->federations->relations[i]->with.trust_domain, trust_domain) == 0)
			return e->federations->relations[i];
	return NULL;
}

/* The bundle by which an https_spiffe endpoint proves itself: the latest one, not the one that it began with (5.2.2.4).
 * NULL: there is none. */
static const struct bundle *proof_of(const struct relation *relation)
{
	char trust_domain[SPIFFE_TRUST_DOMAIN_MAX + 1];

	spiffe_id_trust_domain(relation->with.endpoint_spiffe_id, trust_domain);
	return enforcer_bundle_find(relation->e, trust_domain);
}

/* It is being read, or asked for, for the first time. */
static bool proof_comes(const struct relation *relation)
{
	const struct bundle *proof = *relation->with.endpoint_spiffe_id ? proof_of(relation) : NULL;
	const struct relation *other;

	if (!proof || proof->loaded)
		return false;
	other = relation_find(relation->e, proof->trust_domain);
	return proof->offers || (other && other != relation && (other->request || !other->asked_ns));
}

static void relation_ask(struct relation *relation)
{
	struct ipc_fetch packet = {.h = {.type = IPC_FETCH, .len = sizeof(packet)}};
	const struct bundle *proof = *relation->with.endpoint_spiffe_id ? proof_of(relation) : NULL;
	struct enforcer *e = relation->e;
	int fd = proof && proof->loaded ? proof->text_fd : -1, r;

	packet.format = fd >= 0 ? proof->format : 0;
	relation->asked_ns = enforcer_boottime_ns();
	relation->overdue_ns = relation->asked_ns + OVERDUE_USEC * 1000;
	relation->random = 0;
	if (getrandom(&relation->random, sizeof(relation->random), GRND_NONBLOCK) < 0)
		relation->random = 0;
	relation->request = ++e->federations->requests;
	packet.request = relation->request;
	snprintf(packet.url, sizeof(packet.url), "%s", relation->with.url);
	snprintf(packet.ca_file, sizeof(packet.ca_file), "%s", e->config.federation_ca);
	snprintf(packet.endpoint_spiffe_id, sizeof(packet.endpoint_spiffe_id), "%s", relation->with.endpoint_spiffe_id);
	r = role_send(e->fetcher, &packet, fd);
	if (r < 0)
		relation_interrupted(relation, "the fetcher role does not run");
	else
		relation_arm(relation, OVERDUE_USEC);
}

static int on_due(sd_event_source *source, uint64_t usec, void *context)
{
	struct relation *relation = context;
	uint64_t now = enforcer_boottime_ns();

	(void)source;
	(void)usec;
	if (relation->request && now >= relation->overdue_ns)
		relation_interrupted(relation, "the fetcher role did not answer in time");
	else if (!relation->request && now >= due_ns(relation) && proof_comes(relation))
		relation_arm(relation, SOON_USEC);
	else if (!relation->request && now >= due_ns(relation))
		relation_ask(relation);
	else if (!relation->request)
		relation_arm_next(relation);
	return 0;
}

void enforcer_fetched(struct enforcer *e, const struct ipc_fetched *fetched, int fd)
{
	struct bundle_source source;
	struct relation *relation = NULL;

	for (size_t i = 0; e->federations && i < e->federations->n; i++)
		if (e->federations->relations[i]->request == fetched->request)
			relation = e->federations->relations[i];
	if (!relation || !fetched->request)
		return; /* of a relationship that has ended, or too late */
	if (fd < 0 && fetched->interrupted) {
		relation_interrupted(relation, fetched->why[0] ? fetched->why : "the fetcher role was interrupted");
		return;
	}
	relation->faults = 0;
	if (fd < 0) {
		relation_failed(relation, fetched->why[0] ? fetched->why : "the fetcher role does not say why");
		return;
	}
	relation->request = 0;
	source = source_of(&relation->with);
	enforcer_bundle_offer(e, relation->with.trust_domain, &source, BUNDLE_JWKS, fd);
	relation_arm_next(relation);
}

void enforcer_federation_fetcher_ended(struct enforcer *e)
{
	for (size_t i = 0; e->federations && i < e->federations->n; i++)
		if (e->federations->relations[i]->request)
			relation_interrupted(e->federations->relations[i], "the fetcher role ended while it asked");
}

uint64_t enforcer_federation_due_ns(const struct enforcer *e, const char *trust_domain)
{
	const struct relation *relation = e->federations ? relation_find(e, trust_domain) : NULL;

	return relation ? due_ns(relation) : 0;
}

/* ---- relationships ---- */

/* When the bundle that there is was taken; 0: there is none, nor one about to be. */
static int64_t bundle_since(const struct bundle *bundle)
{
	if (!bundle)
		return 0;
	if (bundle->loaded)
		return bundle->loaded_s;
	return bundle->offers ? bundle->offers->loaded_s : 0;
}

/* The file that the configuration begins with, unless what there is came later: who replaces the file means it. */
static void offer_first(struct relation *relation)
{
	const char *path = relation->with.bundle, *suffix = strrchr(path, '.');
	struct bundle_source source = source_of(&relation->with);
	struct enforcer *e = relation->e;
	__attribute__((cleanup(freep))) char *text = NULL;
	char why[300];
	struct stat st;
	size_t len;
	int r, fd;

	if (!*path)
		return;
	r = stat(path, &st) < 0 ? -errno : 0;
	if (r == 0 && st.st_mtim.tv_sec <= bundle_since(enforcer_bundle_find(e, relation->with.trust_domain)))
		return;
	if (r == 0)
		r = file_read(AT_FDCWD, path, BUNDLE_MAX_BYTES, &text, &len);
	fd = r == 0 ? ipc_memfd("bulkhead-bundle", text, len) : r;
	if (fd < 0) {
		snprintf(why, sizeof(why), "cannot read %.200s: %s", path, strerror(-fd));
		enforcer_bundle_failed(e, relation->with.trust_domain, &source, why);
		return;
	}
	snprintf(source.origin, sizeof(source.origin), "%.*s", (int)sizeof(source.origin) - 1, path);
	enforcer_bundle_offer(e, relation->with.trust_domain, &source,
			      strcmp(suffix, ".pem") == 0 ? BUNDLE_PEM : BUNDLE_JWKS, fd);
	close(fd);
}

static void relation_free(struct relation *relation)
{
	sd_event_source_disable_unref(relation->timer);
	free(relation);
}

static int relation_begin(struct enforcer *e, const struct federation *with)
{
	struct bundle_source source = source_of(with);
	struct relation *relation = calloc(1, sizeof(*relation));
	int r;

	if (!relation)
		return -ENOMEM;
	relation->e = e;
	relation->with = *with;
	r = sd_event_add_time_relative(e->event, &relation->timer, CLOCK_BOOTTIME, 0, 1000, on_due, relation);
	if (r >= 0)
		r = enforcer_bundle_expect(e, with->trust_domain, &source);
	if (r < 0) {
		log_error("federation with %s: %s", with->trust_domain,
			  r == -EEXIST ? "its bundle comes from elsewhere already" : strerror(-r));
		relation_free(relation);
		return r;
	}
	offer_first(relation);
	e->federations->relations[e->federations->n++] = relation;
	return 0;
}

/* Polling stops, the bundle goes, and with it every identity that it vouched for (6.3). */
static void relation_end(struct enforcer *e, size_t i)
{
	struct relation *relation = e->federations->relations[i];

	enforcer_bundle_withdraw(e, relation->with.trust_domain, source_of(&relation->with).kind);
	e->federations->relations[i] = e->federations->relations[--e->federations->n];
	relation_free(relation);
}

static const struct federation *wanted_find(const struct federation *wanted, size_t n, const char *trust_domain)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(wanted[i].trust_domain, trust_domain) == 0)
			return &wanted[i];
	return NULL;
}

/* Ends what is not wanted, begins what is new, and asks all the others now. Another profile is another relationship: what one
 * kind of source gave is not the other's to go on with. */
static int federations_set(struct enforcer *e, const struct federation *wanted, size_t n)
{
	int r, result = 0;

	for (size_t i = 0; i < e->federations->n;) {
		struct relation *relation = e->federations->relations[i];
		const struct federation *with = wanted_find(wanted, n, relation->with.trust_domain);

		if (!with || with->profile != relation->with.profile) {
			relation_end(e, i);
			continue;
		}
		/* What is still to come was asked by what was configured before. */
		if (memcmp(&relation->with, with, sizeof(*with)) != 0)
			relation->request = 0;
		relation->with = *with;
		offer_first(relation);
		relation->asked_ns = 0;
		relation->faults = 0;
		if (!relation->request)
			relation_arm(relation, 0);
		i++;
	}
	for (size_t i = 0; i < n; i++) {
		if (relation_find(e, wanted[i].trust_domain))
			continue;
		r = relation_begin(e, &wanted[i]);
		result = r < 0 ? r : result;
	}
	return result;
}

int enforcer_federation_start(struct enforcer *e)
{
	if (!e->federations)
		e->federations = calloc(1, sizeof(*e->federations));
	return e->federations ? federations_set(e, e->config.federation, e->config.n_federation) : -ENOMEM;
}

void enforcer_federation_free(struct enforcer *e)
{
	for (size_t i = 0; e->federations && i < e->federations->n; i++)
		relation_free(e->federations->relations[i]);
	free(e->federations);
	e->federations = NULL;
}

/* ---- reload ---- */

/* What the configuration file says of federation now. Returns 0 with *filep, or 1 with *textp, or -errno. */
static int config_read(const struct enforcer *e, struct daemon_config_file **filep, char **textp)
{
	__attribute__((cleanup(freep))) char *text = NULL;
	size_t len;
	int r = file_read(AT_FDCWD, e->config.file, CONFIG_MAX_BYTES, &text, &len);

	if (r < 0) {
		if (asprintf(textp, "cannot read %s: %s", e->config.file, strerror(-r)) < 0)
			*textp = NULL;
		return r;
	}
	*filep = calloc(1, sizeof(**filep));
	return *filep ? compile_config(text, len, e->config.file, *filep, textp) : -ENOMEM;
}

int enforcer_federation_reload(struct enforcer *e, char **textp)
{
	__attribute__((cleanup(freep))) struct daemon_config_file *file = NULL;
	__attribute__((cleanup(freep))) struct daemon_config *config = NULL;
	char why[700];
	int r;

	if (!e->config.file[0])
		return enforcer_federation_start(e);
	r = config_read(e, &file, textp);
	if (r == 0) {
		config = calloc(1, sizeof(*config));
		r = config ? config_merge(config, file, NULL, why, sizeof(why)) : -ENOMEM;
		if (r > 0)
			*textp = strdup(why);
	}
	if (r) {
		log_error("federation stays as it is: %s", *textp ? *textp : strerror(r < 0 ? -r : EINVAL));
		return r < 0 ? r : -EINVAL;
	}
	e->config.n_federation = config->n_federation;
	memcpy(e->config.federation, config->federation, sizeof(e->config.federation));
	r = enforcer_federation_start(e);
	if (r == -EEXIST)
		*textp = strdup("the bundle of a federated trust domain comes from elsewhere already: see the log");
	return r;
}

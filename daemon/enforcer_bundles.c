// SPDX-License-Identifier: Apache-2.0
/*
 * Trust bundles, wherever they come from. Their bytes are carried here and judged by the identity role; what is known of a
 * bundle here is what the role says of it. The one in force stays until a better one is, or its source takes it back; a source
 * that fails changes nothing. It is kept on disk for a daemon that starts again.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bundle_store.h"
#include "log.h"

/* An identity role that answers nothing is ended before there are so many. */
#define MAX_OFFERS 64
#define MAX_TRIES 3

static void freep(void *p)
{
	free(*(void **)p);
}

static int64_t now_s(void)
{
	return (int64_t)(enforcer_realtime_ns() / 1000000000ULL);
}

const char *enforcer_bundle_source_name(enum bundle_source_kind kind)
{
	static const char *const names[] = {
		[BUNDLE_FROM_FILE] = "file",
		[BUNDLE_FROM_WEB] = "https_web",
		[BUNDLE_FROM_SPIFFE] = "https_spiffe",
		[BUNDLE_FROM_WORKLOAD_API] = "workload_api",
	};

	return kind < sizeof(names) / sizeof(names[0]) && names[kind] ? names[kind] : "unknown";
}

/* ---- what there is ---- */

struct bundle *enforcer_bundle_find(const struct enforcer *e, const char *trust_domain)
{
	for (size_t i = 0; i < e->n_bundles; i++)
		if (strcmp(e->bundles[i].trust_domain, trust_domain) == 0)
			return &e->bundles[i];
	return NULL;
}

const struct bundle_authority *enforcer_bundle_authority(const struct bundle *bundle, const uint8_t *id)
{
	for (size_t i = 0; i < bundle->n_authorities; i++)
		if (memcmp(bundle->authorities[i].id, id, 16) == 0)
			return &bundle->authorities[i];
	return NULL;
}

static struct bundle *bundle_add(struct enforcer *e, const char *trust_domain, const struct bundle_source *source)
{
	struct bundle *more = reallocarray(e->bundles, e->n_bundles + 1, sizeof(*more)), *bundle;

	if (!more)
		return NULL;
	e->bundles = more;
	bundle = &e->bundles[e->n_bundles++];
	*bundle = (struct bundle){.source = *source, .text_fd = -1, .refresh_s = BUNDLE_REFRESH_USUAL_S};
	snprintf(bundle->trust_domain, sizeof(bundle->trust_domain), "%s", trust_domain);
	return bundle;
}

static void offer_free(struct bundle_offer *offer)
{
	if (offer->fd >= 0)
		close(offer->fd);
	free(offer->authorities);
	free(offer);
}

static void bundle_clear(struct bundle *bundle)
{
	while (bundle->offers) {
		struct bundle_offer *offer = bundle->offers;

		bundle->offers = offer->next;
		offer_free(offer);
	}
	if (bundle->text_fd >= 0)
		close(bundle->text_fd);
	free(bundle->authorities);
}

void enforcer_bundles_free(struct enforcer *e)
{
	for (size_t i = 0; i < e->n_bundles; i++)
		bundle_clear(&e->bundles[i]);
	free(e->bundles);
	if (e->bundles_fd >= 0)
		close(e->bundles_fd);
}

/* ---- alarms ---- */

/* `therefore`: what that means for who is verified by it. */
static void bundle_alarm(struct enforcer *e, struct bundle *bundle, const char *why, const char *therefore)
{
	struct ipc_notice notice = enforcer_notice(NOTICE_BUNDLE_REFUSED);
	bool news = strcmp(bundle->why, why) != 0;

	bundle->tried_s = now_s();
	if (!news)
		return;
	snprintf(bundle->why, sizeof(bundle->why), "%s", why);
	notice.count = (uint32_t)bundle->n_authorities;
	snprintf(notice.spiffe_id, sizeof(notice.spiffe_id), "%s", bundle->trust_domain);
	snprintf(notice.text, sizeof(notice.text), "%s; %s", why, therefore);
	enforcer_notice_post(e, &notice);
	log_warning("trust bundle of %s: %s", bundle->trust_domain, notice.text);
}

static void bundle_failed(struct enforcer *e, struct bundle *bundle, const char *why)
{
	bundle_alarm(e, bundle, why,
		     bundle->loaded ? "the bundle loaded before stays" : "nobody of its trust domain can be verified");
}

/* A name that is none goes to logs only: it may hold anything. */
static int name_check(const char *trust_domain, const struct bundle_source *source)
{
	int rule = spiffe_trust_domain_check(trust_domain, strlen(trust_domain));

	if (!rule)
		return 0;
	log_warning("%s %s: \"%s\" is no name of a trust domain (rule %d): ignored",
		    enforcer_bundle_source_name(source->kind), source->origin, trust_domain, rule);
	return -EINVAL;
}

/* ---- offers ---- */

static int offer_send(struct enforcer *e, const struct bundle *bundle, struct bundle_offer *offer)
{
	struct ipc_bundle packet = {
		.h = {.type = IPC_BUNDLE, .len = sizeof(packet)},
		.offer = offer->number,
		.format = offer->format,
	};

	offer->sent = ++e->bundles_sent;
	snprintf(packet.trust_domain, sizeof(packet.trust_domain), "%s", bundle->trust_domain);
	return role_send(e->identity, &packet, offer->fd);
}

static struct bundle_offer *offer_add(struct enforcer *e, struct bundle *bundle, const struct bundle_source *source,
				      enum bundle_format format, int fd)
{
	struct bundle_offer *offer = calloc(1, sizeof(*offer)), **at = &bundle->offers;

	if (!offer)
		return NULL;
	offer->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (offer->fd < 0) {
		free(offer);
		return NULL;
	}
	offer->number = ++e->bundle_offers;
	offer->source = *source;
	offer->format = format;
	offer->loaded_s = now_s();
	while (*at)
		at = &(*at)->next;
	*at = offer;
	return offer;
}

/* Offers what was in force when the last daemon ran. */
static void offer_kept(struct enforcer *e, struct bundle *bundle)
{
	struct bundle_offer *offer = NULL;
	struct bundle_kept kept;
	char *text = NULL;
	size_t len;
	int r, fd;

	if (e->bundles_fd < 0)
		return;
	r = bundle_store_read(e->bundles_fd, bundle->trust_domain, &kept, &text, &len);
	/* What another kind of source said is no proof of this one's, and whom it vouched for goes with it: as at a reload,
	 * where the end of the one comes before the other begins. */
	if (r == 0 && kept.source != bundle->source.kind) {
		/* First what enforces: the file that is left behind by a crash in between brings us here again. */
		enforcer_vouch_check(e, bundle, NULL, 0);
		bundle_store_remove(e->bundles_fd, bundle->trust_domain);
		r = -ENOENT;
	}
	if (r == -ENOENT) {
		free(text);
		return;
	}
	fd = r == 0 ? ipc_memfd("bulkhead-bundle", text, len) : -1;
	free(text);
	if (fd >= 0) {
		offer = offer_add(e, bundle, &bundle->source, kept.format, fd);
		close(fd);
	}
	if (!offer) {
		log_warning("trust bundle of %s: what was kept of it cannot be used: %s", bundle->trust_domain,
			    strerror(r < 0 ? -r : ENOMEM));
		return;
	}
	snprintf(offer->source.origin, sizeof(offer->source.origin), "%s", kept.origin);
	offer->again = true;
	offer->loaded_s = kept.loaded_s;
	offer_send(e, bundle, offer);
}

/* The bundle of the trust domain, if it is this source's to give. */
static int bundle_get(struct enforcer *e, const char *trust_domain, const struct bundle_source *source,
		      struct bundle **bundlep)
{
	struct bundle *bundle = enforcer_bundle_find(e, trust_domain);
	char why[400];
	int r = name_check(trust_domain, source);

	if (r < 0)
		return r;
	if (bundle && bundle->source.kind != source->kind) {
		snprintf(why, sizeof(why),
			 "%s %.120s offers a bundle, which comes from %s %.120s: a trust domain has one source",
			 enforcer_bundle_source_name(source->kind), source->origin,
			 enforcer_bundle_source_name(bundle->source.kind), bundle->source.origin);
		bundle_failed(e, bundle, why);
		return -EEXIST;
	}
	if (!bundle) {
		bundle = bundle_add(e, trust_domain, source);
		if (!bundle)
			return -ENOMEM;
		offer_kept(e, bundle);
	}
	*bundlep = bundle;
	return 0;
}

int enforcer_bundle_expect(struct enforcer *e, const char *trust_domain, const struct bundle_source *source)
{
	struct bundle *bundle;

	return bundle_get(e, trust_domain, source, &bundle);
}

void enforcer_bundle_failed(struct enforcer *e, const char *trust_domain, const struct bundle_source *source,
			    const char *why)
{
	struct bundle *bundle;

	if (bundle_get(e, trust_domain, source, &bundle) == 0)
		bundle_failed(e, bundle, why);
}

static bool same_bytes(int a, int b)
{
	__attribute__((cleanup(freep))) void *of_a = NULL, *of_b = NULL;
	size_t a_len, b_len;

	return ipc_memfd_read(a, BUNDLE_MAX_BYTES, &of_a, &a_len) == 0 &&
	       ipc_memfd_read(b, BUNDLE_MAX_BYTES, &of_b, &b_len) == 0 && a_len == b_len &&
	       memcmp(of_a, of_b, a_len) == 0;
}

static void bundle_keep(struct enforcer *e, struct bundle *bundle)
{
	struct bundle_kept kept = {
		.source = bundle->source.kind,
		.format = bundle->format,
		.loaded_s = bundle->loaded_s,
	};
	__attribute__((cleanup(freep))) void *text = NULL;
	char why[300];
	size_t len;
	int r = e->bundles_fd < 0 ? -ENOENT : ipc_memfd_read(bundle->text_fd, BUNDLE_MAX_BYTES, &text, &len);

	memcpy(kept.trust_domain, bundle->trust_domain, sizeof(kept.trust_domain));
	memcpy(kept.origin, bundle->source.origin, sizeof(kept.origin));
	if (r == 0)
		r = bundle_store_write(e->bundles_fd, &kept, text, len);
	bundle->unkept = r != 0;
	if (r == 0)
		return;
	snprintf(why, sizeof(why), "cannot be kept for the next start in %.200s: %s", e->config.state_dir,
		 strerror(-r));
	bundle_alarm(e, bundle, why, "it is in force");
	/* Endpoints are asked again by themselves. */
	if (bundle->source.kind == BUNDLE_FROM_FILE)
		enforcer_bundles_again(e);
}

/* What is in force is offered once more. */
static void bundle_confirmed(struct enforcer *e, struct bundle *bundle, const struct bundle_source *source)
{
	struct ipc_notice notice = enforcer_notice(NOTICE_BUNDLE_LOADED);

	bundle->source = *source;
	bundle->tried_s = now_s();
	/* What was kept over a restart counts from here on: some of it may not be taken any more. */
	if (!bundle->judged) {
		bundle->judged = true;
		enforcer_vouch_check(e, bundle, NULL, 0);
	}
	if (bundle->unkept)
		bundle_keep(e, bundle);
	if (bundle->unkept || !bundle->why[0])
		return;
	bundle->why[0] = '\0';
	notice.count = (uint32_t)bundle->n_authorities;
	snprintf(notice.spiffe_id, sizeof(notice.spiffe_id), "%s", bundle->trust_domain);
	snprintf(notice.text, sizeof(notice.text), "its source has the bundle that is in force again");
	enforcer_notice_post(e, &notice);
}

int enforcer_bundle_offer(struct enforcer *e, const char *trust_domain, const struct bundle_source *source,
			  enum bundle_format format, int fd)
{
	struct bundle_offer *offer;
	struct bundle *bundle;
	size_t waiting = 0;
	int r = bundle_get(e, trust_domain, source, &bundle);

	if (r < 0)
		return r;
	bundle->present = true;
	for (offer = bundle->offers; offer; offer = offer->next)
		waiting++;
	if (!waiting && bundle->loaded && bundle->format == format && same_bytes(fd, bundle->text_fd)) {
		bundle_confirmed(e, bundle, source);
		return 0;
	}
	offer = waiting < MAX_OFFERS ? offer_add(e, bundle, source, format, fd) : NULL;
	if (!offer) {
		bundle_failed(e, bundle, waiting < MAX_OFFERS ? "out of memory" : "the identity role does not answer");
		return waiting < MAX_OFFERS ? -ENOMEM : -EBUSY;
	}
	/* Where the role does not run it is told when it does. */
	offer_send(e, bundle, offer);
	return 0;
}

/* The number of the offer that the role that ended was at: it answers in order. */
static uint64_t first_unanswered(const struct enforcer *e)
{
	uint64_t first = UINT64_MAX;

	for (size_t i = 0; i < e->n_bundles; i++)
		for (const struct bundle_offer *offer = e->bundles[i].offers; offer; offer = offer->next)
			if (offer->sent < first)
				first = offer->sent;
	return first;
}

/* One that an identity role ends over is not given to the next ones for ever: they would end as well, and nobody could attest. */
static void offers_drop_deadly(struct enforcer *e, struct bundle *bundle, uint64_t first)
{
	for (struct bundle_offer **at = &bundle->offers; *at;) {
		struct bundle_offer *offer = *at;
		bool in_force = offer->again && bundle->loaded; /* it is offered anew by who calls */

		if (!in_force && (offer->sent != first || ++offer->tries < MAX_TRIES)) {
			at = &offer->next;
			continue;
		}
		*at = offer->next;
		offer_free(offer);
		if (!in_force)
			bundle_failed(e, bundle,
				      "the identity role ended each time it was given this bundle: it is not used");
	}
}

void enforcer_bundles_tell(struct enforcer *e)
{
	uint64_t first = first_unanswered(e);

	for (size_t i = 0; i < e->n_bundles; i++) {
		struct bundle *bundle = &e->bundles[i];
		struct bundle_offer *waiting, *again = NULL;

		offers_drop_deadly(e, bundle, first);
		waiting = bundle->offers;
		bundle->offers = NULL;
		if (bundle->loaded)
			again = offer_add(e, bundle, &bundle->source, bundle->format, bundle->text_fd);
		if (again) {
			again->again = true;
			again->loaded_s = bundle->loaded_s;
			again->next = waiting;
		} else {
			bundle->offers = waiting;
		}
		for (struct bundle_offer *offer = bundle->offers; offer; offer = offer->next) {
			/* It begins anew. */
			offer->n_authorities = 0;
			offer->n_entries = 0;
			offer_send(e, bundle, offer);
		}
	}
}

/* ---- the end of one ---- */

void enforcer_bundle_withdraw(struct enforcer *e, const char *trust_domain, enum bundle_source_kind kind)
{
	struct ipc_bundle packet = {.h = {.type = IPC_BUNDLE, .len = sizeof(packet)}};
	struct ipc_notice notice = enforcer_notice(NOTICE_BUNDLE_REMOVED);
	struct bundle *bundle = enforcer_bundle_find(e, trust_domain);
	int r;

	if (!bundle || bundle->source.kind != kind)
		return;
	snprintf(packet.trust_domain, sizeof(packet.trust_domain), "%s", bundle->trust_domain);
	snprintf(notice.spiffe_id, sizeof(notice.spiffe_id), "%s", bundle->trust_domain);
	r = e->bundles_fd < 0 ? 0 : bundle_store_remove(e->bundles_fd, bundle->trust_domain);
	if (r < 0)
		log_warning("trust bundle of %s: cannot remove what was kept of it: %s", bundle->trust_domain,
			    strerror(-r));
	bundle_clear(bundle);
	*bundle = e->bundles[--e->n_bundles];
	role_send(e->identity, &packet, -1);
	enforcer_notice_post(e, &notice);
	enforcer_vouch_check_domains(e);
}

/* ---- answers ---- */

static struct bundle_offer *offer_find(const struct enforcer *e, const char *trust_domain, uint64_t number,
				       struct bundle **bundlep)
{
	struct bundle_offer *offer;

	*bundlep = enforcer_bundle_find(e, trust_domain);
	for (offer = *bundlep ? (*bundlep)->offers : NULL; offer && offer->number != number;)
		offer = offer->next;
	return offer;
}

static void on_authority(struct enforcer *e, const struct ipc_bundle_authority *packet)
{
	struct bundle *bundle;
	struct bundle_offer *offer = offer_find(e, packet->trust_domain, packet->offer, &bundle);
	struct bundle_authority *authority;

	if (!offer || offer->n_authorities == BUNDLE_MAX_AUTHORITIES)
		return;
	if (!offer->authorities)
		offer->authorities = calloc(BUNDLE_MAX_AUTHORITIES, sizeof(*offer->authorities));
	if (!offer->authorities)
		return;
	authority = &offer->authorities[offer->n_authorities++];
	memcpy(authority->id, packet->id, sizeof(authority->id));
	authority->not_after = packet->not_after;
	memcpy(authority->subject, packet->subject, sizeof(authority->subject));
	memcpy(authority->key_id, packet->key_id, sizeof(authority->key_id));
}

static void on_entry(struct enforcer *e, const struct ipc_bundle_entry *packet)
{
	struct bundle *bundle;
	struct bundle_offer *offer = offer_find(e, packet->trust_domain, packet->offer, &bundle);
	struct bundle_entry *entry;

	if (!offer || offer->n_entries == BUNDLE_MAX_TOLD)
		return;
	entry = &offer->entries[offer->n_entries++];
	entry->index = packet->index;
	entry->rule = (int)packet->rule;
	entry->dropped = packet->dropped;
	snprintf(entry->text, sizeof(entry->text), "%.*s", (int)sizeof(entry->text) - 1, packet->text);
}

/* What came into force, with each entry that was not as it should be, as far as there is room. */
static void loaded_notice(struct enforcer *e, const struct bundle *bundle)
{
	struct ipc_notice notice = enforcer_notice(NOTICE_BUNDLE_LOADED);
	char sequence[40] = "";
	size_t used;

	if (bundle->has_sequence)
		snprintf(sequence, sizeof(sequence), ", sequence %llu", (unsigned long long)bundle->sequence);
	notice.count = (uint32_t)bundle->n_authorities;
	snprintf(notice.spiffe_id, sizeof(notice.spiffe_id), "%s", bundle->trust_domain);
	used = (size_t)snprintf(notice.text, sizeof(notice.text), "%zu authorities, %u entries dropped%s",
				bundle->n_authorities, bundle->dropped, sequence);
	for (size_t i = 0; i < bundle->n_entries && used < sizeof(notice.text); i++) {
		const struct bundle_entry *entry = &bundle->entries[i];

		used += (size_t)snprintf(notice.text + used, sizeof(notice.text) - used, "; entry %u%s: %s (rule %d)",
					 entry->index, entry->dropped ? " dropped" : "", entry->text, entry->rule);
		log_warning("trust bundle of %s: entry %u%s: %s (rule %d)", bundle->trust_domain, entry->index,
			    entry->dropped ? " dropped" : "", entry->text, entry->rule);
	}
	enforcer_notice_post(e, &notice);
}

/* It is what the identity role verifies by from now on. */
static void offer_accept(struct enforcer *e, struct bundle *bundle, struct bundle_offer *offer,
			 const struct ipc_bundle_loaded *loaded)
{
	struct bundle_authority *former = bundle->authorities;
	size_t n_former = bundle->n_authorities;
	/* What was kept is in force until the source is asked, which comes next where there is one. */
	bool decides = bundle->loaded || !offer->again, same = false;

	if (bundle->loaded && bundle->format == offer->format && same_bytes(bundle->text_fd, offer->fd)) {
		same = true;
		offer->loaded_s = bundle->loaded_s;
	}
	if (bundle->text_fd >= 0)
		close(bundle->text_fd);
	bundle->text_fd = offer->fd;
	offer->fd = -1;
	bundle->authorities = offer->authorities;
	bundle->n_authorities = offer->n_authorities;
	offer->authorities = NULL;
	bundle->source = offer->source;
	bundle->format = offer->format;
	bundle->loaded = true;
	memcpy(bundle->entries, offer->entries, sizeof(bundle->entries));
	bundle->n_entries = offer->n_entries;
	bundle->dropped = loaded->dropped;
	bundle->has_sequence = loaded->has_sequence;
	bundle->sequence = loaded->sequence;
	bundle->refresh_s = loaded->refresh_s;
	bundle->loaded_s = offer->loaded_s;
	if (!offer->again) {
		bundle->tried_s = now_s();
		bundle->why[0] = '\0';
		loaded_notice(e, bundle);
	}
	/* Those that lost their authority first: writing to a disk takes as long as it takes. */
	if (decides) {
		bundle->judged = true;
		enforcer_vouch_check(e, bundle, former, n_former);
	}
	free(former);
	if (!offer->again && (!same || bundle->unkept))
		bundle_keep(e, bundle);
}

static void on_loaded(struct enforcer *e, const struct ipc_bundle_loaded *loaded)
{
	struct bundle *bundle;
	struct bundle_offer *offer = offer_find(e, loaded->trust_domain, loaded->offer, &bundle);

	if (!offer)
		return;
	/* An answer for one that was sent before it has been lost with the role that gave it. */
	while (bundle->offers != offer) {
		struct bundle_offer *lost = bundle->offers;

		bundle->offers = lost->next;
		offer_free(lost);
	}
	bundle->offers = offer->next;
	if (loaded->authorities >= 0 && (size_t)loaded->authorities == offer->n_authorities) {
		offer_accept(e, bundle, offer, loaded);
		if (offer->source.kind == BUNDLE_FROM_WORKLOAD_API)
			enforcer_workload_taken(e);
		else if (offer->source.kind == BUNDLE_FROM_FILE)
			backoff_reset(&e->bundle_backoff);
	} else {
		bundle_failed(e, bundle, loaded->why[0] ? loaded->why : "the identity role did not say what is in it");
		/* No rule is against it, so it was a fault; endpoints are asked again by themselves. */
		if (!loaded->rule && offer->source.kind == BUNDLE_FROM_WORKLOAD_API)
			enforcer_workload_again(e);
		else if (!loaded->rule && offer->source.kind == BUNDLE_FROM_FILE)
			enforcer_bundles_again(e);
	}
	offer_free(offer);
}

void enforcer_bundle_packet(struct enforcer *e, int type, const void *packet)
{
	if (type == IPC_BUNDLE_AUTHORITY)
		on_authority(e, packet);
	else if (type == IPC_BUNDLE_ENTRY)
		on_entry(e, packet);
	else if (type == IPC_VOUCH)
		enforcer_vouch_more(e, packet);
	else if (type == IPC_BUNDLE_LOADED) {
		const struct ipc_bundle_loaded *loaded = packet;

		on_loaded(e, packet);
		/* A poll that brings what is there already is no reason to ask for anything again. */
		if (loaded->authorities >= 0 && loaded->changed)
			enforcer_svids_again(e);
	}
}

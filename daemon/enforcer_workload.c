// SPDX-License-Identifier: Apache-2.0
/*
 * Trust bundles of the SPIFFE Workload API (SPIFFE_Workload_API.md 4.4, 5.2). The fetcher role tells one message at a time: its
 * bundles, and then that these were all. Whatever is not among them has been taken back by whoever runs the API.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle_store.h"
#include "log.h"
#include "workload_client.h"

struct workload {
	char (*told)[256]; /* trust domains of the message that is being told */
	size_t n;
	bool whole;		/* all of it could be taken */
	bool lost;		/* and told to the log */
	sd_event_source *again; /* on while a message that was not taken is to be asked for again */
	struct backoff backoff;
};

static struct bundle_source source_of(const struct enforcer *e)
{
	struct bundle_source source = {.kind = BUNDLE_FROM_WORKLOAD_API};

	snprintf(source.origin, sizeof(source.origin), "%s", e->config.workload_api);
	return source;
}

/* Has the role begin a new stream. */
static void watch(struct enforcer *e)
{
	struct ipc_workload_watch packet = {.h = {.type = IPC_WORKLOAD_WATCH, .len = sizeof(packet)}};
	const char *path = config_workload_socket(&e->config);
	int r;

	if (!path)
		return;
	snprintf(packet.path, sizeof(packet.path), "%s", path);
	r = role_send(e->fetcher, &packet, -1);
	if (r < 0)
		log_error("cannot have the fetcher role watch %s: %s", path, strerror(-r));
}

void enforcer_workload_watch(struct enforcer *e)
{
	/* The end of what the role before it began to tell will not come. */
	if (e->workload) {
		e->workload->n = 0;
		e->workload->whole = true;
	}
	watch(e);
}

static int on_again(sd_event_source *source, uint64_t usec, void *data)
{
	(void)source;
	(void)usec;
	watch(data);
	return 0;
}

/* The API says each thing once. What could not be taken comes again with a new stream, which the role opens when it is told to
 * watch once more: after growing time, so that what is short has time to come back. Nothing but that ends the wait: the message
 * that is told next may be the rest of the one of which something was not taken. */
void enforcer_workload_again(struct enforcer *e)
{
	struct workload *w = e->workload;

	if (!w || sd_event_source_get_enabled(w->again, NULL) > 0)
		return;
	sd_event_source_set_time_relative(w->again, backoff_next(&w->backoff));
	sd_event_source_set_enabled(w->again, SD_EVENT_ONESHOT);
}

void enforcer_workload_taken(struct enforcer *e)
{
	struct workload *w = e->workload;

	if (!w || sd_event_source_get_enabled(w->again, NULL) > 0)
		return;
	for (size_t i = 0; i < e->n_bundles; i++)
		if (e->bundles[i].source.kind == BUNDLE_FROM_WORKLOAD_API && e->bundles[i].offers)
			return;
	backoff_reset(&w->backoff);
}

/* ---- the start ---- */

/* What was kept of an API that is still asked is in force until it answers; of one that is not, and of relationships that
 * have ended, nothing is left. */
static void kept_look(void *ctx, const char *trust_domain)
{
	struct enforcer *e = ctx;
	struct bundle_source source = source_of(e);
	struct bundle_kept kept;
	char *text = NULL;
	size_t len;
	int r = bundle_store_read(e->bundles_fd, trust_domain, &kept, &text, &len);

	free(text);
	if (r < 0 || kept.source == BUNDLE_FROM_FILE || enforcer_bundle_find(e, trust_domain))
		return;
	if (kept.source == BUNDLE_FROM_WORKLOAD_API && config_workload_socket(&e->config))
		enforcer_bundle_expect(e, trust_domain, &source);
	else
		bundle_store_remove(e->bundles_fd, trust_domain);
}

int enforcer_workload_start(struct enforcer *e)
{
	int r;

	if (e->bundles_fd >= 0)
		bundle_store_each(e->bundles_fd, kept_look, e);
	if (!config_workload_socket(&e->config))
		return 0;
	e->workload = calloc(1, sizeof(*e->workload));
	if (!e->workload)
		return -ENOMEM;
	e->workload->whole = true;
	e->workload->backoff = WORKLOAD_BACKOFF;
	/* Made here: when it is needed memory may be what is short. */
	r = sd_event_add_time(e->event, &e->workload->again, CLOCK_MONOTONIC, UINT64_MAX, 0, on_again, e);
	return r < 0 ? r : sd_event_source_set_enabled(e->workload->again, SD_EVENT_OFF);
}

void enforcer_workload_free(struct enforcer *e)
{
	if (e->workload) {
		sd_event_source_disable_unref(e->workload->again);
		free(e->workload->told);
	}
	free(e->workload);
	e->workload = NULL;
}

/* ---- messages ---- */

static void bundle_told(struct enforcer *e, const struct ipc_workload_bundle *bundle, int fd)
{
	struct bundle_source source = source_of(e);
	struct workload *w = e->workload;
	char(*more)[256] = w->n < WORKLOAD_MAX_BUNDLES ? reallocarray(w->told, w->n + 1, sizeof(*more)) : NULL;
	int r;

	if (!more) {
		w->whole = false;
		return;
	}
	w->told = more;
	memcpy(w->told[w->n++], bundle->trust_domain, sizeof(*w->told));
	r = enforcer_bundle_offer(e, bundle->trust_domain, &source, BUNDLE_DER, fd);
	if (r < 0 && r != -EEXIST)
		w->whole = false;
}

static bool was_told(const struct workload *w, const char *trust_domain)
{
	for (size_t i = 0; i < w->n; i++)
		if (strcmp(w->told[i], trust_domain) == 0)
			return true;
	return false;
}

/* Takes back all that the message did not tell. */
static void message_over(struct enforcer *e)
{
	for (size_t i = 0; i < e->n_bundles;) {
		const struct bundle *bundle = &e->bundles[i];
		char trust_domain[256];

		if (bundle->source.kind != BUNDLE_FROM_WORKLOAD_API || was_told(e->workload, bundle->trust_domain)) {
			i++;
			continue;
		}
		memcpy(trust_domain, bundle->trust_domain, sizeof(trust_domain));
		enforcer_bundle_withdraw(e, trust_domain, BUNDLE_FROM_WORKLOAD_API);
	}
}

static void api_failed(struct enforcer *e, const char *why)
{
	struct bundle_source source = source_of(e);

	if (!e->workload->lost)
		log_warning("%s: %s; it is tried again", source.origin, why);
	e->workload->lost = true;
	for (size_t i = 0; i < e->n_bundles; i++)
		if (e->bundles[i].source.kind == BUNDLE_FROM_WORKLOAD_API)
			enforcer_bundle_failed(e, e->bundles[i].trust_domain, &source, why);
}

static void state_told(struct enforcer *e, const struct ipc_workload_state *state)
{
	struct workload *w = e->workload;

	if (state->state == WORKLOAD_LOST) {
		api_failed(e, state->why);
	} else if (state->state == WORKLOAD_DENIED) {
		if (!w->lost)
			log_warning("%s: %s; all its bundles are taken back", e->config.workload_api, state->why);
		w->lost = true;
		w->n = 0;
		message_over(e);
	} else if (state->state == WORKLOAD_COMPLETE && w->whole) {
		if (w->lost)
			log_info("%s answers again", e->config.workload_api);
		w->lost = false;
		message_over(e);
		enforcer_workload_taken(e);
	} else if (state->state == WORKLOAD_COMPLETE) {
		api_failed(e, "a message came that could not be taken as a whole");
		enforcer_workload_again(e);
	}
	w->n = 0;
	w->whole = true;
}

void enforcer_workload_packet(struct enforcer *e, int type, const void *packet, int fd)
{
	if (!e->workload)
		return;
	if (type == IPC_WORKLOAD_BUNDLE)
		bundle_told(e, packet, fd);
	else
		state_told(e, packet);
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Who vouches for the tags in force. Each tag has the authorities by which its chain is valid, and until when by each. When one
 * leaves its bundle the tag stays as long as another does; the identity role, which has the chains, adds those that came
 * later. A tag without any in the bundle ends at once, with its connections. Of tags that an older version gave it is not
 * known who vouched: they end when any authority of their trust domain leaves.
 */
#include "enforcer_internal.h"

#include <stdio.h>
#include <string.h>

#include "log.h"

#define NS_PER_S 1000000000ULL

static void trust_domain_of(const char *spiffe_id, char *out, size_t size)
{
	const char *domain = strncmp(spiffe_id, "spiffe://", 9) == 0 ? spiffe_id + 9 : "";

	snprintf(out, size, "%.*s", (int)strcspn(domain, "/"), domain);
}

static bool is_of(const char *spiffe_id, const char *trust_domain)
{
	size_t len = strlen(trust_domain);

	return strncmp(spiffe_id, "spiffe://", 9) == 0 && strncmp(spiffe_id + 9, trust_domain, len) == 0 &&
	       spiffe_id[9 + len] == '/';
}

bool enforcer_vouch_known(const struct bh_vouchers *vouchers)
{
	for (size_t i = 0; i < BH_VOUCHERS; i++)
		if (vouchers->voucher[i].not_after)
			return true;
	return false;
}

/* In force, and by an SVID. One that was derived from another tag follows that one at the next sweep. */
static bool is_attested(const struct tag *tag)
{
	return tag->deadline_ns && !tag->local && !tag->derived;
}

/* ---- at an attestation ---- */

bool enforcer_vouch_holds(struct enforcer *e, const struct ipc_tag_request *request)
{
	const struct bundle *bundle;
	char trust_domain[256];

	trust_domain_of(request->spiffe_id, trust_domain, sizeof(trust_domain));
	bundle = enforcer_bundle_find(e, trust_domain);
	for (size_t i = 0; bundle && i < IPC_VOUCHERS; i++)
		if (request->vouchers[i].not_after && enforcer_bundle_authority(bundle, request->vouchers[i].authority))
			return true;
	return false;
}

_Static_assert(BH_VOUCHERS == IPC_VOUCHERS, "a voucher for each authority that the role names");

/* Where there is no room, the one that ends first goes. */
void enforcer_vouch_merge(struct bh_vouchers *vouchers, const struct ipc_voucher *more, bool anew)
{
	if (anew)
		*vouchers = (struct bh_vouchers){};
	for (size_t i = 0; i < IPC_VOUCHERS && more[i].not_after; i++) {
		struct bh_voucher *into = &vouchers->voucher[0];

		for (size_t at = 0; at < BH_VOUCHERS; at++) {
			struct bh_voucher *one = &vouchers->voucher[at];

			if (one->not_after && memcmp(one->authority, more[i].authority, sizeof(one->authority)) == 0) {
				into = one;
				break;
			}
			if (one->not_after < into->not_after)
				into = one;
		}
		if (more[i].not_after <= into->not_after)
			continue;
		memcpy(into->authority, more[i].authority, sizeof(into->authority));
		into->not_after = more[i].not_after;
	}
}

void enforcer_vouch_more(struct enforcer *e, const struct ipc_vouch *vouch)
{
	struct tag *tag = enforcer_tag_find(e, vouch->key);
	int r;

	if (!tag || !is_attested(tag))
		return;
	enforcer_vouch_merge(&tag->vouchers, vouch->vouchers, false);
	r = datapath_vouchers_set(e->datapath, tag->cgroup_id, &tag->vouchers);
	if (r < 0)
		log_warning("cannot keep who vouches for %s: %s", tag->path, strerror(-r));
}

/* ---- when authorities leave ---- */

/* The time until which those that are in the bundle vouch for the tag; 0: none does. */
static int64_t vouched_until(const struct bundle *bundle, const struct tag *tag)
{
	int64_t until = 0;

	for (size_t i = 0; i < BH_VOUCHERS; i++) {
		const struct bh_voucher *one = &tag->vouchers.voucher[i];

		if (one->not_after > until && enforcer_bundle_authority(bundle, one->authority))
			until = one->not_after;
	}
	return until;
}

static const struct bundle_authority *find_in(const struct bundle_authority *list, size_t n, const uint8_t *id)
{
	for (size_t i = 0; i < n; i++)
		if (memcmp(list[i].id, id, 16) == 0)
			return &list[i];
	return NULL;
}

/* The authority that the tag lost: of those known to vouch for it, or, where none is known, the first one that left. */
static const struct bundle_authority *lost_authority(const struct bundle *bundle, const struct tag *tag,
						     const struct bundle_authority *former, size_t n_former)
{
	const struct bundle_authority *found = NULL;

	for (size_t i = 0; i < BH_VOUCHERS && !found; i++)
		if (tag->vouchers.voucher[i].not_after)
			found = find_in(former, n_former, tag->vouchers.voucher[i].authority);
	for (size_t i = 0; i < n_former && !found && !enforcer_vouch_known(&tag->vouchers); i++)
		if (!enforcer_bundle_authority(bundle, former[i].id))
			found = &former[i];
	return found;
}

static void tag_end(struct enforcer *e, struct tag *tag, const struct bundle *bundle,
		    const struct bundle_authority *lost)
{
	char text[512], who[320] = "the authority that vouched for it";

	if (lost)
		snprintf(who, sizeof(who), "authority \"%.220s\" (key %s)", lost->subject, lost->key_id);
	snprintf(text, sizeof(text), "%s is no longer in the trust bundle of %.60s%s", who, bundle->trust_domain,
		 enforcer_vouch_known(&tag->vouchers) ? ", and no other in it vouches for this identity"
						      : ", and it is not known who else vouches for this identity");
	enforcer_tag_end(e, tag, NOTICE_IDENTITY_REVOKED, text);
}

/* A path by another authority may end sooner. */
static void tag_shorten(struct enforcer *e, struct tag *tag, int64_t until)
{
	uint64_t real = enforcer_realtime_ns(), boot = enforcer_boottime_ns();
	int64_t left = until - (int64_t)(real / NS_PER_S);
	uint64_t deadline = left > 0 ? boot + (uint64_t)left * NS_PER_S - real % NS_PER_S : 1;

	if (until < tag->svid_not_after) {
		tag->svid_not_after = until;
		enforcer_tag_keep(e, tag);
	}
	if (until >= tag->not_after || deadline >= tag->deadline_ns)
		return;
	tag->not_after = until;
	tag->deadline_ns = deadline;
	enforcer_tag_write(e, tag);
	datapath_changed(e->datapath);
}

/* Returns whether the tag ended. */
static bool tag_check(struct enforcer *e, struct tag *tag, const struct bundle *bundle,
		      const struct bundle_authority *former, size_t n_former)
{
	const struct bundle_authority *lost = lost_authority(bundle, tag, former, n_former);
	int64_t until = vouched_until(bundle, tag);

	if (until) {
		tag_shorten(e, tag, until);
		return false;
	}
	if (!enforcer_vouch_known(&tag->vouchers) && !lost && bundle->n_authorities)
		return false;
	tag_end(e, tag, bundle, lost);
	return true;
}

static void tags_ended(struct enforcer *e, const char *why)
{
	datapath_changed(e->datapath);
	enforcer_sweep(e, true, why);
}

void enforcer_vouch_check(struct enforcer *e, const struct bundle *bundle, const struct bundle_authority *former,
			  size_t n_former)
{
	bool any = false;

	for (size_t i = 0; i < e->n_tags; i++) {
		struct tag *tag = &e->tags[i];

		if (is_attested(tag) && is_of(enforcer_identity_name(e, tag->identity), bundle->trust_domain))
			any |= tag_check(e, tag, bundle, former, n_former);
	}
	if (any)
		tags_ended(e, "an authority left its trust bundle");
	else
		enforcer_expiry_arm(e);
}

void enforcer_vouch_check_domains(struct enforcer *e)
{
	char text[400], trust_domain[256];
	bool any = false;

	for (size_t i = 0; i < e->n_tags; i++) {
		const char *name = enforcer_identity_name(e, e->tags[i].identity);

		trust_domain_of(name, trust_domain, sizeof(trust_domain));
		if (!is_attested(&e->tags[i]) || enforcer_bundle_find(e, trust_domain))
			continue;
		snprintf(text, sizeof(text), "the trust bundle of %s is gone", trust_domain);
		enforcer_tag_end(e, &e->tags[i], NOTICE_IDENTITY_REVOKED, text);
		any = true;
	}
	if (any)
		tags_ended(e, "a trust bundle is gone");
}

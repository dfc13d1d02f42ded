// SPDX-License-Identifier: Apache-2.0
/*
 * How long a tag lives: until the earliest notAfter of its SVID's chain, and no longer than the configuration lets one proof
 * last. The deadline is CLOCK_BOOTTIME's, which runs through suspend and which nobody can set, and the kernel programs compare
 * it themselves. The calendar matters when the clock is set: deadlines may come nearer then, never farther, as who can
 * mislead a host about the time must not make certificates last; a renewed proof sets them right.
 */
#include "enforcer_internal.h"

#include <stdio.h>

#include "until.h"

#define SECOND_NS 1000000000ULL
/* A tag is about to end when a quarter of its life is left, or a week: renewal is due at half of it. */
#define WARN_PART 4
#define WARN_MOST_NS (7 * 86400 * SECOND_NS)

/* The same SVID proved again comes out a little different, as one clock is slewed and the other is not. */
void enforcer_tag_proved(struct enforcer *e, struct tag *tag, const struct ipc_tag_request *request, bool renewal,
			 uint64_t proved_ns)
{
	uint64_t now_ns = enforcer_boottime_ns(), max_s = config_max_lifetime_s(&e->config);
	uint64_t most_ns = (proved_ns ? proved_ns : now_ns) + max_s * SECOND_NS;
	uint64_t deadline_ns = request->deadline_ns;
	int64_t until = request->not_after, now = (int64_t)(enforcer_realtime_ns() / SECOND_NS);

	tag->proved_ns = now_ns;
	if (max_s && deadline_ns > most_ns) {
		deadline_ns = most_ns;
		until = now + ((int64_t)most_ns - (int64_t)now_ns) / (int64_t)SECOND_NS;
	}
	if (renewal && deadline_ns < tag->deadline_ns + SECOND_NS)
		return;
	tag->deadline_ns = deadline_ns;
	tag->not_after = until;
	tag->svid_not_after = request->not_after;
	tag->not_before = request->not_before;
	tag->extended_ns = now_ns;
	tag->warned = false;
}

/* ---- warnings ---- */

bool enforcer_tag_is_ending(const struct tag *tag, uint64_t now_ns)
{
	uint64_t warn_ns;

	if (tag->local || tag->derived || tag->deadline_ns <= now_ns || tag->deadline_ns <= tag->extended_ns)
		return false;
	warn_ns = (tag->deadline_ns - tag->extended_ns) / WARN_PART;
	return tag->deadline_ns - now_ns <= (warn_ns < WARN_MOST_NS ? warn_ns : WARN_MOST_NS);
}

void enforcer_tags_warn(struct enforcer *e)
{
	uint64_t now_ns = enforcer_boottime_ns();

	for (size_t i = 0; i < e->n_tags; i++) {
		struct tag *tag = &e->tags[i];
		struct ipc_notice notice;

		if (tag->warned || !enforcer_tag_is_ending(tag, now_ns))
			continue;
		tag->warned = true;
		notice = enforcer_tag_notice(e, NOTICE_IDENTITY_ENDING, tag);
		snprintf(notice.text, sizeof(notice.text),
			 "the identity ends in %llu s, and nobody has proved a renewed SVID yet",
			 (unsigned long long)((tag->deadline_ns - now_ns) / SECOND_NS));
		enforcer_notice_post(e, &notice);
	}
}

/* ---- the clock ---- */

/* Returns whether the tag ended, or ends sooner. */
static bool tag_follow_clock(struct enforcer *e, struct tag *tag, uint64_t real_ns, uint64_t boot_ns, bool *ended)
{
	bool sooner;
	uint64_t at_ns;

	if (tag->not_before > (int64_t)(real_ns / SECOND_NS)) {
		enforcer_tag_end(e, tag, NOTICE_IDENTITY_EXPIRED,
				 "the clock was set to a time before the SVID's notBefore");
		*ended = true;
		return true;
	}
	at_ns = tag->svid_not_after > 0 ? until_boottime_ns((uint64_t)tag->svid_not_after, real_ns, boot_ns) : 0;
	sooner = at_ns < tag->deadline_ns;
	if (sooner) {
		tag->deadline_ns = at_ns ? at_ns : 1; /* 0 is a tag that has ended; this one is about to */
		enforcer_tag_write(e, tag);
	}
	tag->not_after = (int64_t)((real_ns + tag->deadline_ns - boot_ns + SECOND_NS / 2) / SECOND_NS);
	return sooner;
}

bool enforcer_tags_follow_clock(struct enforcer *e)
{
	uint64_t real_ns = enforcer_realtime_ns(), boot_ns = enforcer_boottime_ns();
	bool any = false, ended = false;

	for (size_t i = 0; i < e->n_tags; i++)
		if (!e->tags[i].local && !e->tags[i].derived && e->tags[i].deadline_ns)
			any |= tag_follow_clock(e, &e->tags[i], real_ns, boot_ns, &ended);
	if (any)
		datapath_changed(e->datapath);
	enforcer_svids_again(e);
	return ended;
}

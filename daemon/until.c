// SPDX-License-Identifier: Apache-2.0
#include "until.h"

#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "enforcer_internal.h"
#include "log.h"

#define SECOND_NS 1000000000ULL

uint64_t until_boottime_ns(uint64_t seconds, uint64_t realtime_ns, uint64_t boottime_ns)
{
	uint64_t at_ns;

	/* For ever, or so long that it is the same. */
	if (__builtin_mul_overflow(seconds, SECOND_NS, &at_ns))
		return BH_FOREVER;
	if (at_ns <= realtime_ns)
		return realtime_ns - at_ns < boottime_ns ? boottime_ns - (realtime_ns - at_ns) : 0;
	if (__builtin_add_overflow(boottime_ns, at_ns - realtime_ns, &at_ns))
		return BH_FOREVER;
	return at_ns;
}

bool until_write(void *copy, const void *tables)
{
	const struct bh_tables *head = tables;
	const uint64_t *from = (const uint64_t *)((const uint8_t *)tables + head->until_off);
	uint64_t *to = (uint64_t *)((uint8_t *)copy + head->until_off);
	uint64_t realtime_ns = enforcer_realtime_ns(), boottime_ns = enforcer_boottime_ns();

	for (uint32_t i = 0; i < head->until_count; i++)
		__atomic_store_n(&to[i], until_boottime_ns(from[i], realtime_ns, boottime_ns), __ATOMIC_RELAXED);
	return head->until_count > 1;
}

bool until_is_copy(const void *copy, const void *tables, size_t len)
{
	const struct bh_tables *head = tables;
	const uint8_t *a = copy, *b = tables;
	size_t end = head->until_off + head->until_count * sizeof(uint64_t);

	return memcmp(a, b, head->until_off) == 0 && memcmp(a + end, b + end, len - end) == 0;
}

uint64_t until_next(const void *tables, uint64_t boottime_ns)
{
	const struct bh_tables *head = tables;
	const uint64_t *untils = (const uint64_t *)((const uint8_t *)tables + head->until_off);
	uint64_t next = BH_FOREVER;

	for (uint32_t i = 0; i < head->until_count; i++)
		if (untils[i] > boottime_ns && untils[i] < next)
			next = untils[i];
	return next;
}

/* ---- the clock ---- */

/* A timer that never ends, but is cancelled when the clock is set (timerfd_create(2)). */
static int clock_arm(int fd)
{
	struct itimerspec never = {.it_value.tv_sec = INT64_MAX / (int64_t)SECOND_NS};

	return timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0 ? -errno : 0;
}

/* The tables in force follow the clock. */
static int follow_clock(struct enforcer *e)
{
	size_t len;

	return datapath_policy_untils(e->datapath, policy_image_tables(e->image, &len));
}

static int on_clock_set(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct enforcer *e = userdata;
	uint64_t expirations;
	int r;

	(void)source;
	(void)events;
	if (read(fd, &expirations, sizeof(expirations)) < 0 && errno == EAGAIN)
		return 0;
	r = clock_arm(fd);
	if (r < 0)
		log_error("cannot watch the clock: %s", strerror(-r));
	r = follow_clock(e);
	if (r < 0)
		log_error("the clock was set; the rules with `until` end by the former clock: %s", strerror(-r));
	if (enforcer_tags_follow_clock(e) || r > 0)
		enforcer_sweep(e, true, "clock set");
	else
		enforcer_sweep(e, false, "clock set");
	return 0;
}

int enforcer_clock_watch(struct enforcer *e)
{
	sd_event_source *source = NULL;
	int fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = clock_arm(fd);
	if (r >= 0)
		r = sd_event_add_io(e->event, &source, fd, EPOLLIN, on_clock_set, e);
	if (r >= 0)
		r = sd_event_source_set_floating(source, 1);
	if (r < 0) {
		sd_event_source_unref(source);
		close(fd);
		return r;
	}
	sd_event_source_set_io_fd_own(source, 1);
	sd_event_source_unref(source);
	/* An enforcer that adopts tables does not know what clock they were filled by. */
	r = follow_clock(e);
	return r < 0 ? r : 0;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * What is counted. The counters are the kernel programs' own (bpf/pair.h); here they are only read, when somebody asks. The
 * one thing that takes time then is to look at live connections, in each namespace: who asks more often gets what the last
 * look found.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "metrics.h"
#include "pairs.h"
#include "privileges.h"

#define SECOND_NS 1000000000ULL
#define LOOK_NS (SECOND_NS / 2)
#define TELL_NS (SECOND_NS / 5)
#define CLEAN_NS (5 * SECOND_NS)

static void connections_look(struct enforcer *e)
{
	__attribute__((cleanup(cgroup_tree_clear))) struct cgroup_tree tree = {};
	uint64_t now = enforcer_boottime_ns();
	int r;

	if (e->looked_ns && now < e->looked_ns + LOOK_NS)
		return;
	e->looked_ns = now;
	privileges_raise();
	r = cgroup_tree_read(&tree, e->cgroup_fd, 1);
	privileges_lower();
	if (r == 0)
		r = pairs_look(e->datapath, &tree);
	if (r < 0 && r != -EAGAIN) /* a namespace whose process just ended */
		log_warning("cannot look at the live connections: %s; they are counted when they end", strerror(-r));
}

static void programs_tell(const struct enforcer *e, struct metrics *m)
{
	const char *name;
	bool attached;

	m->enforcing = 1;
	for (size_t i = 0; (name = datapath_program(e->datapath, i, &attached)); i++) {
		m->enforcing &= attached;
		if (m->n_programs == METRICS_MAX_PROGRAMS)
			continue;
		m->programs[m->n_programs].attached = attached;
		snprintf(m->programs[m->n_programs++].name, sizeof(m->programs[0].name), "%s", name);
	}
}

static void maps_tell(const struct enforcer *e, struct metrics *m)
{
	struct datapath_map map;

	for (size_t i = 0; m->n_maps < METRICS_MAX_MAPS && datapath_map(e->datapath, i, &map); i++) {
		if (map.entries < 0) {
			log_warning("cannot tell how full the map %s is: %s", map.name, strerror((int)-map.entries));
			continue;
		}
		m->maps[m->n_maps] = (struct metrics_map){.entries = (uint32_t)map.entries, .max = map.max_entries};
		snprintf(m->maps[m->n_maps++].name, sizeof(m->maps[0].name), "%s", map.name);
	}
}

static void tags_tell(const struct enforcer *e, struct metrics *m)
{
	uint64_t nearest = UINT64_MAX;

	for (size_t i = 0; i < e->n_tags; i++) {
		const struct tag *tag = &e->tags[i];

		if (!tag->deadline_ns)
			continue;
		m->tags_local += tag->local;
		m->tags_verified += !tag->local;
		if (tag->local || tag->deadline_ns >= nearest)
			continue;
		nearest = tag->deadline_ns;
		m->nearest_deadline = (uint64_t)tag->not_after;
		m->nearest_identity = tag->identity;
	}
}

static const char *name_of(void *ctx, uint32_t identity)
{
	return enforcer_identity_name(ctx, identity);
}

/* NULL without memory, or where the pairs cannot be read. */
static struct metrics *snapshot_take(struct enforcer *e)
{
	struct metrics head =
			       {
				       .taken_usec = enforcer_realtime_ns() / 1000,
				       .counters = *datapath_counters(e->datapath),
				       .revision = e->revision,
				       .rules = (uint32_t)policy_image_rule_count(e->image),
				       .applied_usec = e->applied_usec,
			       },
		       *m;
	struct pair *pairs;
	char problem[400];
	size_t n;
	int r;

	head.audit_writing = !enforcer_audit_problem(e, problem, sizeof(problem));
	head.started_usec = head.taken_usec - (enforcer_boottime_ns() - e->started_ns) / 1000;
	snprintf(head.version, sizeof(head.version), "%s", BULKHEAD_VERSION);
	snprintf(head.instance, sizeof(head.instance), "%s", e->config.instance);
	programs_tell(e, &head);
	maps_tell(e, &head);
	tags_tell(e, &head);
	connections_look(e);
	r = pairs_read(e->datapath, &pairs, &n);
	if (r < 0) {
		log_error("cannot read what is counted for pairs of identities: %s", strerror(-r));
		return NULL;
	}
	m = metrics_new(&head, pairs, n, name_of, e);
	free(pairs);
	return m;
}

int enforcer_top(void *ctx, char **textp)
{
	struct metrics *m = snapshot_take(ctx);

	if (!m)
		return -EIO;
	*textp = metrics_top_json(m);
	free(m);
	return *textp ? CONTROL_DONE : -ENOMEM;
}

/* The role asks at most once a second; whoever took it over and asks all the time gets no more of our time. */
void enforcer_metrics_tell(struct enforcer *e)
{
	struct ipc_header packet = {.type = IPC_METRICS, .len = sizeof(packet)};
	uint64_t now = enforcer_boottime_ns();
	struct metrics *m;
	int fd;

	if (e->told_ns && now < e->told_ns + TELL_NS)
		return;
	e->told_ns = now;
	m = snapshot_take(e);
	if (!m)
		return;
	fd = ipc_memfd("bulkhead-metrics", m, m->size);
	free(m);
	if (fd < 0) {
		log_error("cannot hand the metrics to their role: %s", strerror(-fd));
		return;
	}
	role_send(e->metrics, &packet, fd);
	close(fd);
}

void enforcer_pairs_clean(struct enforcer *e)
{
	uint8_t present[BH_MAX_IDENTITIES / 8] = {0};
	uint64_t now = enforcer_boottime_ns();
	int r;

	if (now < e->pairs_due_ns)
		return;
	e->pairs_due_ns = now + CLEAN_NS;
	for (size_t i = 0; i < e->n_tags; i++)
		if (e->tags[i].identity < BH_MAX_IDENTITIES)
			present[e->tags[i].identity / 8] |= (uint8_t)(1U << e->tags[i].identity % 8);
	r = pairs_clean(e->datapath, present, now);
	if (r < 0)
		log_warning("cannot forget pairs of identities that have gone: %s", strerror(-r));
}

// SPDX-License-Identifier: Apache-2.0
/*
 * The sweep: every second, and whenever something has changed, tags are brought in line with the cgroups there are and
 * the policy in force, addresses and endpoints with the namespaces, and sockets with all of it.
 */
#include "enforcer_internal.h"

#include <stdio.h>
#include <errno.h>
#include <string.h>

#include "log.h"
#include "privileges.h"

/* Two looks at an endpoint are this far apart, however often something else makes a sweep. */
#define ENDPOINTS_NS 900000000ULL
/* Looking for what is kept of TCP sockets that are gone costs a list of all of them, and is seldom of use. Tests of the daemon do
 * not wait for minutes. */
#define CONNECTIONS_NS (BH_LAYOUT_TEST ? 900000000ULL : 9900000000ULL)

/* A local identity that cannot be given is told once, not at every sweep. */
static void local_failed(struct enforcer *e, const struct cgroup_node *node, const char *map, uint32_t max, int r)
{
	if (!e->local_failed)
		log_error("cannot give %s the identity that the policy gives it: the kernel's map of %s (%u entries) "
			  "takes "
			  "no more: %s; it has none, and others may fare the same",
			  node->path, map, max, enforcer_full_text(r));
	e->local_failed = true;
}

/* Tags the cgroup with the local identity that the policy gives it. Returns whether anything changed. */
static bool local_give(struct enforcer *e, const struct cgroup_node *node)
{
	struct tag *tag = enforcer_tag_find(e, node->id), before = {};
	struct policy_local local;
	uint32_t number;
	int r;

	if (node->depth == 0 || node->depth > BH_MAX_DEPTH || !policy_image_local_of(e->image, node->path, &local)) {
		/* What an earlier policy gave. */
		if (tag && tag->local && tag->deadline_ns) {
			enforcer_tag_end(e, tag, NOTICE_IDENTITY_REMOVED, "the policy no longer names it");
			return true;
		}
		return false;
	}
	r = enforcer_identity_number(e, local.name, true, &number);
	if (r < 0) {
		local_failed(e, node, "names", BH_MAX_IDENTITIES, r);
		return false;
	}
	if (tag && tag->deadline_ns && (!tag->local || tag->identity == number))
		return false;
	if (tag)
		before = *tag;
	else
		tag = enforcer_tag_add(e, node->id);
	if (!tag)
		return false;
	*tag = (struct tag){.cgroup_id = node->id, .identity = number, .local = true, .deadline_ns = UINT64_MAX};
	snprintf(tag->path, sizeof(tag->path), "%s", node->path);
	r = enforcer_tag_write(e, tag);
	if (r < 0) {
		enforcer_tag_restore(e, tag, &before);
		local_failed(e, node, "tags", BH_MAX_TAGS, r);
		return false;
	}
	e->local_failed = false;
	struct ipc_notice notice = enforcer_tag_notice(e, NOTICE_IDENTITY_LOCAL, tag);

	enforcer_notice_post(e, &notice);
	return true;
}

/* Bindings of the policy in force hold for tags given under an earlier one too. */
static bool bindings_check(struct enforcer *e)
{
	bool any = false;
	char why[400];

	for (size_t i = 0; i < e->n_tags; i++) {
		struct tag *tag = &e->tags[i];

		/* One derived follows the tag of its cgroup. */
		if (tag->local || tag->derived || !tag->deadline_ns || !tag->path[0] ||
		    policy_image_binding(e->image, enforcer_identity_name(e, tag->identity), tag->path, tag->uid, why,
					 sizeof(why)))
			continue;
		enforcer_tag_end(e, tag, NOTICE_IDENTITY_REVOKED, why);
		any = true;
	}
	return any;
}

/* Tags of cgroups that are gone. */
static bool gone_remove(struct enforcer *e, const struct cgroup_tree *tree)
{
	bool any = false;

	for (size_t i = 0; i < e->n_tags;) {
		struct tag *tag = &e->tags[i];
		const struct cgroup_node *node = cgroup_tree_find(tree, tag->cgroup_id);

		if (tag->cgroup_id & BH_DEVICE_BIT) { /* removed with its device */
			i++;
			continue;
		}
		if (node) {
			if (!tag->path[0])
				snprintf(tag->path, sizeof(tag->path), "%s", node->path);
			i++;
			continue;
		}
		enforcer_tag_remove(e, tag, "its cgroup is gone");
		any = true;
	}
	return any;
}

/* Returns the number of sockets destroyed. A fault leaves it due for the next sweep. */
static int sockets_cut(struct enforcer *e, const struct cgroup_tree *tree, const char *why)
{
	struct ipc_notice notice = enforcer_notice(NOTICE_SOCKETS_CUT);
	int destroyed = netns_sockets_cut(e->datapath, tree);

	if (destroyed < 0) {
		if (!e->cut_due && destroyed != -EAGAIN) /* a namespace whose process just ended */
			log_warning("cannot judge all sockets again: %s; it is tried again (their packets are judged "
				    "all the same)",
				    strerror(-destroyed));
		e->cut_due = true;
		return 0;
	}
	e->cut_due = false;
	if (destroyed == 0)
		return 0;
	notice.count = (uint32_t)destroyed;
	notice.revision = e->revision;
	snprintf(notice.text, sizeof(notice.text), "%s", why);
	enforcer_notice_post(e, &notice);
	return destroyed;
}

static void endpoints_clean(struct enforcer *e, const struct cgroup_tree *tree)
{
	uint64_t now = enforcer_boottime_ns();

	if (now < e->endpoints_due_ns)
		return;
	e->endpoints_due_ns = now + ENDPOINTS_NS;
	netns_endpoints_clean(e->datapath, tree, &e->stale_endpoints);
}

/* The programs count what they denied because a map was full; which map it was is found here, and told once. */
static void maps_look(struct enforcer *e)
{
	uint64_t full = __atomic_load_n(&datapath_counters(e->datapath)->map_full, __ATOMIC_RELAXED);
	struct datapath_map map;

	if (full == e->map_full_seen)
		return;
	e->map_full_seen = full;
	for (size_t i = 0; i < 64 && datapath_map(e->datapath, i, &map); i++) {
		bool is_full = !map.evicts && map.entries >= map.max_entries;

		if (is_full && !(e->maps_full & 1ULL << i))
			log_error("the kernel's map %s is full (%u entries): flows that need another one are denied",
				  map.name, map.max_entries);
		e->maps_full = (e->maps_full & ~(1ULL << i)) | (uint64_t)is_full << i;
	}
}

static void addresses_refresh(struct enforcer *e, const struct cgroup_tree *tree)
{
	bool full = enforcer_addresses_refresh(e, tree) == -E2BIG;

	if (full && !e->addresses_full)
		log_error(
			"the kernel's map addresses is full (%u entries): datagrams to the addresses of this host that "
			"it has no room for are denied; take addresses away from the network namespaces of workloads",
			BH_MAX_ADDRESSES);
	e->addresses_full = full;
}

static void connections_clean(struct enforcer *e, const struct cgroup_tree *tree)
{
	uint64_t now = enforcer_boottime_ns();

	if (now < e->connections_due_ns)
		return;
	e->connections_due_ns = now + CONNECTIONS_NS;
	netns_connections_clean(e->datapath, tree, &e->gone_connections);
}

int enforcer_sweep(struct enforcer *e, bool cut, const char *why)
{
	__attribute__((cleanup(cgroup_tree_clear))) struct cgroup_tree tree = {};
	bool changed = enforcer_tags_expire(e);
	int destroyed = 0, r;

	enforcer_tags_warn(e);
	privileges_raise();
	r = cgroup_tree_read(&tree, e->cgroup_fd, 1);
	privileges_lower();
	if (r == 0) {
		changed |= gone_remove(e, &tree);
		changed |= bindings_check(e);
		for (size_t i = 0; i < tree.n_nodes; i++)
			changed |= local_give(e, &tree.nodes[i]);
		changed |= enforcer_svids_give(e, &tree);
		changed |= enforcer_devices_derive(e, &tree);
	}
	/* What is known to have ended counts at once, also when the rest cannot be seen. */
	if (changed)
		datapath_changed(e->datapath);
	enforcer_expiry_arm(e);
	if (r < 0) {
		log_warning("cannot read the managed subtree: %s", strerror(-r));
		e->cut_due |= changed || cut;
		return 0;
	}
	addresses_refresh(e, &tree);
	maps_look(e);
	endpoints_clean(e, &tree);
	enforcer_pairs_clean(e);
	connections_clean(e, &tree);
	if (changed || cut || e->cut_due)
		destroyed = sockets_cut(e, &tree, why);
	return destroyed;
}

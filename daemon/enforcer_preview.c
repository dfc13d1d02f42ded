// SPDX-License-Identifier: Apache-2.0
/*
 * Looking ahead: which connections a policy would cut, and whether the operator's own is among them. It is asked before
 * the swap, of the tables and tags that the policy would bring, by the functions that cut for good: so what is foretold
 * is what happens, but for what changes in between.
 */
#include "enforcer_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/decide.h"
#include "log.h"
#include "privileges.h"

/* ---- the tags that the policy would bring, as enforcer_sweep() would ---- */

struct tags {
	struct netns_tag *items;
	size_t n, room;
	uint16_t *who;
	const char *names[BH_MAX_IDENTITIES]; /* of local identities that have no number yet; borrowed from the image */
	uint32_t first_new, next;
};

static int tags_add(struct tags *tags, uint64_t cgroup_id, uint32_t identity, uint64_t deadline_ns)
{
	if (tags->n == tags->room) {
		size_t room = tags->room ? 2 * tags->room : 64;
		struct netns_tag *items = reallocarray(tags->items, room, sizeof(*items));

		if (!items)
			return -ENOMEM;
		tags->items = items;
		tags->room = room;
	}
	tags->items[tags->n++] = (struct netns_tag){cgroup_id, {.deadline_ns = deadline_ns, .identity = identity}};
	return 0;
}

/* A number for a local identity: its own, or one that nobody has yet. */
static uint32_t local_number(const struct enforcer *e, struct tags *tags, const struct policy_local *local)
{
	uint32_t i;

	for (i = BH_ID_FIRST; i < e->next_identity; i++)
		if (e->names[i] && e->names[i]->local && strcmp(e->names[i]->name, local->name) == 0)
			return i;
	for (i = tags->first_new; i < tags->next; i++)
		if (strcmp(tags->names[i], local->name) == 0)
			return i;
	if (tags->next == BH_MAX_IDENTITIES)
		return BH_ID_UNIDENTIFIED;
	tags->names[tags->next] = local->name;
	tags->who[tags->next] = (uint16_t)local->who;
	return tags->next++;
}

static int tag_foresee(struct enforcer *e, const struct policy_image *image, struct tags *tags,
		       const struct cgroup_node *node)
{
	const struct tag *tag = enforcer_tag_find(e, node->id);
	struct policy_local local;
	char why[400];

	if (tag && tag->deadline_ns && !tag->local) {
		if (policy_image_binding(image, enforcer_identity_name(e, tag->identity), node->path, tag->uid, why,
					 sizeof(why)))
			return 0;
		return tags_add(tags, node->id, tag->identity, 0);
	}
	if (node->depth > 0 && node->depth <= BH_MAX_DEPTH && policy_image_local_of(image, node->path, &local))
		return tags_add(tags, node->id, local_number(e, tags, &local), UINT64_MAX);
	return tag && tag->local ? tags_add(tags, node->id, tag->identity, 0) : 0;
}

static int tag_order(const void *a, const void *b)
{
	uint64_t x = ((const struct netns_tag *)a)->cgroup_id, y = ((const struct netns_tag *)b)->cgroup_id;

	return (x > y) - (x < y);
}

static int tags_foresee(struct enforcer *e, const struct policy_image *image, const struct cgroup_tree *tree,
			struct tags *tags)
{
	int r = 0;

	tags->first_new = tags->next = e->next_identity;
	for (size_t i = 0; r == 0 && i < tree->n_nodes; i++)
		r = tag_foresee(e, image, tags, &tree->nodes[i]);
	if (tags->n)
		qsort(tags->items, tags->n, sizeof(*tags->items), tag_order);
	return r;
}

/* ---- the session ---- */

static bool address_parse(const char *text, struct bh_addr *addr)
{
	char without_scope[INET6_ADDRSTRLEN];
	struct in_addr four;
	size_t len = strcspn(text, "%");

	/* "fe80::1%eth0": sockets are listed without the link. */
	if (len >= sizeof(without_scope))
		return false;
	memcpy(without_scope, text, len);
	without_scope[len] = '\0';
	text = without_scope;
	if (inet_pton(AF_INET, text, &four) == 1) {
		*addr = (struct bh_addr){.w = {0, 0, htonl(0xffff), four.s_addr}};
		return true;
	}
	return inet_pton(AF_INET6, text, addr->w) == 1;
}

/* SSH_CONNECTION: client address and port, server address and port. It stands for nothing but a connection. */
static struct netns_connection hint_parse(const char *session)
{
	struct netns_connection hint = {};
	char client[64], server[64];
	unsigned cport, sport;

	if (sscanf(session, "%63s %5u %63s %5u", client, &cport, server, &sport) != 4 || !cport || cport > 65535 ||
	    !sport || sport > 65535 || !address_parse(client, &hint.remote) || !address_parse(server, &hint.local))
		return (struct netns_connection){};
	hint.lport = (uint16_t)sport;
	hint.rport = (uint16_t)cport;
	return hint;
}

static void end_text(const struct bh_addr *addr, uint16_t port, char *out, size_t size)
{
	char text[INET6_ADDRSTRLEN] = "?";

	if (bh_addr_is_v4(addr)) {
		inet_ntop(AF_INET, &addr->w[3], text, sizeof(text));
		snprintf(out, size, "%s:%u", text, port);
	} else {
		inet_ntop(AF_INET6, addr->w, text, sizeof(text));
		snprintf(out, size, "[%s]:%u", text, port);
	}
}

/* "the connection 192.0.2.7:51022 to 10.0.0.5:22, which would be denied by ..." */
static char *session_text(const struct policy_image *image, const struct cgroup_tree *tree,
			  const struct netns_victim *victim)
{
	const struct netns_connection *c = &victim->connection;
	const struct cgroup_node *node = cgroup_tree_find(tree, victim->cgroup_id);
	bool passive = victim->kind == BH_SOCK_PASSIVE;
	uint32_t number = BH_CELL_RULE(victim->cell);
	char from[80], to[80], *text = NULL;
	struct policy_rule_name rule = {};
	char by[600];

	end_text(passive ? &c->remote : &c->local, passive ? c->rport : c->lport, from, sizeof(from));
	end_text(passive ? &c->local : &c->remote, passive ? c->lport : c->rport, to, sizeof(to));
	if (number && policy_image_rule(image, number, &rule))
		snprintf(by, sizeof(by), "rule \"%s\" (%s:%u)", rule.name, rule.file ? rule.file : "?", rule.line);
	else
		snprintf(by, sizeof(by), "default: no rule allows it");
	if (asprintf(&text,
		     "it would cut the connection that you came through, %s to %s: denied on the way %s, at %s, by %s",
		     from, to, passive ? "in" : "out", node ? node->path : "its cgroup", by) < 0)
		return NULL;
	return text;
}

/* ---- */

/* Judges all sockets under the image and the tags that it would bring. */
static int look_ahead(struct enforcer *e, const struct policy_image *image, const struct cgroup_tree *tree,
		      struct netns_preview *preview)
{
	struct tags *tags = calloc(1, sizeof(*tags));
	struct netns_view view;
	size_t len;
	int r = -ENOMEM;

	if (!tags)
		return r;
	tags->who = enforcer_who_table(e, image);
	if (tags->who)
		r = tags_foresee(e, image, tree, tags);
	if (r == 0) {
		/* An image's times are seconds since 1970. */
		view = (struct netns_view){
			.tables = policy_image_tables(image, &len),
			.now = enforcer_realtime_ns() / 1000000000ULL,
			.who = tags->who,
			.tags = tags->items,
			.n_tags = tags->n,
		};
		r = netns_sockets_preview(e->datapath, tree, &view, preview);
	}
	free(tags->who);
	free(tags->items);
	free(tags);
	return r;
}

int enforcer_preview_image(struct enforcer *e, const struct policy_image *image, struct author *author,
			   const char *session, struct control_preview *out, char **textp)
{
	__attribute__((cleanup(cgroup_tree_clear))) struct cgroup_tree tree = {};
	struct netns_preview preview = {
		.sockets = author->sockets,
		.n_sockets = author->n_sockets,
		.hint = hint_parse(session),
	};
	int r;

	*out = (struct control_preview){};
	privileges_raise();
	r = cgroup_tree_read(&tree, e->cgroup_fd, 1);
	privileges_lower();
	if (r == 0)
		r = look_ahead(e, image, &tree, &preview);
	/* A process that ended meanwhile was not the operator's: that one waits for the answer. */
	if (r < 0 && r != -EAGAIN)
		return r;
	if (preview.session_known)
		end_text(&preview.session.remote, preview.session.rport, author->from, sizeof(author->from));
	out->sockets_cut = preview.n_cut;
	out->session_cut = preview.session_cut;
	if (preview.session_cut) {
		free(*textp);
		*textp = session_text(image, &tree, &preview.victim);
	}
	return 0;
}

int enforcer_preview(void *ctx, const struct policy_source *files, size_t n, const struct control_caller *caller,
		     struct control_preview *out, char **textp)
{
	__attribute__((cleanup(policy_image_freep))) struct policy_image *image = NULL;
	__attribute__((cleanup(author_clear))) struct author author = {};
	struct enforcer *e = ctx;
	int r;

	author_read(&author, caller->uid, caller->pid, caller->pidfd);
	r = enforcer_image_make(e, files, n, &image, textp);
	if (r)
		return r > 0 ? CONTROL_INVALID : r;
	free(*textp); /* warnings, which the caller's own check tells */
	*textp = NULL;
	return enforcer_preview_image(e, image, &author, caller->session, out, textp);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "pairs.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "netns.h"

/* From here on pairs of identities that have gone are not kept: three quarters of the map. */
#define CROWDED (BH_MAX_PAIRS / 4 * 3)

int pairs_prepare(const struct datapath *datapath)
{
	struct bh_pair_key key = {.subject = BH_ID_OTHER, .peer = BH_ID_OTHER};
	struct bh_pair none = {};

	for (key.direction = BH_EGRESS; key.direction <= BH_INGRESS; key.direction++)
		if (bpf_map_update_elem(datapath_pairs_fd(datapath), &key, &none, BPF_NOEXIST) && errno != EEXIST)
			return -errno;
	return 0;
}

/* ---- live sockets ---- */

/* Reading the iterator is what runs it; it says nothing. */
static int iterator_run(void *ctx)
{
	const int *link = ctx;
	int fd = bpf_iter_create(*link), r = 0;
	char buf[64];
	ssize_t n;

	if (fd < 0)
		return -errno;
	do
		n = read(fd, buf, sizeof(buf));
	while (n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN)));
	if (n < 0)
		r = -errno;
	close(fd);
	return r;
}

/* An iterator over TCP sockets knows those of its reader's namespace. */
static int tcp_look(const struct datapath *datapath, const struct cgroup_tree *tree)
{
	int link = bpf_link_create(datapath_look_tcp_fd(datapath), 0, BPF_TRACE_ITER, NULL), r;

	if (link < 0)
		return -errno;
	r = netns_each(tree, iterator_run, &link);
	close(link);
	return r;
}

/* The sums of UDP flows are in one map. */
static int udp_look(const struct datapath *datapath)
{
	union bpf_iter_link_info info = {.map.map_fd = (uint32_t)datapath_udp_recent_fd(datapath)};
	LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = &info, .iter_info_len = sizeof(info));
	int link = bpf_link_create(datapath_look_udp_fd(datapath), 0, BPF_TRACE_ITER, &opts), r;

	if (link < 0)
		return -errno;
	r = iterator_run(&link);
	close(link);
	return r;
}

int pairs_look(const struct datapath *datapath, const struct cgroup_tree *tree)
{
	int tcp = tcp_look(datapath, tree), udp = udp_look(datapath);

	return udp < 0 ? udp : tcp;
}

/* ---- reading ---- */

#define BATCH 1024U

int pairs_read(const struct datapath *datapath, struct pair **pairsp, size_t *np)
{
	/* The kernel may make a few more while we read: who comes last comes next time. */
	size_t room = BH_MAX_PAIRS + BATCH, n = 0;
	struct bh_pair_key *keys = malloc(BATCH * sizeof(*keys));
	struct bh_pair *values = malloc(BATCH * sizeof(*values));
	struct pair *pairs = malloc(room * sizeof(*pairs)), *fit;
	uint32_t batch = 0, count;
	bool first = true;
	int r = keys && values && pairs ? 0 : -ENOMEM;

	while (r == 0 && n + BATCH <= room) {
		count = BATCH;
		if (bpf_map_lookup_batch(datapath_pairs_fd(datapath), first ? NULL : &batch, &batch, keys, values,
					 &count, NULL))
			r = -errno;
		first = false;
		if (r && r != -ENOENT)
			break;
		for (uint32_t i = 0; i < count; i++)
			pairs[n++] = (struct pair){keys[i], values[i]};
	}
	free(keys);
	free(values);
	if (r && r != -ENOENT) { /* that is the end */
		free(pairs);
		return r;
	}
	fit = realloc(pairs, (n ? n : 1) * sizeof(*pairs));
	*pairsp = fit ? fit : pairs;
	*np = n;
	return 0;
}

/* ---- those that have gone ---- */

static bool is_gone(uint32_t identity, const uint8_t *present)
{
	if (identity < BH_ID_FIRST || identity == BH_ID_OTHER)
		return false;
	return identity >= BH_MAX_IDENTITIES || !(present[identity / 8] & 1U << identity % 8);
}

bool pair_is_over(const struct pair *pair, const uint8_t *present, uint64_t now_ns, bool crowded)
{
	if (!is_gone(pair->key.subject, present) && !is_gone(pair->key.peer, present))
		return false;
	/* The kernel may have counted since our clock was read. */
	return crowded || (now_ns > pair->value.seen_ns && now_ns - pair->value.seen_ns > PAIRS_KEEP_NS);
}

int pairs_clean(const struct datapath *datapath, const uint8_t *present, uint64_t now_ns)
{
	struct pair *pairs;
	int r, removed = 0;
	size_t n;

	r = pairs_read(datapath, &pairs, &n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		if (pair_is_over(&pairs[i], present, now_ns, n > CROWDED) &&
		    bpf_map_delete_elem(datapath_pairs_fd(datapath), &pairs[i].key) == 0)
			removed++;
	free(pairs);
	return removed;
}

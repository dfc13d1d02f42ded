// SPDX-License-Identifier: Apache-2.0
/*
 * Entries of the maps, as the enforcer reads and writes them.
 */
#include "datapath_internal.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>

#include "tcp_entry.h"

/* ---- tags ---- */

int datapath_tag_set(struct datapath *dp, uint64_t cgroup_id, const struct bh_tag *tag)
{
	struct bh_tag sealed = *tag;

	sealed.seal = bh_tag_seal(&sealed, cgroup_id);
	return datapath_result(bpf_map_update_elem(bpf_map__fd(dp->skeleton->maps.tags), &cgroup_id, &sealed, BPF_ANY));
}

int datapath_tag_get(const struct datapath *dp, uint64_t cgroup_id, struct bh_tag *tag)
{
	int r = datapath_result(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.tags), &cgroup_id, tag));

	/* What the kernel's programs do not believe, nobody does. */
	return r == 0 && tag->seal != bh_tag_seal(tag, cgroup_id) ? -ENOENT : r;
}

int datapath_tag_delete(struct datapath *dp, uint64_t cgroup_id)
{
	return datapath_result(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.tags), &cgroup_id));
}

int datapath_tag_next(const struct datapath *dp, const uint64_t *cgroup_id, uint64_t *next)
{
	return datapath_result(bpf_map_get_next_key(bpf_map__fd(dp->skeleton->maps.tags), cgroup_id, next));
}

int datapath_vouchers_set(struct datapath *dp, uint64_t cgroup_id, const struct bh_vouchers *vouchers)
{
	return datapath_result(
		bpf_map_update_elem(bpf_map__fd(dp->skeleton->maps.vouchers), &cgroup_id, vouchers, BPF_ANY));
}

int datapath_vouchers_get(const struct datapath *dp, uint64_t cgroup_id, struct bh_vouchers *vouchers)
{
	return datapath_result(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.vouchers), &cgroup_id, vouchers));
}

int datapath_vouchers_delete(struct datapath *dp, uint64_t cgroup_id)
{
	int r = datapath_result(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.vouchers), &cgroup_id));

	return r == -ENOENT ? 0 : r;
}

int datapath_name_set(struct datapath *dp, uint32_t identity, const struct bh_name *name)
{
	return datapath_result(bpf_map_update_elem(bpf_map__fd(dp->skeleton->maps.names), &identity, name, BPF_ANY));
}

int datapath_name_get(const struct datapath *dp, uint32_t identity, struct bh_name *name)
{
	return datapath_result(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.names), &identity, name));
}

int datapath_name_next(const struct datapath *dp, const uint32_t *identity, uint32_t *next)
{
	return datapath_result(bpf_map_get_next_key(bpf_map__fd(dp->skeleton->maps.names), identity, next));
}

/* ---- addresses ---- */

int datapath_address_set(struct datapath *dp, const struct bh_addr *address, uint64_t netns_cookie)
{
	int fd = bpf_map__fd(dp->skeleton->maps.addresses);

	return datapath_result(bpf_map_update_elem(fd, address, &netns_cookie, BPF_ANY));
}

int datapath_address_delete(struct datapath *dp, const struct bh_addr *address)
{
	return datapath_result(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.addresses), address));
}

int datapath_address_get(const struct datapath *dp, const struct bh_addr *address, uint64_t *netns_cookie)
{
	return datapath_result(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.addresses), address, netns_cookie));
}

int datapath_address_next(const struct datapath *dp, const struct bh_addr *address, struct bh_addr *next,
			  uint64_t *netns_cookie)
{
	int fd = bpf_map__fd(dp->skeleton->maps.addresses);

	if (bpf_map_get_next_key(fd, address, next) < 0)
		return -errno;
	return datapath_result(bpf_map_lookup_elem(fd, next, netns_cookie));
}

void datapath_unlisted_set(struct datapath *dp, const uint64_t *bits, bool add)
{
	for (size_t i = 0; i < BH_UNLISTED_BITS / 64; i++) {
		uint64_t word = (bits ? bits[i] : 0) | (add ? dp->unlisted[i] : 0);

		if (dp->unlisted[i] != word)
			__atomic_store_n(&dp->unlisted[i], word, __ATOMIC_RELAXED);
	}
}

/* ---- UDP endpoints ---- */

int datapath_endpoint_next(const struct datapath *dp, const struct bh_endpoint_key *key, struct bh_endpoint_key *next,
			   uint64_t *cookie)
{
	int fd = bpf_map__fd(dp->skeleton->maps.endpoints);
	struct bh_endpoint endpoint = {};

	if (bpf_map_get_next_key(fd, key, next) < 0)
		return -errno;
	/* It may be gone since: cookie 0 is nobody's. */
	*cookie = bpf_map_lookup_elem(fd, next, &endpoint) == 0 ? endpoint.cookie : 0;
	return 0;
}

int datapath_endpoint_get(const struct datapath *dp, const struct bh_endpoint_key *key, struct bh_endpoint *endpoint)
{
	return datapath_result(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.endpoints), key, endpoint));
}

int datapath_endpoint_set(struct datapath *dp, const struct bh_endpoint_key *key, const struct bh_endpoint *endpoint)
{
	return datapath_result(
		bpf_map_update_elem(bpf_map__fd(dp->skeleton->maps.endpoints), key, endpoint, BPF_EXIST));
}

int datapath_endpoint_delete(struct datapath *dp, const struct bh_endpoint_key *key)
{
	return datapath_result(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.endpoints), key));
}

/* ---- UDP flows ---- */

int datapath_udp_flow_get(const struct datapath *dp, const struct bh_udp_key *key, struct bh_udp_flow *flow)
{
	int r = datapath_result(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.udp_flows), key, flow));

	/* Not if it was another's while it was read. */
	return r == 0 && !bh_udp_flow_is_sealed(flow, key) ? -ENOENT : r;
}

int datapath_udp_flow_delete(struct datapath *dp, const struct bh_udp_key *key)
{
	return datapath_result(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.udp_flows), key));
}

/* ---- TCP sockets ---- */

/* A copy. Whose it is is read before the rest and after it: the place may be let go and taken by another socket meanwhile. */
void datapath_tcp_slot(const struct datapath *dp, uint32_t index, struct bh_tcp *tcp)
{
	const struct bh_tcp *slot = &dp->tcp[index % BH_TCP_SLOTS];
	uint64_t cookie = __atomic_load_n(&slot->cookie, __ATOMIC_ACQUIRE);

	*tcp = *slot;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	tcp->cookie = __atomic_load_n(&slot->cookie, __ATOMIC_RELAXED);
	if (tcp->cookie != cookie || cookie & BH_TCP_LEAVING)
		tcp->cookie = 0;
}

int datapath_tcp_get(const struct datapath *dp, uint64_t cookie, struct bh_tcp *tcp)
{
	if (!cookie)
		return -ENOENT;
	datapath_tcp_slot(dp, (uint32_t)cookie, tcp);
	if (tcp->cookie == cookie)
		return 0;
	if (bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.tcp_more), &cookie, tcp) < 0)
		return -errno;
	return tcp->cookie == cookie ? 0 : -ENOENT;
}

int datapath_tcp_more_next(const struct datapath *dp, const uint64_t *cookie, uint64_t *next)
{
	return datapath_result(bpf_map_get_next_key(bpf_map__fd(dp->skeleton->maps.tcp_more), cookie, next));
}

int datapath_tcp_forget(struct datapath *dp, uint64_t cookie)
{
	struct bh_tcp tcp = {.cookie = cookie};

	return tcp_entry_ask(bpf_program__fd(dp->skeleton->progs.bh_keep_tcp), BH_TCP_FORGET, &tcp);
}

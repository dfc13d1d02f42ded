// SPDX-License-Identifier: Apache-2.0
#include "carry_tcp.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bpf/abi.h"
#include "carry_entries.h"

struct copied {
	uint64_t cookie;
	uint64_t digest; /* of the copy as it was made */
	bool seen;	 /* by the second pass: still there */
};

struct carry_tcp {
	struct copied *items; /* the second pass finds them sorted */
	size_t n, room;
};

/* One pass over one of the two maps. */
struct pass {
	struct carry_tcp *memory;
	const struct carry_tcp_maps *to;
	struct bh_tcp *slots; /* mapped */
	uint32_t value_bytes; /* of the map that is read */
	enum carry_pass which;
	size_t left;
};

void carry_tcp_freep(struct carry_tcp **memoryp)
{
	if (!*memoryp)
		return;
	free((*memoryp)->items);
	free(*memoryp);
	*memoryp = NULL;
}

static int copied_order(const void *a, const void *b)
{
	uint64_t x = ((const struct copied *)a)->cookie, y = ((const struct copied *)b)->cookie;

	return (x > y) - (x < y);
}

static struct copied *copied_find(const struct carry_tcp *memory, uint64_t cookie)
{
	struct copied key = {.cookie = cookie};

	return memory->n ? bsearch(&key, memory->items, memory->n, sizeof(key), copied_order) : NULL;
}

/* Of all but the marks of who writes just now. FNV-1a. */
static uint64_t digest_of(const struct bh_tcp *tcp)
{
	uint64_t digest = 0xcbf29ce484222325;
	struct bh_tcp plain = *tcp;

	plain.use &= BH_TCP_USE_HELD | BH_TCP_USE_DONE;
	for (size_t i = 0; i < sizeof(plain); i++)
		digest = (digest ^ ((const uint8_t *)&plain)[i]) * 0x100000001b3;
	return digest;
}

static int copied_add(struct carry_tcp *memory, const struct bh_tcp *tcp)
{
	if (memory->n == memory->room) {
		size_t room = memory->room ? memory->room * 2 : 256;
		struct copied *items = reallocarray(memory->items, room, sizeof(*items));

		if (!items)
			return -ENOMEM;
		memory->items = items;
		memory->room = room;
	}
	memory->items[memory->n++] = (struct copied){.cookie = tcp->cookie, .digest = digest_of(tcp)};
	return 0;
}

/* ---- places in the maps of this build ---- */

static struct bh_tcp *slot_of(const struct pass *pass, uint64_t cookie)
{
	return &pass->slots[cookie % BH_TCP_SLOTS];
}

static uint64_t owner_of(const struct bh_tcp *slot)
{
	return __atomic_load_n(&slot->cookie, __ATOMIC_ACQUIRE);
}

static bool place_read(const struct pass *pass, uint64_t cookie, struct bh_tcp *tcp)
{
	const struct bh_tcp *slot = slot_of(pass, cookie);

	*tcp = *slot;
	if (tcp->cookie == cookie && owner_of(slot) == cookie)
		return true;
	return bpf_map_lookup_elem(pass->to->more_fd, &cookie, tcp) == 0;
}

/* All but the cookie and `use`, which programs change with atomic operations. `pass` goes last: who sees it sees the rest. */
static void slot_fill(struct bh_tcp *slot, const struct bh_tcp *tcp)
{
	size_t first = offsetof(struct bh_tcp, valid_until_ns), use = offsetof(struct bh_tcp, use);
	size_t behind = use + sizeof(slot->use);

	__atomic_store_n(&slot->pass, 0, __ATOMIC_RELEASE);
	memcpy((char *)slot + first, (const char *)tcp + first, use - first);
	memcpy((char *)slot + behind, (const char *)tcp + behind, sizeof(*slot) - behind);
	__atomic_store_n(&slot->pass, tcp->pass, __ATOMIC_RELEASE);
}

/* Where there is none yet. Until its cookie stands there, no program looks at it. Returns 0, 1: no room, or -errno. */
static int place_add(const struct pass *pass, const struct bh_tcp *tcp)
{
	struct bh_tcp *slot = slot_of(pass, tcp->cookie);
	uint64_t nobody = 0;

	if (__atomic_compare_exchange_n(&slot->cookie, &nobody, BH_TCP_LEAVING, false, __ATOMIC_ACQ_REL,
					__ATOMIC_RELAXED)) {
		slot_fill(slot, tcp);
		__atomic_store_n(&slot->use, tcp->use, __ATOMIC_RELEASE);
		__atomic_store_n(&slot->cookie, tcp->cookie, __ATOMIC_RELEASE);
		return 0;
	}
	if (bpf_map_update_elem(pass->to->more_fd, &tcp->cookie, tcp, BPF_NOEXIST) == 0 || errno == EEXIST)
		return 0;
	return errno == E2BIG ? 1 : -errno;
}

static void slot_empty(struct bh_tcp *slot)
{
	static const struct bh_tcp nobody = {.peer = BH_ID_WORLD};

	slot_fill(slot, &nobody);
	__atomic_store_n(&slot->use, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&slot->cookie, 0, __ATOMIC_RELEASE);
}

/* In the place of a copy that nobody has touched: as bh_tcp_write_begin() and bh_tcp_write_end(). */
static void place_renew(const struct pass *pass, const struct bh_tcp *tcp)
{
	struct bh_tcp *slot = slot_of(pass, tcp->cookie);

	if (owner_of(slot) != tcp->cookie) {
		bpf_map_update_elem(pass->to->more_fd, &tcp->cookie, tcp, BPF_EXIST);
		return;
	}
	if (__atomic_fetch_or(&slot->use, BH_TCP_USE_WRITING, __ATOMIC_ACQ_REL) & BH_TCP_USE_WRITING)
		return;
	if (owner_of(slot) == tcp->cookie) {
		slot_fill(slot, tcp);
		if (!(tcp->use & BH_TCP_USE_HELD))
			__atomic_fetch_and(&slot->use, ~BH_TCP_USE_HELD, __ATOMIC_ACQ_REL);
		__atomic_fetch_or(&slot->use, tcp->use & BH_TCP_USE_DONE, __ATOMIC_ACQ_REL);
	}
	if (__atomic_fetch_and(&slot->use, ~BH_TCP_USE_WRITING, __ATOMIC_ACQ_REL) & BH_TCP_USE_LEAVING)
		slot_empty(slot);
}

static void place_remove(const struct pass *pass, uint64_t cookie)
{
	struct bh_tcp *slot = slot_of(pass, cookie);
	uint64_t mine = cookie;

	if (__atomic_compare_exchange_n(&slot->cookie, &mine, BH_TCP_LEAVING, false, __ATOMIC_ACQ_REL,
					__ATOMIC_RELAXED)) {
		if (!(__atomic_fetch_or(&slot->use, BH_TCP_USE_LEAVING, __ATOMIC_ACQ_REL) & BH_TCP_USE_WRITING))
			slot_empty(slot);
		return;
	}
	bpf_map_delete_elem(pass->to->more_fd, &cookie);
}

/* ---- passes ---- */

static int entry_add(struct pass *pass, const struct bh_tcp *tcp)
{
	int r = place_add(pass, tcp);

	pass->left += r == 1;
	return r < 0 ? r : 0;
}

static int entry_carry(void *ctx, const void *key, const void *value)
{
	struct bh_tcp tcp = {}, now;
	struct pass *pass = ctx;
	struct copied *copied;
	bool there;

	(void)key;
	memcpy(&tcp, value, pass->value_bytes < sizeof(tcp) ? pass->value_bytes : sizeof(tcp));
	if (!tcp.cookie || tcp.cookie == BH_TCP_LEAVING)
		return 0;
	tcp.use &= BH_TCP_USE_HELD | BH_TCP_USE_DONE;
	there = place_read(pass, tcp.cookie, &now);
	if (pass->which == CARRY_BEFORE) {
		int r = there ? 0 : entry_add(pass, &tcp);

		return r < 0 || there ? r : copied_add(pass->memory, &tcp);
	}
	copied = copied_find(pass->memory, tcp.cookie);
	if (!copied)
		return there ? 0 : entry_add(pass, &tcp);
	copied->seen = true;
	if (there && digest_of(&now) == copied->digest && digest_of(&tcp) != copied->digest)
		place_renew(pass, &tcp);
	return 0;
}

/* What has ended under the old programs while the new ones were put in their place. */
static void ended_remove(const struct pass *pass)
{
	for (size_t i = 0; i < pass->memory->n; i++) {
		const struct copied *copied = &pass->memory->items[i];
		struct bh_tcp now;

		if (!copied->seen && place_read(pass, copied->cookie, &now) && digest_of(&now) == copied->digest)
			place_remove(pass, copied->cookie);
	}
}

int carry_tcp(struct carry_tcp **memoryp, const struct carry_tcp_maps *from, const struct carry_tcp_maps *to,
	      enum carry_pass which, size_t *leftp)
{
	size_t bytes = BH_TCP_SLOTS * sizeof(struct bh_tcp);
	struct pass pass = {.to = to, .which = which};
	int r;

	*leftp = 0;
	if (!*memoryp)
		*memoryp = calloc(1, sizeof(**memoryp));
	if (!*memoryp)
		return -ENOMEM;
	pass.memory = *memoryp;
	pass.slots = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, to->slots_fd, 0);
	if (pass.slots == MAP_FAILED)
		return -errno;
	if (which == CARRY_AFTER && pass.memory->n)
		qsort(pass.memory->items, pass.memory->n, sizeof(*pass.memory->items), copied_order);
	pass.value_bytes = from->slots_value_bytes;
	r = carry_each(from->slots_fd, sizeof(uint32_t), from->slots_value_bytes, entry_carry, &pass);
	pass.value_bytes = from->more_value_bytes;
	if (r == 0)
		r = carry_each(from->more_fd, sizeof(uint64_t), from->more_value_bytes, entry_carry, &pass);
	if (r == 0 && which == CARRY_AFTER)
		ended_remove(&pass);
	munmap(pass.slots, bytes);
	*leftp = pass.left;
	return r;
}

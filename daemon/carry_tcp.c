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
#include "tcp_entry.h"

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
	const struct bh_tcp *slots; /* mapped */
	int program_fd;
	int from_fd;	      /* the map that is read */
	uint32_t value_bytes; /* there */
	bool ends_untold;     /* the old programs do not note what is closed */
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

/* Of all but how it is written just now. FNV-1a. */
static uint64_t digest_of(const struct bh_tcp *tcp)
{
	uint64_t digest = 0xcbf29ce484222325;
	struct bh_tcp plain = *tcp;

	plain.use = 0;
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

/* ---- entries of the maps of this build ---- */

static bool entry_read(const struct pass *pass, uint64_t cookie, struct bh_tcp *tcp)
{
	const struct bh_tcp *slot = &pass->slots[cookie % BH_TCP_SLOTS];

	if (__atomic_load_n(&slot->cookie, __ATOMIC_ACQUIRE) == cookie) {
		*tcp = *slot;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (__atomic_load_n(&slot->cookie, __ATOMIC_RELAXED) == cookie)
			return true;
	}
	return bpf_map_lookup_elem(pass->to->more_fd, &cookie, tcp) == 0 && tcp->cookie == cookie;
}

/* Does it still stand where it was read? */
static bool is_still_there(const struct pass *pass, const void *key, uint64_t cookie)
{
	uint8_t value[2 * sizeof(struct bh_tcp)];
	uint64_t now;

	if (pass->value_bytes > sizeof(value) || bpf_map_lookup_elem(pass->from_fd, key, value))
		return false;
	memcpy(&now, value + offsetof(struct bh_tcp, cookie), sizeof(now));
	return now == cookie;
}

static int entry_add(struct pass *pass, const void *key, const struct bh_tcp *tcp)
{
	int r = tcp_entry_ask(pass->program_fd, BH_TCP_ADD, tcp);

	pass->left += r == 1;
	/* The old programs and ours were both told of its end, before there was anything for ours to let go of. */
	if (r == 0 && pass->which == CARRY_AFTER && !is_still_there(pass, key, tcp->cookie))
		r = tcp_entry_ask(pass->program_fd, BH_TCP_REMOVE, tcp);
	return r < 0 ? r : 0;
}

/* ---- passes ---- */

static int entry_carry(void *ctx, const void *key, const void *value)
{
	struct bh_tcp tcp = {}, now;
	struct pass *pass = ctx;
	struct copied *copied;
	bool there;
	int r = 0;

	memcpy(&tcp, value, pass->value_bytes < sizeof(tcp) ? pass->value_bytes : sizeof(tcp));
	if (!tcp.cookie || tcp.cookie & BH_TCP_LEAVING)
		return 0;
	tcp.use = 0;
	tcp.released |= pass->ends_untold;
	there = entry_read(pass, tcp.cookie, &now);
	if (pass->which == CARRY_BEFORE) {
		r = there ? 0 : entry_add(pass, key, &tcp);
		return r < 0 || there ? r : copied_add(pass->memory, &tcp);
	}
	copied = copied_find(pass->memory, tcp.cookie);
	if (!copied)
		return there ? 0 : entry_add(pass, key, &tcp);
	copied->seen = true;
	if (there && digest_of(&now) == copied->digest && digest_of(&tcp) != copied->digest)
		r = tcp_entry_ask(pass->program_fd, BH_TCP_RENEW, &tcp);
	return r < 0 ? r : 0;
}

/* What has ended under the old programs while the new ones were put in their place. */
static int ended_remove(const struct pass *pass)
{
	int r = 0;

	for (size_t i = 0; i < pass->memory->n && r >= 0; i++) {
		const struct copied *copied = &pass->memory->items[i];
		struct bh_tcp now;

		if (!copied->seen && entry_read(pass, copied->cookie, &now) && digest_of(&now) == copied->digest)
			r = tcp_entry_ask(pass->program_fd, BH_TCP_REMOVE, &now);
	}
	return r < 0 ? r : 0;
}

static int map_carry(struct pass *pass, int fd, uint32_t key_bytes, uint32_t value_bytes)
{
	pass->from_fd = fd;
	pass->value_bytes = value_bytes;
	return carry_each(fd, key_bytes, value_bytes, entry_carry, pass);
}

int carry_tcp(struct carry_tcp **memoryp, const struct carry_tcp_maps *from, const struct carry_tcp_maps *to,
	      int program_fd, enum carry_pass which, size_t *leftp)
{
	struct pass pass = {.to = to, .which = which, .program_fd = program_fd, .ends_untold = from->layout < 2};
	size_t bytes = BH_TCP_SLOTS * sizeof(struct bh_tcp);
	void *slots;
	int r;

	*leftp = 0;
	if (!*memoryp)
		*memoryp = calloc(1, sizeof(**memoryp));
	if (!*memoryp)
		return -ENOMEM;
	pass.memory = *memoryp;
	slots = mmap(NULL, bytes, PROT_READ, MAP_SHARED, to->slots_fd, 0);
	if (slots == MAP_FAILED)
		return -errno;
	pass.slots = slots;
	if (which == CARRY_AFTER && pass.memory->n)
		qsort(pass.memory->items, pass.memory->n, sizeof(*pass.memory->items), copied_order);
	r = map_carry(&pass, from->slots_fd, sizeof(uint32_t), from->slots_value_bytes);
	if (r == 0)
		r = map_carry(&pass, from->more_fd, sizeof(uint64_t), from->more_value_bytes);
	if (r == 0 && which == CARRY_AFTER)
		r = ended_remove(&pass);
	munmap(slots, bytes);
	*leftp = pass.left;
	return r;
}

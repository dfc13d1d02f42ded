// SPDX-License-Identifier: Apache-2.0
/*
 * The tables in force: two sets, of which one word says which counts, and a generation that voids cached verdicts. Beside
 * them the key of the handshake.
 */
#include "datapath_internal.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "keyring.h"
#include "until.h"

int datapath_key_rotate(struct datapath *dp)
{
	return keyring_rotate(bpf_map__fd(dp->skeleton->maps.keys), dp->state);
}

uint64_t datapath_key_epoch(const struct datapath *dp)
{
	return dp->state->key_epoch;
}

uint64_t datapath_key_since(const struct datapath *dp)
{
	return keyring_since(bpf_map__fd(dp->skeleton->maps.keys), dp->state);
}

/* ---- policy ---- */

static uint32_t slot_in_force(const struct datapath *dp)
{
	return BH_WORD_SLOT(__atomic_load_n(&dp->state->word, __ATOMIC_ACQUIRE));
}

static void word_next(struct datapath *dp, uint32_t slot)
{
	uint64_t generation = (dp->state->word >> 1) + 1;

	__atomic_store_n(&dp->state->word, generation << 1 | slot, __ATOMIC_RELEASE);
}

/* So much of them as is to be written: each page costs, used or not. NULL with errno. */
static uint8_t *tables_map(const struct datapath *dp, uint32_t slot, size_t len)
{
	uint8_t *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(dp->skeleton->maps.tables),
			    (off_t)slot * BH_TABLES_BYTES);

	return map == MAP_FAILED ? NULL : map;
}

/* Writing a map of maps waits, too. */
static int rcu_wait_by_map(void)
{
	LIBBPF_OPTS(bpf_map_create_opts, options);
	int inner = bpf_map_create(BPF_MAP_TYPE_ARRAY, "bh_wait_item", sizeof(uint32_t), sizeof(uint32_t), 1, NULL);
	int outer = -1, r = -1;
	uint32_t zero = 0;

	if (inner >= 0) {
		options.inner_map_fd = (uint32_t)inner;
		outer = bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "bh_wait", sizeof(uint32_t), sizeof(uint32_t), 1,
				       &options);
	}
	if (outer >= 0)
		r = bpf_map_update_elem(outer, &zero, &inner, BPF_ANY);
	if (inner >= 0)
		close(inner);
	if (outer >= 0)
		close(outer);
	return r;
}

/* Waits until every program that runs now has ended. Kernels with nohz_full have no membarrier of that kind; a program
 * runs for microseconds with preemption possible, so where neither way is there, a second is more than any takes. */
void datapath_programs_wait(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0 || rcu_wait_by_map() == 0)
		return;
	sleep(1);
}

void datapath_settle(struct datapath *dp)
{
	if (!dp->settled)
		datapath_programs_wait();
	dp->settled = true;
}

int datapath_policy_swap(struct datapath *dp, const void *tables, size_t len, const uint16_t *who, uint32_t revision)
{
	uint32_t slot = 1 - slot_in_force(dp);
	uint8_t *to;

	if (len > BH_TABLES_BYTES)
		return -E2BIG;
	/* No program that read the former word may still be looking at the set to be filled. */
	datapath_settle(dp);
	to = tables_map(dp, slot, len);
	if (!to)
		return -errno;
	memcpy(to, tables, len);
	until_write(to, tables);
	munmap(to, len);
	for (uint32_t i = 0; i < BH_MAX_IDENTITIES; i++)
		dp->who[(slot * BH_MAX_IDENTITIES + i) * 4] = who[i];
	dp->state->revision[slot] = revision;
	word_next(dp, slot);
	dp->settled = false;
	return 0;
}

int datapath_policy_untils(struct datapath *dp, const void *tables)
{
	uint32_t slot = slot_in_force(dp);
	size_t len = ((const struct bh_tables *)tables)->size;
	uint8_t *to = tables_map(dp, slot, len);
	bool any;

	if (!to)
		return -errno;
	any = until_write(to, tables);
	munmap(to, len);
	/* A rule that had ended may count again: verdicts that rest on its end are void. */
	if (any)
		word_next(dp, slot);
	return any;
}

uint32_t datapath_revision(const struct datapath *dp)
{
	return dp->state->revision[slot_in_force(dp)];
}

const uint8_t *datapath_tables(const struct datapath *dp)
{
	return dp->tables + (size_t)slot_in_force(dp) * BH_TABLES_BYTES;
}

uint16_t datapath_who(const struct datapath *dp, uint32_t identity)
{
	return dp->who[(slot_in_force(dp) * BH_MAX_IDENTITIES + identity % BH_MAX_IDENTITIES) * 4];
}

void datapath_who_set(struct datapath *dp, uint32_t identity, uint16_t who)
{
	dp->who[(slot_in_force(dp) * BH_MAX_IDENTITIES + identity % BH_MAX_IDENTITIES) * 4] = who;
}

void datapath_changed(struct datapath *dp)
{
	word_next(dp, slot_in_force(dp));
}

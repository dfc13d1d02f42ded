/* SPDX-License-Identifier: Apache-2.0 */
#include "keyring.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static uint64_t boottime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* Fills an epoch's slot with a random key; with since_ns 0 it is noise that nobody takes for a key. */
static int slot_fill(int fd, uint64_t epoch, uint64_t since_ns)
{
	uint32_t slot = (uint32_t)(epoch % BH_KEY_SLOTS);
	struct bh_key key = {};
	int r = 0;

	if (getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key))
		r = -EIO;
	key.since_ns = since_ns;
	if (r == 0 && bpf_map_update_elem(fd, &slot, &key, BPF_ANY) < 0)
		r = -errno;
	explicit_bzero(&key, sizeof(key));
	return r;
}

int keyring_rotate(int fd, struct bh_state *state)
{
	uint64_t epoch = __atomic_load_n(&state->key_epoch, __ATOMIC_ACQUIRE) + 1;
	int r = slot_fill(fd, epoch, boottime_ns());

	if (r < 0)
		return r;
	__atomic_store_n(&state->key_epoch, epoch, __ATOMIC_RELEASE);
	/* Noise, not zeros: a program that found the slot a moment ago must not verify by a key that anybody can guess. */
	for (uint64_t old = epoch + 1; old < epoch + BH_KEY_SLOTS - 1; old++)
		r = r ? r : slot_fill(fd, old, 0);
	return r;
}

int keyring_start(int fd, struct bh_state *state)
{
	return __atomic_load_n(&state->key_epoch, __ATOMIC_ACQUIRE) ? 0 : keyring_rotate(fd, state);
}

uint64_t keyring_since(int fd, const struct bh_state *state)
{
	uint32_t slot = (uint32_t)(__atomic_load_n(&state->key_epoch, __ATOMIC_ACQUIRE) % BH_KEY_SLOTS);
	struct bh_key key = {};
	uint64_t since_ns = 0;

	if (bpf_map_lookup_elem(fd, &slot, &key) == 0)
		since_ns = key.since_ns;
	explicit_bzero(&key, sizeof(key));
	return since_ns;
}

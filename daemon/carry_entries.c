// SPDX-License-Identifier: Apache-2.0
#include "carry_entries.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cleanup.h"

/* Entries read with one call: more than one bucket of a hash ever holds. */
#define BATCH 512U

static size_t page_up(size_t len)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (len + page - 1) / page * page;
}

/* ---- hashes and arrays ---- */

struct copy {
	int to_fd;
	uint32_t key_bytes;
	uint32_t from_bytes; /* of a value */
	uint32_t to_bytes;
	uint8_t *value; /* to_bytes */
	carry_complete_fn complete;
	size_t left;
};

static int copy_entry(struct copy *copy, const void *key, const void *value, uint64_t flags)
{
	uint32_t bytes = copy->from_bytes < copy->to_bytes ? copy->from_bytes : copy->to_bytes;

	memset(copy->value, 0, copy->to_bytes);
	memcpy(copy->value, value, bytes);
	if (copy->complete)
		copy->complete(key, copy->value);
	if (bpf_map_update_elem(copy->to_fd, key, copy->value, flags) == 0 || errno == EEXIST)
		return 0;
	if (errno != E2BIG)
		return -errno;
	copy->left++;
	return 0;
}

static int copy_array(struct copy *copy, int from_fd, uint32_t from_n, uint32_t to_n)
{
	__attribute__((cleanup(freep))) uint8_t *value = malloc(copy->from_bytes);
	int r = value ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < from_n && i < to_n && r == 0; i++)
		r = bpf_map_lookup_elem(from_fd, &i, value) ? -errno : copy_entry(copy, &i, value, BPF_ANY);
	return r;
}

/* A hash is read bucket by bucket: unlike a walk from key to key, that ends also while entries come and go. */
int carry_each(int fd, uint32_t key_bytes, uint32_t value_bytes, carry_entry_fn entry, void *ctx)
{
	__attribute__((cleanup(freep))) uint8_t *keys = calloc(BATCH, key_bytes);
	__attribute__((cleanup(freep))) uint8_t *values = calloc(BATCH, value_bytes);
	uint32_t position = 0, n;
	bool started = false;
	int r = keys && values ? 0 : -ENOMEM, found = 0;

	while (r == 0 && found == 0) {
		n = BATCH;
		found = bpf_map_lookup_batch(fd, started ? &position : NULL, &position, keys, values, &n, NULL) ? -errno
														: 0;
		if (found && found != -ENOENT)
			return found;
		started = true;
		for (uint32_t i = 0; i < n && r == 0; i++)
			r = entry(ctx, keys + (size_t)i * key_bytes, values + (size_t)i * value_bytes);
	}
	return r;
}

static int copy_hash_entry(void *ctx, const void *key, const void *value)
{
	return copy_entry(ctx, key, value, BPF_NOEXIST);
}

int carry_entries(int from_fd, const struct bpf_map_info *from, int to_fd, uint32_t to_value_bytes,
		  uint32_t to_max_entries, carry_complete_fn complete, size_t *leftp)
{
	struct copy copy = {
		.to_fd = to_fd,
		.key_bytes = from->key_size,
		.from_bytes = from->value_size,
		.to_bytes = to_value_bytes,
		.value = malloc(to_value_bytes),
		.complete = complete,
	};
	int r = copy.value ? 0 : -ENOMEM;

	if (r == 0 && from->type == BPF_MAP_TYPE_ARRAY)
		r = copy_array(&copy, from_fd, from->max_entries, to_max_entries);
	else if (r == 0)
		r = carry_each(from_fd, copy.key_bytes, copy.from_bytes, copy_hash_entry, &copy);
	free(copy.value);
	*leftp = copy.left;
	return r;
}

static int count_entry(void *ctx, const void *key, const void *value)
{
	(void)key;
	(void)value;
	++*(int64_t *)ctx;
	return 0;
}

int64_t carry_entries_count(int fd)
{
	struct bpf_map_info info = {};
	uint32_t len = sizeof(info);
	int64_t n = 0;
	int r;

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -errno;
	r = carry_each(fd, info.key_size, info.value_size, count_entry, &n);
	return r < 0 ? r : n;
}

/* ---- sums ---- */

int carry_sums(int from_fd, const struct bpf_map_info *from, int to_fd, uint32_t to_value_bytes, bool whole,
	       uint64_t **takenp)
{
	uint32_t zero = 0, bytes = from->value_size < to_value_bytes ? from->value_size : to_value_bytes;
	uint64_t *now = calloc(1, from->value_size), *to;
	bool first = !*takenp;

	if (!now)
		return -ENOMEM;
	to = mmap(NULL, page_up(to_value_bytes), PROT_READ | PROT_WRITE, MAP_SHARED, to_fd, 0);
	if (to == MAP_FAILED || bpf_map_lookup_elem(from_fd, &zero, now)) {
		int r = -errno;

		if (to != MAP_FAILED)
			munmap(to, page_up(to_value_bytes));
		free(now);
		return r;
	}
	for (uint32_t i = 0; i < bytes / sizeof(*now); i++) {
		uint64_t before = !first ? (*takenp)[i] : whole ? 0 : now[i];

		__atomic_fetch_add(&to[i], now[i] - before, __ATOMIC_RELAXED);
	}
	munmap(to, page_up(to_value_bytes));
	free(*takenp);
	*takenp = now;
	return 0;
}

/* ---- what is kept with sockets ---- */

int carry_sockets(const struct bpf_program *program, int from_fd)
{
	union bpf_iter_link_info info = {.map = {.map_fd = (uint32_t)from_fd}};
	struct bpf_iter_attach_opts options;
	struct bpf_link *link;
	char nothing[64];
	ssize_t n = -1;
	int fd, r = 0;

	/* Not LIBBPF_OPTS: the padding after the last field counts, and an initialiser may leave anything in it. */
	memset(&options, 0, sizeof(options));
	options.sz = sizeof(options);
	options.link_info = &info;
	options.link_info_len = sizeof(info);
	link = bpf_program__attach_iter(program, &options);
	if (!link)
		return -errno;
	fd = bpf_iter_create(bpf_link__fd(link));
	if (fd < 0)
		r = -errno;
	/* The program says nothing: reading is what runs it. */
	while (r == 0 && n != 0) {
		n = read(fd, nothing, sizeof(nothing));
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			r = -errno;
	}
	if (fd >= 0)
		close(fd);
	bpf_link__destroy(link);
	return r;
}

/* ---- the ring ---- */

/* Records from `from` to `to`; each begins with its length, of which two bits say more, and is padded to 8 bytes. */
static int64_t records_count(const uint8_t *data, size_t ring_bytes, uint64_t from, uint64_t to)
{
	int64_t n = 0;

	while (from < to) {
		uint32_t head = __atomic_load_n((const uint32_t *)(data + (from & (ring_bytes - 1))), __ATOMIC_ACQUIRE);
		uint32_t len = head & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);

		n += !(head & BPF_RINGBUF_DISCARD_BIT);
		from += (len + BPF_RINGBUF_HDR_SZ + 7) / 8 * 8;
	}
	return n;
}

int64_t carry_ring_unread(int ring_fd)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), mapped;
	struct bpf_map_info info = {};
	uint32_t len = sizeof(info);
	uint8_t *consumer, *producer;
	int64_t n;

	if (bpf_obj_get_info_by_fd(ring_fd, &info, &len))
		return -errno;
	/* A page with the reader's position, one with the writers', and the data, twice in a row. */
	mapped = page + 2 * (size_t)info.max_entries;
	consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, 0);
	if (consumer == MAP_FAILED)
		return -errno;
	producer = mmap(NULL, mapped, PROT_READ, MAP_SHARED, ring_fd, (off_t)page);
	if (producer == MAP_FAILED) {
		n = -errno;
		munmap(consumer, page);
		return n;
	}
	n = records_count(producer + page, info.max_entries, __atomic_load_n((uint64_t *)consumer, __ATOMIC_ACQUIRE),
			  __atomic_load_n((uint64_t *)producer, __ATOMIC_ACQUIRE));
	munmap(producer, mapped);
	munmap(consumer, page);
	return n;
}

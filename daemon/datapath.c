// SPDX-License-Identifier: Apache-2.0
#include "datapath_internal.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "carry.h"
#include "carry_entries.h"
#include "keyring.h"
#include "log.h"
#include "pins.h"

static int libbpf_line(enum libbpf_print_level level, const char *format, va_list args)
{
	if (level != LIBBPF_WARN)
		return 0;
	return vfprintf(stderr, format, args);
}

static size_t page_up(size_t len)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (len + page - 1) / page * page;
}

static void *map_memory(int fd, size_t len, int prot)
{
	void *p = mmap(NULL, page_up(len), prot, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

void datapath_freep(struct datapath **datapathp)
{
	struct datapath *dp = *datapathp;

	if (!dp)
		return;
	if (dp->state)
		munmap(dp->state, page_up(sizeof(*dp->state)));
	if (dp->counters)
		munmap(dp->counters, page_up(sizeof(*dp->counters)));
	if (dp->who)
		munmap(dp->who, page_up(2 * BH_MAX_IDENTITIES * 8));
	if (dp->tables)
		munmap((void *)dp->tables, 2UL * BH_TABLES_BYTES);
	if (dp->tcp)
		munmap(dp->tcp, BH_TCP_SLOTS * sizeof(*dp->tcp));
	if (dp->unlisted)
		munmap(dp->unlisted, BH_UNLISTED_BITS / 8);
	datapath_links_close(dp);
	carry_freep(&dp->carry);
	bulkhead__destroy(dp->skeleton);
	if (dp->pin_fd >= 0)
		close(dp->pin_fd);
	free(dp);
	*datapathp = NULL;
}

/* Numbers of tickets begin anywhere: where this map was made anew and others were not, what sockets remember of the former
 * ones must not mean another flow now. */
static int serial_make(struct datapath *dp)
{
	uint64_t serial = 0;
	uint32_t zero = 0;
	int fd = bpf_map__fd(dp->skeleton->maps.udp_serial);

	if (bpf_map_lookup_elem(fd, &zero, &serial) < 0)
		return -errno;
	if (serial)
		return 0;
	if (getrandom(&serial, sizeof(serial), 0) != (ssize_t)sizeof(serial))
		return -EIO;
	serial = serial >> (BH_TICKET_BITS + 1) | 1;
	return bpf_map_update_elem(fd, &zero, &serial, BPF_ANY) < 0 ? -errno : 0;
}

static int maps_map(struct datapath *dp)
{
	struct bulkhead *s = dp->skeleton;

	dp->state = map_memory(bpf_map__fd(s->maps.state), sizeof(*dp->state), PROT_READ | PROT_WRITE);
	dp->counters = map_memory(bpf_map__fd(s->maps.counters), sizeof(*dp->counters), PROT_READ | PROT_WRITE);
	/* An array's items are 8 bytes apart, whatever their size. */
	dp->who = map_memory(bpf_map__fd(s->maps.who), 2 * BH_MAX_IDENTITIES * 8, PROT_READ | PROT_WRITE);
	dp->tables = map_memory(bpf_map__fd(s->maps.tables), 2UL * BH_TABLES_BYTES, PROT_READ);
	dp->tcp = map_memory(bpf_map__fd(s->maps.tcp_slots), BH_TCP_SLOTS * sizeof(*dp->tcp), PROT_READ | PROT_WRITE);
	dp->unlisted = map_memory(bpf_map__fd(s->maps.unlisted), BH_UNLISTED_BITS / 8, PROT_READ | PROT_WRITE);
	return dp->state && dp->counters && dp->who && dp->tables && dp->tcp && dp->unlisted ? 0 : -errno;
}

/* Likewise the seed of the handshakes' hash. */
static int seed_make(struct datapath *dp)
{
	uint32_t seed = 0;

	if (dp->state->seed)
		return 0;
	if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
		return -EIO;
	dp->state->seed = seed | 1;
	return 0;
}

/* One daemon for each pin directory, whatever state directory it has: two would swap each other's policies. */
static int pin_dir_lock(struct datapath *dp, char *why, size_t why_size)
{
	dp->pin_fd = open(dp->pin_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dp->pin_fd >= 0 && flock(dp->pin_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (dp->pin_fd >= 0 && errno == EWOULDBLOCK) {
		snprintf(why, why_size, "another bulkheadd runs with the pin directory %s", dp->pin_dir);
		return -EBUSY;
	}
	snprintf(why, why_size, "cannot lock the pin directory %s: %s", dp->pin_dir, strerror(errno));
	return -errno;
}

/* Loads over what is pinned: maps of this layout are shared, others are made anew. */
static int object_load(struct datapath *dp, char *why, size_t why_size)
{
	LIBBPF_OPTS(bpf_object_open_opts, options, .pin_root_path = dp->pin_dir);
	int r;

	dp->skeleton = bulkhead__open_opts(&options);
	if (!dp->skeleton) {
		snprintf(why, why_size, "cannot open the BPF object: %s", strerror(errno));
		return -errno;
	}
	dp->skeleton->rodata->subtree_level = dp->config.subtree_level;
	bpf_program__set_autoload(dp->skeleton->progs.bh_from_device, dp->config.devices);
	bpf_program__set_autoload(dp->skeleton->progs.bh_to_device, dp->config.devices);
	r = carry_plan(&dp->carry, dp->skeleton->obj, dp->pin_dir, why, why_size);
	if (r < 0)
		return r;
	r = bulkhead__load(dp->skeleton);
	if (r < 0 && libbpf_find_vmlinux_btf_id("tcp_destroy_sock", BPF_TRACE_RAW_TP) < 0) {
		snprintf(why, why_size,
			 "this kernel does not tell of the end of TCP sockets (the tracepoint tcp_destroy_sock), so "
			 "what is "
			 "kept of them would never be let go: it needs CONFIG_BPF_EVENTS and CONFIG_DEBUG_INFO_BTF");
		return r;
	}
	if (r < 0) {
		snprintf(why, why_size,
			 "the kernel refused the BPF programs or the maps pinned in %s: %s. If another version of "
			 "Bulkhead pinned something there, what it enforces goes on: start that version, or remove the "
			 "pins with `rm -r` of that directory, which ends enforcement until this one is started",
			 dp->pin_dir, strerror(-r));
		return r;
	}
	r = carry_settled(dp->carry, why, why_size);
	if (r < 0)
		return r;
	r = maps_map(dp);
	if (r < 0) {
		snprintf(why, why_size, "cannot map the BPF maps: %s", strerror(-r));
		return r;
	}
	r = keyring_start(bpf_map__fd(dp->skeleton->maps.keys), dp->state);
	if (r < 0) {
		snprintf(why, why_size, "cannot make the key of the handshake: %s", strerror(-r));
		return r;
	}
	r = seed_make(dp);
	if (r < 0) {
		snprintf(why, why_size, "cannot get random numbers: %s", strerror(-r));
		return r;
	}
	r = serial_make(dp);
	if (r < 0)
		snprintf(why, why_size, "cannot number the tickets of datagrams: %s", strerror(-r));
	else
		__atomic_store_n(&dp->state->abi, BH_ABI_VERSION, __ATOMIC_RELEASE);
	return r;
}

int datapath_open(struct datapath **datapathp, const struct datapath_config *config, bool *adoptedp, char *why,
		  size_t why_size)
{
	__attribute__((cleanup(datapath_freep))) struct datapath *dp = calloc(1, sizeof(*dp));
	int r;

	if (!dp)
		return -ENOMEM;
	for (size_t i = 0; i < DATAPATH_MAX_PROGRAMS; i++)
		dp->links[i] = dp->replaced[i] = -1;
	dp->pin_fd = -1;
	dp->config = *config;
	snprintf(dp->pin_dir, sizeof(dp->pin_dir), "%s", config->pin_dir);
	dp->config.pin_dir = dp->pin_dir;
	libbpf_set_print(libbpf_line);

	r = pins_directory_possible(dp->pin_dir);
	if (r < 0) {
		snprintf(why, why_size, "cannot look at the pin directory %s: %s", dp->pin_dir, strerror(-r));
		return r;
	}
	if (!r) {
		snprintf(why, why_size,
			 "the pin directory %s is not below a bpffs (mount -t bpf shows which there are)", dp->pin_dir);
		return -EINVAL;
	}
	r = pins_directory_make(dp->pin_dir);
	if (r < 0) {
		snprintf(why, why_size, "cannot make the pin directory %s: %s", dp->pin_dir, strerror(-r));
		return r;
	}
	r = pin_dir_lock(dp, why, why_size);
	if (r == 0)
		r = object_load(dp, why, why_size);
	if (r < 0)
		return r;
	*adoptedp = datapath_links_open(dp);
	*datapathp = dp;
	dp = NULL;
	return 0;
}

int datapath_attach(struct datapath *dp, char *why, size_t why_size)
{
	bool due = carry_is_due(dp->carry);
	char late[512];
	int r;

	r = carry_pin(dp->carry, why, why_size);
	if (r == 0)
		r = carry_live(dp->carry, CARRY_BEFORE, why, why_size);
	if (r == 0) {
		dp->skeleton->bss->bh_end_told_twice = due;
		r = datapath_links_attach(dp, why, why_size);
	}
	if (r < 0) {
		carry_abandon(dp->carry);
		return r;
	}
	datapath_devices_kind_settle(dp);
	datapath_devices_replace(dp);
	if (due) {
		datapath_programs_wait();
		if (carry_live(dp->carry, CARRY_AFTER, late, sizeof(late)) < 0)
			log_error("%s: what changed while the programs were replaced is judged as new", late);
		/* Every flow is judged again, by the programs and tables of this build. */
		datapath_changed(dp);
		log_info("took over what another build had pinned in %s", dp->pin_dir);
	}
	datapath_links_settle(dp);
	dp->skeleton->bss->bh_end_told_twice = 0;
	carry_finish(dp->carry);
	datapath_links_remove_strange(dp);
	dp->attached = true;
	return 0;
}

bool datapath_holds(const struct datapath *dp, char *why, size_t why_size)
{
	char path[DATAPATH_PATH_BYTES];

	if (!datapath_links_hold(dp, why, why_size))
		return false;
	if (carry_pins_hold(dp->carry, path, sizeof(path)))
		return true;
	snprintf(why, why_size, DATAPATH_PIN_LOST, path);
	return false;
}

/* The directory may have been removed, and be another one now: what it names and who has locked it counts. */
static int pin_dir_restore(struct datapath *dp, char *why, size_t why_size)
{
	struct stat ours, now;
	int r, before = dp->pin_fd;

	if (stat(dp->pin_dir, &now) == 0 && fstat(dp->pin_fd, &ours) == 0 && ours.st_dev == now.st_dev &&
	    ours.st_ino == now.st_ino)
		return 0;
	r = pins_directory_make(dp->pin_dir);
	if (r < 0) {
		snprintf(why, why_size, "cannot make the pin directory %s again: %s", dp->pin_dir, strerror(-r));
		return r;
	}
	r = pin_dir_lock(dp, why, why_size);
	if (r < 0) {
		if (dp->pin_fd >= 0)
			close(dp->pin_fd);
		dp->pin_fd = before;
		return r;
	}
	close(before);
	return 0;
}

static int pins_restore(struct datapath *dp, char *why, size_t why_size)
{
	int r = carry_pins_restore(dp->carry);

	if (r == 0)
		r = datapath_links_pin(dp);
	if (r < 0)
		snprintf(why, why_size, "cannot pin again what was pinned in %s: %s", dp->pin_dir, strerror(-r));
	return r;
}

int datapath_restore(struct datapath *dp, int cgroup_fd, uint64_t cgroup_id, char *why, size_t why_size)
{
	int r, pins;

	dp->config.cgroup_fd = cgroup_fd;
	dp->config.cgroup_id = cgroup_id;
	datapath_links_drop(dp);
	/* Each that can be attached, whatever becomes of the others and of the pins: it enforces now. */
	pins = pin_dir_restore(dp, why, why_size);
	r = datapath_links_restore(dp, why, why_size);
	if (r == 0 && pins == 0)
		pins = pins_restore(dp, why, why_size);
	return r < 0 ? r : pins;
}

void datapath_unpin_unused(struct datapath *dp)
{
	/* A pinned link enforces with these maps, if not here then on the subtree that was managed before. */
	if (datapath_links_any(dp))
		return;
	bpf_object__unpin_maps(dp->skeleton->obj, NULL);
	rmdir(dp->pin_dir);
}

bool datapath_map(const struct datapath *dp, size_t index, struct datapath_map *out)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, dp->skeleton->obj)
	{
		enum bpf_map_type type = bpf_map__type(map);

		if ((type != BPF_MAP_TYPE_HASH && type != BPF_MAP_TYPE_LRU_HASH) || index--)
			continue;
		*out = (struct datapath_map){
			.name = bpf_map__name(map),
			.layout = carry_layout(bpf_map__name(map)),
			.max_entries = bpf_map__max_entries(map),
			.entries = carry_entries_count(bpf_map__fd(map)),
			.evicts = type == BPF_MAP_TYPE_LRU_HASH,
		};
		return true;
	}
	return false;
}

int datapath_ring_fd(const struct datapath *dp)
{
	return bpf_map__fd(dp->skeleton->maps.events);
}

int datapath_counters_fd(const struct datapath *dp)
{
	return bpf_map__fd(dp->skeleton->maps.counters);
}

int datapath_pairs_fd(const struct datapath *dp)
{
	return bpf_map__fd(dp->skeleton->maps.pairs);
}

int datapath_look_tcp_fd(const struct datapath *dp)
{
	return bpf_program__fd(dp->skeleton->progs.bh_look_tcp);
}

int datapath_look_udp_fd(const struct datapath *dp)
{
	return bpf_program__fd(dp->skeleton->progs.bh_look_udp);
}

int datapath_udp_recent_fd(const struct datapath *dp)
{
	return bpf_map__fd(dp->skeleton->maps.udp_recent);
}

struct bh_counters *datapath_counters(struct datapath *dp)
{
	return dp->counters;
}

// SPDX-License-Identifier: Apache-2.0
#include "datapath.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bulkhead.skel.h"
#include "log.h"
#include "until.h"

#define MAX_PROGRAMS 16

struct datapath {
	struct bulkhead *skeleton;
	struct datapath_config config;
	char pin_dir[1024];
	int pin_fd; /* of the directory: locked as long as we live */
	int links[MAX_PROGRAMS];
	size_t n_programs;
	struct bh_state *state;	      /* mapped */
	struct bh_counters *counters; /* mapped */
	uint16_t *who;		      /* mapped, both slots */
	const uint8_t *tables;	      /* mapped read-only, both slots; for user space's own judgements */
	struct bh_tcp *tcp;	      /* mapped: BH_TCP_SLOTS */
};

/* Attached in this order: what only notes comes before what denies by what was noted. */
static const char *const attach_order[] = {
	"bh_sock_create", "bh_sock_release", "bh_post_bind4", "bh_post_bind6", "bh_sockops", "bh_connect4",
	"bh_connect6",	  "bh_sendmsg4",     "bh_sendmsg6",   "bh_ingress",    "bh_egress",
};
#define N_PROGRAMS (sizeof(attach_order) / sizeof(attach_order[0]))

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

static void link_path(const struct datapath *dp, const char *program, char *out, size_t size)
{
	snprintf(out, size, "%s/link_%s", dp->pin_dir, program);
}

static bool link_is_ours(const struct datapath *dp, int fd)
{
	struct bpf_link_info info = {};
	uint32_t len = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == BPF_LINK_TYPE_CGROUP &&
	       info.cgroup.cgroup_id == dp->config.cgroup_id;
}

/* The pinned link of a program, if it is still on our cgroup: a subtree that was removed and made again has another id,
 * and the old link enforces nothing there. Its pin stays until another takes its place. */
static int link_open(const struct datapath *dp, const char *program)
{
	char path[1200];
	int fd;

	link_path(dp, program, path, sizeof(path));
	fd = bpf_obj_get(path);
	if (fd < 0)
		return -ENOENT;
	if (link_is_ours(dp, fd))
		return fd;
	close(fd);
	return -ENOENT;
}

/* Takes the place of a pin that is there already, without a moment in which neither is. */
static int link_pin(const struct datapath *dp, const char *program, int fd)
{
	char path[1200], fresh[1210];

	link_path(dp, program, path, sizeof(path));
	snprintf(fresh, sizeof(fresh), "%s_new", path); /* bpffs takes no dots */
	if (unlink(fresh) < 0 && errno != ENOENT)
		return -errno;
	if (bpf_obj_pin(fd, fresh))
		return -errno;
	return rename(fresh, path) < 0 ? -errno : 0;
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
	for (size_t i = 0; i < N_PROGRAMS; i++)
		if (dp->links[i] >= 0)
			close(dp->links[i]);
	bulkhead__destroy(dp->skeleton);
	if (dp->pin_fd >= 0)
		close(dp->pin_fd);
	free(dp);
	*datapathp = NULL;
}

/* The handshake key is made once, with the map: it lives as long as the pins and is known to nobody else. */
static int key_make(struct datapath *dp)
{
	struct bh_key key = {};
	uint32_t zero = 0;
	int fd = bpf_map__fd(dp->skeleton->maps.keys), r = 0;

	if (bpf_map_lookup_elem(fd, &zero, &key) == 0 && (key.k0 | key.k1) == 0) {
		if (getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key))
			return -EIO;
		r = bpf_map_update_elem(fd, &zero, &key, BPF_ANY);
	}
	explicit_bzero(&key, sizeof(key));
	return r;
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
	return dp->state && dp->counters && dp->who && dp->tables && dp->tcp ? 0 : -errno;
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

/* Maps of one size may mean different things: what another version pinned is not taken for ours. */
static int abi_check(struct datapath *dp, char *why, size_t why_size)
{
	uint32_t found = __atomic_load_n(&dp->state->abi, __ATOMIC_ACQUIRE);

	if (found == BH_ABI_VERSION)
		return 0;
	if (found == 0) {
		__atomic_store_n(&dp->state->abi, BH_ABI_VERSION, __ATOMIC_RELEASE);
		return 0;
	}
	snprintf(why, why_size,
		 "the maps pinned in %s are of another version of Bulkhead (layout %u, this one reads %u); what they "
		 "enforce "
		 "goes on. Start the version that made them, or remove them with `rm -r` of that directory, which ends "
		 "enforcement",
		 dp->pin_dir, found, BH_ABI_VERSION);
	return -EPROTONOSUPPORT;
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

static int directory_make(const char *path)
{
	char part[1024];

	if (strlen(path) >= sizeof(part))
		return -ENAMETOOLONG;
	strcpy(part, path);
	for (char *p = part + 1;; p++) {
		if (*p != '/' && *p != '\0')
			continue;
		char end = *p;

		*p = '\0';
		if (mkdir(part, 0700) < 0 && errno != EEXIST)
			return -errno;
		if (!end)
			return 0;
		*p = end;
	}
}

int datapath_open(struct datapath **datapathp, const struct datapath_config *config, bool *adoptedp, char *why,
		  size_t why_size)
{
	__attribute__((cleanup(datapath_freep))) struct datapath *dp = calloc(1, sizeof(*dp));
	LIBBPF_OPTS(bpf_object_open_opts, options, .pin_root_path = config->pin_dir);
	int r;

	if (!dp)
		return -ENOMEM;
	for (size_t i = 0; i < MAX_PROGRAMS; i++)
		dp->links[i] = -1;
	dp->pin_fd = -1;
	dp->config = *config;
	snprintf(dp->pin_dir, sizeof(dp->pin_dir), "%s", config->pin_dir);
	dp->config.pin_dir = dp->pin_dir;
	libbpf_set_print(libbpf_line);

	r = directory_make(dp->pin_dir);
	if (r < 0) {
		snprintf(why, why_size, "cannot make the pin directory %s: %s (is a bpffs mounted there?)", dp->pin_dir,
			 strerror(-r));
		return r;
	}
	r = pin_dir_lock(dp, why, why_size);
	if (r < 0)
		return r;
	dp->skeleton = bulkhead__open_opts(&options);
	if (!dp->skeleton) {
		snprintf(why, why_size, "cannot open the BPF object: %s", strerror(errno));
		return -errno;
	}
	dp->skeleton->rodata->subtree_level = config->subtree_level;
	r = bulkhead__load(dp->skeleton);
	if (r < 0) {
		snprintf(why, why_size,
			 "the kernel refused the BPF programs or the maps pinned in %s: %s. If another version of "
			 "Bulkhead pinned something there, what it enforces goes on: start that version, or remove the "
			 "pins with `rm -r` of that directory, which ends enforcement until this one is started",
			 dp->pin_dir, strerror(-r));
		return r;
	}
	r = key_make(dp);
	if (!r)
		r = maps_map(dp);
	if (r < 0) {
		snprintf(why, why_size, "cannot map the BPF maps: %s", strerror(-r));
		return r;
	}
	r = abi_check(dp, why, why_size);
	if (r < 0)
		return r;
	r = seed_make(dp);
	if (r < 0) {
		snprintf(why, why_size, "cannot get random numbers: %s", strerror(-r));
		return r;
	}
	*adoptedp = true;
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		dp->links[i] = link_open(dp, attach_order[i]);
		*adoptedp = *adoptedp && dp->links[i] >= 0;
	}
	*datapathp = dp;
	dp = NULL;
	return 0;
}

static int program_attach(struct datapath *dp, size_t i)
{
	struct bpf_program *program = bpf_object__find_program_by_name(dp->skeleton->obj, attach_order[i]);
	LIBBPF_OPTS(bpf_link_create_opts, options);
	int fd, r;

	if (!program)
		return -ENOENT;
	if (dp->links[i] >= 0)
		return bpf_link_update(dp->links[i], bpf_program__fd(program), NULL) ? -errno : 0;
	fd = bpf_link_create(bpf_program__fd(program), dp->config.cgroup_fd, bpf_program__expected_attach_type(program),
			     &options);
	if (fd < 0)
		return -errno;
	r = link_pin(dp, attach_order[i], fd);
	if (r < 0) {
		close(fd);
		return r;
	}
	dp->links[i] = fd;
	return 0;
}

int datapath_attach(struct datapath *dp, char *why, size_t why_size)
{
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		int r = program_attach(dp, i);

		if (r < 0) {
			snprintf(why, why_size, "cannot attach %s to the managed subtree: %s", attach_order[i],
				 strerror(-r));
			return r;
		}
	}
	return 0;
}

int datapath_restore(struct datapath *dp, int cgroup_fd, uint64_t cgroup_id, char *why, size_t why_size)
{
	dp->config.cgroup_fd = cgroup_fd;
	dp->config.cgroup_id = cgroup_id;
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		if (dp->links[i] < 0 || link_is_ours(dp, dp->links[i]))
			continue;
		close(dp->links[i]);
		dp->links[i] = -1;
	}
	return datapath_attach(dp, why, why_size);
}

void datapath_unpin_unused(struct datapath *dp)
{
	char path[1200];

	/* A pinned link enforces with these maps, if not here then on the subtree that was managed before. */
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		link_path(dp, attach_order[i], path, sizeof(path));
		if (dp->links[i] >= 0 || access(path, F_OK) == 0)
			return;
	}
	bpf_object__unpin_maps(dp->skeleton->obj, NULL);
	rmdir(dp->pin_dir);
}

const char *datapath_program(const struct datapath *dp, size_t index, bool *attachedp)
{
	if (index >= N_PROGRAMS)
		return NULL;
	*attachedp = dp->links[index] >= 0 && link_is_ours(dp, dp->links[index]);
	return attach_order[index];
}

int datapath_ring_fd(const struct datapath *dp)
{
	return bpf_map__fd(dp->skeleton->maps.events);
}

int datapath_counters_fd(const struct datapath *dp)
{
	return bpf_map__fd(dp->skeleton->maps.counters);
}

struct bh_counters *datapath_counters(struct datapath *dp)
{
	return dp->counters;
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
static void programs_wait(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0 || rcu_wait_by_map() == 0)
		return;
	sleep(1);
}

/* NULL with errno. */
static uint8_t *tables_map(const struct datapath *dp, uint32_t slot)
{
	uint8_t *map = mmap(NULL, BH_TABLES_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			    bpf_map__fd(dp->skeleton->maps.tables), (off_t)slot * BH_TABLES_BYTES);

	return map == MAP_FAILED ? NULL : map;
}

int datapath_policy_swap(struct datapath *dp, const void *tables, size_t len, const uint16_t *who, uint32_t revision)
{
	uint32_t slot = 1 - slot_in_force(dp);
	uint8_t *to;

	if (len > BH_TABLES_BYTES)
		return -E2BIG;
	/* Waits until no program that read the former word can still be looking at the set to be filled. */
	programs_wait();
	to = tables_map(dp, slot);
	if (!to)
		return -errno;
	memcpy(to, tables, len);
	until_write(to, tables);
	munmap(to, BH_TABLES_BYTES);
	for (uint32_t i = 0; i < BH_MAX_IDENTITIES; i++)
		dp->who[(slot * BH_MAX_IDENTITIES + i) * 4] = who[i];
	dp->state->revision[slot] = revision;
	word_next(dp, slot);
	return 0;
}

int datapath_policy_untils(struct datapath *dp, const void *tables)
{
	uint32_t slot = slot_in_force(dp);
	uint8_t *to = tables_map(dp, slot);
	bool any;

	if (!to)
		return -errno;
	any = until_write(to, tables);
	munmap(to, BH_TABLES_BYTES);
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

/* ---- tags ---- */

static int negative(int r)
{
	return r < 0 ? -errno : 0;
}

int datapath_tag_set(struct datapath *dp, uint64_t cgroup_id, const struct bh_tag *tag)
{
	return negative(bpf_map_update_elem(bpf_map__fd(dp->skeleton->maps.tags), &cgroup_id, tag, BPF_ANY));
}

int datapath_tag_get(const struct datapath *dp, uint64_t cgroup_id, struct bh_tag *tag)
{
	return negative(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.tags), &cgroup_id, tag));
}

int datapath_tag_delete(struct datapath *dp, uint64_t cgroup_id)
{
	return negative(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.tags), &cgroup_id));
}

int datapath_tag_next(const struct datapath *dp, const uint64_t *cgroup_id, uint64_t *next)
{
	return negative(bpf_map_get_next_key(bpf_map__fd(dp->skeleton->maps.tags), cgroup_id, next));
}

void datapath_changed(struct datapath *dp)
{
	word_next(dp, slot_in_force(dp));
}

int datapath_name_set(struct datapath *dp, uint32_t identity, const struct bh_name *name)
{
	return negative(bpf_map_update_elem(bpf_map__fd(dp->skeleton->maps.names), &identity, name, BPF_ANY));
}

int datapath_name_get(const struct datapath *dp, uint32_t identity, struct bh_name *name)
{
	return negative(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.names), &identity, name));
}

int datapath_name_next(const struct datapath *dp, const uint32_t *identity, uint32_t *next)
{
	return negative(bpf_map_get_next_key(bpf_map__fd(dp->skeleton->maps.names), identity, next));
}

/* ---- addresses ---- */

int datapath_address_set(struct datapath *dp, const struct bh_addr *address, uint64_t netns_cookie)
{
	int fd = bpf_map__fd(dp->skeleton->maps.addresses);

	return negative(bpf_map_update_elem(fd, address, &netns_cookie, BPF_ANY));
}

int datapath_address_delete(struct datapath *dp, const struct bh_addr *address)
{
	return negative(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.addresses), address));
}

int datapath_address_next(const struct datapath *dp, const struct bh_addr *address, struct bh_addr *next,
			  uint64_t *netns_cookie)
{
	int fd = bpf_map__fd(dp->skeleton->maps.addresses);

	if (bpf_map_get_next_key(fd, address, next) < 0)
		return -errno;
	return negative(bpf_map_lookup_elem(fd, next, netns_cookie));
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

int datapath_endpoint_set(struct datapath *dp, const struct bh_endpoint_key *key, const struct bh_endpoint *endpoint)
{
	return negative(bpf_map_update_elem(bpf_map__fd(dp->skeleton->maps.endpoints), key, endpoint, BPF_EXIST));
}

int datapath_endpoint_delete(struct datapath *dp, const struct bh_endpoint_key *key)
{
	return negative(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.endpoints), key));
}

/* ---- TCP sockets ---- */

/* A copy. Whose it is is read last, because the place may be let go and taken by another socket meanwhile. */
void datapath_tcp_slot(const struct datapath *dp, uint32_t index, struct bh_tcp *tcp)
{
	const struct bh_tcp *slot = &dp->tcp[index % BH_TCP_SLOTS];

	*tcp = *slot;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (__atomic_load_n(&slot->cookie, __ATOMIC_RELAXED) != tcp->cookie)
		tcp->cookie = 0;
}

int datapath_tcp_get(const struct datapath *dp, uint64_t cookie, struct bh_tcp *tcp)
{
	if (!cookie)
		return -ENOENT;
	datapath_tcp_slot(dp, (uint32_t)cookie, tcp);
	if (tcp->cookie == cookie)
		return 0;
	return negative(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.tcp_more), &cookie, tcp));
}

int datapath_tcp_more_next(const struct datapath *dp, const uint64_t *cookie, uint64_t *next)
{
	return negative(bpf_map_get_next_key(bpf_map__fd(dp->skeleton->maps.tcp_more), cookie, next));
}

void datapath_tcp_delete(struct datapath *dp, uint64_t cookie)
{
	struct bh_tcp *slot = &dp->tcp[cookie % BH_TCP_SLOTS];

	bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.tcp_more), &cookie);
	if (__atomic_load_n(&slot->cookie, __ATOMIC_ACQUIRE) != cookie)
		return;
	/* As bh_tcp_clear(): nothing of it is for the next owner. No program writes here, the socket is gone. */
	slot->pass = 0;
	memset((char *)slot + sizeof(slot->cookie), 0, offsetof(struct bh_tcp, netns) - sizeof(slot->cookie));
	slot->peer = BH_ID_WORLD;
	slot->use = 0;
	__atomic_store_n(&slot->cookie, 0, __ATOMIC_RELEASE);
}

// SPDX-License-Identifier: Apache-2.0
#include "datapath.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
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
#include "carry.h"
#include "carry_entries.h"
#include "device_filter.h"
#include "keyring.h"
#include "log.h"
#include "pins.h"
#include "until.h"

#define MAX_PROGRAMS 16
#define PIN_LOST "the pin %s was removed or replaced: what it stands for would have ended with the daemon"

struct datapath {
	struct bulkhead *skeleton;
	struct datapath_config config;
	char pin_dir[1024];
	int pin_fd; /* of the directory: locked as long as we live */
	struct carry *carry;
	bool attached; /* once everything was in force */
	int links[MAX_PROGRAMS];
	struct bh_state *state;	      /* mapped */
	struct bh_counters *counters; /* mapped */
	uint16_t *who;		      /* mapped, both slots */
	const uint8_t *tables;	      /* mapped read-only, both slots; for user space's own judgements */
	bool settled;		      /* all programs that run have begun since the last swap */
	struct bh_tcp *tcp;	      /* mapped: BH_TCP_SLOTS */
	uint64_t *unlisted;	      /* mapped: BH_UNLISTED_BITS */
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

static bool link_read(int fd, struct bpf_link_info *info)
{
	uint32_t len = sizeof(*info);

	*info = (struct bpf_link_info){};
	return fd >= 0 && bpf_obj_get_info_by_fd(fd, info, &len) == 0;
}

static bool link_is_ours(const struct datapath *dp, int fd)
{
	struct bpf_link_info info;

	return link_read(fd, &info) && info.type == BPF_LINK_TYPE_CGROUP &&
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

static uint32_t program_id(const struct datapath *dp, const char *name)
{
	struct bpf_program *program = bpf_object__find_program_by_name(dp->skeleton->obj, name);
	struct bpf_prog_info info = {};
	uint32_t len = sizeof(info);

	return program && bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &len) == 0 ? info.id : 0;
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
	for (size_t i = 0; i < N_PROGRAMS; i++)
		if (dp->links[i] >= 0)
			close(dp->links[i]);
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
	for (size_t i = 0; i < MAX_PROGRAMS; i++)
		dp->links[i] = -1;
	dp->pin_fd = -1;
	dp->config = *config;
	snprintf(dp->pin_dir, sizeof(dp->pin_dir), "%s", config->pin_dir);
	dp->config.pin_dir = dp->pin_dir;
	libbpf_set_print(libbpf_line);

	r = pins_directory_make(dp->pin_dir);
	if (r < 0) {
		snprintf(why, why_size, "cannot make the pin directory %s: %s (is a bpffs mounted there?)", dp->pin_dir,
			 strerror(-r));
		return r;
	}
	r = pin_dir_lock(dp, why, why_size);
	if (r == 0)
		r = object_load(dp, why, why_size);
	if (r < 0)
		return r;
	/* Another build may have had other programs; without these two there is no enforcement to adopt. */
	*adoptedp = true;
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		dp->links[i] = link_open(dp, attach_order[i]);
		if (strcmp(attach_order[i], "bh_ingress") == 0 || strcmp(attach_order[i], "bh_egress") == 0)
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
	char path[1200];
	int fd, r;

	if (!program)
		return -ENOENT;
	if (dp->links[i] >= 0)
		return bpf_link_update(dp->links[i], bpf_program__fd(program), NULL) ? -errno : 0;
	fd = bpf_link_create(bpf_program__fd(program), dp->config.cgroup_fd, bpf_program__expected_attach_type(program),
			     &options);
	if (fd < 0)
		return -errno;
	link_path(dp, attach_order[i], path, sizeof(path));
	r = pin_replace(path, fd);
	if (r < 0 && !dp->attached) {
		close(fd);
		return r;
	}
	/* While the daemon lives, the program enforces also without a pin; the next look sees that it is missing. */
	dp->links[i] = fd;
	return 0;
}

#define NO_LINK (-1) /* there was none yet */
#define NOT_KNOWN (-2)

/* The programs that the links have now, to be put back if not all can be replaced. */
static void former_read(const struct datapath *dp, int former[MAX_PROGRAMS])
{
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		struct bpf_link_info info;

		former[i] = dp->links[i] < 0 ? NO_LINK : NOT_KNOWN;
		if (link_read(dp->links[i], &info)) {
			int fd = bpf_prog_get_fd_by_id(info.prog_id);

			former[i] = fd < 0 ? NOT_KNOWN : fd;
		}
	}
}

static void former_close(int former[MAX_PROGRAMS])
{
	for (size_t i = 0; i < N_PROGRAMS; i++)
		if (former[i] >= 0)
			close(former[i]);
}

/* What was in force stays: all of it, not a part. */
static void programs_put_back(struct datapath *dp, const int former[MAX_PROGRAMS], size_t n)
{
	char path[1200];

	for (size_t i = 0; i < n; i++) {
		if (former[i] >= 0) {
			if (bpf_link_update(dp->links[i], former[i], NULL))
				log_error("cannot put back the former program %s: %s", attach_order[i],
					  strerror(errno));
			continue;
		}
		link_path(dp, attach_order[i], path, sizeof(path));
		unlink(path);
		close(dp->links[i]);
		dp->links[i] = -1;
	}
}

static int programs_attach(struct datapath *dp, char *why, size_t why_size)
{
	int former[MAX_PROGRAMS], r = 0;

	former_read(dp, former);
	for (size_t i = 0; i < N_PROGRAMS && r == 0; i++) {
		r = program_attach(dp, i);
		if (r < 0) {
			snprintf(why, why_size, "cannot attach %s to the managed subtree: %s", attach_order[i],
				 strerror(-r));
			programs_put_back(dp, former, i);
		}
	}
	former_close(former);
	return r;
}

/* ---- programs on managed devices ---- */

#define NO_DEVICE 0x7fffffffU

static void device_path(const struct datapath *dp, uint32_t ifindex, enum device_hook hook, char *out, size_t size)
{
	snprintf(out, size, "%s/device_%u_%s", dp->pin_dir, ifindex, hook == DEVICE_FROM ? "from" : "to");
}

int datapath_device_link_open(const struct datapath *dp, uint32_t ifindex, enum device_hook hook)
{
	char path[1200];
	int fd;

	device_path(dp, ifindex, hook, path, sizeof(path));
	fd = bpf_obj_get(path);
	if (fd < 0)
		return -ENOENT;
	if (device_link_holds(fd, ifindex, hook, NULL))
		return fd;
	close(fd);
	return -ENOENT;
}

static const struct bpf_program *device_program(const struct datapath *dp, enum device_hook hook)
{
	return hook == DEVICE_FROM ? dp->skeleton->progs.bh_from_device : dp->skeleton->progs.bh_to_device;
}

/* Asks for a link on a device that cannot be: a kernel without tcx does not get so far as to look for it. */
static void device_kind_settle(struct datapath *dp)
{
	if (!dp->config.devices || dp->config.hook_kind != DEVICE_AUTO)
		return;
	dp->config.hook_kind = DEVICE_TCX;
	if (device_link_make(bpf_program__fd(device_program(dp, DEVICE_FROM)), NO_DEVICE, DEVICE_FROM) != -EOPNOTSUPP)
		return;
	log_info("the kernel has no tcx (Linux 6.6 does): devices are covered by filters of their clsact qdisc");
	dp->config.hook_kind = DEVICE_CLSACT;
}

/* Likewise with filters, for devices that have no link of ours. */
static void device_filters_replace(struct datapath *dp)
{
	uint32_t key, next, id;
	const uint32_t *at = NULL;

	for (; datapath_device_next(dp, at, &next) == 0; key = next, at = &key) {
		for (int hook = 0; hook < DEVICE_HOOKS; hook++) {
			int fd = datapath_device_link_open(dp, next, (enum device_hook)hook), r;

			if (fd >= 0) {
				close(fd);
				continue;
			}
			if (device_filter_program(next, (enum device_hook)hook, &id) < 0)
				continue;
			r = device_filter_set(bpf_program__fd(device_program(dp, (enum device_hook)hook)), next,
					      (enum device_hook)hook);
			if (r < 0)
				log_error("cannot replace the filter of device %u: %s", next, strerror(-r));
		}
	}
}

/* Those of another build go with the rest: what they note for each other and for sockets stands in the same maps. A device
 * that is gone has taken its link with it; what else fails is tried again when the devices are covered. */
static void device_programs_replace(struct datapath *dp)
{
	DIR *dir = opendir(dp->pin_dir);
	struct dirent *entry;

	/* Not loaded: nothing is to be managed, and what is will be let go. */
	while (dir && dp->config.devices && (entry = readdir(dir))) {
		enum device_hook hook;
		unsigned ifindex;
		char side[8];
		int fd;

		if (sscanf(entry->d_name, "device_%u_%7s", &ifindex, side) != 2)
			continue;
		if (strcmp(side, "from") != 0 && strcmp(side, "to") != 0)
			continue;
		hook = side[0] == 'f' ? DEVICE_FROM : DEVICE_TO;
		fd = datapath_device_link_open(dp, ifindex, hook);
		if (fd < 0)
			continue;
		if (bpf_link_update(fd, bpf_program__fd(device_program(dp, hook)), NULL))
			log_error("cannot replace the program of %s/%s: %s", dp->pin_dir, entry->d_name,
				  strerror(errno));
		close(fd);
	}
	if (dir)
		closedir(dir);
	if (dp->config.devices)
		device_filters_replace(dp);
}

/* ---- the programs on the managed subtree, and all together ---- */

/* Pins of links of programs that this build has not: they would go on with maps that nobody keeps. */
static void strange_links_remove(const struct datapath *dp)
{
	DIR *dir = opendir(dp->pin_dir);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		bool known = strncmp(entry->d_name, "link_", 5) != 0;

		for (size_t i = 0; i < N_PROGRAMS && !known; i++)
			known = strcmp(entry->d_name + 5, attach_order[i]) == 0;
		if (known)
			continue;
		if (unlinkat(dirfd(dir), entry->d_name, 0) == 0)
			log_info("removed %s/%s: this version has no such program", dp->pin_dir, entry->d_name);
	}
	if (dir)
		closedir(dir);
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

int datapath_attach(struct datapath *dp, char *why, size_t why_size)
{
	bool due = carry_is_due(dp->carry);
	char late[512];
	int r;

	r = carry_pin(dp->carry, why, why_size);
	if (r == 0)
		r = carry_live(dp->carry, CARRY_BEFORE, why, why_size);
	if (r == 0)
		r = programs_attach(dp, why, why_size);
	if (r < 0) {
		carry_abandon(dp->carry);
		return r;
	}
	device_kind_settle(dp);
	device_programs_replace(dp);
	if (due) {
		programs_wait();
		if (carry_live(dp->carry, CARRY_AFTER, late, sizeof(late)) < 0)
			log_error("%s: what changed while the programs were replaced is judged as new", late);
		/* Every flow is judged again, by the programs and tables of this build. */
		datapath_changed(dp);
		log_info("took over what another build had pinned in %s", dp->pin_dir);
	}
	carry_finish(dp->carry);
	strange_links_remove(dp);
	dp->attached = true;
	return 0;
}

bool datapath_holds(const struct datapath *dp, char *why, size_t why_size)
{
	char path[1200];

	for (size_t i = 0; i < N_PROGRAMS; i++) {
		struct bpf_link_info info;

		link_path(dp, attach_order[i], path, sizeof(path));
		if (!link_is_ours(dp, dp->links[i])) {
			snprintf(why, why_size, "the program %s was detached from the managed subtree",
				 attach_order[i]);
			return false;
		}
		if (!link_read(dp->links[i], &info) || info.prog_id != program_id(dp, attach_order[i])) {
			snprintf(why, why_size, "the program %s was replaced by another (id %u)", attach_order[i],
				 info.prog_id);
			return false;
		}
		if (!pin_names(path, dp->links[i])) {
			snprintf(why, why_size, PIN_LOST, path);
			return false;
		}
	}
	if (carry_pins_hold(dp->carry, path, sizeof(path)))
		return true;
	snprintf(why, why_size, PIN_LOST, path);
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
	char path[1200];
	int r = carry_pins_restore(dp->carry);

	for (size_t i = 0; i < N_PROGRAMS && r == 0; i++) {
		link_path(dp, attach_order[i], path, sizeof(path));
		if (!pin_names(path, dp->links[i]))
			r = pin_replace(path, dp->links[i]);
	}
	if (r < 0)
		snprintf(why, why_size, "cannot pin again what was pinned in %s: %s", dp->pin_dir, strerror(-r));
	return r;
}

int datapath_restore(struct datapath *dp, int cgroup_fd, uint64_t cgroup_id, char *why, size_t why_size)
{
	int r = 0, r2;

	dp->config.cgroup_fd = cgroup_fd;
	dp->config.cgroup_id = cgroup_id;
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		if (dp->links[i] < 0 || link_is_ours(dp, dp->links[i]))
			continue;
		close(dp->links[i]);
		dp->links[i] = -1;
	}
	/* Each that can be attached, whatever becomes of the others and of the pins: it enforces now. */
	r2 = pin_dir_restore(dp, why, why_size);
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		int r3 = program_attach(dp, i);

		if (r3 < 0 && r == 0)
			snprintf(why, why_size, "cannot attach %s to the managed subtree: %s", attach_order[i],
				 strerror(-r3));
		r = r ? r : r3;
	}
	if (r == 0 && r2 == 0)
		r2 = pins_restore(dp, why, why_size);
	return r < 0 ? r : r2;
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
	struct bpf_link_info info;

	if (index >= N_PROGRAMS)
		return NULL;
	*attachedp = link_is_ours(dp, dp->links[index]) && link_read(dp->links[index], &info) &&
		     info.prog_id == program_id(dp, attach_order[index]);
	return attach_order[index];
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

struct bh_counters *datapath_counters(struct datapath *dp)
{
	return dp->counters;
}

/* ---- the key of the handshake ---- */

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

/* NULL with errno. */
static uint8_t *tables_map(const struct datapath *dp, uint32_t slot)
{
	uint8_t *map = mmap(NULL, BH_TABLES_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			    bpf_map__fd(dp->skeleton->maps.tables), (off_t)slot * BH_TABLES_BYTES);

	return map == MAP_FAILED ? NULL : map;
}

void datapath_settle(struct datapath *dp)
{
	if (!dp->settled)
		programs_wait();
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
	dp->settled = false;
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

int datapath_vouchers_set(struct datapath *dp, uint64_t cgroup_id, const struct bh_vouchers *vouchers)
{
	return negative(bpf_map_update_elem(bpf_map__fd(dp->skeleton->maps.vouchers), &cgroup_id, vouchers, BPF_ANY));
}

int datapath_vouchers_get(const struct datapath *dp, uint64_t cgroup_id, struct bh_vouchers *vouchers)
{
	return negative(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.vouchers), &cgroup_id, vouchers));
}

int datapath_vouchers_delete(struct datapath *dp, uint64_t cgroup_id)
{
	int r = negative(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.vouchers), &cgroup_id));

	return r == -ENOENT ? 0 : r;
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

int datapath_address_get(const struct datapath *dp, const struct bh_addr *address, uint64_t *netns_cookie)
{
	return negative(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.addresses), address, netns_cookie));
}

int datapath_address_next(const struct datapath *dp, const struct bh_addr *address, struct bh_addr *next,
			  uint64_t *netns_cookie)
{
	int fd = bpf_map__fd(dp->skeleton->maps.addresses);

	if (bpf_map_get_next_key(fd, address, next) < 0)
		return -errno;
	return negative(bpf_map_lookup_elem(fd, next, netns_cookie));
}

void datapath_unlisted_set(struct datapath *dp, const uint64_t *bits, bool add)
{
	for (size_t i = 0; i < BH_UNLISTED_BITS / 64; i++) {
		uint64_t word = (bits ? bits[i] : 0) | (add ? dp->unlisted[i] : 0);

		if (dp->unlisted[i] != word)
			__atomic_store_n(&dp->unlisted[i], word, __ATOMIC_RELAXED);
	}
}

/* ---- managed devices ---- */

int datapath_device_set(struct datapath *dp, uint32_t ifindex, const struct bh_device *device)
{
	return negative(bpf_map_update_elem(bpf_map__fd(dp->skeleton->maps.devices), &ifindex, device, BPF_ANY));
}

int datapath_device_get(const struct datapath *dp, uint32_t ifindex, struct bh_device *device)
{
	return negative(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.devices), &ifindex, device));
}

int datapath_device_delete(struct datapath *dp, uint32_t ifindex)
{
	return negative(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.devices), &ifindex));
}

int datapath_device_next(const struct datapath *dp, const uint32_t *ifindex, uint32_t *next)
{
	return negative(bpf_map_get_next_key(bpf_map__fd(dp->skeleton->maps.devices), ifindex, next));
}

/* Returns 0, -EOPNOTSUPP where the kernel has no tcx, or another -errno. */
static int link_attach(struct datapath *dp, uint32_t ifindex, enum device_hook hook, int *link)
{
	const struct bpf_program *program = device_program(dp, hook);
	char path[1200];
	int fd, r;

	if (*link < 0)
		*link = datapath_device_link_open(dp, ifindex, hook);
	if (*link >= 0)
		return bpf_link_update(*link, bpf_program__fd(program), NULL) ? -errno : 0;
	fd = device_link_make(bpf_program__fd(program), ifindex, hook);
	if (fd < 0)
		return fd;
	device_path(dp, ifindex, hook, path, sizeof(path));
	r = pin_replace(path, fd);
	if (r < 0)
		close(fd);
	else
		*link = fd;
	return r;
}

int datapath_device_attach(struct datapath *dp, uint32_t ifindex, enum device_hook hook, int *link)
{
	if (dp->config.hook_kind != DEVICE_CLSACT)
		return link_attach(dp, ifindex, hook, link);
	return device_filter_set(bpf_program__fd(device_program(dp, hook)), ifindex, hook);
}

enum device_hook_kind datapath_device_kind(const struct datapath *dp)
{
	return dp->config.hook_kind;
}

bool datapath_device_is_ours(const struct datapath *dp, uint32_t ifindex)
{
	for (int hook = 0; hook < DEVICE_HOOKS; hook++) {
		int fd = datapath_device_link_open(dp, ifindex, (enum device_hook)hook);
		uint32_t id;

		if (fd >= 0)
			close(fd);
		else if (device_filter_program(ifindex, (enum device_hook)hook, &id) < 0)
			return false;
	}
	return true;
}

void datapath_device_settle(struct datapath *dp, uint32_t ifindex)
{
	if (dp->config.hook_kind == DEVICE_CLSACT)
		datapath_device_unpin(dp, ifindex);
	else
		datapath_device_filters_remove(ifindex);
}

int datapath_device_filters_set(struct datapath *dp, uint32_t ifindex)
{
	int r = 0;

	for (int hook = 0; r == 0 && hook < DEVICE_HOOKS; hook++)
		r = device_filter_set(bpf_program__fd(device_program(dp, (enum device_hook)hook)), ifindex,
				      (enum device_hook)hook);
	return r;
}

void datapath_device_filters_remove(uint32_t ifindex)
{
	for (int hook = 0; hook < DEVICE_HOOKS; hook++) {
		int r = device_filter_remove(ifindex, (enum device_hook)hook);

		if (r < 0)
			log_error("cannot take our filter off device %u: %s", ifindex, strerror(-r));
	}
}

bool datapath_device_holds(const struct datapath *dp, uint32_t ifindex, enum device_hook hook, int link)
{
	struct bpf_prog_info info = {};
	uint32_t len = sizeof(info), id;
	bool there =
		link < 0 ? device_filter_program(ifindex, hook, &id) == 0 : device_link_holds(link, ifindex, hook, &id);

	return there && bpf_obj_get_info_by_fd(bpf_program__fd(device_program(dp, hook)), &info, &len) == 0 &&
	       info.id == id;
}

int datapath_device_pin(struct datapath *dp, uint32_t ifindex, enum device_hook hook, int link)
{
	char path[1200];

	if (link < 0) /* a filter */
		return 0;
	device_path(dp, ifindex, hook, path, sizeof(path));
	return pin_names(path, link) ? 0 : pin_replace(path, link);
}

void datapath_device_unpin(struct datapath *dp, uint32_t ifindex)
{
	char path[1200];

	for (int hook = 0; hook < DEVICE_HOOKS; hook++) {
		device_path(dp, ifindex, (enum device_hook)hook, path, sizeof(path));
		unlink(path);
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
	return negative(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.endpoints), key, endpoint));
}

int datapath_endpoint_set(struct datapath *dp, const struct bh_endpoint_key *key, const struct bh_endpoint *endpoint)
{
	return negative(bpf_map_update_elem(bpf_map__fd(dp->skeleton->maps.endpoints), key, endpoint, BPF_EXIST));
}

int datapath_endpoint_delete(struct datapath *dp, const struct bh_endpoint_key *key)
{
	return negative(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.endpoints), key));
}

/* ---- UDP flows ---- */

int datapath_udp_flow_get(const struct datapath *dp, const struct bh_udp_key *key, struct bh_udp_flow *flow)
{
	return negative(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.udp_flows), key, flow));
}

int datapath_udp_flow_delete(struct datapath *dp, const struct bh_udp_key *key)
{
	return negative(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.udp_flows), key));
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
	/* As bh_tcp_let_go(): nothing of it is for the next owner. No program writes here, the socket is gone. */
	slot->pass = 0;
	memset((char *)slot + sizeof(slot->cookie), 0, offsetof(struct bh_tcp, netns) - sizeof(slot->cookie));
	slot->peer = BH_ID_WORLD;
	slot->use = 0;
	__atomic_store_n(&slot->cookie, 0, __ATOMIC_RELEASE);
}

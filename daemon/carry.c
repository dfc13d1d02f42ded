// SPDX-License-Identifier: Apache-2.0
#include "carry.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bpf/abi.h"
#include "carry_entries.h"
#include "carry_found.h"
#include "carry_tcp.h"
#include "log.h"
#include "pins.h"

#define PATH_BYTES 1200

enum how {
	MADE_ANEW,  /* what is lost costs a retransmission, or is made again by the daemon */
	SETTLED,    /* only daemons write it: copied once */
	LIVE,	    /* a hash that programs write: copied before and after they are replaced; what is there stays */
	SUMS,	    /* 64-bit sums that programs add to: what was added meanwhile is added */
	BY_SOCKET,  /* kept with sockets: by a program (bpf/carry.bpf.c), before and after */
	BY_COOKIE,  /* kept of TCP sockets, in two maps: before and after (carry_tcp.h) */
	EVENT_RING, /* what nobody has read when the old programs have ended is counted as lost */
};

/* How each map is carried. A map that is not named here is made anew. */
static const struct row {
	const char *name;
	unsigned layout;
	enum how how;
	bool whole; /* one that does not fit is a reason not to start */
} rows[] = {
	{"state", BH_LAYOUT_POLICY, SETTLED, true},
	{"tables", BH_LAYOUT_POLICY, MADE_ANEW, false},
	{"who", BH_LAYOUT_POLICY, MADE_ANEW, false},
	{"tags", BH_LAYOUT_TAGS, SETTLED, true},
	{"vouchers", BH_LAYOUT_VOUCHERS, SETTLED, true},
	{"names", BH_LAYOUT_NAMES, SETTLED, true},
	{"keys", BH_LAYOUT_KEYS, SETTLED, true},
	{"addresses", BH_LAYOUT_ADDRESSES, SETTLED, false},
	{"unlisted", BH_LAYOUT_UNLISTED, SETTLED, false},
	{"sockets", BH_LAYOUT_SOCKETS, BY_SOCKET, true},
	{"tcp_slots", BH_LAYOUT_TCP, BY_COOKIE, false},
	{"tcp_more", BH_LAYOUT_TCP, BY_COOKIE, false},
	{"handshakes", BH_LAYOUT_HANDSHAKES, MADE_ANEW, false},
	{"handshakes_over", BH_LAYOUT_HANDSHAKES, MADE_ANEW, false},
	{"endpoints", BH_LAYOUT_ENDPOINTS, LIVE, false},
	{"udp_flows", BH_LAYOUT_UDP_FLOWS, LIVE, false},
	{"devices", BH_LAYOUT_DEVICES, SETTLED, true},
	{"device_flows", BH_LAYOUT_DEVICE_FLOWS, LIVE, false},
	{"denials", BH_LAYOUT_DENIALS, LIVE, false},
	{"tickets", BH_LAYOUT_TICKETS, MADE_ANEW, false},
	{"udp_sockets", BH_LAYOUT_UDP_SOCKETS, BY_SOCKET, true},
	{"udp_recent", BH_LAYOUT_UDP_SOCKETS, MADE_ANEW, false},
	{"udp_tickets", BH_LAYOUT_UDP_TICKETS, MADE_ANEW, false},
	{"udp_slots", BH_LAYOUT_UDP_TICKETS, MADE_ANEW, false},
	{"udp_serial", BH_LAYOUT_UDP_TICKETS, MADE_ANEW, false},
	{"pairs", BH_LAYOUT_PAIRS, LIVE, false},
	{"counted", BH_LAYOUT_COUNTED, MADE_ANEW, false},
	{"counters", BH_LAYOUT_COUNTERS, SUMS, false},
	{"events", BH_LAYOUT_EVENTS, EVENT_RING, false},
};
static const struct row other_row = {NULL, 1, MADE_ANEW, false};

struct item {
	const struct row *row;
	struct bpf_map *map;
	char pin[PATH_BYTES];
	bool fresh;		  /* made anew by this build */
	bool pinned;		  /* by carry_pin() */
	int source;		  /* the map of another layout; -1: none */
	unsigned number;	  /* its layout */
	struct bpf_map_info from; /* its shape */
	uint64_t *taken;	  /* SUMS: what it held when it was carried */
};

struct carry {
	char pin_dir[PATH_BYTES];
	struct bpf_object *object;
	struct item *items;
	size_t n_items;
	struct carry_tcp *tcp; /* what of TCP sockets was copied before */
};

static const struct row *row_of(const char *name)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	return &other_row;
}

unsigned carry_layout(const char *map)
{
	const struct row *row = row_of(map);

	return row->name ? row->layout : 0;
}

void carry_freep(struct carry **carryp)
{
	struct carry *carry = *carryp;

	if (!carry)
		return;
	for (size_t i = 0; i < carry->n_items; i++) {
		if (carry->items[i].source >= 0)
			close(carry->items[i].source);
		free(carry->items[i].taken);
	}
	carry_tcp_freep(&carry->tcp);
	free(carry->items);
	free(carry);
	*carryp = NULL;
}

/* ---- what is there ---- */

static uint32_t map_id(int fd)
{
	struct bpf_map_info info = {};
	uint32_t len = sizeof(info);

	return fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 ? info.id : 0;
}

/* The best of the other layouts: one in use, else the newest. Returns whether it is in use. */
static bool source_find(const struct carry *carry, const struct carry_found *found, struct item *item)
{
	const char *name = bpf_map__name(item->map);
	bool best_used = false;

	for (size_t i = 0; i < found->n_names; i++) {
		int number = carry_number_of(found->names[i], name), fd;
		char path[PATH_BYTES + 300];
		bool used;

		if (number < 0 || (unsigned)number == item->row->layout)
			continue;
		snprintf(path, sizeof(path), "%s/%s", carry->pin_dir, found->names[i]);
		fd = bpf_obj_get(path);
		used = carry_found_uses(found, map_id(fd));
		if (fd < 0 || (item->source >= 0 &&
			       (best_used > used || (best_used == used && item->number > (unsigned)number)))) {
			if (fd >= 0)
				close(fd);
			continue;
		}
		if (item->source >= 0)
			close(item->source);
		item->source = fd;
		item->number = (unsigned)number;
		best_used = used;
	}
	return best_used;
}

/* ---- the plan ---- */

static __attribute__((format(printf, 3, 4))) int refuse(char *why, size_t why_size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, why_size, format, args);
	va_end(args);
	return -EPROTONOSUPPORT;
}

/* Can what is there be read by the rules of abi.h? */
static int source_check(const struct carry *carry, const struct item *item, char *why, size_t why_size)
{
	const char *name = bpf_map__name(item->map);

	if (item->row->how == MADE_ANEW || item->row->how == EVENT_RING)
		return 0;
	if (item->from.type == bpf_map__type(item->map) && item->from.key_size == bpf_map__key_size(item->map))
		return 0;
	return refuse(
		why, why_size,
		"the map %s pinned in %s in layout %u cannot be read by this build (layout %u: type %u with keys of "
		"%u bytes, there type %u with keys of %u): what it enforces goes on. Start the version that made it, "
		"or remove the pins with `rm -r` of that directory, which ends enforcement",
		name, carry->pin_dir, item->number, item->row->layout, bpf_map__type(item->map),
		bpf_map__key_size(item->map), item->from.type, item->from.key_size);
}

/* A pin of our number that has another shape was made by a build that broke the rule. */
static int own_check(const struct carry *carry, const struct item *item, int fd, char *why, size_t why_size)
{
	struct bpf_map_info info = {};
	uint32_t len = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -errno;
	if (info.type == bpf_map__type(item->map) && info.key_size == bpf_map__key_size(item->map) &&
	    info.value_size == bpf_map__value_size(item->map) && info.max_entries == bpf_map__max_entries(item->map))
		return 0;
	return refuse(
		why, why_size,
		"the map pinned as %s is not what this build knows by that number (%u entries of %u + %u bytes, there "
		"%u of %u + %u): what it enforces goes on. Start the version that made it, or remove the pins with "
		"`rm -r %s`, which ends enforcement",
		item->pin, bpf_map__max_entries(item->map), bpf_map__key_size(item->map),
		bpf_map__value_size(item->map), info.max_entries, info.key_size, info.value_size, carry->pin_dir);
}

/* Whoever made the map of states must keep to the same rules. */
static int family_check(const struct carry *carry, int fd, char *why, size_t why_size)
{
	struct bpf_map_info info = {};
	uint32_t len = sizeof(info), zero = 0, abi = 0;
	void *value;

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -errno;
	value = info.value_size >= offsetof(struct bh_state, seed) ? calloc(1, info.value_size) : NULL;
	if (value && bpf_map_lookup_elem(fd, &zero, value) == 0)
		memcpy(&abi, (const char *)value + offsetof(struct bh_state, abi), sizeof(abi));
	free(value);
	if (abi == 0 || abi == BH_ABI_VERSION)
		return 0;
	return refuse(
		why, why_size,
		"the maps pinned in %s are of another version of Bulkhead (%u, this one reads %u); what they enforce "
		"goes on. Start the version that made them, or remove them with `rm -r` of that directory, which ends "
		"enforcement",
		carry->pin_dir, abi, BH_ABI_VERSION);
}

static int item_plan(struct carry *carry, const struct carry_found *found, struct item *item, char *why,
		     size_t why_size)
{
	bool is_state = strcmp(bpf_map__name(item->map), "state") == 0;
	uint32_t len = sizeof(item->from);
	int own = bpf_obj_get(item->pin), r = 0;
	bool source_used = source_find(carry, found, item);

	item->fresh = own < 0 || ((source_used || (found->n_in_use && item->row->how == MADE_ANEW)) &&
				  !carry_found_uses(found, map_id(own)));
	/* One that is neither the best nor in use is a leftover. So is a map of our own that the programs in force do not use, where
	 * nothing is carried: a build that did not know it has been here since. */
	if (!item->fresh && !source_used && item->source >= 0) {
		close(item->source);
		item->source = -1;
	}
	if (is_state && !item->fresh)
		r = family_check(carry, own, why, why_size);
	if (r == 0 && is_state && item->source >= 0)
		r = family_check(carry, item->source, why, why_size);
	if (r == 0 && !item->fresh)
		r = own_check(carry, item, own, why, why_size);
	if (r == 0 && item->source >= 0)
		r = bpf_obj_get_info_by_fd(item->source, &item->from, &len) ? -errno
									    : source_check(carry, item, why, why_size);
	if (own >= 0)
		close(own);
	if (r == 0)
		r = bpf_map__set_pin_path(item->map, item->fresh ? NULL : item->pin);
	return r;
}

/* The program that carries what is kept with sockets is loaded where it has something to do: it needs the kernel's BTF. */
static int programs_plan(const struct carry *carry)
{
	char name[64];
	int r = 0;

	for (size_t i = 0; i < carry->n_items && r == 0; i++) {
		const struct item *item = &carry->items[i];
		struct bpf_program *program;

		if (item->row->how != BY_SOCKET || item->source < 0)
			continue;
		snprintf(name, sizeof(name), "carry_%s", bpf_map__name(item->map));
		program = bpf_object__find_program_by_name(carry->object, name);
		r = program ? bpf_program__set_autoload(program, true) : -ENOENT;
	}
	return r;
}

static int items_make(struct carry *carry)
{
	struct bpf_map *map;
	size_t n = 0;

	bpf_object__for_each_map(map, carry->object) n++;
	carry->items = calloc(n, sizeof(*carry->items));
	if (!carry->items)
		return -ENOMEM;
	bpf_object__for_each_map(map, carry->object)
	{
		struct item *item = &carry->items[carry->n_items];
		const char *name = bpf_map__name(map);

		if (!bpf_map__pin_path(map))
			continue; /* not to be pinned */
		*item = (struct item){.row = row_of(name), .map = map, .source = -1};
		if (snprintf(item->pin, sizeof(item->pin), "%s/%s_%u", carry->pin_dir, name, item->row->layout) >=
		    (int)sizeof(item->pin))
			return -ENAMETOOLONG;
		carry->n_items++;
	}
	return 0;
}

int carry_plan(struct carry **carryp, struct bpf_object *object, const char *pin_dir, char *why, size_t why_size)
{
	__attribute__((cleanup(carry_freep))) struct carry *carry = calloc(1, sizeof(*carry));
	__attribute__((cleanup(carry_found_clear))) struct carry_found found = {};
	int r;

	if (!carry)
		return -ENOMEM;
	why[0] = '\0';
	carry->object = object;
	snprintf(carry->pin_dir, sizeof(carry->pin_dir), "%s", pin_dir);
	r = carry_found_read(&found, pin_dir);
	if (r == 0)
		r = items_make(carry);
	for (size_t i = 0; i < carry->n_items && r == 0; i++)
		r = item_plan(carry, &found, &carry->items[i], why, why_size);
	if (r == 0)
		r = programs_plan(carry);
	if (r < 0 && !why[0])
		snprintf(why, why_size, "cannot look at what is pinned in %s: %s", pin_dir, strerror(-r));
	if (r < 0)
		return r;
	*carryp = carry;
	carry = NULL;
	return 0;
}

bool carry_is_due(const struct carry *carry)
{
	for (size_t i = 0; i < carry->n_items; i++)
		if (carry->items[i].source >= 0)
			return true;
	return false;
}

/* ---- carrying ---- */

/* What a layout without seals left is sealed here, where nobody changes it any more. A seal that does not fit stays: it was
 * nobody's there, and is nobody's here. */
static void tag_complete(const void *key, void *value)
{
	struct bh_tag *tag = value;
	uint64_t carrier;

	memcpy(&carrier, key, sizeof(carrier));
	if (!tag->seal)
		tag->seal = bh_tag_seal(tag, carrier);
}

static void device_complete(const void *key, void *value)
{
	struct bh_device *device = value;
	uint32_t ifindex;

	memcpy(&ifindex, key, sizeof(ifindex));
	if (!device->seal)
		device->seal = bh_device_seal(device, ifindex);
}

static carry_complete_fn complete_of(const struct row *row)
{
	return strcmp(row->name, "tags") == 0	   ? tag_complete
	       : strcmp(row->name, "devices") == 0 ? device_complete
						   : NULL;
}

/* One that is full leaves the rest behind: denied, or made again. Where that is no way, the build must not start. */
static int entries_carry(const struct item *item, char *why, size_t why_size)
{
	const char *name = bpf_map__name(item->map);
	size_t left = 0;
	int r = carry_entries(item->source, &item->from, bpf_map__fd(item->map), bpf_map__value_size(item->map),
			      bpf_map__max_entries(item->map), complete_of(item->row), &left);

	if (r < 0) {
		snprintf(why, why_size, "cannot carry over the map %s from layout %u: %s", name, item->number,
			 strerror(-r));
		return r;
	}
	if (left && item->row->whole) {
		snprintf(why, why_size,
			 "the map %s of this build has %u entries, and the one in force has %zu more: what is in force "
			 "stays. "
			 "Start the version that made it",
			 name, bpf_map__max_entries(item->map), left);
		return -E2BIG;
	}
	if (left)
		log_warning(
			"the map %s (%u entries) is full: %zu entries of layout %u were left behind, and are denied "
			"until they are made again",
			name, bpf_map__max_entries(item->map), left, item->number);
	return 0;
}

static int by_socket_carry(const struct carry *carry, const struct item *item, char *why, size_t why_size)
{
	struct bpf_program *program;
	char name[64];
	int r;

	snprintf(name, sizeof(name), "carry_%s", bpf_map__name(item->map));
	program = bpf_object__find_program_by_name(carry->object, name);
	r = program ? carry_sockets(program, item->source) : -ENOENT;
	if (r < 0)
		snprintf(why, why_size, "cannot carry over what the map %s of layout %u keeps with sockets: %s",
			 bpf_map__name(item->map), item->number, strerror(-r));
	return r;
}

static const struct item *item_of(const struct carry *carry, const char *name)
{
	for (size_t i = 0; i < carry->n_items; i++)
		if (strcmp(bpf_map__name(carry->items[i].map), name) == 0)
			return &carry->items[i];
	return NULL;
}

/* The two have one number, and so one build made both. */
static int tcp_carry(struct carry *carry, enum carry_pass pass, char *why, size_t why_size)
{
	const struct item *slots = item_of(carry, "tcp_slots"), *more = item_of(carry, "tcp_more");
	const struct bpf_program *program = bpf_object__find_program_by_name(carry->object, "bh_keep_tcp");
	struct carry_tcp_maps from, to;
	size_t left = 0;
	int r;

	if (!slots || !more || slots->source < 0 || more->source < 0)
		return 0;
	from = (struct carry_tcp_maps){slots->source, more->source, slots->from.value_size, more->from.value_size,
				       slots->number};
	to = (struct carry_tcp_maps){bpf_map__fd(slots->map), bpf_map__fd(more->map), bpf_map__value_size(slots->map),
				     bpf_map__value_size(more->map), slots->row->layout};
	r = program ? carry_tcp(&carry->tcp, &from, &to, bpf_program__fd(program), pass, &left) : -ENOENT;
	if (r < 0)
		snprintf(why, why_size, "cannot carry over what is kept of TCP sockets in layout %u: %s", slots->number,
			 strerror(-r));
	if (left)
		log_warning(
			"the map tcp_more (%u entries) is full: %zu TCP sockets of layout %u were left behind, and are "
			"denied until they are opened again",
			bpf_map__max_entries(more->map), left, slots->number);
	return r;
}

static int sums_carry(struct item *item, char *why, size_t why_size)
{
	int r = carry_sums(item->source, &item->from, bpf_map__fd(item->map), bpf_map__value_size(item->map),
			   item->fresh, &item->taken);

	if (r < 0)
		snprintf(why, why_size, "cannot carry over the map %s of layout %u: %s", bpf_map__name(item->map),
			 item->number, strerror(-r));
	return r;
}

int carry_settled(struct carry *carry, char *why, size_t why_size)
{
	int r = 0;

	for (size_t i = 0; i < carry->n_items && r == 0; i++) {
		struct item *item = &carry->items[i];

		if (item->source < 0)
			continue;
		if (item->row->how == SETTLED && item->fresh)
			r = entries_carry(item, why, why_size);
		else if (item->row->how == SUMS)
			r = sums_carry(item, why, why_size);
	}
	return r;
}

/* What stands unread in the ring of the old programs, nobody will read: it was made, and is lost. */
static int ring_account(const struct carry *carry, const struct item *ring)
{
	int64_t unread = carry_ring_unread(ring->source);
	const struct item *item = item_of(carry, "counters");
	struct bh_counters *counters;

	if (unread <= 0 || !item)
		return (int)unread;
	counters = mmap(NULL, sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(item->map), 0);
	if (counters == MAP_FAILED)
		return -errno;
	__atomic_fetch_add(&counters->events_lost, (uint64_t)unread, __ATOMIC_RELAXED);
	munmap(counters, sizeof(*counters));
	log_warning("%lld events stood unread in the ring of layout %u: they are counted as lost", (long long)unread,
		    ring->number);
	return 0;
}

int carry_live(struct carry *carry, enum carry_pass pass, char *why, size_t why_size)
{
	int r = tcp_carry(carry, pass, why, why_size);

	for (size_t i = 0; i < carry->n_items && r == 0; i++) {
		struct item *item = &carry->items[i];

		if (item->source < 0)
			continue;
		if (item->row->how == LIVE)
			r = entries_carry(item, why, why_size);
		else if (item->row->how == BY_SOCKET)
			r = by_socket_carry(carry, item, why, why_size);
		else if (item->row->how == SUMS && pass == CARRY_AFTER)
			r = sums_carry(item, why, why_size);
		else if (item->row->how == EVENT_RING && pass == CARRY_AFTER && ring_account(carry, item) < 0)
			log_warning("cannot read the ring of layout %u: what stands in it is not counted",
				    item->number);
	}
	return r;
}

/* ---- pins ---- */

int carry_pin(struct carry *carry, char *why, size_t why_size)
{
	for (size_t i = 0; i < carry->n_items; i++) {
		struct item *item = &carry->items[i];
		int r;

		if (!item->fresh)
			continue;
		r = pin_replace(item->pin, bpf_map__fd(item->map));
		if (r < 0) {
			snprintf(why, why_size, "cannot pin the map %s as %s: %s", bpf_map__name(item->map), item->pin,
				 strerror(-r));
			return r;
		}
		item->pinned = true;
	}
	return 0;
}

void carry_abandon(struct carry *carry)
{
	for (size_t i = 0; i < carry->n_items; i++) {
		if (carry->items[i].pinned && unlink(carry->items[i].pin) < 0)
			log_warning("cannot remove the pin %s: %s", carry->items[i].pin, strerror(errno));
		carry->items[i].pinned = false;
	}
}

void carry_finish(struct carry *carry)
{
	struct carry_found found = {};
	char path[PATH_BYTES + 300];

	for (size_t i = 0; i < carry->n_items; i++) {
		if (carry->items[i].source >= 0)
			close(carry->items[i].source);
		carry->items[i].source = -1;
	}
	if (carry_found_read(&found, carry->pin_dir) == 0) {
		for (size_t i = 0; i < found.n_names; i++) {
			for (size_t k = 0; k < carry->n_items; k++) {
				int number = carry_number_of(found.names[i], bpf_map__name(carry->items[k].map));

				if (number < 0 || (unsigned)number == carry->items[k].row->layout)
					continue;
				snprintf(path, sizeof(path), "%s/%s", carry->pin_dir, found.names[i]);
				if (unlink(path) < 0)
					log_warning("cannot remove the pin %s of another layout: %s", path,
						    strerror(errno));
			}
		}
	}
	carry_found_clear(&found);
}

bool carry_pins_hold(const struct carry *carry, char *path, size_t size)
{
	for (size_t i = 0; i < carry->n_items; i++) {
		if (pin_names(carry->items[i].pin, bpf_map__fd(carry->items[i].map)))
			continue;
		snprintf(path, size, "%s", carry->items[i].pin);
		return false;
	}
	return true;
}

int carry_pins_restore(struct carry *carry)
{
	int r = 0;

	for (size_t i = 0; i < carry->n_items && r == 0; i++)
		if (!pin_names(carry->items[i].pin, bpf_map__fd(carry->items[i].map)))
			r = pin_replace(carry->items[i].pin, bpf_map__fd(carry->items[i].map));
	return r;
}

// SPDX-License-Identifier: Apache-2.0
#include "devices.h"

#include <errno.h>
#include <fnmatch.h>
#include <libmnl/libmnl.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "netlink.h"

#define RECEIVE_BYTES (4 << 20)
#define MESSAGES_PER_TURN 64
#define STAYED_LOOKS 3 /* of the guard, more than half a second */
#define LIST_TRIES 16  /* the kernel begins anew where devices came or went while it told of them */
#define DESCRIPTORS_WANTED 65536
#define CHECKED_PER_TURN 1024
#define FILTERS_CHECKED_PER_TURN                                                                                       \
	128 /* to look at one, the kernel takes a lock that all of its network configuration takes */
#define ETHERNET_HEADER 14

struct devices {
	struct datapath *datapath;
	const struct devices_ops *ops;
	void *ctx;
	char patterns[1024];
	struct mnl_socket *nl; /* messages of devices that come and go */
	sd_event_source *io;
	sd_event_source *turn;	/* on while a device waits to be covered */
	sd_event_source *spare; /* on while one that has stayed waits for links */
	struct device *items;
	size_t n, room;
	size_t check_next; /* whose links are looked at next */
	bool lost;	   /* messages */
};

bool devices_match(const char *patterns, const char *name)
{
	char pattern[IFNAMSIZ + 1];

	for (const char *p = patterns; *p;) {
		size_t len = strcspn(p, ",");

		if (len && len < sizeof(pattern)) {
			memcpy(pattern, p, len);
			pattern[len] = '\0';
			if (fnmatch(pattern, name, 0) == 0)
				return true;
		}
		p += len + (p[len] == ',');
	}
	return false;
}

/* ---- the list ---- */

static struct device *find_index(const struct devices *devices, uint32_t ifindex)
{
	for (size_t i = 0; i < devices->n; i++)
		if (devices->items[i].ifindex == ifindex)
			return &devices->items[i];
	return NULL;
}

size_t devices_count(const struct devices *devices)
{
	return devices->n;
}

const struct device *devices_at(const struct devices *devices, size_t index)
{
	return &devices->items[index];
}

struct device *devices_edit(struct devices *devices, size_t index)
{
	return &devices->items[index];
}

const struct device *devices_find(const struct devices *devices, const char *name)
{
	for (size_t i = 0; i < devices->n; i++)
		if (strcmp(devices->items[i].name, name) == 0)
			return &devices->items[i];
	return NULL;
}

const struct device *devices_by_index(const struct devices *devices, uint32_t ifindex)
{
	return find_index(devices, ifindex);
}

const struct device *devices_with_address(const struct devices *devices, const struct bh_addr *address)
{
	for (size_t i = 0; i < devices->n; i++)
		for (uint32_t j = 0; j < devices->items[i].kernel.n_addresses; j++)
			if (memcmp(&devices->items[i].kernel.addresses[j], address, sizeof(*address)) == 0)
				return &devices->items[i];
	return NULL;
}

static struct device *add(struct devices *devices, uint32_t ifindex)
{
	if (devices->n == devices->room) {
		size_t room = devices->room ? 2 * devices->room : 64;
		struct device *items = reallocarray(devices->items, room, sizeof(*items));

		if (!items)
			return NULL;
		devices->items = items;
		devices->room = room;
	}
	devices->items[devices->n] = (struct device){.ifindex = ifindex, .links = {-1, -1}};
	return &devices->items[devices->n++];
}

static void links_close(struct device *device)
{
	for (int hook = 0; hook < DEVICE_HOOKS; hook++) {
		if (device->links[hook] >= 0)
			close(device->links[hook]);
		device->links[hook] = -1;
	}
}

/* The device is gone, or no longer ours. */
static void forget(struct devices *devices, struct device *device)
{
	struct device last = *device;

	links_close(&last);
	datapath_device_unpin(devices->datapath, last.ifindex);
	datapath_device_delete(devices->datapath, last.ifindex);
	*device = devices->items[--devices->n];
	devices->ops->gone(devices->ctx, last.ifindex, last.name);
}

/* ---- covering ---- */

const char *devices_error(int error)
{
	switch (error) {
	case -EOPNOTSUPP:
		return "the kernel has no tcx (Linux 6.6 does), and `device_hook` of the configuration asks for it";
	case -EBUSY:
		return "our filter cannot be the first: a filter of another kind or protocol has preference 1, or the "
		       "device has an `ingress` qdisc; give that filter another preference, or make the qdisc a clsact";
	case -ENOENT:
		return "the kernel has no clsact qdisc, or no bpf filter (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)";
	case -EPFNOSUPPORT:
		return "devices of this kind are not understood; it carries nothing";
	default:
		return strerror(-error);
	}
}

/* Who knows how the frames of another kind look? A device of one stands in no map, so it carries nothing. */
static int kernel_entry_make(struct devices *devices, struct device *device)
{
	switch (device->type) {
	case ARPHRD_ETHER:
		device->kernel.link_header = ETHERNET_HEADER;
		break;
	case ARPHRD_NONE:
	case ARPHRD_RAWIP:
		device->kernel.link_header = 0;
		break;
	default:
		return -EPFNOSUPPORT;
	}
	device->kernel.master = device->master;
	return datapath_device_set(devices->datapath, device->ifindex, &device->kernel);
}

/* It has become the port of another bridge, or of none. */
static void master_tell(struct devices *devices, struct device *device)
{
	int r = device->covered ? kernel_entry_make(devices, device) : 0;

	if (r < 0)
		log_error("cannot tell the kernel programs which bridge the device %s is a port of: %s", device->name,
			  strerror(-r));
}

/* What an earlier daemon left, if its programs are still on this device: then it is the same one. */
static bool adopt(struct devices *devices, struct device *device)
{
	struct bh_device kernel;

	if (!datapath_device_is_ours(devices->datapath, device->ifindex) ||
	    datapath_device_get(devices->datapath, device->ifindex, &kernel) < 0)
		return false;
	device->kernel = kernel;
	return true;
}

static int links_attach(struct devices *devices, struct device *device)
{
	int r = 0;

	for (int hook = 0; r == 0 && hook < DEVICE_HOOKS; hook++)
		r = datapath_device_attach(devices->datapath, device->ifindex, (enum device_hook)hook,
					   &device->links[hook]);
	if (r == 0 && device->by_filter)
		datapath_device_filters_remove(device->ifindex);
	if (r == 0)
		device->by_filter = false;
	return r;
}

/* Puts both programs on the device; what is there already is replaced in place. `at_once`: by filters, if that can be. */
static int cover(struct devices *devices, struct device *device, bool at_once)
{
	int r = -EOPNOTSUPP;

	if (at_once && datapath_device_kind(devices->datapath) == DEVICE_TCX)
		r = datapath_device_filters_set(devices->datapath, device->ifindex);
	device->by_filter |= r == 0;
	device->stayed = 0;
	if (r < 0)
		r = links_attach(devices, device);
	if (r == 0)
		r = kernel_entry_make(devices, device);
	device->covered = r == 0;
	device->again = r == 0;
	device->error = r;
	if (r == 0)
		devices->ops->named(devices->ctx, device);
	return r;
}

static int cover_new(struct devices *devices, struct device *device, bool at_once)
{
	/* Nothing of what had this number before. */
	device->kernel = (struct bh_device){};
	datapath_device_unpin(devices->datapath, device->ifindex);
	devices->ops->gone(devices->ctx, device->ifindex, "");
	return cover(devices, device, at_once);
}

static struct device *next_stayed(struct devices *devices)
{
	for (size_t i = 0; i < devices->n; i++)
		if (devices->items[i].covered && devices->items[i].by_filter &&
		    devices->items[i].stayed >= STAYED_LOOKS)
			return &devices->items[i];
	return NULL;
}

static struct device *next_waiting(struct devices *devices)
{
	for (size_t i = 0; i < devices->n; i++)
		if (!devices->items[i].covered && !devices->items[i].error)
			return &devices->items[i];
	return NULL;
}

static void cover_or_say(struct devices *devices, struct device *device)
{
	char name[IFNAMSIZ];
	int r;

	snprintf(name, sizeof(name), "%s", device->name);
	r = device->again ? cover(devices, device, false) : cover_new(devices, device, true);
	if (r == -ENODEV) /* gone already; the message of it is under way */
		return;
	/* Once: it is tried again every second. */
	if (r < 0 && !device->told)
		log_error("cannot cover the device %s: %s; it is tried again every second", name, devices_error(r));
	device->told = r < 0;
}

static int on_turn(sd_event_source *source, void *data)
{
	struct devices *devices = data;
	struct device *device = next_waiting(devices);

	if (device)
		cover_or_say(devices, device);
	return next_waiting(devices) ? 0 : sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

/* When there is nothing else to do: the kernel takes tens of milliseconds for each, and the filters judge no less. */
static int on_spare(sd_event_source *source, void *data)
{
	struct devices *devices = data;
	struct device *device = next_stayed(devices);

	/* Where that fails it stays as it is, and is looked at again. */
	if (device && links_attach(devices, device) < 0)
		device->stayed = 0;
	return next_stayed(devices) ? 0 : sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

/* ---- what the kernel tells ---- */

struct link_attributes {
	const char *name;
	uint32_t master;
};

static int link_attribute(const struct nlattr *attr, void *data)
{
	struct link_attributes *link = data;

	if (mnl_attr_get_type(attr) == IFLA_IFNAME && mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
		link->name = mnl_attr_get_str(attr);
	if (mnl_attr_get_type(attr) == IFLA_MASTER && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
		link->master = mnl_attr_get_u32(attr);
	return MNL_CB_OK;
}

static void appeared(struct devices *devices, const struct ifinfomsg *ifi, const struct link_attributes *link)
{
	const char *name = link->name;
	struct device *device = find_index(devices, (uint32_t)ifi->ifi_index);

	if (ifi->ifi_flags & IFF_LOOPBACK)
		return;
	if (device) {
		device->seen = true;
		if (device->master != link->master) {
			device->master = link->master;
			master_tell(devices, device);
		}
		/* One that is renamed stays: else its workload would be free when its name no longer fits. */
		if (strcmp(device->name, name) != 0) {
			snprintf(device->name, sizeof(device->name), "%s", name);
			devices->ops->named(devices->ctx, device);
		}
		return;
	}
	if (!devices_match(devices->patterns, name))
		return;
	device = add(devices, (uint32_t)ifi->ifi_index);
	if (!device) {
		log_error("no memory for the device %s: it is not covered", name);
		return;
	}
	snprintf(device->name, sizeof(device->name), "%s", name);
	device->type = ifi->ifi_type;
	device->master = link->master;
	device->seen = true;
	if (devices->turn)
		sd_event_source_set_enabled(devices->turn, SD_EVENT_ON);
}

static int link_message(const struct nlmsghdr *nlh, void *data)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
	struct devices *devices = data;
	struct device *device;
	struct link_attributes link = {};

	/* Of other families it tells of a bridge's ports. */
	if (nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*ifi)) || ifi->ifi_family != AF_UNSPEC)
		return MNL_CB_OK;
	if (nlh->nlmsg_type == RTM_DELLINK) {
		device = find_index(devices, (uint32_t)ifi->ifi_index);
		if (device)
			forget(devices, device);
		return MNL_CB_OK;
	}
	mnl_attr_parse(nlh, sizeof(*ifi), link_attribute, &link);
	if (nlh->nlmsg_type == RTM_NEWLINK && link.name)
		appeared(devices, ifi, &link);
	return MNL_CB_OK;
}

/* A pin that somebody removed is made again; a link that is off is put back at the device's turn. `same`: it is the device that
 * was there before, and keeps its tag. Of a crowd, not all at once. Returns how many had lost their links. */
static unsigned links_check(struct devices *devices, bool same, size_t n)
{
	unsigned n_lost = 0;

	for (size_t i = 0; i < n; i++) {
		struct device *device = &devices->items[devices->check_next++ % devices->n];
		bool holds = device->covered;

		for (int hook = 0; holds && hook < DEVICE_HOOKS; hook++)
			holds = datapath_device_holds(devices->datapath, device->ifindex, (enum device_hook)hook,
						      device->links[hook]) &&
				datapath_device_pin(devices->datapath, device->ifindex, (enum device_hook)hook,
						    device->links[hook]) == 0;
		if (holds && device->by_filter && ++device->stayed >= STAYED_LOOKS && devices->spare)
			sd_event_source_set_enabled(devices->spare, SD_EVENT_ON);
		if (holds || device->error == -EPFNOSUPPORT)
			continue;
		n_lost += device->covered;
		links_close(device);
		device->covered = false;
		device->again = device->again && same;
		device->error = 0;
		if (devices->turn)
			sd_event_source_set_enabled(devices->turn, SD_EVENT_ON);
	}
	return n_lost;
}

/* Marks what there is as seen, and adds what is new. Returns 0 or -errno; -EINTR: it changed meanwhile. */
static int list_read(struct devices *devices)
{
	__attribute__((cleanup(netlink_closep))) struct mnl_socket *nl = netlink_open(NETLINK_ROUTE);
	char buf[MNL_NLMSG_HDRLEN + MNL_ALIGN(sizeof(struct ifinfomsg))];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *ifi;

	if (!nl)
		return -errno;
	for (size_t i = 0; i < devices->n; i++)
		devices->items[i].seen = false;
	nlh->nlmsg_type = RTM_GETLINK;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	ifi = mnl_nlmsg_put_extra_header(nlh, sizeof(*ifi));
	ifi->ifi_family = AF_UNSPEC;
	return netlink_exchange(nl, nlh, link_message, devices);
}

/* Brings the list in line with what there is. A device that is not seen is gone; of one that is, whether its links are still on
 * it tells that it is the same one. */
static int resync(struct devices *devices)
{
	int r = -EINTR;

	for (int i = 0; i < LIST_TRIES && r == -EINTR; i++)
		r = list_read(devices);
	if (r < 0)
		return r;
	for (size_t i = 0; i < devices->n;) {
		if (devices->items[i].seen)
			i++;
		else
			forget(devices, &devices->items[i]);
	}
	links_check(devices, false, devices->n);
	return 0;
}

static int on_messages(sd_event_source *source, int fd, uint32_t events, void *data)
{
	struct devices *devices = data;
	char buf[65536];

	(void)source;
	(void)events;
	for (int i = 0; i < MESSAGES_PER_TURN; i++) {
		ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n < 0) {
			/* ENOBUFS: more came than fitted. */
			if (!devices->lost)
				log_info("messages of network devices were lost (%s): all devices are asked for again",
					 strerror(errno));
			devices->lost = true;
			continue;
		}
		mnl_cb_run(buf, (size_t)n, 0, 0, link_message, devices);
	}
	if (devices->lost)
		devices->lost = resync(devices) < 0;
	return 0;
}

unsigned devices_check(struct devices *devices)
{
	size_t most =
		datapath_device_kind(devices->datapath) == DEVICE_CLSACT ? FILTERS_CHECKED_PER_TURN : CHECKED_PER_TURN;

	if (devices->lost)
		devices->lost = resync(devices) < 0;
	return links_check(devices, true, devices->n < most ? devices->n : most);
}

/* ---- start ---- */

/* Two descriptors for each device. */
static void descriptors_raise(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= DESCRIPTORS_WANTED)
		return;
	limit.rlim_cur = limit.rlim_max < DESCRIPTORS_WANTED ? limit.rlim_max : DESCRIPTORS_WANTED;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* What an earlier daemon managed and this one does not, and what went away in between. */
static void release_others(struct devices *devices)
{
	uint32_t key, next;
	const uint32_t *at = NULL;

	while (datapath_device_next(devices->datapath, at, &next) == 0) {
		if (find_index(devices, next)) {
			key = next;
			at = &key;
			continue;
		}
		datapath_device_unpin(devices->datapath, next);
		datapath_device_filters_remove(next);
		datapath_device_delete(devices->datapath, next);
		devices->ops->gone(devices->ctx, next, "");
	}
}

/* Before anything is said to be ready, all of them. */
static int cover_all(struct devices *devices, char *why, size_t why_size)
{
	for (size_t i = 0; i < devices->n; i++) {
		struct device *device = &devices->items[i];
		int r;

		if (device->covered)
			continue;
		r = adopt(devices, device) ? cover(devices, device, false) : cover_new(devices, device, false);
		if (r == 0)
			datapath_device_settle(devices->datapath, device->ifindex);
		if (r == -ENODEV || r == -EPFNOSUPPORT) {
			if (r == -EPFNOSUPPORT)
				log_warning(
					"the device %s is of a kind (%u) that is not understood: it carries nothing",
					device->name, device->type);
			continue;
		}
		if (r < 0)
			snprintf(why, why_size, "cannot cover the device %s: %s", device->name, devices_error(r));
		if (r < 0)
			return r;
	}
	return 0;
}

static int listen_start(struct devices *devices, sd_event *event)
{
	int bytes = RECEIVE_BYTES, r;

	devices->nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!devices->nl || mnl_socket_bind(devices->nl, RTMGRP_LINK, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	setsockopt(mnl_socket_get_fd(devices->nl), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	r = sd_event_add_io(event, &devices->io, mnl_socket_get_fd(devices->nl), EPOLLIN, on_messages, devices);
	if (r >= 0)
		r = sd_event_source_set_priority(devices->io, SD_EVENT_PRIORITY_IMPORTANT);
	if (r >= 0)
		r = sd_event_add_defer(event, &devices->turn, on_turn, devices);
	if (r >= 0)
		r = sd_event_source_set_enabled(devices->turn, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_defer(event, &devices->spare, on_spare, devices);
	/* One that is on comes before everything else of its priority, as long as it is on. */
	if (r >= 0)
		r = sd_event_source_set_priority(devices->spare, SD_EVENT_PRIORITY_IDLE);
	if (r >= 0)
		r = sd_event_source_set_enabled(devices->spare, SD_EVENT_OFF);
	return r < 0 ? r : 0;
}

int devices_new(struct devices **devicesp, sd_event *event, struct datapath *datapath, const char *patterns,
		const struct devices_ops *ops, void *ctx, char *why, size_t why_size)
{
	__attribute__((cleanup(devices_freep))) struct devices *devices = calloc(1, sizeof(*devices));
	int r = 0;

	if (!devices)
		return -ENOMEM;
	devices->datapath = datapath;
	devices->ops = ops;
	devices->ctx = ctx;
	snprintf(devices->patterns, sizeof(devices->patterns), "%s", patterns);
	if (patterns[0]) {
		descriptors_raise();
		/* Listening first: what comes after the list was read is told. */
		r = listen_start(devices, event);
		if (r == 0)
			r = resync(devices);
		if (r < 0) {
			snprintf(why, why_size, "cannot ask for the network devices: %s", strerror(-r));
			return r;
		}
		r = cover_all(devices, why, why_size);
	}
	if (r < 0)
		return r;
	release_others(devices);
	*devicesp = devices;
	devices = NULL;
	return 0;
}

void devices_freep(struct devices **devicesp)
{
	struct devices *devices = *devicesp;

	if (!devices)
		return;
	sd_event_source_disable_unref(devices->io);
	sd_event_source_disable_unref(devices->turn);
	sd_event_source_disable_unref(devices->spare);
	if (devices->nl)
		mnl_socket_close(devices->nl);
	for (size_t i = 0; i < devices->n; i++)
		links_close(&devices->items[i]);
	free(devices->items);
	free(devices);
	*devicesp = NULL;
}

/* ---- binding ---- */

int devices_bind(struct devices *devices, uint32_t ifindex, const struct bh_addr *addresses, uint32_t n)
{
	struct device *device = find_index(devices, ifindex);
	struct bh_device kernel;
	int r;

	if (!device || !device->covered)
		return -ENODEV;
	if (n > BH_DEVICE_ADDRESSES)
		return -E2BIG;
	kernel = (struct bh_device){
		.link_header = device->kernel.link_header,
		.n_addresses = n,
		.master = device->master,
	};
	if (n)
		memcpy(kernel.addresses, addresses, n * sizeof(*addresses));
	r = datapath_device_set(devices->datapath, ifindex, &kernel);
	if (r == 0)
		device->kernel = kernel;
	return r;
}

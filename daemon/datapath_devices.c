// SPDX-License-Identifier: Apache-2.0
/*
 * The programs on managed devices: by links of tcx, which are pinned, or by filters of the clsact qdisc.
 */
#include "datapath_internal.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "device_filter.h"
#include "log.h"
#include "pins.h"

#define NO_DEVICE 0x7fffffffU

static void device_path(const struct datapath *dp, uint32_t ifindex, enum device_hook hook, char *out, size_t size)
{
	snprintf(out, size, "%s/device_%u_%s", dp->pin_dir, ifindex, hook == DEVICE_FROM ? "from" : "to");
}

int datapath_device_link_open(const struct datapath *dp, uint32_t ifindex, enum device_hook hook)
{
	char path[DATAPATH_PATH_BYTES];
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
void datapath_devices_kind_settle(struct datapath *dp)
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

void datapath_devices_replace(struct datapath *dp)
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

int datapath_device_set(struct datapath *dp, uint32_t ifindex, const struct bh_device *device)
{
	struct bh_device sealed = *device;

	sealed.seal = bh_device_seal(&sealed, ifindex);
	return datapath_result(
		bpf_map_update_elem(bpf_map__fd(dp->skeleton->maps.devices), &ifindex, &sealed, BPF_ANY));
}

int datapath_device_get(const struct datapath *dp, uint32_t ifindex, struct bh_device *device)
{
	int r = datapath_result(bpf_map_lookup_elem(bpf_map__fd(dp->skeleton->maps.devices), &ifindex, device));

	return r == 0 && device->seal != bh_device_seal(device, ifindex) ? -ENOENT : r;
}

int datapath_device_delete(struct datapath *dp, uint32_t ifindex)
{
	return datapath_result(bpf_map_delete_elem(bpf_map__fd(dp->skeleton->maps.devices), &ifindex));
}

int datapath_device_next(const struct datapath *dp, const uint32_t *ifindex, uint32_t *next)
{
	return datapath_result(bpf_map_get_next_key(bpf_map__fd(dp->skeleton->maps.devices), ifindex, next));
}

/* Returns 0, -EOPNOTSUPP where the kernel has no tcx, or another -errno. */
static int link_attach(struct datapath *dp, uint32_t ifindex, enum device_hook hook, int *link)
{
	const struct bpf_program *program = device_program(dp, hook);
	char path[DATAPATH_PATH_BYTES];
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
	char path[DATAPATH_PATH_BYTES];

	if (link < 0) /* a filter */
		return 0;
	device_path(dp, ifindex, hook, path, sizeof(path));
	return pin_names(path, link) ? 0 : pin_replace(path, link);
}

void datapath_device_unpin(struct datapath *dp, uint32_t ifindex)
{
	char path[DATAPATH_PATH_BYTES];

	for (int hook = 0; hook < DEVICE_HOOKS; hook++) {
		device_path(dp, ifindex, (enum device_hook)hook, path, sizeof(path));
		unlink(path);
	}
}

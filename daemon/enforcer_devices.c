// SPDX-License-Identifier: Apache-2.0
/*
 * The enforcer's part in managed devices: what they carry stands with the tags, under BH_DEVICE_BIT and the device's index in the
 * place of a cgroup id, so that expiry, revocation and renewal are the same for both.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <linux/ioctl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "identity/attest.h"
#include "identity/process.h"
#include "log.h"
#include "privileges.h"

/* Of linux/pidfd.h since 6.11: the namespaces of the process behind a pidfd. */
#define GET_NET_NAMESPACE _IO(0xff, 4)
#define GET_USER_NAMESPACE _IO(0xff, 9)

_Static_assert(IPC_MAX_ADDRESSES == BH_DEVICE_ADDRESSES && ATTEST_MAX_ADDRESSES == BH_DEVICE_ADDRESSES, "addresses");

static void name_tell(struct enforcer *e, const struct device *device)
{
	struct ipc_audit_device packet = {
		.h = {.type = IPC_AUDIT_DEVICE, .len = sizeof(packet)},
		.ifindex = device->ifindex,
	};

	snprintf(packet.name, sizeof(packet.name), "%s", device->name);
	role_send(e->auditor, &packet, -1);
}

void enforcer_devices_tell(struct enforcer *e)
{
	for (size_t i = 0; e->devices && i < devices_count(e->devices); i++)
		name_tell(e, devices_at(e->devices, i));
}

static void on_named(void *ctx, const struct device *device)
{
	struct enforcer *e = ctx;
	struct tag *tag = enforcer_tag_find(e, BH_DEVICE_BIT | device->ifindex);

	if (tag)
		snprintf(tag->path, sizeof(tag->path), BH_DEVICE_PLACE "%s", device->name);
	name_tell(e, device);
}

static void on_gone(void *ctx, uint32_t ifindex, const char *name)
{
	struct enforcer *e = ctx;
	struct tag *tag = enforcer_tag_find(e, BH_DEVICE_BIT | ifindex);

	if (!tag)
		return;
	if (name[0])
		snprintf(tag->path, sizeof(tag->path), BH_DEVICE_PLACE "%s", name);
	enforcer_tag_remove(e, tag, "its device is gone");
	datapath_changed(e->datapath);
	e->cut_due = true;
}

int enforcer_devices_start(struct enforcer *e, char *why, size_t why_size)
{
	static const struct devices_ops ops = {.gone = on_gone, .named = on_named};
	int r = devices_new(&e->devices, e->event, e->datapath, e->config.devices, &ops, e, why, why_size);

	/* Tags of devices that were never entered, or are gone. */
	for (size_t i = 0; r == 0 && i < e->n_tags;) {
		struct tag *tag = &e->tags[i];

		if ((tag->cgroup_id & BH_DEVICE_BIT) && !devices_by_index(e->devices, (uint32_t)tag->cgroup_id))
			enforcer_tag_remove(e, tag, "its device is gone");
		else
			i++;
	}
	return r;
}

bool enforcer_devices_check(struct enforcer *e)
{
	unsigned n = devices_check(e->devices);
	struct ipc_notice notice;

	if (!n)
		return false;
	notice = enforcer_notice(NOTICE_ENFORCEMENT_LOST);
	notice.count = n;
	notice.revision = e->revision;
	snprintf(notice.text, sizeof(notice.text),
		 "programs were taken off %u managed device%s by somebody else; they are put back at once", n,
		 n == 1 ? "" : "s");
	enforcer_notice_post(e, &notice);
	log_error("enforcement lost: %s", notice.text);
	datapath_changed(e->datapath);
	return true;
}

int enforcer_addresses_refresh(struct enforcer *e, const struct cgroup_tree *tree)
{
	struct netns_address *bound = NULL;
	size_t n = 0, room = devices_count(e->devices) * BH_DEVICE_ADDRESSES;
	int r;

	if (room) {
		bound = calloc(room, sizeof(*bound));
		if (!bound)
			return -ENOMEM;
	}
	for (size_t i = 0; i < devices_count(e->devices); i++) {
		const struct device *device = devices_at(e->devices, i);

		for (uint32_t j = 0; j < device->kernel.n_addresses; j++)
			bound[n++] =
				(struct netns_address){device->kernel.addresses[j], BH_DEVICE_BIT | device->ifindex};
	}
	r = netns_addresses_refresh(e->datapath, tree, bound, n);
	free(bound);
	return r;
}

/* ---- attestation ---- */

/* Is the namespace of the process behind a pidfd the one that `own` names? Returns 1, 0, or -errno. */
static int in_namespace(int pidfd, unsigned long request, const char *own)
{
	struct stat ours, theirs;
	int fd = ioctl(pidfd, request, 0), r;

	if (fd < 0)
		return -errno;
	r = fstat(fd, &theirs) < 0 || stat(own, &ours) < 0 ? -errno : 0;
	close(fd);
	return r < 0 ? r : ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

/* Who binds a device speaks for somebody else, so it has to be who rules this host: uid 0, not of a user namespace that
 * somebody made, and not in a container's network. */
static bool caller_fits(struct enforcer *e, struct tag_attempt *a)
{
	struct process_facts facts = {.uid = (uid_t)-1};
	int user, net;

	if (enforcer_process_query(e, a->pidfd, &facts) < 0 || facts.uid != 0) {
		enforcer_attempt_refuse(a, ATTEST_E_DEVICE_CALLER, "only root may bind a device, this is uid %u",
					facts.uid);
		return false;
	}
	privileges_raise();
	user = in_namespace(a->pidfd, GET_USER_NAMESPACE, "/proc/self/ns/user");
	net = in_namespace(a->pidfd, GET_NET_NAMESPACE, "/proc/self/ns/net");
	privileges_lower();
	if (user == 1 && net == 1)
		return true;
	if (user < 0 || net < 0)
		enforcer_attempt_refuse(a, ATTEST_E_DEVICE_CALLER,
					"the kernel does not tell the caller's namespaces (Linux 6.11 does): %s",
					strerror(user < 0 ? -user : -net));
	else
		enforcer_attempt_refuse(
			a, ATTEST_E_DEVICE_CALLER,
			"the caller is in another %s namespace than bulkheadd: bind devices from the host",
			user == 1 ? "network" : "user");
	return false;
}

bool enforcer_address_can_be_bound(const struct bh_addr *a)
{
	if (a->w[0] == 0 && a->w[1] == 0 && ntohl(a->w[2]) == 0xffff) {
		uint32_t v4 = ntohl(a->w[3]);

		return v4 >> 24 != 0 && v4 >> 24 != 127 && v4 >> 28 < 0xe;
	}
	return (a->w[0] | a->w[1] | a->w[2]) && ntohl(a->w[0]) >> 24 != 0xff;
}

static bool addresses_fit(struct enforcer *e, struct tag_attempt *a, const struct device *device)
{
	const struct ipc_tag_request *request = a->request;

	if (request->n_addresses == 0 || request->n_addresses > BH_DEVICE_ADDRESSES) {
		enforcer_attempt_refuse(a, ATTEST_E_DEVICE_ADDRESS,
					"1 to %u addresses of the workload are needed: it sends from no other",
					BH_DEVICE_ADDRESSES);
		return false;
	}
	for (uint32_t i = 0; i < request->n_addresses; i++) {
		const struct device *other;
		struct bh_addr address;

		memcpy(&address, request->addresses[i], sizeof(address));
		other = devices_with_address(e->devices, &address);
		if (!enforcer_address_can_be_bound(&address)) {
			enforcer_attempt_refuse(a, ATTEST_E_DEVICE_ADDRESS,
						"address %u of the list is a loopback, multicast or unspecified one",
						i + 1);
			return false;
		}
		if (other && other != device) {
			enforcer_attempt_refuse(a, ATTEST_E_DEVICE_ADDRESS,
						"address %u of the list is bound to the device %s already", i + 1,
						other->name);
			return false;
		}
	}
	return true;
}

bool enforcer_device_fits(struct enforcer *e, struct tag_attempt *a)
{
	const char *name = a->request->device;
	const struct device *device = devices_find(e->devices, name);
	char why[400];

	a->key = BH_DEVICE_BIT | (device ? device->ifindex : 0);
	a->place = a->device_place;
	snprintf(a->device_place, sizeof(a->device_place), BH_DEVICE_PLACE "%s", name);
	if (!caller_fits(e, a))
		return false;
	if (!device || !device->covered)
		enforcer_attempt_refuse(
			a, ATTEST_E_DEVICE,
			device ? "the device %s is not covered yet: try again"
			       : "there is no managed device %s here: it has to be in bulkheadd's network "
				 "namespace, and its name to fit `devices` of the configuration",
			name);
	else if (!policy_image_binding(e->image, a->request->spiffe_id, a->place, a->uid, why, sizeof(why)))
		enforcer_attempt_refuse(a, ATTEST_E_BINDING, "the device %s may not carry this identity: %s", name,
					why);
	else
		return addresses_fit(e, a, device);
	return false;
}

int enforcer_device_bind(struct enforcer *e, const struct tag_attempt *a)
{
	struct bh_addr addresses[BH_DEVICE_ADDRESSES];

	memcpy(addresses, a->request->addresses, sizeof(addresses));
	return devices_bind(e->devices, (uint32_t)a->key, addresses, a->request->n_addresses);
}

// SPDX-License-Identifier: Apache-2.0
#include "device_filter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "netlink.h"

#define PREFERENCE 1U
#define REQUEST_BYTES 512

/* For one device; the filter itself is named by parent, preference, protocol and handle. */
static struct tcmsg *request_begin(struct nlmsghdr *nlh, uint16_t type, uint16_t flags, uint32_t ifindex)
{
	struct tcmsg *tc;

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	tc = mnl_nlmsg_put_extra_header(nlh, sizeof(*tc));
	tc->tcm_family = AF_UNSPEC;
	tc->tcm_ifindex = (int)ifindex;
	return tc;
}

static void filter_name(struct tcmsg *tc, enum device_hook hook)
{
	tc->tcm_parent = TC_H_MAKE(TC_H_CLSACT, hook == DEVICE_FROM ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
	tc->tcm_handle = DEVICE_FILTER_HANDLE;
	tc->tcm_info = TC_H_MAKE(PREFERENCE << 16, htons(ETH_P_ALL));
}

static int exchange(const struct nlmsghdr *nlh, mnl_cb_t callback, void *data)
{
	__attribute__((cleanup(netlink_closep))) struct mnl_socket *nl = netlink_open(NETLINK_ROUTE);

	return nl ? netlink_exchange(nl, nlh, callback, data) : -errno;
}

/* ---- the qdisc ---- */

static int kind_attribute(const struct nlattr *attr, void *data)
{
	bool *is_clsact = data;

	if (mnl_attr_get_type(attr) == TCA_KIND && mnl_attr_validate(attr, MNL_TYPE_NUL_STRING) >= 0)
		*is_clsact = strcmp(mnl_attr_get_str(attr), "clsact") == 0;
	return MNL_CB_OK;
}

static int qdisc_message(const struct nlmsghdr *nlh, void *data)
{
	if (nlh->nlmsg_type == RTM_NEWQDISC && nlh->nlmsg_len >= mnl_nlmsg_size(sizeof(struct tcmsg)))
		mnl_attr_parse(nlh, sizeof(struct tcmsg), kind_attribute, data);
	return MNL_CB_OK;
}

static int qdisc_make(uint32_t ifindex)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct tcmsg *tc = request_begin(nlh, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, ifindex);
	bool is_clsact = false;
	int r;

	tc->tcm_parent = TC_H_CLSACT;
	tc->tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0);
	mnl_attr_put_strz(nlh, TCA_KIND, "clsact");
	r = exchange(nlh, NULL, NULL);
	if (r != -EEXIST)
		return r;
	/* An `ingress` qdisc has the same place, and takes a filter for either hook as one for ingress. The answer comes to who asks
	 * for an echo. */
	nlh = mnl_nlmsg_put_header(buf);
	tc = request_begin(nlh, RTM_GETQDISC, NLM_F_ECHO, ifindex);
	tc->tcm_parent = TC_H_CLSACT;
	r = exchange(nlh, qdisc_message, &is_clsact);
	return r < 0 ? r : is_clsact ? 0 : -EBUSY;
}

/* ---- the filter ---- */

static int filter_set(int program_fd, uint32_t ifindex, enum device_hook hook)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nlattr *options;
	int r;

	filter_name(request_begin(nlh, RTM_NEWTFILTER, NLM_F_CREATE, ifindex), hook);
	mnl_attr_put_strz(nlh, TCA_KIND, "bpf");
	options = mnl_attr_nest_start(nlh, TCA_OPTIONS);
	mnl_attr_put_u32(nlh, TCA_BPF_FD, (uint32_t)program_fd);
	mnl_attr_put_strz(nlh, TCA_BPF_NAME, hook == DEVICE_FROM ? "bulkhead_from" : "bulkhead_to");
	mnl_attr_put_u32(nlh, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
	mnl_attr_nest_end(nlh, options);
	r = exchange(nlh, NULL, NULL);
	/* What the kernel answers where the preference is of another kind, or of another protocol. */
	return r == -EEXIST ? -EBUSY : r;
}

/* A place that is taken by somebody else is no fault of ours in the request: is anything there? */
static int filter_any(const struct nlmsghdr *nlh, void *data)
{
	const struct tcmsg *tc = mnl_nlmsg_get_payload(nlh);
	bool *any = data;

	if (nlh->nlmsg_type == RTM_NEWTFILTER && nlh->nlmsg_len >= mnl_nlmsg_size(sizeof(*tc)) &&
	    TC_H_MAJ(tc->tcm_info) >> 16 == PREFERENCE)
		*any = true;
	return MNL_CB_OK;
}

static bool is_taken(uint32_t ifindex, enum device_hook hook)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct tcmsg *tc = request_begin(nlh, RTM_GETTFILTER, NLM_F_DUMP, ifindex);
	bool any = false;

	filter_name(tc, hook);
	tc->tcm_handle = 0;
	tc->tcm_info = 0;
	return exchange(nlh, filter_any, &any) == 0 && any;
}

int device_filter_set(int program_fd, uint32_t ifindex, enum device_hook hook)
{
	int r = qdisc_make(ifindex);

	if (r == 0)
		r = filter_set(program_fd, ifindex, hook);
	return r == -EINVAL && is_taken(ifindex, hook) ? -EBUSY : r;
}

struct found {
	bool there;
	uint32_t id;
};

static int option_attribute(const struct nlattr *attr, void *data)
{
	struct found *found = data;

	if (mnl_attr_get_type(attr) == TCA_BPF_ID && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
		found->id = mnl_attr_get_u32(attr);
	return MNL_CB_OK;
}

static int filter_attribute(const struct nlattr *attr, void *data)
{
	if (mnl_attr_get_type(attr) == TCA_OPTIONS)
		mnl_attr_parse_nested(attr, option_attribute, data);
	return MNL_CB_OK;
}

static int filter_message(const struct nlmsghdr *nlh, void *data)
{
	const struct tcmsg *tc = mnl_nlmsg_get_payload(nlh);
	struct found *found = data;

	if (nlh->nlmsg_type != RTM_NEWTFILTER || nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*tc)) ||
	    tc->tcm_handle != DEVICE_FILTER_HANDLE)
		return MNL_CB_OK;
	found->there = true;
	mnl_attr_parse(nlh, sizeof(*tc), filter_attribute, found);
	return MNL_CB_OK;
}

int device_filter_program(uint32_t ifindex, enum device_hook hook, uint32_t *program_id)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct found found = {};
	int r;

	filter_name(request_begin(nlh, RTM_GETTFILTER, 0, ifindex), hook);
	mnl_attr_put_strz(nlh, TCA_KIND, "bpf");
	r = exchange(nlh, filter_message, &found);
	/* No qdisc, no such preference, another kind there. */
	if (r == -EINVAL || (r == 0 && !found.there))
		r = -ENOENT;
	if (r == 0)
		*program_id = found.id;
	return r;
}

int device_filter_remove(uint32_t ifindex, enum device_hook hook)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	int r;

	filter_name(request_begin(nlh, RTM_DELTFILTER, 0, ifindex), hook);
	mnl_attr_put_strz(nlh, TCA_KIND, "bpf");
	r = exchange(nlh, NULL, NULL);
	return r == -ENOENT || r == -EINVAL || r == -ENODEV ? 0 : r;
}

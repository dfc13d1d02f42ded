/* SPDX-License-Identifier: Apache-2.0 */
/*
 * explain.c - the verdict of one flow, from the tables that the kernel has, by the function that the kernel runs.
 */
#include <errno.h>
#include <string.h>

#include "bpf/decide.h"
#include "policy/flow_end.h"
#include "policy/image.h"
#include "policy/policy.h"
#include "policy/service.h"

_Static_assert(SERVICE_TCP == BH_POINT_TCP && SERVICE_UDP == BH_POINT_UDP && SERVICE_SCTP == BH_POINT_SCTP &&
		       SERVICE_ICMP == BH_POINT_ICMP && SERVICE_ICMP6 == BH_POINT_ICMP6 &&
		       SERVICE_PROTO == BH_POINT_PROTO && SERVICE_END == BH_POINT_END,
	       "one line of services");

/* Local identities stand sorted by name in an image. */
static bool find_local(const struct policy_image *image, const char *name, uint16_t *whop)
{
	struct policy_local local;
	size_t low = 0, high = 1;

	while (policy_image_local(image, high, &local))
		high *= 2;
	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = policy_image_local(image, middle, &local) ? strcmp(name, local.name) : -1;

		if (order == 0) {
			*whop = (uint16_t)local.who;
			return true;
		}
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return false;
}

static int who_of(const struct policy_image *image, const struct flow_end *end, uint16_t *whop, char **errorp)
{
	switch (end->kind) {
	case FLOW_END_SPIFFE:
		*whop = (uint16_t)policy_image_classify(image, end->id);
		return 0;
	case FLOW_END_NAME:
		if (find_local(image, end->id, whop))
			return 0;
		return flow_error(
			errorp,
			"'%s' is no SPIFFE ID, no address, and no local identity (unit or cgroup) of the policy",
			end->id);
	case FLOW_END_UNIDENTIFIED:
		*whop = BH_ID_UNIDENTIFIED;
		return 0;
	case FLOW_END_HOST:
		*whop = BH_ID_HOST;
		return 0;
	case FLOW_END_WORLD:
		break;
	}
	*whop = BH_ID_WORLD;
	return 0;
}

static uint32_t address_class_of(const unsigned char *tables, const struct flow_end *end)
{
	struct bh_addr addr;

	/* An end without an address is in no network. */
	if (!end->has_address)
		return 0;
	for (int i = 0; i < 4; i++)
		addr.w[i] = htonl((uint32_t)(end->address >> (96 - 32 * i)));
	return bh_addr_class(tables, &addr);
}

/* Only a workload judges; the host and the world do not. */
static bool judges(const struct flow_end *end)
{
	return end->kind == FLOW_END_SPIFFE || end->kind == FLOW_END_NAME || end->kind == FLOW_END_UNIDENTIFIED;
}

static struct policy_judgement judge(const struct policy_image *image, bool judged, uint32_t cell)
{
	struct policy_judgement judgement = {.judged = judged, .allow = true, .rule = "-"};
	struct policy_rule_name rule = {};

	if (!judged)
		return judgement;
	policy_image_rule(image, BH_CELL_RULE(cell), &rule);
	judgement.allow = cell & BH_CELL_ALLOW;
	judgement.audit = cell & BH_CELL_AUDIT;
	judgement.tier = rule.tier;
	judgement.rule = rule.name;
	judgement.file = rule.file;
	judgement.line = rule.line;
	return judgement;
}

int policy_explain(const struct policy_image *image, const char *from, const char *to, const char *service, int64_t now,
		   struct policy_explanation *explanation, char **errorp)
{
	__u64 at = now < 0 ? 0 : (__u64)now, valid_until = BH_FOREVER;
	struct flow_end source, destination;
	const unsigned char *tables;
	struct bh_flow flow;
	uint32_t cell;
	size_t len;

	*errorp = NULL;
	if (flow_end_parse(&source, from, errorp) || flow_end_parse(&destination, to, errorp) ||
	    who_of(image, &source, &flow.from_who, errorp) || who_of(image, &destination, &flow.to_who, errorp) ||
	    flow_service_parse(&flow.point, service, errorp))
		return 1;
	tables = policy_image_tables(image, &len);
	flow.from_addr = address_class_of(tables, &source);
	flow.to_addr = address_class_of(tables, &destination);
	cell = bh_decide(tables, BH_EGRESS, &flow, at, &valid_until);
	explanation->egress = judge(image, judges(&source), cell);
	cell = bh_decide(tables, BH_INGRESS, &flow, at, &valid_until);
	explanation->ingress = judge(image, judges(&destination), cell);
	explanation->allow = explanation->egress.allow && explanation->ingress.allow;
	return 0;
}

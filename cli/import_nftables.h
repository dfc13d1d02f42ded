/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import_nftables.h - a policy that means what the filter chains of a host mean for its workloads.
 *
 * Each base chain of the hooks input and output becomes a tier: input judges ingress, output egress. The first rule that
 * matches wins, so each has a priority of its own. What a chain drops is denied; what it accepts goes on to the next chain
 * of its hook (`pass`), and the last one allows. Rules are read as they meet the first packet of a flow: the packets after
 * it, and replies, belong to the flow. Jumps are followed where they stand.
 */
#ifndef BULKHEAD_CLI_IMPORT_NFTABLES_H
#define BULKHEAD_CLI_IMPORT_NFTABLES_H

#include <stdbool.h>

#include "policy/policy.h"

/* An identity that the rules of the host are about. */
struct nft_subject {
	const char *name;
	const char *value; /* YAML, as a policy has it */
};

struct import_nftables {
	struct policy_source source; /* of `nft -j list ruleset` */
	const struct nft_subject *subjects;
	size_t n_subjects;   /* none: every verified identity */
	bool lo_by_address;  /* an interface `lo` stands for the addresses of loopback */
	bool ignore_forward; /* what is forwarded is left to nftables */
};

/* Likewise policy_import_kubernetes(). */
int import_nftables(char **textp, struct policy_diagnostics **diagnosticsp, const struct import_nftables *import);

#endif

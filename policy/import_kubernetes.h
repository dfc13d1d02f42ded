/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import_kubernetes.h - a policy that means what Kubernetes network policies mean, for the workloads of a map.
 *
 * Tiers, the first that decides wins:
 *   local      what Kubernetes polices for nobody: a pod's own loopback, and what its node sends it
 *   admin      AdminNetworkPolicies; each rule has a priority of its own, so the first in the list wins
 *   namespace  NetworkPolicies: allow rules, and behind them the denial of all else to whom they isolate
 *   baseline   the BaselineAdminNetworkPolicy, and behind it an allow for whom nothing isolates
 * Every rule has one direction, as Kubernetes judges the two ends of a flow apart, too. What the map does not list has no
 * rule for its own end: it stays denied there.
 */
#ifndef BULKHEAD_POLICY_IMPORT_KUBERNETES_H
#define BULKHEAD_POLICY_IMPORT_KUBERNETES_H

#include "policy/policy.h"

struct import_kubernetes {
	const struct policy_source *sources; /* the map first, then the objects: YAML, any number of documents each */
	size_t n_sources;
	const char *namespace; /* of objects that name none */
};

/*
 * Translates. On success *textp is the policy (malloc()ed) and *diagnosticsp holds warnings; otherwise *textp is NULL and
 * *diagnosticsp says what is wrong or cannot be expressed. Returns 0, 1 (bad input), or -ENOMEM.
 */
int policy_import_kubernetes(char **textp, struct policy_diagnostics **diagnosticsp,
			     const struct import_kubernetes *import);

#endif

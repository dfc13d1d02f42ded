/* SPDX-License-Identifier: Apache-2.0 */
#include "reasons.h"

#include <stdio.h>

static const struct {
	const char *code;
	const char *text;
} reasons[BH_REASON_MAX] = {
	[BH_REASON_POLICY] = {"POLICY", "the policy decided"},
	[BH_REASON_NO_IDENTITY] = {"NO_IDENTITY",
				   "the workload has no verified identity: attest an SVID for its cgroup, or device"},
	[BH_REASON_EXPIRED] = {"EXPIRED", "the workload's identity is past its deadline: attest a renewed SVID"},
	[BH_REASON_FRAGMENT] =
		{"FRAGMENT",
		 "an IP fragment has no ports to judge by, and none that was allowed went before it; only UDP through "
		 "managed devices may come in fragments"},
	[BH_REASON_PARSE] = {"PARSE",
			     "a header is malformed or cut short, has IP options or a route, or too many extensions"},
	[BH_REASON_PROTO] = {"PROTO_UNSUPPORTED",
			     "the packet is of another protocol than its socket: wrapped or encrypted below it"},
	[BH_REASON_RAW_SOCKET] = {"RAW_SOCKET", "TCP or UDP was made by hand in a raw socket"},
	[BH_REASON_NO_FLOW] = {"NO_FLOW", "the packet belongs to no flow that was allowed"},
	[BH_REASON_OLD_SOCKET] = {"OLD_SOCKET",
				  "the socket is older than enforcement, its peer is not known: open it again"},
	[BH_REASON_MAP_FULL] = {"MAP_FULL",
				"no room in a kernel map: `policyctl status` says which is full, and how large it is"},
	[BH_REASON_EARLY_DATA] = {"EARLY_DATA", "payload came in the SYN, before the peer has shown its identity"},
	[BH_REASON_IMPOSSIBLE] = {"IMPOSSIBLE", "no rule can allow it, whoever answers"},
	[BH_REASON_PEER_ENDED] = {"PEER_ENDED", "the peer's identity has expired or was revoked since the flow began"},
	[BH_REASON_SOURCE] = {"SOURCE", "the packet carries a source address that is not its sender's"},
	[BH_REASON_UNPROVEN] =
		{"UNPROVEN",
		 "the segment must show who sends it, and its other TCP options leave no room for the 4 bytes "
		 "that takes, or the link's MTU none for the 16 it was given: turn off what fills them for this "
		 "connection (TCP MD5 or AO, paths that MPTCP adds), or raise the MTU (76 bytes are enough for what is "
		 "usual)"},
	[BH_REASON_SIMULTANEOUS] =
		{"SIMULTANEOUS_OPEN",
		 "two sockets connect to each other at once, so neither is asked who it is: let one of "
		 "them listen"},
	[BH_REASON_NEW_ADDRESS] =
		{"NEW_ADDRESS", "the destination is an own address that was added a moment ago: try again in a second"},
	[BH_REASON_ADDRESS] = {"ADDRESS",
			       "the workload's end of the packet is no address that its device was bound with"},
	[BH_REASON_OVERTAKEN] = {"OVERTAKEN", "it was sent under the policy before, and the one in force now, which it "
					      "met on arrival, denies it at its sender's end"},
	[BH_REASON_OPTION] =
		{"OPTION", "the segment came from a managed device and shows an identity that no socket of this host "
			   "gave it"},
};

/* By enum bh_proof. NULL: nothing is wrong with it. */
static const char *const proofs[BH_PROOF_MAX] = {
	[BH_PROOF_FORGED] = "the peer showed an identity that this host did not sign, or signed too long ago",
	[BH_PROOF_REPLAYED] = "the peer showed an identity that was used already, or came too late",
	[BH_PROOF_MALFORMED] = "the peer's TCP options are malformed",
	[BH_PROOF_STRIPPED] =
		"the peer sent its identity, and something on the way removed it: have that let TCP option 254 "
		"pass unchanged in SYN and SYN-ACK (firewalls call it clearing, stripping or normalising)",
};

const char *reason_code(unsigned reason, enum bh_verdict verdict, uint32_t rule)
{
	if (reason >= BH_REASON_MAX)
		return "UNKNOWN";
	if (reason != BH_REASON_POLICY)
		return reasons[reason].code;
	if (verdict == BH_VERDICT_WOULD_DENY)
		return "POLICY_WOULD_DENY";
	if (rule)
		return verdict ? "POLICY_ALLOW" : "POLICY_DENY";
	return verdict ? "DEFAULT_ALLOW" : "DEFAULT_DENY";
}

const char *reason_text(unsigned reason)
{
	return reason < BH_REASON_MAX ? reasons[reason].text
				      : "the kernel gave a reason that this version does not know";
}

const char *proof_text(unsigned proof)
{
	return proof < BH_PROOF_MAX ? proofs[proof] : NULL;
}

void reason_sentence(char *out, size_t size, unsigned reason, enum bh_verdict verdict, uint32_t rule,
		     const struct policy_rule_name *name)
{
	const char *verb = verdict == BH_VERDICT_WOULD_DENY ? "would deny, but is in audit mode: let pass"
			   : verdict			    ? "allows"
							    : "denies";

	if (reason != BH_REASON_POLICY)
		snprintf(out, size, "%s", reason_text(reason));
	else if (!rule)
		snprintf(out, size, "no rule matched, the default %s", verb);
	else if (name && name->file)
		snprintf(out, size, "rule \"%s\" (%s:%u) %s", name->name, name->file, name->line, verb);
	else if (name)
		snprintf(out, size, "rule \"%s\" %s", name->name, verb);
	else
		snprintf(out, size, "rule number %u %s", rule, verb);
}

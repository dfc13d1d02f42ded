/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "policy/image.h"
#include "policy/policy.h"
#include "tests/fuzz/fuzz.h"

static const char *const ends[] = {
	"spiffe://a.example/x",
	"spiffe://a.example/x/y@10.1.2.3",
	"spiffe://b.example/b@2001:db8::1",
	"unidentified@192.0.2.1",
	"host@127.0.0.1",
	"world@::1",
	"255.255.255.255",
	"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
};

static const char *const services[] = {"tcp/1",	     "tcp/65535", "udp/53", "sctp/80", "icmp/echo-request",
				       "icmpv6/255", "proto/47"};

static void explain_all(const struct policy_image *image)
{
	size_t n_ends = sizeof(ends) / sizeof(ends[0]);
	struct policy_explanation explanation;

	for (size_t f = 0; f < n_ends; f++)
		for (size_t t = 0; t < n_ends; t++)
			for (size_t s = 0; s < sizeof(services) / sizeof(services[0]); s++) {
				char *error = NULL;

				policy_explain(image, ends[f], ends[t], services[s], 1800000000, &explanation, &error);
				free(error);
			}
}

void fuzz_use_image(const struct policy_image *image)
{
	static const char *const paths[] = {"/", "/system.slice", "/system.slice/web.service", "/c/1", "/a/b/c/d"};
	struct policy_rule_name rule;
	struct policy_local local;
	char why[256];

	explain_all(image);
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		policy_image_local_of(image, paths[i], &local);
		policy_image_local_below(image, paths[i]);
		policy_image_binding(image, "spiffe://a.example/x/y/z", paths[i], POLICY_ANY_UID, why, sizeof(why));
		policy_image_binding(image, "spiffe://b.example/b", paths[i], POLICY_ANY_UID, why, sizeof(why));
	}
	for (uint32_t i = 0; i <= policy_image_rule_count(image); i++)
		policy_image_rule(image, i, &rule);
}

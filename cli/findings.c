/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/findings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/diagnostics.h"
#include "cli/policy_files.h"

int cli_policy_read(struct cli *cli, char *const *paths, size_t n_paths, struct policy **policyp)
{
	__attribute__((cleanup(policy_diagnostics_freep))) struct policy_diagnostics *diagnostics = NULL;
	struct policy_source *sources;
	size_t n, errors;
	int code = policy_files_load(&sources, &n, paths, n_paths), r;

	*policyp = NULL;
	if (code != CLI_OK)
		return code;
	r = policy_parse(policyp, &diagnostics, sources, n);
	policy_files_free(sources, n);
	if (r < 0) {
		cli_error("the policy could not be read: %s", strerror(-r));
		return CLI_UNREACHABLE;
	}
	if (r == 0)
		return CLI_OK;
	cli_diagnostics_fail(cli, diagnostics);
	errors = policy_diagnostics_count(diagnostics, POLICY_ERROR);
	cli_error("%zu error%s; see `policyctl check`", errors, errors == 1 ? "" : "s");
	return CLI_NO;
}

static json_t *decider_json(const struct policy_decider *decider)
{
	json_t *object = json_pack("{s:b}", "judged", decider->judged);

	if (!decider->judged)
		return object;
	json_object_set_new(object, "verdict", json_string(decider->allow ? "allow" : "deny"));
	json_object_set_new(object, "rule", json_string(decider->rule));
	if (decider->tier)
		json_object_set_new(object, "tier", json_string(decider->tier));
	if (decider->audit)
		json_object_set_new(object, "mode", json_string("audit"));
	if (decider->file) {
		json_object_set_new(object, "file", json_string(decider->file));
		json_object_set_new(object, "line", json_integer(decider->line));
	}
	return object;
}

static json_t *title_json(const struct policy_finding *finding)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	json_t *title;

	if (!out)
		return json_null();
	policy_finding_title(finding, out);
	title = fclose(out) == 0 ? json_string(text) : json_null();
	free(text);
	return title;
}

json_t *finding_json(const struct policy *policy, const struct policy_finding *finding)
{
	const struct policy_test *test = finding->test;
	const struct position *at = test ? &test->at : &finding->invariant->at;
	json_t *object = json_object();

	json_object_set_new(object, "kind", json_string(test ? "test" : "invariant"));
	json_object_set_new(object, "title", title_json(finding));
	/* What was asked on the command line stands nowhere. */
	if (at->line) {
		json_object_set_new(object, "file", json_string(policy->source_names[at->source]));
		json_object_set_new(object, "line", json_integer(at->line));
	}
	json_object_set_new(object, "holds", json_boolean(finding->holds));
	if (finding->why)
		json_object_set_new(object, "why", json_string(finding->why));
	if (test) {
		json_object_set_new(object, "expect", json_string(test->allow ? "allow" : "deny"));
		if (test->by)
			json_object_set_new(object, "by", json_string(test->by));
	}
	if (finding->has_flow) {
		json_object_set_new(object, "flow",
				    json_pack("{s:s, s:s, s:s}", "from", finding->from, "to", finding->to, "service",
					      finding->service));
		json_object_set_new(object, "verdict", json_string(finding->allow ? "allow" : "deny"));
		json_object_set_new(object, "egress", decider_json(&finding->egress));
		json_object_set_new(object, "ingress", decider_json(&finding->ingress));
	}
	return object;
}

int cli_findings_result(int r, const char *error)
{
	if (r == 0)
		return CLI_OK;
	if (r > 0) {
		cli_error("%s", error ? error : "the policy is too complex for an exact answer");
		return CLI_NO;
	}
	cli_error("no answer: %s", strerror(-r));
	return CLI_UNREACHABLE;
}

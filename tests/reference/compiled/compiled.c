/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "policy/flow_end.h"
#include "tests/reference/compiled/compiled.h"

void ref_compile_by(ref_compiler compile, struct ref_compiled *compiled, const struct ref_policy *policy)
{
	static const char *const names[] = {"a.yaml", "b.yaml", "c.yaml"};
	struct policy_source sources[REF_MAX_FILES];
	struct policy_diagnostics *diagnostics = NULL;
	const char *why = "";
	char *error = NULL;
	void *bytes = NULL;
	size_t len;

	for (int f = 0; f < policy->n_files; f++)
		sources[f] = (struct policy_source){names[f], policy->texts[f], strlen(policy->texts[f])};
	if (policy_parse(&compiled->policy, &diagnostics, sources, (size_t)policy->n_files) != 0) {
		policy_diagnostics_print(diagnostics, stderr, false);
		exit(1);
	}
	policy_diagnostics_freep(&diagnostics);
	if (compile(compiled->policy, &bytes, &len, &error) != 0) {
		fprintf(stderr, "not compiled: %s\n", error ? error : "out of memory");
		exit(1);
	}
	if (policy_image_open(&compiled->image, bytes, len, &why) != 0) {
		fprintf(stderr, "the image does not hold: %s\n", why);
		exit(1);
	}
	free(bytes);
}

void ref_compile(struct ref_compiled *compiled, const struct ref_policy *policy)
{
	ref_compile_by(policy_compile, compiled, policy);
}

void ref_compiled_clear(struct ref_compiled *compiled)
{
	policy_image_freep(&compiled->image);
	policy_freep(&compiled->policy);
}

uint32_t ref_who(const struct policy_image *image, const struct ref_end *end)
{
	struct policy_local local;
	char name[16];

	switch (end->kind) {
	case REF_SPIFFE:
		return policy_image_classify(image, end->id);
	case REF_LOCAL:
		snprintf(name, sizeof(name), "id%d", end->local);
		for (size_t i = 0; policy_image_local(image, i, &local); i++)
			if (strcmp(local.name, name) == 0)
				return local.who;
		fprintf(stderr, "the image has no local identity %s\n", name);
		exit(1);
	case REF_UNIDENTIFIED:
		return BH_ID_UNIDENTIFIED;
	case REF_HOST:
		return BH_ID_HOST;
	case REF_WORLD:
		break;
	}
	return BH_ID_WORLD;
}

void ref_end_parse(const char *text, struct ref_end *out)
{
	struct flow_end end;
	char *error = NULL;

	*out = (struct ref_end){};
	if (flow_end_parse(&end, text, &error) != 0) {
		fprintf(stderr, "%s\n", error);
		exit(1);
	}
	switch (end.kind) {
	case FLOW_END_SPIFFE:
		out->kind = REF_SPIFFE;
		snprintf(out->id, sizeof(out->id), "%.199s", end.id);
		break;
	case FLOW_END_NAME:
		out->kind = REF_LOCAL;
		out->local = atoi(end.id + 2);
		break;
	case FLOW_END_UNIDENTIFIED:
		out->kind = REF_UNIDENTIFIED;
		break;
	case FLOW_END_HOST:
		out->kind = REF_HOST;
		break;
	case FLOW_END_WORLD:
		out->kind = REF_WORLD;
		break;
	}
	out->has_address = end.has_address;
	out->v4 = address_is_v4(end.address);
	for (int i = 0; i < 16; i++) {
		unsigned char byte = (unsigned char)(end.address >> (120 - 8 * i));

		if (!out->v4)
			out->address[i] = byte;
		else if (i >= 12)
			out->address[i - 12] = byte;
	}
}

static bool in_a_network(const struct ref_policy *policy, const struct ref_end *end)
{
	for (int i = 0; i < policy->n_networks; i++)
		if (ref_network_has(&policy->networks[i], end))
			return true;
	return false;
}

static void write_address(const struct ref_end *end, struct bh_addr *out)
{
	memset(out, 0, sizeof(*out));
	if (end->v4) {
		out->w[2] = htonl(0xffff);
		memcpy(&out->w[3], end->address, 4);
	} else {
		memcpy(out->w, end->address, 16);
	}
}

bool ref_address(const struct ref_policy *policy, const struct ref_end *end, struct bh_addr *out)
{
	struct ref_end nowhere = {.has_address = true};

	if (end->has_address) {
		write_address(end, out);
		return true;
	}
	/* Some that no random network is near to, unless it holds the whole family. */
	for (int v4 = 0; v4 < 2; v4++)
		for (int first = 1; first < 256; first += 3) {
			nowhere.v4 = v4;
			nowhere.address[0] = (unsigned char)first;
			nowhere.address[1] = 77;
			if (!in_a_network(policy, &nowhere)) {
				write_address(&nowhere, out);
				return true;
			}
		}
	return false;
}

uint32_t ref_cell(struct ref_verdict verdict)
{
	static const uint32_t bits[] = {0, BH_CELL_LOG_ALLOWED | BH_CELL_LOG_DENIED, BH_CELL_LOG_DENIED,
					BH_CELL_LOG_ALLOWED | BH_CELL_LOG_DENIED | BH_CELL_LOG_AGAIN};
	uint32_t cell = (uint32_t)verdict.rule | bits[verdict.log];

	if (verdict.allow)
		cell |= BH_CELL_ALLOW;
	/* What would have been denied is logged where a denial would be. */
	if (verdict.audit)
		cell |= BH_CELL_AUDIT | (verdict.log != REF_LOG_NONE ? BH_CELL_LOG_ALLOWED : 0);
	return cell;
}

void ref_report(const struct ref_policy *policy, const struct ref_flow *flow, uint64_t seed, const char *what)
{
	char from[300], to[300], service[40];

	for (int f = 0; f < policy->n_files; f++)
		fprintf(stderr, "--- file %d\n%s", f, policy->texts[f]);
	ref_end_format(&flow->from, from, sizeof(from));
	ref_end_format(&flow->to, to, sizeof(to));
	ref_service_format(flow, service, sizeof(service));
	fprintf(stderr, "seed %lu: %s -> %s %s: %s\n", (unsigned long)seed, from, to, service, what);
}

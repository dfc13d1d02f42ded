/* SPDX-License-Identifier: Apache-2.0 */
/*
 * judge_kernel.c - what the kernel's decision function says of random flows under random policies, against the reference.
 *
 *   judge_kernel OBJECT POLICIES FLOWS      as root; the object is judge.bpf.o
 *
 * Each policy's tables are written into the map that the programs read, and BPF_PROG_TEST_RUN runs bh_judge() over the flows.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/reference/compiled/compiled.h"
#include "tests/reference/judge_kernel.h"

struct kernel {
	struct bpf_object *object;
	int program;
	unsigned char *tables;
	uint16_t *who;
	struct judge_query *queries;
};

static void *map_memory(struct bpf_object *object, const char *name)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object, name);
	size_t size, page = (size_t)sysconf(_SC_PAGESIZE);
	void *memory;

	if (!map)
		return NULL;
	size = ((size_t)bpf_map__value_size(map) + 7) / 8 * 8 * bpf_map__max_entries(map);
	size = (size + page - 1) / page * page;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
	return memory == MAP_FAILED ? NULL : memory;
}

/* An identity number for every who index, each with a tag that never ends. */
static bool name_everybody(struct kernel *kernel)
{
	int tags = bpf_object__find_map_fd_by_name(kernel->object, "tags");

	for (uint32_t identity = 0; identity < BH_MAX_IDENTITIES; identity++) {
		struct bh_tag tag = {.deadline_ns = ~0ULL, .identity = identity};
		uint64_t key = identity;

		tag.seal = bh_tag_seal(&tag, key);
		kernel->who[(size_t)identity * 4] =
			(uint16_t)(identity < BH_ID_FIRST ? identity : identity - BH_ID_FIRST + BH_ID_WORLD + 1);
		if (identity < 2048 && bpf_map_update_elem(tags, &key, &tag, BPF_ANY) != 0)
			return false;
	}
	return true;
}

static bool kernel_open(struct kernel *kernel, const char *path)
{
	struct bpf_map *map;
	struct bpf_program *program;

	kernel->object = bpf_object__open_file(path, NULL);
	if (!kernel->object)
		return false;
	bpf_object__for_each_map(map, kernel->object) bpf_map__set_pin_path(map, NULL);
	if (bpf_object__load(kernel->object) != 0)
		return false;
	program = bpf_object__find_program_by_name(kernel->object, "judge_all");
	kernel->program = bpf_program__fd(program);
	kernel->tables = map_memory(kernel->object, "tables");
	kernel->who = map_memory(kernel->object, "who");
	kernel->queries = map_memory(kernel->object, "queries");
	return kernel->tables && kernel->who && kernel->queries && name_everybody(kernel);
}

static uint32_t identity_of(uint32_t who)
{
	return who <= BH_ID_WORLD ? who : who - BH_ID_WORLD - 1 + BH_ID_FIRST;
}

static bool ask(struct ref_policy *policy, const struct policy_image *image, const struct ref_flow *flow,
		uint8_t direction, struct judge_query *query)
{
	bool egress = direction == BH_EGRESS;
	const struct ref_end *local = egress ? &flow->from : &flow->to, *remote = egress ? &flow->to : &flow->from;

	memset(query, 0, sizeof(*query));
	if (!ref_address(policy, local, &query->local) || !ref_address(policy, remote, &query->remote))
		return false;
	query->now = REF_NOW;
	query->subject = identity_of(ref_who(image, local));
	query->peer = identity_of(ref_who(image, remote));
	query->lport = (uint16_t)(egress ? 40000 : flow->port);
	query->rport = (uint16_t)(egress ? flow->port : 40000);
	query->proto = (uint8_t)flow->protocol;
	query->direction = direction;
	return true;
}

static bool is_right(const struct ref_policy *policy, const struct ref_flow *flow, const struct judge_query *query,
		     uint64_t seed)
{
	struct ref_verdict verdict = ref_judge(policy, query->direction == BH_EGRESS ? 1 : 2, flow, REF_NOW);
	uint64_t until = verdict.until ? (uint64_t)verdict.until : ~0ULL;
	char text[200];

	if (query->cell == ref_cell(verdict) && query->allow == verdict.allow && query->valid_until == until)
		return true;
	snprintf(text, sizeof(text), "%s: the kernel says cell %08x until %llu, the reference %08x until %llu",
		 query->direction == BH_EGRESS ? "egress" : "ingress", query->cell,
		 (unsigned long long)query->valid_until, ref_cell(verdict), (unsigned long long)until);
	ref_report(policy, flow, seed, text);
	return false;
}

/* One in ten is large, and compiled as those of many thousand rules are: into as many parts as there can be. */
static struct ref_policy *make_policy(struct ref_compiled *compiled, uint64_t seed)
{
	struct ref_policy *policy = seed % 10 ? ref_policy_new(seed) : ref_policy_new_large(seed);

	if (seed % 10)
		ref_compile(compiled, policy);
	else
		ref_compile_apart(compiled, policy);
	return policy;
}

/* Returns how many judgements were compared, or -1. */
static long compare(struct kernel *kernel, uint64_t seed, unsigned n_flows)
{
	struct ref_compiled compiled;
	struct ref_policy *policy = make_policy(&compiled, seed);
	struct ref_flow *flows = calloc(n_flows, sizeof(*flows));
	struct judge_request request = {};
	LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = &request, .ctx_size_in = sizeof(request));
	const void *tables;
	size_t len;
	long done;

	tables = policy_image_tables(compiled.image, &len);
	memcpy(kernel->tables, tables, len);
	for (unsigned i = 0; i < n_flows && request.n < JUDGE_MAX; i++) {
		ref_flow_make(policy, &flows[request.n]);
		if (ask(policy, compiled.image, &flows[request.n], (uint8_t)(i % 2), &kernel->queries[request.n]))
			request.n++;
	}
	done = bpf_prog_test_run_opts(kernel->program, &options) == 0 ? (long)request.n : -1;
	if (done < 0)
		perror("BPF_PROG_TEST_RUN");
	for (long i = 0; i < done; i++)
		if (!is_right(policy, &flows[i], &kernel->queries[i], seed)) {
			done = -1;
			break;
		}
	ref_compiled_clear(&compiled);
	ref_policy_free(policy);
	free(flows);
	return done;
}

int main(int argc, char **argv)
{
	struct kernel kernel = {};
	long total = 0, n;

	if (argc != 4) {
		fprintf(stderr, "usage: judge_kernel OBJECT POLICIES FLOWS\n");
		return 2;
	}
	if (!kernel_open(&kernel, argv[1])) {
		perror("cannot load the program");
		return 1;
	}
	for (uint64_t seed = 1; seed <= strtoull(argv[2], NULL, 10); seed++) {
		n = compare(&kernel, seed, (unsigned)strtoul(argv[3], NULL, 10));
		if (n < 0)
			return 1;
		total += n;
	}
	printf("%ld judgements, no difference\n", total);
	bpf_object__close(kernel.object);
	return 0;
}

// SPDX-License-Identifier: Apache-2.0
/*
 * Loads every program of the skeleton, without a pin, and prints one JSON line for each: what the verifier processed, and
 * how much stack the deepest chain of calls takes. The verifier tells the stack of each function ("stack depth 96+0+200");
 * which calls which is in the instructions.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bulkhead.skel.h"

#define LOG_STATS 4
#define LOG_BYTES (1 << 16)
#define MAX_FUNCTIONS 256
#define MAX_CALLS 8 /* the verifier's own limit of frames */
/* The verifier rounds the stack of each function up to this, and the sum must not be above 512: with a JIT from Linux 6.9 on,
 * and before that, or without one. */
#define ROUND_JIT 16
#define ROUND 32

struct function {
	size_t start; /* instruction */
	unsigned stack;
	const char *name; /* of the program's BTF */
};

struct program {
	const struct bpf_insn *insns;
	size_t n_insns;
	struct function functions[MAX_FUNCTIONS];
	size_t n_functions;
};

static int by_start(const void *a, const void *b)
{
	size_t x = ((const struct function *)a)->start, y = ((const struct function *)b)->start;

	return (x > y) - (x < y);
}

static struct function *function_at(struct program *p, size_t start)
{
	for (size_t i = 0; i < p->n_functions; i++)
		if (p->functions[i].start == start)
			return &p->functions[i];
	return NULL;
}

static void function_add(struct program *p, size_t start)
{
	if (!function_at(p, start) && p->n_functions < MAX_FUNCTIONS)
		p->functions[p->n_functions++] = (struct function){.start = start};
}

static int is_call(const struct bpf_insn *insn)
{
	return insn->code == (BPF_JMP | BPF_CALL) && insn->src_reg == BPF_PSEUDO_CALL;
}

/* In what a loaded program tells of itself, `off` is the way to the function and `imm` its number. */
static size_t called_by(const struct program *p, size_t i)
{
	return (size_t)((ptrdiff_t)i + 1 + p->insns[i].off);
}

/* In the order of their places, as the verifier numbers them. */
static void functions_find(struct program *p)
{
	function_add(p, 0);
	for (size_t i = 0; i < p->n_insns; i++)
		if (is_call(&p->insns[i]))
			function_add(p, called_by(p, i));
	qsort(p->functions, p->n_functions, sizeof(p->functions[0]), by_start);
}

static int stacks_read(struct program *p, const char *log)
{
	const char *at = strstr(log, "stack depth ");
	size_t i = 0;

	if (!at)
		return -ENOENT;
	at += strlen("stack depth ");
	for (;; at++) {
		char *end;
		unsigned long stack = strtoul(at, &end, 10);

		if (end == at || i >= p->n_functions)
			return -EBADMSG;
		p->functions[i++].stack = (unsigned)stack;
		at = end;
		if (*at != '+')
			break;
	}
	return i == p->n_functions ? 0 : -EBADMSG;
}

static unsigned chain_of(struct program *p, struct function *f, unsigned round, unsigned depth)
{
	size_t end = f + 1 < p->functions + p->n_functions ? f[1].start : p->n_insns;
	unsigned own = (f->stack + round - 1) / round * round, deepest = 0;

	if (round == ROUND && !own)
		own = round;

	for (size_t i = f->start; i < end && depth < MAX_CALLS; i++) {
		struct function *called;
		unsigned below;

		if (!is_call(&p->insns[i]))
			continue;
		called = function_at(p, called_by(p, i));
		below = called ? chain_of(p, called, round, depth + 1) : 0;
		if (below > deepest)
			deepest = below;
	}
	return own + deepest;
}

/* The frames of the deepest chain, as it is called: what to make smaller. */
static void chain_print(struct program *p, struct function *f, unsigned depth)
{
	size_t end = f + 1 < p->functions + p->n_functions ? f[1].start : p->n_insns;
	struct function *deepest = NULL;
	unsigned most = 0;

	printf("%s%s %u", depth > 1 ? " + " : "", f->name ? f->name : "?", f->stack);
	for (size_t i = f->start; i < end && depth < MAX_CALLS; i++) {
		struct function *called = is_call(&p->insns[i]) ? function_at(p, called_by(p, i)) : NULL;
		unsigned below = called ? chain_of(p, called, ROUND_JIT, depth + 1) : 0;

		if (below > most) {
			most = below;
			deepest = called;
		}
	}
	if (deepest)
		chain_print(p, deepest, depth + 1);
}

/* The functions' names, by where they begin; they point into the BTF that is returned. NULL: there is none. */
static struct btf *names_read(struct program *p, int fd)
{
	struct bpf_func_info items[MAX_FUNCTIONS];
	struct bpf_prog_info info = {
		.nr_func_info = MAX_FUNCTIONS,
		.func_info_rec_size = sizeof(items[0]),
		.func_info = (uintptr_t)items,
	};
	unsigned len = sizeof(info);
	struct btf *btf;

	if (bpf_obj_get_info_by_fd(fd, &info, &len) || !info.btf_id)
		return NULL;
	btf = btf__load_from_kernel_by_id(info.btf_id);
	for (unsigned i = 0; btf && i < info.nr_func_info && i < MAX_FUNCTIONS; i++) {
		struct function *f = function_at(p, items[i].insn_off);
		const struct btf_type *type = btf__type_by_id(btf, items[i].type_id);

		if (f && type)
			f->name = btf__name_by_offset(btf, type->name_off);
	}
	return btf;
}

/* The instructions of a loaded program, malloc()ed, or NULL. */
static struct bpf_insn *insns_read(int fd, size_t *np, unsigned *verifiedp)
{
	struct bpf_prog_info info = {};
	unsigned len = sizeof(info);
	struct bpf_insn *insns;

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return NULL;
	*np = info.xlated_prog_len / sizeof(*insns);
	*verifiedp = info.verified_insns;
	insns = calloc(*np, sizeof(*insns));
	if (!insns)
		return NULL;
	info = (struct bpf_prog_info){
		.xlated_prog_insns = (uintptr_t)insns,
		.xlated_prog_len = (unsigned)(*np * sizeof(*insns)),
	};
	len = sizeof(info);
	if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0)
		return insns;
	free(insns);
	return NULL;
}

static int report(struct bpf_program *program, const char *log)
{
	struct program p = {};
	struct btf *names = NULL;
	unsigned largest = 0, verified = 0;
	struct bpf_insn *insns = insns_read(bpf_program__fd(program), &p.n_insns, &verified);
	int r = insns ? 0 : -errno;

	p.insns = insns;
	if (!r) {
		functions_find(&p);
		names = names_read(&p, bpf_program__fd(program));
		r = stacks_read(&p, log);
	}
	if (r) {
		fprintf(stderr, "verifier: %s: %s; %zu functions; its log:\n%s\n", bpf_program__name(program),
			strerror(-r), p.n_functions, log);
		btf__free(names);
		free(insns);
		return r;
	}
	for (size_t i = 0; i < p.n_functions; i++)
		if (p.functions[i].stack > largest)
			largest = p.functions[i].stack;
	printf("{\"program\": \"%s\", \"section\": \"%s\", \"verified\": %u, \"instructions\": %zu, \"functions\": "
	       "%zu, "
	       "\"largest_frame\": %u, \"stack\": %u, \"stack_without_jit\": %u, \"chain\": \"",
	       bpf_program__name(program), bpf_program__section_name(program), verified, p.n_insns, p.n_functions,
	       largest, chain_of(&p, &p.functions[0], ROUND_JIT, 1), chain_of(&p, &p.functions[0], ROUND, 1));
	chain_print(&p, &p.functions[0], 1);
	printf("\"}\n");
	btf__free(names);
	free(insns);
	return 0;
}

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, args) : 0;
}

int main(void)
{
	struct bpf_program *program;
	struct bulkhead *skeleton;
	struct bpf_map *map;
	size_t n = 0, i = 0;
	char **logs;
	int r = 0;

	libbpf_set_print(quiet);
	skeleton = bulkhead__open();
	if (!skeleton)
		return EXIT_FAILURE;
	bpf_object__for_each_map(map, skeleton->obj) bpf_map__set_pin_path(map, NULL);
	bpf_object__for_each_program(program, skeleton->obj) n++;
	logs = calloc(n, sizeof(*logs));
	bpf_object__for_each_program(program, skeleton->obj)
	{
		logs[i] = calloc(1, LOG_BYTES);
		bpf_program__set_autoload(program, true);
		bpf_program__set_log_level(program, LOG_STATS);
		bpf_program__set_log_buf(program, logs[i++], LOG_BYTES);
	}
	if (bulkhead__load(skeleton))
		r = -errno;
	i = 0;
	if (r == 0)
		bpf_object__for_each_program(program, skeleton->obj) r = report(program, logs[i++]) ?: r;
	for (i = 0; i < n; i++)
		free(logs[i]);
	free(logs);
	bulkhead__destroy(skeleton);
	return r ? EXIT_FAILURE : EXIT_SUCCESS;
}

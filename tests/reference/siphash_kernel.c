/* SPDX-License-Identifier: Apache-2.0 */
/*
 * siphash_kernel.c - what the kernel's SipHash says of the published inputs; and whose key verifies, and until when.
 *
 *   siphash_kernel OBJECT      as root; the object is siphash.bpf.o
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bpf/abi.h"
#include "tests/reference/siphash_kernel.h"
#include "tests/reference/siphash_vectors.h"

struct kernel {
	struct bpf_object *object;
	struct bh_state *state;
	int keys;
};

static bool kernel_open(struct kernel *kernel, const char *path)
{
	struct bpf_map *map;

	kernel->object = bpf_object__open_file(path, NULL);
	if (!kernel->object)
		return false;
	bpf_object__for_each_map(map, kernel->object) bpf_map__set_pin_path(map, NULL);
	if (bpf_object__load(kernel->object) != 0)
		return false;
	kernel->keys = bpf_object__find_map_fd_by_name(kernel->object, "keys");
	kernel->state = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED,
			     bpf_object__find_map_fd_by_name(kernel->object, "state"), 0);
	return kernel->state != MAP_FAILED;
}

static void run(const struct kernel *kernel, const char *name, struct siphash_request *request)
{
	LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = request, .ctx_size_in = sizeof(*request));
	struct bpf_program *program = bpf_object__find_program_by_name(kernel->object, name);

	request->r = -1;
	if (bpf_prog_test_run_opts(bpf_program__fd(program), &options) != 0)
		perror("BPF_PROG_TEST_RUN");
}

static uint64_t boottime_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static void key_set(const struct kernel *kernel, uint32_t slot, uint64_t k0, uint64_t since_ns)
{
	struct bh_key key = {.k0 = k0, .k1 = SIPHASH_K1, .since_ns = since_ns};

	if (bpf_map_update_elem(kernel->keys, &slot, &key, BPF_ANY) != 0)
		perror("cannot write the key");
}

static struct siphash_request input_of(uint32_t len)
{
	struct siphash_request request = {.len = len};

	for (uint32_t i = 0; i < len; i++)
		((unsigned char *)request.words)[i] = (unsigned char)i;
	return request;
}

/* Returns the number of values that are not the published ones. */
static unsigned compare(const struct kernel *kernel)
{
	struct siphash_request request;
	unsigned wrong = 0;

	for (uint32_t len = 0; len < SIPHASH_VECTORS; len++) {
		request = input_of(len);
		run(kernel, "siphash_bytes", &request);
		if (request.r == 0 && request.result == siphash_vectors[len])
			continue;
		printf("of %u bytes: %016" PRIx64 ", published %016" PRIx64 "\n", len, (uint64_t)request.result,
		       (uint64_t)siphash_vectors[len]);
		wrong++;
	}
	request = input_of(sizeof(struct bh_mac_input));
	run(kernel, "siphash_segment", &request);
	if (request.r == 0 && request.result == siphash_vectors[sizeof(struct bh_mac_input)])
		return wrong;
	printf("the MAC of a segment is not the published value of %zu bytes\n", sizeof(struct bh_mac_input));
	return wrong + 1;
}

static bool verifies(const struct kernel *kernel, uint64_t shown)
{
	struct siphash_request request = input_of(sizeof(struct bh_mac_input));

	request.shown = shown;
	run(kernel, "siphash_verify", &request);
	return request.r == 1;
}

static unsigned expect(bool holds, const char *what)
{
	if (!holds)
		printf("not so: %s\n", what);
	return !holds;
}

/* The windows of keys: key 1 is the published one. */
static unsigned windows(const struct kernel *kernel)
{
	uint64_t shown = siphash_vectors[sizeof(struct bh_mac_input)], now = boottime_ns();
	unsigned wrong = 0;

	wrong += expect(verifies(kernel, shown), "the key in use verifies");
	wrong += expect(!verifies(kernel, shown ^ 1), "another MAC does not");
	key_set(kernel, 2, 1, now);
	kernel->state->key_epoch = 2;
	wrong += expect(verifies(kernel, shown), "the key before it verifies at first");
	key_set(kernel, 2, 1, now - BH_KEY_WINDOW_NS + 20000000000ULL);
	wrong += expect(verifies(kernel, shown), "the key before it verifies until its window closes");
	key_set(kernel, 2, 1, now - BH_KEY_WINDOW_NS - 1);
	wrong += expect(!verifies(kernel, shown), "then it does not, whether a daemon is there or not");
	key_set(kernel, 2, 1, now);
	key_set(kernel, 3, 2, now);
	kernel->state->key_epoch = 3;
	wrong += expect(!verifies(kernel, shown), "the key before that does not");
	key_set(kernel, 1, SIPHASH_K0, 0);
	kernel->state->key_epoch = 1;
	wrong += expect(!verifies(kernel, shown), "a slot without time is no key");
	kernel->state->key_epoch = 0;
	wrong += expect(!verifies(kernel, shown), "without epoch there is no key");
	return wrong;
}

int main(int argc, char **argv)
{
	struct kernel kernel = {};
	unsigned wrong;

	if (argc != 2) {
		fprintf(stderr, "usage: siphash_kernel OBJECT\n");
		return 2;
	}
	if (!kernel_open(&kernel, argv[1])) {
		perror("cannot load the program");
		return 1;
	}
	key_set(&kernel, 1, SIPHASH_K0, 1);
	kernel.state->key_epoch = 1;
	wrong = compare(&kernel) + windows(&kernel);
	printf("%u values and the MAC of a segment compared, %u wrong\n", SIPHASH_VECTORS, wrong);
	bpf_object__close(kernel.object);
	return wrong ? 1 : 0;
}

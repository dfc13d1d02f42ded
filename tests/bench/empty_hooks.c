/* SPDX-License-Identifier: Apache-2.0 */
/*
 * empty_hooks OBJECT CGROUP: attaches the programs of empty_hooks.bpf.c to CGROUP, prints {"event": "ready"}, and
 * takes them away when its input ends.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int program_attach(struct bpf_program *program, int cgroup)
{
	/* Kept until the process ends. */
	return bpf_program__attach_cgroup(program, cgroup) ? 0 : -errno;
}

int main(int argc, char **argv)
{
	struct bpf_program *program;
	struct bpf_object *object;
	int cgroup, r;
	char c;

	if (argc != 3) {
		fprintf(stderr, "usage: empty_hooks OBJECT CGROUP\n");
		return 2;
	}
	cgroup = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cgroup < 0) {
		fprintf(stderr, "empty_hooks: %s: %s\n", argv[2], strerror(errno));
		return 1;
	}
	object = bpf_object__open(argv[1]);
	if (!object || bpf_object__load(object)) {
		fprintf(stderr, "empty_hooks: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	bpf_object__for_each_program(program, object)
	{
		r = program_attach(program, cgroup);
		if (r) {
			fprintf(stderr, "empty_hooks: %s: %s\n", bpf_program__name(program), strerror(-r));
			return 1;
		}
	}
	printf("{\"event\": \"ready\"}\n");
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	return 0;
}

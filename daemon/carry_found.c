// SPDX-License-Identifier: Apache-2.0
#include "carry_found.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"

#define PATH_BYTES 1500
#define MAX_NUMBER 1000000U

void carry_found_clear(struct carry_found *found)
{
	for (size_t i = 0; i < found->n_names; i++)
		free(found->names[i]);
	free(found->names);
	free(found->in_use);
}

bool carry_found_uses(const struct carry_found *found, uint32_t id)
{
	for (size_t i = 0; i < found->n_in_use; i++)
		if (found->in_use[i] == id)
			return true;
	return false;
}

/* The maps of the program that a pinned link has, attached or not: one that somebody detached was in force before. */
static int link_maps_read(struct carry_found *found, const char *path)
{
	struct bpf_link_info link = {};
	struct bpf_prog_info program = {};
	uint32_t len = sizeof(link), ids[64] = {}, *more;
	int fd = bpf_obj_get(path), program_fd = -1, r = 0;

	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &link, &len) == 0)
		program_fd = bpf_prog_get_fd_by_id(link.prog_id);
	program.map_ids = (uint64_t)(uintptr_t)ids;
	program.nr_map_ids = sizeof(ids) / sizeof(ids[0]);
	len = sizeof(program);
	if (program_fd >= 0 && bpf_obj_get_info_by_fd(program_fd, &program, &len) == 0) {
		size_t n = program.nr_map_ids < 64 ? program.nr_map_ids : 64;

		more = reallocarray(found->in_use, found->n_in_use + n + 1, sizeof(*more));
		if (more) {
			found->in_use = more;
			memcpy(more + found->n_in_use, ids, n * sizeof(*ids));
			found->n_in_use += n;
		} else {
			r = -ENOMEM;
		}
	}
	if (program_fd >= 0)
		close(program_fd);
	if (fd >= 0)
		close(fd);
	return r;
}

/* The names of maps end with a number. */
static bool is_link(const char *pin)
{
	return strncmp(pin, "link_", 5) == 0 || (strncmp(pin, "device_", 7) == 0 && pin[7] >= '0' && pin[7] <= '9');
}

int carry_found_read(struct carry_found *found, const char *pin_dir)
{
	struct dirent *entry;
	char path[PATH_BYTES];
	DIR *dir;
	int r = directory_open(AT_FDCWD, pin_dir, &dir);

	if (r < 0)
		return r;
	while ((r = directory_next(dir, &entry)) > 0) {
		char **names = reallocarray(found->names, found->n_names + 1, sizeof(*names));

		if (!names) {
			r = -ENOMEM;
			break;
		}
		found->names = names;
		names[found->n_names] = strdup(entry->d_name);
		if (!names[found->n_names++]) {
			r = -ENOMEM;
			break;
		}
		snprintf(path, sizeof(path), "%s/%s", pin_dir, entry->d_name);
		r = is_link(entry->d_name) ? link_maps_read(found, path) : 0;
		if (r < 0)
			break;
	}
	closedir(dir);
	return r;
}

int carry_number_of(const char *pin, const char *map)
{
	size_t len = strlen(map);
	unsigned long number;
	char *end;

	if (strncmp(pin, map, len) != 0)
		return -1;
	if (pin[len] == '\0')
		return 0;
	if (pin[len] != '_' || pin[len + 1] < '1' || pin[len + 1] > '9')
		return -1;
	number = strtoul(pin + len + 1, &end, 10);
	return *end == '\0' && number < MAX_NUMBER ? (int)number : -1;
}

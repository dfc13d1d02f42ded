/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup_names.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ENTRIES 65536U
#define MAX_DEPTH 64
/* Between two walks at least this, and some more for each directory, so that walking takes at most some per cent of the
 * time however large the subtree is (reading a directory takes about 5 us). */
#define WALK_INTERVAL_NS 100000000ULL
#define WALK_INTERVAL_PER_DIRECTORY_NS 100000ULL

struct entry {
	uint64_t id;
	uint64_t walk; /* last walk that saw it */
	char *path;
};

struct cgroup_names {
	int dir_fd;
	bool walked;
	uint64_t walk;
	bool full; /* with what was seen since `full_walk` */
	uint64_t full_walk;
	uint64_t walked_ns;
	size_t seen; /* directories that the last walk saw */
	size_t count;
	size_t size; /* of the table, a power of two, at most half full */
	struct entry *table;
};

static size_t slot_of(const struct entry *table, size_t size, uint64_t id)
{
	size_t slot = (size_t)((id * 0x9e3779b97f4a7c15ULL) >> 20) & (size - 1);

	while (table[slot].path && table[slot].id != id)
		slot = (slot + 1) & (size - 1);
	return slot;
}

int cgroup_names_new(struct cgroup_names **namesp, int dir_fd)
{
	struct cgroup_names *names = calloc(1, sizeof(*names));

	if (!names)
		return -ENOMEM;
	names->dir_fd = dir_fd;
	names->size = 256;
	names->table = calloc(names->size, sizeof(*names->table));
	if (!names->table) {
		free(names);
		return -ENOMEM;
	}
	*namesp = names;
	return 0;
}

void cgroup_names_freep(struct cgroup_names **namesp)
{
	struct cgroup_names *names = *namesp;

	if (!names)
		return;
	for (size_t i = 0; i < names->size; i++)
		free(names->table[i].path);
	free(names->table);
	free(names);
	*namesp = NULL;
}

/* Moves what was seen by walk `since` or later into a table of `size` slots. */
static bool rebuild(struct cgroup_names *names, size_t size, uint64_t since)
{
	struct entry *table = calloc(size, sizeof(*table)), *entry;
	size_t count = 0;

	if (!table)
		return false;
	for (size_t i = 0; i < names->size; i++) {
		entry = &names->table[i];
		if (!entry->path)
			continue;
		if (entry->walk < since) {
			free(entry->path);
			continue;
		}
		table[slot_of(table, size, entry->id)] = *entry;
		count++;
	}
	free(names->table);
	names->table = table;
	names->size = size;
	names->count = count;
	return true;
}

/* Makes room for one more. The table may have moved afterwards. */
static bool make_room(struct cgroup_names *names)
{
	if (names->count >= MAX_ENTRIES) {
		/* As many exist: only another walk can tell that some are gone. */
		if ((names->full && names->full_walk == names->walk) || !rebuild(names, names->size, names->walk))
			return false;
		names->full = names->count >= MAX_ENTRIES;
		names->full_walk = names->walk;
		if (names->full)
			return false;
	}
	return 2 * (names->count + 1) <= names->size || rebuild(names, 2 * names->size, 0);
}

static void insert(struct cgroup_names *names, uint64_t id, const char *path)
{
	struct entry *entry = &names->table[slot_of(names->table, names->size, id)];
	char *copy;

	if (entry->path && !strcmp(entry->path, path)) {
		entry->walk = names->walk;
		return;
	}
	if (!entry->path && !make_room(names))
		return;
	copy = strdup(path);
	if (!copy)
		return;
	entry = &names->table[slot_of(names->table, names->size, id)];
	if (!entry->path)
		names->count++;
	free(entry->path);
	*entry = (struct entry){.id = id, .walk = names->walk, .path = copy};
}

/* Reads the directory open at `fd` (closed here) and those below it. `path` holds its path, of `len` bytes. */
static void walk(struct cgroup_names *names, int fd, char *path, size_t len, int depth)
{
	DIR *dir = fdopendir(fd);
	struct dirent *item;
	size_t item_len;
	int sub;

	if (!dir) {
		close(fd);
		return;
	}
	while (names->seen < MAX_ENTRIES && (item = readdir(dir))) {
		item_len = strlen(item->d_name);
		if (item->d_type != DT_DIR || !strcmp(item->d_name, ".") || !strcmp(item->d_name, "..") ||
		    len + 1 + item_len + 1 > PATH_MAX)
			continue;
		path[len] = '/';
		memcpy(path + len + 1, item->d_name, item_len + 1);
		names->seen++;
		insert(names, item->d_ino, path);
		if (depth == MAX_DEPTH)
			continue;
		sub = openat(fd, item->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub >= 0)
			walk(names, sub, path, len + 1 + item_len, depth + 1);
	}
	path[len] = '\0';
	closedir(dir);
}

static void refresh(struct cgroup_names *names, uint64_t now_ns)
{
	char path[PATH_MAX] = "";
	struct stat st;
	int fd;

	names->walk++;
	names->walked = true;
	names->walked_ns = now_ns;
	names->seen = 0;
	if (!fstat(names->dir_fd, &st))
		insert(names, st.st_ino, "/");
	fd = openat(names->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		walk(names, fd, path, 0, 0);
	/* Forget the dead when they outnumber the living. */
	if (names->count > 2 * names->seen + 1024)
		rebuild(names, names->size, names->walk);
}

void cgroup_names_add(struct cgroup_names *names, uint64_t id, const char *path)
{
	insert(names, id, path);
}

const char *cgroup_names_path(struct cgroup_names *names, uint64_t id, uint64_t now_ns)
{
	const char *path = names->table[slot_of(names->table, names->size, id)].path;
	uint64_t wait_ns = WALK_INTERVAL_NS + names->seen * WALK_INTERVAL_PER_DIRECTORY_NS;

	if (path || (names->walked && now_ns - names->walked_ns < wait_ns))
		return path;
	refresh(names, now_ns);
	return names->table[slot_of(names->table, names->size, id)].path;
}

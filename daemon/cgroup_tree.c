// SPDX-License-Identifier: Apache-2.0
#include "cgroup_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"

#define MAX_DEPTH 64

struct walk {
	struct cgroup_tree *tree;
	size_t nodes_room;
	size_t pids_room;
	size_t presences_room;
	uint64_t cgroup_id;	    /* being read */
	struct id_index namespaces; /* of the pids */
	ino_t own;
	int with_processes;
};

static void *grow(void *items, size_t used, size_t *room, size_t item)
{
	if (used < *room)
		return items;
	*room = *room ? *room * 2 : 64;
	return reallocarray(items, *room, item);
}

static ino_t netns_of(pid_t pid)
{
	char path[64];
	struct stat st;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	else
		snprintf(path, sizeof(path), "/proc/self/ns/net");
	return stat(path, &st) == 0 ? st.st_ino : 0;
}

static int presence_note(struct walk *w, ino_t ns)
{
	struct cgroup_tree *tree = w->tree;
	struct cgroup_presence *last = tree->n_presences ? &tree->presences[tree->n_presences - 1] : NULL, *more;

	/* The processes of a cgroup mostly live in one namespace. */
	if (last && last->netns == ns && last->cgroup_id == w->cgroup_id)
		return 0;
	more = grow(tree->presences, tree->n_presences, &w->presences_room, sizeof(*more));
	if (!more)
		return -ENOMEM;
	tree->presences = more;
	more[tree->n_presences++] = (struct cgroup_presence){.netns = ns, .cgroup_id = w->cgroup_id};
	return 0;
}

static int process_note(struct walk *w, pid_t pid)
{
	ino_t ns = netns_of(pid);
	size_t room = w->pids_room, at;

	if (!ns || ns == w->own)
		return 0;
	if (presence_note(w, ns) < 0)
		return -ENOMEM;
	if (id_index_get(&w->namespaces, ns, &at))
		return 0;
	pid_t *pids = grow(w->tree->pids, w->tree->n_pids, &room, sizeof(*pids));

	if (!pids)
		return -ENOMEM;
	w->tree->pids = pids;
	w->pids_room = room;
	w->tree->pids[w->tree->n_pids] = pid;
	return id_index_put(&w->namespaces, ns, w->tree->n_pids++);
}

/* Removed since it was listed. Anything else is a fault of ours: nothing is gone because we cannot look. */
static bool is_gone(int err)
{
	return err == ENOENT || err == ENODEV;
}

/* A list may be long, and a number be cut between two reads. */
static int processes_read(struct walk *w, int dir_fd)
{
	int fd = openat(dir_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC), r = 0;
	char buf[4096];
	pid_t pid = 0;
	ssize_t n;

	if (fd < 0)
		return is_gone(errno) ? 0 : -errno;
	/* Nothing can be read of a threaded cgroup. */
	while (!r && (n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t i = 0; i < n && !r; i++) {
			if (buf[i] >= '0' && buf[i] <= '9') {
				pid = pid * 10 + (buf[i] - '0');
				continue;
			}
			r = pid > 0 ? process_note(w, pid) : 0;
			pid = 0;
		}
	}
	close(fd);
	return r;
}

/* *leafp: there are no cgroups below it. */
static int node_add(struct walk *w, int fd, uint64_t parent, uint32_t depth, const char *path, bool *leafp)
{
	struct cgroup_node *nodes = grow(w->tree->nodes, w->tree->n_nodes, &w->nodes_room, sizeof(*nodes));
	struct stat st;

	if (!nodes)
		return -ENOMEM;
	w->tree->nodes = nodes;
	if (fstat(fd, &st) < 0)
		return -errno;
	/* The kernel counts directories below in the links of a directory. Reading one whole costs more than all else here. */
	*leafp = st.st_nlink == 2;
	nodes[w->tree->n_nodes] = (struct cgroup_node){
		.id = st.st_ino,
		.parent = parent,
		.depth = depth,
		.uid = st.st_uid,
		.mode = st.st_mode,
		.path = strdup(path),
	};
	if (!nodes[w->tree->n_nodes].path)
		return -ENOMEM;
	return id_index_put(&w->tree->index, st.st_ino, w->tree->n_nodes++);
}

static int is_left_out(const char *name, uint32_t depth)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (depth == 0 && strcmp(name, CGROUP_KEEPER) == 0);
}

/* Takes over fd. */
static int walk_directory(struct walk *w, int fd, uint64_t parent, uint32_t depth, const char *path)
{
	struct dirent *entry;
	bool leaf = false;
	uint64_t id;
	DIR *dir;
	int r;

	r = node_add(w, fd, parent, depth, path, &leaf);
	if (!r)
		w->cgroup_id = w->tree->nodes[w->tree->n_nodes - 1].id;
	if (!r && w->with_processes)
		r = processes_read(w, fd);
	dir = r || leaf ? NULL : fdopendir(fd);
	if (!dir) {
		/* What is below is not gone because there is no memory to read it. */
		r = r || leaf ? r : -errno;
		close(fd);
		return r;
	}
	id = w->tree->nodes[w->tree->n_nodes - 1].id;
	while (depth < MAX_DEPTH && (r = directory_next(dir, &entry)) > 0) {
		char below[4096];
		int child;

		if (entry->d_type != DT_DIR || is_left_out(entry->d_name, depth))
			continue;
		if (snprintf(below, sizeof(below), "%s/%s", depth ? path : "", entry->d_name) >= (int)sizeof(below))
			continue;
		child = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (child >= 0)
			r = walk_directory(w, child, id, depth + 1, below);
		else if (!is_gone(errno))
			r = -errno;
		if (r < 0)
			break;
	}
	closedir(dir);
	return r;
}

int cgroup_tree_read(struct cgroup_tree *tree, int root_fd, int with_processes)
{
	struct walk w = {.tree = tree, .own = netns_of(0), .with_processes = with_processes};
	int fd, r;

	*tree = (struct cgroup_tree){};
	fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = walk_directory(&w, fd, 0, 0, "/");
	id_index_clear(&w.namespaces);
	if (r)
		cgroup_tree_clear(tree);
	return r;
}

void cgroup_tree_clear(struct cgroup_tree *tree)
{
	for (size_t i = 0; i < tree->n_nodes; i++)
		free(tree->nodes[i].path);
	free(tree->nodes);
	free(tree->pids);
	free(tree->presences);
	id_index_clear(&tree->index);
	*tree = (struct cgroup_tree){};
}

const struct cgroup_node *cgroup_tree_find(const struct cgroup_tree *tree, uint64_t id)
{
	size_t at;

	return id_index_get(&tree->index, id, &at) ? &tree->nodes[at] : NULL;
}

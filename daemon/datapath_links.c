// SPDX-License-Identifier: Apache-2.0
/*
 * The programs that are attached, and the link of each. A link is pinned, so that it outlives the daemon; its program is
 * replaced in place, so that there is no moment without one.
 */
#include "datapath_internal.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "pins.h"

/* Attached in this order: what only notes comes before what denies by what was noted, and what lets go of it before what notes
 * it. What a kind of link is made from and recognized by: link_make(), link_is_ours(). The program of a link to the managed subtree
 * is replaced in place; to a tracepoint there is another link for another program, and for a moment both. */
static const struct attached {
	const char *name;
	enum bpf_link_type link;
} programs[] = {
	{"bh_tcp_end", BPF_LINK_TYPE_RAW_TRACEPOINT}, {"bh_sock_create", BPF_LINK_TYPE_CGROUP},
	{"bh_sock_release", BPF_LINK_TYPE_CGROUP},    {"bh_post_bind4", BPF_LINK_TYPE_CGROUP},
	{"bh_post_bind6", BPF_LINK_TYPE_CGROUP},      {"bh_sockops", BPF_LINK_TYPE_CGROUP},
	{"bh_connect4", BPF_LINK_TYPE_CGROUP},	      {"bh_connect6", BPF_LINK_TYPE_CGROUP},
	{"bh_sendmsg4", BPF_LINK_TYPE_CGROUP},	      {"bh_sendmsg6", BPF_LINK_TYPE_CGROUP},
	{"bh_ingress", BPF_LINK_TYPE_CGROUP},	      {"bh_egress", BPF_LINK_TYPE_CGROUP},
};
#define N_PROGRAMS (sizeof(programs) / sizeof(programs[0]))
_Static_assert(N_PROGRAMS <= DATAPATH_MAX_PROGRAMS, "room for the links");

static void link_path(const struct datapath *dp, const char *program, char *out, size_t size)
{
	snprintf(out, size, "%s/link_%s", dp->pin_dir, program);
}

static bool link_read(int fd, struct bpf_link_info *info)
{
	uint32_t len = sizeof(*info);

	*info = (struct bpf_link_info){};
	return fd >= 0 && bpf_obj_get_info_by_fd(fd, info, &len) == 0;
}

static bool link_is_ours(const struct datapath *dp, size_t i)
{
	struct bpf_link_info info;

	if (!link_read(dp->links[i], &info) || info.type != programs[i].link)
		return false;
	return info.type != BPF_LINK_TYPE_CGROUP || info.cgroup.cgroup_id == dp->config.cgroup_id;
}

/* What the link of a program is on, for the log. */
static const char *link_place(size_t i)
{
	return programs[i].link == BPF_LINK_TYPE_CGROUP ? "the managed subtree" : "the tracepoint tcp_destroy_sock";
}

static int link_make(const struct datapath *dp, size_t i, int program_fd)
{
	const struct bpf_program *program = bpf_object__find_program_by_name(dp->skeleton->obj, programs[i].name);
	LIBBPF_OPTS(bpf_link_create_opts, options);
	int fd;

	if (programs[i].link == BPF_LINK_TYPE_RAW_TRACEPOINT)
		fd = bpf_raw_tracepoint_open(NULL, program_fd); /* which one stands in the program's BTF */
	else
		fd = bpf_link_create(program_fd, dp->config.cgroup_fd, bpf_program__expected_attach_type(program),
				     &options);
	return fd < 0 ? -errno : fd;
}

/* The pinned link of a program, if it is still on our cgroup: a subtree that was removed and made again has another id,
 * and the old link enforces nothing there. Its pin stays until another takes its place. */
static void link_open(struct datapath *dp, size_t i)
{
	char path[DATAPATH_PATH_BYTES];

	link_path(dp, programs[i].name, path, sizeof(path));
	dp->links[i] = bpf_obj_get(path);
	if (dp->links[i] >= 0 && link_is_ours(dp, i))
		return;
	if (dp->links[i] >= 0)
		close(dp->links[i]);
	dp->links[i] = -1;
}

static uint32_t program_id(const struct datapath *dp, const char *name)
{
	struct bpf_program *program = bpf_object__find_program_by_name(dp->skeleton->obj, name);
	struct bpf_prog_info info = {};
	uint32_t len = sizeof(info);

	return program && bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &len) == 0 ? info.id : 0;
}

bool datapath_links_open(struct datapath *dp)
{
	bool adopted = true;

	/* Another build may have had other programs; without these two there is no enforcement to adopt. */
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		link_open(dp, i);
		if (strcmp(programs[i].name, "bh_ingress") == 0 || strcmp(programs[i].name, "bh_egress") == 0)
			adopted = adopted && dp->links[i] >= 0;
	}
	return adopted;
}

void datapath_links_close(struct datapath *dp)
{
	for (size_t i = 0; i < N_PROGRAMS; i++)
		if (dp->links[i] >= 0)
			close(dp->links[i]);
	datapath_links_settle(dp);
}

void datapath_links_settle(struct datapath *dp)
{
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		if (dp->replaced[i] >= 0)
			close(dp->replaced[i]);
		dp->replaced[i] = -1;
	}
}

/* Puts a program into the link, or into a new one, which takes the place of the old. */
static int link_set(struct datapath *dp, size_t i, int program_fd)
{
	char path[DATAPATH_PATH_BYTES];
	int fd, r;

	if (dp->links[i] >= 0 && programs[i].link == BPF_LINK_TYPE_CGROUP)
		return bpf_link_update(dp->links[i], program_fd, NULL) ? -errno : 0;
	fd = link_make(dp, i, program_fd);
	if (fd < 0)
		return fd;
	link_path(dp, programs[i].name, path, sizeof(path));
	r = pin_replace(path, fd);
	if (r < 0 && !dp->attached) {
		close(fd);
		return r;
	}
	/* While the daemon lives, the program enforces also without a pin; the next look sees that it is missing. */
	if (dp->replaced[i] >= 0)
		close(dp->replaced[i]);
	dp->replaced[i] = dp->links[i];
	dp->links[i] = fd;
	return 0;
}

/* Is the program of this build in the link? */
static bool link_is_current(const struct datapath *dp, size_t i)
{
	struct bpf_link_info info;

	return link_is_ours(dp, i) && link_read(dp->links[i], &info) &&
	       info.prog_id == program_id(dp, programs[i].name);
}

static int program_attach(struct datapath *dp, size_t i)
{
	const struct bpf_program *program = bpf_object__find_program_by_name(dp->skeleton->obj, programs[i].name);

	if (!program)
		return -ENOENT;
	return link_is_current(dp, i) ? 0 : link_set(dp, i, bpf_program__fd(program));
}

static void attach_failed(size_t i, int r, char *why, size_t why_size)
{
	snprintf(why, why_size, "cannot attach %s to %s: %s", programs[i].name, link_place(i), strerror(-r));
}

#define NO_LINK (-1) /* there was none yet */
#define NOT_KNOWN (-2)

/* The programs that the links have now, to be put back if not all can be replaced. */
static void former_read(const struct datapath *dp, int former[DATAPATH_MAX_PROGRAMS])
{
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		struct bpf_link_info info;

		former[i] = dp->links[i] < 0 ? NO_LINK : NOT_KNOWN;
		if (link_read(dp->links[i], &info)) {
			int fd = bpf_prog_get_fd_by_id(info.prog_id);

			former[i] = fd < 0 ? NOT_KNOWN : fd;
		}
	}
}

static void former_close(int former[DATAPATH_MAX_PROGRAMS])
{
	for (size_t i = 0; i < N_PROGRAMS; i++)
		if (former[i] >= 0)
			close(former[i]);
}

/* What was in force stays: all of it, not a part. */
static void programs_put_back(struct datapath *dp, const int former[DATAPATH_MAX_PROGRAMS], size_t n)
{
	char path[DATAPATH_PATH_BYTES];

	for (size_t i = 0; i < n; i++) {
		if (former[i] >= 0) {
			int r = link_set(dp, i, former[i]);

			if (r < 0)
				log_error("cannot put back the former program %s: %s", programs[i].name, strerror(-r));
			continue;
		}
		link_path(dp, programs[i].name, path, sizeof(path));
		unlink(path);
		close(dp->links[i]);
		dp->links[i] = -1;
	}
}

#define OTHERS_MAX 64

/* Another instance over the same part of the tree, or over more of it, judges here too, and knows none of our identities. */
static void others_tell(const struct datapath *dp)
{
	uint32_t ids[OTHERS_MAX] = {}, own = program_id(dp, "bh_egress");
	LIBBPF_OPTS(bpf_prog_query_opts, query, .query_flags = BPF_F_QUERY_EFFECTIVE, .prog_ids = ids,
		    .prog_cnt = OTHERS_MAX);

	if (bpf_prog_query_opts(dp->config.cgroup_fd, BPF_CGROUP_INET_EGRESS, &query) < 0)
		return;
	for (size_t i = 0; i < query.prog_cnt && i < OTHERS_MAX; i++) {
		int fd = ids[i] == own ? -1 : bpf_prog_get_fd_by_id(ids[i]);
		struct bpf_prog_info info = {};
		uint32_t len = sizeof(info);

		if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && strcmp(info.name, "bh_egress") == 0)
			log_warning("another instance of Bulkhead judges this subtree too (program id %u): what "
				    "either denies is denied, and neither knows the other's identities. Give each "
				    "its own part of the cgroup tree (--subtree), or end one: rm -r its pins",
				    ids[i]);
		if (fd >= 0)
			close(fd);
	}
}

int datapath_links_attach(struct datapath *dp, char *why, size_t why_size)
{
	int former[DATAPATH_MAX_PROGRAMS], r = 0;

	former_read(dp, former);
	for (size_t i = 0; i < N_PROGRAMS && r == 0; i++) {
		r = program_attach(dp, i);
		if (r < 0) {
			attach_failed(i, r, why, why_size);
			programs_put_back(dp, former, i);
		}
	}
	former_close(former);
	if (r == 0)
		others_tell(dp);
	return r;
}

bool datapath_links_hold(const struct datapath *dp, char *why, size_t why_size)
{
	char path[DATAPATH_PATH_BYTES];

	for (size_t i = 0; i < N_PROGRAMS; i++) {
		struct bpf_link_info info;

		link_path(dp, programs[i].name, path, sizeof(path));
		if (!link_is_ours(dp, i)) {
			snprintf(why, why_size, "the program %s was detached from %s", programs[i].name, link_place(i));
			return false;
		}
		if (!link_read(dp->links[i], &info) || info.prog_id != program_id(dp, programs[i].name)) {
			snprintf(why, why_size, "the program %s was replaced by another (id %u)", programs[i].name,
				 info.prog_id);
			return false;
		}
		if (!pin_names(path, dp->links[i])) {
			snprintf(why, why_size, DATAPATH_PIN_LOST, path);
			return false;
		}
	}
	return true;
}

void datapath_links_drop(struct datapath *dp)
{
	for (size_t i = 0; i < N_PROGRAMS; i++) {
		if (dp->links[i] < 0 || link_is_ours(dp, i))
			continue;
		close(dp->links[i]);
		dp->links[i] = -1;
	}
}

int datapath_links_restore(struct datapath *dp, char *why, size_t why_size)
{
	int r = 0;

	for (size_t i = 0; i < N_PROGRAMS; i++) {
		int r2 = program_attach(dp, i);

		if (r2 < 0 && r == 0)
			attach_failed(i, r2, why, why_size);
		r = r ? r : r2;
	}
	return r;
}

int datapath_links_pin(const struct datapath *dp)
{
	char path[DATAPATH_PATH_BYTES];
	int r = 0;

	for (size_t i = 0; i < N_PROGRAMS && r == 0; i++) {
		link_path(dp, programs[i].name, path, sizeof(path));
		if (!pin_names(path, dp->links[i]))
			r = pin_replace(path, dp->links[i]);
	}
	return r;
}

bool datapath_links_any(const struct datapath *dp)
{
	char path[DATAPATH_PATH_BYTES];

	for (size_t i = 0; i < N_PROGRAMS; i++) {
		link_path(dp, programs[i].name, path, sizeof(path));
		if (dp->links[i] >= 0 || access(path, F_OK) == 0)
			return true;
	}
	return false;
}

void datapath_links_remove_strange(const struct datapath *dp)
{
	DIR *dir = opendir(dp->pin_dir);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		bool known = strncmp(entry->d_name, "link_", 5) != 0;

		for (size_t i = 0; i < N_PROGRAMS && !known; i++)
			known = strcmp(entry->d_name + 5, programs[i].name) == 0;
		if (known)
			continue;
		if (unlinkat(dirfd(dir), entry->d_name, 0) == 0)
			log_info("removed %s/%s: this version has no such program", dp->pin_dir, entry->d_name);
	}
	if (dir)
		closedir(dir);
}

const char *datapath_program(const struct datapath *dp, size_t index, bool *attachedp)
{
	if (index >= N_PROGRAMS)
		return NULL;
	*attachedp = link_is_current(dp, index);
	return programs[index].name;
}

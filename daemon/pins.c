// SPDX-License-Identifier: Apache-2.0
#include "pins.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

int pins_directory_possible(const char *path)
{
	char there[1024];
	struct statfs fs;

	if (strlen(path) >= sizeof(there))
		return -ENAMETOOLONG;
	strcpy(there, path);
	while (statfs(there, &fs) < 0) {
		char *end = strrchr(there, '/');

		if (errno != ENOENT)
			return -errno;
		if (!end || end == there)
			return 0;
		*end = '\0';
	}
	return fs.f_type == BPF_FS_MAGIC;
}

int pins_directory_make(const char *path)
{
	char part[1024];

	if (strlen(path) >= sizeof(part))
		return -ENAMETOOLONG;
	strcpy(part, path);
	for (char *p = part + 1;; p++) {
		if (*p != '/' && *p != '\0')
			continue;
		char end = *p;

		*p = '\0';
		if (mkdir(part, 0700) < 0 && errno != EEXIST)
			return -errno;
		if (!end)
			return 0;
		*p = end;
	}
}

/* How the information on a map, a program and a link begins. Two objects of different kinds may have one id, and even one type:
 * their information differs in length. */
struct identity {
	uint32_t type;
	uint32_t id;
	uint32_t len;
};

static bool identity_of(int fd, struct identity *identity)
{
	union {
		struct bpf_map_info map;
		struct bpf_link_info link;
		struct bpf_prog_info prog;
	} info;
	uint32_t len = sizeof(info);

	memset(&info, 0, sizeof(info));
	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return false;
	*identity = (struct identity){.type = info.map.type, .id = info.map.id, .len = len};
	return true;
}

bool pin_names(const char *path, int fd)
{
	struct identity wanted, found;
	int pinned = bpf_obj_get(path);
	bool same = pinned >= 0 && identity_of(fd, &wanted) && identity_of(pinned, &found) &&
		    memcmp(&wanted, &found, sizeof(wanted)) == 0;

	if (pinned >= 0)
		close(pinned);
	return same;
}

int pin_replace(const char *path, int fd)
{
	char fresh[1300];

	/* bpffs takes no dots. */
	if (snprintf(fresh, sizeof(fresh), "%s_new", path) >= (int)sizeof(fresh))
		return -ENAMETOOLONG;
	if (unlink(fresh) < 0 && errno != ENOENT)
		return -errno;
	if (bpf_obj_pin(fd, fresh))
		return -errno;
	return rename(fresh, path) < 0 ? -errno : 0;
}

// SPDX-License-Identifier: Apache-2.0
#include "mounts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void file_closep(FILE **filep)
{
	if (*filep)
		fclose(*filep);
}

/* mountinfo writes space, tab, newline and backslash as three octal digits (proc(5)). */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*out++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

int mount_find(const char *type, char *path, size_t path_size, char *root, size_t root_size)
{
	__attribute__((cleanup(file_closep))) FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[8192], mount_root[4096], mount_point[4096];

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		char *dash = strstr(line, " - ");
		size_t len = strlen(type);

		if (!dash || strncmp(dash + 3, type, len) != 0 || dash[3 + len] != ' ')
			continue;
		if (sscanf(line, "%*d %*d %*s %4095s %4095s", mount_root, mount_point) != 2)
			continue;
		unescape(mount_root);
		unescape(mount_point);
		if (strlen(mount_point) >= path_size || (root && strlen(mount_root) >= root_size))
			continue;
		strcpy(path, mount_point);
		if (root)
			strcpy(root, mount_root);
		return 0;
	}
	return -ENOENT;
}

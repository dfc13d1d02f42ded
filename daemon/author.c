// SPDX-License-Identifier: Apache-2.0
#include "author.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "privileges.h"

/* Who asks may have as many ancestors and descriptors as they like: we do not look at all of them. */
#define MAX_ANCESTORS 32
#define MAX_NAMES 6
#define MAX_DESCRIPTORS 65536

struct process {
	char comm[16];
	pid_t parent;
};

/* A file of /proc, of which the beginning is enough. Returns how many bytes, or -1. */
static ssize_t proc_read(pid_t pid, const char *file, char *out, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, out, size - 1);
	close(fd);
	if (n >= 0)
		out[n] = '\0';
	return n;
}

/* PID (COMM) STATE PPID ...; COMM may hold anything, also ")". */
static int process_read(pid_t pid, struct process *process)
{
	char text[512], *first, *last;
	int parent;
	size_t len;

	if (proc_read(pid, "stat", text, sizeof(text)) <= 0)
		return -1;
	first = strchr(text, '(');
	last = strrchr(text, ')');
	if (!first || !last || last < first || sscanf(last + 1, " %*c %d", &parent) != 1)
		return -1;
	len = (size_t)(last - first - 1);
	if (len >= sizeof(process->comm))
		len = sizeof(process->comm) - 1;
	memcpy(process->comm, first + 1, len);
	process->comm[len] = '\0';
	for (char *p = process->comm; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			*p = '?';
	process->parent = parent;
	return 0;
}

static void via_add(struct author *author, const char *comm)
{
	size_t len = strlen(author->via);

	snprintf(author->via + len, sizeof(author->via) - len, "%s%s", len ? " < " : "", comm);
}

static int socket_add(struct author *author, size_t *room, uint64_t inode)
{
	if (author->n_sockets == *room) {
		size_t more = *room ? 2 * *room : 64;
		uint64_t *sockets = reallocarray(author->sockets, more, sizeof(*sockets));

		if (!sockets)
			return -ENOMEM;
		author->sockets = sockets;
		*room = more;
	}
	author->sockets[author->n_sockets++] = inode;
	return 0;
}

static void sockets_read(struct author *author, pid_t pid, size_t *room, unsigned *seen)
{
	char path[64], target[64];
	unsigned long long inode;
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	while (dir && *seen < MAX_DESCRIPTORS && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		(*seen)++;
		if (n <= 0)
			continue;
		target[n] = '\0';
		if (sscanf(target, "socket:[%llu]", &inode) == 1 && socket_add(author, room, inode) < 0)
			break;
	}
	if (dir)
		closedir(dir);
}

static int inode_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static bool has_ended(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	return pidfd >= 0 && poll(&p, 1, 0) > 0;
}

void author_read(struct author *author, uid_t uid, pid_t pid, int pidfd)
{
	unsigned seen = 0, names = 0;
	struct process process;
	char text[32];
	size_t room = 0;

	*author = (struct author){.uid = uid, .pid = pid, .login_uid = AUTHOR_NO_LOGIN};
	privileges_raise();
	if (proc_read(pid, "loginuid", text, sizeof(text)) > 0)
		author->login_uid = (uint32_t)strtoul(text, NULL, 10);
	/* The first process of all is nobody's session. */
	for (unsigned i = 0; i < MAX_ANCESTORS && pid > 1 && process_read(pid, &process) == 0; i++) {
		if (names++ < MAX_NAMES)
			via_add(author, process.comm);
		sockets_read(author, pid, &room, &seen);
		pid = process.parent;
	}
	privileges_lower();
	if (has_ended(pidfd)) {
		author_clear(author);
		*author = (struct author){.uid = uid, .pid = author->pid, .login_uid = AUTHOR_NO_LOGIN};
	}
	if (author->n_sockets)
		qsort(author->sockets, author->n_sockets, sizeof(*author->sockets), inode_order);
}

void author_clear(struct author *author)
{
	free(author->sockets);
	author->sockets = NULL;
	author->n_sockets = 0;
}

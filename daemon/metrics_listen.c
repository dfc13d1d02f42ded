/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

#define QUEUE 64
/* For the role of a daemon that was killed, which listens until it has seen that its daemon is gone. */
#define LEFT_BEHIND_MS 2000
#define LOOK_MS 20

static bool port_read(const char *text, in_port_t *port)
{
	unsigned long n;
	char *end;

	if (*text < '1' || *text > '9')
		return false;
	n = strtoul(text, &end, 10);
	*port = htons((in_port_t)n);
	return !*end && n <= 65535;
}

int metrics_address_read(const char *text, union metrics_address *out)
{
	char host[INET6_ADDRSTRLEN];
	const char *colon = strrchr(text, ':');
	size_t len;

	memset(out, 0, sizeof(*out));
	if (strcmp(text, METRICS_OFF) == 0)
		return 0;
	if (*text == '/') {
		if (strlen(text) >= sizeof(out->un.sun_path))
			return -1;
		out->un.sun_family = AF_UNIX;
		strcpy(out->un.sun_path, text);
		return sizeof(out->un);
	}
	if (!colon)
		return -1;
	len = (size_t)(colon - text);
	if (len == 5 && strncmp(text, "[::1]", 5) == 0) {
		out->in6.sin6_family = AF_INET6;
		out->in6.sin6_addr = in6addr_loopback;
		return port_read(colon + 1, &out->in6.sin6_port) ? (int)sizeof(out->in6) : -1;
	}
	if (len >= sizeof(host))
		return -1;
	memcpy(host, text, len);
	host[len] = '\0';
	out->in.sin_family = AF_INET;
	if (inet_pton(AF_INET, host, &out->in.sin_addr) != 1 || ntohl(out->in.sin_addr.s_addr) >> 24 != IN_LOOPBACKNET)
		return -1;
	return port_read(colon + 1, &out->in.sin_port) ? (int)sizeof(out->in) : -1;
}

/* Does somebody listen there? */
static bool is_served(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool served =
		fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN);

	if (fd >= 0)
		close(fd);
	return served;
}

/* A socket where nobody listens is a dead daemon's. Anything else is not ours to remove. */
static int stale_remove(const struct sockaddr_un *address)
{
	struct stat st;

	if (lstat(address->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	if (is_served(address))
		return -EADDRINUSE;
	return unlink(address->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int group_open(const char *path, const char *name)
{
	const struct group *group = getgrnam(name);

	if (!group)
		return 0;
	if (lchown(path, (uid_t)-1, group->gr_gid) < 0)
		return -errno;
	return chmod(path, 0660) < 0 ? -errno : 0;
}

static int bind_unix(int fd, const union metrics_address *address, const char *group)
{
	int r = stale_remove(&address->un);
	mode_t mask;

	if (r < 0)
		return r;
	mask = umask(0177);
	r = bind(fd, &address->any, sizeof(address->un)) < 0 ? -errno : 0;
	umask(mask);
	return r < 0 ? r : group_open(address->un.sun_path, group);
}

static int bind_to(int fd, const union metrics_address *address, socklen_t len, const char *group)
{
	int one = 1;

	if (address->any.sa_family == AF_UNIX)
		return bind_unix(fd, address, group);
	/* Connections of the daemon before us may still be closing. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return bind(fd, &address->any, len) < 0 ? -errno : 0;
}

int metrics_listen(int *fdp, const char *text, const char *group)
{
	union metrics_address address;
	int len = metrics_address_read(text, &address), fd, r;

	*fdp = -1;
	if (len <= 0)
		return len < 0 ? -EINVAL : 0;
	fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	r = fd < 0 ? -errno : 0;
	if (r == 0)
		r = bind_to(fd, &address, (socklen_t)len, group);
	if (r == -EADDRINUSE)
		log_info("metrics on %s: a process has the place; waiting for %d s, as one of a daemon that was killed "
			 "may",
			 text, LEFT_BEHIND_MS / 1000);
	for (int ms = 0; r == -EADDRINUSE && ms < LEFT_BEHIND_MS; ms += LOOK_MS) {
		poll(NULL, 0, LOOK_MS);
		r = bind_to(fd, &address, (socklen_t)len, group);
	}
	if (r == 0 && listen(fd, QUEUE) < 0)
		r = -errno;
	if (r == 0) {
		*fdp = fd;
		return 0;
	}
	log_error("cannot tell metrics on %s: %s%s", text, strerror(-r),
		  r == -EEXIST	     ? "; what is there is no socket: choose another path"
		  : r == -EADDRINUSE ? "; another process has it: choose another"
				     : "");
	if (fd >= 0)
		close(fd);
	return r;
}

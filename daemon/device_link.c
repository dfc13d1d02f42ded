// SPDX-License-Identifier: Apache-2.0
#include "device_link.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of linux/bpf.h since 6.6. */
#define ATTACH_TCX_INGRESS 46U
#define ATTACH_TCX_EGRESS 47U
#define LINK_TYPE_TCX 11U
#define FLAG_BEFORE (1U << 3)

/* The part of union bpf_attr that BPF_LINK_CREATE reads for tcx. */
struct link_create {
	uint32_t program_fd;
	uint32_t ifindex;
	uint32_t attach_type;
	uint32_t flags;
	uint32_t relative;
	uint32_t pad;
	uint64_t expected_revision;
};

/* The beginning of struct bpf_link_info, likewise. */
struct link_info {
	uint32_t type;
	uint32_t id;
	uint32_t program_id;
	uint32_t pad;
	uint32_t ifindex;
	uint32_t attach_type;
	uint8_t rest[64];
};

struct info_request {
	uint32_t fd;
	uint32_t len;
	uint64_t info;
};

static uint32_t attach_type(enum device_hook hook)
{
	return hook == DEVICE_FROM ? ATTACH_TCX_INGRESS : ATTACH_TCX_EGRESS;
}

int device_link_make(int program_fd, uint32_t ifindex, enum device_hook hook)
{
	/* Without a relative: before all. */
	struct link_create attr = {
		.program_fd = (uint32_t)program_fd,
		.ifindex = ifindex,
		.attach_type = attach_type(hook),
		.flags = FLAG_BEFORE,
	};
	long fd = syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));

	if (fd >= 0)
		return (int)fd;
	/* Before 6.6 no attach type of that number is known. */
	return errno == EINVAL || errno == ENOTSUP ? -EOPNOTSUPP : -errno;
}

bool device_link_holds(int link_fd, uint32_t ifindex, enum device_hook hook, uint32_t *program_id)
{
	struct link_info info = {};
	struct info_request attr = {.fd = (uint32_t)link_fd, .len = sizeof(info), .info = (uint64_t)(uintptr_t)&info};

	if (link_fd < 0 || syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof(attr)) != 0)
		return false;
	if (program_id)
		*program_id = info.program_id;
	return info.type == LINK_TYPE_TCX && info.ifindex == ifindex && info.attach_type == attach_type(hook);
}

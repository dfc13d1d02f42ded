// SPDX-License-Identifier: Apache-2.0
#include "tcp_entry.h"

#include <bpf/bpf.h>
#include <errno.h>

int tcp_entry_ask(int program_fd, enum bh_tcp_wish wish, const struct bh_tcp *tcp)
{
	struct bh_tcp_request request = {.wish = wish, .tcp = *tcp};
	LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = &request, .ctx_size_in = sizeof(request));

	if (bpf_prog_test_run_opts(program_fd, &options))
		return -errno;
	return options.retval ? 1 : 0;
}

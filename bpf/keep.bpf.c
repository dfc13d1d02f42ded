// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * keep.bpf.c - what the enforcer does to the entries of TCP sockets while other programs use them: to carry them over from another
 * build's maps, and to let go of those whose end nobody was told. Here, so that there is one text of the rules (tcp_state.h).
 */
#include "tcp_state.h"

/* All but the cookie and `use`. `pass` goes last: who sees it sees the rest. */
static __always_inline void entry_fill(struct bh_tcp *t, const struct bh_tcp_request *from)
{
	bh_tcp_stop(t);
	t->valid_until_ns = from->tcp.valid_until_ns;
	t->word = from->tcp.word;
	t->kind = from->tcp.kind;
	t->proof = from->tcp.proof;
	t->reason = from->tcp.reason;
	t->verdict = from->tcp.verdict;
	t->answered = from->tcp.answered;
	t->asked = from->tcp.asked;
	t->known = from->tcp.known;
	t->released = from->tcp.released;
	t->identity = from->tcp.identity;
	t->peer = from->tcp.peer;
	t->peer_tag = from->tcp.peer_tag;
	t->subject_tag = from->tcp.subject_tag;
	t->netns = from->tcp.netns;
	t->cgroup = from->tcp.cgroup;
	t->cell = from->tcp.cell;
	t->isn = from->tcp.isn;
	t->lport = from->tcp.lport;
	t->rport = from->tcp.rport;
	t->local = from->tcp.local;
	t->remote = from->tcp.remote;
	bh_publish(&t->pass, from->tcp.pass);
}

static __always_inline int entry_add(const struct bh_tcp_request *from, __u64 cookie)
{
	struct bh_tcp *t = bh_tcp_find(cookie);

	if (t)
		return 0;
	t = bh_tcp_place(cookie);
	if (!t)
		return 1;
	entry_fill(t, from);
	__sync_fetch_and_or(&t->use, BH_TCP_USE_CARRIED);
	bh_publish(&t->cookie, cookie);
	return 0;
}

/* It may have been used again since the daemon looked. */
static __always_inline bool may_be_gone(const struct bh_tcp *t)
{
	return t->released || t->kind == BH_SOCK_PASSIVE || t->kind == BH_SOCK_EARLY;
}

SEC("syscall")
int bh_keep_tcp(struct bh_tcp_request *request)
{
	__u64 cookie = request->tcp.cookie;
	struct bh_tcp *t;

	if (request->wish == BH_TCP_ADD)
		return entry_add(request, cookie);
	t = bh_tcp_find(cookie);
	if (!t)
		return 0;
	if (request->wish == BH_TCP_RENEW) {
		if (bh_tcp_write_begin(t, cookie)) {
			entry_fill(t, request);
			bh_tcp_write_end(t);
		}
	} else if (request->wish == BH_TCP_REMOVE || may_be_gone(t)) {
		bh_tcp_drop_entry(t, cookie);
	}
	return 0;
}

char LICENSE[] SEC("license") __weak = "Dual BSD/GPL";

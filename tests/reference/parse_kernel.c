/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse_kernel.c - what the kernel's packet parser says of a table of packets, and of random ones, against the reference.
 *
 *   parse_kernel OBJECT PACKETS      as root; the object is parse.bpf.o
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/reference/parse.h"

struct kernel {
	struct bpf_object *object;
	int program;
	struct parse_result *result;
	unsigned long asked;
	unsigned long understood;
	unsigned long refused; /* the kernel would not run a program on it: too short for its IP header */
	unsigned wrong;
};

static bool kernel_open(struct kernel *kernel, const char *path)
{
	kernel->object = bpf_object__open_file(path, NULL);
	if (!kernel->object || bpf_object__load(kernel->object) != 0)
		return false;
	kernel->program = bpf_program__fd(bpf_object__find_program_by_name(kernel->object, "parse_one"));
	kernel->result = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED,
			      bpf_object__find_map_fd_by_name(kernel->object, "result"), 0);
	return kernel->program >= 0 && kernel->result != MAP_FAILED;
}

/* Returns false if the kernel does not run programs on such a packet. */
static bool kernel_parse(struct kernel *kernel, const struct ref_packet *packet)
{
	uint8_t frame[ETH_HLEN + REF_PACKET_MAX] = {};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = (uint32_t)(ETH_HLEN + packet->len));

	frame[12] = (uint8_t)(packet->ethertype >> 8);
	frame[13] = (uint8_t)packet->ethertype;
	memcpy(frame + ETH_HLEN, packet->bytes, packet->len);
	memset(kernel->result, 0xa5, sizeof(*kernel->result));
	if (bpf_prog_test_run_opts(kernel->program, &options) == 0)
		return true;
	if (errno != EINVAL) {
		perror("BPF_PROG_TEST_RUN");
		exit(1);
	}
	kernel->refused++;
	return false;
}

static bool is_equal(const struct parse_result *a, const struct parse_result *b)
{
	return a->reason == b->reason && (a->reason || memcmp(a, b, sizeof(*a)) == 0);
}

static void report(const struct ref_packet *packet, const struct parse_result *want, const struct parse_result *got)
{
	fprintf(stderr, "  the reference says reason %d, protocol %u at %u; the kernel %d, %u at %u\n  %04x ",
		want->reason, want->proto, want->transport, got->reason, got->proto, got->transport, packet->ethertype);
	for (size_t i = 0; i < packet->len; i++)
		fprintf(stderr, "%02x", packet->bytes[i]);
	fputc('\n', stderr);
}

/* Both parsers have to agree, and where the table says so (reason >= 0), on this. */
static void check(struct kernel *kernel, const struct ref_packet *packet, const char *what, int reason, int protocol)
{
	struct parse_result want = ref_parse(packet), got;

	if (reason >= 0 && (want.reason != reason || (!reason && want.proto != protocol))) {
		fprintf(stderr, "%s: the table says reason %d, protocol %d\n", what, reason, protocol);
		report(packet, &want, &want);
		kernel->wrong++;
	}
	if (!kernel_parse(kernel, packet))
		return;
	got = *kernel->result;
	kernel->asked++;
	kernel->understood += !got.reason;
	if (is_equal(&want, &got))
		return;
	fprintf(stderr, "%s: they differ\n", what);
	report(packet, &want, &got);
	kernel->wrong++;
}

/* ---- the table ---- */

enum { UNDERSTOOD = 0, PARSE = BH_REASON_PARSE, FRAGMENTED = BH_REASON_FRAGMENT };
enum { HOPOPTS = IPPROTO_HOPOPTS, ROUTING = IPPROTO_ROUTING, DSTOPTS = IPPROTO_DSTOPTS, NOTHING = 256 };
#define EXPERIMENT 253

static const struct row {
	const char *what;
	int chain[12]; /* extension headers, ended by NOTHING */
	int last;
	int reason;
} rows[] = {
	{"tcp", {NOTHING}, IPPROTO_TCP, UNDERSTOOD},
	{"udp", {NOTHING}, IPPROTO_UDP, UNDERSTOOD},
	{"icmpv6", {NOTHING}, IPPROTO_ICMPV6, UNDERSTOOD},
	{"sctp", {NOTHING}, IPPROTO_SCTP, UNDERSTOOD},
	{"udp-lite", {NOTHING}, IPPROTO_UDPLITE, UNDERSTOOD},
	{"a protocol of no name", {NOTHING}, EXPERIMENT, UNDERSTOOD},
	{"esp", {NOTHING}, IPPROTO_ESP, UNDERSTOOD},
	{"esp after destination options", {DSTOPTS, NOTHING}, IPPROTO_ESP, UNDERSTOOD},
	{"ah", {NOTHING}, IPPROTO_AH, UNDERSTOOD},
	{"ah after hop-by-hop options", {HOPOPTS, NOTHING}, IPPROTO_AH, UNDERSTOOD},
	{"mobility, which is not walked", {NOTHING}, 135, UNDERSTOOD},
	{"ipv4 of the wrong icmp", {NOTHING}, IPPROTO_ICMP, PARSE},
	{"no next header", {NOTHING}, IPPROTO_NONE, PARSE},
	{"no next header after options", {DSTOPTS, NOTHING}, IPPROTO_NONE, PARSE},
	{"fragment", {NOTHING}, IPPROTO_FRAGMENT, FRAGMENTED},
	{"fragment after options", {DSTOPTS, NOTHING}, IPPROTO_FRAGMENT, FRAGMENTED},
	{"fragment as the ninth",
	 {DSTOPTS, DSTOPTS, DSTOPTS, DSTOPTS, DSTOPTS, DSTOPTS, DSTOPTS, DSTOPTS, NOTHING},
	 IPPROTO_FRAGMENT,
	 FRAGMENTED},
	{"hop-by-hop options, then the others", {HOPOPTS, DSTOPTS, ROUTING, DSTOPTS, NOTHING}, IPPROTO_UDP, UNDERSTOOD},
	{"hop-by-hop options in the second place", {DSTOPTS, HOPOPTS, NOTHING}, IPPROTO_UDP, PARSE},
	{"hop-by-hop options twice", {HOPOPTS, HOPOPTS, NOTHING}, IPPROTO_UDP, PARSE},
};

static void make(struct ref_packet *packet, const int *chain, unsigned n, int last, unsigned units)
{
	ref_packet_ipv6(packet, (uint8_t)(n ? chain[0] : last));
	for (unsigned i = 0; i < n; i++)
		ref_packet_extension(packet, (uint8_t)chain[i], (uint8_t)(i + 1 < n ? chain[i + 1] : last), units);
	ref_packet_transport(packet, (uint8_t)last);
	ref_packet_finish(packet);
}

static void check_rows(struct kernel *kernel)
{
	struct ref_packet packet;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		unsigned n = 0;

		while (rows[i].chain[n] != NOTHING)
			n++;
		make(&packet, rows[i].chain, n, rows[i].last, 1);
		check(kernel, &packet, rows[i].what, rows[i].reason, rows[i].last);
	}
}

/* 0 to 8 extension headers of each kind, and 9, with each kind of what may follow, and cut after every byte. */
static void check_chains(struct kernel *kernel)
{
	static const int kinds[] = {HOPOPTS, ROUTING, DSTOPTS},
			 lasts[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6, EXPERIMENT};
	struct ref_packet packet;
	char what[96];
	int chain[9];

	for (size_t k = 0; k < 3; k++)
		for (unsigned n = 0; n <= 9; n++)
			for (size_t l = 0; l < 4; l++)
				for (unsigned units = 1; units <= 3; units++) {
					for (unsigned i = 0; i < 9; i++)
						chain[i] = i && kinds[k] == HOPOPTS ? DSTOPTS : kinds[k];
					make(&packet, chain, n, lasts[l], units);
					snprintf(what, sizeof(what), "%u headers like %d of %u bytes before %d", n,
						 kinds[k], units * 8, lasts[l]);
					check(kernel, &packet, what, n == 9 ? PARSE : UNDERSTOOD, lasts[l]);
					/* Without its last 4 bytes, which are payload, TCP and UDP are whole. */
					for (size_t len = packet.len - (l < 2 ? 5 : 1); len; len--) {
						packet.len = len;
						check(kernel, &packet, what, PARSE, 0);
					}
				}
}

static void check_lengths(struct kernel *kernel)
{
	static const int lasts[] = {IPPROTO_TCP, EXPERIMENT, IPPROTO_ICMPV6};
	static const uint8_t jumbo[] = {0xc2, 4, 0, 1, 0, 0};
	struct ref_packet packet;
	int chain = HOPOPTS;

	for (size_t i = 0; i < 3; i++) {
		make(&packet, &chain, 1, lasts[i], 1);
		memcpy(packet.bytes + 42, jumbo, sizeof(jumbo));
		packet.bytes[4] = packet.bytes[5] = 0;
		check(kernel, &packet, "a jumbogram", PARSE, 0);
		make(&packet, NULL, 0, lasts[i], 1);
		packet.bytes[4] = packet.bytes[5] = 0;
		check(kernel, &packet, "a length of 0 without the option", PARSE, 0);
	}
	make(&packet, NULL, 0, EXPERIMENT, 1);
	packet.bytes[5]++;
	check(kernel, &packet, "a length beyond the packet", PARSE, 0);
	packet.bytes[5] -= 2;
	check(kernel, &packet, "a length within the packet", PARSE, 0);
	chain = ROUTING;
	make(&packet, &chain, 1, IPPROTO_UDP, 1);
	packet.bytes[43] = 1;
	check(kernel, &packet, "a segment left", PARSE, 0);
	make(&packet, NULL, 0, IPPROTO_UDP, 1);
	packet.bytes[0] = 0x40;
	check(kernel, &packet, "version 4 in an IPv6 packet", PARSE, 0);
}

static void check_ipv4(struct kernel *kernel)
{
	static const struct {
		const char *what;
		size_t at;
		uint8_t value;
		int reason;
	} changes[] = {
		{"as it is", 8, 64, UNDERSTOOD},
		{"don't fragment", 6, 0x40, UNDERSTOOD},
		{"more fragments", 6, 0x20, FRAGMENTED},
		{"a later fragment", 7, 1, FRAGMENTED},
		{"a far later fragment", 6, 1, FRAGMENTED},
		{"options", 0, 0x46, PARSE},
		{"a short header", 0, 0x44, PARSE},
		{"version 6", 0, 0x65, PARSE},
	};
	static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_SCTP, IPPROTO_GRE, 0, 255};
	struct ref_packet packet;

	for (size_t p = 0; p < sizeof(protocols); p++)
		for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
			ref_packet_ipv4(&packet, protocols[p]);
			ref_packet_transport(&packet, protocols[p]);
			ref_packet_finish(&packet);
			packet.bytes[changes[i].at] = changes[i].value;
			check(kernel, &packet, changes[i].what, changes[i].reason, protocols[p]);
		}
	ref_packet_ipv4(&packet, IPPROTO_ICMPV6);
	ref_packet_transport(&packet, IPPROTO_ICMPV6);
	ref_packet_finish(&packet);
	check(kernel, &packet, "icmpv6 over ipv4", PARSE, 0);
}

int main(int argc, char **argv)
{
	struct kernel kernel = {};
	struct ref_packet packet;
	uint64_t seed = 0x9e3779b97f4a7c15ULL;
	unsigned long n_table;

	if (argc != 3) {
		fprintf(stderr, "usage: parse_kernel OBJECT PACKETS\n");
		return 2;
	}
	if (!kernel_open(&kernel, argv[1])) {
		perror("cannot load the program");
		return 1;
	}
	check_rows(&kernel);
	check_chains(&kernel);
	check_lengths(&kernel);
	check_ipv4(&kernel);
	n_table = kernel.asked;
	for (unsigned long n = strtoul(argv[2], NULL, 10); n && kernel.wrong < 10; n--) {
		ref_packet_random(&packet, &seed);
		check(&kernel, &packet, "random", -1, 0);
	}
	printf("%lu packets of the table, %lu random ones; %lu understood, %lu too short to be run, %u wrong\n",
	       n_table, kernel.asked - n_table, kernel.understood, kernel.refused, kernel.wrong);
	bpf_object__close(kernel.object);
	return kernel.wrong != 0;
}

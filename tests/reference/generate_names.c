/* SPDX-License-Identifier: Apache-2.0 */
/*
 * generate_names.c - random identities, networks and services, as structures and as text.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "tests/reference/generate.h"

void make_id(struct ref_policy *policy, char *out, bool pattern)
{
	static const char *const domains[] = {"a.example", "b.example"};
	static const char *const segments[] = {"x", "y", "z", "xy"};
	int n = 1 + (int)ref_random(policy, 4);

	sprintf(out, "spiffe://%s", domains[ref_random(policy, 2)]);
	for (int i = 0; i < n; i++) {
		const char *segment = segments[ref_random(policy, 4)];

		if (pattern && ref_random(policy, 3) == 0)
			segment = i == n - 1 && ref_random(policy, 2) ? "**" : "*";
		sprintf(out + strlen(out), "/%s", segment);
	}
}

/* ---- sets of identities ---- */

struct ref_set *set_new(struct writer *w)
{
	struct ref_policy *policy = w->policy;

	if (policy->n_sets == (int)(sizeof(policy->sets) / sizeof(policy->sets[0])))
		abort();
	return &policy->sets[policy->n_sets++];
}

/* An operand: a name, a pattern, `verified`, or algebra again. `known`: identities that may be named. */
static struct ref_set *make_operand(struct writer *w, int known, int depth)
{
	struct ref_set *set;
	int choice = below(w, 8);

	if (choice == 0 && depth < 2)
		return make_algebra(w, known, depth + 1);
	set = set_new(w);
	if (choice == 1) {
		set->op = REF_VERIFIED;
		fputs("verified", w->now);
	} else if (choice == 2 || !known) {
		set->op = REF_PATTERN;
		make_id(w->policy, set->pattern, true);
		fprintf(w->now, "\"%s\"", set->pattern);
	} else {
		set->op = REF_NAME;
		set->identity = below(w, known);
		fprintf(w->now, "id%d", set->identity);
	}
	return set;
}

struct ref_set *make_algebra(struct writer *w, int known, int depth)
{
	static const enum ref_op ops[] = {REF_ANY_OF, REF_ALL_OF, REF_NOT};
	static const char *const words[] = {"any", "all", "not"};
	struct ref_set *set = set_new(w);
	int choice = below(w, 3);

	set->op = ops[choice];
	set->n = set->op == REF_NOT ? 1 : 1 + below(w, 3);
	fprintf(w->now, "{%s: %s", words[choice], set->op == REF_NOT ? "" : "[");
	for (int i = 0; i < set->n; i++) {
		fputs(i ? ", " : "", w->now);
		set->operands[i] = make_operand(w, known, depth);
	}
	fputs(set->op == REF_NOT ? "}" : "]}", w->now);
	return set;
}

void make_identity(struct writer *w, int number)
{
	struct ref_identity *identity = &w->policy->identities[number];
	int kind = below(w, 8);

	fprintf(w->now, "  id%d: ", number);
	if (kind < 2 && number) {
		identity->set = make_algebra(w, number, 0);
		fputc('\n', w->now);
		return;
	}
	identity->local = kind < 4 ? 1 + below(w, 2) : 0;
	identity->n_patterns = identity->local && below(w, 2) ? 0 : 1 + below(w, 3);
	identity->bound = !identity->local && below(w, 4) == 0;
	fputs(identity->bound ? "{spiffe: [" : "[", w->now);
	if (identity->local)
		fprintf(w->now, identity->local == 1 ? "{unit: s%d.service}" : "{cgroup: /c/%d}", number);
	for (int i = 0; i < identity->n_patterns; i++) {
		make_id(w->policy, identity->patterns[i], true);
		fprintf(w->now, "%s\"%s\"", i || identity->local ? ", " : "", identity->patterns[i]);
	}
	fputs(identity->bound ? "], only: {unit: u.service}}\n" : "]\n", w->now);
}

/* ---- networks ---- */

void make_address(struct ref_policy *policy, unsigned char bytes[16], bool v4)
{
	static const unsigned char first[] = {0, 10, 192, 255};

	memset(bytes, 0, 16);
	if (v4) {
		bytes[0] = first[ref_random(policy, 4)];
		bytes[1] = (unsigned char)(ref_random(policy, 3) ? ref_random(policy, 4) : 255);
		bytes[2] = (unsigned char)(ref_random(policy, 2) * 255);
		bytes[3] = (unsigned char)ref_random(policy, 4);
		return;
	}
	/* Around ::ffff:0:0/96 too: what looks like IPv4 is IPv4, and its neighbours are not. */
	if (ref_random(policy, 3) == 0) {
		bytes[10] = ref_random(policy, 2) ? 0xff : 0xfe;
		bytes[11] = 0xfe;
		bytes[15] = (unsigned char)ref_random(policy, 3);
		return;
	}
	bytes[0] = ref_random(policy, 2) ? 0x20 : 0xfd;
	bytes[1] = (unsigned char)ref_random(policy, 2);
	bytes[7] = (unsigned char)ref_random(policy, 3);
	bytes[8] = (unsigned char)(ref_random(policy, 2) * 0x80);
	bytes[15] = (unsigned char)(ref_random(policy, 2) ? ref_random(policy, 4) : 255);
}

static void make_cidr(struct writer *w, struct ref_cidr *cidr)
{
	static const int prefixes4[] = {0, 1, 8, 9, 16, 23, 24, 31, 32};
	static const int prefixes6[] = {0, 1, 7, 16, 48, 64, 65, 95, 127, 128};
	char text[64];

	cidr->v4 = below(w, 2);
	make_address(w->policy, cidr->bytes, cidr->v4);
	cidr->prefix = cidr->v4 ? prefixes4[below(w, 9)] : prefixes6[below(w, 10)];
	for (int bit = cidr->prefix; bit < 128; bit++)
		cidr->bytes[bit / 8] &= (unsigned char)~(0x80 >> bit % 8);
	inet_ntop(cidr->v4 ? AF_INET : AF_INET6, cidr->bytes, text, sizeof(text));
	fprintf(w->now, "\"%s/%d\"", text, cidr->prefix);
}

static bool cidr_covers(const struct ref_cidr *wide, const struct ref_cidr *narrow)
{
	if (wide->v4 != narrow->v4 || wide->prefix > narrow->prefix)
		return false;
	for (int bit = 0; bit < wide->prefix; bit++)
		if ((wide->bytes[bit / 8] ^ narrow->bytes[bit / 8]) >> (7 - bit % 8) & 1)
			return false;
	return true;
}

/* An empty network is an error: what is excepted must not cover what is included. The check is coarse, and enough. */
static bool network_may_be_empty(const struct ref_network *network)
{
	for (int i = 0; i < network->n; i++)
		for (int j = 0; j < network->n_except; j++)
			if (cidr_covers(&network->except[j], &network->cidrs[i]) ||
			    (network->n_except > 1 && network->except[j].v4 == network->cidrs[i].v4))
				return true;
	return false;
}

void make_network(struct writer *w, int number)
{
	struct ref_network *network = &w->policy->networks[number];
	char *text = NULL;
	size_t size;
	FILE *out = w->now;

	network->map = below(w, 3) == 0;
	network->n = 1 + below(w, 3);
	w->now = open_memstream(&text, &size);
	fprintf(w->now, "%s[", network->map ? "{include: " : "");
	for (int i = 0; i < network->n; i++) {
		fputs(i ? ", " : "", w->now);
		make_cidr(w, &network->cidrs[i]);
	}
	fputs("]", w->now);
	if (network->map) {
		fflush(w->now);
		long at = ftell(w->now);

		network->n_except = 1 + below(w, 2);
		fputs(", except: [", w->now);
		for (int i = 0; i < network->n_except; i++) {
			fputs(i ? ", " : "", w->now);
			make_cidr(w, &network->except[i]);
		}
		fputs("]", w->now);
		if (network_may_be_empty(network)) {
			fseek(w->now, at, SEEK_SET);
			network->n_except = 0;
		}
		fputs("}", w->now);
	}
	fclose(w->now);
	w->now = out;
	fprintf(out, "  net%d: %.*s\n", number, (int)size, text);
	free(text);
}

/* ---- services ---- */

const int generate_ports[GENERATE_PORTS] = {1, 79, 80, 81, 79, 80, 81, 443, 65534, 65535};

static void make_ports(struct writer *w, struct ref_service *service)
{
	service->low = generate_ports[below(w, GENERATE_PORTS)];
	service->high = generate_ports[below(w, GENERATE_PORTS)];
	if (service->high <= service->low)
		service->high = service->low;
	fprintf(w->now, service->high > service->low ? "/%d-%d" : "/%d", service->low, service->high);
}

static void make_type(struct writer *w, struct ref_service *service)
{
	static const struct {
		const char *name;
		int v4, v6;
	} types[] = {
		{"echo-request", 8, 128}, {"echo-reply", 0, 129},	{"destination-unreachable", 3, 1},
		{"time-exceeded", 11, 3}, {"parameter-problem", 12, 4},
	};
	bool v6 = service->protocol == IPPROTO_ICMPV6;
	int choice = below(w, 7);

	if (choice < 5) {
		service->low = v6 ? types[choice].v6 : types[choice].v4;
		fprintf(w->now, "/%s", types[choice].name);
	} else {
		service->low = choice == 5 ? 8 : below(w, 256);
		fprintf(w->now, "/%d", service->low);
	}
	service->high = service->low;
}

void make_service(struct writer *w, struct ref_service *service)
{
	static const struct {
		const char *name;
		int protocol;
	} protocols[] = {
		{"tcp", IPPROTO_TCP},	{"tcp", IPPROTO_TCP},	    {"udp", IPPROTO_UDP}, {"sctp", IPPROTO_SCTP},
		{"icmp", IPPROTO_ICMP}, {"icmpv6", IPPROTO_ICMPV6}, {"proto", 0},
	};
	int choice = below(w, 7);

	service->protocol = protocols[choice].protocol;
	service->low = service->high = -1;
	fputs(protocols[choice].name, w->now);
	if (choice == 6) {
		static const int numbers[] = {2, 47, 50, 0, 255};

		service->protocol = numbers[below(w, 5)];
		fprintf(w->now, "/%d", service->protocol);
	} else if (below(w, 5) == 0) {
		return;
	} else if (choice < 4) {
		make_ports(w, service);
	} else {
		make_type(w, service);
	}
}

void make_service_name(struct writer *w, int number)
{
	struct ref_service_name *name = &w->policy->services[number];

	name->n = 1 + below(w, 3);
	fprintf(w->now, "  svc%d: [", number);
	for (int i = 0; i < name->n; i++) {
		fputs(i ? ", " : "", w->now);
		make_service(w, &name->items[i]);
	}
	fputs("]\n", w->now);
}

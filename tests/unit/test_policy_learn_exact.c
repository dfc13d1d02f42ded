/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was recorded is allowed by what is learned from it, and nothing else: random records.
 */
#include "learn_case.h"

static uint64_t random_state = 88172645463325252ULL;

static uint32_t rnd(uint32_t n)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)((random_state * 0x2545f4914f6cdd1dULL) >> 33) % n;
}

#define MAX_PEERS 14
#define MAX_SERVICES 5

struct record {
	int n_peers, n_services;
	char peers[MAX_PEERS][120];
	char services[MAX_SERVICES][20];
	bool seen[MAX_PEERS][MAX_PEERS][MAX_SERVICES];
};

static void random_peer(char out[120])
{
	static const char *const kinds[] = {"web", "db", "api"};
	unsigned where = rnd(8);

	switch (rnd(8)) {
	case 0:
	case 1:
		snprintf(out, 120, "10.0.0.%u", where);
		break;
	case 2:
		snprintf(out, 120, "2001:db8::%u", where);
		break;
	case 3:
		snprintf(out, 120, "host@10.0.0.%u", where);
		break;
	case 4:
		snprintf(out, 120, "%s@10.0.0.%u", rnd(2) ? "backup" : "cron", where);
		break;
	default:
		snprintf(out, 120, TD "%s/%u@10.0.0.%u", kinds[rnd(3)], rnd(4), where);
	}
}

static bool is_workload(const char *peer)
{
	return strncmp(peer, "spiffe", 6) == 0 || strncmp(peer, "backup", 6) == 0 || strncmp(peer, "cron", 4) == 0;
}

static void random_record(struct record *record)
{
	*record = (struct record){.n_peers = 3 + (int)rnd(MAX_PEERS - 3), .n_services = 1 + (int)rnd(MAX_SERVICES)};
	for (int i = 0; i < record->n_peers; i++)
		random_peer(record->peers[i]);
	for (int i = 0; i < record->n_services; i++)
		snprintf(record->services[i], sizeof(record->services[i]), "%s/%u", rnd(4) ? "tcp" : "udp", 1 + rnd(6));
	/* Some products, and some that stand alone; only of flows that somebody judges. */
	for (int product = (int)rnd(5); product >= 0; product--) {
		uint32_t from = rnd(1U << record->n_peers), to = rnd(1U << record->n_peers);
		uint32_t services = rnd(1U << record->n_services);

		for (int i = 0; i < record->n_peers; i++)
			for (int j = 0; j < record->n_peers; j++)
				for (int k = 0; k < record->n_services; k++)
					record->seen[i][j][k] |=
						from >> i & to >> j & services >> k & 1 && (!product || rnd(20)) &&
						(is_workload(record->peers[i]) || is_workload(record->peers[j]));
	}
}

/* Was it recorded, of these two or of two that are the same? An identity is the same wherever it is. */
static const char *identity_of(const char *peer, char out[120])
{
	char *at;

	snprintf(out, 120, "%s", peer);
	at = strchr(out, '@');
	if (at)
		*at = 0;
	return out;
}

static bool same_peer(const char *a, const char *b)
{
	char x[120], y[120];

	return strcmp(identity_of(a, x), identity_of(b, y)) == 0;
}

static bool was_recorded(const struct record *record, int from, int to, int service)
{
	for (int i = 0; i < record->n_peers; i++)
		for (int j = 0; j < record->n_peers; j++)
			for (int k = 0; k < record->n_services; k++)
				if (record->seen[i][j][k] && same_peer(record->peers[i], record->peers[from]) &&
				    same_peer(record->peers[j], record->peers[to]) &&
				    strcmp(record->services[k], record->services[service]) == 0)
					return true;
	return false;
}

static void learn_record(const struct record *record, bool half)
{
	for (int i = 0; i < record->n_peers; i++)
		for (int j = 0; j < record->n_peers; j++)
			for (int k = 0; k < record->n_services; k++)
				if (record->seen[i][j][k] && (!half || (i + j + k) % 2))
					saw(record->peers[i], record->peers[j], record->services[k]);
	if (learn_place(learn, "backup", "/system.slice/backup.service") < 0 || learn_place(learn, "cron", "/cron") < 0)
		fail();
}

/* A peer takes part in the comparison if he is in the record: of others the policy knows nothing. */
static bool takes_part(const struct record *record, int peer)
{
	for (int i = 0; i < record->n_peers; i++)
		for (int k = 0; k < record->n_services; k++)
			if (record->seen[peer][i][k] || record->seen[i][peer][k])
				return true;
	return false;
}

static int verdict_of(const struct policy *policy, const struct record *record, int i, int j, int k)
{
	return verdict(policy, record->peers[i], record->peers[j], record->services[k]);
}

static void what_was_recorded_is_allowed_and_nothing_else(void **state)
{
	unsigned allowed = 0, denied = 0;

	(void)state;
	for (int round = 0; round < 700; round++) {
		struct record record;
		struct policy *policy;

		random_record(&record);
		begin(NULL, false);
		learn_record(&record, false);
		policy = parse(finish(), NULL);
		for (int i = 0; i < record.n_peers; i++)
			for (int j = 0; j < record.n_peers; j++)
				for (int k = 0; k < record.n_services; k++) {
					int expected = was_recorded(&record, i, j, k), found;

					if (!takes_part(&record, i) || !takes_part(&record, j))
						continue;
					found = verdict_of(policy, &record, i, j, k);
					if (found >= 0 && found != expected)
						fail_msg("round %d: %s to %s on %s is %s\n%s", round, record.peers[i],
							 record.peers[j], record.services[k],
							 found ? "allowed" : "denied", text);
					allowed += found == 1;
					denied += found == 0;
				}
		policy_freep(&policy);
	}
	assert_true(allowed > 5000 && denied > 5000);
}

static void what_is_added_to_a_policy_is_what_was_missing(void **state)
{
	unsigned added = 0;

	(void)state;
	for (int round = 0; round < 500; round++) {
		struct record record;
		struct policy *policy;
		char *first;

		random_record(&record);
		begin(NULL, false);
		learn_record(&record, true);
		first = strdup(finish());
		begin(first, false);
		learn_record(&record, false);
		policy = parse(first, finish());
		for (int i = 0; i < record.n_peers; i++)
			for (int j = 0; j < record.n_peers; j++)
				for (int k = 0; k < record.n_services; k++) {
					int found = verdict_of(policy, &record, i, j, k);

					if (!takes_part(&record, i) || !takes_part(&record, j))
						continue;
					if (record.seen[i][j][k] && found == 0)
						fail_msg("round %d: %s to %s on %s is denied\n%s\n%s", round,
							 record.peers[i], record.peers[j], record.services[k], first,
							 text);
					if (found != 1 || was_recorded(&record, i, j, k))
						continue;
					if (verdict_of(against, &record, i, j, k) == 0)
						fail_msg("round %d: %s to %s on %s is allowed\n%s\n%s", round,
							 record.peers[i], record.peers[j], record.services[k], first,
							 text);
				}
		added += count_rules() > 0;
		policy_freep(&policy);
		free(first);
	}
	assert_true(added > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_recorded_is_allowed_and_nothing_else),
		cmocka_unit_test(what_is_added_to_a_policy_is_what_was_missing),
	};

	return cmocka_run_group_tests(tests, NULL, teardown);
}

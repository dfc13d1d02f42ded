/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The identity role as it runs: a process of its own, sandboxed, with a real socket. The test plays the enforcer at one
 * side and workloads at the other: what is promised to the honest, and what the enforcer is told. Those who cheat are in
 * test_role_identity_refusals.c, those who come in crowds in test_role_identity_limits.c.
 */
#include "role_world.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "identity/process.h"

static void proved_svid_asks_the_enforcer_for_a_tag(void **state)
{
	struct world *world = *state;
	struct workload workload = workload_start(world->path, world->chain, world->leaf.key);
	struct process_facts self, peer;
	struct timespec boot;
	struct answer answer;
	int pidfd;
	struct ipc_tag_request *request = answer_tag_request(world, ATTEST_OK, "tagged", &pidfd);
	int64_t seconds;

	assert_int_equal(process_query_self(&self), 0);
	assert_string_equal(request->spiffe_id, CERTS_ID);
	assert_string_equal(request->trust_domain, TD);
	assert_int_equal(request->cgroup_id, self.cgroup_id);
	assert_int_equal(request->pid, workload.pid);
	assert_int_equal(request->uid, getuid());
	clock_gettime(CLOCK_BOOTTIME, &boot);
	seconds = (int64_t)(request->deadline_ns / 1000000000) - boot.tv_sec;
	assert_true(seconds > CERTS_DAY - 60 && seconds <= CERTS_DAY);
	assert_true(request->not_after - time(NULL) <= seconds + 1);

	answer = workload_finish(&workload);
	assert_int_equal(answer.r, 0);
	assert_int_equal(answer.result.code, ATTEST_OK);
	assert_string_equal(answer.result.text, "tagged");
	assert_int_equal(answer.result.cgroup_id, self.cgroup_id);
	assert_int_equal(answer.result.valid_until, request->not_after);
	assert_true(answer.result.renew_after < answer.result.valid_until);
	assert_true(answer.result.renew_after > (uint64_t)time(NULL) + CERTS_DAY / 2 - 60);
	assert_int_equal(process_query(pidfd, &peer), -ESRCH);
	close(pidfd);
}

static void refusal_of_the_enforcer_reaches_the_workload(void **state)
{
	struct world *world = *state;
	struct workload workload = workload_start(world->path, world->chain, world->leaf.key);
	struct answer answer;
	int pidfd;

	answer_tag_request(world, ATTEST_E_BINDING, "not in this unit", &pidfd);
	close(pidfd);
	answer = workload_finish(&workload);
	assert_int_equal(answer.r, 0);
	assert_int_equal(answer.result.code, ATTEST_E_BINDING);
	assert_string_equal(answer.result.text, "not in this unit");
}

static void all_kinds_of_keys_can_prove(void **state)
{
	struct world *world = *state;
	EVP_PKEY *keys[] = {certs_key("P-384"), certs_key("P-521"), EVP_RSA_gen(2048),
			    EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		struct cert leaf = certs_leaf(&world->root, &(struct cert_spec){.key = keys[i]});
		struct svid_chain *chain = chain_of(&leaf);
		struct workload workload = workload_start(world->path, chain, keys[i]);
		int pidfd;

		answer_tag_request(world, ATTEST_OK, "tagged", &pidfd);
		close(pidfd);
		assert_int_equal(workload_finish(&workload).result.code, ATTEST_OK);
		svid_chain_freep(&chain);
		cert_free(&leaf);
		EVP_PKEY_free(keys[i]);
	}
}

static void last_good_bundle_outlives_a_broken_one(void **state)
{
	struct world *world = *state;
	struct raw *raw;
	int pidfd;

	assert_int_equal(give_bundle(world, TD, "broken"), -EINVAL);
	assert_true(((struct ipc_bundle_loaded *)world->packet)->why[0] != '\0');
	assert_int_equal(give_bundle(world, "NO/NAME", "broken"), -EINVAL);
	raw = raw_challenged(world);
	raw_prove(raw, world->leaf.key);
	answer_tag_request(world, ATTEST_OK, "tagged", &pidfd);
	close(pidfd);
	raw_expect_result(raw, ATTEST_OK);
	raw_free(raw);
}

static int give_one(struct world *world, const struct cert *authority)
{
	char *pem = certs_pem(&authority, 1);
	int n = give_bundle(world, TD, pem);

	free(pem);
	return n;
}

static void attest_once(struct world *world)
{
	struct raw *raw = raw_challenged(world);
	const struct ipc_tag_request *request;
	int pidfd;

	raw_prove(raw, world->leaf.key);
	request = answer_tag_request(world, ATTEST_OK, "tagged", &pidfd);
	close(pidfd);
	/* The authority that the test gave it, and until when the leaf is valid. */
	assert_memory_equal(request->vouchers[0].authority, world->authority.id,
			    sizeof(request->vouchers[0].authority));
	assert_int_equal(request->vouchers[0].not_after, request->not_after);
	assert_int_equal(request->vouchers[1].not_after, 0);
	raw_expect_result(raw, ATTEST_OK);
	raw_free(raw);
}

/* A rotation: first both, then only the new one. What is learned while both are there needs no haste later. */
static void an_authority_that_joins_is_found_to_vouch_for_who_is_there(void **state)
{
	struct world *world = *state;
	struct cert again = certs_ca(NULL, &(struct cert_spec){.subject = "root", .key = world->root.key});
	char *both = certs_pem((const struct cert *[]){&world->root, &again}, 2);
	const struct ipc_vouch *vouch = (const struct ipc_vouch *)world->packet;

	attest_once(world);
	assert_int_equal(give_bundle(world, TD, both), 2);
	assert_int_equal(world->n_vouches, 0);
	expect_packet(world, IPC_VOUCH);
	assert_int_equal(vouch->key, TAG_KEY);
	assert_memory_equal(vouch->vouchers[1].authority, world->authority.id, sizeof(vouch->vouchers[1].authority));
	assert_true(vouch->vouchers[0].not_after == vouch->vouchers[1].not_after && vouch->vouchers[0].not_after != 0);
	assert_int_equal(vouch->vouchers[2].not_after, 0);
	assert_int_equal(give_one(world, &again), 1);
	assert_int_equal(world->n_vouches, 0);
	free(both);
	cert_free(&again);
}

/* The bundle as it was, with an authority of the same name that has nothing to do with it, and none that vouches. */
static void who_else_vouches_for_an_identity_is_told_before_the_bundle_counts(void **state)
{
	struct world *world = *state;
	struct cert again = certs_ca(NULL, &(struct cert_spec){.subject = "root", .key = world->root.key});
	struct cert other = certs_ca(NULL, &(struct cert_spec){.subject = "root"});
	struct ipc_tag_ended ended = {.h = {IPC_TAG_ENDED, sizeof(ended)}, .key = TAG_KEY};

	attest_once(world);
	assert_int_equal(give_one(world, &world->root), 1);
	assert_int_equal(world->n_authorities, 1);
	assert_int_equal(world->n_vouches, 0); /* nothing changed */
	assert_int_equal(give_one(world, &other), 1);
	assert_int_equal(world->n_vouches, 0);
	assert_int_equal(give_one(world, &again), 1);
	assert_int_equal(world->n_vouches, 1);
	assert_int_equal(world->vouch.key, TAG_KEY);
	assert_memory_equal(world->vouch.vouchers[0].authority, world->authority.id,
			    sizeof(world->vouch.vouchers[0].authority));
	assert_true(world->vouch.vouchers[0].not_after > time(NULL));
	assert_int_equal(world->vouch.vouchers[1].not_after, 0);
	/* Of a tag that ended nothing is kept. */
	assert_int_equal(ipc_send(world->ipc, &ended, -1), 0);
	assert_int_equal(give_one(world, &world->root), 1);
	assert_int_equal(world->n_vouches, 0);
	cert_free(&again);
	cert_free(&other);
}

static void connection_stays_as_a_sign_of_life_only(void **state)
{
	struct world *world = *state;
	struct raw *raw = raw_challenged(world);
	struct pollfd readable = {.fd = raw->sock, .events = POLLIN};
	int pidfd;

	raw_prove(raw, world->leaf.key);
	answer_tag_request(world, ATTEST_OK, "tagged", &pidfd);
	close(pidfd);
	raw_expect_result(raw, ATTEST_OK);
	assert_int_equal(poll(&readable, 1, 100), 0);
	raw_send(raw, raw->hello, raw->hello_len);
	assert_int_equal(poll(&readable, 1, WAIT_MS), 1);
	assert_true(recv(raw->sock, raw->in, sizeof(raw->in), 0) <= 0);
	raw_free(raw);
}

/* What only the enforcer can find out, on an older kernel: that the role asks is tested where such a kernel is played, in
 * tests/e2e/test_attest.py. An answer that nobody asked for is nobody's. */
static void facts_that_nobody_asked_for_are_dropped(void **state)
{
	struct world *world = *state;
	struct ipc_peer_facts facts = {.h = {IPC_PEER_FACTS, sizeof(facts)}, .request = 77};
	int pair[2];
	char byte;

	assert_int_equal(pipe(pair), 0);
	assert_int_equal(ipc_send(world->ipc, &facts, pair[1]), 0);
	close(pair[1]);
	assert_int_equal(read(pair[0], &byte, 1), 0);
	close(pair[0]);
	expect_pong(world);
}

static void watchdog_ping_is_answered(void **state)
{
	expect_pong(*state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(proved_svid_asks_the_enforcer_for_a_tag),
		TEST(refusal_of_the_enforcer_reaches_the_workload),
		TEST(all_kinds_of_keys_can_prove),
		TEST(last_good_bundle_outlives_a_broken_one),
		TEST(an_authority_that_joins_is_found_to_vouch_for_who_is_there),
		TEST(who_else_vouches_for_an_identity_is_told_before_the_bundle_counts),
		TEST(connection_stays_as_a_sign_of_life_only),
		TEST(facts_that_nobody_asked_for_are_dropped),
		TEST(watchdog_ping_is_answered),
	};

	if (!world_can_run())
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

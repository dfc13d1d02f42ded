/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads that cheat, and what the identity role says to them: each refusal reaches the one who asked, and the enforcer.
 */
#include "role_world.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "identity/process.h"

static void broken_rule_is_named_to_workload_and_enforcer(void **state)
{
	struct world *world = *state;
	struct cert leaf = certs_leaf(&world->root, &(struct cert_spec){.san = "URI:spiffe://prod.example"});
	struct svid_chain *chain = chain_of(&leaf);
	struct workload workload = workload_start(world->path, chain, leaf.key);
	struct answer answer;

	expect_refusal_notice(world, ATTEST_E_SVID + 29);
	answer = workload_finish(&workload);
	assert_int_equal(answer.r, 0);
	assert_int_equal(answer.result.code, ATTEST_E_SVID + 29);
	assert_string_equal(answer.result.text, ((struct ipc_tag_request *)world->packet)->text);
	assert_ptr_equal(strstr(answer.result.text, "leaf-no-path (rule 29)"), answer.result.text);
	svid_chain_freep(&chain);
	cert_free(&leaf);
}

static void relayed_challenge_is_not_signed(void **state)
{
	struct world *world = *state;
	char path[120];
	struct workload victim;
	struct raw *to_daemon = calloc(1, sizeof(*to_daemon));
	struct answer answer;
	ssize_t n;
	int relay, from_victim;

	snprintf(path, sizeof(path), "%s/relay", world->dir);
	relay = listen_at(path);
	victim = workload_start(path, world->chain, world->leaf.key);
	from_victim = accept(relay, NULL, NULL);
	to_daemon->sock = raw_connect(world->path);
	n = recv(from_victim, to_daemon->hello, sizeof(to_daemon->hello), 0);
	assert_true(n > 0);
	raw_send(to_daemon, to_daemon->hello, (size_t)n);
	assert_true(raw_receive(to_daemon) > 0);
	assert_int_equal(send(from_victim, to_daemon->in, to_daemon->in_len, 0), to_daemon->in_len);
	answer = workload_finish(&victim);
	assert_int_equal(answer.r, -EPERM);
	assert_int_equal(recv(from_victim, to_daemon->in, sizeof(to_daemon->in), 0), 0);
	raw_free(to_daemon);
	close(from_victim);
	close(relay);
	unlink(path);
}

static void server_that_is_not_root_gets_no_hello(void **state)
{
	struct world *world = *state;
	char path[120];
	struct workload workload;
	struct answer answer;
	int fake;

	snprintf(path, sizeof(path), "%s/fake", world->dir);
	fake = listen_at(path);
	assert_int_equal(seteuid(65534), 0);
	assert_int_equal(listen(fake, 16), 0); /* the credentials are those of whoever called listen() last */
	assert_int_equal(seteuid(0), 0);
	workload = workload_start(path, world->chain, world->leaf.key);
	answer = workload_finish(&workload);
	assert_int_equal(answer.r, -EPERM);
	close(fake);
	unlink(path);
}

static void passed_connection_is_refused(void **state)
{
	struct world *world = *state;
	struct raw *raw = calloc(1, sizeof(*raw));
	pid_t other;
	int status;

	raw->sock = raw_connect(world->path);
	other = fork();
	if (other == 0) {
		raw_hello(raw, world);
		_exit(0);
	}
	raw_expect_result(raw, ATTEST_E_PEER_DIFFERS);
	expect_refusal_notice(world, ATTEST_E_PEER_DIFFERS);
	waitpid(other, &status, 0);
	raw_free(raw);
}

static void connection_of_a_dead_process_is_refused(void **state)
{
	struct world *world = *state;
	struct raw *raw = calloc(1, sizeof(*raw));
	int pair[2], status, fd = -1;
	_Alignas(8) uint8_t packet[IPC_MAX_PACKET];
	pid_t connector;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	connector = fork();
	if (connector == 0) {
		struct ipc_header header = {IPC_AUDIT_LOG, sizeof(header)};

		_exit(ipc_send(pair[1], &header, raw_connect(world->path)) != 0);
	}
	assert_int_equal(ipc_receive(pair[0], packet, &fd), IPC_AUDIT_LOG);
	waitpid(connector, &status, 0);
	raw->sock = fd;
	raw->hello_len = attest_hello_encode(raw->hello, sizeof(raw->hello), world->chain);
	send(raw->sock, raw->hello, raw->hello_len, MSG_NOSIGNAL);
	assert_true(raw_receive(raw) > 0);
	assert_int_equal(attest_result_decode(raw->in, raw->in_len, &raw->result), 0);
	assert_true(raw->result.code == ATTEST_E_PEER_GONE || raw->result.code == ATTEST_E_PEER_DIFFERS);
	expect_refusal_notice(world, raw->result.code);
	close(pair[0]);
	close(pair[1]);
	raw_free(raw);
}

static void process_that_changes_its_cgroup_is_refused(void **state)
{
	struct world *world = *state;
	char before[512] = "", other[128];
	struct raw *raw;

	if (cgroup2() == NULL)
		skip();
	own_cgroup(before, sizeof(before));
	cgroup_make(other, sizeof(other), 0);
	raw = raw_challenged(world);
	assert_int_equal(cgroup_enter(other), 0);
	raw_prove(raw, world->leaf.key);
	raw_expect_result(raw, ATTEST_E_CGROUP_MOVED);
	expect_refusal_notice(world, ATTEST_E_CGROUP_MOVED);
	assert_int_equal(cgroup_enter(before), 0);
	assert_int_equal(cgroup_remove(other), 0);
	raw_free(raw);
}

static void proof_by_another_key_is_refused(void **state)
{
	struct world *world = *state;
	EVP_PKEY *other = certs_key("P-256");
	struct raw *raw = raw_challenged(world);

	raw_prove(raw, other);
	raw_expect_result(raw, ATTEST_E_SIGNATURE);
	expect_refusal_notice(world, ATTEST_E_SIGNATURE);
	raw_free(raw);
	EVP_PKEY_free(other);
}

static void proof_of_another_challenge_is_refused(void **state)
{
	struct world *world = *state;
	struct raw *first = raw_challenged(world), *second = raw_challenged(world);
	uint8_t proof[1100];
	size_t len = raw_make_proof(first, world->leaf.key, proof, sizeof(proof));

	assert_memory_not_equal(first->challenge.nonce, second->challenge.nonce, sizeof(first->challenge.nonce));
	raw_send(second, proof, len);
	raw_expect_result(second, ATTEST_E_SIGNATURE);
	expect_refusal_notice(world, ATTEST_E_SIGNATURE);
	raw_free(first);
	raw_free(second);
}

static void unexpected_message_is_refused(void **state)
{
	struct world *world = *state;
	struct raw *garbage = calloc(1, sizeof(*garbage)), *twice = raw_challenged(world);
	static const uint8_t longest[ATTEST_MAX_PACKET + 1];

	garbage->sock = raw_connect(world->path);
	raw_send(garbage, "hello", 5);
	raw_expect_result(garbage, ATTEST_E_PROTOCOL);
	expect_refusal_notice(world, ATTEST_E_PROTOCOL);
	close(garbage->sock);
	garbage->sock = raw_connect(world->path);
	raw_send(garbage, longest, sizeof(longest));
	raw_expect_result(garbage, ATTEST_E_PROTOCOL);
	expect_refusal_notice(world, ATTEST_E_PROTOCOL);
	raw_hello(twice, world);
	raw_expect_result(twice, ATTEST_E_PROTOCOL);
	expect_refusal_notice(world, ATTEST_E_PROTOCOL);
	raw_free(garbage);
	raw_free(twice);
}

static unsigned descriptors_of(pid_t pid)
{
	char path[64];
	unsigned count = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	assert_non_null(dir);
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count;
}

static void descriptors_sent_along_are_refused_and_closed(void **state)
{
	struct world *world = *state;
	struct ipc_header header = {IPC_READY, sizeof(header)};
	unsigned before;

	expect_pong(world);
	before = descriptors_of(world->role);
	for (int i = 0; i < 3; i++) {
		struct raw *raw = calloc(1, sizeof(*raw));

		raw->sock = raw_connect(world->path);
		assert_int_equal(ipc_send(raw->sock, &header, raw->sock), 0);
		raw_expect_result(raw, ATTEST_E_PROTOCOL);
		expect_refusal_notice(world, ATTEST_E_PROTOCOL);
		raw_free(raw);
	}
	expect_pong(world);
	assert_int_equal(descriptors_of(world->role), before);
}

static void bundle_that_changes_meanwhile_is_asked_again(void **state)
{
	struct world *world = *state;
	struct raw *raw = raw_challenged(world);

	assert_int_equal(give_bundle(world, TD, NULL), 0);
	raw_prove(raw, world->leaf.key);
	raw_expect_result(raw, ATTEST_E_SVID + 75);
	expect_refusal_notice(world, ATTEST_E_SVID + 75);
	raw_free(raw);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(broken_rule_is_named_to_workload_and_enforcer),
		TEST(relayed_challenge_is_not_signed),
		TEST(server_that_is_not_root_gets_no_hello),
		TEST(passed_connection_is_refused),
		TEST(connection_of_a_dead_process_is_refused),
		TEST(process_that_changes_its_cgroup_is_refused),
		TEST(proof_by_another_key_is_refused),
		TEST(proof_of_another_challenge_is_refused),
		TEST(unexpected_message_is_refused),
		TEST(descriptors_sent_along_are_refused_and_closed),
		TEST(bundle_that_changes_meanwhile_is_asked_again),
	};

	if (!world_can_run())
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

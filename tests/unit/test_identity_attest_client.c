/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side of an attestation, against daemons that are not what they should be: a thread of this test serves, as root, and
 * says what a row of a table says. What has to hold in all of them: nothing is signed that was not asked for by a challenge made
 * for this process, this cgroup and this leaf. How it goes with the daemon's own code is in test_role_identity*.c.
 */
#include "role_world.h"

#include <errno.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "identity/process.h"

#define CLIENT_TIMEOUT_MS 5000

/* What this daemon does. */
struct play {
	void (*change)(struct attest_challenge *); /* of the challenge as it should be */
	const void *first;			   /* in place of the challenge */
	size_t first_len;
	const void *second; /* in place of the result */
	size_t second_len;
	bool refuses_unread;	 /* says no before it has read anything */
	bool silent, deaf, cuts; /* says nothing; ends unread; ends instead of the result */
};

/* What came of it. */
struct outcome {
	int r;
	struct attest_result result;
	char why[256];
	bool proved, proof_holds;
	int fd;
};

struct stage {
	char dir[64], path[100];
	int listener;
	struct cert leaf;
	struct svid_chain *chain;
	const struct play *play;
	struct outcome outcome;
};

static int stage_setup(void **state)
{
	struct stage *stage = calloc(1, sizeof(*stage));

	strcpy(stage->dir, "/tmp/bulkhead-test-XXXXXX");
	assert_non_null(mkdtemp(stage->dir));
	snprintf(stage->path, sizeof(stage->path), "%s/attest.sock", stage->dir);
	stage->listener = listen_at(stage->path);
	stage->leaf = certs_leaf(NULL, &(struct cert_spec){0});
	stage->chain = chain_of(&stage->leaf);
	*state = stage;
	return 0;
}

static int stage_teardown(void **state)
{
	struct stage *stage = *state;

	close(stage->listener);
	unlink(stage->path);
	rmdir(stage->dir);
	svid_chain_freep(&stage->chain);
	cert_free(&stage->leaf);
	free(stage);
	return 0;
}

/* ---- the daemon: no assertions, as they would end this thread only ---- */

static size_t challenge_make(const struct stage *stage, uint8_t *out, size_t size)
{
	struct attest_challenge challenge = {.ttl_ms = ATTEST_TTL_MS, .nonce = {1, 2, 3}};
	struct process_facts self;
	size_t len;
	const uint8_t *der = svid_chain_der(stage->chain, 0, &len);

	if (process_query_self(&self) < 0)
		return 0;
	challenge.cgroup_id = self.cgroup_id;
	challenge.pidfd_inode = self.inode;
	challenge.sigalg = attest_sigalg_for(stage->leaf.key);
	SHA256(der, len, challenge.leaf_sha256);
	if (stage->play->change != NULL)
		stage->play->change(&challenge);
	return attest_challenge_encode(out, size, &challenge);
}

static bool proof_holds(const struct stage *stage, const uint8_t *proof, size_t len, const struct raw *raw)
{
	const uint8_t *sig;
	uint16_t sigalg;
	size_t sig_len;

	return attest_proof_decode(proof, len, &sigalg, &sig, &sig_len) == 0 &&
	       attest_verify(stage->leaf.key, sigalg, raw->hello, raw->hello_len, raw->in, raw->in_len, sig, sig_len) ==
		       0;
}

static size_t result_make(uint8_t *out, size_t size, unsigned code, const char *text)
{
	struct attest_result result = {.code = code};

	strcpy(result.text, text);
	return attest_result_encode(out, size, &result);
}

static void serve_proof(struct stage *stage, int fd, const struct raw *raw)
{
	uint8_t packet[1024];
	ssize_t n = recv(fd, packet, sizeof(packet), 0);

	stage->outcome.proved = n > 0;
	stage->outcome.proof_holds = n > 0 && proof_holds(stage, packet, (size_t)n, raw);
	if (stage->play->second != NULL)
		send(fd, stage->play->second, stage->play->second_len, MSG_NOSIGNAL);
	else if (!stage->play->cuts)
		send(fd, packet, result_make(packet, sizeof(packet), ATTEST_OK, "tagged"), MSG_NOSIGNAL);
}

/* As the daemon does when it is full. */
static void refuse_unread(int fd)
{
	uint8_t packet[1024];

	shutdown(fd, SHUT_RD);
	while (recv(fd, packet, sizeof(packet), MSG_DONTWAIT) > 0)
		;
	send(fd, packet, result_make(packet, sizeof(packet), ATTEST_E_FULL, "all places are taken"), MSG_NOSIGNAL);
}

static void serve_messages(struct stage *stage, int fd, struct raw *raw)
{
	const struct play *play = stage->play;
	ssize_t n = recv(fd, raw->hello, sizeof(raw->hello), 0);

	raw->hello_len = n > 0 ? (size_t)n : 0;
	if (play->silent)
		return;
	if (play->first != NULL) {
		send(fd, play->first, play->first_len, MSG_NOSIGNAL);
	} else {
		raw->in_len = challenge_make(stage, raw->in, sizeof(raw->in));
		send(fd, raw->in, raw->in_len, MSG_NOSIGNAL);
	}
	serve_proof(stage, fd, raw);
}

static void *serve(void *arg)
{
	struct stage *stage = arg;
	struct raw *raw = calloc(1, sizeof(*raw));
	int fd = accept(stage->listener, NULL, NULL);
	uint8_t byte;

	if (stage->play->refuses_unread)
		refuse_unread(fd);
	else if (!stage->play->deaf)
		serve_messages(stage, fd, raw);
	if (stage->play->silent)
		stage->outcome.proved = recv(fd, &byte, 1, 0) > 0;
	close(fd);
	free(raw);
	return NULL;
}

/* ---- the client ---- */

static struct outcome *attest(struct stage *stage, const struct play *play, bool keep)
{
	struct outcome *outcome = &stage->outcome;
	pthread_t thread;

	*outcome = (struct outcome){.fd = -1};
	stage->play = play;
	assert_int_equal(pthread_create(&thread, NULL, serve, stage), 0);
	outcome->r = attest_client(stage->path, stage->chain, stage->leaf.key, &outcome->result,
				   keep ? &outcome->fd : NULL, outcome->why, sizeof(outcome->why));
	assert_int_equal(pthread_join(thread, NULL), 0);
	return outcome;
}

static void expect_nothing_signed(const struct outcome *outcome, int r)
{
	assert_int_equal(outcome->r, r);
	assert_false(outcome->proved);
	assert_true(outcome->why[0] != '\0');
}

static void a_challenge_for_this_process_is_proved(void **state)
{
	const struct outcome *outcome = attest(*state, &(struct play){0}, true);
	char byte;

	assert_int_equal(outcome->r, 0);
	assert_true(outcome->proof_holds);
	assert_int_equal(outcome->result.code, ATTEST_OK);
	assert_string_equal(outcome->result.text, "tagged");
	assert_true(outcome->fd >= 0);
	assert_int_equal(recv(outcome->fd, &byte, 1, 0), 0); /* it is the connection */
	close(outcome->fd);
}

static void other_cgroup(struct attest_challenge *challenge)
{
	challenge->cgroup_id++;
}

static void other_process(struct attest_challenge *challenge)
{
	challenge->pidfd_inode++;
}

static void other_leaf(struct attest_challenge *challenge)
{
	challenge->leaf_sha256[31] ^= 1;
}

static void what_is_asked_for_somebody_else_is_not_signed(void **state)
{
	static const struct {
		void (*change)(struct attest_challenge *);
		const char *why;
	} rows[] = {
		{other_cgroup, "the challenge is for cgroup "},
		{other_process, "the challenge is for another process: "},
		{other_leaf, "the challenge is for another certificate: "},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct outcome *outcome = attest(*state, &(struct play){.change = rows[i].change}, true);

		expect_nothing_signed(outcome, -EPERM);
		assert_ptr_equal(strstr(outcome->why, rows[i].why), outcome->why);
		assert_non_null(strstr(outcome->why, "nothing was signed"));
		assert_int_equal(outcome->fd, -1);
	}
}

static void no_process(struct attest_challenge *challenge)
{
	challenge->pidfd_inode = 0;
}

/* An older kernel; it is the same cgroup, and so the same identity. */
static void a_daemon_that_cannot_tell_the_process_is_told_by_the_cgroup(void **state)
{
	const struct outcome *outcome = attest(*state, &(struct play){.change = no_process}, false);

	assert_int_equal(outcome->r, 0);
	assert_true(outcome->proof_holds);
}

static void algorithm_of_another_kind_of_key(struct attest_challenge *challenge)
{
	challenge->sigalg = 0x0807; /* Ed25519 */
}

static void unknown_algorithm(struct attest_challenge *challenge)
{
	challenge->sigalg = 0x0201; /* RSA with SHA-1 */
}

static void a_key_signs_by_its_own_algorithm_only(void **state)
{
	expect_nothing_signed(attest(*state, &(struct play){.change = algorithm_of_another_kind_of_key}, false),
			      -EKEYREJECTED);
	expect_nothing_signed(attest(*state, &(struct play){.change = unknown_algorithm}, false), -EKEYREJECTED);
}

static void what_is_no_challenge_ends_it(void **state)
{
	static const uint8_t zeros[2000];
	uint8_t good[1024];
	size_t good_len = result_make(good, sizeof(good), ATTEST_OK, "");
	const struct play plays[] = {
		{.first = "nonsense", .first_len = 8},
		{.first = zeros, .first_len = 300},
		{.first = good, .first_len = good_len}, /* nobody is told that all is well before there is a proof */
		{.first = zeros, .first_len = sizeof(zeros)},
	};

	for (size_t i = 0; i < sizeof(plays) / sizeof(plays[0]); i++)
		expect_nothing_signed(attest(*state, &plays[i], false), -EBADMSG);
}

static void a_refusal_comes_in_place_of_a_challenge(void **state)
{
	uint8_t no[1024];
	size_t len = result_make(no, sizeof(no), ATTEST_E_SVID + 29, "leaf-no-path");
	const struct outcome *outcome = attest(*state, &(struct play){.first = no, .first_len = len}, false);

	assert_int_equal(outcome->r, 0);
	assert_int_equal(outcome->result.code, ATTEST_E_SVID + 29);
	assert_string_equal(outcome->result.text, "leaf-no-path");
	assert_false(outcome->proved);
}

/* Whether sending fails by it or not. */
static void a_refusal_that_comes_before_the_question_is_heard(void **state)
{
	for (int i = 0; i < 50; i++) {
		const struct outcome *outcome = attest(*state, &(struct play){.refuses_unread = true}, false);

		assert_int_equal(outcome->r, 0);
		assert_int_equal(outcome->result.code, ATTEST_E_FULL);
		assert_string_equal(outcome->result.text, "all places are taken");
	}
}

static void a_daemon_that_goes_away_gave_no_answer(void **state)
{
	expect_nothing_signed(attest(*state, &(struct play){.deaf = true}, false), -ECONNRESET);
	assert_int_equal(attest(*state, &(struct play){.cuts = true}, true)->r, -ECONNRESET);
	assert_int_equal(((struct stage *)*state)->outcome.fd, -1);
}

static void what_is_no_result_is_no_identity(void **state)
{
	static const uint8_t zeros[2000];
	struct stage *stage = *state;
	uint8_t challenge[1024];
	size_t len;
	struct play plays[3] = {{.second = "nonsense", .second_len = 8}, {.second = zeros, .second_len = 40}};

	stage->play = &plays[0];
	len = challenge_make(stage, challenge, sizeof(challenge));
	plays[2] = (struct play){.second = challenge, .second_len = len};
	for (size_t i = 0; i < sizeof(plays) / sizeof(plays[0]); i++) {
		const struct outcome *outcome = attest(stage, &plays[i], true);

		assert_int_equal(outcome->r, -EBADMSG);
		assert_true(outcome->why[0] != '\0');
		assert_int_equal(outcome->fd, -1);
	}
}

static void a_server_that_is_not_root_is_told_nothing(void **state)
{
	struct stage *stage = *state;
	const struct outcome *outcome;

	/* The credentials are those of whoever called listen() last. */
	assert_int_equal(seteuid(65534), 0);
	assert_int_equal(listen(stage->listener, 16), 0);
	assert_int_equal(seteuid(0), 0);
	outcome = attest(stage, &(struct play){0}, false);
	expect_nothing_signed(outcome, -EPERM);
	assert_non_null(strstr(outcome->why, "is served by uid 65534, not by root"));
}

static long long monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void a_daemon_that_says_nothing_is_waited_for_5_seconds(void **state)
{
	long long begun = monotonic_ms(), took;
	const struct outcome *outcome = attest(*state, &(struct play){.silent = true}, false);

	took = monotonic_ms() - begun;
	expect_nothing_signed(outcome, -ETIMEDOUT);
	assert_non_null(strstr(outcome->why, "within 5 s"));
	assert_true(took >= CLIENT_TIMEOUT_MS && took < CLIENT_TIMEOUT_MS + WAIT_MS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, stage_setup, stage_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_challenge_for_this_process_is_proved),
		TEST(what_is_asked_for_somebody_else_is_not_signed),
		TEST(a_daemon_that_cannot_tell_the_process_is_told_by_the_cgroup),
		TEST(a_key_signs_by_its_own_algorithm_only),
		TEST(what_is_no_challenge_ends_it),
		TEST(a_refusal_comes_in_place_of_a_challenge),
		TEST(a_refusal_that_comes_before_the_question_is_heard),
		TEST(a_daemon_that_goes_away_gave_no_answer),
		TEST(what_is_no_result_is_no_identity),
		TEST(a_server_that_is_not_root_is_told_nothing),
		TEST(a_daemon_that_says_nothing_is_waited_for_5_seconds),
	};

	if (!world_can_run())
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads that come in crowds, that stall, or that are refused by the hundred: what they cost the others. Each crowd has a
 * cgroup of its own, as workloads have.
 */
#include "role_world.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/attest_places.h"
#include "daemon/refusals.h"

#define NOBODY 12345
#define STALL_MS 5000 /* what a client that stalls may cost */

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- crowds ---- */

struct crowd {
	pid_t pid;
	char cgroup[128];
};

/* A process in this cgroup as this uid that does `act`, says so, and waits to be killed. */
static pid_t act_in_cgroup(struct world *world, const char *cgroup, uid_t uid,
			   void (*act)(const struct world *world, unsigned n), unsigned n)
{
	pid_t parent = getpid(), pid;
	int ready[2];
	char byte;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		if (cgroup_enter(cgroup) < 0 || setresuid(uid, uid, uid) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
		    getppid() != parent)
			_exit(1);
		act(world, n);
		if (write(ready[1], "r", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static struct crowd crowd_start(struct world *world, unsigned number, uid_t uid,
				void (*act)(const struct world *world, unsigned n), unsigned n)
{
	struct crowd crowd;

	cgroup_make(crowd.cgroup, sizeof(crowd.cgroup), number);
	crowd.pid = act_in_cgroup(world, crowd.cgroup, uid, act, n);
	return crowd;
}

static void crowd_end(struct crowd *crowd)
{
	kill(crowd->pid, SIGKILL);
	waitpid(crowd->pid, NULL, 0);
	assert_int_equal(cgroup_remove(crowd->cgroup), 0);
}

/* Takes places, and says nothing more. */
static void act_connect(const struct world *world, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		raw_connect(world->path);
}

/* Is refused so many times. */
static void act_wrong(const struct world *world, unsigned n)
{
	struct raw raw;

	for (unsigned i = 0; i < n; i++) {
		raw.sock = raw_connect(world->path);
		raw_send(&raw, "hello", 5);
		raw_expect_result(&raw, ATTEST_E_PROTOCOL);
		close(raw.sock);
	}
}

/* Opens connections until one is refused; returns how many were not. */
static unsigned flood(struct world *world, unsigned most)
{
	struct raw raw;
	int socks[300];
	unsigned n = 0;

	while (n < most) {
		struct pollfd refused = {.events = POLLIN};

		refused.fd = socks[n] = raw_connect(world->path);
		if (poll(&refused, 1, n < ATTEST_PLACES_CGROUP ? 0 : 3000) == 1)
			break;
		n++;
	}
	if (n < most) {
		raw.sock = socks[n];
		raw_expect_result(&raw, ATTEST_E_FULL);
		assert_true(raw.result.renew_after != 0); /* it may go better now */
		close(socks[n]);
	}
	for (unsigned i = 0; i < n; i++)
		close(socks[i]);
	return n;
}

static void attest(struct world *world)
{
	uint64_t start = now_ms();
	struct raw *raw = raw_challenged(world);
	int pidfd;

	raw_prove(raw, world->leaf.key);
	answer_tag_request(world, ATTEST_OK, "tagged", &pidfd);
	close(pidfd);
	raw_expect_result(raw, ATTEST_OK);
	assert_true(now_ms() - start < STALL_MS);
	raw_free(raw);
}

static void expect_all_places_free(struct world *world)
{
	assert_int_equal(flood(world, ATTEST_PLACES_CGROUP + 4), ATTEST_PLACES_CGROUP);
	expect_refusal_notice(world, ATTEST_E_FULL);
}

static void one_cgroup_has_16_places(void **state)
{
	struct world *world = *state;
	struct crowd crowd;

	if (cgroup2() == NULL)
		skip();
	crowd = crowd_start(world, 0, 0, act_connect, ATTEST_PLACES_CGROUP + 1);
	expect_refusal_notice(world, ATTEST_E_FULL);
	assert_non_null(strstr(((struct ipc_tag_request *)world->packet)->text, "16 attestations of this cgroup"));
	attest(world);
	crowd_end(&crowd);
	expect_all_places_free(world);
}

/* The user's 64 places are taken by four cgroups. Another one of the same user gets places, as long as it has fewer than one
 * of these, and what others have is not touched. */
static void one_uid_has_64_places_of_which_each_cgroup_gets_some(void **state)
{
	struct world *world = *state;
	struct ipc_tag_request *refusal = (struct ipc_tag_request *)world->packet;
	struct crowd crowds[5];

	if (cgroup2() == NULL)
		skip();
	for (unsigned i = 0; i < 4; i++)
		crowds[i] = crowd_start(world, i, NOBODY, act_connect, ATTEST_PLACES_CGROUP);
	expect_pong(world); /* nobody was refused yet */
	crowds[4] = crowd_start(world, 4, NOBODY, act_connect, 2);
	for (unsigned i = 0; i < 2; i++) {
		expect_refusal_notice(world, ATTEST_E_FULL);
		assert_int_equal(refusal->uid, NOBODY);
		assert_int_equal(refusal->pid, crowds[i].pid); /* of four that have as many, the oldest place */
		assert_non_null(strstr(refusal->text, "another workload has fewer"));
	}
	attest(world);
	for (unsigned i = 0; i < 5; i++)
		crowd_end(&crowds[i]);
}

/* Root's cgroups hold every place there is. Any other one that comes, root's or not, is attested all the same. */
static void whoever_holds_no_place_gets_one_though_all_are_taken(void **state)
{
	enum { CROWDS = ATTEST_PLACES / ATTEST_PLACES_CGROUP };
	struct world *world = *state;
	struct ipc_tag_request *refusal = (struct ipc_tag_request *)world->packet;
	struct crowd crowds[CROWDS], other;

	if (cgroup2() == NULL)
		skip();
	for (unsigned i = 0; i < CROWDS; i++)
		crowds[i] = crowd_start(world, i, 0, act_connect, ATTEST_PLACES_CGROUP);
	expect_pong(world);
	other = crowd_start(world, CROWDS, NOBODY, act_connect, 1);
	expect_refusal_notice(world, ATTEST_E_FULL);
	assert_int_equal(refusal->pid, crowds[0].pid);
	assert_non_null(strstr(refusal->text, "another workload has fewer"));
	for (unsigned i = 0; i < 3; i++) {
		struct raw *raw = raw_challenged(world);
		int pidfd;

		raw_prove(raw, world->leaf.key);
		if (i == 0) /* whose place it has; it is free again afterwards */
			expect_refusal_notice(world, ATTEST_E_FULL);
		answer_tag_request(world, ATTEST_OK, "tagged", &pidfd);
		close(pidfd);
		raw_expect_result(raw, ATTEST_OK);
		raw_free(raw);
	}
	crowd_end(&other);
	for (unsigned i = 0; i < CROWDS; i++)
		crowd_end(&crowds[i]);
	expect_all_places_free(world);
}

/* ---- clients that stall ---- */

enum { SAY_NOTHING, SAY_EMPTY, SAY_HALF_HELLO, SAY_HELLO, SAY_HELLO_AND_HALF_PROOF };

static const struct stall {
	const char *name;
	int say;
	int shut;	 /* SHUT_WR, SHUT_RD, or -1 */
	int code;	 /* of the RESULT; -1: none, the connection ends */
	bool takes_time; /* all that a client may have */
} stalls[] = {
	{"connected and silent", SAY_NOTHING, -1, ATTEST_E_PROTOCOL, true},
	{"silent after the challenge", SAY_HELLO, -1, ATTEST_E_EXPIRED, true},
	{"nothing to read, and silent", SAY_NOTHING, SHUT_RD, -1, true},
	{"half a HELLO", SAY_HALF_HELLO, -1, ATTEST_E_PROTOCOL, false},
	{"half a PROOF", SAY_HELLO_AND_HALF_PROOF, -1, ATTEST_E_PROTOCOL, false},
	{"an empty message", SAY_EMPTY, -1, -1, false},
	{"half closed at once", SAY_NOTHING, SHUT_WR, -1, false},
	{"half closed after the challenge", SAY_HELLO, SHUT_WR, -1, false},
	{"nothing to read after the HELLO", SAY_HELLO, SHUT_RD, -1, false},
};
#define STALLS (sizeof(stalls) / sizeof(stalls[0]))

static struct raw *stall_begin(struct world *world, const struct stall *stall)
{
	struct raw *raw = calloc(1, sizeof(*raw));
	uint8_t proof[1100];

	raw->sock = raw_connect(world->path);
	if (stall->shut == SHUT_RD)
		shutdown(raw->sock, SHUT_RD);
	if (stall->say == SAY_EMPTY)
		raw_send(raw, "", 0);
	if (stall->say == SAY_HALF_HELLO) {
		raw->hello_len = attest_hello_encode(raw->hello, sizeof(raw->hello), world->chain);
		raw_send(raw, raw->hello, raw->hello_len / 2);
	}
	if (stall->say == SAY_HELLO || stall->say == SAY_HELLO_AND_HALF_PROOF)
		raw_hello(raw, world);
	if (stall->say >= SAY_HELLO && stall->shut != SHUT_RD) {
		assert_true(raw_receive(raw) > 0);
		assert_int_equal(attest_challenge_decode(raw->in, raw->in_len, &raw->challenge), 0);
	}
	if (stall->say == SAY_HELLO_AND_HALF_PROOF)
		raw_send(raw, proof, raw_make_proof(raw, world->leaf.key, proof, sizeof(proof)) / 2);
	if (stall->shut == SHUT_WR)
		shutdown(raw->sock, SHUT_WR);
	return raw;
}

/* Until the role has ended the connection; an end that the client half-closed itself is told by the other half. */
static void stall_finish(const struct stall *stall, struct raw *raw, uint64_t start)
{
	struct pollfd ended = {.fd = raw->sock, .events = stall->code >= 0 ? POLLIN : 0};
	uint64_t took;

	assert_int_equal(poll(&ended, 1, WAIT_MS), 1);
	took = now_ms() - start;
	if (stall->code >= 0)
		raw_expect_result(raw, (unsigned)stall->code);
	if (stall->takes_time ? took < STALL_MS - 500 || took > STALL_MS + 2000 : took > STALL_MS / 2)
		fail_msg("%s: ended after %llu ms", stall->name, (unsigned long long)took);
	raw_free(raw);
}

static void a_client_that_stalls_costs_a_place_for_5_seconds_at_most(void **state)
{
	struct world *world = *state;
	struct raw *raws[STALLS];
	uint64_t start = now_ms();

	for (size_t i = 0; i < STALLS; i++)
		raws[i] = stall_begin(world, &stalls[i]);
	for (size_t i = STALLS; i-- > 0;)
		stall_finish(&stalls[i], raws[i], start);
	for (size_t i = 0; i < STALLS; i++) {
		if (stalls[i].code >= 0 || stalls[i].takes_time)
			expect_packet(world, IPC_ATTEST_REFUSED);
	}
	expect_all_places_free(world);
}

/* ---- many refusals ---- */

struct told {
	unsigned packets, sum;
	unsigned together; /* packets that stand for more than one */
};

/* The next refusal, counted; or false: another packet came, whose descriptor is in *fdp. */
static bool read_refusal(struct world *world, struct told *told, int *typep, int *fdp)
{
	const struct ipc_tag_request *refusal = (const struct ipc_tag_request *)world->packet;
	struct pollfd readable = {.fd = world->ipc, .events = POLLIN};

	assert_int_equal(poll(&readable, 1, WAIT_MS), 1);
	*typep = ipc_receive(world->ipc, world->packet, fdp);
	if (*typep != IPC_ATTEST_REFUSED)
		return false;
	told->packets++;
	told->sum += refusal->count > 1 ? refusal->count : 1;
	told->together += refusal->count > 1;
	if (refusal->count > 1)
		assert_non_null(strstr(refusal->text, "more like it"));
	return true;
}

/* The enforcer is busy, and the queue to it full of refusals of eight users. Who has proved its SVID meanwhile waits for room,
 * and is the first to have it. */
static void a_flood_of_refusals_keeps_no_proof_from_the_enforcer(void **state)
{
	enum { CROWDS = 8, EACH = 60 };
	struct world *world = *state;
	struct crowd crowds[CROWDS];
	struct told told = {0};
	struct raw *raw;
	int pidfd, type;

	if (cgroup2() == NULL)
		skip();
	for (unsigned i = 0; i < CROWDS; i++)
		crowds[i] = crowd_start(world, i, NOBODY + i, act_wrong, EACH);
	raw = raw_challenged(world);
	raw_prove(raw, world->leaf.key);
	while (read_refusal(world, &told, &type, &pidfd))
		;
	assert_int_equal(type, IPC_TAG_REQUEST);
	assert_true(told.packets < CROWDS * REFUSALS_BURST); /* so the queue was full */
	assert_true(told.sum < CROWDS * EACH);		     /* and what is held waits longer */
	close(pidfd);
	while (told.sum < CROWDS * EACH)
		assert_true(read_refusal(world, &told, &type, &pidfd));
	assert_int_equal(told.sum, CROWDS * EACH);
	assert_true(told.together > 0 && told.packets < CROWDS * (REFUSALS_BURST + 4));
	expect_pong(world); /* and nothing more */
	raw_free(raw);
	for (unsigned i = 0; i < CROWDS; i++)
		crowd_end(&crowds[i]);
}

/* While others attest, and are not in the way of anything. */
static void refusals_of_one_cgroup_are_told_apart_first_then_in_sum(void **state)
{
	enum { EACH = 300 };
	struct world *world = *state;
	struct workload workload;
	struct told told = {0};
	struct crowd crowd;
	bool tagged = false;

	if (cgroup2() == NULL)
		skip();
	crowd = crowd_start(world, 0, NOBODY, act_wrong, EACH);
	workload = workload_start(world->path, world->chain, world->leaf.key);
	while (told.sum < EACH || !tagged) {
		int type, pidfd;

		if (read_refusal(world, &told, &type, &pidfd))
			continue;
		assert_int_equal(type, IPC_TAG_REQUEST);
		close(pidfd);
		reply_to_tag_request(world, ATTEST_OK, "tagged");
		tagged = true;
	}
	assert_int_equal(workload_finish(&workload).result.code, ATTEST_OK);
	assert_int_equal(told.sum, EACH);
	assert_true(told.packets >= REFUSALS_BURST && told.packets < EACH / 4);
	crowd_end(&crowd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_cgroup_has_16_places),
		TEST(one_uid_has_64_places_of_which_each_cgroup_gets_some),
		TEST(whoever_holds_no_place_gets_one_though_all_are_taken),
		TEST(a_client_that_stalls_costs_a_place_for_5_seconds_at_most),
		TEST(a_flood_of_refusals_keeps_no_proof_from_the_enforcer),
		TEST(refusals_of_one_cgroup_are_told_apart_first_then_in_sum),
	};

	if (!world_can_run())
		return 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

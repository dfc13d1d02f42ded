/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workloads that come in crowds, that stall, or that are refused by the hundred: what they cost the others. Each crowd has a
 * cgroup of its own, as workloads have.
 */
#include "role_world.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
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
	pid_t pid; /* 0: it was ended */
	char cgroup[128];
};

/* All of a test, so that one that fails leaves none behind. */
static struct crowd *crowds[ATTEST_PLACES / ATTEST_PLACES_CGROUP + 1];
static unsigned n_crowds;

/* A process in this cgroup as this uid that does `act`, says so, and waits to be killed. It must not use the assertions: they
 * would go on with the next test, in the wrong process. */
static pid_t act_in_cgroup(struct world *world, const char *cgroup, uid_t uid,
			   const char *(*act)(const struct world *world, unsigned n), unsigned n)
{
	pid_t parent = getpid(), pid;
	char said[80] = "";
	int pair[2];

	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		const char *why = "cannot become what it is to be";

		close(world->ipc); /* or the role would not see that the test has closed it */
		if (cgroup_enter(cgroup) == 0 && setresuid(uid, uid, uid) == 0 &&
		    prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent)
			why = act(world, n);
		if (write(pair[1], why, strlen(why)) > 0)
			pause();
		_exit(1);
	}
	close(pair[1]);
	assert_true(read(pair[0], said, sizeof(said) - 1) > 0);
	assert_string_equal(said, "done");
	close(pair[0]);
	return pid;
}

static struct crowd *crowd_start(struct world *world, uid_t uid,
				 const char *(*act)(const struct world *world, unsigned n), unsigned n)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));

	assert_true(n_crowds < sizeof(crowds) / sizeof(crowds[0]));
	crowds[n_crowds] = crowd;
	cgroup_make(crowd->cgroup, sizeof(crowd->cgroup), n_crowds++);
	crowd->pid = act_in_cgroup(world, crowd->cgroup, uid, act, n);
	return crowd;
}

static void crowd_end(struct crowd *crowd)
{
	if (crowd->pid > 0) {
		kill(crowd->pid, SIGKILL);
		waitpid(crowd->pid, NULL, 0);
	}
	crowd->pid = 0;
	assert_int_equal(cgroup_remove(crowd->cgroup), 0);
}

static void crowds_end(void)
{
	while (n_crowds > 0) {
		crowd_end(crowds[--n_crowds]);
		free(crowds[n_crowds]);
	}
}

static int crowds_teardown(void **state)
{
	crowds_end();
	return world_teardown(state);
}

static int try_connect(const struct world *world)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, world->path);
	return connect(sock, (struct sockaddr *)&address, sizeof(address)) < 0 ? -1 : sock;
}

/* Takes places, and says nothing more. */
static const char *act_connect(const struct world *world, unsigned n)
{
	while (n-- > 0) {
		if (try_connect(world) < 0)
			return "cannot connect";
	}
	return "done";
}

/* Is refused so many times. */
static const char *act_wrong(const struct world *world, unsigned n)
{
	struct attest_result result;
	uint8_t packet[1024];

	while (n-- > 0) {
		int sock = try_connect(world);
		ssize_t len;

		if (sock < 0 || send(sock, "hello", 5, MSG_NOSIGNAL) != 5)
			return "cannot say hello";
		len = recv(sock, packet, sizeof(packet), 0);
		if (len <= 0 || attest_result_decode(packet, (size_t)len, &result) < 0 ||
		    result.code != ATTEST_E_PROTOCOL)
			return "is not refused as it should be";
		/* Only one at a time: until the role has closed it, it has its place. */
		if (recv(sock, packet, sizeof(packet), 0) != 0)
			return "the connection is not closed";
		close(sock);
	}
	return "done";
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

	if (cgroup2() == NULL)
		skip();
	crowd_start(world, 0, act_connect, ATTEST_PLACES_CGROUP + 1);
	expect_refusal_notice(world, ATTEST_E_FULL);
	assert_non_null(strstr(((struct ipc_tag_request *)world->packet)->text, "16 attestations of this cgroup"));
	attest(world);
	crowds_end();
	expect_all_places_free(world);
}

/* The user's 64 places are taken by four cgroups. Another one of the same user gets places, as long as it has fewer than one
 * of these, and what others have is not touched. */
static void one_uid_has_64_places_of_which_each_cgroup_gets_some(void **state)
{
	struct world *world = *state;
	struct ipc_tag_request *refusal = (struct ipc_tag_request *)world->packet;

	if (cgroup2() == NULL)
		skip();
	for (unsigned i = 0; i < 4; i++)
		crowd_start(world, NOBODY, act_connect, ATTEST_PLACES_CGROUP);
	expect_pong(world); /* nobody was refused yet */
	crowd_start(world, NOBODY, act_connect, 2);
	for (unsigned i = 0; i < 2; i++) {
		expect_refusal_notice(world, ATTEST_E_FULL);
		assert_int_equal(refusal->uid, NOBODY);
		assert_int_equal(refusal->pid, crowds[i]->pid); /* of those that have as many, the oldest place */
		assert_non_null(strstr(refusal->text, "another workload has fewer"));
	}
	attest(world);
}

/* Root's cgroups hold every place there is. Any other one that comes, root's or not, is attested all the same. */
static void whoever_holds_no_place_gets_one_though_all_are_taken(void **state)
{
	struct world *world = *state;
	struct ipc_tag_request *refusal = (struct ipc_tag_request *)world->packet;

	if (cgroup2() == NULL)
		skip();
	for (unsigned i = 0; i < ATTEST_PLACES / ATTEST_PLACES_CGROUP; i++)
		crowd_start(world, 0, act_connect, ATTEST_PLACES_CGROUP);
	expect_pong(world);
	crowd_start(world, NOBODY, act_connect, 1);
	expect_refusal_notice(world, ATTEST_E_FULL);
	assert_int_equal(refusal->pid, crowds[0]->pid);
	assert_non_null(strstr(refusal->text, "another workload has fewer"));
	for (unsigned i = 0; i < 3; i++) {
		struct raw *raw = raw_challenged(world);
		int pidfd;

		if (i == 0) /* whose place it has; it is free again afterwards */
			expect_refusal_notice(world, ATTEST_E_FULL);
		raw_prove(raw, world->leaf.key);
		answer_tag_request(world, ATTEST_OK, "tagged", &pidfd);
		close(pidfd);
		raw_expect_result(raw, ATTEST_OK);
		raw_free(raw);
	}
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

/* Until the role has read what was sent. */
static void wait_until_taken(const struct raw *raw)
{
	uint64_t patience = now_ms() + WAIT_MS;
	int left = 1;

	while (left > 0) {
		assert_true(now_ms() < patience);
		assert_int_equal(ioctl(raw->sock, SIOCOUTQ, &left), 0);
		usleep(1000);
	}
}

/* The enforcer is busy, and the queue to it full of refusals of eight users. Who has proved its SVID meanwhile waits for room,
 * and is the first to have it. */
static void a_flood_of_refusals_keeps_no_proof_from_the_enforcer(void **state)
{
	enum { CROWDS = 8, EACH = 60 };
	struct world *world = *state;
	struct told told = {0};
	struct raw *raw;
	int pidfd, type;

	if (cgroup2() == NULL)
		skip();
	for (unsigned i = 0; i < CROWDS; i++)
		crowd_start(world, NOBODY + i, act_wrong, EACH);
	raw = raw_challenged(world);
	raw_prove(raw, world->leaf.key);
	wait_until_taken(raw);
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
}

/* While others attest, and are not in the way of anything. */
static void refusals_of_one_cgroup_are_told_apart_first_then_in_sum(void **state)
{
	enum { EACH = 300 };
	struct world *world = *state;
	struct workload workload;
	struct told told = {0};
	bool tagged = false;

	if (cgroup2() == NULL)
		skip();
	crowd_start(world, NOBODY, act_wrong, EACH);
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
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, crowds_teardown)

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

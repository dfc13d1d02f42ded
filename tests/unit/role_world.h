/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role_world.h - the identity role in a process of its own, with the test on both sides of it: as the enforcer, and as
 * workloads.
 *
 * Needs root, as the role has rights to give up and clients insist on a server that is root. What fails ends the test, by
 * cmocka's assertions. Cgroups that a test makes are named by its pid, and removed by a process that outlives it, if it cannot do
 * that itself.
 */
#ifndef BULKHEAD_TESTS_UNIT_ROLE_WORLD_H
#define BULKHEAD_TESTS_UNIT_ROLE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <sys/types.h>

#include "certs.h"
#include "daemon/ipc.h"
#include "identity/attest.h"
#include "identity/svid.h"

#define TD "prod.example"
#define TAG_KEY 4711 /* of the tag that is given */
#define WAIT_MS 10000

struct world {
	pid_t role;
	int ipc;
	char dir[64];
	char path[100];
	struct cert root;
	struct cert leaf;
	struct svid_chain *chain;
	_Alignas(8) uint8_t packet[IPC_MAX_PACKET];
	uint64_t offers;
	/* What came with the last bundle. */
	unsigned n_authorities, n_vouches;
	struct ipc_bundle_authority authority; /* the last one */
	struct ipc_vouch vouch;
};

/* Whether there can be one here; else says why not. To be asked first. */
bool world_can_run(void);
int world_setup(void **state);
/* The role ends by itself, and well, when the enforcer is gone. */
int world_teardown(void **state);

/* ---- the enforcer's side ---- */

/* The next packet, which has to be of this type, in world->packet. Returns what came beside it, or -1. */
int expect_packet(struct world *world, int type);
void expect_refusal_notice(struct world *world, unsigned code);
/* Once the role has answered, it has done, and closed, everything that came before. */
void expect_pong(struct world *world);
/* Returns the number of authorities that the role has now. NULL takes the bundle away. */
int give_bundle(struct world *world, const char *trust_domain, const char *pem);
/* Answers the tag request in world->packet, and returns it. */
struct ipc_tag_request *reply_to_tag_request(struct world *world, unsigned code, const char *text);
/* Waits for a tag request and answers it; returns the request, whose pidfd is left open in *pidfdp. */
struct ipc_tag_request *answer_tag_request(struct world *world, unsigned code, const char *text, int *pidfdp);

/* ---- the workload's side ---- */

struct svid_chain *chain_of(const struct cert *leaf);
int listen_at(const char *path);

struct answer {
	int r;
	struct attest_result result;
	char why[256];
};

struct workload {
	pid_t pid;
	int answer;
};

/* A process of its own that uses the client library. */
struct workload workload_start(const char *path, const struct svid_chain *chain, EVP_PKEY *key);
struct answer workload_finish(struct workload *workload);

/* A connection of this process, driven by hand. */
struct raw {
	int sock;
	uint8_t hello[ATTEST_MAX_PACKET];
	size_t hello_len;
	uint8_t in[2048];
	size_t in_len;
	struct attest_challenge challenge;
	struct attest_result result;
};

int raw_connect(const char *path);
/* Length of the next packet; 0 at end of file. */
size_t raw_receive(struct raw *raw);
void raw_expect_result(struct raw *raw, unsigned code);
void raw_send(struct raw *raw, const void *bytes, size_t len);
void raw_hello(struct raw *raw, const struct world *world);
/* A new one that has its challenge. */
struct raw *raw_challenged(const struct world *world);
size_t raw_make_proof(const struct raw *raw, EVP_PKEY *key, uint8_t *out, size_t size);
void raw_prove(struct raw *raw, EVP_PKEY *key);
void raw_free(struct raw *raw);

/* ---- cgroups ---- */

/* Path of the cgroup2 mount, or NULL. */
const char *cgroup2(void);
void own_cgroup(char *out, size_t size);
/* Makes a cgroup of this test program. */
void cgroup_make(char *path, size_t size, unsigned number);
int cgroup_enter(const char *path);
/* Ends what is in it. Returns 0 or -EBUSY. */
int cgroup_remove(const char *path);

#endif

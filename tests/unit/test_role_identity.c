/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The identity role as it runs: a process of its own, sandboxed, with a real socket. The test plays the enforcer at one
 * side and workloads, honest and not, at the other. Needs root, as the role has rights to give up and clients insist on
 * a server that is root.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "certs.h"
#include "daemon/ipc.h"
#include "daemon/role_identity.h"
#include "identity/attest.h"
#include "identity/bundle_text.h"
#include "identity/process.h"
#include "identity/svid.h"

#define TD "prod.example"
#define TAG_KEY 4711 /* of the tag that is given */
#define WAIT_MS 10000
#define CGROUP2_MAGIC 0x63677270

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

/* ---- the enforcer's side ---- */

static int expect_packet(struct world *world, int type)
{
	struct pollfd readable = {.fd = world->ipc, .events = POLLIN};
	int fd;

	assert_int_equal(poll(&readable, 1, WAIT_MS), 1);
	assert_int_equal(ipc_receive(world->ipc, world->packet, &fd), type);
	return fd;
}

/* Returns the number of authorities that the role has now. */
static int give_bundle(struct world *world, const char *trust_domain, const char *pem)
{
	struct ipc_bundle bundle = {.h = {IPC_BUNDLE, sizeof(bundle)}};
	int memfd = pem != NULL ? ipc_memfd("bundle", pem, strlen(pem)) : -1;

	bundle.offer = ++world->offers;
	bundle.format = BUNDLE_PEM;
	strcpy(bundle.trust_domain, trust_domain);
	assert_int_equal(ipc_send(world->ipc, &bundle, memfd), 0);
	if (memfd < 0)
		return 0;
	close(memfd);
	world->n_authorities = world->n_vouches = 0;
	for (;;) {
		struct pollfd readable = {.fd = world->ipc, .events = POLLIN};
		int fd, type;

		assert_int_equal(poll(&readable, 1, WAIT_MS), 1);
		type = ipc_receive(world->ipc, world->packet, &fd);
		if (type == IPC_BUNDLE_LOADED)
			break;
		if (type == IPC_VOUCH) {
			world->vouch = *(struct ipc_vouch *)world->packet;
			world->n_vouches++;
		} else {
			assert_int_equal(type, IPC_BUNDLE_AUTHORITY);
			world->authority = *(struct ipc_bundle_authority *)world->packet;
			assert_int_equal(world->authority.offer, bundle.offer);
			world->n_authorities++;
		}
	}
	assert_int_equal(((struct ipc_bundle_loaded *)world->packet)->offer, bundle.offer);
	return ((struct ipc_bundle_loaded *)world->packet)->authorities;
}

/* Answers a tag request; returns the request, whose pidfd is left open in *pidfdp. */
static struct ipc_tag_request *answer_tag_request(struct world *world, unsigned code, const char *text, int *pidfdp)
{
	struct ipc_tag_request *request = (struct ipc_tag_request *)world->packet;
	struct ipc_tag_reply reply = {.h = {IPC_TAG_REPLY, sizeof(reply)}, .code = code};

	*pidfdp = expect_packet(world, IPC_TAG_REQUEST);
	reply.request = request->request;
	reply.cgroup_id = request->cgroup_id;
	reply.key = TAG_KEY;
	reply.not_after = request->not_after;
	strcpy(reply.text, text);
	assert_int_equal(ipc_send(world->ipc, &reply, -1), 0);
	return request;
}

static void expect_refusal_notice(struct world *world, unsigned code)
{
	expect_packet(world, IPC_ATTEST_REFUSED);
	assert_int_equal(((struct ipc_tag_request *)world->packet)->code, code);
	assert_true(((struct ipc_tag_request *)world->packet)->text[0] != '\0');
}

/* ---- set up ---- */

static struct svid_chain *chain_of(const struct cert *leaf)
{
	char *pem = certs_pem(&leaf, 1);
	struct svid_chain *chain = NULL;
	struct svid_verdict verdict;

	assert_int_equal(svid_chain_parse_pem(&chain, pem, strlen(pem), &verdict), 0);
	free(pem);
	return chain;
}

static int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	assert_int_equal(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(listen(sock, 512), 0);
	return sock;
}

static int world_setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	const struct cert *root = &world->root;
	int pair[2], sock;
	char *pem;

	strcpy(world->dir, "/tmp/bulkhead-test-XXXXXX");
	assert_non_null(mkdtemp(world->dir));
	assert_int_equal(chmod(world->dir, 0755), 0);
	snprintf(world->path, sizeof(world->path), "%s/attest.sock", world->dir);
	sock = listen_at(world->path);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	world->ipc = pair[0];
	world->role = fork();
	if (world->role == 0) {
		close(pair[0]);
		_exit(role_identity_main(pair[1], sock));
	}
	close(pair[1]);
	close(sock);
	expect_packet(world, IPC_READY);

	world->root = certs_ca(NULL, &(struct cert_spec){.subject = "root"});
	world->leaf = certs_leaf(&world->root, &(struct cert_spec){0});
	world->chain = chain_of(&world->leaf);
	pem = certs_pem(&root, 1);
	assert_int_equal(give_bundle(world, TD, pem), 1);
	free(pem);
	*state = world;
	return 0;
}

/* The role ends by itself, and well, when the enforcer is gone. */
static int world_teardown(void **state)
{
	struct world *world = *state;
	int status;

	close(world->ipc);
	assert_int_equal(waitpid(world->role, &status, 0), world->role);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	unlink(world->path);
	rmdir(world->dir);
	svid_chain_freep(&world->chain);
	cert_free(&world->leaf);
	cert_free(&world->root);
	free(world);
	return 0;
}

/* ---- the workload's side ---- */

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
static struct workload workload_start(const char *path, const struct svid_chain *chain, EVP_PKEY *key)
{
	struct workload workload;
	int pipes[2];

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	workload.pid = fork();
	if (workload.pid == 0) {
		struct answer answer = {0};

		answer.r = attest_client(path, chain, key, &answer.result, NULL, answer.why, sizeof(answer.why));
		_exit(write(pipes[1], &answer, sizeof(answer)) != sizeof(answer));
	}
	close(pipes[1]);
	workload.answer = pipes[0];
	return workload;
}

static struct answer workload_finish(struct workload *workload)
{
	struct answer answer;
	int status;

	assert_int_equal(read(workload->answer, &answer, sizeof(answer)), sizeof(answer));
	close(workload->answer);
	assert_int_equal(waitpid(workload->pid, &status, 0), workload->pid);
	return answer;
}

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

static int raw_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	assert_int_equal(connect(sock, (struct sockaddr *)&address, sizeof(address)), 0);
	return sock;
}

/* 0 at end of file. */
static size_t raw_receive(struct raw *raw)
{
	struct pollfd readable = {.fd = raw->sock, .events = POLLIN};
	ssize_t n;

	assert_int_equal(poll(&readable, 1, WAIT_MS), 1);
	n = recv(raw->sock, raw->in, sizeof(raw->in), 0);
	assert_true(n >= 0);
	raw->in_len = (size_t)n;
	return raw->in_len;
}

static void raw_expect_result(struct raw *raw, unsigned code)
{
	assert_true(raw_receive(raw) > 0);
	assert_int_equal(attest_result_decode(raw->in, raw->in_len, &raw->result), 0);
	assert_int_equal(raw->result.code, code);
	assert_true(raw->result.text[0] != '\0');
	if (code != ATTEST_OK)
		assert_int_equal(raw_receive(raw), 0);
}

static void raw_send(struct raw *raw, const void *bytes, size_t len)
{
	assert_int_equal(send(raw->sock, bytes, len, MSG_NOSIGNAL), len);
}

static void raw_hello(struct raw *raw, const struct world *world)
{
	raw->hello_len = attest_hello_encode(raw->hello, sizeof(raw->hello), world->chain);
	raw_send(raw, raw->hello, raw->hello_len);
}

static struct raw *raw_challenged(const struct world *world)
{
	struct raw *raw = calloc(1, sizeof(*raw));

	raw->sock = raw_connect(world->path);
	raw_hello(raw, world);
	assert_true(raw_receive(raw) > 0);
	assert_int_equal(attest_challenge_decode(raw->in, raw->in_len, &raw->challenge), 0);
	return raw;
}

static size_t raw_make_proof(const struct raw *raw, EVP_PKEY *key, uint8_t *out, size_t size)
{
	uint8_t sig[1024];
	size_t sig_len = sizeof(sig);

	assert_int_equal(attest_sign(key, raw->challenge.sigalg, raw->hello, raw->hello_len, raw->in, raw->in_len, sig,
				     &sig_len),
			 0);
	return attest_proof_encode(out, size, raw->challenge.sigalg, sig, sig_len);
}

static void raw_prove(struct raw *raw, EVP_PKEY *key)
{
	uint8_t proof[1100];

	raw_send(raw, proof, raw_make_proof(raw, key, proof, sizeof(proof)));
}

static void raw_free(struct raw *raw)
{
	close(raw->sock);
	free(raw);
}

/* ---- what is promised ---- */

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

/* Path of the cgroup2 mount, or NULL. */
static const char *cgroup2(void)
{
	static const char *const places[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	struct statfs fs;

	for (size_t i = 0; i < 2; i++) {
		if (statfs(places[i], &fs) == 0 && fs.f_type == CGROUP2_MAGIC)
			return places[i];
	}
	return NULL;
}

static int cgroup_enter(const char *path)
{
	char procs[256];
	FILE *file;

	snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
	file = fopen(procs, "w");
	if (file == NULL || fprintf(file, "0") < 0)
		return -1;
	return fclose(file);
}

static void own_cgroup(char *out, size_t size)
{
	FILE *file = fopen("/proc/self/cgroup", "r");
	char line[256];

	while (fgets(line, sizeof(line), file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "0::", 3) == 0)
			snprintf(out, size, "%s%s", cgroup2(), line + 3);
	}
	fclose(file);
}

static void process_that_changes_its_cgroup_is_refused(void **state)
{
	struct world *world = *state;
	char before[512] = "", other[128];
	struct raw *raw;

	if (cgroup2() == NULL)
		skip();
	own_cgroup(before, sizeof(before));
	snprintf(other, sizeof(other), "%s/bulkhead-test-%d", cgroup2(), getpid());
	assert_int_equal(mkdir(other, 0755), 0);
	raw = raw_challenged(world);
	assert_int_equal(cgroup_enter(other), 0);
	raw_prove(raw, world->leaf.key);
	raw_expect_result(raw, ATTEST_E_CGROUP_MOVED);
	expect_refusal_notice(world, ATTEST_E_CGROUP_MOVED);
	assert_int_equal(cgroup_enter(before), 0);
	assert_int_equal(rmdir(other), 0);
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

/* Once the role has answered, it has done, and closed, everything that came before. */
static void expect_pong(struct world *world)
{
	struct ipc_header ping = {IPC_PING, sizeof(ping)};

	assert_int_equal(ipc_send(world->ipc, &ping, -1), 0);
	expect_packet(world, IPC_PING);
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

static void silent_connections_are_ended_after_their_time(void **state)
{
	struct world *world = *state;
	struct raw *challenged = raw_challenged(world), *silent = calloc(1, sizeof(*silent));

	silent->sock = raw_connect(world->path);
	raw_expect_result(challenged, ATTEST_E_EXPIRED);
	expect_refusal_notice(world, ATTEST_E_EXPIRED);
	raw_expect_result(silent, ATTEST_E_PROTOCOL);
	expect_refusal_notice(world, ATTEST_E_PROTOCOL);
	raw_free(challenged);
	raw_free(silent);
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

/* Opens connections until one is refused; returns how many were not. */
static unsigned flood(struct world *world, unsigned most)
{
	struct raw raw;
	int socks[300];
	unsigned n = 0;

	while (n < most) {
		struct pollfd refused = {.events = POLLIN};

		refused.fd = socks[n] = raw_connect(world->path);
		if (poll(&refused, 1, n < most - 4 ? 0 : 3000) == 1)
			break;
		n++;
	}
	if (n < most) {
		raw.sock = socks[n];
		raw_expect_result(&raw, ATTEST_E_FULL);
		close(socks[n]);
	}
	for (unsigned i = 0; i < n; i++)
		close(socks[i]);
	return n;
}

static void one_uid_cannot_take_every_place(void **state)
{
	struct world *world = *state;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (setresuid(12345, 12345, 12345) < 0)
			_exit(1);
		_exit(flood(world, 68) == 64 ? 0 : 2);
	}
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	expect_refusal_notice(world, ATTEST_E_FULL);
}

/* Whether there is a place again; the role has to see first that others left. */
static bool raw_try_hello(struct raw *raw, struct world *world)
{
	raw->sock = raw_connect(world->path);
	raw->hello_len = attest_hello_encode(raw->hello, sizeof(raw->hello), world->chain);
	send(raw->sock, raw->hello, raw->hello_len, MSG_NOSIGNAL);
	assert_true(raw_receive(raw) > 0);
	if (attest_challenge_decode(raw->in, raw->in_len, &raw->challenge) == 0)
		return true;
	expect_refusal_notice(world, ATTEST_E_FULL);
	close(raw->sock);
	return false;
}

static void one_cgroup_cannot_take_every_place(void **state)
{
	struct world *world = *state;
	unsigned n = flood(world, 68);
	struct raw *after = calloc(1, sizeof(*after));
	time_t patience = time(NULL) + WAIT_MS / 1000;
	int pidfd;

	assert_int_equal(n, 64);
	expect_refusal_notice(world, ATTEST_E_FULL);
	while (!raw_try_hello(after, world))
		assert_true(time(NULL) < patience);
	raw_prove(after, world->leaf.key);
	answer_tag_request(world, ATTEST_OK, "tagged", &pidfd);
	close(pidfd);
	raw_expect_result(after, ATTEST_OK);
	raw_free(after);
}

/* Takes all the places that one cgroup may have, from a cgroup of its own, until it is killed. */
static pid_t crowd_start(struct world *world, const char *cgroup)
{
	int ready[2];
	pid_t pid;
	char byte;

	assert_int_equal(mkdir(cgroup, 0755), 0);
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		if (cgroup_enter(cgroup) < 0)
			_exit(1);
		for (unsigned i = 0; i < 64; i++)
			raw_connect(world->path);
		if (write(ready[1], "r", 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static void attestations_under_way_are_limited(void **state)
{
	struct world *world = *state;
	struct raw *raw = calloc(1, sizeof(*raw));
	char cgroups[4][128];
	pid_t pids[4];

	if (cgroup2() == NULL)
		skip();
	for (unsigned i = 0; i < 4; i++) {
		snprintf(cgroups[i], sizeof(cgroups[i]), "%s/bulkhead-test-%d-%u", cgroup2(), getpid(), i);
		pids[i] = crowd_start(world, cgroups[i]);
	}
	raw->sock = raw_connect(world->path);
	raw_expect_result(raw, ATTEST_E_FULL);
	assert_non_null(strstr(raw->result.text, "256 attestations are under way"));
	expect_refusal_notice(world, ATTEST_E_FULL);
	for (unsigned i = 0; i < 4; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
		/* Its last sockets are closed a moment after it can be waited for. */
		for (unsigned ms = 0; rmdir(cgroups[i]) < 0 && ms < WAIT_MS; ms++)
			usleep(1000);
		assert_int_equal(access(cgroups[i], F_OK), -1);
	}
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
	struct process_facts self;
	const struct CMUnitTest tests[] = {
		TEST(proved_svid_asks_the_enforcer_for_a_tag),
		TEST(refusal_of_the_enforcer_reaches_the_workload),
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
		TEST(silent_connections_are_ended_after_their_time),
		TEST(bundle_that_changes_meanwhile_is_asked_again),
		TEST(last_good_bundle_outlives_a_broken_one),
		TEST(an_authority_that_joins_is_found_to_vouch_for_who_is_there),
		TEST(who_else_vouches_for_an_identity_is_told_before_the_bundle_counts),
		TEST(connection_stays_as_a_sign_of_life_only),
		TEST(all_kinds_of_keys_can_prove),
		TEST(one_uid_cannot_take_every_place),
		TEST(one_cgroup_cannot_take_every_place),
		TEST(attestations_under_way_are_limited),
		TEST(facts_that_nobody_asked_for_are_dropped),
		TEST(watchdog_ping_is_answered),
	};

	if (geteuid() != 0 || process_query_self(&self) < 0) {
		fprintf(stderr, "skipped: needs root and Linux 6.13\n");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

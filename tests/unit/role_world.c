/* SPDX-License-Identifier: Apache-2.0 */
#include "role_world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/role_identity.h"
#include "identity/bundle_text.h"
#include "identity/process.h"

#define CGROUP2_MAGIC 0x63677270
#define CGROUP_NAME "bulkhead-test-"

/* ---- the enforcer's side ---- */

int expect_packet(struct world *world, int type)
{
	struct pollfd readable = {.fd = world->ipc, .events = POLLIN};
	int fd;

	assert_int_equal(poll(&readable, 1, WAIT_MS), 1);
	assert_int_equal(ipc_receive(world->ipc, world->packet, &fd), type);
	return fd;
}

void expect_refusal_notice(struct world *world, unsigned code)
{
	expect_packet(world, IPC_ATTEST_REFUSED);
	assert_int_equal(((struct ipc_tag_request *)world->packet)->code, code);
	assert_true(((struct ipc_tag_request *)world->packet)->text[0] != '\0');
}

void expect_pong(struct world *world)
{
	struct ipc_header ping = {IPC_PING, sizeof(ping)};

	assert_int_equal(ipc_send(world->ipc, &ping, -1), 0);
	expect_packet(world, IPC_PING);
}

int give_bundle(struct world *world, const char *trust_domain, const char *pem)
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

struct ipc_tag_request *reply_to_tag_request(struct world *world, unsigned code, const char *text)
{
	struct ipc_tag_request *request = (struct ipc_tag_request *)world->packet;
	struct ipc_tag_reply reply = {.h = {IPC_TAG_REPLY, sizeof(reply)}, .code = code};

	reply.request = request->request;
	reply.cgroup_id = request->cgroup_id;
	reply.key = TAG_KEY;
	reply.not_after = request->not_after;
	strcpy(reply.text, text);
	assert_int_equal(ipc_send(world->ipc, &reply, -1), 0);
	return request;
}

struct ipc_tag_request *answer_tag_request(struct world *world, unsigned code, const char *text, int *pidfdp)
{
	*pidfdp = expect_packet(world, IPC_TAG_REQUEST);
	return reply_to_tag_request(world, code, text);
}

/* ---- set up ---- */

struct svid_chain *chain_of(const struct cert *leaf)
{
	char *pem = certs_pem(&leaf, 1);
	struct svid_chain *chain = NULL;
	struct svid_verdict verdict;

	assert_int_equal(svid_chain_parse_pem(&chain, pem, strlen(pem), &verdict), 0);
	free(pem);
	return chain;
}

int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	assert_int_equal(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(listen(sock, 512), 0);
	return sock;
}

int world_setup(void **state)
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

int world_teardown(void **state)
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

struct workload workload_start(const char *path, const struct svid_chain *chain, EVP_PKEY *key)
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

struct answer workload_finish(struct workload *workload)
{
	struct answer answer;
	int status;

	assert_int_equal(read(workload->answer, &answer, sizeof(answer)), sizeof(answer));
	close(workload->answer);
	assert_int_equal(waitpid(workload->pid, &status, 0), workload->pid);
	return answer;
}

int raw_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	assert_int_equal(connect(sock, (struct sockaddr *)&address, sizeof(address)), 0);
	return sock;
}

size_t raw_receive(struct raw *raw)
{
	struct pollfd readable = {.fd = raw->sock, .events = POLLIN};
	ssize_t n;

	assert_int_equal(poll(&readable, 1, WAIT_MS), 1);
	n = recv(raw->sock, raw->in, sizeof(raw->in), 0);
	assert_true(n >= 0);
	raw->in_len = (size_t)n;
	return raw->in_len;
}

void raw_expect_result(struct raw *raw, unsigned code)
{
	assert_true(raw_receive(raw) > 0);
	assert_int_equal(attest_result_decode(raw->in, raw->in_len, &raw->result), 0);
	assert_int_equal(raw->result.code, code);
	assert_true(raw->result.text[0] != '\0');
	if (code != ATTEST_OK)
		assert_int_equal(raw_receive(raw), 0);
}

void raw_send(struct raw *raw, const void *bytes, size_t len)
{
	assert_int_equal(send(raw->sock, bytes, len, MSG_NOSIGNAL), len);
}

void raw_hello(struct raw *raw, const struct world *world)
{
	raw->hello_len = attest_hello_encode(raw->hello, sizeof(raw->hello), world->chain);
	raw_send(raw, raw->hello, raw->hello_len);
}

struct raw *raw_challenged(const struct world *world)
{
	struct raw *raw = calloc(1, sizeof(*raw));

	raw->sock = raw_connect(world->path);
	raw_hello(raw, world);
	assert_true(raw_receive(raw) > 0);
	assert_int_equal(attest_challenge_decode(raw->in, raw->in_len, &raw->challenge), 0);
	return raw;
}

size_t raw_make_proof(const struct raw *raw, EVP_PKEY *key, uint8_t *out, size_t size)
{
	uint8_t sig[1024];
	size_t sig_len = sizeof(sig);

	assert_int_equal(attest_sign(key, raw->challenge.sigalg, raw->hello, raw->hello_len, raw->in, raw->in_len, sig,
				     &sig_len),
			 0);
	return attest_proof_encode(out, size, raw->challenge.sigalg, sig, sig_len);
}

void raw_prove(struct raw *raw, EVP_PKEY *key)
{
	uint8_t proof[1100];

	raw_send(raw, proof, raw_make_proof(raw, key, proof, sizeof(proof)));
}

void raw_free(struct raw *raw)
{
	close(raw->sock);
	free(raw);
}

/* ---- cgroups ---- */

const char *cgroup2(void)
{
	static const char *const places[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	struct statfs fs;

	for (size_t i = 0; i < 2; i++) {
		if (statfs(places[i], &fs) == 0 && fs.f_type == CGROUP2_MAGIC)
			return places[i];
	}
	return NULL;
}

int cgroup_enter(const char *path)
{
	char procs[256];
	FILE *file;

	snprintf(procs, sizeof(procs), "%s/cgroup.procs", path);
	file = fopen(procs, "w");
	if (file == NULL || fprintf(file, "0") < 0)
		return -1;
	return fclose(file);
}

void own_cgroup(char *out, size_t size)
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

static void cgroup_kill(const char *path)
{
	char file[700];
	int fd;

	snprintf(file, sizeof(file), "%s/cgroup.kill", path);
	fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, "1", 1) < 0)
		fprintf(stderr, "cannot end what is in %s: %m\n", path);
	close(fd);
}

void cgroup_make(char *path, size_t size, unsigned number)
{
	snprintf(path, size, "%s/" CGROUP_NAME "%d-%u", cgroup2(), getpid(), number);
	assert_int_equal(mkdir(path, 0755), 0);
}

int cgroup_remove(const char *path)
{
	cgroup_kill(path);
	/* The last sockets of a process are closed a moment after it can be waited for. */
	for (unsigned ms = 0; ms < WAIT_MS; ms++) {
		if (rmdir(path) == 0 || errno == ENOENT)
			return 0;
		usleep(1000);
	}
	return -EBUSY;
}

/* Those of `owner`; 0: of whoever has ended. */
static void cgroups_remove(pid_t owner)
{
	const char *mount = cgroup2();
	DIR *dir = mount != NULL ? opendir(mount) : NULL;
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		char path[600];
		int pid;

		if (sscanf(entry->d_name, CGROUP_NAME "%d-", &pid) != 1)
			continue;
		if (owner != 0 ? pid != owner : kill(pid, 0) == 0 || errno != ESRCH)
			continue;
		snprintf(path, sizeof(path), "%s/%s", mount, entry->d_name);
		cgroup_remove(path);
	}
	if (dir != NULL)
		closedir(dir);
}

/* Removes what the test leaves behind when it is killed, and what is left of runs whose own keeper was. */
static void cgroups_keep(void)
{
	pid_t owner = getpid();
	struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, owner, 0), .events = POLLIN};

	assert_true(ended.fd >= 0);
	cgroups_remove(0);
	if (fork() != 0) {
		close(ended.fd);
		return;
	}
	setsid(); /* what ends the test by its group does not end this */
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	while (poll(&ended, 1, -1) < 0 && errno == EINTR)
		;
	cgroups_remove(owner);
	_exit(0);
}

bool world_can_run(void)
{
	struct process_facts self;

	if (geteuid() != 0 || process_query_self(&self) < 0) {
		fprintf(stderr, "skipped: needs root and Linux 6.13\n");
		return false;
	}
	cgroups_keep();
	return true;
}

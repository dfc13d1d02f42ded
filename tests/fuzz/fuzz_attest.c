/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_attest.c - any bytes as a message of an attestation, at both ends. The first byte says which: HELLO and PROOF as the
 * daemon decodes them, CHALLENGE and RESULT as the client does, a message with descriptors as the daemon receives it, or the
 * two answers of a daemon to the real client. What is decoded is encoded to the same bytes.
 */
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/attest_message.h"
#include "identity/attest.h"
#include "identity/process.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/certs.h"

static uint8_t again[ATTEST_MAX_PACKET + 1024];

static void expect(int holds)
{
	if (!holds)
		abort();
}

static void expect_same(const uint8_t *packet, size_t size, size_t len)
{
	expect(len == size && memcmp(again, packet, size) == 0);
}

static void hello(const uint8_t *packet, size_t size)
{
	const uint8_t *der[SVID_MAX_CERTIFICATES];
	size_t der_len[SVID_MAX_CERTIFICATES], n;
	struct attest_device device;
	struct svid_chain *chain = NULL;
	struct svid_verdict verdict;

	if (attest_hello_decode_device(packet, size, der, der_len, &n, &device) < 0)
		return;
	if (svid_chain_parse_der(&chain, der, der_len, n, &verdict) == 0) {
		attest_sigalg_for(svid_chain_leaf_key(chain));
		expect_same(packet, size,
			    attest_hello_encode_device(again, sizeof(again), chain, device.name[0] ? &device : NULL));
	}
	svid_chain_freep(&chain);
}

static void challenge(const uint8_t *packet, size_t size)
{
	struct attest_challenge c;

	if (attest_challenge_decode(packet, size, &c) == 0)
		expect_same(packet, size, attest_challenge_encode(again, sizeof(again), &c));
}

static void proof(const uint8_t *packet, size_t size)
{
	const uint8_t *sig;
	uint16_t sigalg;
	size_t sig_len;

	if (attest_proof_decode(packet, size, &sigalg, &sig, &sig_len) == 0)
		expect_same(packet, size, attest_proof_encode(again, sizeof(again), sigalg, sig, sig_len));
}

static void result(const uint8_t *packet, size_t size)
{
	struct attest_result r;

	if (attest_result_decode(packet, size, &r) == 0)
		expect_same(packet, size, attest_result_encode(again, sizeof(again), &r));
}

/* The first byte is how many descriptors come along. None stays open. */
static void message(const uint8_t *data, size_t size)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(64 * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(data + 1), size - 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes};
	size_t n = size > 0 ? data[0] % 64 : 0;
	struct attest_message got;
	int pair[2], on = 1, lowest;

	if (size == 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	lowest = dup(0);
	close(lowest);
	setsockopt(pair[1], SOL_SOCKET, PROCESS_SO_PASSPIDFD, &on, sizeof(on));
	if (n > 0) {
		struct cmsghdr *cmsg = &control.align;

		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		*cmsg = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(n * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		for (size_t i = 0; i < n; i++)
			memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &pair[0], sizeof(int));
	} else {
		msg.msg_control = NULL;
	}
	if (sendmsg(pair[0], &msg, MSG_DONTWAIT) >= 0 && attest_message_receive(pair[1], again, 4096, &got) == 1) {
		expect(got.rights == (n > 0) || got.truncated);
		expect(got.truncated || got.len == size - 1);
		if (got.pidfd >= 0)
			close(got.pidfd);
	}
	expect(dup(0) == lowest); /* the first free one still is */
	close(lowest);
	close(pair[0]);
	close(pair[1]);
}

/* ---- a daemon that answers the client with what the fuzzer says ---- */

static struct {
	char directory[40], path[60];
	struct svid_chain *chain;
	EVP_PKEY *key;
	int listener;
	const uint8_t *answers[2];
	size_t len[2];
} fake = {.listener = -1};

static void fake_remove(void)
{
	unlink(fake.path);
	rmdir(fake.directory);
}

static void fake_start(void)
{
	struct cert leaf = certs_leaf(NULL, &(struct cert_spec){0});
	char *pem = certs_pem((const struct cert *[]){&leaf}, 1);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct svid_verdict verdict;

	strcpy(fake.directory, "/tmp/bulkhead-fuzz-XXXXXX");
	expect(mkdtemp(fake.directory) != NULL);
	snprintf(fake.path, sizeof(fake.path), "%s/attest.sock", fake.directory);
	strcpy(address.sun_path, fake.path);
	atexit(fake_remove);
	expect(svid_chain_parse_pem(&fake.chain, pem, strlen(pem), &verdict) == 0);
	fake.key = leaf.key;
	X509_free(leaf.x509);
	free(pem);
	fake.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	expect(bind(fake.listener, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fake.listener, 8) == 0);
}

/* Each answer after its question: the end of a connection with something unread is an error to the other side, which then never
 * sees what was answered. */
static void *fake_answer(void *arg)
{
	int fd = accept(fake.listener, NULL, NULL);
	uint8_t byte;

	for (int i = 0; i < 2 && recv(fd, &byte, 1, 0) > 0; i++)
		send(fd, fake.answers[i], fake.len[i], MSG_NOSIGNAL | MSG_DONTWAIT);
	close(fd);
	return arg;
}

/* Flags: 1 makes the challenge one for this process, so that the client signs. Then two bytes of length, and both answers. */
static void client(const uint8_t *data, size_t size)
{
	uint8_t first[4096];
	struct attest_challenge c;
	struct attest_result r;
	struct process_facts self;
	pthread_t thread;
	char why[256];
	size_t len;

	if (size < 3)
		return;
	len = data[1] | (size_t)data[2] << 8;
	if (len > size - 3 || len > sizeof(first))
		return;
	if (fake.listener < 0)
		fake_start();
	memcpy(first, data + 3, len);
	if ((data[0] & 1) && attest_challenge_decode(first, len, &c) == 0 && process_query_self(&self) == 0) {
		size_t der_len;
		const uint8_t *der = svid_chain_der(fake.chain, 0, &der_len);

		c.cgroup_id = self.cgroup_id;
		c.pidfd_inode = data[0] & 2 ? self.inode : 0;
		EVP_Digest(der, der_len, c.leaf_sha256, NULL, EVP_sha256(), NULL);
		attest_challenge_encode(first, sizeof(first), &c);
	}
	fake.answers[0] = first;
	fake.len[0] = len;
	fake.answers[1] = data + 3 + len;
	fake.len[1] = size - 3 - len;
	expect(pthread_create(&thread, NULL, fake_answer, NULL) == 0);
	attest_client(fake.path, fake.chain, fake.key, &r, NULL, why, sizeof(why));
	pthread_join(thread, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const kinds[])(const uint8_t *, size_t) = {hello, challenge, proof, result, message, client};
	uint8_t *packet;

	if (size == 0)
		return 0;
	/* Of exactly this length, so that AddressSanitizer sees a read behind it. */
	packet = malloc(size > 1 ? size - 1 : 1);
	memcpy(packet, data + 1, size - 1);
	kinds[data[0] % (sizeof(kinds) / sizeof(kinds[0]))](packet, size - 1);
	free(packet);
	ERR_clear_error();
	return 0;
}

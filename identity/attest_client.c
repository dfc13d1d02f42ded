/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side. Everything that keeps a proof from being relayed is here: the signature is made only for a
 * challenge that names this process's own cgroup, process and leaf.
 */
#include <errno.h>
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "attest.h"
#include "process.h"

#define TIMEOUT_S 5
#define SIGNATURE_MAX 2048 /* RSA of 16,384 bits */

struct client {
	int sock;
	uint8_t *hello;
	size_t hello_len;
	uint8_t challenge[256];
	size_t challenge_len;
	char *why;
	size_t why_size;
};

static void client_close(struct client *client)
{
	if (client->sock >= 0)
		close(client->sock);
	free(client->hello);
}

__attribute__((format(printf, 3, 4))) static int client_fail(struct client *client, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(client->why, client->why_size, format, args);
	va_end(args);
	return error;
}

/* By path, never an abstract name: anyone may bind those, and containers on the host's network share them. */
static int client_connect(struct client *client, const char *path)
{
	struct timeval timeout = {.tv_sec = TIMEOUT_S};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ucred server;
	socklen_t len = sizeof(server);

	if (path[0] == '\0' || strlen(path) >= sizeof(address.sun_path))
		return client_fail(client, -ENAMETOOLONG, "the socket's path \"%.120s\" is empty or too long", path);
	strcpy(address.sun_path, path);
	client->sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (client->sock < 0)
		return client_fail(client, -errno, "no socket: %m");
	if (setsockopt(client->sock, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    setsockopt(client->sock, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
		return client_fail(client, -errno, "no time limit on the socket: %m");
	if (connect(client->sock, (struct sockaddr *)&address, sizeof(address)) < 0)
		return client_fail(client, -errno, "cannot connect to %s: %m; is bulkheadd running?", path);
	if (getsockopt(client->sock, SOL_SOCKET, SO_PEERCRED, &server, &len) < 0)
		return client_fail(client, -errno, "cannot tell who serves %s: %m", path);
	if (server.uid != 0)
		return client_fail(client, -EPERM, "%s is served by uid %u, not by root: nothing was signed", path,
				   server.uid);
	return 0;
}

/* A refusal may come before the packet was taken; then it stands in the queue although sending fails. */
static int client_send(struct client *client, const uint8_t *packet, size_t len)
{
	if (send(client->sock, packet, len, MSG_NOSIGNAL) == (ssize_t)len || errno == EPIPE || errno == ECONNRESET)
		return 0;
	return client_fail(client, -errno, "cannot send to bulkheadd: %m");
}

/* Returns the packet's length. */
static ssize_t client_receive(struct client *client, uint8_t *packet, size_t size)
{
	ssize_t n = recv(client->sock, packet, size, MSG_TRUNC);

	if (n < 0 && errno == EAGAIN)
		return client_fail(client, -ETIMEDOUT, "no answer from bulkheadd within %d s", TIMEOUT_S);
	if (n < 0)
		return client_fail(client, -errno, "no answer from bulkheadd: %m");
	if (n == 0)
		return client_fail(client, -ECONNRESET, "bulkheadd closed the connection without an answer");
	if ((size_t)n > size)
		return client_fail(client, -EBADMSG, "the answer of bulkheadd is too long");
	return n;
}

/* The check that makes a relayed challenge worthless. */
static int check_challenge(struct client *client, const struct attest_challenge *challenge,
			   const struct svid_chain *chain)
{
	struct process_facts self;
	uint8_t leaf_sha256[SHA256_DIGEST_LENGTH];
	size_t der_len;
	const uint8_t *der = svid_chain_der(chain, 0, &der_len);
	int r = process_query_self(&self);

	if (r < 0)
		return client_fail(client, r,
				   "neither the kernel (Linux 6.13) nor /proc tells this process its own cgroup: %s",
				   strerror(-r));
	if (challenge->cgroup_id != self.cgroup_id)
		return client_fail(client, -EPERM,
				   "the challenge is for cgroup %llu, but this process is in %llu: nothing was signed",
				   (unsigned long long)challenge->cgroup_id, (unsigned long long)self.cgroup_id);
	/* 0: one of the two could not tell, on an older kernel; within the cgroup it is the same identity. */
	if (challenge->pidfd_inode != 0 && self.inode != 0 && challenge->pidfd_inode != self.inode)
		return client_fail(client, -EPERM, "the challenge is for another process: nothing was signed");
	SHA256(der, der_len, leaf_sha256);
	if (memcmp(challenge->leaf_sha256, leaf_sha256, sizeof(leaf_sha256)) != 0)
		return client_fail(client, -EPERM, "the challenge is for another certificate: nothing was signed");
	return 0;
}

/* 1: the answer was a RESULT already. */
static int client_hello(struct client *client, const struct svid_chain *chain, const struct attest_device *device,
			struct attest_challenge *challenge, struct attest_result *result)
{
	uint8_t packet[1024];
	ssize_t n;
	int r;

	client->hello = malloc(ATTEST_MAX_PACKET);
	if (client->hello == NULL)
		return client_fail(client, -ENOMEM, "out of memory");
	client->hello_len = attest_hello_encode_device(client->hello, ATTEST_MAX_PACKET, chain, device);
	if (client->hello_len == 0)
		return client_fail(client, -E2BIG, "the chain is too long for a HELLO");
	r = client_send(client, client->hello, client->hello_len);
	if (r < 0)
		return r;
	n = client_receive(client, packet, sizeof(packet));
	if (n < 0)
		return (int)n;
	if (attest_result_decode(packet, (size_t)n, result) == 0 && result->code != ATTEST_OK)
		return 1;
	if ((size_t)n > sizeof(client->challenge) || attest_challenge_decode(packet, (size_t)n, challenge) < 0)
		return client_fail(client, -EBADMSG, "bulkheadd answered with something that is no challenge");
	memcpy(client->challenge, packet, (size_t)n);
	client->challenge_len = (size_t)n;
	return 0;
}

static int client_prove(struct client *client, EVP_PKEY *key, uint16_t sigalg, struct attest_result *result)
{
	uint8_t sig[SIGNATURE_MAX], packet[SIGNATURE_MAX + 64];
	size_t sig_len = sizeof(sig), len;
	ssize_t n;
	int r = attest_sign(key, sigalg, client->hello, client->hello_len, client->challenge, client->challenge_len,
			    sig, &sig_len);

	if (r < 0)
		return client_fail(client, r, "the key cannot sign what the certificate's kind of key asks for");
	len = attest_proof_encode(packet, sizeof(packet), sigalg, sig, sig_len);
	r = client_send(client, packet, len);
	if (r < 0)
		return r;
	n = client_receive(client, packet, sizeof(packet));
	if (n < 0)
		return (int)n;
	if (attest_result_decode(packet, (size_t)n, result) < 0)
		return client_fail(client, -EBADMSG, "bulkheadd answered with something that is no result");
	return 0;
}

int attest_client_device(const char *path, const struct svid_chain *chain, EVP_PKEY *key,
			 const struct attest_device *device, struct attest_result *result, int *fdp, char *why,
			 size_t why_size)
{
	__attribute__((cleanup(client_close))) struct client client = {.sock = -1, .why = why, .why_size = why_size};
	struct attest_challenge challenge;
	int r;

	snprintf(why, why_size, "%s", "");
	r = client_connect(&client, path);
	if (r < 0)
		return r;
	r = client_hello(&client, chain, device, &challenge, result);
	if (r < 0)
		return r;
	if (r == 0) {
		r = check_challenge(&client, &challenge, chain);
		if (r == 0)
			r = client_prove(&client, key, challenge.sigalg, result);
		if (r < 0)
			return r;
	}
	if (fdp != NULL) {
		*fdp = client.sock;
		client.sock = -1;
	}
	return 0;
}

int attest_client(const char *path, const struct svid_chain *chain, EVP_PKEY *key, struct attest_result *result,
		  int *fdp, char *why, size_t why_size)
{
	return attest_client_device(path, chain, key, NULL, result, fdp, why, why_size);
}

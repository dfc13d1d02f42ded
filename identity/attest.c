/* SPDX-License-Identifier: Apache-2.0 */
#include "attest.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "rules.h"

#define HEADER_BYTES 12
#define CHALLENGE_BYTES (32 + 16 + 8 + 8 + 32 + 8 + 4 + 2)

const char *attest_code_name(unsigned code)
{
	static const char *const names[] = {
		[ATTEST_OK] = "ok",
		[ATTEST_E_PROTOCOL] = "protocol",
		[ATTEST_E_NO_PIDFD] = "no-pidfd",
		[ATTEST_E_PEER_GONE] = "peer-gone",
		[ATTEST_E_PEER_DIFFERS] = "peer-differs",
		[ATTEST_E_CGROUP_UNMANAGED] = "cgroup-unmanaged",
		[ATTEST_E_CGROUP_MOVED] = "cgroup-moved",
		[ATTEST_E_EXPIRED] = "challenge-expired",
		[ATTEST_E_SIGNATURE] = "signature",
		[ATTEST_E_BINDING] = "binding",
		[ATTEST_E_OTHER_IDENTITY] = "other-identity",
		[ATTEST_E_FULL] = "full",
		[ATTEST_E_INTERNAL] = "internal",
		[ATTEST_E_CGROUP_DEPTH] = "cgroup-depth",
		[ATTEST_E_CGROUP_DELEGATED] = "cgroup-delegated",
		[ATTEST_E_REVOKED] = "revoked",
		[ATTEST_E_DEVICE] = "device",
		[ATTEST_E_DEVICE_CALLER] = "device-caller",
		[ATTEST_E_DEVICE_ADDRESS] = "device-address",
		[ATTEST_E_FILES] = "svid-files",
		[ATTEST_E_MANY] = "many",
	};

	if (code > ATTEST_E_SVID && code < ATTEST_E_SVID + 1000)
		return svid_rule_name((int)(code - ATTEST_E_SVID));
	if (code < sizeof(names) / sizeof(names[0]))
		return names[code];
	return "unknown";
}

/* ---- writing and reading little-endian, each with its bounds ---- */

struct writer {
	uint8_t *at;
	size_t left;
	bool full;
};

static void put_bytes(struct writer *writer, const void *bytes, size_t len)
{
	if (writer->full || len > writer->left) {
		writer->full = true;
		return;
	}
	memcpy(writer->at, bytes, len);
	writer->at += len;
	writer->left -= len;
}

static void put_number(struct writer *writer, uint64_t value, size_t bytes)
{
	uint8_t le[8];

	for (size_t i = 0; i < bytes; i++)
		le[i] = (uint8_t)(value >> (8 * i));
	put_bytes(writer, le, bytes);
}

static void put_header(struct writer *writer, enum attest_type type, size_t len)
{
	put_number(writer, ATTEST_MAGIC, 4);
	put_number(writer, type, 2);
	put_number(writer, 0, 2);
	put_number(writer, len, 4);
}

static size_t written(const struct writer *writer, const uint8_t *from)
{
	return writer->full ? 0 : (size_t)(writer->at - from);
}

struct reader {
	const uint8_t *at;
	size_t left;
	bool bad;
};

static const uint8_t *get_bytes(struct reader *reader, size_t len)
{
	const uint8_t *from = reader->at;

	if (reader->bad || len > reader->left) {
		reader->bad = true;
		return NULL;
	}
	reader->at += len;
	reader->left -= len;
	return from;
}

static void get_copy(struct reader *reader, void *into, size_t len)
{
	const uint8_t *from = get_bytes(reader, len);

	if (from != NULL)
		memcpy(into, from, len);
}

static uint64_t get_number(struct reader *reader, size_t bytes)
{
	const uint8_t *from = get_bytes(reader, bytes);
	uint64_t value = 0;

	for (size_t i = 0; from != NULL && i < bytes; i++)
		value |= (uint64_t)from[i] << (8 * i);
	return value;
}

/* No flag is defined, so a set one asks for something we would not do. */
static struct reader read_header(const uint8_t *packet, size_t len, enum attest_type type)
{
	struct reader reader = {.at = packet, .left = len};

	if (get_number(&reader, 4) != ATTEST_MAGIC || get_number(&reader, 2) != type || get_number(&reader, 2) != 0 ||
	    get_number(&reader, 4) != reader.left)
		reader.bad = true;
	return reader;
}

static int read_end(const struct reader *reader)
{
	return reader->bad || reader->left != 0 ? -EBADMSG : 0;
}

/* ---- messages ---- */

static size_t device_bytes(const struct attest_device *device)
{
	return device ? 2 + strlen(device->name) + 16 * (size_t)device->n_addresses : 0;
}

static void put_device(struct writer *writer, const struct attest_device *device)
{
	put_number(writer, strlen(device->name), 1);
	put_bytes(writer, device->name, strlen(device->name));
	put_number(writer, device->n_addresses, 1);
	put_bytes(writer, device->addresses, 16 * (size_t)device->n_addresses);
}

static bool get_device(struct reader *reader, struct attest_device *device)
{
	size_t len = get_number(reader, 1);

	if (len == 0 || len >= sizeof(device->name))
		return false;
	get_copy(reader, device->name, len);
	device->n_addresses = (uint32_t)get_number(reader, 1);
	if (device->n_addresses > ATTEST_MAX_ADDRESSES)
		return false;
	get_copy(reader, device->addresses, 16 * (size_t)device->n_addresses);
	/* No control characters: the name is written to logs. */
	for (size_t i = 0; i < len; i++)
		if (device->name[i] <= ' ' || device->name[i] == '/' || device->name[i] == 0x7f)
			return false;
	return true;
}

size_t attest_hello_encode_device(uint8_t *out, size_t size, const struct svid_chain *chain,
				  const struct attest_device *device)
{
	struct writer writer = {.at = out, .left = size};
	size_t n = svid_chain_count(chain), len = 3 + device_bytes(device), der_len;

	if (device && device->n_addresses > ATTEST_MAX_ADDRESSES)
		return 0;
	for (size_t i = 0; i < n; i++) {
		svid_chain_der(chain, i, &der_len);
		len += 4 + der_len;
	}
	put_header(&writer, ATTEST_HELLO, len);
	put_number(&writer, device ? ATTEST_VERSION_DEVICE : ATTEST_VERSION, 2);
	put_number(&writer, n, 1);
	for (size_t i = 0; i < n; i++) {
		const uint8_t *der = svid_chain_der(chain, i, &der_len);

		put_number(&writer, der_len, 4);
		put_bytes(&writer, der, der_len);
	}
	if (device)
		put_device(&writer, device);
	return written(&writer, out);
}

size_t attest_hello_encode(uint8_t *out, size_t size, const struct svid_chain *chain)
{
	return attest_hello_encode_device(out, size, chain, NULL);
}

int attest_hello_decode_device(const uint8_t *packet, size_t len, const uint8_t **der, size_t *der_len, size_t *np,
			       struct attest_device *device)
{
	struct reader reader = read_header(packet, len, ATTEST_HELLO);
	uint64_t version = get_number(&reader, 2);
	size_t n;

	memset(device, 0, sizeof(*device));
	if (version != ATTEST_VERSION && version != ATTEST_VERSION_DEVICE)
		return -EBADMSG;
	n = get_number(&reader, 1);
	if (n == 0 || n > SVID_MAX_CERTIFICATES)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		der_len[i] = get_number(&reader, 4);
		der[i] = get_bytes(&reader, der_len[i]);
	}
	if (version == ATTEST_VERSION_DEVICE && !get_device(&reader, device))
		return -EBADMSG;
	if (read_end(&reader) < 0)
		return -EBADMSG;
	*np = n;
	return 0;
}

int attest_hello_decode(const uint8_t *packet, size_t len, const uint8_t **der, size_t *der_len, size_t *np)
{
	struct attest_device device;
	int r = attest_hello_decode_device(packet, len, der, der_len, np, &device);

	return r == 0 && device.name[0] ? -EBADMSG : r;
}

size_t attest_challenge_encode(uint8_t *out, size_t size, const struct attest_challenge *challenge)
{
	struct writer writer = {.at = out, .left = size};

	put_header(&writer, ATTEST_CHALLENGE, CHALLENGE_BYTES);
	put_bytes(&writer, challenge->nonce, sizeof(challenge->nonce));
	put_bytes(&writer, challenge->boot_id, sizeof(challenge->boot_id));
	put_number(&writer, challenge->cgroup_id, 8);
	put_number(&writer, challenge->pidfd_inode, 8);
	put_bytes(&writer, challenge->leaf_sha256, sizeof(challenge->leaf_sha256));
	put_number(&writer, challenge->issued_ns, 8);
	put_number(&writer, challenge->ttl_ms, 4);
	put_number(&writer, challenge->sigalg, 2);
	return written(&writer, out);
}

int attest_challenge_decode(const uint8_t *packet, size_t len, struct attest_challenge *challenge)
{
	struct reader reader = read_header(packet, len, ATTEST_CHALLENGE);

	memset(challenge, 0, sizeof(*challenge));
	get_copy(&reader, challenge->nonce, sizeof(challenge->nonce));
	get_copy(&reader, challenge->boot_id, sizeof(challenge->boot_id));
	challenge->cgroup_id = get_number(&reader, 8);
	challenge->pidfd_inode = get_number(&reader, 8);
	get_copy(&reader, challenge->leaf_sha256, sizeof(challenge->leaf_sha256));
	challenge->issued_ns = get_number(&reader, 8);
	challenge->ttl_ms = (uint32_t)get_number(&reader, 4);
	challenge->sigalg = (uint16_t)get_number(&reader, 2);
	return read_end(&reader);
}

size_t attest_proof_encode(uint8_t *out, size_t size, uint16_t sigalg, const uint8_t *sig, size_t sig_len)
{
	struct writer writer = {.at = out, .left = size};

	if (sig_len > UINT16_MAX)
		return 0;
	put_header(&writer, ATTEST_PROOF, 4 + sig_len);
	put_number(&writer, sigalg, 2);
	put_number(&writer, sig_len, 2);
	put_bytes(&writer, sig, sig_len);
	return written(&writer, out);
}

int attest_proof_decode(const uint8_t *packet, size_t len, uint16_t *sigalg, const uint8_t **sig, size_t *sig_len)
{
	struct reader reader = read_header(packet, len, ATTEST_PROOF);

	*sigalg = (uint16_t)get_number(&reader, 2);
	*sig_len = get_number(&reader, 2);
	*sig = get_bytes(&reader, *sig_len);
	return read_end(&reader);
}

size_t attest_result_encode(uint8_t *out, size_t size, const struct attest_result *result)
{
	struct writer writer = {.at = out, .left = size};
	size_t text_len = strnlen(result->text, sizeof(result->text) - 1);

	put_header(&writer, ATTEST_RESULT, 4 + 8 + 8 + 8 + 2 + text_len);
	put_number(&writer, result->code, 4);
	put_number(&writer, result->valid_until, 8);
	put_number(&writer, result->renew_after, 8);
	put_number(&writer, result->cgroup_id, 8);
	put_number(&writer, text_len, 2);
	put_bytes(&writer, result->text, text_len);
	return written(&writer, out);
}

int attest_result_decode(const uint8_t *packet, size_t len, struct attest_result *result)
{
	struct reader reader = read_header(packet, len, ATTEST_RESULT);
	size_t text_len;

	memset(result, 0, sizeof(*result));
	result->code = (uint32_t)get_number(&reader, 4);
	result->valid_until = get_number(&reader, 8);
	result->renew_after = get_number(&reader, 8);
	result->cgroup_id = get_number(&reader, 8);
	text_len = get_number(&reader, 2);
	if (text_len >= sizeof(result->text))
		return -EBADMSG;
	get_copy(&reader, result->text, text_len);
	if (memchr(result->text, '\0', text_len) != NULL)
		return -EBADMSG;
	return read_end(&reader);
}

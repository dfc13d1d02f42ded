/* SPDX-License-Identifier: Apache-2.0 */
#include "community_id.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

struct community_id {
	EVP_MD *sha1;
	EVP_MD_CTX *ctx;
};

struct endpoint {
	const uint8_t *ip;
	uint16_t port;
};

int community_id_new(struct community_id **cidp)
{
	struct community_id *cid = calloc(1, sizeof(*cid));

	if (!cid)
		return -ENOMEM;
	cid->sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
	cid->ctx = EVP_MD_CTX_new();
	if (!cid->sha1 || !cid->ctx) {
		community_id_freep(&cid);
		return -ENOTSUP;
	}
	*cidp = cid;
	return 0;
}

void community_id_freep(struct community_id **cidp)
{
	if (!*cidp)
		return;
	EVP_MD_free((*cidp)->sha1);
	EVP_MD_CTX_free((*cidp)->ctx);
	free(*cidp);
	*cidp = NULL;
}

/* The type that answers an ICMP type, or -1: the specification's stand-in for a destination port. */
static int icmp_counterpart(uint8_t proto, uint16_t type)
{
	static const uint8_t pairs4[][2] = {{8, 0}, {13, 14}, {15, 16}, {10, 9}, {17, 18}};
	static const uint8_t pairs6[][2] = {{128, 129}, {133, 134}, {135, 136}, {130, 131}, {139, 140}, {144, 145}};
	const uint8_t(*pairs)[2] = proto == IPPROTO_ICMP ? pairs4 : pairs6;
	size_t n = proto == IPPROTO_ICMP ? sizeof(pairs4) / 2 : sizeof(pairs6) / 2;

	for (size_t i = 0; i < n; i++) {
		if (pairs[i][0] == type)
			return pairs[i][1];
		if (pairs[i][1] == type)
			return pairs[i][0];
	}
	return -1;
}

bool community_id_format(struct community_id *cid, char out[COMMUNITY_ID_SIZE], const struct bh_addr *src,
			 const struct bh_addr *dst, uint8_t proto, uint16_t sport, uint16_t dport)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	uint8_t message[2 + 2 * 16 + 2 + 4] = {0}, digest[EVP_MAX_MD_SIZE];
	struct endpoint a = {(const uint8_t *)src, sport}, b = {(const uint8_t *)dst, dport}, swap;
	size_t ip_len = 16, len = 2;
	bool ports = true;
	int order, counterpart;

	if (!memcmp(a.ip, mapped, 12) && !memcmp(b.ip, mapped, 12)) {
		a.ip += 12;
		b.ip += 12;
		ip_len = 4;
	}
	if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
		counterpart = icmp_counterpart(proto, sport);
		if (counterpart < 0)
			return false;
		b.port = (uint16_t)counterpart;
	} else if (proto != IPPROTO_TCP && proto != IPPROTO_UDP && proto != IPPROTO_SCTP) {
		ports = false;
		a.port = b.port = 0;
	}
	order = memcmp(a.ip, b.ip, ip_len);
	if (order > 0 || (!order && a.port > b.port)) {
		swap = a;
		a = b;
		b = swap;
	}
	memcpy(message + len, a.ip, ip_len);
	memcpy(message + len + ip_len, b.ip, ip_len);
	len += 2 * ip_len;
	message[len++] = proto;
	message[len++] = 0;
	if (ports) {
		message[len++] = (uint8_t)(a.port >> 8);
		message[len++] = (uint8_t)a.port;
		message[len++] = (uint8_t)(b.port >> 8);
		message[len++] = (uint8_t)b.port;
	}
	if (!EVP_DigestInit_ex2(cid->ctx, cid->sha1, NULL) || !EVP_DigestUpdate(cid->ctx, message, len) ||
	    !EVP_DigestFinal_ex(cid->ctx, digest, NULL))
		return false;
	memcpy(out, "1:", 2);
	EVP_EncodeBlock((unsigned char *)out + 2, digest, 20);
	return true;
}

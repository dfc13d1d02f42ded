// SPDX-License-Identifier: Apache-2.0
#include "policy_pack.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int policy_pack(const struct policy_source *files, size_t n, void **bytesp, size_t *lenp)
{
	size_t len = 4;
	uint8_t *bytes, *p;

	if (n > POLICY_MAX_SOURCES)
		return -E2BIG;
	for (size_t i = 0; i < n; i++) {
		if (files[i].len > POLICY_MAX_SOURCE_BYTES || strlen(files[i].name) > 4096)
			return -E2BIG;
		len += 8 + strlen(files[i].name) + files[i].len;
	}
	if (len > POLICY_PACK_MAX_BYTES)
		return -E2BIG;
	p = bytes = malloc(len);
	if (!bytes)
		return -ENOMEM;
	memcpy(p, &(uint32_t){(uint32_t)n}, 4);
	p += 4;
	for (size_t i = 0; i < n; i++) {
		uint32_t sizes[2] = {(uint32_t)strlen(files[i].name), (uint32_t)files[i].len};

		memcpy(p, sizes, 8);
		memcpy(p + 8, files[i].name, sizes[0]);
		memcpy(p + 8 + sizes[0], files[i].text, sizes[1]);
		p += 8 + sizes[0] + sizes[1];
	}
	*bytesp = bytes;
	*lenp = len;
	return 0;
}

static char *copy(const uint8_t *bytes, size_t len)
{
	char *s = malloc(len + 1);

	if (s) {
		memcpy(s, bytes, len);
		s[len] = '\0';
	}
	return s;
}

int policy_unpack(const void *bytes, size_t len, struct policy_source **filesp, size_t *np)
{
	const uint8_t *p = bytes;
	struct policy_source *files;
	uint32_t n;

	if (len < 4)
		return -EBADMSG;
	memcpy(&n, p, 4);
	p += 4;
	len -= 4;
	if (n > POLICY_MAX_SOURCES)
		return -EBADMSG;
	files = calloc(n ? n : 1, sizeof(*files));
	if (!files)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t sizes[2];

		if (len < 8) {
			policy_sources_free(files, i);
			return -EBADMSG;
		}
		memcpy(sizes, p, 8);
		if (sizes[0] > len - 8 || sizes[1] > len - 8 - sizes[0] || memchr(p + 8, '\0', sizes[0])) {
			policy_sources_free(files, i);
			return -EBADMSG;
		}
		files[i].name = copy(p + 8, sizes[0]);
		files[i].text = copy(p + 8 + sizes[0], sizes[1]);
		files[i].len = sizes[1];
		if (!files[i].name || !files[i].text) {
			policy_sources_free(files, i + 1);
			return -ENOMEM;
		}
		p += 8 + (size_t)sizes[0] + sizes[1];
		len -= 8 + (size_t)sizes[0] + sizes[1];
	}
	if (len) {
		policy_sources_free(files, n);
		return -EBADMSG;
	}
	*filesp = files;
	*np = n;
	return 0;
}

void policy_sources_free(struct policy_source *files, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free((char *)files[i].name);
		free((char *)files[i].text);
	}
	free(files);
}

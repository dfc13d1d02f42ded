/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "policy/unit_path.h"

#define SLICE ".slice"

bool unit_is_slice(const char *name, size_t len)
{
	size_t n = strlen(SLICE);

	return len > n && memcmp(name + len - n, SLICE, n) == 0;
}

const char *unit_of_path(const char *path, size_t len)
{
	const char *end = path + len, *last, *slash;

	if (!len || *path != '/')
		return NULL;
	for (last = path + 1; (slash = memchr(last, '/', (size_t)(end - last))); last = slash + 1)
		if (!unit_is_slice(last, (size_t)(slash - last)))
			return NULL;
	return last + (last < end && *last == '_');
}

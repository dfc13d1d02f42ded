/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup.h - for __attribute__((cleanup())): what a variable holds is let go of where its block ends.
 */
#ifndef BULKHEAD_CLI_CLEANUP_H
#define BULKHEAD_CLI_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

/* Of a pointer to malloc()ed memory, of any type. */
static inline void freep(void *p)
{
	free(*(void **)p);
}

/* Of a descriptor; -1: there is none. */
static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#endif

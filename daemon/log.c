// SPDX-License-Identifier: Apache-2.0
#include "log.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define STREAM "JOURNAL_STREAM" /* device:inode, systemd.exec(5) */

void log_start(void)
{
	const char *stream = getenv(STREAM);
	unsigned long long device, inode;
	struct stat st;

	if (!stream)
		return;
	if (sscanf(stream, "%llu:%llu", &device, &inode) != 2 || fstat(STDERR_FILENO, &st) < 0 || st.st_dev != device ||
	    st.st_ino != inode)
		unsetenv(STREAM);
}

const char *log_prefix(const char *priority)
{
	return getenv(STREAM) ? priority : "";
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay.c - a fuzz target without its fuzzer: runs every file of a directory through it once. What was found stays found.
 */
#include <dirent.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"

static void replay(const char *directory, const char *name)
{
	char path[4096];
	FILE *file;
	uint8_t *data;
	size_t len;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "re");
	data = malloc(1 << 20);
	if (!file || !data) {
		perror(path);
		exit(1);
	}
	len = fread(data, 1, 1 << 20, file);
	fclose(file);
	printf("%s\n", name);
	fflush(stdout); /* names the one that crashes */
	LLVMFuzzerTestOneInput(data, len);
	free(data);
}

int main(int argc, char **argv)
{
	DIR *directory = argc == 2 ? opendir(argv[1]) : NULL;
	struct dirent *entry;
	unsigned n = 0;

	if (!directory) {
		fprintf(stderr, "usage: replay DIRECTORY\n");
		return 2;
	}
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.') {
			replay(argv[1], entry->d_name);
			n++;
		}
	closedir(directory);
	printf("%u inputs\n", n);
	return n ? 0 : 1;
}

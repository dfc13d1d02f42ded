/* SPDX-License-Identifier: Apache-2.0 */
/*
 * write_chains DIRECTORY - writes each chain of the generator into files, for programs that are not linked with it.
 *
 * DIRECTORY/NAME/ gets chain.pem, leaf.pem and rest.pem (the same in two parts), bundle.pem, and leaf.key. On standard output
 * stands a line for each, with tabs: name, rule it is about, rule that a refusal is told as (0: accepted), place of the
 * certificate, trust domain of the bundle (- for no bundle), time in seconds, and 1 if its bundle is the usual one.
 */
#include <errno.h>
#include <sys/stat.h>

#include "tests/chains/chains.h"

static FILE *open_in(const char *directory, const char *name)
{
	char path[4096];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	out = fopen(path, "we");
	if (out == NULL) {
		perror(path);
		exit(1);
	}
	return out;
}

static void close_or_die(FILE *out)
{
	if (fclose(out) != 0) {
		perror("write_chains");
		exit(1);
	}
}

static void write_pem(const char *directory, const char *name, const struct chain_bytes *certificates, size_t n)
{
	FILE *out = open_in(directory, name);
	char *pem = chains_pem(certificates, n);

	fputs(pem, out);
	free(pem);
	close_or_die(out);
}

static void write_key(const char *directory, EVP_PKEY *key)
{
	FILE *out = open_in(directory, "leaf.key");

	/* Some leaves have a key whose private part nobody has. */
	if (PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL) != 1)
		ERR_clear_error();
	close_or_die(out);
}

static void write_case(const struct chain_case *c, void *userdata)
{
	char directory[3000];

	snprintf(directory, sizeof(directory), "%s/%s", (const char *)userdata, c->name);
	if (mkdir(directory, 0755) < 0 && errno != EEXIST) {
		perror(directory);
		exit(1);
	}
	write_pem(directory, "chain.pem", c->chain, c->n);
	write_pem(directory, "leaf.pem", c->chain, c->n > 0);
	write_pem(directory, "rest.pem", c->chain + 1, c->n > 0 ? c->n - 1 : 0);
	write_pem(directory, "bundle.pem", c->bundle, c->n_authorities);
	write_key(directory, c->leaf_key);
	printf("%s\t%d\t%d\t%d\t%s\t%lld\t%d\n", c->name, c->rule, c->told, c->depth,
	       c->trust_domain != NULL ? c->trust_domain : "-", (long long)c->at, c->usual_bundle);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: write_chains DIRECTORY\n");
		return 2;
	}
	chains_visit(write_case, argv[1]);
	return 0;
}

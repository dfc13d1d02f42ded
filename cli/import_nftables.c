/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/import_nftables.h"
#include "cli/nft_walk.h"

#define MAX_BASE_CHAINS 15U /* a tier each, and one for what none filters */

/* JSON has no lines once it is read. */
static const struct position nowhere;

struct importer {
	const struct import_nftables *import;
	struct nft_import shared;
	const struct nft_chain *base[MAX_BASE_CHAINS];
	const char *tiers[MAX_BASE_CHAINS + 1];
	size_t n_base;
};

/* ---- base chains ---- */

static enum nft_family family_of(const struct nft_chain *chain)
{
	return strcmp(chain->family, "ip") == 0 ? NFT_V4 : strcmp(chain->family, "ip6") == 0 ? NFT_V6 : NFT_BOTH;
}

static bool is_ingress(const struct nft_chain *chain)
{
	return strcmp(chain->hook, "input") == 0;
}

static bool covers(const struct nft_chain *chain, enum nft_family family)
{
	return family_of(chain) == NFT_BOTH || family_of(chain) == family;
}

/* Does a later chain judge what this one accepts? */
static bool is_last(const struct importer *importer, size_t index)
{
	const struct nft_chain *chain = importer->base[index];

	for (size_t i = index + 1; i < importer->n_base; i++)
		for (enum nft_family family = NFT_V4; family <= NFT_V6; family++)
			if (is_ingress(importer->base[i]) == is_ingress(chain) && covers(importer->base[i], family) &&
			    covers(chain, family))
				return false;
	return true;
}

/* A chain that changes nothing has nothing to import. */
static bool does_nothing(const struct nft_chain *chain)
{
	return !chain->n_rules && !chain->drops;
}

static void refuse(struct importer *importer, const struct nft_chain *chain, const char *why)
{
	diagnostics_error(importer->shared.ruleset.diagnostics, nowhere, "%s %s %s: a chain of type %s at %s %s",
			  chain->family, chain->table, chain->name, chain->type, chain->hook, why);
}

/* Finds the chains to import. The order of chains of one hook decides nothing, as all must accept; those of both families
 * come last, so that fewer need to pass. */
static void find_base_chains(struct importer *importer)
{
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; i < importer->shared.ruleset.n_chains; i++) {
			const struct nft_chain *chain = &importer->shared.ruleset.items[i];
			bool filter = chain->hook && strcmp(chain->type, "filter") == 0;
			bool ip = strcmp(chain->family, "inet") == 0 || strcmp(chain->family, "ip") == 0 ||
				  strcmp(chain->family, "ip6") == 0;

			if (!chain->hook || does_nothing(chain) || (family_of(chain) == NFT_BOTH) != pass)
				continue;
			if (filter && ip && strcmp(chain->hook, "forward") == 0 && importer->import->ignore_forward)
				continue;
			if (filter && ip && strcmp(chain->hook, "forward") == 0)
				refuse(importer, chain,
				       "judges what is not of this host's workloads; --ignore-forward leaves it to "
				       "nftables");
			else if (!filter || !ip ||
				 (strcmp(chain->hook, "input") != 0 && strcmp(chain->hook, "output") != 0))
				refuse(importer, chain,
				       "cannot be imported, only filters of ip, ip6 and inet at input and output");
			else if (importer->n_base == MAX_BASE_CHAINS)
				refuse(importer, chain, "is one too many");
			else
				importer->base[importer->n_base++] = chain;
		}
}

static void import_base_chain(struct importer *importer, size_t index)
{
	const struct nft_chain *chain = importer->base[index];
	struct nft_walk walk = {
		.importer = &importer->shared,
		.base = chain,
		.matcher = {.arena = &importer->shared.ruleset.arena,
			    .sets = importer->shared.ruleset.sets,
			    .family = chain->family,
			    .table = chain->table,
			    .lo_by_address = importer->import->lo_by_address},
		.tier = importer->tiers[index],
		.accept = is_last(importer, index) ? RULE_ALLOW : RULE_PASS,
		.ingress = is_ingress(chain),
	};

	nft_walk_chain(&walk, nft_box_whole(family_of(chain)));
	if (chain->drops && !walk.keeps_replies)
		diagnostics_warning(
			importer->shared.ruleset.diagnostics, nowhere,
			"%s %s %s drops replies to what the other hook lets out; in a policy replies belong to "
			"their flow",
			chain->family, chain->table, chain->name);
}

/* What no chain judges passes. Returns whether there is such a thing. */
static bool import_unfiltered(struct importer *importer, bool ingress)
{
	struct nft_walk walk = {.importer = &importer->shared, .tier = "unfiltered", .ingress = ingress};
	struct nft_box box = nft_box_whole(NFT_BOTH);

	for (size_t i = 0; i < importer->n_base; i++)
		if (is_ingress(importer->base[i]) == ingress)
			for (enum nft_end end = NFT_SOURCE; end <= NFT_DESTINATION; end++)
				box.ends[end] = nft_set_subtract(&importer->shared.ruleset.arena, box.ends[end],
								 nft_set_addresses(family_of(importer->base[i])));
	if (nft_box_is_empty(&box))
		return false;
	nft_walk_write(&walk, ingress ? "unfiltered.input" : "unfiltered.output",
		       ingress ? "No chain filters this at input." : "No chain filters this at output.", &box,
		       RULE_ALLOW);
	return true;
}

/* ---- the whole ---- */

static void name_tiers(struct importer *importer)
{
	for (size_t i = 0; i < importer->n_base; i++) {
		const struct nft_chain *chain = importer->base[i];
		char *name = arena_printf(&importer->shared.ruleset.arena, "%zu-%.20s.%.20s", i + 1, chain->table,
					  chain->name);

		for (char *at = name; at && *at; at++)
			if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-", *at))
				*at = '-';
		importer->tiers[i] = name;
	}
	importer->tiers[importer->n_base] = "unfiltered";
}

static void name_subjects(struct importer *importer)
{
	const struct import_nftables *import = importer->import;
	size_t n = import->n_subjects ? import->n_subjects : 1;

	importer->shared.subjects = arena_array(&importer->shared.ruleset.arena, n, sizeof(*importer->shared.subjects));
	if (!importer->shared.subjects)
		return;
	importer->shared.n_subjects = n;
	importer->shared.subjects[0] = "verified";
	for (size_t i = 0; i < import->n_subjects; i++) {
		importer->shared.subjects[i] = import->subjects[i].name;
		if (!draft_identity(importer->shared.draft, import->subjects[i].name, import->subjects[i].value, NULL))
			diagnostics_error(importer->shared.ruleset.diagnostics, nowhere,
					  "subject '%.60s' is given twice", import->subjects[i].name);
	}
}

static int write_all(struct importer *importer, char **textp)
{
	const char *head =
		arena_printf(&importer->shared.ruleset.arena,
			     "Made by `policyctl import nftables` from %s.\nEach base chain is a tier, its rules in "
			     "their order: the first "
			     "that matches decides.%s",
			     importer->import->source.name,
			     importer->import->ignore_forward ? "\nChains at forward are left to nftables." : "");
	size_t n_tiers;
	int r;

	name_subjects(importer);
	find_base_chains(importer);
	name_tiers(importer);
	if (importer->shared.ruleset.arena.out_of_memory || !head)
		return -ENOMEM;
	for (size_t i = 0; i < importer->n_base; i++)
		import_base_chain(importer, i);
	n_tiers = importer->n_base;
	n_tiers += import_unfiltered(importer, true) | import_unfiltered(importer, false);
	if (importer->shared.ruleset.arena.out_of_memory)
		return -ENOMEM;
	r = draft_finish(importer->shared.draft, head, importer->tiers, n_tiers, textp);
	if (r == 1)
		diagnostics_error(importer->shared.ruleset.diagnostics, nowhere,
				  "the policy would be larger than %u MiB", POLICY_MAX_SOURCE_BYTES >> 20);
	return r;
}

static void importer_free(struct importer *importer)
{
	nft_ruleset_free(&importer->shared.ruleset);
	draft_freep(&importer->shared.draft);
}

int import_nftables(char **textp, struct policy_diagnostics **diagnosticsp, const struct import_nftables *import)
{
	_cleanup_(policy_diagnostics_freep) struct policy_diagnostics *diagnostics =
		diagnostics_new(&import->source, 1);
	_cleanup_(importer_free) struct importer importer = {
		.import = import, .shared = {.source = import->source.name, .draft = draft_new()}};
	int r;

	*textp = NULL;
	*diagnosticsp = NULL;
	if (!diagnostics || !importer.shared.draft)
		return -ENOMEM;
	importer.shared.ruleset.diagnostics = diagnostics;
	r = nft_ruleset_read(&importer.shared.ruleset, &import->source);
	if (r == 0 && !policy_diagnostics_count(diagnostics, POLICY_ERROR))
		r = write_all(&importer, textp);
	if (r >= 0 && policy_diagnostics_count(diagnostics, POLICY_ERROR))
		r = 1;
	if (r >= 0 && diagnostics_finish(diagnostics) < 0)
		r = -ENOMEM;
	if (r != 0) {
		free(*textp);
		*textp = NULL;
	}
	if (r < 0)
		return r;
	*diagnosticsp = diagnostics;
	diagnostics = NULL;
	return r;
}

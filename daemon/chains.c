/* SPDX-License-Identifier: Apache-2.0 */
#include "chains.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "id_index.h"

/* More kinds of intermediates than this are no infrastructure: chains with others are not kept. */
#define MAX_SHARED 256

struct blob {
	unsigned uses;
	size_t len;
	uint8_t bytes[];
};

struct kept {
	uint64_t key;
	char *trust_domain;
	struct blob *leaf;
	struct blob *above[SVID_MAX_CERTIFICATES - 1];
	unsigned n_above;
	bool stale;
	unsigned n_anchors;
	struct svid_anchor anchors[SVID_MAX_ANCHORS];
};

struct chains {
	struct kept *items;
	size_t n, room, bytes;
	struct id_index index;
	struct blob *shared[MAX_SHARED];
	size_t n_shared;
};

int chains_new(struct chains **chainsp)
{
	*chainsp = calloc(1, sizeof(**chainsp));
	return *chainsp != NULL ? 0 : -ENOMEM;
}

static struct blob *blob_new(struct chains *chains, const uint8_t *bytes, size_t len)
{
	struct blob *blob = malloc(sizeof(*blob) + len);

	if (blob == NULL)
		return NULL;
	blob->uses = 1;
	blob->len = len;
	memcpy(blob->bytes, bytes, len);
	chains->bytes += sizeof(*blob) + len;
	return blob;
}

static void blob_free(struct chains *chains, struct blob *blob)
{
	if (blob == NULL)
		return;
	chains->bytes -= sizeof(*blob) + blob->len;
	free(blob);
}

static struct blob *shared_get(struct chains *chains, const uint8_t *bytes, size_t len)
{
	struct blob *blob;

	for (size_t i = 0; i < chains->n_shared; i++) {
		blob = chains->shared[i];
		if (blob->len == len && memcmp(blob->bytes, bytes, len) == 0) {
			blob->uses++;
			return blob;
		}
	}
	blob = chains->n_shared < MAX_SHARED ? blob_new(chains, bytes, len) : NULL;
	if (blob != NULL)
		chains->shared[chains->n_shared++] = blob;
	return blob;
}

static void shared_put(struct chains *chains, struct blob *blob)
{
	if (--blob->uses > 0)
		return;
	for (size_t i = 0; i < chains->n_shared; i++) {
		if (chains->shared[i] == blob)
			chains->shared[i] = chains->shared[--chains->n_shared];
	}
	blob_free(chains, blob);
}

static void kept_clear(struct chains *chains, struct kept *kept)
{
	for (unsigned i = 0; i < kept->n_above; i++)
		shared_put(chains, kept->above[i]);
	blob_free(chains, kept->leaf);
	free(kept->trust_domain);
}

void chains_freep(struct chains **chainsp)
{
	struct chains *chains = *chainsp;

	if (chains == NULL)
		return;
	for (size_t i = 0; i < chains->n; i++)
		kept_clear(chains, &chains->items[i]);
	id_index_clear(&chains->index);
	free(chains->items);
	free(chains);
	*chainsp = NULL;
}

/* The last one takes its place. */
void chains_forget(struct chains *chains, uint64_t key)
{
	size_t at;

	if (!id_index_get(&chains->index, key, &at))
		return;
	id_index_remove(&chains->index, key);
	kept_clear(chains, &chains->items[at]);
	if (at == --chains->n)
		return;
	chains->items[at] = chains->items[chains->n];
	id_index_put(&chains->index, chains->items[at].key, at); /* it is there already: no memory is needed */
}

static void note_anchors(struct kept *kept, const struct svid_verdict *verdict)
{
	kept->n_anchors = verdict->n_anchors;
	memcpy(kept->anchors, verdict->anchors, sizeof(kept->anchors));
}

static int kept_fill(struct chains *chains, struct kept *kept, const struct svid_chain *chain,
		     const struct svid_verdict *verdict)
{
	size_t len;
	const uint8_t *der = svid_chain_der(chain, 0, &len);

	note_anchors(kept, verdict);
	kept->trust_domain = strdup(verdict->trust_domain);
	kept->leaf = blob_new(chains, der, len);
	if (kept->trust_domain == NULL || kept->leaf == NULL)
		return -ENOMEM;
	for (size_t i = 1; i < svid_chain_count(chain); i++) {
		der = svid_chain_der(chain, i, &len);
		kept->above[kept->n_above] = shared_get(chains, der, len);
		if (kept->above[kept->n_above] == NULL)
			return -ENOSPC;
		kept->n_above++;
	}
	return chains->bytes > CHAINS_MAX_BYTES ? -ENOSPC : 0;
}

int chains_keep(struct chains *chains, uint64_t key, const struct svid_chain *chain, const struct svid_verdict *verdict)
{
	struct kept kept = {.key = key};
	int r;

	chains_forget(chains, key);
	if (chains->n == chains->room) {
		size_t room = chains->room > 0 ? chains->room * 2 : 64;
		struct kept *items = reallocarray(chains->items, room, sizeof(*items));

		if (items == NULL)
			return -ENOMEM;
		chains->items = items;
		chains->room = room;
	}
	r = kept_fill(chains, &kept, chain, verdict);
	if (r == 0)
		r = id_index_put(&chains->index, key, chains->n);
	if (r < 0) {
		kept_clear(chains, &kept);
		return r;
	}
	chains->items[chains->n++] = kept;
	return 0;
}

size_t chains_count(const struct chains *chains)
{
	return chains->n;
}

size_t chains_bytes(const struct chains *chains)
{
	return chains->bytes;
}

struct chains_item chains_at(const struct chains *chains, size_t i)
{
	const struct kept *kept = &chains->items[i];

	return (struct chains_item){kept->key, kept->trust_domain, kept->anchors, kept->n_anchors, kept->stale};
}

void chains_mark_stale(struct chains *chains, const char *trust_domain)
{
	for (size_t i = 0; i < chains->n; i++)
		chains->items[i].stale |= strcmp(chains->items[i].trust_domain, trust_domain) == 0;
}

int chains_verify(struct chains *chains, size_t i, const struct bundle_set *bundles, time_t now,
		  struct svid_verdict *verdict)
{
	__attribute__((cleanup(svid_chain_freep))) struct svid_chain *chain = NULL;
	struct kept *kept = &chains->items[i];
	const uint8_t *der[SVID_MAX_CERTIFICATES] = {kept->leaf->bytes};
	size_t len[SVID_MAX_CERTIFICATES] = {kept->leaf->len};
	int r;

	kept->stale = false;
	for (unsigned at = 0; at < kept->n_above; at++) {
		der[at + 1] = kept->above[at]->bytes;
		len[at + 1] = kept->above[at]->len;
	}
	r = svid_chain_parse_der(&chain, der, len, 1 + kept->n_above, verdict);
	if (r == 0)
		r = svid_verify(chain, bundles, now, verdict);
	if (r == 0)
		note_anchors(kept, verdict);
	return r;
}

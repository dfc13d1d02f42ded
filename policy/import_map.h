/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import_map.h - what there is in a cluster, and who proves to be what: the file that Kubernetes policies are resolved against.
 *
 * Kubernetes selects pods by labels, which nothing proves; a policy of ours names identities. The map says which namespaces
 * and workloads (classes of pods) exist, with their labels, and which identity proves each workload. No two workloads may
 * share an identity: what is allowed to one would be allowed to the other.
 */
#ifndef BULKHEAD_POLICY_IMPORT_MAP_H
#define BULKHEAD_POLICY_IMPORT_MAP_H

#include "policy/read.h"

#define IMPORT_MAX_WORKLOADS 10000U
#define IMPORT_MAX_NAMESPACES 10000U
/* Labels compared and workloads selected, in all: what bounds the time of an import. */
#define IMPORT_MAX_WORK (64U << 20)

struct label {
	const char *key;
	const char *value;
};

struct labels {
	struct label *items;
	uint32_t n;
};

struct namespace
{
	const char *name;
	struct labels labels; /* kubernetes.io/metadata.name included */
	struct position at;
};

struct named_port {
	const char *name;
	uint32_t point; /* service.h */
};

struct workload {
	const char *name;
	uint32_t namespace;
	struct labels labels;
	const char *identity; /* as a policy has it: YAML */
	struct named_port *ports;
	uint32_t n_ports;
	struct position at;
};

struct cluster {
	struct namespace *namespaces;
	uint32_t n_namespaces;
	struct workload *workloads;
	uint32_t n_workloads;
	struct intern namespace_names; /* number: index */
	bool *selected;		       /* by namespace, while a selection is made */
	uint64_t work;
};

/* Workloads by index, ascending. */
struct selection {
	uint32_t *items;
	uint32_t n;
};

/* A label selector as it stands in an object. */
struct label_selector;

/* Takes a map apart like read_keys(), and what is null is as if it were not there. */
bool import_fields(struct reader *reader, const struct node *map, const char *what, const struct key *keys, size_t n);
/* Is this null, as YAML writes it? */
bool import_is_null(const struct node *node);
/* The items of a list. Returns false after an error. `what` as in "`from` must be a list". */
bool import_list(struct reader *reader, const struct node *node, const char *what, struct items *items);
/* Digits only, from `min` to `max`. Reports if not. */
bool import_number(struct reader *reader, const struct node *node, const char *what, uint32_t min, uint32_t max,
		   uint32_t *numberp);

/* Reads the map; mistakes are among the reader's diagnostics. Everything is in the reader's arena, but for
 * cluster_free(). */
void cluster_read(struct cluster *cluster, struct reader *reader, const struct node *root);
void cluster_free(struct cluster *cluster);

/* Reads a label selector (matchLabels, matchExpressions). Returns NULL after an error. */
const struct label_selector *label_selector_read(struct reader *reader, const struct node *node);

#define EVERY_NAMESPACE 0xffffffffU
/*
 * The workloads with these labels, in one namespace (index), or in those that `namespaces` selects; NULL selects all. An
 * error at `node` is reported once the work of the whole import is too much.
 */
struct selection cluster_select(struct cluster *cluster, struct reader *reader, const struct node *node,
				uint32_t namespace, const struct label_selector *namespaces,
				const struct label_selector *pods);

#endif

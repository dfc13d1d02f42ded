/* SPDX-License-Identifier: Apache-2.0 */
/*
 * learner.h - what the parts of learn share: learn.c takes the record, learn_group.c makes peers into names,
 * learn_names.c finds the names, learn_cover.c finds the boxes, learn_write.c writes them as YAML.
 */
#ifndef BULKHEAD_POLICY_LEARNER_H
#define BULKHEAD_POLICY_LEARNER_H

#include "policy/flow_end.h"
#include "policy/learn.h"
#include "policy/learn_cover.h"
#include "policy/model.h"

struct evidence {
	uint64_t count;
	int64_t first;
	int64_t last;
};

/* An end as it was recorded. */
struct seen_end {
	const char *text;   /* for flow_end_parse() */
	const char *cgroup; /* of an unidentified one that was judged; NULL */
	uint32_t peer;	    /* NO_PEER: it has none */
};

/* A flow as it was recorded: every end with its address. */
struct seen_flow {
	uint32_t from; /* end */
	uint32_t to;
	uint32_t point;
	uint64_t count[2]; /* judged at egress, at ingress: a flow within a host is in the record twice */
	int64_t first;
	int64_t last;
	bool missing;
};

enum peer_kind {
	PEER_SPIFFE,
	PEER_LOCAL,
	PEER_HOST,
	PEER_ADDRESS,
};

#define NO_PEER 0xffffffffU

struct peer {
	enum peer_kind kind;
	const char *text; /* SPIFFE ID, or name of the local identity */
	address address;
	uint32_t atom; /* NO_PEER: it takes part in nothing that is missing */
};

/* Peers that one name stands for in rules. */
struct atom {
	enum peer_kind kind;
	const char *name;
	struct list members; /* peers, sorted */
	bool defined;	     /* by the policy `against` */
	uint32_t index;	     /* then: of the identity or network */
	bool wide;	     /* stands for more than the recorded peers */
	bool world_only;     /* somebody with an identity was seen at an address of this network: he is not meant */
	const char *pattern; /* with `*`, in place of the members' IDs */
	uint32_t varies;     /* the segment in which the IDs of the members differ; 0: there is one member */
};

struct place_of {
	const char *name;
	const char *cgroup;
};

struct learn {
	struct learn_options options;
	struct arena arena;
	struct intern end_keys;
	struct seen_end *ends;
	size_t ends_capacity;
	struct intern flow_keys;
	struct seen_flow *flows;
	size_t flows_capacity;
	struct intern place_keys;
	struct place_of *places;
	size_t places_capacity;
	struct intern note_keys;
	struct learn_note *notes;
	size_t notes_capacity;
	bool full;

	struct peer *peers; /* sorted */
	uint32_t n_peers;
	struct cover_cell *cells; /* of peers, then of atoms; sorted */
	struct evidence *evidence;
	size_t n_cells;
	struct atom *atoms; /* as rules name them: identities, then host, then networks */
	uint32_t n_atoms;
	struct intern names; /* of atoms and of the policy `against` */

	struct learn_rule *rules;
	size_t n_rules, rules_capacity;
	struct intern rule_names;
	struct learn_summary summary;
};

void evidence_add(struct evidence *evidence, uint64_t count, int64_t first, int64_t last);

/* Makes atoms of the peers that are in cells, and cells of atoms out of the cells of peers. Returns 0 or -ENOMEM. */
int learn_group(struct learn *learn);
/* Names the atoms that have none. Likewise. */
int learn_name_atoms(struct learn *learn);
/* A name for a rule between atoms, not used yet. NULL when out of memory. */
const char *learn_name_rule(struct learn *learn, const uint32_t *from, uint32_t n_from, const uint32_t *to,
			    uint32_t n_to);
/* Makes rules of the boxes. Returns 0 or -ENOMEM. */
int learn_make_rules(struct learn *learn, const struct cover_box *boxes, size_t n);

/* The segments of a SPIFFE ID; 0 is the trust domain. Returns NULL past the end. Not terminated. */
const char *spiffe_segment(const char *id, uint32_t index, size_t *lenp);
uint32_t spiffe_segments(const char *id);

#endif

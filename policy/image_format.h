/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_format.h - the bytes of an image: a header with the offsets of its sections, then the sections. Integers are in
 * host order; an image never leaves the host it was compiled on. Strings are offsets into the section of strings.
 */
#ifndef BULKHEAD_POLICY_IMAGE_FORMAT_H
#define BULKHEAD_POLICY_IMAGE_FORMAT_H

#include <stdint.h>

#define IMAGE_MAGIC 0x33494842U /* "BHI3" */
#define IMAGE_NO_STRING 0xffffffffU

enum image_section {
	IMAGE_TABLES,  /* struct bh_tables and what follows it; counted in bytes */
	IMAGE_STRINGS, /* each ended by NUL; counted in bytes */
	IMAGE_RULES,   /* struct image_rule, by rule number */
	IMAGE_LOCALS,  /* struct image_local, sorted by name */
	IMAGE_STATES,  /* struct image_state; 0: nothing can match any more, 1: the start, before the trust domain */
	IMAGE_EDGES,   /* struct image_edge, of each state sorted by segment */
	IMAGE_CLASSES, /* struct image_class, by SPIFFE class: who less first_spiffe */
	IMAGE_CLASS_BINDINGS, /* uint32_t: index of a binding */
	IMAGE_BINDINGS,	      /* struct image_binding */
	IMAGE_PLACES,	      /* struct image_place */
	IMAGE_SECTIONS
};

struct image_header {
	uint32_t magic;
	uint32_t size;
	uint32_t first_spiffe; /* who index of the class "verified, in no identity of the policy" */
	uint32_t pad;
	char digest[72];
	struct {
		uint32_t offset;
		uint32_t count;
	} sections[IMAGE_SECTIONS];
};

struct image_rule {
	uint32_t name;
	uint32_t file; /* may be IMAGE_NO_STRING */
	uint32_t line;
	uint32_t tier; /* may be IMAGE_NO_STRING */
};

struct image_local {
	uint32_t name;
	uint32_t path;
	uint32_t kind; /* enum policy_local_kind */
	uint32_t who;
};

struct image_state {
	uint32_t first_edge;
	uint32_t n_edges;
	uint32_t otherwise; /* state after a segment that no edge names */
	uint32_t who;	    /* of an ID that ends here */
};

struct image_edge {
	uint32_t segment;
	uint32_t state;
};

struct image_class {
	uint32_t first_binding;
	uint32_t n_bindings;
};

struct image_binding {
	uint32_t identity; /* its name */
	uint32_t first_place;
	uint32_t n_places;
};

struct image_place {
	uint32_t kind; /* enum policy_local_kind */
	uint32_t path; /* "": anywhere */
	uint32_t uid;  /* of who proves it; POLICY_ANY_UID: whoever */
};

_Static_assert(sizeof(struct image_header) == 168, "the tables behind the header must be aligned to 8 bytes");

#endif

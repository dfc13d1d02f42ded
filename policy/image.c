/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/abi.h"
#include "policy/image_check.h"
#include "policy/memory.h"
#include "policy/pattern.h"
#include "policy/unit_path.h"

struct policy_image {
	struct image_view view;
	const unsigned char *bytes;
	struct policy_image_owner owner; /* of the bytes; all 0: they are here */
	_Alignas(16) unsigned char copy[];
};

/* Takes over the image, and its bytes where it returns 0. */
static int open_checked(struct policy_image **imagep, struct policy_image *image, size_t len, const char **whyp)
{
	const char *why = image_check(&image->view, image->bytes, len);

	if (whyp)
		*whyp = why;
	if (why) {
		free(image);
		return -EBADMSG;
	}
	*imagep = image;
	return 0;
}

static struct policy_image *image_new(size_t len, size_t copied, const char **whyp, int *rp)
{
	struct policy_image *image;

	*rp = len > POLICY_IMAGE_MAX_BYTES ? -EBADMSG : -ENOMEM;
	if (len > POLICY_IMAGE_MAX_BYTES) {
		if (whyp)
			*whyp = "the image is too large";
		return NULL;
	}
	image = malloc(sizeof(*image) + copied + 1);
	if (image)
		*image = (struct policy_image){.bytes = image->copy};
	return image;
}

int policy_image_open(struct policy_image **imagep, const void *bytes, size_t len, const char **whyp)
{
	int r;
	struct policy_image *image = image_new(len, len, whyp, &r);

	*imagep = NULL;
	if (!image)
		return r;
	/* Copied before it is checked: whoever made it must not change it in between. */
	if (len)
		memcpy(image->copy, bytes, len);
	return open_checked(imagep, image, len, whyp);
}

int policy_image_open_unchanging(struct policy_image **imagep, const void *bytes, size_t len,
				 const struct policy_image_owner *owner, const char **whyp)
{
	int r;
	struct policy_image *image = image_new(len, 0, whyp, &r);

	*imagep = NULL;
	if (!image)
		return r;
	image->bytes = bytes;
	image->owner = *owner;
	return open_checked(imagep, image, len, whyp);
}

const struct policy_image_owner *policy_image_owner(const struct policy_image *image)
{
	return &image->owner;
}

void policy_image_freep(struct policy_image **imagep)
{
	struct policy_image *image = *imagep;

	if (image && image->owner.release)
		image->owner.release(image->owner.ctx);
	free(image);
	*imagep = NULL;
}

const void *policy_image_bytes(const struct policy_image *image, size_t *lenp)
{
	*lenp = image->view.head->size;
	return image->bytes;
}

const void *policy_image_tables(const struct policy_image *image, size_t *lenp)
{
	*lenp = image->view.head->sections[IMAGE_TABLES].count;
	return image->view.tables;
}

const char *policy_image_digest(const struct policy_image *image)
{
	return image->view.head->digest;
}

/* ---- who ---- */

/* Order of a segment, which is not terminated, and a string. */
static int compare_segment(const char *segment, size_t len, const char *text)
{
	int order = strncmp(segment, text, len);

	return order ? order : text[len] ? -1 : 0;
}

static uint32_t next_state(const struct image_view *view, uint32_t state, const char *segment, size_t len)
{
	const struct image_state *s = &view->states[state];
	uint32_t low = 0, high = s->n_edges;

	while (low < high) {
		uint32_t middle = (low + high) / 2;
		const struct image_edge *edge = &view->edges[s->first_edge + middle];
		int order = compare_segment(segment, len, view->strings + edge->segment);

		if (order == 0)
			return edge->state;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return s->otherwise;
}

uint32_t policy_image_classify(const struct policy_image *image, const char *spiffe_id)
{
	const struct image_view *view = &image->view;
	const char *at = spiffe_id + strlen(SPIFFE_SCHEME);
	uint32_t state = IMAGE_START_STATE;

	if (strncmp(spiffe_id, SPIFFE_SCHEME, strlen(SPIFFE_SCHEME)) != 0)
		return view->head->first_spiffe;
	for (;;) {
		size_t len = strcspn(at, "/");

		state = next_state(view, state, at, len);
		if (!at[len])
			break;
		at += len + 1;
	}
	return view->states[state].who;
}

bool policy_image_local(const struct policy_image *image, size_t index, struct policy_local *local)
{
	const struct image_view *view = &image->view;

	if (index >= view->head->sections[IMAGE_LOCALS].count)
		return false;
	*local = (struct policy_local){
		.name = view->strings + view->locals[index].name,
		.path = view->strings + view->locals[index].path,
		.kind = (enum policy_local_kind)view->locals[index].kind,
		.who = view->locals[index].who,
	};
	return true;
}

static bool is_unit_path(const char *path, size_t len, const char *unit)
{
	const char *name = unit_of_path(path, len);

	return name && strlen(unit) == (size_t)(path + len - name) && memcmp(name, unit, strlen(unit)) == 0;
}

static bool is_place(uint32_t kind, const char *place, const char *path, size_t len)
{
	if (kind == POLICY_LOCAL_UNIT)
		return is_unit_path(path, len, place);
	return strlen(place) == len && memcmp(place, path, len) == 0;
}

bool policy_image_local_of(const struct policy_image *image, const char *cgroup_path, struct policy_local *local)
{
	size_t len = strlen(cgroup_path);

	for (size_t i = 0; policy_image_local(image, i, local); i++)
		if (is_place(local->kind, local->path, cgroup_path, len))
			return true;
	return false;
}

/* Does a path consist of slices only? The root does. */
static bool is_slice_path(const char *path)
{
	while (*path == '/' && path[1]) {
		size_t n = strcspn(path + 1, "/");

		if (!unit_is_slice(path + 1, n))
			return false;
		path += 1 + n;
	}
	return !*path || (*path == '/' && !path[1]);
}

bool policy_image_local_below(const struct policy_image *image, const char *cgroup_path)
{
	bool root = !cgroup_path[0] || (cgroup_path[0] == '/' && !cgroup_path[1]);
	size_t len = root ? 0 : strlen(cgroup_path);
	bool slices = is_slice_path(cgroup_path);
	struct policy_local local;

	for (size_t i = 0; policy_image_local(image, i, &local); i++) {
		if (local.kind == POLICY_LOCAL_UNIT
			    ? slices
			    : strncmp(local.path, cgroup_path, len) == 0 && local.path[len] == '/')
			return true;
	}
	return false;
}

/* Is the cgroup a place, or below it? */
static bool is_within(const struct image_view *view, const struct image_place *place, const char *path)
{
	if (!view->strings[place->path])
		return true;
	for (size_t len = 1; path[0]; len++) {
		if (path[len] && path[len] != '/')
			continue;
		if (is_place(place->kind, view->strings + place->path, path, len))
			return true;
		if (!path[len])
			break;
	}
	return false;
}

/* "unit web.service, uid 33 and others" */
static void places_name(const struct image_view *view, const struct image_place *places, uint32_t n, char *out,
			size_t size)
{
	const char *path = view->strings + places[0].path;
	char uid[24] = "";

	if (places[0].uid != POLICY_ANY_UID)
		snprintf(uid, sizeof(uid), "%suid %u", *path ? ", " : "", places[0].uid);
	snprintf(out, size, "%s%.200s%s%s",
		 !*path				       ? ""
		 : places[0].kind == POLICY_LOCAL_UNIT ? "unit "
						       : "cgroup ",
		 path, uid, n > 1 ? " and others" : "");
}

bool policy_image_binding(const struct policy_image *image, const char *spiffe_id, const char *cgroup_path,
			  uint32_t uid, char *why, size_t why_size)
{
	const struct image_view *view = &image->view;
	uint32_t number = policy_image_classify(image, spiffe_id) - view->head->first_spiffe;
	const struct image_class *class = &view->classes[number];

	for (uint32_t i = 0; i < class->n_bindings; i++) {
		const struct image_binding *binding = &view->bindings[view->class_bindings[class->first_binding + i]];
		const struct image_place *places = &view->places[binding->first_place];
		bool within = false, fits = false;
		char name[256] = "";

		for (uint32_t j = 0; j < binding->n_places && !fits; j++) {
			bool here = is_within(view, &places[j], cgroup_path);

			within |= here;
			fits = here && (places[j].uid == POLICY_ANY_UID || places[j].uid == uid);
		}
		if (fits)
			continue;
		if (binding->n_places == 0)
			snprintf(why, why_size, "identity '%s' is bound to no cgroup",
				 view->strings + binding->identity);
		else
			places_name(view, places, binding->n_places, name, sizeof(name));
		if (binding->n_places && within && uid == POLICY_ANY_UID)
			snprintf(why, why_size, "identity '%s' is bound to %s; it is not known who proved it",
				 view->strings + binding->identity, name);
		else if (binding->n_places && within)
			snprintf(why, why_size, "identity '%s' is bound to %s; uid %u proved it",
				 view->strings + binding->identity, name, uid);
		else if (binding->n_places)
			snprintf(why, why_size, "identity '%s' is bound to %s; %s is not within it",
				 view->strings + binding->identity, name, cgroup_path);
		return false;
	}
	return true;
}

/* ---- rules ---- */

bool policy_image_rule(const struct policy_image *image, uint32_t number, struct policy_rule_name *rule)
{
	const struct image_view *view = &image->view;

	if (number >= view->head->sections[IMAGE_RULES].count)
		return false;
	*rule = (struct policy_rule_name){
		.name = view->strings + view->rules[number].name,
		.file = view->rules[number].file == IMAGE_NO_STRING ? NULL : view->strings + view->rules[number].file,
		.line = view->rules[number].line,
		.tier = view->rules[number].tier == IMAGE_NO_STRING ? NULL : view->strings + view->rules[number].tier,
	};
	return true;
}

uint32_t policy_image_rule_count(const struct policy_image *image)
{
	return image->view.head->sections[IMAGE_RULES].count - 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "audit_names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/abi.h"

struct identity_name {
	bool local;
	char name[];
};

#define MAX_DEVICES 65536U /* then all are forgotten, and told again by those that appear */

struct device_name {
	uint32_t ifindex;
	char name[16];
};

struct revision_names {
	uint32_t revision;
	size_t bytes;
	size_t n;
	char digest[65];
	struct policy_rule_name rules[]; /* their strings stand behind them */
};

struct audit_names {
	struct identity_name *identities[BH_MAX_IDENTITIES];
	struct revision_names *revisions[AUDIT_NAMES_REVISIONS]; /* oldest first */
	size_t n_revisions;
	size_t bytes;
	struct device_name *devices; /* by index */
	size_t n_devices, devices_room;
};

int audit_names_new(struct audit_names **namesp)
{
	*namesp = calloc(1, sizeof(**namesp));
	return *namesp ? 0 : -ENOMEM;
}

void audit_names_freep(struct audit_names **namesp)
{
	struct audit_names *names = *namesp;

	if (!names)
		return;
	for (size_t i = 0; i < BH_MAX_IDENTITIES; i++)
		free(names->identities[i]);
	for (size_t i = 0; i < names->n_revisions; i++)
		free(names->revisions[i]);
	free(names->devices);
	free(names);
	*namesp = NULL;
}

int audit_names_set_identity(struct audit_names *names, uint32_t identity, bool local, const char *name)
{
	struct identity_name *entry;
	size_t len = strlen(name) + 1;

	if (identity < BH_ID_FIRST || identity >= BH_MAX_IDENTITIES)
		return -EINVAL;
	entry = malloc(sizeof(*entry) + len);
	if (!entry)
		return -ENOMEM;
	entry->local = local;
	memcpy(entry->name, name, len);
	free(names->identities[identity]);
	names->identities[identity] = entry;
	return 0;
}

bool audit_names_identity(const struct audit_names *names, uint32_t identity, const char **namep, bool *localp)
{
	if (identity >= BH_MAX_IDENTITIES || !names->identities[identity])
		return false;
	*namep = names->identities[identity]->name;
	*localp = names->identities[identity]->local;
	return true;
}

/* Where the device stands, or would stand. */
static size_t device_place(const struct audit_names *names, uint32_t ifindex)
{
	size_t low = 0, high = names->n_devices;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (names->devices[middle].ifindex < ifindex)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int audit_names_set_device(struct audit_names *names, uint32_t ifindex, const char *name)
{
	size_t at = device_place(names, ifindex);

	if (at == names->n_devices || names->devices[at].ifindex != ifindex) {
		if (names->n_devices == MAX_DEVICES)
			names->n_devices = at = 0;
		if (names->n_devices == names->devices_room) {
			size_t room = names->devices_room ? 2 * names->devices_room : 64;
			struct device_name *devices = reallocarray(names->devices, room, sizeof(*devices));

			if (!devices)
				return -ENOMEM;
			names->devices = devices;
			names->devices_room = room;
		}
		memmove(names->devices + at + 1, names->devices + at,
			(names->n_devices++ - at) * sizeof(*names->devices));
		names->devices[at].ifindex = ifindex;
	}
	snprintf(names->devices[at].name, sizeof(names->devices[at].name), "%s", name);
	return 0;
}

const char *audit_names_device(const struct audit_names *names, uint32_t ifindex)
{
	size_t at = device_place(names, ifindex);

	return at < names->n_devices && names->devices[at].ifindex == ifindex ? names->devices[at].name : NULL;
}

static void forget_at(struct audit_names *names, size_t index)
{
	names->bytes -= names->revisions[index]->bytes;
	free(names->revisions[index]);
	names->n_revisions--;
	memmove(names->revisions + index, names->revisions + index + 1,
		(names->n_revisions - index) * sizeof(*names->revisions));
}

static const struct revision_names *find(const struct audit_names *names, uint32_t revision)
{
	for (size_t i = names->n_revisions; i--;)
		if (names->revisions[i]->revision == revision)
			return names->revisions[i];
	return NULL;
}

/* Rules of one file follow each other: its name is kept once per run. */
static bool same_file(const struct policy_rule_name *a, const struct policy_rule_name *b)
{
	return a->file && b->file && !strcmp(a->file, b->file);
}

static char *append(char **atp, const char *text)
{
	size_t len = strlen(text) + 1;
	char *start = memcpy(*atp, text, len);

	*atp += len;
	return start;
}

int audit_names_set_rules(struct audit_names *names, uint32_t revision, const char *digest,
			  const struct policy_rule_name *rules, size_t n)
{
	struct revision_names *entry;
	size_t bytes;
	char *at;

	if (n > BH_MAX_RULES + 1)
		return -E2BIG;
	bytes = sizeof(*entry) + n * sizeof(*rules);
	for (size_t i = 0; i < n; i++) {
		bytes += strlen(rules[i].name) + 1;
		if (rules[i].file && !(i && same_file(&rules[i - 1], &rules[i])))
			bytes += strlen(rules[i].file) + 1;
	}
	entry = malloc(bytes);
	if (!entry)
		return -ENOMEM;
	*entry = (struct revision_names){.revision = revision, .bytes = bytes, .n = n};
	strncpy(entry->digest, digest, sizeof(entry->digest) - 1);
	at = (char *)(entry->rules + n);
	for (size_t i = 0; i < n; i++) {
		entry->rules[i].line = rules[i].line;
		entry->rules[i].name = append(&at, rules[i].name);
		if (i && same_file(&rules[i - 1], &rules[i]))
			entry->rules[i].file = entry->rules[i - 1].file;
		else
			entry->rules[i].file = rules[i].file ? append(&at, rules[i].file) : NULL;
	}
	for (size_t i = 0; i < names->n_revisions; i++) {
		if (names->revisions[i]->revision == revision) {
			forget_at(names, i);
			break;
		}
	}
	while (names->n_revisions == AUDIT_NAMES_REVISIONS ||
	       (names->n_revisions > 1 && names->bytes + bytes > AUDIT_NAMES_MAX_BYTES))
		forget_at(names, 0);
	names->revisions[names->n_revisions++] = entry;
	names->bytes += bytes;
	return 0;
}

int audit_names_set_image(struct audit_names *names, uint32_t revision, const struct policy_image *image)
{
	struct policy_rule_name *rules;
	size_t n = 0;
	int r;

	rules = malloc((BH_MAX_RULES + 1) * sizeof(*rules));
	if (!rules)
		return -ENOMEM;
	while (n <= BH_MAX_RULES && policy_image_rule(image, (uint32_t)n, &rules[n]))
		n++;
	r = audit_names_set_rules(names, revision, policy_image_digest(image), rules, n);
	free(rules);
	return r;
}

const char *audit_names_digest(const struct audit_names *names, uint32_t revision)
{
	const struct revision_names *entry = find(names, revision);

	return entry ? entry->digest : NULL;
}

bool audit_names_rule(const struct audit_names *names, uint32_t revision, uint32_t number,
		      struct policy_rule_name *rule)
{
	const struct revision_names *entry = find(names, revision);

	if (!entry || number >= entry->n)
		return false;
	*rule = entry->rules[number];
	return true;
}

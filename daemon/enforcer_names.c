// SPDX-License-Identifier: Apache-2.0
/*
 * Identity numbers: what each stands for, in the kernel, in our copy, and in the auditor's.
 */
#include "enforcer_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *enforcer_identity_name(const struct enforcer *e, uint32_t identity)
{
	if (identity >= BH_MAX_IDENTITIES || !e->names[identity])
		return "";
	return e->names[identity]->name;
}

uint16_t enforcer_who_of(const struct enforcer *e, const struct policy_image *image, uint32_t identity)
{
	const struct bh_name *name;
	struct policy_local local;

	if (identity < BH_ID_FIRST)
		return (uint16_t)(identity <= BH_ID_WORLD ? identity : 0);
	name = identity < BH_MAX_IDENTITIES ? e->names[identity] : NULL;
	if (!name)
		return 0;
	if (!name->local)
		return (uint16_t)policy_image_classify(image, name->name);
	for (size_t i = 0; policy_image_local(image, i, &local); i++)
		if (strcmp(local.name, name->name) == 0)
			return (uint16_t)local.who;
	return 0;
}

static void name_tell(struct enforcer *e, uint32_t identity)
{
	struct ipc_audit_name packet = {
		.h = {.type = IPC_AUDIT_NAME, .len = sizeof(packet)},
		.identity = identity,
		.local = e->names[identity]->local,
	};

	snprintf(packet.name, sizeof(packet.name), "%.2048s", e->names[identity]->name);
	role_send(e->auditor, &packet, -1);
}

void enforcer_names_tell(struct enforcer *e)
{
	for (uint32_t i = BH_ID_FIRST; i < e->next_identity; i++)
		if (e->names[i])
			name_tell(e, i);
}

/* The number of an identity, a new one if it was never seen. Numbers are not used again: a socket may remember one. */
int enforcer_identity_number(struct enforcer *e, const char *text, bool local, uint32_t *number)
{
	struct bh_name *name;
	int r;

	for (uint32_t i = BH_ID_FIRST; i < e->next_identity; i++) {
		if (e->names[i] && e->names[i]->local == local && strcmp(e->names[i]->name, text) == 0) {
			*number = i;
			return 0;
		}
	}
	if (e->next_identity >= BH_MAX_IDENTITIES)
		return -ENOSPC;
	name = calloc(1, sizeof(*name));
	if (!name)
		return -ENOMEM;
	name->local = local;
	snprintf(name->name, sizeof(name->name), "%s", text);
	r = datapath_name_set(e->datapath, e->next_identity, name);
	if (r < 0) {
		free(name);
		return r;
	}
	e->names[e->next_identity] = name;
	*number = e->next_identity++;
	datapath_who_set(e->datapath, *number, enforcer_who_of(e, e->image, *number));
	name_tell(e, *number);
	return 0;
}

int enforcer_names_start(struct enforcer *e)
{
	const uint32_t *at = NULL;
	uint32_t key, next;

	e->next_identity = BH_ID_FIRST;
	e->names = calloc(BH_MAX_IDENTITIES, sizeof(*e->names));
	if (!e->names)
		return -ENOMEM;
	while (datapath_name_next(e->datapath, at, &next) == 0) {
		if (next >= BH_ID_FIRST && next < BH_MAX_IDENTITIES && !e->names[next]) {
			e->names[next] = calloc(1, sizeof(struct bh_name));
			if (!e->names[next])
				return -ENOMEM;
			datapath_name_get(e->datapath, next, e->names[next]);
			e->names[next]->name[BH_NAME_BYTES - 1] = '\0';
			if (next >= e->next_identity)
				e->next_identity = next + 1;
		}
		key = next;
		at = &key;
	}
	return 0;
}

void enforcer_names_free(struct enforcer *e)
{
	for (uint32_t i = 0; e->names && i < BH_MAX_IDENTITIES; i++)
		free(e->names[i]);
	free(e->names);
}

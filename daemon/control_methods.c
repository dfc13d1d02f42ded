/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void textp_free(char **textp)
{
	free(*textp);
}

static void message_unrefp(sd_bus_message **mp)
{
	sd_bus_message_unref(*mp);
}

/* D-Bus closes the connection of a sender whose strings are not UTF-8, and diagnostics quote what an operator's file
 * holds. Bytes that belong to no valid sequence become '?'. */
static void make_utf8(char *text)
{
	unsigned char *p = (unsigned char *)text;

	while (*p) {
		unsigned n = *p < 0x80		       ? 0
			     : *p >= 0xc2 && *p < 0xe0 ? 1
			     : (*p & 0xf0) == 0xe0     ? 2
			     : *p >= 0xf0 && *p < 0xf5 ? 3
						       : 9;
		bool valid = n != 9;

		for (unsigned i = 1; valid && i <= n; i++)
			valid = (p[i] & 0xc0) == 0x80;
		/* overlong forms, surrogates, beyond U+10FFFF */
		if (valid && ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
			      (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f)))
			valid = false;
		if (valid) {
			p += n + 1;
			continue;
		}
		*p++ = '?';
	}
}

/* ---- calls ---- */

/* Turns what an operation returned into a D-Bus error. Never 0. */
static int answer_error(sd_bus_error *error, int answer, char *text)
{
	const char *name = BH_ERROR_FAILED;

	if (text)
		make_utf8(text);
	if (answer < 0)
		return sd_bus_error_set(error, name, text ? text : strerror(-answer));
	switch (answer) {
	case CONTROL_INVALID:
		name = BH_ERROR_INVALID;
		break;
	case CONTROL_NO_REVISION:
		name = BH_ERROR_NO_REVISION;
		break;
	case CONTROL_NO_IDENTITY:
		name = BH_ERROR_NO_IDENTITY;
		break;
	case CONTROL_WOULD_CUT:
		name = BH_ERROR_WOULD_CUT;
		break;
	case CONTROL_WAITING:
		name = BH_ERROR_WAITING;
		break;
	case CONTROL_NOT_WAITING:
		name = BH_ERROR_NOT_WAITING;
		break;
	}
	return sd_bus_error_set(error, name, text ? text : "no");
}

struct source_list {
	struct policy_source *items;
	size_t n;
	size_t bytes;
};

static void source_list_free(struct source_list *list)
{
	free(list->items);
}

/* Reads a(say). The sources point into the message. */
static int read_sources(sd_bus_message *m, struct source_list *list, sd_bus_error *error)
{
	size_t room = 0;
	int rc = sd_bus_message_enter_container(m, 'a', "(say)");

	if (rc < 0)
		return rc;
	while ((rc = sd_bus_message_enter_container(m, 'r', "say")) > 0) {
		struct policy_source source = {0};
		const void *text;

		rc = sd_bus_message_read(m, "s", &source.name);
		if (rc >= 0)
			rc = sd_bus_message_read_array(m, 'y', &text, &source.len);
		if (rc >= 0)
			rc = sd_bus_message_exit_container(m);
		if (rc < 0)
			return rc;
		source.text = source.len ? text : "";
		list->bytes += source.len;
		if (list->n == POLICY_MAX_SOURCES || list->bytes > POLICY_MAX_SOURCE_BYTES)
			return sd_bus_error_setf(error, BH_ERROR_INVALID,
						 "the policy is larger than %u files or %u bytes", POLICY_MAX_SOURCES,
						 POLICY_MAX_SOURCE_BYTES);
		if (list->n == room) {
			struct policy_source *items;

			room = room ? 2 * room : 16;
			items = reallocarray(list->items, room, sizeof(*items));
			if (!items)
				return -ENOMEM;
			list->items = items;
		}
		list->items[list->n++] = source;
	}
	return rc < 0 ? rc : sd_bus_message_exit_container(m);
}

static struct connection *touch(void *userdata)
{
	struct connection *c = userdata;

	c->last_use = ++c->control->uses;
	return c;
}

static struct control_caller caller_of(const struct connection *c, const char *session)
{
	return (struct control_caller){.uid = c->peer.uid, .pid = c->peer.pid, .pidfd = c->pidfd, .session = session};
}

static int reply_change(sd_bus_message *m, int answer, const struct control_change_result *out, char *text,
			sd_bus_error *error)
{
	if (answer)
		return answer_error(error, answer, text);
	if (text)
		make_utf8(text);
	return sd_bus_reply_method_return(m, "uuuus", out->revision, out->replaced, out->rules, out->sockets_cut,
					  text ? text : "");
}

static int method_apply(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(source_list_free))) struct source_list list = {0};
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	struct control_change_result out = {0};
	struct control_change change = {0};
	struct control_caller caller;
	const char *session;
	int rc, even_if_cut;

	rc = read_sources(m, &list, error);
	if (rc < 0)
		return rc;
	rc = sd_bus_message_read(m, "susb", &change.comment, &change.confirm_s, &session, &even_if_cut);
	if (rc < 0)
		return rc;
	change.files = list.items;
	change.n = list.n;
	change.even_if_cut = even_if_cut;
	caller = caller_of(c, session);
	rc = c->control->ops->apply(c->control->ctx, &change, &caller, &out, &text);
	return reply_change(m, rc, &out, text, error);
}

static int method_preview(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(source_list_free))) struct source_list list = {0};
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	struct control_preview out = {0};
	struct control_caller caller;
	const char *session;
	int rc;

	rc = read_sources(m, &list, error);
	if (rc < 0)
		return rc;
	rc = sd_bus_message_read(m, "s", &session);
	if (rc < 0)
		return rc;
	caller = caller_of(c, session);
	rc = c->control->ops->preview(c->control->ctx, list.items, list.n, &caller, &out, &text);
	if (rc)
		return answer_error(error, rc, text);
	if (text)
		make_utf8(text);
	return sd_bus_reply_method_return(m, "ubs", out.sockets_cut, (int)out.session_cut, text ? text : "");
}

static int method_rollback(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	struct control_change_result out = {0};
	struct control_caller caller;
	const char *session;
	uint32_t revision;
	int rc, even_if_cut;

	rc = sd_bus_message_read(m, "usb", &revision, &session, &even_if_cut);
	if (rc < 0)
		return rc;
	caller = caller_of(c, session);
	rc = c->control->ops->rollback(c->control->ctx, revision, even_if_cut, &caller, &out, &text);
	return reply_change(m, rc, &out, text, error);
}

static int method_confirm(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	struct control_caller caller = caller_of(c, "");
	uint32_t revision = 0;
	int rc = c->control->ops->confirm(c->control->ctx, &caller, &revision, &text);

	if (rc)
		return answer_error(error, rc, text);
	return sd_bus_reply_method_return(m, "u", revision);
}

static void revision_free(struct control_revision *r)
{
	for (size_t i = 0; i < r->n_files; i++) {
		free((char *)r->files[i].name);
		free((char *)r->files[i].text);
	}
	free(r->files);
	free(r->comment);
}

static int append_revision(sd_bus_message *reply, struct control_revision *r)
{
	int rc = sd_bus_message_append(reply, "u", r->revision);

	if (rc >= 0)
		rc = sd_bus_message_open_container(reply, 'a', "(say)");
	for (size_t i = 0; rc >= 0 && i < r->n_files; i++) {
		make_utf8((char *)r->files[i].name);
		rc = sd_bus_message_open_container(reply, 'r', "say");
		if (rc >= 0)
			rc = sd_bus_message_append(reply, "s", r->files[i].name);
		if (rc >= 0)
			rc = sd_bus_message_append_array(reply, 'y', r->files[i].text, r->files[i].len);
		if (rc >= 0)
			rc = sd_bus_message_close_container(reply);
	}
	if (rc >= 0)
		rc = sd_bus_message_close_container(reply);
	if (r->comment)
		make_utf8(r->comment);
	if (rc >= 0)
		rc = sd_bus_message_append(reply, "stus", r->digest, r->applied_usec, (uint32_t)r->uid,
					   r->comment ? r->comment : "");
	return rc;
}

static int method_show(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(revision_free))) struct control_revision revision = {0};
	__attribute__((cleanup(message_unrefp))) sd_bus_message *reply = NULL;
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	uint32_t number;
	int rc;

	rc = sd_bus_message_read(m, "u", &number);
	if (rc < 0)
		return rc;
	rc = c->control->ops->show(c->control->ctx, number, &revision, &text);
	if (rc)
		return answer_error(error, rc, text);
	rc = sd_bus_message_new_method_return(m, &reply);
	if (rc >= 0)
		rc = append_revision(reply, &revision);
	return rc < 0 ? rc : sd_bus_send(NULL, reply, NULL);
}

/* A method without arguments whose answer is a JSON text. */
static int reply_json(sd_bus_message *m, struct connection *c, int (*op)(void *, char **), sd_bus_error *error)
{
	__attribute__((cleanup(textp_free))) char *text = NULL;
	int rc = op(c->control->ctx, &text);

	if (!rc && !text)
		rc = -ENODATA;
	if (rc)
		return answer_error(error, rc, text);
	make_utf8(text);
	return sd_bus_reply_method_return(m, "s", text);
}

static int method_status(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct connection *c = touch(userdata);

	return reply_json(m, c, c->control->ops->status, error);
}

static int method_identities(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct connection *c = touch(userdata);

	return reply_json(m, c, c->control->ops->identities, error);
}

static int method_bundles(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct connection *c = touch(userdata);

	return reply_json(m, c, c->control->ops->bundles, error);
}

static int method_history(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct connection *c = touch(userdata);

	return reply_json(m, c, c->control->ops->history, error);
}

static int method_top(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct connection *c = touch(userdata);

	return reply_json(m, c, c->control->ops->top, error);
}

static int method_revoke(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	struct control_revoke_result out = {0};
	const char *identity;
	int rc;

	rc = sd_bus_message_read(m, "s", &identity);
	if (rc < 0)
		return rc;
	rc = c->control->ops->revoke(c->control->ctx, identity, c->peer.uid, c->peer.pid, &out, &text);
	if (rc)
		return answer_error(error, rc, text);
	return sd_bus_reply_method_return(m, "uu", out.tags, out.sockets_cut);
}

static int method_reload(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	int rc = c->control->ops->reload(c->control->ctx, c->peer.uid, c->peer.pid, &text);

	if (rc)
		return answer_error(error, rc, text);
	return sd_bus_reply_method_return(m, "");
}

static int method_rotate_key(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	__attribute__((cleanup(textp_free))) char *text = NULL;
	struct connection *c = touch(userdata);
	uint64_t epoch = 0;
	int rc = c->control->ops->rotate_key(c->control->ctx, c->peer.uid, c->peer.pid, &epoch, &text);

	if (rc)
		return answer_error(error, rc, text);
	return sd_bus_reply_method_return(m, "t", epoch);
}

/* UNPRIVILEGED: sd-bus would otherwise ask for CAP_SYS_ADMIN, but the mode of the socket is what decides here. */
const sd_bus_vtable control_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("Apply", "a(say)susb", "uuuus", method_apply, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Preview", "a(say)s", "ubs", method_preview, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Confirm", "", "u", method_confirm, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Rollback", "usb", "uuuus", method_rollback, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("History", "", "s", method_history, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Show", "u", "ua(say)stus", method_show, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Status", "", "s", method_status, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Identities", "", "s", method_identities, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Bundles", "", "s", method_bundles, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Top", "", "s", method_top, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Revoke", "s", "uu", method_revoke, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("RotateKey", "", "t", method_rotate_key, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Reload", "", "", method_reload, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

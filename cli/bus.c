/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/bus.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cli/policy_files.h"
#include "daemon/control_api.h"

/* Compiling the largest policy takes seconds; whoever waits longer waits for a daemon that hangs. */
#define CALL_TIMEOUT_USEC (60U * 1000000U)

void cli_bus_closep(sd_bus **busp)
{
	*busp = sd_bus_flush_close_unref(*busp);
}

void cli_message_unrefp(sd_bus_message **messagep)
{
	*messagep = sd_bus_message_unref(*messagep);
}

static void bus_error_free(sd_bus_error *error)
{
	sd_bus_error_free(error);
}

/* ---- connection ---- */

static int unreachable(const char *path, int error)
{
	switch (error) {
	case ENOENT:
		cli_error("the daemon is not reachable: there is no %s; is bulkheadd running? (`--run-dir DIR` for "
			  "another "
			  "instance)",
			  path);
		break;
	case ECONNREFUSED:
		cli_error("the daemon is not reachable: nobody listens on %s; bulkheadd has stopped, start it again",
			  path);
		break;
	case EACCES:
	case EPERM:
		cli_error("not allowed to connect to %s; be root or a member of the group `bulkhead`", path);
		break;
	default:
		cli_error("the daemon is not reachable: %s: %s; see the log of bulkheadd", path, strerror(error));
	}
	return CLI_UNREACHABLE;
}

/* Returns a descriptor, or -errno; -ENAMETOOLONG: the run directory's name is. */
static int socket_connect(const struct cli *cli, struct sockaddr_un *address)
{
	int fd, len, r;

	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	len = snprintf(address->sun_path, sizeof(address->sun_path), "%s/%s", cli->run_dir, BH_CONTROL_SOCKET);
	if (len < 0 || (size_t)len >= sizeof(address->sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

bool cli_bus_is_there(const struct cli *cli)
{
	struct sockaddr_un address;
	int fd = socket_connect(cli, &address);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

int cli_bus_open(struct cli *cli, sd_bus **busp)
{
	__attribute__((cleanup(cli_bus_closep))) sd_bus *bus = NULL;
	struct sockaddr_un address;
	int fd = socket_connect(cli, &address), rc;

	*busp = NULL;
	if (fd == -ENAMETOOLONG) {
		cli_error("run directory %s: the path is too long for a socket", cli->run_dir);
		return CLI_USAGE;
	}
	if (fd < 0)
		return unreachable(address.sun_path, -fd);
	rc = sd_bus_new(&bus);
	if (rc >= 0)
		rc = sd_bus_set_fd(bus, fd, fd);
	if (rc < 0) {
		close(fd);
		return unreachable(address.sun_path, -rc);
	}
	rc = sd_bus_set_method_call_timeout(bus, CALL_TIMEOUT_USEC);
	if (rc >= 0)
		rc = sd_bus_start(bus);
	if (rc < 0)
		return unreachable(address.sun_path, -rc);
	*busp = bus;
	bus = NULL;
	return CLI_OK;
}

/* ---- calls ---- */

int cli_bus_method(sd_bus *bus, const char *member, sd_bus_message **callp)
{
	int rc = sd_bus_message_new_method_call(bus, callp, NULL, BH_BUS_PATH, BH_BUS_INTERFACE, member);

	if (rc < 0) {
		cli_error("cannot make a call to the daemon: %s", strerror(-rc));
		return CLI_UNREACHABLE;
	}
	return CLI_OK;
}

static int call_failed(struct cli *cli, const sd_bus_error *error, int rc)
{
	const char *text = error->message && *error->message ? error->message : strerror(-rc);
	size_t len = strlen(text);

	/* Diagnostics are shown as they are: they begin with FILE:LINE:COL. */
	if (sd_bus_error_has_name(error, BH_ERROR_INVALID)) {
		fprintf(stderr, "%s%s", text, len && text[len - 1] == '\n' ? "" : "\n");
		return CLI_NO;
	}
	if (sd_bus_error_has_names(error, BH_ERROR_NO_REVISION, BH_ERROR_NO_IDENTITY, BH_ERROR_WOULD_CUT,
				   BH_ERROR_WAITING, BH_ERROR_NOT_WAITING)) {
		cli_error_lines(text);
		return CLI_NO;
	}
	if (sd_bus_error_has_name(error, BH_ERROR_FAILED))
		cli_error("the daemon failed: %s", text);
	else if (sd_bus_error_has_name(error, SD_BUS_ERROR_UNKNOWN_METHOD))
		cli_error("the daemon at %s/%s is of another version than this policyctl (" BULKHEAD_VERSION "): %s",
			  cli->run_dir, BH_CONTROL_SOCKET, text);
	else if (rc == -ETIMEDOUT)
		cli_error("the daemon at %s/%s did not answer within %u s; see the log of bulkheadd", cli->run_dir,
			  BH_CONTROL_SOCKET, CALL_TIMEOUT_USEC / 1000000U);
	else
		cli_error("the daemon at %s/%s went away: %s; see the log of bulkheadd", cli->run_dir,
			  BH_CONTROL_SOCKET, text);
	return CLI_UNREACHABLE;
}

int cli_bus_call(struct cli *cli, sd_bus *bus, sd_bus_message *call, sd_bus_message **replyp)
{
	__attribute__((cleanup(bus_error_free))) sd_bus_error error = SD_BUS_ERROR_NULL;
	int rc = sd_bus_call(bus, call, CALL_TIMEOUT_USEC, &error, replyp);

	return rc < 0 ? call_failed(cli, &error, rc) : CLI_OK;
}

int cli_bus_ask(struct cli *cli, sd_bus *bus, sd_bus_message *call, const char *const *names, sd_bus_message **replyp,
		struct cli_no *no)
{
	__attribute__((cleanup(bus_error_free))) sd_bus_error error = SD_BUS_ERROR_NULL;
	int rc = sd_bus_call(bus, call, CALL_TIMEOUT_USEC, &error, replyp);

	*no = (struct cli_no){};
	if (rc >= 0)
		return CLI_OK;
	while (*names && !sd_bus_error_has_name(&error, *names))
		names++;
	if (!*names)
		return call_failed(cli, &error, rc);
	no->name = *names;
	no->text = strdup(error.message ? error.message : "");
	if (no->text)
		return CLI_NO;
	cli_error("out of memory");
	no->name = NULL;
	return CLI_UNREACHABLE;
}

void cli_no_free(struct cli_no *no)
{
	free(no->text);
}

int cli_bus_append_files(sd_bus_message *call, const struct policy_source *files, size_t n)
{
	int rc = sd_bus_message_open_container(call, 'a', "(say)");

	for (size_t i = 0; rc >= 0 && i < n; i++) {
		rc = sd_bus_message_open_container(call, 'r', "say");
		if (rc >= 0)
			rc = sd_bus_message_append(call, "s", files[i].name);
		if (rc >= 0)
			rc = sd_bus_message_append_array(call, 'y', files[i].text, files[i].len);
		if (rc >= 0)
			rc = sd_bus_message_close_container(call);
	}
	if (rc >= 0)
		rc = sd_bus_message_close_container(call);
	if (rc >= 0)
		return CLI_OK;
	cli_error("names of files must be valid UTF-8");
	return CLI_USAGE;
}

int cli_bus_malformed(struct cli *cli, const char *member)
{
	cli_error(
		"the answer of the daemon at %s/%s to %s cannot be understood; are policyctl and bulkheadd of the same "
		"version?",
		cli->run_dir, BH_CONTROL_SOCKET, member);
	return CLI_UNREACHABLE;
}

int cli_bus_json(struct cli *cli, const char *member, json_t **valuep)
{
	__attribute__((cleanup(cli_bus_closep))) sd_bus *bus = NULL;
	__attribute__((cleanup(cli_message_unrefp))) sd_bus_message *call = NULL, *reply = NULL;
	const char *text;
	int code;

	*valuep = NULL;
	code = cli_bus_open(cli, &bus);
	if (code == CLI_OK)
		code = cli_bus_method(bus, member, &call);
	if (code == CLI_OK)
		code = cli_bus_call(cli, bus, call, &reply);
	if (code != CLI_OK)
		return code;
	if (sd_bus_message_read(reply, "s", &text) < 0)
		return cli_bus_malformed(cli, member);
	*valuep = json_loads(text, 0, NULL);
	return *valuep ? CLI_OK : cli_bus_malformed(cli, member);
}

int cli_bus_list(struct cli *cli, int argc, char **argv, const struct cli_command *command, const struct cli_list *list)
{
	json_t *items;
	int code;

	if (argc > 1)
		return cli_usage_error(command, "unexpected argument %s", argv[1]);
	code = cli_bus_json(cli, list->member, &items);
	if (code != CLI_OK)
		return code;
	if (cli->json) {
		cli_print_json(items);
		return CLI_OK;
	}
	if (!json_array_size(items))
		puts(list->none);
	else
		list->print(cli, items);
	json_decref(items);
	return CLI_OK;
}

/* ---- revisions ---- */

void cli_revision_free(struct cli_revision *revision)
{
	for (size_t i = 0; i < revision->n_files; i++) {
		free((char *)revision->files[i].name);
		free((char *)revision->files[i].text);
	}
	free(revision->files);
	free(revision->digest);
	free(revision->comment);
	*revision = (struct cli_revision){0};
}

static int read_file_entry(sd_bus_message *m, struct cli_revision *out)
{
	struct policy_source *files = reallocarray(out->files, out->n_files + 1, sizeof(*files));
	const char *name;
	const void *bytes;
	char *text, *copy;
	size_t len;

	if (!files)
		return -ENOMEM;
	out->files = files;
	if (sd_bus_message_read(m, "s", &name) < 0 || sd_bus_message_read_array(m, 'y', &bytes, &len) < 0)
		return -EBADMSG;
	text = malloc(len + 1);
	copy = strdup(name);
	if (!text || !copy) {
		free(text);
		free(copy);
		return -ENOMEM;
	}
	if (len)
		memcpy(text, bytes, len);
	text[len] = '\0';
	files[out->n_files++] = (struct policy_source){.name = copy, .text = text, .len = len};
	return sd_bus_message_exit_container(m) < 0 ? -EBADMSG : 0;
}

static int read_revision(sd_bus_message *m, struct cli_revision *out)
{
	const char *digest, *comment;
	int rc;

	if (sd_bus_message_read(m, "u", &out->revision) < 0 || sd_bus_message_enter_container(m, 'a', "(say)") < 0)
		return -EBADMSG;
	while ((rc = sd_bus_message_enter_container(m, 'r', "say")) > 0) {
		rc = read_file_entry(m, out);
		if (rc)
			return rc;
	}
	if (rc < 0 || sd_bus_message_exit_container(m) < 0 ||
	    sd_bus_message_read(m, "stus", &digest, &out->applied_usec, &out->uid, &comment) < 0)
		return -EBADMSG;
	out->digest = strdup(digest);
	out->comment = strdup(comment);
	return out->digest && out->comment ? 0 : -ENOMEM;
}

int cli_bus_show_if(struct cli *cli, uint32_t number, struct cli_revision *out, struct cli_no *no)
{
	static const char *const names[] = {BH_ERROR_NO_REVISION, NULL};
	__attribute__((cleanup(cli_bus_closep))) sd_bus *bus = NULL;
	__attribute__((cleanup(cli_message_unrefp))) sd_bus_message *call = NULL, *reply = NULL;
	int code;

	*out = (struct cli_revision){0};
	code = cli_bus_open(cli, &bus);
	if (code == CLI_OK)
		code = cli_bus_method(bus, "Show", &call);
	if (code == CLI_OK && sd_bus_message_append(call, "u", number) < 0)
		code = cli_bus_malformed(cli, "Show");
	if (code == CLI_OK)
		code = cli_bus_ask(cli, bus, call, names, &reply, no);
	if (code != CLI_OK)
		return code;
	if (read_revision(reply, out)) {
		cli_revision_free(out);
		return cli_bus_malformed(cli, "Show");
	}
	return CLI_OK;
}

int cli_bus_show(struct cli *cli, uint32_t number, struct cli_revision *out)
{
	__attribute__((cleanup(cli_no_free))) struct cli_no no = {};
	int code = cli_bus_show_if(cli, number, out, &no);

	if (no.name)
		cli_error_lines(no.text);
	return code;
}

int cli_policy_in_force(struct cli *cli, struct policy_source **sources, size_t *n)
{
	__attribute__((cleanup(cli_revision_free))) struct cli_revision revision = {0};
	int code = cli_bus_show(cli, 0, &revision);

	*sources = NULL;
	*n = 0;
	if (code != CLI_OK)
		return code;
	*sources = revision.files;
	*n = revision.n_files;
	revision.files = NULL;
	revision.n_files = 0;
	return CLI_OK;
}

/* ---- values ---- */

void cli_format_time(uint64_t seconds, char *out, size_t size)
{
	time_t t = (time_t)seconds;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(out, size, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(out, size, "?");
}

json_t *cli_json_get(const json_t *object, const char *path)
{
	while (object) {
		char key[64];
		size_t len = strcspn(path, ".");

		if (len >= sizeof(key))
			return NULL;
		memcpy(key, path, len);
		key[len] = '\0';
		object = json_object_get(object, key);
		if (!path[len])
			return (json_t *)object;
		path += len + 1;
	}
	return NULL;
}

const char *cli_json_string(const json_t *object, const char *path)
{
	const char *text = json_string_value(cli_json_get(object, path));

	return text ? text : "";
}

json_int_t cli_json_int(const json_t *object, const char *path)
{
	return json_integer_value(cli_json_get(object, path));
}

bool cli_json_true(const json_t *object, const char *path)
{
	return json_is_true(cli_json_get(object, path));
}

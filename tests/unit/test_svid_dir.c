// SPDX-License-Identifier: Apache-2.0
/* What of a directory is believed to hold an SVID, and what of the links in a Kubernetes volume is followed. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/ipc.h"
#include "daemon/svid_dir.h"

/* In a directory of the test's own, which is the working directory: v, the volume, with its states v/..1 and v/..2. */
static int enter(void **state)
{
	static char path[] = "/tmp/bulkhead-test-XXXXXX";
	char command[400];

	if (geteuid() != 0)
		return 0;
	snprintf(path, sizeof(path), "/tmp/bulkhead-test-XXXXXX");
	assert_non_null(mkdtemp(path));
	assert_int_equal(chdir(path), 0);
	snprintf(
		command, sizeof(command),
		"umask 022; mkdir v v/..1 v/..2 other && for n in 1 2; do echo chain$n >v/..$n/svid.pem && "
		"echo key$n >v/..$n/svid_key.pem && chmod 400 v/..$n/*; done && cp -p v/..1/* other && chmod 1777 v && "
		"ln -s ..1 v/..data && ln -s ..data/svid.pem v/svid.pem && ln -s ..data/svid_key.pem v/svid_key.pem");
	assert_int_equal(system(command), 0);
	*state = path;
	return 0;
}

static int leave(void **state)
{
	char command[100];

	if (!*state)
		return 0;
	snprintf(command, sizeof(command), "rm -rf '%s'", (const char *)*state);
	assert_int_equal(chdir("/"), 0);
	return system(command);
}

/* Looks as often as it takes to be settled. Returns what the last look returned, and what came or why nothing did. */
static int look(const char *root, const char *name, char *text, size_t size)
{
	char path[200];
	struct svid_dir dir = {.path = path};
	void *bytes;
	size_t len;
	int fd, r;

	snprintf(path, sizeof(path), "%s/%s", root, name);
	r = svid_dir_look(&dir, &fd, text, size);
	if (r == 0)
		r = svid_dir_look(&dir, &fd, text, size);
	if (r <= 0)
		return r;
	assert_int_equal(ipc_memfd_read(fd, 1000, &bytes, &len), 0);
	assert_true(len > 4 && len < size);
	snprintf(text, size, "%.*s", (int)len - 4, (const char *)bytes + 4);
	free(bytes);
	close(fd);
	assert_int_equal(svid_dir_look(&dir, &fd, path, 0), 0);
	return r;
}

static void shell(const char *command)
{
	if (system(command) != 0)
		fail_msg("%s", command);
}

static void gives(const char *root, const char *name, const char *wanted)
{
	char text[600] = "";

	if (look(root, name, text, sizeof(text)) != 1 || strcmp(text, wanted) != 0)
		fail_msg("%s gives: %s", name, text);
}

static void a_kubernetes_volume_gives_what_its_link_leads_to(void **state)
{
	if (!*state)
		skip();
	gives(*state, "v", "chain1\nkey1\n");
	shell("ln -s ..2 v/..new && mv -T v/..new v/..data");
	gives(*state, "v", "chain2\nkey2\n");
	/* In a directory that is root's alone too. */
	shell("chmod 755 v");
	gives(*state, "v", "chain2\nkey2\n");
}

static void a_state_that_is_replaced_between_two_looks_is_not_taken(void **state)
{
	char path[200], why[600];
	struct svid_dir dir = {.path = path};
	int fd;

	if (!*state)
		skip();
	snprintf(path, sizeof(path), "%s/v", (const char *)*state);
	assert_int_equal(svid_dir_look(&dir, &fd, why, sizeof(why)), 0);
	shell("ln -s ..2 v/..new && mv -T v/..new v/..data");
	assert_int_equal(svid_dir_look(&dir, &fd, why, sizeof(why)), 0);
	assert_int_equal(svid_dir_look(&dir, &fd, why, sizeof(why)), 1);
	close(fd);
}

static void files_of_a_directory_that_is_roots_alone_are_taken_as_they_are(void **state)
{
	if (!*state)
		skip();
	gives(*state, "other", "chain1\nkey1\n");
}

static void whatever_else_is_there_is_refused(void **state)
{
	static const struct {
		const char *spoil, *why;
	} cases[] = {
		{"ln -sfT ../other/svid.pem v/svid.pem",
		 "v/svid.pem is a link to ../other/svid.pem, not to ..data/svid.pem"},
		{"ln -sfT $PWD/other/svid.pem v/svid.pem", "not to ..data/svid.pem"},
		{"ln -sfT ..data/svid.pem v/svid_key.pem",
		 "v/svid_key.pem is a link to ..data/svid.pem, not to ..data/svid_key.pem"},
		{"ln -sfT ..1/svid.pem v/svid.pem", "not to ..data/svid.pem"},
		{"ln -sfT ..data/svid.pem/ v/svid.pem", "not to ..data/svid.pem"},
		{"chown -h 65534 v/svid.pem", "v/svid.pem is a link that is not root's"},
		{"chown -h 65534 v/..data", "v/..data is a link that is not root's"},
		{"ln -sfT ../other v/..data", "v/..data leads to ../other, and not to a directory beside it"},
		{"ln -sfT $PWD/other v/..data", "not to a directory beside it"},
		{"ln -sfT .. v/..data", "not to a directory beside it"},
		{"ln -sfT . v/..data", "not to a directory beside it"},
		{"ln -sfT ..1/ v/..data", "not to a directory beside it"},
		{"ln -sfT ..3 v/..data", "cannot open "},
		{"ln -s ..1 v/..3 && ln -sfT ..3 v/..data", "cannot open "},
		{"ln -sfT svid.pem v/..data", "cannot open "},
		{"rm v/..data", "cannot open "},
		{"rm v/..data && mkdir v/..data && cp -p v/..1/* v/..data", "v/..data is no link"},
		{"chmod 1777 v/..1", "v/..1 belongs to others than root, or they may write in it"},
		{"chown 65534 v/..1", "v/..1 belongs to others than root"},
		{"chmod 644 v/..1/svid_key.pem", "must be a file of root's"},
		{"chown 65534 v/..1/svid.pem", "must be a file of root's"},
		{"ln -sfT $PWD/other/svid.pem v/..1/svid.pem", "it is a symbolic link"},
		{"rm v/svid.pem && cp -p other/svid.pem v", "v belongs to others than root, or they may write in it"},
		{"rm v/svid_key.pem && cp -p other/svid_key.pem v", "v/svid_key.pem is no link, and svid.pem is one"},
		{"chmod 755 v && rm v/svid_key.pem && cp -p other/svid_key.pem v",
		 "v/svid_key.pem is no link, and svid.pem is one"},
		{"chmod 755 v && rm v/svid.pem && cp -p other/svid.pem v", "v/svid_key.pem: it is a symbolic link"},
		{"chmod 777 v", "v belongs to others than root, or they may write in it"},
		{"chmod 775 v && chown 0:65534 v", "v belongs to others than root, or they may write in it"},
		{"chown 65534 v", "v belongs to others than root"},
		{"mv v w && ln -s w v", "cannot open "},
	};

	if (!*state)
		skip();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[600] = "";

		leave(state);
		enter(state);
		shell(cases[i].spoil);
		if (look(*state, "v", text, sizeof(text)) >= 0 || !strstr(text, cases[i].why))
			fail_msg("%s: %s", cases[i].spoil, text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_kubernetes_volume_gives_what_its_link_leads_to, enter, leave),
		cmocka_unit_test_setup_teardown(a_state_that_is_replaced_between_two_looks_is_not_taken, enter, leave),
		cmocka_unit_test_setup_teardown(files_of_a_directory_that_is_roots_alone_are_taken_as_they_are, enter,
						leave),
		cmocka_unit_test_setup_teardown(whatever_else_is_there_is_refused, enter, leave),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/bundle_store.h"

struct world {
	char path[64];
	int dir;
};

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	strcpy(world->path, "/tmp/bundle-store-XXXXXX");
	assert_non_null(mkdtemp(world->path));
	world->dir = open(world->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(world->dir >= 0);
	*state = world;
	return 0;
}

static void remove_one(void *ctx, const char *trust_domain)
{
	assert_int_equal(bundle_store_remove(*(int *)ctx, trust_domain), 0);
}

static int teardown(void **state)
{
	struct world *world = *state;

	bundle_store_each(world->dir, remove_one, &world->dir);
	unlinkat(world->dir, "td.example", 0);
	close(world->dir);
	assert_int_equal(rmdir(world->path), 0); /* nothing is left behind */
	free(world);
	return 0;
}

static const struct bundle_kept good = {
	.trust_domain = "td.example",
	.origin = "td.example.json",
	.source = 1,
	.format = BUNDLE_JWKS,
	.loaded_s = 1795248000,
};

static void what_was_kept_last_is_there(void **state)
{
	struct world *world = *state;
	struct bundle_kept kept;
	char *text;
	size_t len;

	assert_int_equal(bundle_store_read(world->dir, "td.example", &kept, &text, &len), -ENOENT);
	assert_int_equal(bundle_store_write(world->dir, &good, "a longer text", 13), 0);
	assert_int_equal(bundle_store_write(world->dir, &good, "text", 4), 0);
	assert_int_equal(bundle_store_read(world->dir, "td.example", &kept, &text, &len), 0);
	assert_int_equal(len, 4);
	assert_memory_equal(text, "text", 5);
	assert_memory_equal(&kept, &good, sizeof(good));
	free(text);
	assert_int_equal(bundle_store_remove(world->dir, "td.example"), 0);
	assert_int_equal(bundle_store_remove(world->dir, "td.example"), 0);
	assert_int_equal(bundle_store_read(world->dir, "td.example", &kept, &text, &len), -ENOENT);
}

/* Each byte of the file changed that is not the text's, and each length but the right one. */
static void a_file_that_is_damaged_is_not_taken_for_one(void **state)
{
	struct world *world = *state;
	struct bundle_kept kept;
	char name[100], *text, bytes[1024];
	ssize_t size;
	size_t len;
	int fd;

	assert_int_equal(bundle_store_write(world->dir, &good, "text", 4), 0);
	snprintf(name, sizeof(name), "%s/td.example.bundle", world->path);
	fd = open(name, O_RDWR | O_CLOEXEC);
	size = read(fd, bytes, sizeof(bytes));
	assert_true(size > 4);
	for (ssize_t i = 0; i < size; i++) {
		assert_int_equal(ftruncate(fd, i), 0);
		assert_int_equal(bundle_store_read(world->dir, "td.example", &kept, &text, &len), -EBADMSG);
	}
	assert_int_equal(pwrite(fd, bytes, (size_t)size, 0), size);
	assert_int_equal(pwrite(fd, "b", 1, 0), 1); /* the magic */
	assert_int_equal(bundle_store_read(world->dir, "td.example", &kept, &text, &len), -EBADMSG);
	assert_int_equal(pwrite(fd, bytes, (size_t)size, 0), size);
	assert_int_equal(pwrite(fd, "x", 1, size), 1);
	assert_int_equal(bundle_store_read(world->dir, "td.example", &kept, &text, &len), -EBADMSG);
	close(fd);
}

static void the_bundle_of_one_trust_domain_is_not_anothers(void **state)
{
	struct world *world = *state;
	struct bundle_kept kept;
	char *text;
	size_t len;

	assert_int_equal(bundle_store_write(world->dir, &good, "text", 4), 0);
	assert_int_equal(renameat(world->dir, "td.example.bundle", world->dir, "other.example.bundle"), 0);
	assert_int_equal(bundle_store_read(world->dir, "other.example", &kept, &text, &len), -EBADMSG);
}

static void a_name_that_no_file_can_have_is_an_error(void **state)
{
	struct world *world = *state;
	struct bundle_kept kept = good;

	memset(kept.trust_domain, 'a', 255);
	kept.trust_domain[255] = '\0';
	assert_int_equal(bundle_store_write(world->dir, &kept, "text", 4), -ENAMETOOLONG);
	assert_int_equal(bundle_store_remove(world->dir, kept.trust_domain), 0);
	kept.trust_domain[248] = '\0';
	assert_int_equal(bundle_store_write(world->dir, &kept, "text", 4), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_was_kept_last_is_there, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_that_is_damaged_is_not_taken_for_one, setup, teardown),
		cmocka_unit_test_setup_teardown(the_bundle_of_one_trust_domain_is_not_anothers, setup, teardown),
		cmocka_unit_test_setup_teardown(a_name_that_no_file_can_have_is_an_error, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

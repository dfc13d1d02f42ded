// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/policy_pack.h"
#include "daemon/revisions.h"

static int dir_fd = -1;
static char dir[] = "/tmp/bulkhead-revisions-XXXXXX";

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
	return dir_fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	char name[64];

	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "%08u.rev", i);
		unlinkat(dir_fd, name, 0);
	}
	unlinkat(dir_fd, "latest", 0);
	close(dir_fd);
	return rmdir(dir);
}

static void store(uint32_t number)
{
	struct revision r = {.number = number, .uid = 7, .applied_usec = 42, .image = "image", .image_len = 5};
	struct revision_draft draft;

	strcpy(r.digest, "d");
	strcpy(r.comment, "why");
	r.cause = REVISION_ROLLED_BACK;
	r.replaced = number - 1;
	r.predecessor = 1;
	r.target = 2;
	r.confirm_s = 60;
	r.login_uid = 1000;
	strcpy(r.via, "policyctl < bash < sshd");
	strcpy(r.from, "192.0.2.7:51022");
	revision_draft_begin(&draft, dir_fd, strdup("pack"), 4);
	assert_int_equal(revisions_store(&r, &draft), 0);
}

static void a_draft_that_is_not_stored_leaves_nothing(void **state)
{
	struct revision_draft draft;

	(void)state;
	revision_draft_begin(&draft, dir_fd, strdup("pack"), 4);
	assert_int_equal(draft.fault, 0);
	assert_int_equal(faccessat(dir_fd, "new", F_OK, 0), 0);
	revision_draft_clear(&draft);
	assert_int_equal(faccessat(dir_fd, "new", F_OK, 0), -1);
	assert_int_equal(errno, ENOENT);
	revision_draft_clear(&draft);
}

/* That it cannot be written is said by who stores it, not by who begins it. */
static void a_draft_that_a_crash_has_left_is_forgotten(void **state)
{
	struct revision_draft draft;

	(void)state;
	revision_draft_begin(&draft, dir_fd, strdup("pack"), 4);
	revision_draft_forget(dir_fd);
	assert_int_equal(faccessat(dir_fd, "new", F_OK, 0), -1);
	revision_draft_forget(dir_fd);
	revision_draft_clear(&draft);
}

static void a_draft_that_could_not_be_written_is_not_stored(void **state)
{
	struct revision r = {.number = 9, .image = "image", .image_len = 5};
	struct revision_draft draft;

	(void)state;
	assert_int_equal(mkdirat(dir_fd, "new", 0700), 0);
	revision_draft_begin(&draft, dir_fd, strdup("pack"), 4);
	assert_int_equal(revisions_store(&r, &draft), -EISDIR);
	assert_null(draft.pack);
	assert_int_equal(unlinkat(dir_fd, "new", AT_REMOVEDIR), 0);
	assert_int_equal(revisions_load_head(dir_fd, 9, &r), -ENOENT);
}

static void a_stored_revision_comes_back_as_it_was(void **state)
{
	struct revision r;

	(void)state;
	store(3);
	assert_int_equal(revisions_load(dir_fd, 3, &r), 0);
	assert_int_equal(r.number, 3);
	assert_int_equal(r.uid, 7);
	assert_int_equal(r.applied_usec, 42);
	assert_string_equal(r.comment, "why");
	assert_int_equal(r.pack_len, 4);
	assert_memory_equal(r.pack, "pack", 4);
	assert_int_equal(r.image_len, 5);
	assert_memory_equal(r.image, "image", 5);
	revision_clear(&r);
	assert_int_equal(revisions_load_head(dir_fd, 3, &r), 0);
	assert_null(r.pack);
	assert_null(r.image);
	assert_int_equal(r.cause, REVISION_ROLLED_BACK);
	assert_int_equal(r.replaced, 2);
	assert_int_equal(r.predecessor, 1);
	assert_int_equal(r.target, 2);
	assert_int_equal(r.confirm_s, 60);
	assert_int_equal(r.login_uid, 1000);
	assert_string_equal(r.via, "policyctl < bash < sshd");
	assert_string_equal(r.from, "192.0.2.7:51022");
	assert_string_equal(r.comment, "why");
}

/* What earlier builds wrote: head, sources, image, and no sum. */
static void a_revision_of_the_first_version_is_read(void **state)
{
	struct {
		char magic[8];
		uint32_t number, uid;
		uint64_t applied_usec, pack_len, image_len;
		char digest[65], comment[512], pad[7];
		char body[9];
	} __attribute__((packed)) old = {"BHREV1", 5, 7, 42, 4, 5, "d", "why", "", "packimage"};
	struct revision r;
	int fd = openat(dir_fd, "00000005.rev", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	(void)state;
	assert_int_equal(write(fd, &old, sizeof(old)), sizeof(old));
	close(fd);
	assert_int_equal(revisions_load(dir_fd, 5, &r), 0);
	assert_int_equal(r.uid, 7);
	assert_string_equal(r.comment, "why");
	assert_memory_equal(r.pack, "pack", 4);
	assert_memory_equal(r.image, "image", 5);
	assert_int_equal(r.replaced, REVISION_UNKNOWN);
	assert_int_equal(r.predecessor, REVISION_UNKNOWN);
	assert_int_equal(r.login_uid, REVISION_NO_LOGIN);
	assert_string_equal(r.via, "");
	revision_clear(&r);
	old.magic[5] = '9';
	fd = openat(dir_fd, "00000005.rev", O_WRONLY);
	assert_int_equal(write(fd, &old, sizeof(old)), sizeof(old));
	close(fd);
	assert_int_equal(revisions_load(dir_fd, 5, &r), -EBADMSG);
	revisions_remove(dir_fd, 5);
}

static void the_numbers_stored_are_listed_in_order(void **state)
{
	uint32_t *numbers;
	size_t n;

	(void)state;
	store(12);
	store(4);
	store(3);
	assert_int_equal(revisions_list(dir_fd, &numbers, &n), 0);
	assert_int_equal(n, 3);
	assert_memory_equal(numbers, ((uint32_t[]){3, 4, 12}), 12);
	free(numbers);
	revisions_remove(dir_fd, 12);
	assert_int_equal(revisions_latest(dir_fd), 4);
}

/* Somebody removed it, or a repair of the file system did. */
static void the_latest_stays_the_latest_where_its_file_is_missing(void **state)
{
	uint32_t *numbers;
	size_t n;

	(void)state;
	store(20);
	store(21);
	assert_int_equal(unlinkat(dir_fd, "00000021.rev", 0), 0);
	assert_int_equal(revisions_latest(dir_fd), 21);
	store(22);
	/* One that is taken away is no file that is missing. */
	revisions_remove(dir_fd, 22);
	assert_int_equal(revisions_latest(dir_fd), 20);
	/* An older version stores without a word. */
	assert_int_equal(linkat(dir_fd, "00000020.rev", dir_fd, "00000023.rev", 0), 0);
	assert_int_equal(revisions_latest(dir_fd), 23);
	unlinkat(dir_fd, "00000023.rev", 0);
	/* What leads nowhere that a revision could be says nothing. */
	unlinkat(dir_fd, "latest", 0);
	assert_int_equal(symlinkat("../00000099.rev", dir_fd, "latest"), 0);
	assert_int_equal(revisions_latest(dir_fd), 20);
	/* Copies are no revisions. */
	assert_int_equal(linkat(dir_fd, "00000020.rev", dir_fd, "00000024.rev~", 0), 0);
	assert_int_equal(revisions_latest(dir_fd), 20);
	assert_int_equal(revisions_list(dir_fd, &numbers, &n), 0);
	assert_int_equal(numbers[n - 1], 20);
	free(numbers);
	unlinkat(dir_fd, "00000024.rev~", 0);
	revisions_remove(dir_fd, 20);
}

static void an_unknown_revision_is_said_to_be_missing(void **state)
{
	struct revision r;

	(void)state;
	assert_int_equal(revisions_load(dir_fd, 99, &r), -ENOENT);
}

static void a_truncated_revision_is_refused(void **state)
{
	struct revision r;

	(void)state;
	store(4);
	for (off_t len = 0; len < 880; len += 40) {
		int fd = openat(dir_fd, "00000004.rev", O_WRONLY);

		assert_int_equal(ftruncate(fd, len), 0);
		close(fd);
		assert_int_equal(revisions_load(dir_fd, 4, &r), -EBADMSG);
		store(4);
	}
}

/* A bit of the tables may be the difference between deny and allow, and is well-formed either way. */
static void a_revision_with_one_other_bit_is_refused(void **state)
{
	struct revision r;
	unsigned char byte;
	off_t len;
	int fd;

	(void)state;
	store(4);
	fd = openat(dir_fd, "00000004.rev", O_RDWR);
	len = lseek(fd, 0, SEEK_END);
	assert_true(len > 880);
	for (off_t i = 0; i < len; i++) {
		assert_int_equal(pread(fd, &byte, 1, i), 1);
		byte ^= 1U << i % 8;
		assert_int_equal(pwrite(fd, &byte, 1, i), 1);
		assert_int_equal(revisions_load(dir_fd, 4, &r), -EBADMSG);
		byte ^= 1U << i % 8;
		assert_int_equal(pwrite(fd, &byte, 1, i), 1);
	}
	assert_int_equal(pwrite(fd, "x", 1, len), 1);
	assert_int_equal(revisions_load(dir_fd, 4, &r), -EBADMSG);
	assert_int_equal(ftruncate(fd, len), 0);
	assert_int_equal(revisions_load(dir_fd, 4, &r), 0);
	revision_clear(&r);
	close(fd);
}

static void only_the_last_revisions_are_kept(void **state)
{
	struct revision r;

	(void)state;
	for (uint32_t i = 5; i < 5 + REVISIONS_KEPT + 3; i++)
		store(i);
	assert_int_equal(revisions_latest(dir_fd), 5 + REVISIONS_KEPT + 2);
	assert_int_equal(revisions_load(dir_fd, 5 + 2, &r), -ENOENT);
	assert_int_equal(revisions_load(dir_fd, 5 + 3, &r), 0);
	revision_clear(&r);
}

static void a_packed_policy_unpacks_to_the_same_files(void **state)
{
	const struct policy_source files[] = {{"a.yaml", "one", 3}, {"b.yaml", "", 0}};
	struct policy_source *out;
	size_t len, n;
	void *bytes;

	(void)state;
	assert_int_equal(policy_pack(files, 2, &bytes, &len), 0);
	assert_int_equal(policy_unpack(bytes, len, &out, &n), 0);
	assert_int_equal(n, 2);
	assert_string_equal(out[0].name, "a.yaml");
	assert_int_equal(out[0].len, 3);
	assert_memory_equal(out[0].text, "one", 3);
	assert_int_equal(out[1].len, 0);
	policy_sources_free(out, n);
	free(bytes);
}

static void a_damaged_pack_is_refused(void **state)
{
	const struct policy_source files[] = {{"a.yaml", "one", 3}};
	struct policy_source *out;
	size_t len, n;
	uint8_t *bytes;

	(void)state;
	assert_int_equal(policy_pack(files, 1, (void **)&bytes, &len), 0);
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(policy_unpack(bytes, cut, &out, &n), -EBADMSG);
	memset(bytes + 4, 0xff, 8);
	assert_int_equal(policy_unpack(bytes, len, &out, &n), -EBADMSG);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_draft_that_is_not_stored_leaves_nothing),
		cmocka_unit_test(a_draft_that_a_crash_has_left_is_forgotten),
		cmocka_unit_test(a_draft_that_could_not_be_written_is_not_stored),
		cmocka_unit_test(a_stored_revision_comes_back_as_it_was),
		cmocka_unit_test(the_latest_stays_the_latest_where_its_file_is_missing),
		cmocka_unit_test(an_unknown_revision_is_said_to_be_missing),
		cmocka_unit_test(a_revision_of_the_first_version_is_read),
		cmocka_unit_test(the_numbers_stored_are_listed_in_order),
		cmocka_unit_test(a_truncated_revision_is_refused),
		cmocka_unit_test(a_revision_with_one_other_bit_is_refused),
		cmocka_unit_test(only_the_last_revisions_are_kept),
		cmocka_unit_test(a_packed_policy_unpacks_to_the_same_files),
		cmocka_unit_test(a_damaged_pack_is_refused),
	};

	return cmocka_run_group_tests_name("revisions", tests, setup, teardown);
}

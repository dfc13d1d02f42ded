// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "bpf/abi.h"

#define CGROUP 4711U
#define IFINDEX 7U

static const struct bh_tag tag = {.deadline_ns = 1234567890123ULL, .identity = BH_ID_FIRST, .flags = BH_TAG_DERIVED};

static void a_seal_is_never_what_a_layout_without_one_has(void **state)
{
	const struct bh_tag no_tag = {};
	const struct bh_device no_device = {};

	(void)state;
	assert_true(bh_tag_seal(&no_tag, 0) != 0);
	assert_true(bh_device_seal(&no_device, 0) != 0);
}

static void a_tag_has_another_seal_at_every_other_carrier(void **state)
{
	uint64_t own = bh_tag_seal(&tag, CGROUP);

	(void)state;
	for (int bit = 0; bit < 64; bit++)
		assert_true(bh_tag_seal(&tag, CGROUP ^ 1ULL << bit) != own);
	for (uint64_t id = 0; id < 100000; id++)
		assert_true(id == CGROUP || bh_tag_seal(&tag, id) != own);
}

/* Half of one tag and half of another is none: so is one that is any bit away. */
static void every_bit_of_a_tag_is_in_its_seal(void **state)
{
	uint64_t own = bh_tag_seal(&tag, CGROUP);

	(void)state;
	for (size_t bit = 0; bit < 8 * offsetof(struct bh_tag, seal); bit++) {
		struct bh_tag other = tag;

		((uint8_t *)&other)[bit / 8] ^= (uint8_t)(1U << bit % 8);
		assert_true(bh_tag_seal(&other, CGROUP) != own);
	}
}

static void make_device(struct bh_device *device)
{
	memset(device, 0, sizeof(*device));
	device->link_header = 14;
	device->n_addresses = BH_DEVICE_ADDRESSES;
	for (uint32_t i = 0; i < BH_DEVICE_ADDRESSES; i++)
		device->addresses[i].w[3] = 0x0a000001 + i;
	device->master = 3;
}

static void a_device_has_another_seal_at_every_other_index(void **state)
{
	struct bh_device device;
	uint64_t own;

	(void)state;
	make_device(&device);
	own = bh_device_seal(&device, IFINDEX);
	for (uint32_t i = 0; i < 100000; i++)
		assert_true(i == IFINDEX || bh_device_seal(&device, i) != own);
}

static void every_bit_of_a_device_is_in_its_seal(void **state)
{
	struct bh_device device;
	uint64_t own;

	(void)state;
	make_device(&device);
	own = bh_device_seal(&device, IFINDEX);
	for (size_t bit = 0; bit < 8 * offsetof(struct bh_device, seal); bit++) {
		struct bh_device other = device;

		((uint8_t *)&other)[bit / 8] ^= (uint8_t)(1U << bit % 8);
		assert_true(bh_device_seal(&other, IFINDEX) != own);
	}
}

/* Addresses are of one make: two that change places are another entry. */
static void a_device_has_its_addresses_in_their_places(void **state)
{
	struct bh_device device, other;

	(void)state;
	make_device(&device);
	other = device;
	other.addresses[0] = device.addresses[1];
	other.addresses[1] = device.addresses[0];
	assert_true(bh_device_seal(&other, IFINDEX) != bh_device_seal(&device, IFINDEX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_seal_is_never_what_a_layout_without_one_has),
		cmocka_unit_test(a_tag_has_another_seal_at_every_other_carrier),
		cmocka_unit_test(every_bit_of_a_tag_is_in_its_seal),
		cmocka_unit_test(a_device_has_another_seal_at_every_other_index),
		cmocka_unit_test(every_bit_of_a_device_is_in_its_seal),
		cmocka_unit_test(a_device_has_its_addresses_in_their_places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

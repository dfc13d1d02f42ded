/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * order.h - in which order other CPUs see what this one does.
 *
 * BPF v3 has no load-acquire and no store-release. What it has are atomic operations that return a value: the kernel makes them
 * order everything before them against everything after them, on every CPU. x86 keeps stores in order, and loads, by itself;
 * so there a barrier between two stores, or between two loads, holds back the compiler and costs nothing. It is no barrier between
 * a store and a later load: where that is needed, an atomic operation with a value stands in the code.
 */
#ifndef BULKHEAD_BPF_ORDER_H
#define BULKHEAD_BPF_ORDER_H

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/* BH_ORDER_TEST: as on a CPU that keeps nothing in order, for the tests. */
#if defined(__TARGET_ARCH_x86) && !defined(BH_ORDER_TEST)
static __always_inline void bh_barrier(void)
{
	asm volatile("" ::: "memory");
}
#else
static __always_inline void bh_barrier(void)
{
	__u64 place = 0, before;

	/* The result is wanted: of an addition whose result nobody wants, the compiler makes one that orders nothing. */
	asm volatile("" : : "r"(&place) : "memory");
	before = __sync_fetch_and_add(&place, 1);
	asm volatile("" : : "r"(before) : "memory");
}
#endif

/* Who sees the value sees all that was written before. */
static __always_inline void bh_publish(__u64 *place, __u64 value)
{
	bh_barrier();
	*(volatile __u64 *)place = value;
}

#endif

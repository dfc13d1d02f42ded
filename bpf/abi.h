/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * abi.h - the only structures shared by the kernel programs and user space.
 *
 * Everything here is fixed-width and explicitly padded, and every structure that lives in a pinned map has its size
 * asserted: see abi_layout.h for how the maps of another build are taken over.
 *
 * Times are CLOCK_BOOTTIME nanoseconds: a tag must die on time although the host slept.
 */
#ifndef BULKHEAD_BPF_ABI_H
#define BULKHEAD_BPF_ABI_H

#include "abi_device.h"
#include "abi_event.h"
#include "abi_flow.h"
#include "abi_handshake.h"
#include "abi_identity.h"
#include "abi_layout.h"
#include "abi_policy.h"
#include "abi_tcp.h"
#include "abi_udp.h"

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz.h - what the fuzz targets share. Each target is LLVMFuzzerTestOneInput(); `tests/fuzz/run` builds it with libFuzzer,
 * and the unit test test_fuzz_corpus runs what was found before through the same function.
 */
#ifndef BULKHEAD_TESTS_FUZZ_H
#define BULKHEAD_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct policy_image;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Asks an image everything that can be asked of one. */
void fuzz_use_image(const struct policy_image *image);

#endif

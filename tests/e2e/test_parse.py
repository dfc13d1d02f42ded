# SPDX-License-Identifier: Apache-2.0
"""The kernel's packet parser against a table of headers, and against a second parser on random packets."""
import re
import subprocess

import harness
from common import setup  # noqa: F401

RANDOM = 200_000


def test_the_kernel_understands_headers_as_the_reference_does(_env):
    reference = harness.BUILD + "/tests/reference"
    result = subprocess.run([f"{reference}/parse_kernel", f"{reference}/parse.bpf.o", str(RANDOM)],
                            capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, f"{result.stdout[-1000:]}{result.stderr[-6000:]}"
    table, random, understood, _, wrong = map(int, re.findall(r"\d+", result.stdout))
    assert table > 10_000 and random >= 100_000 and wrong == 0, result.stdout
    assert random / 5 < understood < random, f"the packets are all alike: {result.stdout}"

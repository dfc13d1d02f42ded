# SPDX-License-Identifier: Apache-2.0
"""The kernel's decision function against the reference of the language, on random policies with every feature."""
import subprocess

import harness
from common import ready, setup  # noqa: F401

POLICIES, FLOWS = 1200, 100


def test_the_kernel_judges_as_the_language_means(_env):
    reference = harness.BUILD + "/tests/reference"
    result = subprocess.run([f"{reference}/judge_kernel", f"{reference}/judge.bpf.o", str(POLICIES), str(FLOWS)],
                            capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"{result.stdout[-3000:]}{result.stderr[-6000:]}"
    assert int(result.stdout.split()[0]) >= 100_000, result.stdout

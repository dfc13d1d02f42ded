#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The systemd units that the documents show, by `systemd-analyze verify`: each is written to a file of its name, with the built
programs in the place of the installed ones, so that a directive that does not exist, or a command line that cannot be
run, is an error.

usage: check_units.py POLICYCTL BULKHEADD SOURCE_DIRECTORY
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

policyctl, bulkheadd, source = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
if not shutil.which("systemd-analyze"):
    print("skipped: no systemd-analyze here")
    sys.exit(0)

failures = units = 0
with tempfile.TemporaryDirectory() as directory:
    for page in sorted(source.glob("docs/*.md")):
        for match in re.finditer(r"^```ini\n# \S*/(\S+\.(?:service|socket|timer))\n(.*?)^```$", page.read_text(encoding="utf-8"),
                                 re.M | re.S):
            text = match[2].replace("/usr/bin/policyctl", str(policyctl)).replace("/usr/sbin/bulkheadd", str(bulkheadd))
            pathlib.Path(directory, match[1]).write_text(text, encoding="utf-8")
            units += 1
    for unit in sorted(pathlib.Path(directory).iterdir()):
        # Manual pages are installed later; the directory is where one unit finds the other.
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_UNIT_PATH": f"{directory}:"})
        said = [line for line in (done.stdout + done.stderr).splitlines() if unit.name in line]
        if done.returncode or said:
            failures += 1
            print(f"not ok: {unit.name}:", *(said or [done.stderr]), sep="\n  ")
print(f"{units} units, {failures} failed")
sys.exit(failures > 0 or units < 2)

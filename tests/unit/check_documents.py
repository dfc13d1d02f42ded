#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The documents against the built policyctl: every complete policy in them is valid, and every command that a page shows
with its output, and that needs no daemon, prints that output.

A YAML block is complete if it says `bulkhead: 1`; the one whose first line is a comment with a path becomes a file there, and the
first of README.md is shop.yaml. A line "..." of an output stands for any lines.

usage: check_documents.py POLICYCTL SOURCE_DIRECTORY
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

policyctl, source = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
OFFLINE = ("check", "test", "prove", "diff", "explain", "lint", "fmt", "graph", "svid")
failures = commands = policies = 0


def fail(text):
    global failures
    failures += 1
    print(f"not ok: {text}")


def shell(command, directory):
    path = f"{policyctl.parent}:{os.environ['PATH']}"
    return subprocess.run(["sh", "-c", command], cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, env={"PATH": path, "LC_ALL": "C"})


def parts(text):
    """("yaml", block, line) and ("shown", lines, line) as the page has them."""
    for match in re.finditer(r"^```yaml\n(.*?)^```$|((?:^(?:    [^\n]*)?\n)+)", text, re.M | re.S):
        line = text.count("\n", 0, match.start()) + 1
        if match[1] is not None:
            yield "yaml", match[1], line
        else:
            yield "shown", [part[4:] for part in match[2].split("\n")], line


def policy_in(page, block, line, first, directory):
    global policies
    if not re.search(r"^bulkhead: 1\b", block, re.M):
        return
    policies += 1
    named = re.match(r"# (\S+\.yaml)\n", block)
    name = named[1] if named else "shop.yaml" if first and page == "README.md" else "block.yaml"
    path = pathlib.Path(directory, name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(block, encoding="utf-8")
    # One that has a name belongs to others, and is checked with them by the commands of its page.
    result = shell(f"policyctl check {name}", directory)
    if not named and result.returncode != 0:
        fail(f"{page}:{line}: the policy is not valid:\n{result.stdout}")


def examples(lines):
    """Each command of a shown session with its output."""
    i = 0
    while i < len(lines):
        if not lines[i].startswith("$ "):
            i += 1
            continue
        start, command = i, lines[i][2:]
        while command.endswith("\\"):
            i += 1
            command = command[:-1] + lines[i].lstrip()
        end = i + 1
        while end < len(lines) and not lines[end].startswith("$ "):
            end += 1
        yield command, "\n".join(lines[i + 1:end]).strip("\n"), start
        i = end


def command_in(page, command, shown, line, directory):
    global commands
    words = re.search(r"policyctl (\w+)(.*)", command)
    if not words or words[1] not in OFFLINE or (words[1] == "explain" and "--policy" not in words[2]):
        return
    commands += 1
    printed = shell(command, directory).stdout.strip("\n")
    pattern = "\n".join(".*" if part == "..." else re.escape(part) for part in shown.split("\n"))
    if not re.fullmatch(pattern, printed, re.S):
        fail(f"{page}:{line}: {command}\nthe page shows\n{shown}\nit prints\n{printed}")


for page in ("README.md", "docs/policy-language.md", "docs/import.md", "docs/audit.md", "docs/coverage.md",
             "docs/federation.md"):
    with tempfile.TemporaryDirectory() as directory:
        first = True
        for kind, value, line in parts((source / page).read_text(encoding="utf-8")):
            if kind == "yaml":
                policy_in(page, value, line, first, directory)
                first = False
                continue
            for command, shown, offset in examples(value):
                command_in(page, command, shown, line + offset, directory)

# Each attack has its test.
tests = "".join(path.read_text(encoding="utf-8") for pattern in ("e2e/test_*.py", "unit/test_*.c")
                for path in sorted((source / "tests").glob(pattern)))
attacks = re.findall(r"^\|[^|]+\|[^|]+\|((?: `\w+`,?)+) \|$", (source / "docs/attestation.md").read_text(encoding="utf-8"), re.M)
for name in re.findall(r"\w+", " ".join(attacks)):
    if not re.search(rf"^(?:def|static void) {name}\(", tests, re.M):
        fail(f"docs/attestation.md: there is no test {name}")
if len(attacks) < 19:
    fail(f"docs/attestation.md: only {len(attacks)} attacks with their tests found")

# They say where to look; here that it was looked at something.
if policies < 5 or commands < 7:
    fail(f"only {policies} policies and {commands} commands found")

# The families of metrics with type and, where they are a fixed set, the values of the label; every counter of handshakes is
# told.
code = (source / "daemon/metrics_text.c").read_text(encoding="utf-8")
families = re.findall(r'family\(w, "(\w+)", "(\w+)"', code)
values = re.findall(r'labelled\(w, "(\w+?)(?:_total)?", "\w+", "(\w+)"', code)
rows = {row[0]: (row[1], line) for line in (source / "docs/metrics.md").read_text(encoding="utf-8").splitlines()
        if (row := re.findall(r"^\| `(\w+)` \| (\w+) \|", line)) and (row := row[0])}
for name, kind in families:
    if rows.get(name, ("",))[0] != kind:
        fail(f"docs/metrics.md: no row for {name}, a {kind}")
for name in rows.keys() - {name for name, _ in families}:
    fail(f"docs/metrics.md: {name} is told by nobody")
for name, value in values:
    if f"`{value}`" not in rows.get(name, ("", ""))[1]:
        fail(f"docs/metrics.md: {name} does not name `{value}`")
handshakes = re.findall(r"__u64 handshakes_(\w+);", (source / "bpf/abi_event.h").read_text(encoding="utf-8"))
for counter in handshakes:
    if ("bulkhead_handshakes", counter) not in values:
        fail(f"daemon/metrics_text.c: handshakes_{counter} is not told")
if len(families) < 20 or len(values) < 5:
    fail(f"only {len(families)} families and {len(values)} values found in metrics_text.c")
if len(handshakes) < 4:
    fail(f"only {len(handshakes)} counters of handshakes found in abi_event.h")

# Manual pages are read without a complaint, and name every command.
for page in sorted((source / "docs").glob("*.[18]")):
    result = subprocess.run(["groff", "-man", "-ww", "-Tutf8", page], capture_output=True, text=True, check=False)
    if result.returncode != 0 or result.stderr:
        fail(f"{page.name}: {result.stderr}")
manual = (source / "docs/policyctl.1").read_text(encoding="utf-8").replace("\\-", "-")
listed = re.findall(r"^  ([a-z][a-z-]+) ", shell("policyctl --help", "/").stdout, re.M)
for command in listed:
    if not re.search(rf'^\.B[IR]? "?{command}\b', manual, re.M):
        fail(f"policyctl.1: nothing about {command}")
    if f"`{command}" not in (source / "README.md").read_text(encoding="utf-8"):
        fail(f"README.md: nothing about {command}")
if len(listed) < 20:
    fail(f"only {len(listed)} commands in policyctl --help")
sys.exit(failures != 0)

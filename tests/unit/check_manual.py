#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The manual page has a section for every command of policyctl, and in it every option that the command's help names.

usage: check_manual.py POLICYCTL PROJECT
"""
import re
import subprocess
import sys


def help_of(program, *arguments):
    return subprocess.run([program, *arguments, "--help"], check=True, capture_output=True, text=True).stdout


def plain(roff):
    """The text without fonts and macros."""
    text = re.sub(r"\\f(\[[^]]*\]|.)", "", roff).replace(r"\-", "-").replace(r"\(aq", "'")
    text = re.sub(r'^\.(TP|PP|IP|RS|RE|nf|fi)\b.*$', "", text, flags=re.M)
    text = re.sub(r"^\.(BI|BR|RB|IB|B|I|RI|IR) ", "", text, flags=re.M)
    return text.replace('"', "")


def sections(page):
    """Of each command: what stands from its line to the next command's."""
    commands = page.split("\n.SH COMMANDS\n")[1].split("\n.SH ")[0]
    found = {}
    for entry in re.split(r"^\.TP$", commands, flags=re.M)[1:]:
        name = re.match(r"\s*([a-z-]+)", plain(entry))
        if name:
            found[name[1]] = found.get(name[1], "") + plain(entry)
    return found


def main():
    program, project = sys.argv[1:]
    with open(f"{project}/docs/policyctl.1", encoding="utf-8") as file:
        page = file.read()
    manual = sections(page)
    commands = re.findall(r"^  ([a-z][a-z-]*) +[A-Z]", help_of(program), flags=re.M)
    assert len(commands) > 20, commands
    missing = [f"no command of policyctl: {name}" for name in manual if name not in commands]
    for command in commands:
        if command not in manual:
            missing.append(f"{command}: no section")
            continue
        # Examples have options of other programs.
        text = help_of(program, command).split("\nExample")[0]
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
        for option in sorted(options - {"--json", "--run-dir", "--help"}):
            if not re.search(re.escape(option) + r"(?![\w-])", manual[command]):
                missing.append(f"{command}: {option}")
    for line in missing:
        print("docs/policyctl.1:", line)
    print(f"{len(commands)} commands")
    return 1 if missing else 0


sys.exit(main())

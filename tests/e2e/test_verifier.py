# SPDX-License-Identifier: Apache-2.0
"""How near each program is to what the kernel's verifier takes: the alarm comes before a kernel that counts a little more,
or one more feature, is what finds out."""
import json
import os
import subprocess

from harness import BUILD

VERIFIER = os.path.join(BUILD, "tests", "verifier", "verifier")
LIMIT_INSTRUCTIONS, LIMIT_STACK = 1_000_000, 512
ALARM_INSTRUCTIONS = LIMIT_INSTRUCTIONS // 2
# Of what is above half of the limit the chain is told. It cannot be below: a verdict's one query takes 128 bytes and a parsed
# packet 28, which every function below the hook shares by pointer, a flow's key takes 48, the tables 144, and each function adds
# its own. They are on the stack, because a program of a socket can be interrupted on its CPU by another one of its kind, so that
# no room is its alone; those of devices, which cannot, have one. What fails leaves room for one more small function.
WARN_STACK = LIMIT_STACK // 2
ALARM_STACK = LIMIT_STACK - 48
# The least that must be there, or the list is not the programs.
EXPECTED = {"bh_ingress", "bh_egress", "bh_sockops", "bh_connect4", "bh_connect6", "bh_sendmsg4", "bh_sendmsg6", "bh_post_bind4",
            "bh_post_bind6", "bh_sock_create", "bh_sock_release", "bh_from_device", "bh_to_device", "carry_sockets",
            "carry_udp_sockets", "bh_tcp_end", "bh_keep_tcp"}


def programs():
    done = subprocess.run([VERIFIER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_no_program_is_near_the_limits_of_the_verifier(_env):
    found = programs()
    print(f"# {'program':<18}{'verified':>9}{'of limit':>9}{'insns':>7}{'functions':>10}{'largest':>8}{'stack':>6}"
          f"{'without JIT':>12}")
    for p in sorted(found, key=lambda p: -p["verified"]):
        print(f"# {p['program']:<18}{p['verified']:>9}{p['verified'] / LIMIT_INSTRUCTIONS:>9.1%}{p['instructions']:>7}"
              f"{p['functions']:>10}{p['largest_frame']:>8}{p['stack']:>6}{p['stack_without_jit']:>12}")
    for p in sorted(found, key=lambda p: -p["stack"]):
        if p["stack"] > WARN_STACK:
            print(f"# warning: {p['program']} takes {p['stack']} of {LIMIT_STACK} bytes of stack: {p['chain']}")
    missing = EXPECTED - {p["program"] for p in found}
    assert not missing, f"not in the skeleton: {missing}"
    alarms = [f"{p['program']}: {p['verified']} instructions verified, alarm at {ALARM_INSTRUCTIONS}" for p in found
              if p["verified"] > ALARM_INSTRUCTIONS]
    alarms += [f"{p['program']}: {p['stack']} bytes of stack ({p['chain']}), alarm at {ALARM_STACK}" for p in found
               if p["stack"] > ALARM_STACK]
    assert not alarms, "; ".join(alarms)

# SPDX-License-Identifier: Apache-2.0
"""What the daemon keeps in order while it runs: that the kernel still enforces, that nothing stale names anybody, and
that there may be many identities."""
import contextlib
import json
import os
import struct
import subprocess

import bpf
from bpf import bpftool
from common import POLICY, TRUST_DOMAIN, ready, setup, spiffe  # noqa: F401
from harness import read, wait_for

DB = "127.0.0.1,5432"
MANY = 16000

# A UDP socket that had a port, and lets go of it without being closed: reads commands.
DISCONNECTS = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", 5432))
s.send(b"x" * 8)
print(s.getsockname()[1], flush=True)
sys.stdin.readline()
import ctypes
ctypes.CDLL(None).connect(s.fileno(), b"\\0" * 16, 16)
print("disconnected", flush=True)
sys.stdin.readline()
"""


def denies(env):
    assert env.loose.tcp(DB) == "EPERM"
    assert env.web.tcp(DB) == "ok"


def enforcing_again(env, mark):
    """Within a second, and a little for a slow machine."""
    env.audit.wait(mark, event__action="enforcement-lost")
    env.audit.wait(mark, event__action="enforcement-restored")
    assert env.status()["enforcing"]


def test_the_managed_subtree_cannot_be_removed_by_rmdir(env):
    assert os.path.isdir(f"{env.cgroup}/.bulkhead")
    before = os.stat(env.cgroup).st_ino
    for workload in env.workloads:
        workload.remove()
    with contextlib.suppress(OSError):
        os.rmdir(env.cgroup)
    assert os.path.isdir(env.cgroup) and os.stat(env.cgroup).st_ino == before, "the managed subtree was removed"
    assert not env.tags()
    for workload in env.workloads:
        os.mkdir(workload.path)
    for name in ("web", "db", "probe"):
        getattr(env, name).attest(env.svid[name])


def test_a_program_that_somebody_detached_is_attached_again(env):
    server = env.db.tcp_server("::,5432")
    denies(env)
    for program in ("bh_egress", "bh_connect4"):
        mark = env.audit.mark()
        bpftool("link", "detach", "pinned", f"{env.pins}/link_{program}")
        enforcing_again(env, mark)
        denies(env)
    server.kill()


def test_a_second_daemon_cannot_take_the_same_pins(env):
    argv = env.daemon_argv()
    argv[argv.index("--state-dir") + 1] = f"{env.dir}/state2"
    argv[argv.index("--run-dir") + 1] = f"{env.dir}/run2"
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode and "pin directory" in done.stderr, done.stderr
    assert env.status()["enforcing"]


def test_an_svid_takes_the_place_of_a_local_identity_that_ended(env):
    local = POLICY.replace("networks:", "  corner: {cgroup: /corner}\nnetworks:", 1)
    env.apply(local)
    corner = env.workload("corner")
    wait_for(lambda: env.tag_of(corner), "the local identity")
    env.apply(POLICY)
    assert not env.tag_of(corner)
    corner.attest(env.svid["web"])
    for _ in range(3):
        tag = env.tag_of(corner)  # each makes a sweep
        assert tag and tag.get("spiffe_id") == spiffe("web"), tag
    assert tag["serial"]
    env.apply(local)  # it keeps what it proved
    assert env.tag_of(corner)["spiffe_id"] == spiffe("web")
    env.apply(POLICY)


def endpoint_ports(env):
    keys = [e.get("formatted", e)["key"] for e in bpftool("map", "dump", "pinned", env.map_pin("endpoints"))]
    return [k["port"] for k in keys]


def test_the_endpoint_of_a_disconnected_socket_is_removed(env):
    server = env.db.udp_server("::,5432")
    process = env.web.spawn(["/usr/bin/python3", "-c", DISCONNECTS])
    port = int(wait_for(lambda: process.out and process.out[0], "its port"))
    wait_for(lambda: port in endpoint_ports(env), "the endpoint to be known")
    process.command("")
    wait_for(lambda: len(process.out) > 1, "it to disconnect")
    wait_for(lambda: port not in endpoint_ports(env), "the endpoint to be removed", 10)
    assert 5432 in endpoint_ports(env), "that of a server that lives stays"
    assert env.web.udp(DB) == "ok"
    server.kill()
    process.kill()


def fill_names(env, number):
    """What a daemon leaves that has seen so many identities."""
    with bpf.opened_map(env.map_pin("names")) as names:
        for i in range(100, 100 + number):
            name = b"\0" * 4 + f"spiffe://{TRUST_DOMAIN}/many/{i}".encode()
            names.update(struct.pack("=I", i), name.ljust(names.value_bytes, b"\0"))


def test_the_daemon_starts_with_many_identities(env):
    server = env.db.tcp_server("::,5432")
    env.kill_daemon()
    fill_names(env, MANY)
    env.start()
    mark = env.audit.mark()
    denies(env)
    event = env.audit.wait(mark, event__action="flow-allowed")
    assert spiffe("web") in json.dumps(event), "the auditor knows every name"
    status = env.status()
    assert all(r["restarts"] == 0 for r in status["roles"]), status["roles"]
    env.apply(POLICY)
    rss = int(next(line.split()[1] for line in read(f"/proc/{env.daemon.pid}/status").splitlines() if "VmRSS" in line))
    print(f"# resident memory of the enforcer: {rss / 1024:.1f} MiB")
    server.kill()


def test_a_removed_subtree_is_made_and_enforced_again(env):
    """Last: the workloads go with it."""
    for workload in env.workloads:
        workload.kill()
    mark = env.audit.mark()
    inode = os.stat(env.cgroup).st_ino
    for directory, _, _ in os.walk(env.cgroup, topdown=False):
        os.rmdir(directory)
    enforcing_again(env, mark)
    assert os.stat(env.cgroup).st_ino != inode
    for workload in env.workloads:
        os.makedirs(workload.path, exist_ok=True)
    env.web.attest(env.svid["web"])
    env.db.attest(env.svid["db"])
    env.db.tcp_server("::,5432")
    mark = env.audit.mark()
    denies(env)
    event = env.audit.wait(mark, event__action="flow-allowed")
    assert event["zt"]["cgroup"]["path"] in ("/web", "/db"), "the auditor names the new cgroups"

# SPDX-License-Identifier: Apache-2.0
"""Cgroups that come and go by the thousand: none is anybody before it has shown who it is, and no tag outlives its cgroup."""
import os
import struct
import time

import bpf
from common import ready as common_ready, setup  # noqa: F401
from harness import PATIENCE, ip, read, wait_for
from test_connections import kept

DB = "127.0.0.1,5432"
CHURN, ALLOWED = 7, 1
MANY = 2000


def ready(env):
    common_ready(env)
    env.tcp = env.db.tcp_server("::,5432")
    env.udp = env.db.udp_server("::,5432")


def cpu_seconds(pid):
    fields = read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid):
    return int(next(x.split()[1] for x in read(f"/proc/{pid}/status").splitlines() if x.startswith("VmRSS"))) / 1024


def tagged_in_the_kernel(env):
    with bpf.opened_map(env.map_pin("tags")) as tags:
        return {struct.unpack("=Q", key)[0] for key in tags.keys()}


def cgroups(env):
    return {os.stat(directory).st_ino for directory, _, _ in os.walk(env.cgroup)}


def test_thousands_of_cgroups_come_and_go_as_fast_as_the_kernel_makes_them(env):
    root = env.workload("churn")
    allowed = env.web.udp_stream(DB, rate=100, stream=ALLOWED)
    accepted, cpu, start = env.tcp.stat()["accepted"], cpu_seconds(env.daemon.pid), time.monotonic()
    churn = env.outside().traffic("churn", "--root", root.path, "--to", DB, "--stream", CHURN)
    churn.wait_event("ready")
    attested = 0
    while attested < 8 or churn.stat()["made"] < MANY:
        # Some of them are somebody, for as long as they live.
        workload = env.workload(f"churn/tagged-{attested}", env.svid["web"])
        assert workload.udp(DB, count=1, stream=9) == "ok"
        if attested % 2 == 0:
            workload.recreate()
            assert workload.udp(DB, count=1, stream=10) != "ok", "a cgroup of the same name has another id"
        workload.remove()
        env.workloads.remove(workload)
        attested += 1
    used, took = cpu_seconds(env.daemon.pid) - cpu, time.monotonic() - start
    stat = churn.stat()
    churn.quit()
    print(f"# {stat['made'] / took:.0f} cgroups a second, {stat['made']} in all, {attested} attested; enforcer: {used / took:.1%} of a CPU, "
          f"{memory_mib(env.daemon.pid):.1f} MiB")
    assert stat["failed"] == 0, stat
    assert stat["passed"] == 0, f"{stat['passed']} cgroups without identity could send"
    streams = {s["stream"]: s for s in env.udp.stat()["streams"]}
    assert CHURN not in streams and 10 not in streams, streams
    assert env.tcp.stat()["accepted"] == accepted
    wait_for(lambda: tagged_in_the_kernel(env) <= cgroups(env), "tags of cgroups that are gone to go", 3 * PATIENCE)
    assert {t["cgroup_id"] for t in env.tags()} == tagged_in_the_kernel(env)
    allowed.command("rate 0")
    sent = allowed.stat()["sent"]
    wait_for(lambda: allowed.stat()["received"] == sent, "the allowed flow to have lost nothing")
    assert used / took < 0.5, f"the enforcer used {used / took:.0%} of a CPU"


def test_many_tags_cost_a_sweep_little(env):
    """As many as a test can make in a moment; what a sweep of it takes, the rest takes as many times as it is larger."""
    many = 4000
    root = env.workload("many")
    for i in range(many):
        os.mkdir(f"{root.path}/{i}")
    ids = [os.stat(f"{root.path}/{i}").st_ino for i in range(many)]
    number = env.tag_of(env.web)["identity"]
    env.kill_daemon()
    with bpf.opened_map(env.map_pin("tags")) as tags:
        for cgroup_id in ids:
            tags.update(struct.pack("=Q", cgroup_id), bpf.sealed(cgroup_id, struct.pack("=QII", 2**64 - 1, number, 0)))
    env.start()
    start, cpu = time.monotonic(), cpu_seconds(env.daemon.pid)
    assert len(env.tags()) == many + 3
    first = time.monotonic() - start
    end = start + 3
    wait_for(lambda: time.monotonic() > end, "some sweeps", 5)
    used = cpu_seconds(env.daemon.pid) - cpu
    print(f"# {many} tags: listed with a sweep in {first * 1000:.0f} ms, {used / 3:.1%} of a CPU, "
          f"{memory_mib(env.daemon.pid):.1f} MiB")
    assert env.web.tcp(DB) == "ok" and env.loose.tcp(DB) == "EPERM"
    for i in range(many):
        os.rmdir(f"{root.path}/{i}")
    wait_for(lambda: len(tagged_in_the_kernel(env)) == 3, "the tags to go with their cgroups", 5)
    assert used / 3 < 0.4 * PATIENCE, "a sweep takes too long"


def keys_of(env, name):
    with bpf.opened_map(env.map_pin(name)) as entries:
        return set(entries.keys())


def test_nothing_stays_of_namespaces_that_are_gone(env):
    """Of their sockets and addresses, also where the namespace went before the daemon looked again."""
    many, servers, made = 12, [], []
    before = {name: keys_of(env, name) for name in ("endpoints", "addresses")} | {"tcp": kept(env)}
    for i in range(many):
        netns, to = env.network.namespace(f"gone{i}"), f"10.200.{i}.1,5432"
        made.append(netns)
        ip("-n", netns, "addr", "add", f"10.200.{i}.1/24", "dev", "lo")
        servers += [env.db.tcp_server("::,5432", netns=netns), env.db.udp_server("::,5432", netns=netns)]
        assert env.web.tcp(to, netns=netns) == "ok" and env.web.udp(to, netns=netns) == "ok"
        assert env.loose.tcp(to, netns=netns) != "ok"
    wait_for(lambda: len(keys_of(env, "addresses") - before["addresses"]) >= many, "their addresses to be known")
    left = {name: len((kept(env) if name == "tcp" else keys_of(env, name)) - before[name]) for name in before}
    assert min(left.values()) >= many, left
    for server in servers:
        server.kill()
    for netns in made:
        ip("netns", "del", netns)
        env.network.names.remove(netns)
    for name in ("endpoints", "addresses"):
        wait_for(lambda n=name: keys_of(env, n) <= before[n], f"{name} of namespaces that are gone to go", 5)
    wait_for(lambda: kept(env) <= before["tcp"], "what was kept of their TCP sockets to go", 5)

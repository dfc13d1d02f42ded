# SPDX-License-Identifier: Apache-2.0
"""Another build with other maps takes over, and back again, with traffic running: nothing is let through, nothing that is
allowed is lost."""
import os
import random
import struct
import time

import bpf
from common import POLICY, setup  # noqa: F401
from harness import DAEMON, DAEMON_LAYOUT, wait_for
from test_audit import balanced
from test_connections import kept
from test_top import both_ends
from test_survive import ALLOWED, DB, Flood, check_no_gap, ready, stream_of  # noqa: F401

ROUNDS = 5


def layouts(env):
    """Layout number by map, of what is pinned."""
    found = {}
    for pin in os.listdir(env.pins):
        name, _, number = pin.rpartition("_")
        if number.isdigit():
            assert name not in found, f"{name} is pinned in layouts {found[name]} and {number}"
            found[name] = int(number)
    return found


def change_build(env, to, kill):
    if kill:
        env.kill_daemon()
    else:
        assert env.stop() == 0
    env.program = to
    env.start()
    status = env.status()
    assert status["adopted"] and status["enforcing"], status


def identities(env):
    """Who is whom, and until when, to the nanosecond."""
    with bpf.opened_map(env.map_pin("tags")) as tags:
        deadlines = {struct.unpack("=Q", key)[0]: struct.unpack_from("=Q", tags.lookup(key))[0] for key in tags.keys()}
    return sorted((t["identity"], t["cgroup_id"], deadlines[t["cgroup_id"]]) for t in env.tags())


def test_another_layout_takes_over_and_back_without_a_gap(env):
    before, tags, revision = layouts(env), identities(env), env.status()["policy"]["revision"]
    sockets = kept(env)
    flood, accepted = Flood(env), env.tcp.stat()["accepted"]
    for i in range(2 * ROUNDS):
        to = DAEMON if i % 2 else DAEMON_LAYOUT
        change_build(env, to, kill=i % 4 < 2)
        assert (layouts(env) == before) == (to == DAEMON), "the layouts pinned are those of the build that runs"
        assert identities(env) == tags and env.status()["policy"]["revision"] == revision
        assert env.web.tcp(DB, stream=9) == "ok" and env.loose.tcp(DB) == "EPERM"
    assert not env.allowed_tcp.ended(), "an allowed connection ended"
    flood.check(env, accepted + 2 * ROUNDS)
    # Sooner than what nobody was told of is cleared up.
    wait_for(lambda: kept(env) <= sockets, "every end of a socket to have been told to the build that kept it", 5)
    check_no_gap(env)
    balanced(env)


def refused(env, program, why):
    """The build does not start, says why, and what is in force stays."""
    before = sorted(os.listdir(env.pins))
    env.program = program
    try:
        env.start(wait=False)
        assert env.daemon.wait(10) != 0
    finally:
        env.program = DAEMON
    assert why in env.log_tail(), env.log_tail()
    assert sorted(os.listdir(env.pins)) == before
    assert env.web.tcp(DB, stream=9) == "ok" and env.loose.tcp(DB) == "EPERM", "enforcement goes on"


def test_builds_killed_while_they_take_over_leave_enforcement_whole(env):
    """At any moment of it, in both directions, one after the other."""
    tags, before = identities(env), layouts(env)
    moments = random.Random(4)
    for i in range(12):
        env.kill_daemon()
        env.program = DAEMON if i % 2 else DAEMON_LAYOUT
        env.start(wait=False)
        kill_at = time.monotonic() + moments.uniform(0.01, 0.12)
        wait_for(lambda end=kill_at: time.monotonic() >= end, "the moment to kill it")
        env.kill_daemon()
        assert env.web.tcp(DB, stream=9) == "ok" and env.loose.tcp(DB) == "EPERM", f"after {i + 1} of them"
    env.program = DAEMON
    env.start()
    assert layouts(env) == before and identities(env) == tags, (layouts(env), identities(env), tags)
    check_no_gap(env)


def test_a_build_without_room_for_all_tags_refuses(env):
    with bpf.opened_map(env.map_pin("tags")) as tags:
        keys = [struct.pack("=Q", 1 << 50 | i) for i in range(100)]
        for key in keys:
            tags.update(key, struct.pack("=QII", 1, 16, 0).ljust(tags.value_bytes, b"\0"))
        env.kill_daemon()
        try:
            refused(env, DAEMON_LAYOUT, "the map tags of this build has 64 entries")
        finally:
            for key in keys:
                tags.delete(key)
    env.start()
    check_no_gap(env)


def test_tags_of_a_layout_without_seals_are_sealed_when_they_are_carried_over(env):
    """One that has a seal, which does not fit, is nobody's before and after."""
    old, wrong = (env.workload(name, env.ca.issue("/web")) for name in ("sealless", "misfit"))
    env.kill_daemon()
    with bpf.opened_map(env.map_pin("tags")) as tags:
        for workload, seal in ((old, 0), (wrong, 1)):
            key = struct.pack("=Q", workload.cgroup_id)
            value = tags.lookup(key)
            tags.update(key, value[:16] + struct.pack("=Q", seal) + value[24:])
    assert old.tcp(DB, stream=9) == "EPERM" and wrong.tcp(DB, stream=9) == "EPERM"
    try:
        env.program = DAEMON_LAYOUT
        env.start()
        assert old.tcp(DB, stream=9) == "ok" and wrong.tcp(DB, stream=9) == "EPERM"
        assert env.tag_of(old) and not env.tag_of(wrong)
        env.kill_daemon()
    finally:
        env.program = DAEMON
    env.start()
    assert old.tcp(DB, stream=9) == "ok" and wrong.tcp(DB, stream=9) == "EPERM"
    with bpf.opened_map(env.map_pin("tags")) as tags:
        tags.delete(struct.pack("=Q", wrong.cgroup_id))
    for workload in (old, wrong):
        workload.remove()
        env.workloads.remove(workload)
    check_no_gap(env)


def test_maps_of_another_version_are_refused(env):
    """The rules that make carrying over possible are not theirs."""
    env.kill_daemon()
    with bpf.opened_map(env.map_pin("state")) as state:
        key = b"\0" * 4
        value = state.lookup(key)
        state.update(key, value[:16] + struct.pack("=I", 99) + value[20:])
        try:
            for program in (DAEMON, DAEMON_LAYOUT):
                refused(env, program, "of another version of Bulkhead (99")
        finally:
            state.update(key, value)
    env.start()
    check_no_gap(env)


def test_a_leftover_of_another_layout_is_no_source(env):
    """Pins that no attached program uses, as a build leaves that was killed before it replaced any."""
    env.kill_daemon()
    assert env.web.tcp(DB, stream=9) == "ok"
    leftover = f"{env.pins}/tags_7"
    bpf.bpftool("map", "create", leftover, "type", "hash", "key", "8", "value", "16", "entries", "10", "name", "tags")
    with bpf.opened_map(leftover) as tags:
        tags.update(struct.pack("=Q", env.loose.cgroup_id), struct.pack("=QII", 2**64 - 1, 16, 0))
    env.start()
    assert not os.path.exists(leftover) and not env.tag_of(env.loose) and env.loose.tcp(DB) == "EPERM"
    check_no_gap(env)


def test_a_leftover_that_a_build_between_did_not_know_is_not_used(env):
    """That build's programs are in force, and it removed no pin of a map that is not its own."""
    env.kill_daemon()
    pin = env.map_pin("udp_recent")
    os.unlink(pin)
    bpf.bpftool("map", "create", pin, "type", "array", "key", "4", "value", "128", "entries", "4096", "name", "udp_recent")
    leftover = bpf.bpftool("map", "show", "pinned", pin)["id"]
    env.start()
    assert bpf.bpftool("map", "show", "pinned", pin)["id"] != leftover
    check_no_gap(env)


# Takes connections until its input ends, and closes each when its peer has.
TAKES = """
import selectors, socket, sys
s, there = socket.create_server(("127.0.0.1", 5433), backlog=1024), selectors.DefaultSelector()
there.register(s, selectors.EVENT_READ)
there.register(sys.stdin, selectors.EVENT_READ)
print("listens", flush=True)
while True:
    for key, _ in there.select():
        if key.fileobj is sys.stdin:
            sys.exit()
        if key.fileobj is s:
            there.register(s.accept()[0], selectors.EVENT_READ)
        elif not key.fileobj.recv(4096):
            there.unregister(key.fileobj)
            key.fileobj.close()
"""
# Sends over many connections, and ends them one by one, for as long as a daemon takes to start, when it is told to.
ENDS = """
import socket, sys, time
held = [socket.create_connection(("127.0.0.1", 5433), 5) for _ in range(int(sys.argv[1]))]
for c in held:
    c.sendall(bytes(100))
print("sent", flush=True)
sys.stdin.readline()
for c in held:
    c.close()
    time.sleep(0.003)
print("ended", flush=True)
sys.stdin.readline()
"""


def test_what_ends_while_two_builds_are_told_of_it_is_counted_once(env):
    """Also the old program counts what it was told of, until the new one stands in its place."""
    many = 900
    web, db = (env.workload(f"{name}-ends", env.ca.issue(f"/{name}/ends")) for name in ("web", "db"))
    takes = db.spawn(["/usr/bin/python3", "-c", TAKES])
    wait_for(lambda: takes.out, "the server to listen")
    sockets, counted = kept(env), both_ends(env, "web/ends", "db/ends")
    for i, to in enumerate((DAEMON_LAYOUT, DAEMON), 1):
        ends = web.spawn(["/usr/bin/python3", "-c", ENDS, str(many)])
        wait_for(lambda e=ends: e.out, "all to be sent", 20)
        env.kill_daemon()
        ends.command("")
        env.program = to
        env.start()
        wait_for(lambda e=ends: len(e.out) > 1, "all to be ended", 20)
        wait_for(lambda: kept(env) <= sockets, "every end to have been told", 5)
        sent, received = counted[0]()["sent_bytes"], counted[1]()["received_bytes"]
        print(f"# {100 * many * i} bytes sent: counted {sent} at one end, {received} at the other")
        assert sent <= 100 * many * i and received <= 100 * many * i, (sent, received)
        # The kernel may not tell of some ends while programs come to its tracepoint and leave it.
        assert sent >= 90 * many * i and received >= 90 * many * i, (sent, received)
        ends.kill()


def test_connections_that_are_no_longer_allowed_are_cut_after_an_upgrade_too(env):
    """What was carried over is judged: by what it says of its peer, under tables that the new build has filled."""
    stream = env.web.tcp_stream(DB, rate=50, stream=5)
    wait_for(lambda: stream.stat()["received"] > 3, "the connection to flow")
    change_build(env, DAEMON_LAYOUT, kill=True)
    got = stream.stat()["received"]
    wait_for(lambda: stream.stat()["received"] > got + 3, "it to flow on")
    try:
        env.apply(POLICY.replace("service: pg", "service: udp/5432"))
        wait_for(stream.ended, "it to be cut")
    finally:
        env.apply(POLICY)
        change_build(env, DAEMON, kill=False)
    # The connection of the file's own is cut with it.
    env.allowed_tcp.kill()
    env.allowed_tcp = env.web.tcp_stream(DB, rate=200, stream=ALLOWED)

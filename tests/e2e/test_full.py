# SPDX-License-Identifier: Apache-2.0
"""Kernel maps that are full: what needs another entry is denied, the error names the map and its size, `status` shows it,
and when there is room again it is as if nothing had been. The daemon is the one with small maps."""
import os
import struct

import bpf
from common import POLICY, ready as common_ready, setup as common_setup, spiffe
from harness import DAEMON_LAYOUT, PATIENCE, ip, read, wait_for

DB = "127.0.0.1,5432"

HOLDS_PORTS = """
import socket, sys
held = []
for port in range(20000, 20000 + int(sys.argv[1])):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", port))
    held.append(s)
print("held", flush=True)
sys.stdin.readline()
"""


def setup(env):
    common_setup(env)
    env.program = DAEMON_LAYOUT


def ready(env):
    common_ready(env)
    env.tcp = env.db.tcp_server("::,5432")
    env.udp = env.db.udp_server("::,5432")
    assert env.web.tcp(DB) == "ok" and env.web.udp(DB) == "ok"


def fill_of(env, name):
    return next(m for m in env.status()["maps"] if m["name"] == name)


class Filled:
    """Entries that nobody looks up, until the map takes no more; they go with the end of the block."""

    def __init__(self, env, name, make):
        self.env, self.name, self.make = env, name, make

    def __enter__(self):
        # What earlier tests left goes with the next sweep, and would make room.
        wait_for(lambda: fill_of(self.env, "tags")["entries"] == len(self.env.tags()), "tags of cgroups that are gone to go")
        with bpf.opened_map(self.env.map_pin(self.name)) as m:
            self.mine = []
            for i in range(2 * m.max_entries):
                try:
                    key, value = self.make(i)
                    m.update(key, value.ljust(m.value_bytes, b"\0"))
                    self.mine.append(key)
                except OSError:
                    break
            fill = fill_of(self.env, self.name)
            assert fill["entries"] == fill["max"] == m.max_entries, fill
        return self

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        with bpf.opened_map(self.env.map_pin(self.name)) as m:
            for key in self.mine:
                m.delete(key)
        self.mine = []


def nobody_gains(env):
    """While a map is full, who is denied is denied, and who had a tag goes on."""
    assert env.loose.tcp(DB) == "EPERM" and env.loose.udp(DB) != "ok"
    assert env.probe.tcp(DB, timeout=200) != "ok" and env.probe.udp(DB) != "ok"


def test_a_workload_that_finds_no_room_for_its_tag_is_refused_and_denied(env):
    late = env.workload("late")
    with Filled(env, "tags", lambda i: (struct.pack("=Q", 1 << 50 | i), struct.pack("=QII", 1, 16, 0))) as filled:
        refused = late.attest(env.svid["web"], expect=None)
        assert refused.rc and "map of tags (64 entries) takes no more" in refused.out, str(refused)
        assert late.tcp(DB) == "EPERM"
        nobody_gains(env)
        assert env.web.tcp(DB) == "ok" and env.web.udp(DB) == "ok"
        text = env.ctl("status", expect=0).out
        assert "tags 64 of 64" in text, text
        filled.remove()
    late.attest(env.svid["web"])
    assert late.tcp(DB) == "ok"


def test_a_local_identity_that_finds_no_room_is_told_and_given_later(env):
    corner = env.workload("corner")
    local = POLICY.replace("networks:", "  corner: {cgroup: /corner}\nnetworks:", 1)
    with Filled(env, "tags", lambda i: (struct.pack("=Q", 1 << 50 | i), struct.pack("=QII", 1, 16, 0))):
        env.apply(local)
        wait_for(lambda: "cannot give /corner the identity" in read(env.log_path), "the error")
        assert "map of tags (64 entries) takes no more" in env.log_tail()
        assert not env.tag_of(corner) and corner.tcp(DB) == "EPERM"
    wait_for(lambda: env.tag_of(corner), "the identity, as soon as there is room")
    env.apply(POLICY)


def test_an_identity_that_finds_no_room_for_its_name_is_refused(env):
    late = env.workload("late")
    svid = env.ca.issue("/web/late")
    name = b"\0" * 4 + spiffe("many").encode()
    with Filled(env, "names", lambda i: (struct.pack("=I", 1000 + i), name)):
        refused = late.attest(svid, expect=None)
        assert refused.rc and "map of names (128 identities) takes no more" in refused.out, str(refused)
        assert late.tcp(DB) == "EPERM"
        nobody_gains(env)
    late.attest(svid)
    assert late.tcp(DB) == "ok"


def test_a_udp_socket_that_finds_no_room_for_its_endpoint_is_denied(env):
    before = env.status()["map_full"]
    hog = env.probe.spawn(["/usr/bin/python3", "-c", HOLDS_PORTS, "100"])
    wait_for(lambda: hog.out, "the ports")
    fill = fill_of(env, "endpoints")
    assert fill["entries"] == fill["max"] == 64, fill
    mark = env.audit.mark()
    assert env.web.udp(DB) == "EPERM"
    event = env.audit.wait(mark, event__action="flow-denied", event__code="MAP_FULL")
    assert "policyctl status" in event["event"]["reason"], event
    nobody_gains(env)
    assert env.web.tcp(DB) == "ok", "TCP needs none"
    assert env.status()["map_full"] > before
    wait_for(lambda: "map endpoints is full (64 entries)" in read(env.log_path), "the error")
    hog.kill()
    wait_for(lambda: env.web.udp(DB) == "ok", "room", 5)


SENDS = """
import errno, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for address in sys.argv[1:]:
    try:
        s.sendto(b"x", (address, 5432))
        print("sent", address)
    except OSError as e:
        print(errno.errorcode[e.errno])
"""

# probe may send to the world, and to web.
TO_THE_WORLD = POLICY.replace("  - name: probe-sends", f"""\
  - {{name: probe-to-world, action: allow, from: probe, to: world, direction: egress}}
  - {{name: probe-to-web, action: allow, from: probe, to: web}}
  - {{name: all-to-db, action: allow, from: any, to: db, service: [tcp/5432, udp/5432], direction: ingress}}
  - name: some-sends""").replace("    from: probe\n    to: any\n", "    from: web\n    to: any\n", 1)


def addresses_change(env, netns, what, addresses):
    path = f"{env.dir}/batch"
    with open(path, "w", encoding="ascii") as f:
        f.writelines(f"addr {what} {address}/32 dev lo\n" for address in addresses)
    ip("-n", netns, "-batch", path)


def test_addresses_that_find_no_room_are_told_and_not_taken_for_the_world(env):
    other = env.network.namespace("many")
    resident = env.workload("resident", svid=env.ca.issue("/db/resident"), netns=other)
    veth = env.network.veth(env.home, other)
    ip("-n", env.home, "route", "add", "198.18.0.0/16", "via", veth["4"][1])
    env.apply(TO_THE_WORLD)
    resident.tcp_server("0.0.0.0,5432")
    server = resident.udp_server("0.0.0.0,5432")
    # More than the map holds: in it are also those of the tests that run beside this one.
    addresses = [f"198.18.{i // 200}.{i % 200 + 1}" for i in range(600)]
    addresses_change(env, other, "add", addresses)
    wait_for(lambda: "map addresses is full (512 entries)" in read(env.log_path), "the error", 5)
    assert fill_of(env, "addresses")["entries"] == 512
    nobody_gains(env)
    # Neither where there was room nor where there was none is the world.
    mark = env.audit.mark()
    sends = env.probe.spawn(["/usr/bin/python3", "-c", SENDS, *addresses])
    assert sends.wait() == 0 and set("".join(sends.out).split()) == {"EPERM"}, sends.out
    env.audit.wait(mark, event__action="flow-denied", event__code="MAP_FULL", destination__ip=lambda a: a in addresses)
    assert not server.stat()["streams"], "it went to a workload as to the world"
    # In a handshake each shows who it is.
    mark = env.audit.mark()
    for address in (addresses[0], addresses[300], addresses[-1]):
        assert env.probe.tcp(f"{address},5432", timeout=200) == "ETIMEDOUT", address
        assert env.web.tcp(f"{address},5432") == "ok", address
    env.audit.wait(mark, event__action="flow-allowed", zt__source__spiffe_id=env.svid["web"].spiffe_id,
                   zt__destination__spiffe_id="spiffe://e2e.example/db/resident")
    addresses_change(env, other, "del", addresses)
    wait_for(lambda: fill_of(env, "addresses")["entries"] < 512, "room", 5)
    assert env.probe.udp("198.18.9.9,5432", count=1, timeout=50) == "no-echo", "the world is the world again"
    env.apply(POLICY)


def test_handshakes_whose_places_are_all_taken_give_the_oldest_and_never_allow(env):
    """Taken by what no kernel wrote."""
    floods = [w.traffic("tcp-flood", "--to", DB, "--rate", 100) for w in (env.probe, env.loose, env.nobody)]
    accepted = env.tcp.stat()["accepted"]
    with bpf.opened_map(env.map_pin("handshakes")) as m:
        for i in range(m.max_entries):
            m.update(struct.pack("=I", i), os.urandom(m.value_bytes))
    for _ in range(5):
        assert env.web.tcp(DB) == "ok"
    for process in floods:
        process.quit()
    assert [f.stat()["connected"] for f in floods] == [0, 0, 0]
    assert env.tcp.stat()["accepted"] == accepted + 5, "a denied connection was accepted"


def test_maps_that_evict_never_allow(env):
    """Overfilled many times over, under floods of who may not and streams of who may."""
    allowed = env.web.udp_stream(DB, rate=200, stream=1)
    floods = [w.udp_stream(DB, rate=500, stream=i) for i, w in ((2, env.probe), (3, env.nobody), (4, env.loose))]
    tcp = [w.traffic("tcp-flood", "--to", DB, "--rate", 100) for w in (env.probe, env.loose, env.nobody)]
    accepted = env.tcp.stat()["accepted"]
    for name in ("udp_flows", "denials"):
        with bpf.opened_map(env.map_pin(name)) as m:
            for _ in range(10 * m.max_entries if m.max_entries < 1000 else m.max_entries):
                m.update(os.urandom(m.key_bytes), os.urandom(m.value_bytes))
            fill = fill_of(env, name)
            assert fill["evicts"] and fill["entries"] <= fill["max"], fill
            assert fill["entries"] > fill["max"] // 2, fill
        wait_for(lambda: env.web.tcp(DB) == "ok", "a new connection to pass", 5 * PATIENCE)
        accepted += 1
    got = allowed.stat()["received"]
    wait_for(lambda: allowed.stat()["received"] > got + 20, "the allowed flow to go on")
    for process in (*floods, *tcp):
        process.quit()
    assert [t.stat()["connected"] for t in tcp] == [0, 0, 0]
    arrived = [s for s in env.udp.stat()["streams"] if s["stream"] in (2, 3, 4)]
    assert not any(s["received"] for s in arrived) and not any(f.stat()["received"] for f in floods), arrived
    assert env.tcp.stat()["accepted"] == accepted, "a denied connection was accepted"

# SPDX-License-Identifier: Apache-2.0
"""Managed devices: what has no socket on the host (a container in a network namespace of its own, behind a veth) is judged by
programs on the host's end of its device, under an identity that root binds to it.

The "host" of these tests is the network namespace `a`, where the daemon runs; no device of the machine is touched."""
import os
import socket
import struct
import time

import bpf
import tcx
from common import spiffe, setup as common_setup, stream_of
from harness import DAEMON, DAEMON_LAYOUT, REPO, Result, field, ip, wait_for
from packets import checksum, packed
from test_top import RECORD, Counted
from test_upgrade import change_build, layouts

POLICY = f"""\
bulkhead: 1
identities:
  box: [{spiffe('box')}, {spiffe('box/*')}]
  crate: [{spiffe('crate')}, {spiffe('crate/*')}]
  web: {spiffe('web')}
  db: {spiffe('db')}
networks:
  gate: {{include: [10.78.0.0/16, "fd78::/16"]}}
services:
  echo: [tcp/5432, udp/5432, tcp/5434, udp/5434, icmp/echo-request, icmpv6/echo-request]
defaults: {{action: deny, log: denied}}
rules:
  - {{name: box-and-host, action: allow, from: box, to: {{identity: [host, world], network: gate}}, service: echo, log: new}}
  - {{name: host-to-box, action: allow, from: {{identity: [host, world], network: gate}}, to: box, service: echo, log: new}}
  - {{name: box-to-db, action: allow, from: box, to: db, service: echo, log: new}}
  - {{name: web-to-box, action: allow, from: web, to: box, service: echo, log: new}}
  - {{name: box-to-crate, action: allow, from: box, to: crate, service: echo, log: new}}
"""
POLICY_WITHOUT_BOX = POLICY.replace("service: echo", "service: tcp/1")
PORT, OTHER, CLOSED = 5432, 6000, 5434
E2E = os.path.join(REPO, "tests", "e2e")
PYTHON = ["/usr/bin/python3", "-B"]
MS = 1000000


class Box:
    """A container: a network namespace behind a veth whose host's end is a managed device."""

    def __init__(self, env, device=None, bridge=None):
        env.boxes += 1
        n = env.boxes
        self.env, self.device = env, device or f"bhc{n}"
        self.netns = env.network.namespace(f"c{n}")
        self.v4, self.v6 = f"10.78.{n}.2", f"fd78:{n}::2"
        self.host4, self.host6 = f"10.78.{n}.1", f"fd78:{n}::1"
        ip("-n", env.home, "link", "add", self.device, "type", "veth", "peer", "name", "eth0", "netns", self.netns)
        if bridge:
            self.v4, self.v6 = f"10.78.200.{n}", f"fd78:200::{n}"
            ip("-n", env.home, "link", "set", self.device, "master", bridge)
        else:
            ip("-n", env.home, "addr", "add", f"{self.host4}/24", "dev", self.device)
            ip("-n", env.home, "addr", "add", f"{self.host6}/64", "dev", self.device, "nodad")
        ip("-n", self.netns, "addr", "add", f"{self.v4}/24", "dev", "eth0")
        ip("-n", self.netns, "addr", "add", f"{self.v6}/64", "dev", "eth0", "nodad")
        ip("-n", env.home, "link", "set", self.device, "up")
        ip("-n", self.netns, "link", "set", "eth0", "up")
        if not bridge:
            ip("-n", self.netns, "route", "add", "default", "via", self.host4)
            ip("-n", self.netns, "-6", "route", "add", "default", "via", self.host6)
        self.mac = mac_of(env.home, self.device)
        self.inside = env.outside(netns=self.netns)

    def bind(self, svid, *addresses, expect=0, who=None, **kwargs):
        """policyctl attest --device, by the host's root or `who`."""
        wait_for(lambda: covered(self.env, self.device), f"{self.device} to be covered")
        return bind(self.env, self.device, svid, addresses or (self.v4, self.v6), expect, who, **kwargs)

    def serve(self):
        return (self.inside.tcp_server(f"::,{PORT}", f"::,{OTHER}"), self.inside.udp_server(f"::,{PORT}", f"::,{OTHER}"))

    def syn(self, src, dst, port, how="device", option=b""):
        """What answers a hand-made SYN of the container's root, put straight onto its end of the veth."""
        self.env.port += 1
        process = self.inside.spawn([*PYTHON, f"{E2E}/packets.py", "syn", "--dev", "eth0", "--src",
                                     f"{src},{self.env.port}", "--dst", f"{dst},{port}", "--how", how, "--peer-mac",
                                     self.mac, "--option", option.hex(), "--wait", "0.3"])
        process.wait()
        event = process.wait_event("answer", "refused")
        return event.get("kind") or event["errno"]


def mac_of(netns, device):
    return ip("-n", netns, "-o", "link", "show", device).split("link/ether ")[1].split()[0]


def bind(env, device, svid, addresses, expect=0, who=None, **kwargs):
    args = [a for address in addresses for a in ("--address", address)]
    who = who or env.nobody
    process = who.spawn(env.ctl_argv("attest", "--device", device, *args, "--svid", svid.cert, "--key", svid.key), **kwargs)
    rc = process.wait()
    result = Result(process.argv, rc, "".join(process.out), "")
    assert expect is None or rc == expect, str(result)
    return result


def sysctl(env, netns, *settings):
    process = env.spawn(["sysctl", "-qw", *settings], netns=netns)
    assert process.wait() == 0, "".join(process.out)


def ifindex(env, device):
    text = ip("-n", env.home, "-o", "link", "show", "dev", device, check=False)
    return int(text.split(":")[0]) if text else None


def pins(env):
    return {name for name in os.listdir(env.pins) if name.startswith("device_")}


def covered(env, device):
    return any(d["name"] == device and d["covered"] for d in env.status()["devices"]["items"])


def linked(env, device):
    """One that has stayed for a while is covered by links; until then by filters."""
    n = ifindex(env, device)
    return n and {f"device_{n}_from", f"device_{n}_to"} <= pins(env)


def filtered(env, device):
    process = env.nobody.spawn(["tc", "filter", "show", "dev", device, "ingress"])
    assert process.wait() == 0, "".join(process.out)
    return "bulkhead_from" in "".join(process.out)


def tag_of_device(env, device):
    tags = [t for t in env.tags() if t.get("device") == device]
    return tags[0] if tags else None


def ping(who, to, timeout=400):
    return who.traffic("ping", "--raw", "--timeout", timeout, "--to", f"{to},0").wait() == 0


def setup(env):
    common_setup(env)
    env.daemon_netns = env.home
    env.daemon_options = ["--devices", "bhc*, bht*"]
    env.boxes, env.port = 0, 40000


def ready(env):
    env.apply(POLICY)
    env.svid = {name: env.ca.issue(f"/{name}") for name in ("box", "crate", "web", "db")}
    sysctl(env, env.home, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    env.nobody = env.outside(netns=env.home)
    env.box, env.crate = Box(env), Box(env)
    env.box.bind(env.svid["box"])
    env.crate.bind(env.svid["crate"])
    env.web, env.db = env.workload("web", env.svid["web"]), env.workload("db", env.svid["db"])
    env.servers = [*env.box.serve(), *env.crate.serve(), env.nobody.tcp_server(f"::,{PORT}", f"::,{OTHER}"),
                   env.nobody.udp_server(f"::,{PORT}", f"::,{OTHER}")]


# ---- what the policy says ----

def test_a_device_carries_what_its_identity_may_send(env):
    for host in (env.box.host4, env.box.host6):
        assert env.box.inside.tcp(f"{host},{PORT}") == "ok"
        assert env.box.inside.udp(f"{host},{PORT}") == "ok"
        assert ping(env.box.inside, host)


def test_a_device_does_not_carry_what_its_identity_may_not_send(env):
    for host in (env.box.host4, env.box.host6):
        assert env.box.inside.tcp(f"{host},{OTHER}", timeout=250) == "ETIMEDOUT"
        assert env.box.inside.udp(f"{host},{OTHER}", timeout=150) == "no-echo"
    mark = env.audit.mark()
    assert env.crate.inside.tcp(f"{env.crate.host4},{PORT}", timeout=250) == "ETIMEDOUT"
    event = env.audit.wait(mark, event__action="flow-denied", zt__device__name=env.crate.device)
    assert field(event, "zt.source.spiffe_id") == env.svid["crate"].spiffe_id, event
    assert not ping(env.crate.inside, env.crate.host4, 200)


def test_the_host_reaches_the_workload_of_a_device_where_the_policy_says_so(env):
    for address in (env.box.v4, env.box.v6):
        assert env.nobody.tcp(f"{address},{PORT}") == "ok"
        assert env.nobody.udp(f"{address},{PORT}") == "ok"
        assert ping(env.nobody, address)
        assert env.nobody.tcp(f"{address},{OTHER}", timeout=250) == "ETIMEDOUT"
        assert env.nobody.udp(f"{address},{OTHER}", timeout=150) == "no-echo"
    assert env.nobody.tcp(f"{env.crate.v4},{PORT}", timeout=250) == "ETIMEDOUT"


def test_an_error_reaches_who_it_is_for_and_nobody_else(env):
    """A port that nobody listens on: a reset for TCP, an ICMP error for UDP, in both directions."""
    for who, to in ((env.box.inside, env.box.host4), (env.box.inside, env.box.host6), (env.nobody, env.box.v4),
                    (env.nobody, env.box.v6)):
        assert who.tcp(f"{to},{CLOSED}") == "ECONNREFUSED", to
        assert who.udp(f"{to},{CLOSED}", connected=True) == "ECONNREFUSED", to


# ---- identity across ----

def both_know(env, mark, source, destination, transport, proof="verified"):
    """Both judgements were made of these two identities."""
    for direction in ("egress", "ingress"):
        env.audit.wait(mark, event__action="flow-allowed", network__direction=direction, network__transport=transport,
                       zt__source__spiffe_id=source.spiffe_id, zt__destination__spiffe_id=destination.spiffe_id,
                       zt__proof=proof)


def test_a_socket_of_the_host_and_a_device_know_each_other(env):
    """db is reached by box, box by web, and by nobody else: no rule names an address."""
    env.servers += [env.db.tcp_server(f"{env.box.host4},5434", f"{env.box.host6},5434", netns=env.home),
                    env.db.udp_server(f"{env.box.host4},5434", f"{env.box.host6},5434", netns=env.home)]
    for host, inside in ((env.box.host4, env.box.v4), (env.box.host6, env.box.v6)):
        mark = env.audit.mark()
        assert env.box.inside.tcp(f"{host},5434") == "ok"
        both_know(env, mark, env.svid["box"], env.svid["db"], "tcp")
        wait_for(lambda to=host: env.box.inside.udp(f"{to},5434") == "ok", "box to reach db over udp")
        both_know(env, mark, env.svid["box"], env.svid["db"], "udp")
        mark = env.audit.mark()
        assert env.web.tcp(f"{inside},{PORT}", netns=env.home) == "ok"
        both_know(env, mark, env.svid["web"], env.svid["box"], "tcp")
        wait_for(lambda to=inside: env.web.udp(f"{to},{PORT}", netns=env.home) == "ok", "web to reach box over udp")
        both_know(env, mark, env.svid["web"], env.svid["box"], "udp")
        assert env.crate.inside.tcp(f"{host},5434", timeout=250) == "ETIMEDOUT"
        assert env.db.tcp(f"{inside},{PORT}", timeout=250, netns=env.home) in ("EPERM", "ETIMEDOUT")


def test_bytes_of_datagrams_are_counted_for_the_pair_at_each_device(env):
    """All that passes, both ways, and nothing of what does not."""
    for to in (env.crate.v4, env.crate.v6):
        wait_for(lambda t=to: env.box.inside.udp(f"{t},{PORT}") == "ok", "box to reach crate")
    counted = [Counted(env, "box", "crate", direction, "udp") for direction in ("egress", "ingress")]
    refused = Counted(env, "box", "crate", "egress", "udp")
    for to in (env.crate.v4, env.crate.v6):
        for connected in (False, True):
            assert env.box.inside.udp(f"{to},{PORT}", count=20, connected=connected) == "ok"
    for end in counted:
        end.wait(flows=4, sent_bytes=4 * 20 * RECORD, received_bytes=4 * 20 * RECORD)
    assert env.box.inside.udp(f"{env.crate.v4},{OTHER}", count=20, timeout=150) == "no-echo"
    now = refused()
    assert now["denied"] > 0 and now["sent_bytes"] == 4 * 20 * RECORD, now


def test_a_ping_of_a_managed_workload_is_its_own(env):
    """Not the host's, who may: echo carries no proof, so the sender's socket is asked."""
    mark = env.audit.mark()
    assert ping(env.nobody, env.box.v4)
    env.apply(POLICY.replace("from: web, to: box", "from: web, to: crate")
              + "  - {name: pings-leave, action: allow, from: [web, db], to: any, direction: egress}\n")
    try:
        for who, svid in ((env.web, env.svid["web"]), (env.db, env.svid["db"])):
            process = who.traffic("ping", "--raw", "--timeout", 300, "--to", f"{env.box.v4},0", netns=env.home)
            assert process.wait() != 0
            env.audit.wait(mark, event__action="flow-denied", zt__device__name=env.box.device, network__transport="icmp",
                           zt__source__spiffe_id=svid.spiffe_id)
    finally:
        env.apply(POLICY)


HEAR = """import json, socket
ears = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
print(json.dumps({"event": "ready"}), flush=True)
while True:
    packet, (source, _) = ears.recvfrom(4096)
    print(json.dumps({"event": "heard", "from": source, "type": packet[20]}), flush=True)
"""
SPOOF = """import socket, struct, sys
echo = bytes((8, 0, 0xf7, 0xfe, 0, 1, 0, 0))
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 1, 0, *map(socket.inet_aton, sys.argv[1:3]))
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(head + echo, (sys.argv[2], 0))
"""


def test_a_raw_socket_knows_the_workload_of_a_device_by_what_came_through_it(env):
    """Not by the address, which anybody can write: here one behind a device that is not managed."""
    ears, mark = env.db.spawn([*PYTHON, "-c", HEAR], netns=env.home), env.audit.mark()
    ears.wait_event("ready")
    assert ping(env.box.inside, env.box.host4)
    assert ears.wait_event("heard")["from"] == env.box.v4
    env.audit.wait(mark, event__action="flow-allowed", network__direction="ingress", network__transport="icmp",
                   zt__source__spiffe_id=env.svid["box"].spiffe_id, zt__destination__spiffe_id=env.svid["db"].spiffe_id,
                   zt__proof="verified")
    stranger = env.network.namespace("stranger")
    ip("-n", env.home, "link", "add", "strange0", "type", "veth", "peer", "name", "eth0", "netns", stranger)
    ip("-n", env.home, "addr", "add", "10.79.0.1/24", "dev", "strange0")
    ip("-n", stranger, "addr", "add", "10.79.0.2/24", "dev", "eth0")
    ip("-n", env.home, "link", "set", "strange0", "up")
    ip("-n", stranger, "link", "set", "eth0", "up")
    ip("-n", stranger, "route", "add", "default", "via", "10.79.0.1")
    sysctl(env, env.home, "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.strange0.rp_filter=0")
    mark, heard = env.audit.mark(), len(ears.events)
    # No echo between these two came through the device.
    process = env.outside(netns=stranger).spawn([*PYTHON, "-c", SPOOF, env.box.v4, env.crate.host4])
    assert process.wait() == 0, "".join(process.out)
    env.audit.wait(mark, event__action="flow-denied", network__direction="ingress", network__transport="icmp",
                   zt__source__kind="unidentified", zt__destination__spiffe_id=env.svid["db"].spiffe_id,
                   source__ip=env.box.v4)
    assert len(ears.events) == heard, ears.events
    ears.kill()


def test_devices_know_each_other_over_a_route(env):
    for to, back in ((env.crate.v4, env.box.v4), (env.crate.v6, env.box.v6)):
        mark = env.audit.mark()
        assert env.box.inside.tcp(f"{to},{PORT}") == "ok"
        both_know(env, mark, env.svid["box"], env.svid["crate"], "tcp")
        assert env.box.inside.udp(f"{to},{PORT}") == "ok"
        both_know(env, mark, env.svid["box"], env.svid["crate"], "udp")
        assert ping(env.box.inside, to)
        assert env.crate.inside.tcp(f"{back},{PORT}", timeout=250) == "ETIMEDOUT"
        assert env.crate.inside.udp(f"{back},{PORT}", timeout=150) == "no-echo"
        assert not ping(env.crate.inside, back, 200)


def test_devices_know_each_other_over_a_bridge(env):
    ip("-n", env.home, "link", "add", "br0", "type", "bridge")
    ip("-n", env.home, "link", "set", "br0", "up")
    box, crate = Box(env, bridge="br0"), Box(env, bridge="br0")
    svids = env.ca.issue("/box/bridged"), env.ca.issue("/crate/bridged")
    box.bind(svids[0])
    crate.bind(svids[1])
    env.servers += [*box.serve(), *crate.serve()]
    for to, back in ((crate.v4, box.v4), (crate.v6, box.v6)):
        mark = env.audit.mark()
        wait_for(lambda t=to: box.inside.tcp(f"{t},{PORT}", timeout=300) == "ok", "the bridge to carry")
        both_know(env, mark, *svids, "tcp")
        assert box.inside.udp(f"{to},{PORT}") == "ok"
        assert crate.inside.tcp(f"{back},{PORT}", timeout=250) == "ETIMEDOUT"


def test_a_managed_socket_behind_a_device_keeps_its_own_identity(env):
    """Its option and its ticket are left in place; the device judges by its own identity besides."""
    inner = env.workload("inner", env.svid["web"], netns=env.box.netns)
    env.servers.append(env.box.inside.tcp_server(f"::,{CLOSED + 1}"))
    env.servers.append(inner.tcp_server(f"::,{CLOSED}"))
    mark = env.audit.mark()
    assert env.web.tcp(f"{env.box.v4},{CLOSED}", netns=env.home, timeout=400) in ("EPERM", "ETIMEDOUT")
    # No rule lets web reach web: the socket's own ingress says so, after the device let web reach box.
    env.audit.wait(mark, event__action="flow-denied", zt__cgroup__id=inner.cgroup_id, zt__proof="verified",
                   zt__source__spiffe_id=env.svid["web"].spiffe_id)


# ---- nothing without proof ----

def test_a_device_without_identity_carries_nothing(env):
    loose, mark = Box(env), env.audit.mark()
    wait_for(lambda: covered(env, loose.device), "the device to be covered")
    assert not ping(loose.inside, loose.host4, 200)
    assert loose.inside.tcp(f"{loose.host4},{PORT}", timeout=250) in ("ETIMEDOUT", "EHOSTUNREACH")
    assert env.nobody.tcp(f"{loose.v4},{PORT}", timeout=250) in ("ETIMEDOUT", "EHOSTUNREACH")
    env.audit.wait(mark, event__action="flow-denied", event__code="NO_IDENTITY", zt__device__name=loose.device)
    # Not even ARP, and not what is made by hand.
    assert "lladdr" not in ip("-n", env.home, "neigh", "show", "dev", loose.device, "to", loose.v4)
    assert loose.syn(loose.v4, loose.host4, PORT) == "nothing"
    assert loose.syn(loose.v4, loose.host4, PORT, "bypass") == "nothing"


def test_packets_made_by_hand_are_judged_like_others(env):
    for how in ("device", "bypass"):
        for src, dst in ((env.box.v4, env.box.host4), (env.box.v6, env.box.host6)):
            assert env.box.syn(src, dst, PORT, how) == "syn-ack", how
            assert env.box.syn(src, dst, OTHER, how) == "nothing", how


def test_a_spoofed_source_is_denied(env):
    mark = env.audit.mark()
    for how in ("device", "bypass"):
        for src, dst in ((env.crate.v4, env.box.host4), ("10.78.1.77", env.box.host4), (env.crate.v6, env.box.host6)):
            assert env.box.syn(src, dst, PORT, how) == "nothing", src
    event = env.audit.wait(mark, event__action="flow-denied", event__code="ADDRESS", source__ip=env.crate.v4)
    assert field(event, "zt.device.name") == env.box.device, event


def test_an_identity_option_that_no_socket_wrote_is_denied(env):
    """One that is made up, and a real one of another connection used again."""
    number, mark = env.tag_of(env.web)["identity"], env.audit.mark()
    forged = struct.pack("!BBHI", 254, 16, 0x4248, number) + b"\xaa" * 8
    assert env.box.syn(env.box.v4, env.box.host4, PORT, option=forged) == "nothing"
    env.audit.wait(mark, event__action="flow-denied", event__code="OPTION", zt__device__name=env.box.device)
    ears = env.nobody.spawn([*PYTHON, f"{E2E}/packets.py", "capture", "--dev", env.box.device, "--dst-port", str(PORT)])
    ears.wait_event("ready")
    assert env.web.tcp(f"{env.box.v4},{PORT}", netns=env.home) == "ok"
    frame = bytes.fromhex(ears.wait_event("captured")["frame"])
    at = frame.index(b"\xfe\x10BH")
    mark = env.audit.mark()
    assert env.box.syn(env.box.v4, env.box.host4, CLOSED, option=frame[at:at + 16]) == "nothing"
    env.audit.wait(mark, event__action="flow-denied", event__code="OPTION", zt__device__name=env.box.device)


# ---- what the link needs carries nothing else ----

# Hears ICMP errors on all addresses of a namespace, and says which address they came to.
HEAR_ERRORS = """import json, select, socket
four = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
print(json.dumps({"event": "ready"}), flush=True)
while True:
    for ears in select.select([four, six], [], [])[0]:
        packet, told, _, _ = ears.recvmsg(4096, 256)
        kind = packet[20] if ears is four else packet[0]
        to = (socket.inet_ntop(socket.AF_INET, packet[16:20]) if ears is four
              else socket.inet_ntop(socket.AF_INET6, told[0][2][:16]))
        if kind == (3 if ears is four else 1):
            print(json.dumps({"event": "error", "to": to}), flush=True)
"""
# A datagram that is answered: its flow lives from then on. Prints the port it left from.
TALK = """import json, socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(bytes(64))
print(json.dumps({"event": "sent", "port": s.getsockname()[1]}), flush=True)
"""
# Puts frames onto a device.
SEND = """import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
s.bind((sys.argv[1], 0))
for frame in sys.argv[2:]:
    s.send(bytes.fromhex(frame))
"""
# Puts a frame onto a device: does a frame come back that has these bytes at this offset?
ASK = """import json, select, socket, sys, time
device, frame, offset, answer, wait = sys.argv[1:]
offset, answer, end = int(offset), bytes.fromhex(answer), time.monotonic() + float(wait)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((device, 3))
s.send(bytes.fromhex(frame))
came = False
while not came and select.select([s], [], [], max(0, end - time.monotonic()))[0]:
    seen, where = s.recvfrom(65536)
    came = where[2] != socket.PACKET_OUTGOING and seen[offset:offset + len(answer)] == answer
print(json.dumps({"event": "asked", "came": came}), flush=True)
"""


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def ethernet(box, packet, to=None):
    return (to or mac_bytes(box.mac)) + mac_bytes(mac_of(box.netns, "eth0")) + packet


def icmp6_packet(src, dst, message, hops=64):
    a, b = packed(src), packed(dst)
    right = checksum(a + b + struct.pack("!II", len(message), 58) + message)
    message = message[:2] + struct.pack("!H", right) + message[4:]
    return b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(message), 58, hops) + a + b + message


def unreachable(src, dst, quoted_src, quoted_dst, payload):
    """An ICMP error: the port is closed, says src to dst, of a datagram between two (address, port)."""
    a, b = packed(quoted_src[0]), packed(quoted_dst[0])
    udp = struct.pack("!HHHH", quoted_src[1], quoted_dst[1], 8 + len(payload), 0) + payload
    if len(a) == 16:
        quote = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + a + b + udp
        return icmp6_packet(src, dst, struct.pack("!BBHI", 1, 4, 0, 0) + quote)
    quote = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + a + b + udp
    message = struct.pack("!BBHI", 3, 3, 0, 0) + quote
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 2, 0, 64, 1, 0) + packed(src) + packed(dst)
    return b"\x08\x00" + head[:10] + struct.pack("!H", checksum(head)) + head[12:] + message


def test_an_error_of_the_workload_goes_to_who_sent_what_it_quotes(env):
    """And to nobody else, whatever it quotes: an error could carry anything anywhere."""
    ip("-n", env.home, "addr", "add", "10.99.0.1/32", "dev", "lo")
    ip("-n", env.home, "addr", "add", "fd99::1/128", "dev", "lo")
    ears = env.nobody.spawn([*PYTHON, "-c", HEAR_ERRORS])
    ears.wait_event("ready")
    for host, inside, forbidden in ((env.box.host4, env.box.v4, "10.99.0.1"), (env.box.host6, env.box.v6, "fd99::1")):
        talk = env.box.inside.spawn([*PYTHON, "-c", TALK, host, str(PORT)])
        port, mark = talk.wait_event("sent")["port"], env.audit.mark()
        assert talk.wait() == 0
        frames = [ethernet(env.box, unreachable(inside, to, (host, PORT), (inside, port), b"secret of the box")).hex()
                  for to in (forbidden, host)]
        assert env.box.inside.spawn([*PYTHON, "-c", SEND, "eth0", *frames]).wait() == 0
        event = env.audit.wait(mark, event__action="flow-denied", event__code="NO_FLOW", zt__device__name=env.box.device,
                               destination__ip=forbidden)
        assert field(event, "source.ip") == inside, event
        # The second is to who sent: it was put onto the device behind the first.
        wait_for(lambda h=host: any(e.get("to") == h for e in ears.events), "the error to reach who sent")
    assert not [e for e in ears.events if e.get("to") in ("10.99.0.1", "fd99::1")], ears.events
    ears.kill()


def answered(box, frame, offset, answer, wait):
    process = box.inside.spawn([*PYTHON, "-c", ASK, "eth0", frame.hex(), str(offset), answer.hex(), str(wait)])
    return process.wait_event("asked")["came"]


def arp_request(box, trailer=b""):
    mac = mac_bytes(mac_of(box.netns, "eth0"))
    return ethernet(box, struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1) + mac + packed(box.v4) + bytes(6)
                    + packed(box.host4) + trailer, to=b"\xff" * 6)


def solicitation(box, to=None, options=b""):
    """Where is box.host6? Asks all who may be it, or `to`."""
    target = packed(box.host6)
    message = struct.pack("!BBHI", 135, 0, 0, 0) + target + b"\1\1" + mac_bytes(mac_of(box.netns, "eth0")) + options
    group = bytes.fromhex("ff0200000000000000000001ff") + target[13:]
    packet = icmp6_packet(box.v6, to or socket.inet_ntop(socket.AF_INET6, group), message, hops=255)
    return ethernet(box, packet, to=None if to else b"\x33\x33" + group[12:])


def test_arp_and_neighbour_discovery_carry_nothing_else(env):
    """The host answers all of these if they reach it."""
    box, mark = Box(env), env.audit.mark()
    box.bind(env.ca.issue("/box/link"))
    arp = (14 + 6, b"\0\2" + mac_bytes(box.mac) + packed(box.host4))
    advertisement = (14 + 40, b"\x88")
    # An option that nobody knows (RFC 4727), which receivers pass over (RFC 4861, 4.6).
    rider = bytes((253, 175)) + b"x" * (175 * 8 - 2)
    for frame, answer in ((arp_request(box, b"x" * 1472), arp), (solicitation(box, options=rider), advertisement)):
        assert not answered(box, frame, *answer, 0.25)
        event = env.audit.wait(mark, event__action="flow-denied", event__code="PARSE", zt__device__name=box.device)
        mark = env.audit.mark()
        assert event
    # The address that it is sent to could say something, too.
    assert not answered(box, solicitation(box, to=env.crate.host6), *advertisement, 0.25)
    for frame, answer in ((arp_request(box), arp), (arp_request(box, bytes(18)), arp), (solicitation(box), advertisement),
                          (solicitation(box, to=box.host6), advertisement)):
        assert answered(box, frame, *answer, 2)


# ---- the end of an identity ----

class Flow:
    """TCP and UDP of a box of its own to the host, in use all the time."""

    def __init__(self, env, seconds=3600):
        self.env, self.box = env, Box(env)
        self.svid = env.ca.issue(f"/box/{env.boxes}", seconds=seconds)
        self.box.bind(self.svid)
        to = f"{self.box.host4},{PORT}"
        self.stream = env.boxes
        self.server = env.nobody.tcp_server(f"{self.box.host4},{CLOSED}")
        self.udp_server = env.nobody.udp_server(f"{self.box.host4},{CLOSED}")
        to = f"{self.box.host4},{CLOSED}"
        self.tcp = self.box.inside.tcp_stream(to, rate=500, stream=self.stream)
        self.udp = self.box.inside.udp_stream(to, rate=500, stream=self.stream)
        self.goes_on()

    def goes_on(self):
        tcp, udp = self.tcp.stat()["received"], self.udp.stat()["received"]
        wait_for(lambda: self.tcp.stat()["received"] > tcp + 20, "TCP to flow")
        wait_for(lambda: self.udp.stat()["received"] > udp + 20, "UDP to flow")

    def check_nothing_after(self, cut_ns):
        made = self.udp.stat()["made"]
        wait_for(lambda: self.udp.stat()["made"] > made + 200, "the UDP client to go on")
        connection = next(c for c in self.server.stat()["connections"] if c["stream"] == self.stream)
        for seen in (connection, stream_of(self.udp_server, self.stream), self.tcp.stat(), self.udp.stat()):
            late = (seen["last_sent_ns"] - cut_ns) / MS
            assert late <= 0, f"a record sent {late:.1f} ms after the cut arrived"


def test_a_revoked_device_is_silent_at_once(env):
    flow = Flow(env)
    env.ctl("revoke", flow.svid.spiffe_id, expect=0)
    flow.check_nothing_after(time.monotonic_ns())
    assert tag_of_device(env, flow.box.device) is None
    assert flow.box.bind(flow.svid, expect=1).out.count("revoked")


def test_an_expired_device_is_silent_without_the_daemon(env):
    flow = Flow(env, seconds=4)
    left = int(tag_of_device(env, flow.box.device)["seconds_left"] + 1)
    end_ns = time.monotonic_ns() + left * 1000 * MS  # after it was asked: that takes a while on a busy machine
    env.stop_daemon()
    try:
        wait_for(lambda: time.monotonic_ns() > end_ns, "the SVID to expire", 15)
        flow.check_nothing_after(end_ns)
    finally:
        env.continue_daemon()
    mark = env.audit.wait(event__action="identity-expired", zt__device__name=flow.box.device)
    assert mark


def test_a_policy_change_cuts_and_lets_in_again(env):
    flow = Flow(env)
    env.apply(POLICY_WITHOUT_BOX)
    try:
        flow.check_nothing_after(time.monotonic_ns())
    finally:
        env.apply(POLICY)
    flow.goes_on()


# ---- covering ----

def test_a_device_that_goes_away_takes_its_identity_with_it(env):
    box = Box(env)
    box.bind(env.ca.issue("/box/leaving"))
    number, mark = ifindex(env, box.device), env.audit.mark()
    ip("-n", env.home, "link", "del", box.device)
    wait_for(lambda: not {f"device_{number}_from", f"device_{number}_to"} & pins(env), "its pins to be removed")
    env.audit.wait(mark, event__action="identity-removed", zt__device__name=box.device)
    assert tag_of_device(env, box.device) is None
    # Another one under the same name and number begins with nothing.
    ip("-n", env.home, "link", "add", box.device, "index", str(number), "type", "veth", "peer", "name", "eth0",
       "netns", box.netns)
    wait_for(lambda: covered(env, box.device), "the new one to be covered")
    assert tag_of_device(env, box.device) is None


def test_a_new_device_is_covered_at_once_and_by_links_when_it_stays(env):
    flow = Flow(env)
    wait_for(lambda: linked(env, flow.box.device) and not filtered(env, flow.box.device), "links in the place of filters")
    flow.goes_on()
    assert flow.box.inside.tcp(f"{flow.box.host4},{OTHER}", timeout=250) == "ETIMEDOUT"


def other_program(env, device, verdict):
    process = env.nobody.spawn([*PYTHON, f"{E2E}/tcx.py", "attach", "--dev", device, "--verdict", verdict])
    process.wait_event("ready")
    return process


def test_a_program_that_somebody_else_has_on_the_hook_stays_and_runs(env):
    box = Box(env, device="other0")
    theirs = other_program(env, box.device, "drop")
    ip("-n", env.home, "link", "set", box.device, "down")
    ip("-n", env.home, "link", "set", box.device, "name", "bhcother")
    ip("-n", env.home, "link", "set", "bhcother", "up")
    box.device = "bhcother"
    box.bind(env.ca.issue("/box/other"))
    ip("-n", env.home, "addr", "replace", f"{box.host4}/24", "dev", box.device)
    ip("-n", box.netns, "route", "replace", "default", "via", box.host4)
    assert not ping(box.inside, box.host4, 250), "their program did not run"
    theirs.quit()
    wait_for(lambda: ping(box.inside, box.host4), "the device to carry")
    theirs = other_program(env, box.device, "next")
    assert ping(box.inside, box.host4)
    assert box.inside.tcp(f"{box.host4},{OTHER}", timeout=250) == "ETIMEDOUT"
    theirs.quit()


def test_a_daemon_that_is_killed_leaves_the_devices_covered(env):
    flow, late = Flow(env), None
    env.kill_daemon()
    try:
        flow.goes_on()
        assert flow.box.inside.tcp(f"{flow.box.host4},{OTHER}", timeout=250) == "ETIMEDOUT"
        late = Box(env)
    finally:
        env.start()
    # What came while nobody watched is covered before the daemon says it is ready.
    assert linked(env, late.device)
    assert tag_of_device(env, flow.box.device)["spiffe_id"] == flow.svid.spiffe_id
    flow.goes_on()
    assert not flow.tcp.ended()
    assert flow.box.inside.tcp(f"{flow.box.host4},{OTHER}", timeout=250) == "ETIMEDOUT"


def test_another_build_takes_over_the_devices_with_traffic(env):
    """With other maps, and back again: killed, and stopped."""
    flow, before = Flow(env), layouts(env)
    tag, to = tag_of_device(env, flow.box.device), f"{flow.box.host4},{OTHER}"
    number = ifindex(env, flow.box.device)
    listener = env.nobody.udp_server(to)
    flow.box.inside.udp_stream(to, rate=500, stream=9)
    for program in (DAEMON_LAYOUT, DAEMON):
        change_build(env, program, kill=program == DAEMON_LAYOUT)
        assert (layouts(env) == before) == (program == DAEMON), "the layouts pinned are those of the build that runs"
        flow.goes_on()
        now = tag_of_device(env, flow.box.device)
        assert (now["spiffe_id"], now["identity"]) == (tag["spiffe_id"], tag["identity"]), now
        assert flow.box.inside.tcp(f"{flow.box.host4},{PORT}") == "ok"
        assert flow.box.inside.tcp(to, timeout=250) == "ETIMEDOUT"
        maps = [set(bpf.bpftool("prog", "show", "id", str(program_on(env, number, side)))["map_ids"])
                for side in ("from", "to")]
        assert all(map_id(env, "tags") in ids and map_id(env, "device_flows") in ids for ids in maps), maps
    assert not flow.tcp.ended(), "an allowed connection ended"
    assert not stream_of(listener, 9), listener.stat()


def program_on(env, number, side):
    return bpf.bpftool("link", "show", "pinned", f"{env.pins}/device_{number}_{side}")["prog_id"]


def map_id(env, name):
    with bpf.opened_map(env.map_pin(name)) as found:
        return found.id


def test_a_program_put_into_the_place_of_ours_is_replaced(env):
    """One that lets everything pass, in the link of each side."""
    wait_for(lambda: linked(env, env.box.device), "the device to have links")
    number = ifindex(env, env.box.device)
    theirs = tcx.load(tcx.VERDICTS["next"])
    try:
        for side in ("from", "to"):
            ours, mark = program_on(env, number, side), env.audit.mark()
            with bpf.opened(f"{env.pins}/device_{number}_{side}") as link:
                bpf.link_update(link, theirs)
            env.audit.wait(mark, event__action="enforcement-lost")
            wait_for(lambda s=side, o=ours: program_on(env, number, s) == o, "our program to be back")
    finally:
        os.close(theirs)
    assert env.box.inside.tcp(f"{env.box.host4},{OTHER}", timeout=250) == "ETIMEDOUT"
    assert env.box.inside.tcp(f"{env.box.host4},{PORT}") == "ok"


def test_a_link_that_somebody_takes_off_is_put_back(env):
    wait_for(lambda: linked(env, env.box.device), "the device to have links")
    number, mark = ifindex(env, env.box.device), env.audit.mark()
    process = env.nobody.spawn(["bpftool", "link", "detach", "pinned", f"{env.pins}/device_{number}_from"])
    assert process.wait() == 0, "".join(process.out)
    event = env.audit.wait(mark, event__action="enforcement-lost")
    assert "device" in event["event"]["reason"], event
    wait_for(lambda: env.box.inside.tcp(f"{env.box.host4},{OTHER}", timeout=200) == "ETIMEDOUT", "it to be judged again")
    assert env.box.inside.tcp(f"{env.box.host4},{PORT}") == "ok"
    os.unlink(f"{env.pins}/device_{number}_to")
    wait_for(lambda: linked(env, env.box.device), "the pin to be made again")


def open_files(env):
    return len(os.listdir(f"/proc/{env.daemon.popen.pid}/fd"))


def device_entries(env):
    return len(bpf.bpftool("map", "dump", "pinned", env.map_pin("devices")))


def churn(env, n):
    """n veth pairs made, put up and removed, as fast as the machine does it; returns how many a second."""
    path = f"{env.dir}/batch"
    with open(path, "w", encoding="ascii") as f:
        for i in range(n):
            f.write(f"link add bht{i} type veth peer name p{i}\nlink set bht{i} up\nlink del bht{i}\n")
    start = time.monotonic()
    ip("-n", env.home, "-batch", path)
    return n / (time.monotonic() - start)


def crowd_made(env, n):
    path = f"{env.dir}/batch"
    with open(path, "w", encoding="ascii") as f:
        f.writelines(f"link add bht{i} group 77 type veth peer name p{i} group 77\n" for i in range(n))
    ip("-n", env.home, "-batch", path)


def crowds(env, n, times):
    """n at a time: all are covered, and forgotten when they go at once. Returns a sentence of how fast."""
    making, covering, removing = 0, 0, 0
    for _ in range(times):
        start = time.monotonic()
        crowd_made(env, n)
        made = time.monotonic()
        wait_for(lambda: (d := env.status()["devices"]) and not d["uncovered"] and d["covered"] >= n, "all to be covered", 60)
        known = time.monotonic()
        ip("-n", env.home, "link", "del", "group", "77")
        making, covering, removing = making + made - start, max(covering, known - made), removing + time.monotonic() - known
    return (f"{n * times} in {times} crowds, {n * times / making:.0f} a second made, all covered at most {covering:.2f} s after "
            f"the last, {n * times / removing:.0f} a second removed")


def nothing_leaks(env, what, *args):
    """Of devices that came and went nothing is left: no pin, no place in the map, no descriptor, no device in the list."""
    def left():
        there = {line.split(":")[0] for line in ip("-n", env.home, "-o", "link", "show").splitlines()}
        strays = {name for name in pins(env) if name.endswith(("_from", "_to")) and name.split("_")[1] not in there}
        return strays, device_entries(env), env.status()["devices"]["covered"], env.status()["devices"]["uncovered"]

    wait_for(lambda: all(linked(env, d["name"]) for d in env.status()["devices"]["items"]), "those that stay to have links")
    before, files = left(), open_files(env)
    result = what(env, *args)
    wait_for(lambda: left() == before, "nothing to be left", 30)
    wait_for(lambda: open_files(env) <= files, "the descriptors to be closed")
    return result


def test_of_devices_that_come_and_go_nothing_is_left(env):
    rate = nothing_leaks(env, churn, 50)
    print(f"# veth pairs one by one: {rate:.0f} a second made, put up and removed; at once: {nothing_leaks(env, crowds, 250, 4)}")


def test_the_daemon_answers_while_it_makes_links_for_a_crowd(env):
    """Devices that stay get links, for which the kernel takes its time; until then filters cover them."""
    n, before = 60, len(pins(env))
    crowd_made(env, n)
    try:
        wait_for(lambda: len(pins(env)) >= before + 20, "the first links to be made")
        env.status()
        made = len(pins(env)) - before
        assert made < 2 * n, f"it answered when it had made {made} of {2 * n} links"
        wait_for(lambda: len(pins(env)) >= before + 2 * n, "all links to be made", 30)
    finally:
        ip("-n", env.home, "link", "del", "group", "77")


def test_messages_that_are_lost_are_made_up_for(env):
    """More devices change than the daemon's socket has room for while it does not run: it looks at all devices again."""
    gone, stays = Box(env, device="bhtgone"), Box(env, device="bhtstays")
    stays.bind(env.ca.issue("/box/stays"))
    gone.bind(env.ca.issue("/box/gone"))
    path = f"{env.dir}/batch"
    with open(path, "w", encoding="ascii") as f:
        f.writelines(f"link set {stays.device} mtu {1400 + i % 2}\n" for i in range(6000))
    env.stop_daemon()
    try:
        ip("-n", env.home, "-batch", path)
        ip("-n", env.home, "link", "del", gone.device)
        late = Box(env, device="bhtlate")
    finally:
        env.continue_daemon()
    wait_for(lambda: covered(env, late.device), "the one that came meanwhile to be covered")
    wait_for(lambda: tag_of_device(env, gone.device) is None, "the one that went to be forgotten")
    assert "messages of network devices were lost" in env.log_tail(400), "nothing was lost: the test proves nothing"
    assert tag_of_device(env, stays.device)["spiffe_id"] == spiffe("box/stays")
    assert stays.inside.tcp(f"{stays.host4},{PORT}") == "ok"


def test_a_tun_device_is_covered_like_an_ethernet_one(env):
    machine = env.nobody.spawn([*PYTHON, f"{E2E}/tun.py", "ping", "--dev", "bht0", "--src", "10.78.250.2", "--dst",
                                "10.78.250.1"])
    machine.wait_event("ready")
    ip("-n", env.home, "addr", "add", "10.78.250.1/24", "dev", "bht0")
    ip("-n", env.home, "link", "set", "bht0", "up")
    wait_for(lambda: covered(env, "bht0"), "the tun device to be covered")

    def answered():
        since = len(machine.events)
        machine.command("once")
        return machine.wait_event("reply", since=since)["came"]

    assert not answered()
    bind(env, "bht0", env.ca.issue("/box/machine"), ["10.78.250.2"])
    assert answered()
    env.ctl("revoke", spiffe("box/machine"), expect=0)
    assert not answered()


# ---- who may bind ----

def test_only_root_of_the_host_binds_a_device(env):
    box, svid = Box(env), env.ca.issue("/box/refused")
    os.chmod(svid.key, 0o644)
    for who, settings, what in ((box.inside, {}, "network namespace"), (env.nobody, {"uid": 65534}, "only root")):
        result = box.bind(svid, expect=None, who=who, **settings)
        assert result.rc == 1 and "device-caller" in result.out and what in result.out, str(result)
    argv = box.env.ctl_argv("attest", "--device", box.device, "--address", box.v4, "--svid", svid.cert, "--key", svid.key)
    result = env.nobody.spawn(["unshare", "--user", "--map-root-user", *argv])
    assert result.wait() == 1 and "device-caller" in "".join(result.out), "".join(result.out)
    assert tag_of_device(env, box.device) is None


def test_what_cannot_be_bound_is_refused_with_a_reason(env):
    box, svid = Box(env), env.ca.issue("/box/odd")
    for device, addresses, what in ((box.device, [env.box.v4], "bound to the device"), (box.device, ["127.0.0.1"], "loopback"),
                                    ("lo", [box.v4], "no managed device"), ("bhcnone", [box.v4], "no managed device")):
        wait_for(lambda: covered(env, box.device), "the device to be covered")
        result = bind(env, device, svid, addresses, expect=1)
        assert what in result.out, str(result)
    assert bind(env, box.device, svid, [], expect=2)
    box.bind(svid)
    result = box.bind(env.svid["crate"], expect=1)
    assert "other-identity" in result.out, str(result)


def test_an_identity_that_belongs_to_a_cgroup_is_not_bound_to_a_device(env):
    kept = f"  kept: {{spiffe: {spiffe('kept')}, only: {{cgroup: /kept}}}}"
    box = Box(env)
    env.apply(POLICY.replace("networks:", f"{kept}\nnetworks:", 1))
    try:
        assert "binding" in box.bind(env.ca.issue("/kept"), expect=1).out
    finally:
        env.apply(POLICY)


def test_identities_and_status_show_devices(env):
    tag = tag_of_device(env, env.box.device)
    assert tag["spiffe_id"] == env.svid["box"].spiffe_id and tag["addresses"] == [env.box.v4, env.box.v6], tag
    assert tag["ifindex"] == ifindex(env, env.box.device) and tag["seconds_left"] > 0, tag
    assert env.status()["devices"]["bound"] >= 2
    assert f"device:{env.box.device}" in env.ctl("identities", expect=0).out
    assert "with an identity" in env.ctl("status", expect=0).out

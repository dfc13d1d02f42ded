# SPDX-License-Identifier: Apache-2.0
"""Managed devices: what has no socket on the host (a container in a network namespace of its own, behind a veth) is judged by
programs on the host's end of its device, under an identity that root binds to it."""
import os
import struct
import time

from boxes import (CLOSED, E2E, MS, OTHER, POLICY, POLICY_WITHOUT_BOX, PORT, PYTHON, Box, Flow, bind, covered,  # noqa: F401
                   ifindex, only_linked, ping, ready, setup, tag_of_device)
from common import spiffe, sysctl
from frames import SEND, ethernet, icmp6_packet
from harness import field, ip, wait_for
from packets import checksum, packed
from test_top import RECORD, Counted


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
        wait_for(lambda a=address: env.nobody.tcp(f"{a},{PORT}") == "ok", "the host to reach it: IPv6 takes a moment on a new link")
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
    for device in (env.box.device, env.crate.device):
        wait_for(lambda d=device: only_linked(env, d), "it to have links alone: else what passes is counted twice")
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
    sysctl(env.home, "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.strange0.rp_filter=0")
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


# ---- the end of an identity ----

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

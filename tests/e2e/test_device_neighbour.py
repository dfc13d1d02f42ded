# SPDX-License-Identifier: Apache-2.0
"""What a link needs (ARP, neighbour and router discovery) passes without a rule, and so must not leave the link, nor speak of
addresses that the workload does not have. `far` is a network behind this host that no program here looks at: what arrives there
was routed."""
import socket
import struct

from boxes import POLICY, PORT, PYTHON, Box
from common import mac_of, setup as common_setup, sysctl
from frames import SEND, answered, ethernet, icmp6_packet, mac_bytes
from harness import ip, wait_for
from packets import packed

FAR, GATE = "fd78:f::2", "fd78:f::1"
NOWHERE = "fd79::7"  # on the way to `far` as well
# Prints every IPv6 frame that comes in.
HEAR = """import json, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86dd))
s.bind((sys.argv[1], 0x86dd))
print(json.dumps({"event": "ready"}), flush=True)
while True:
    frame, where = s.recvfrom(65536)
    if where[2] != socket.PACKET_OUTGOING:
        print(json.dumps({"event": "frame", "hex": frame.hex()}), flush=True)
"""
SOLICITATION, ADVERTISEMENT, ROUTER = 135, 136, 133
ALL_NODES = "ff02::1"


def setup(env):
    common_setup(env)
    env.daemon_netns = env.home
    env.daemon_options = ["--devices", "bhc*"]
    env.boxes, env.port, env.serial = 0, 40000, 0


def ready(env):
    env.apply(POLICY)
    sysctl(env.home, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    env.nobody = env.outside(netns=env.home)
    env.svid = {name: env.ca.issue(f"/{name}") for name in ("box", "crate")}
    env.box, env.crate = Box(env), Box(env)
    env.box.bind(env.svid["box"])
    env.crate.bind(env.svid["crate"])
    env.far = env.network.namespace("far")
    ip("-n", env.home, "link", "add", "far0", "type", "veth", "peer", "name", "eth0", "netns", env.far)
    ip("-n", env.home, "addr", "add", f"{GATE}/64", "dev", "far0", "nodad")
    ip("-n", env.far, "addr", "add", f"{FAR}/64", "dev", "eth0", "nodad")
    ip("-n", env.home, "link", "set", "far0", "up")
    ip("-n", env.far, "link", "set", "eth0", "up")
    ip("-n", env.far, "-6", "route", "add", "default", "via", GATE)
    wait_for(lambda: "fe80" in ip("-n", env.home, "-6", "addr", "show", "dev", "far0", "-tentative"), "far0 to be ready")
    ip("-n", env.home, "-6", "route", "add", "fd79::/16", "via", FAR)


def marker(env):
    """An option that nobody knows, which receivers pass over: eight bytes to find again."""
    env.serial += 1
    return b"\xfd\1" + struct.pack("!HI", 0xbeef, env.serial)


def discovery(box, kind, src, dst, target=None, option=b"", to=None):
    message = struct.pack("!BBHI", kind, 0, 0, 0) + (packed(target) if target else b"") + option
    return ethernet(box, icmp6_packet(src, dst, message, hops=255), to=to)


def send(box, *frames):
    assert box.inside.spawn([*PYTHON, "-c", SEND, "eth0", *(f.hex() for f in frames)]).wait() == 0


def solicited_node(target):
    return socket.inet_ntop(socket.AF_INET6, bytes.fromhex("ff0200000000000000000001ff") + packed(target)[13:])


def refused(env, box, frame, code="ADDRESS"):
    """Sent until it is told: of the same kind, one a second is."""
    mark = env.audit.mark()

    def told():
        send(box, frame)
        return env.audit.find(mark, event__action="flow-denied", event__code=code, zt__device__name=box.device)

    return wait_for(told, f"{code} for {frame.hex()}")


def heard(ears, option):
    return [e for e in ears.events if e["event"] == "frame" and option.hex() in e["hex"]]


def hearing(env, netns, device="eth0"):
    process = env.outside(netns=netns).spawn([*PYTHON, "-c", HEAR, device])
    process.wait_event("ready")
    return process


def test_discovery_is_not_routed(env):
    """A rule lets box send datagrams to far, and none lets it send ICMPv6."""
    box, ears = env.box, hearing(env, env.far)
    frames = {}
    for what, src, dst, target in ((SOLICITATION, box.v6, FAR, FAR), (SOLICITATION, box.v6, NOWHERE, NOWHERE),
                                   (ADVERTISEMENT, box.v6, FAR, box.v6), (ADVERTISEMENT, box.v6, NOWHERE, box.v6),
                                   (ROUTER, box.v6, FAR, None)):
        option, mark = marker(env), env.audit.mark()
        frames[option] = what, dst
        send(box, discovery(box, what, src, dst, target, option))
        env.audit.wait(mark, event__action="flow-denied", event__code="ADDRESS", zt__device__name=box.device,
                       destination__ip=dst)
    server = env.outside(netns=env.far).udp_server(f"::,{PORT}")
    assert box.inside.udp(f"{FAR},{PORT}") == "ok", "the route does not work, so nothing is shown"
    assert not [what for option, what in frames.items() if heard(ears, option)]
    server.kill()
    ears.kill()


def test_discovery_goes_to_no_other_group_than_its_own(env):
    """All of these could be given to others by multicast routing, or carry what the group says."""
    box = env.box
    for frame in (discovery(box, SOLICITATION, box.v6, "ff0e::1:ff00:1", box.host6),
                  discovery(box, SOLICITATION, box.v6, solicited_node("fd78::12:3456"), box.host6),
                  discovery(box, SOLICITATION, "::", box.host6, box.v6),
                  discovery(box, ADVERTISEMENT, box.v6, "ff0e::1", box.v6),
                  discovery(box, ROUTER, box.v6, "ff0e::2")):
        refused(env, box, frame)


def test_an_advertisement_and_arp_come_from_an_address_of_the_device(env):
    box, crate = env.box, env.crate
    for frame in (discovery(box, ADVERTISEMENT, crate.v6, ALL_NODES, box.v6),
                  discovery(box, ADVERTISEMENT, "::", ALL_NODES, box.v6),
                  discovery(box, ADVERTISEMENT, box.v6, ALL_NODES, crate.v6),
                  discovery(box, SOLICITATION, crate.v6, solicited_node(box.host6), box.host6),
                  arp(box, 2, crate.v4, box.host4), arp(box, 1, crate.v4, box.host4), arp(box, 1, "0.0.0.0", crate.v4)):
        refused(env, box, frame)
    assert mac_of(box.netns, "eth0") not in ip("-n", env.home, "neigh", "show", "to", crate.v4)
    # Neither request nor answer: RARP, InARP.
    for operation in (3, 8):
        refused(env, box, arp(box, operation, box.v4, box.host4), "PARSE")


def arp(box, operation, sender, target):
    return ethernet(box, struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, operation) + mac_bytes(mac_of(box.netns, "eth0"))
                    + packed(sender) + bytes(6) + packed(target), to=b"\xff" * 6)


def with_router_alert(packet):
    """The same ICMPv6 behind a hop-by-hop header, as MLD has it (RFC 3810, 5)."""
    head = bytearray(packet[2:42])
    head[4:6], head[6] = struct.pack("!H", len(packet) - 42 + 8), 0
    return packet[:2] + bytes(head) + bytes((58, 0, 5, 2, 0, 0, 1, 0)) + packet[42:]


def test_listeners_and_redirects_are_denied(env):
    box = env.box
    group = packed("ff02::4242")
    report = icmp6_packet(box.v6, "ff02::16", struct.pack("!BBHHH", 143, 0, 0, 0, 1) + bytes((4, 0, 0, 0)) + group, hops=1)
    done = icmp6_packet(box.v6, FAR, struct.pack("!BBHI", 132, 0, 0, 0) + group, hops=64)
    redirect = icmp6_packet(box.v6, box.host6, struct.pack("!BBHI", 137, 0, 0, 0) + packed(box.v6) + packed(FAR), hops=255)
    for packet in (with_router_alert(report), done, redirect):
        refused(env, box, ethernet(box, packet), "PROTO_UNSUPPORTED")
    igmp = struct.pack("!BBHHHBBH", 0x46, 0, 32, 0, 0, 1, 2, 0) + packed(box.v4) + packed("224.0.0.22")
    igmp += bytes.fromhex("94040000")
    refused(env, box, ethernet(box, b"\x08\x00" + igmp + bytes.fromhex("16000000e8000042")), "PARSE")
    # Without the option it is a protocol like others, for which there is no rule.
    igmp = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 1, 2, 0) + packed(box.v4) + packed("232.0.0.66")
    refused(env, box, ethernet(box, b"\x08\x00" + igmp + bytes.fromhex("16000000e8000042")), "DEFAULT_DENY")


def test_the_host_is_asked_and_answered_again(env):
    """An entry in use is looked after by unicast (RFC 4861, 7.3.3), from both ends, by global addresses."""
    box = env.box
    server = env.nobody.udp_server(f"::,{PORT}")
    option = b"\1\1" + mac_bytes(mac_of(box.netns, "eth0")) + marker(env)
    assert answered(box, discovery(box, SOLICITATION, box.v6, box.host6, box.host6, option), 14 + 40, b"\x88", 2)
    for _ in range(2):
        ip("-n", env.home, "neigh", "flush", "dev", box.device)
        ip("-n", box.netns, "neigh", "flush", "dev", "eth0")
        assert box.inside.udp(f"{box.host6},{PORT}") == "ok"
    server.kill()


def test_on_a_bridge_discovery_reaches_the_neighbour_and_no_router(env):
    """One that the host has no address on, so that it cannot tell what is on the link; but it routes."""
    ip("-n", env.home, "link", "add", "br9", "type", "bridge")
    ip("-n", env.home, "link", "set", "br9", "up")
    box, crate = Box(env, bridge="br9"), Box(env, bridge="br9")
    box.bind(env.ca.issue("/box/bridged"))
    crate.bind(env.ca.issue("/crate/bridged"))
    theirs = mac_bytes(mac_of(crate.netns, "eth0"))
    frame = discovery(box, SOLICITATION, box.v6, crate.v6, crate.v6, b"\1\1" + mac_bytes(mac_of(box.netns, "eth0")), to=theirs)
    wait_for(lambda: answered(box, frame, 14 + 40, b"\x88", 0.3), "the neighbour to answer")
    ears, option, last = hearing(env, crate.netns), marker(env), marker(env)
    for kind, target in ((SOLICITATION, FAR), (ADVERTISEMENT, box.v6)):
        refused(env, box, discovery(box, kind, box.v6, FAR, target, option, to=theirs))
        refused(env, box, discovery(box, kind, box.v6, "fd88::1", target if kind == ADVERTISEMENT else "fd88::1", option,
                                    to=theirs))
    send(box, discovery(box, SOLICITATION, box.v6, crate.v6, crate.v6, last, to=theirs))
    wait_for(lambda: heard(ears, last), "the last one to arrive")
    assert not heard(ears, option)
    ears.kill()
    # The port of no bridge any more: nothing of that counts.
    ip("-n", env.home, "addr", "add", "fd78:200::ff/64", "dev", box.device, "nodad")
    ip("-n", env.home, "link", "set", box.device, "nomaster")
    option = b"\1\1" + mac_bytes(mac_of(box.netns, "eth0"))
    box.mac = mac_of(env.home, box.device)
    frame = discovery(box, SOLICITATION, box.v6, "fd78:200::ff", "fd78:200::ff", option)
    wait_for(lambda: answered(box, frame, 14 + 40, b"\x88", 0.3), "the host to answer")


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

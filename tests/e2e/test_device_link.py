# SPDX-License-Identifier: Apache-2.0
"""What a container or a virtual machine needs of its link: datagrams in fragments, an address by DHCP, routers and link-local
addresses of IPv6. All of it under the identity of its device."""
from boxes import PYTHON, Box, only_linked, tag_of_device
from common import spiffe, setup as common_setup, sysctl
from harness import ip, wait_for
from test_top import pairs

POLICY = f"""\
bulkhead: 1
identities:
  box: [{spiffe('box')}, {spiffe('box/*')}]
defaults: {{action: deny, log: denied}}
rules:
  - {{name: box-out, action: allow, from: box, to: any, service: [udp/5432, icmp/echo-request]}}
  - {{name: box-in, action: allow, from: any, to: box, service: udp/5432}}
"""
DHCP = """\
  - {name: asks-dhcp, action: allow, from: box, to: any, service: udp/67}
  - {name: told-by-dhcp, action: allow, from: any, to: box, service: udp/68}
"""

SERVE = """import json, socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", int(sys.argv[1])))
print(json.dumps({"event": "ready"}), flush=True)
while True:
    data, who = s.recvfrom(65535)
    print(json.dumps({"event": "got", "bytes": len(data)}), flush=True)
    s.sendto(data, who)
"""
ASK = """import socket, sys
to, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(float(sys.argv[4]))
s.sendto(b"x" * size, (to, port))
try:
    sys.exit(len(s.recv(65535)) != size)
except TimeoutError:
    sys.exit(1)
"""
# The second half of a datagram, without its first.
LATER = """import socket, struct, sys
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 77, 185, 64, 17, 0, *map(socket.inet_aton, sys.argv[1:3]))
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(ip + b"y" * 64, (sys.argv[2], 0))
"""
LARGE_ECHO = """import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(b"\\x08\\x00" + bytes(4000), (sys.argv[1], 0))
"""
# A client without address, as RFC 2131 has it: argv[2] is its port.
DISCOVER = """import socket, struct, sys
udp = struct.pack("!HHHH", int(sys.argv[2]), 67, 8 + 300, 0) + b"\\x01\\x01\\x06\\x00" + bytes(296)
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, bytes(4), b"\\xff" * 4)
total = sum(struct.unpack("!10H", ip))
ip = ip[:10] + struct.pack("!H", ~((total & 0xffff) + (total >> 16)) & 0xffff) + ip[12:]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
s.send(b"\\xff" * 6 + s.getsockname()[4] + b"\\x08\\x00" + ip + udp)
"""
HEAR_DHCP = """import json, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.bind(("", int(sys.argv[1])))
print(json.dumps({"event": "ready"}), flush=True)
while True:
    data, who = s.recvfrom(65535)
    print(json.dumps({"event": "got", "from": who[0], "bytes": len(data)}), flush=True)
    if len(sys.argv) > 2:
        s.sendto(data, (sys.argv[2], 68))
"""
# ICMPv6 with hop limit 255: icmp.py IF TYPE TO HEX
ICMP6 = """import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, sys.argv[1].encode())
s.sendto(bytes([int(sys.argv[2]), 0, 0, 0]) + bytes.fromhex(sys.argv[4]), (sys.argv[3], 0))
"""
HEAR_ICMP6 = """import json, socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
print(json.dumps({"event": "ready"}), flush=True)
while True:
    data, who = s.recvfrom(65535)
    print(json.dumps({"event": "icmp", "type": data[0], "from": who[0].split("%")[0]}), flush=True)
"""
PREFIX = "fd77::"
# Lifetimes of an hour; a prefix to make an address of (RFC 4861, 4.2 and 4.6.2).
ADVERTISEMENT = "40000708" + 8 * "00" + "0304" + "40c0" + 2 * "00000e10" + "00000000" + "fd77" + 14 * "00"


def script(who, text, *args):
    process = who.spawn([*PYTHON, "-c", text, *map(str, args)])
    return process.wait() == 0


def hearing(who, text, *args):
    process = who.spawn([*PYTHON, "-c", text, *map(str, args)])
    process.wait_event("ready")
    return process


def link_local(env, netns, device):
    def found():
        words = ip("-n", netns, "-6", "-o", "addr", "show", "dev", device, "scope", "link", "-tentative").split()
        return words and words[words.index("inet6") + 1].split("/")[0]
    assert env
    return wait_for(found, f"the link-local address of {device}")


def setup(env):
    common_setup(env)
    env.daemon_netns = env.home
    env.daemon_options = ["--devices", "bhc*"]
    env.boxes, env.port = 0, 40000


def ready(env):
    env.apply(POLICY)
    sysctl(env.home, "net.ipv4.ip_forward=1")
    env.nobody = env.outside(netns=env.home)
    env.box = Box(env)
    env.box.bind(env.ca.issue("/box"))


def bytes_of(env, source, destination):
    """UDP sent and received by all pairs of box in one direction of flows."""
    found = [p for p in pairs(env).values() if p["protocol"] == "udp" and spiffe("box") == p[source] != p[destination]]
    return sum(p["sent_bytes"] for p in found), sum(p["received_bytes"] for p in found)


def test_a_datagram_in_fragments_is_judged_and_counted_with_its_first(env):
    box = env.box
    wait_for(lambda: only_linked(env, box.device), "the device to have links alone: else what passes is counted twice")
    before = {flow: bytes_of(env, *flow) for flow in (("from", "to"), ("to", "from"))}
    for who, asks, to in ((env.nobody, box.inside, (box.host4, box.host6)), (box.inside, env.nobody, (box.v4, box.v6))):
        allowed, denied = hearing(who, SERVE, 5432), hearing(who, SERVE, 5433)
        for address in to:
            assert script(asks, ASK, address, 5432, 9000, 5), address
            assert not script(asks, ASK, address, 5433, 9000, 0.2), address
        assert [e["bytes"] for e in allowed.events if e["event"] == "got"] == [9000, 9000]
        assert not [e for e in denied.events if e["event"] == "got"]
        allowed.kill()
        denied.kill()
    for flow, (sent, received) in before.items():
        now = bytes_of(env, *flow)
        assert now == (sent + 18000, received + 18000), f"{flow}: {now} after {sent, received}"


def test_a_fragment_without_its_first_is_denied(env):
    mark = env.audit.mark()
    assert script(env.box.inside, LATER, env.box.v4, env.box.host4)
    event = env.audit.wait(mark, event__action="flow-denied", event__code="FRAGMENT", zt__device__name=env.box.device)
    assert event["network"]["direction"] == "egress", event
    # Of what is no datagram, neither.
    mark = env.audit.mark()
    assert script(env.box.inside, LARGE_ECHO, env.box.host4)
    env.audit.wait(mark, event__action="flow-denied", event__code="FRAGMENT", network__transport="icmp")


def test_dhcp_is_judged_by_the_policy(env):
    """The question of who has no address yet, from no port but its own, and the answer."""
    box = env.box
    server, client = hearing(env.nobody, HEAR_DHCP, 67, box.v4), hearing(box.inside, HEAR_DHCP, 68)
    mark = env.audit.mark()
    assert script(box.inside, DISCOVER, "eth0", 68)
    env.audit.wait(mark, event__action="flow-denied", zt__device__name=box.device, destination__port=67)
    env.apply(POLICY + DHCP)
    try:
        assert script(box.inside, DISCOVER, "eth0", 68)
        assert server.wait_event("got")["from"] == "0.0.0.0"
        assert client.wait_event("got")["bytes"] == 300
        mark = env.audit.mark()
        assert script(box.inside, DISCOVER, "eth0", 1068)
        env.audit.wait(mark, event__action="flow-denied", event__code="ADDRESS", zt__device__name=box.device)
    finally:
        env.apply(POLICY)


def test_a_workload_finds_its_router_and_is_none(env):
    box = Box(env)
    local = link_local(env, box.netns, "eth0")
    box.bind(env.ca.issue("/box/router"), box.v4, local)
    host = hearing(env.nobody, HEAR_ICMP6)

    def asked():
        assert script(box.inside, ICMP6, "eth0", 133, "ff02::2", "00000000")
        return any(e["event"] == "icmp" and e["type"] == 133 and e["from"] == local for e in host.events)

    sysctl(env.home, f"net.ipv6.conf.{box.device}.forwarding=1")
    wait_for(asked, "the question to come to the host")
    # The host tells, and the workload makes itself an address. It is not bound, so that it does not speak by it.
    def told():
        assert script(env.nobody, ICMP6, box.device, 134, "ff02::1", ADVERTISEMENT)
        return PREFIX in ip("-n", box.netns, "-6", "addr", "show", "dev", "eth0", "scope", "global", "dynamic")

    wait_for(told, "the workload to have an address of the prefix")
    mark = env.audit.mark()
    assert script(box.inside, ICMP6, "eth0", 134, "ff02::1", ADVERTISEMENT)
    event = env.audit.wait(mark, event__action="flow-denied", event__code="PROTO_UNSUPPORTED", zt__device__name=box.device,
                           network__direction="egress")
    assert event["network"]["transport"] == "ipv6-icmp", event


def test_link_local_addresses_carry_where_they_are_bound(env):
    box = Box(env)
    local, host = link_local(env, box.netns, "eth0"), link_local(env, env.home, box.device)
    box.bind(env.ca.issue("/box/link"), local)
    assert tag_of_device(env, box.device)["addresses"] == [local]
    server = hearing(env.nobody, SERVE, 5432)
    assert script(box.inside, ASK, f"{host}%eth0", 5432, 100, 5)
    server.kill()

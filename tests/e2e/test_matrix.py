# SPDX-License-Identifier: Apache-2.0
"""Every way to send a packet, out and in, allowed and denied: the rows of docs/coverage.md on a real kernel.

web may send what the table has, and db may receive it; lone may send nothing; probe may send everything, so what stops it is
the other end; shut may receive nothing. A process outside any workload listens to the loopback device: of what is denied
at egress, nothing may be there. That nothing arrived is asked after something later did arrive by the same way."""
import json
import os
import socket
import struct

from common import setup, spiffe  # noqa: F401
from harness import PATIENCE, REPO, TRAFFIC, Skip, ip, wait_for
from packets import checksum, packed, tcp_checksum

PROBES = ["/usr/bin/python3", "-B", os.path.join(os.path.dirname(os.path.abspath(__file__)), "probes.py")]
DB, SHUT, GROUP4, GROUP6, MPTCP, FAST, OPEN, OPEN_FAST, SERVICE = 5432, 5431, 5433, 5434, 5440, 5441, 7000, 7001, 5450
HAND_MADE, GRE, ESP, AH, SCTP, UDPLITE = 253, 47, 50, 51, 132, 136
GROUPS = {"4": "239.7.7.7", "6": "ff15::77"}
V4, V6, MAPPED = "127.0.0.1", "::1", "::ffff:127.0.0.1"

POLICY = f"""\
bulkhead: 1
identities:
  web: [{spiffe('web')}, {spiffe('web/*')}]
  db: {spiffe('db')}
  probe: {spiffe('probe')}
networks:
  here: [127.0.0.0/8, "::1/128", 10.77.0.0/16, "fd77::/16"]
  detour: 10.77.1.66
  groups: [224.0.0.0/4, "ff00::/8", 255.255.255.255/32, 10.77.1.255/32]
services:
  db: [tcp/{DB}-{SERVICE}, udp/{DB}-{SERVICE}]
  by-number: [proto/{HAND_MADE}, proto/{GRE}, proto/{ESP}-{AH}, proto/{UDPLITE}, sctp/5060]
  messages: [icmp/echo-request, icmp/timestamp-request, icmp/40, icmpv6/echo-request, icmpv6/200]
defaults: {{action: deny, log: denied}}
rules:
  - {{name: web-to-db, action: allow, from: web, to: db, service: db}}
  - {{name: web-to-groups, action: allow, from: web, to: groups, service: db, direction: egress}}
  - {{name: web-sends, action: allow, from: web, to: here, service: [by-number, messages], direction: egress}}
  - {{name: db-receives, action: allow, from: here, to: db, service: [by-number, messages], direction: ingress}}
  - {{name: probe-sends, action: allow, from: probe, to: any, direction: egress}}
  - {{name: no-detour, action: deny, from: detour, to: db, service: tcp/{MPTCP}, direction: ingress}}
  - {{name: anyone-to-open, action: allow, from: any, to: db, service: [udp/{OPEN}, tcp/{OPEN}-{OPEN_FAST}], direction: ingress}}
"""


class Actor:
    """A process of a workload that does what a test tells it: probes.py."""

    def __init__(self, who, netns=None):
        self.process = who.spawn(PROBES, netns=netns)
        self.number = 0
        self.process.wait_event("ready")

    def do(self, name, *args, seconds=10.0):
        self.number += 1
        since = len(self.process.events)
        self.process.command(json.dumps([self.number, name, *args]))
        while True:
            answer = self.process.wait_event("answer", since=since, seconds=seconds)
            if answer["id"] == self.number:
                return answer
            since += 1

    def ok(self, name, *args, **kwargs):
        answer = self.do(name, *args, **kwargs)
        assert answer["result"] == "ok", f"{name} {args}: {answer}"
        return answer

    def count(self, text):
        return self.ok("count", text)["count"]


def ready(env):
    env.apply(POLICY)
    env.svid = {name: env.ca.issue(f"/{name}") for name in ("web", "db", "probe", "lone", "shut")}
    env.members = {name: env.workload(name, svid) for name, svid in env.svid.items()}
    env.members["nobody"] = env.outside()
    env.far = env.network.namespace("b")
    env.veth = env.network.veth(env.home, env.far)
    nobody = env.members["nobody"]
    for setting in ("net.ipv4.ping_group_range=0 2147483647", "net.ipv4.tcp_fastopen=3", "net.mptcp.enabled=1"):
        assert nobody.spawn(["sysctl", "-qw", setting]).wait() == 0
    env.actors = {name: Actor(who) for name, who in env.members.items()}
    env.texts = 0
    env.lacks = {}
    for name in ("db", "shut", "nobody"):
        listen(env, name)
    for device in ("lo", env.veth["dev"]):
        env.actors["nobody"].ok("listen", device, "device", device, 0)
    for name in ("db", "shut"):
        far = env.actors[f"far-{name}"] = Actor(env.members[name], env.far)
        far.ok("listen", f"raw4/{GRE}", "raw", "0.0.0.0", GRE)
    far = env.actors["far-db"]
    far.do("listen", "mptcp", "mptcp", "::", MPTCP)
    far.ok("listen", "broadcast", "udp", "0.0.0.0", GROUP4)
    far.ok("listen", "group6", "udp", "::", GROUP6, GROUPS["6"], env.veth["dev"])
    # A namespace's addresses are known a moment after its first workload is.
    wait_for(lambda: env.actors["web"].do("raw", env.veth["4"][1], GRE, "")["result"] == "ok", "the addresses to be known")


def listen(env, name):
    """What db listens to, shut and nobody listen to as well, where more than one can."""
    actor = env.actors[name]
    for protocol in (GRE, ESP, AH, HAND_MADE, SCTP, socket.IPPROTO_ICMP):
        actor.ok("listen", f"raw4/{protocol}", "raw", "0.0.0.0", protocol)
    for protocol in (GRE, ESP, AH, HAND_MADE, SCTP, socket.IPPROTO_ICMPV6):
        actor.ok("listen", f"raw6/{protocol}", "raw", "::", protocol)
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        actor.ok("listen", f"copy/{protocol}", "raw", "0.0.0.0", protocol)
    if name == "shut":
        actor.do("listen", "udplite", "udplite", "::", SHUT)
    if name != "db":
        return
    actor.ok("listen", "tcp", "tcp", "::", DB)
    actor.ok("listen", "udp", "udp", "::", DB)
    actor.ok("listen", "open", "udp", "::", OPEN)
    actor.ok("listen", "group4", "udp", "0.0.0.0", GROUP4, GROUPS["4"])
    actor.ok("listen", "fastopen", "fastopen", "::", FAST)
    actor.ok("listen", "open-fast", "fastopen", "::", OPEN_FAST)
    for kind, port in (("mptcp", MPTCP), ("udplite", DB)):
        answer = actor.do("listen", kind, kind, "::", port)
        if answer["result"] != "ok":
            env.lacks[kind] = answer["result"]


def new_text(env):
    env.texts += 1
    return f"[{os.getpid()}-{env.texts:04}]"


def everywhere(env, text):
    """Where in a workload a text has come in."""
    found = {}
    for name in ("db", "shut", "far-db", "far-shut"):
        found.update({f"{name}:{ear}": n for ear, n in env.actors[name].count(text).items() if n})
    return found


def on_devices(env, text):
    """How many frames carried it, on the way out of the namespace that most are in."""
    count = env.actors["nobody"].count(text)
    return count["lo"] + count[env.veth["dev"]]


# ---- the table ----

class Row:
    """One way to send. `arguments` may hold {text}. `ear`: where db gets it, at "db" or across the veth at "far-db". At
    ingress, probe is denied as a sender; but `shared`: shut has such a socket too, and no part in what db gets; or `shut`:
    these arguments send to a socket of shut's own."""

    def __init__(self, name, how, *arguments, ear="tcp", at="db", shared=False, shut=None, times=1, lacks=None):
        self.name, self.how, self.arguments, self.ear, self.at = name, how, arguments, ear, at
        self.shared, self.shut, self.times, self.lacks = shared, shut, times, lacks

    def send(self, actor, text, arguments=None):
        return actor.do(self.how, *[a.replace("{text}", text) if isinstance(a, str) else a
                                    for a in arguments or self.arguments], seconds=15)

    def need(self, env):
        if self.lacks in env.lacks:
            raise Skip(f"this kernel has no {self.lacks}: {env.lacks[self.lacks]}")


def uring(kind, address, *more):
    return ("tool", TRAFFIC, f"uring-{kind}", "--to", f"{address},{DB}", "--text", "{text}", "--timeout", "300", *more)


def raw_rows():
    for protocol, name in ((GRE, "gre"), (ESP, "esp"), (AH, "ah"), (HAND_MADE, "protocol_253")):
        for family, address in (("4", V4), ("6", V6)):
            yield Row(f"raw_{name}_over_ipv{family}", "raw", address, protocol, "{text}", ear=f"raw{family}/{protocol}",
                      shared=True)


def icmp_rows():
    for name, address, kind, ear, more in (
            ("icmp_echo", V4, 8, 1, (0,)), ("icmpv6_echo", V6, 128, 58, (129,)), ("icmp_timestamp", V4, 13, 1, (14,)),
            ("icmp_type_40", V4, 40, 1, ()), ("icmpv6_type_200", V6, 200, 58, ())):
        yield Row(f"{name}_by_a_raw_socket", "icmp", address, kind, "{text}", 7, "raw", *more,
                  ear=f"raw{'6' if ':' in address else '4'}/{ear}", shared=True)
    for name, address, kind, ear, answer in (("icmp", V4, 8, 1, 0), ("icmpv6", V6, 128, 58, 129)):
        yield Row(f"{name}_echo_by_a_ping_socket", "icmp", address, kind, "{text}", 0, "ping", answer,
                  ear=f"raw{'6' if ':' in address else '4'}/{ear}", shared=True)


ROWS = [
    Row("tcp_over_ipv4", "tcp", V4, DB, "{text}"),
    Row("tcp_to_a_v4_mapped_address", "tcp", MAPPED, DB, "{text}"),
    Row("tcp_over_ipv6", "tcp", V6, DB, "{text}"),
    Row("mptcp", "mptcp", V4, MPTCP, "{text}", ear="mptcp", lacks="mptcp"),
    Row("mptcp_to_a_tcp_listener", "mptcp", V6, DB, "{text}", lacks="mptcp"),
    Row("tcp_fast_open", "fastopen", V4, FAST, "{text}", 2.5, ear="fastopen"),
    Row("udp_sendto", "udp", V4, DB, "{text}", ear="udp"),
    Row("udp_sendto_over_ipv6", "udp", V6, DB, "{text}", ear="udp"),
    Row("tcp_fast_open_over_ipv6", "fastopen", V6, FAST, "{text}", 2.5, ear="fastopen"),
    Row("udp_to_a_v4_mapped_address", "udp", MAPPED, DB, "{text}", ear="udp"),
    Row("udp_connected", "udp_connected", V4, DB, "{text}", ear="udp"),
    Row("udp_connected_over_ipv6", "udp_connected", V6, DB, "{text}", ear="udp"),
    Row("udp_sendmmsg", "tool", TRAFFIC, "udp-mmsg", "--to", f"{V4},{DB}", "--text", "{text}", ear="udp", times=3),
    Row("udp_segmented_by_the_kernel", "udp_segments", V4, DB, "{text}", ear="udp", times=4),
    Row("udp_segmented_by_the_kernel_over_ipv6", "udp_segments", V6, DB, "{text}", ear="udp", times=4),
    Row("udp_in_fragments_of_the_kernel", "udp_large", V4, DB, "{text}", ear="udp"),
    Row("udp_multicast_over_ipv4", "multicast", GROUPS["4"], GROUP4, "{text}", "lo", ear="group4"),
    Row("udp_multicast_over_ipv6", "multicast", GROUPS["6"], GROUP6, "{text}", "v1", ear="group6", at="far-db"),
    Row("udp_broadcast", "broadcast", "10.77.1.255", GROUP4, "{text}", ear="broadcast", at="far-db"),
    Row("udp_lite", "udp", V4, DB, "{text}", UDPLITE, ear="udplite", lacks="udplite",
        shut=(V4, SHUT, "{text}", UDPLITE)),
    Row("raw_gre_across_a_veth", "raw", "10.77.1.2", GRE, "{text}", ear=f"raw4/{GRE}", at="far-db", shared=True),
    Row("sctp_by_hand", "raw", V4, SCTP, "\x9c\x41\x13\xc4........{text}", ear=f"raw4/{SCTP}", shared=True),
    Row("io_uring_connect_and_send", *uring("tcp", V4)),
    Row("io_uring_connect_and_send_by_a_kernel_thread", *uring("tcp", V6, "--sqpoll")),
    Row("io_uring_sendmsg", *uring("udp", V4), ear="udp"),
    Row("io_uring_sendmsg_by_a_kernel_thread", *uring("udp", V4, "--sqpoll"), ear="udp"),
    *raw_rows(),
    *icmp_rows(),
]


def arrives(env, row):
    """From web at db, as often as it was sent, and at no other workload."""
    row.need(env)
    text = new_text(env)
    answer = row.send(env.actors["web"], text)
    assert answer["result"] == "ok", answer
    env.actors[row.at].do("wait", row.ear, text, 4 * PATIENCE)
    assert everywhere(env, text) == {f"{row.at}:{row.ear}": row.times}, f"{everywhere(env, text)} {answer}"


def logged(env, direction, codes, **fields):
    env.audit.wait(0, event__action="flow-denied", network__direction=direction, event__code=lambda c: c in codes, **fields)


def does_not_leave(env, row):
    row.need(env)
    text = new_text(env)
    answer = row.send(env.actors["lone"], text)
    assert answer["result"] in ("EPERM", "ETIMEDOUT", "ETIME", "EINPROGRESS"), answer
    arrives(env, row)
    assert not everywhere(env, text), everywhere(env, text)
    assert not on_devices(env, text), "it was on the device"
    logged(env, "egress", ("DEFAULT_DENY", "IMPOSSIBLE"), zt__source__spiffe_id=env.svid["lone"].spiffe_id)


def does_not_arrive(env, row):
    row.need(env)
    if row.shared:
        arrives(env, row)
        logged(env, "ingress", ("DEFAULT_DENY",), zt__destination__spiffe_id=env.svid["shut"].spiffe_id)
        return
    text = new_text(env)
    answer = row.send(env.actors["web" if row.shut else "probe"], text, row.shut)
    assert answer["result"] in ("ok", "ETIMEDOUT", "ETIME", "EINPROGRESS"), answer
    # With a cookie, Fast Open says ok before anything has left.
    assert on_devices(env, text) or answer["result"] != "ok" or row.how == "fastopen", "it never left"
    arrives(env, row)
    assert not everywhere(env, text), everywhere(env, text)
    source, destination = ("web", "shut") if row.shut else ("probe", "db")
    logged(env, "ingress", ("DEFAULT_DENY",), zt__destination__spiffe_id=env.svid[destination].spiffe_id,
           where=lambda e: row.shut or e["zt"]["source"].get("spiffe_id") == env.svid[source].spiffe_id)


ROWS_BY_NAME = {row.name: row for row in ROWS}

for _row in ROWS:
    globals()[f"test_{_row.name}_arrives_where_both_ends_allow_it"] = lambda env, row=_row: arrives(env, row)
    globals()[f"test_{_row.name}_does_not_leave_where_egress_denies_it"] = lambda env, row=_row: does_not_leave(env, row)
    globals()[f"test_{_row.name}_does_not_arrive_where_ingress_denies_it"] = lambda env, row=_row: does_not_arrive(env, row)


# ---- packets made by hand that nobody may send, and nobody gets ----

def ipv4(protocol, payload, src=V4, dst=V4, fragment=0, options=b""):
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 0x4242, fragment, 64,
                       protocol, 0) + packed(src) + packed(dst) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(following, payload, src=V6, dst=V6, length=None):
    return (struct.pack("!IHBB", 6 << 28, len(payload) if length is None else length, following, 64) + packed(src)
            + packed(dst) + payload)


def chain(kinds, last, payload):
    """Extension headers of 8 bytes each, then the payload. Returns the first next-header value and the bytes."""
    data, following = payload, last
    for kind in reversed(kinds):
        body = b"\x00\x00\x00\x00\x00\x00" if kind in (ROUTING, FRAGMENT) else b"\x01\x04\x00\x00\x00\x00"
        data, following = struct.pack("!BB", following, 0) + body + data, kind
    return following, data


def udp_header(src, dst, payload, sport, dport):
    """With its checksum: for IPv6 it is not optional."""
    length = 8 + len(payload)
    pseudo = packed(src) + packed(dst) + (struct.pack("!II", length, 17) if ":" in src else struct.pack("!BBH", 0, 17, length))
    head = struct.pack("!HHHH", sport, dport, length, 0)
    return head[:6] + struct.pack("!H", checksum(pseudo + head + payload) or 0xFFFF) + payload


def tcp_data(src, dst, payload):
    segment = struct.pack("!HHIIBBHHH", 40001, DB, 7, 7, 5 << 4, 0x18, 64240, 0, 0) + payload
    return tcp_checksum(packed(src), packed(dst), segment)


HOPOPTS, ROUTING, FRAGMENT, NO_NEXT, DSTOPTS = 0, 43, 44, 59, 60


def by_hand(text):
    """What probe, who may send everything, may not make: name -> (destination, packet, code)."""
    data = text.encode()
    first, headers9 = chain([DSTOPTS] * 9, HAND_MADE, data)
    packets = {
        "a TCP segment": (V4, ipv4(6, tcp_data(V4, V4, data)), "RAW_SOCKET"),
        "a TCP segment over IPv6": (V6, ipv6(6, tcp_data(V6, V6, data)), "RAW_SOCKET"),
        "a TCP segment behind options": (V6, ipv6(*chain([DSTOPTS], 6, tcp_data(V6, V6, data))), "RAW_SOCKET"),
        "a datagram": (V4, ipv4(17, udp_header(V4, V4, data, 40001, OPEN)), "RAW_SOCKET"),
        "a datagram over IPv6": (V6, ipv6(17, udp_header(V6, V6, data, 40001, OPEN)), "RAW_SOCKET"),
        "a first fragment": (V4, ipv4(HAND_MADE, data.ljust(64), fragment=0x2000), "FRAGMENT"),
        "a later fragment": (V4, ipv4(HAND_MADE, data, fragment=8), "FRAGMENT"),
        "a whole packet as a fragment, IPv6": (V6, ipv6(*chain([FRAGMENT], HAND_MADE, data)), "FRAGMENT"),
        "IPv4 options": (V4, ipv4(HAND_MADE, data, options=b"\x01\x01\x01\x00"), "PARSE"),
        "nine extension headers": (V6, ipv6(first, headers9), "PARSE"),
        "hop-by-hop options in the second place": (V6, ipv6(*chain([DSTOPTS, HOPOPTS], HAND_MADE, data)), "PARSE"),
        "no next header": (V6, ipv6(NO_NEXT, data), "PARSE"),
        "a jumbogram": (V6, ipv6(HOPOPTS, bytes([HAND_MADE, 0, 0xC2, 4, 0, 1, 0, 0]) + data, length=0), "PARSE"),
        "a length within the packet": (V6, ipv6(HAND_MADE, data, length=max(len(data), 1) - 1), "PARSE"),
        "ICMPv6 over IPv4": (V4, ipv4(58, b"\x80\0\0\0\0\1\0\1" + data), "PARSE"),
        "ICMP over IPv6": (V6, ipv6(1, b"\x08\0\0\0\0\1\0\1" + data), "PARSE"),
        "somebody else's source": (V4, ipv4(HAND_MADE, data, src="192.0.2.1"), "SOURCE"),
        "somebody else's source over IPv6": (V6, ipv6(HAND_MADE, data, src="2001:db8::1"), "SOURCE"),
        "a reply that nobody asked for": (V4, ipv4(1, b"\0\0\0\0\0\1\0\1" + data), "NO_FLOW"),
    }
    return {name: (to, packet.hex(), code) for name, (to, packet, code) in packets.items()}


def test_what_nobody_may_make_by_hand_does_not_leave_and_does_not_arrive(env):
    probe, nobody = env.actors["probe"], env.actors["nobody"]
    made = {}
    for name in by_hand(""):
        text = new_text(env)
        made[name] = (text, *by_hand(text)[name])
    for name, (text, to, packet, code) in made.items():
        answer = probe.do("own_header", to, packet)
        assert answer["result"] == "EPERM", f"{name}: {answer}"
        logged(env, "egress", (code,), zt__source__spiffe_id=env.svid["probe"].spiffe_id)
    # The same from outside any workload leaves, but where the kernel itself does not take such a packet.
    refused, outside = set(), {}
    for name, (_, to, _, _) in made.items():
        outside[name] = new_text(env)
        if nobody.do("own_header", to, by_hand(outside[name])[name][1])["result"] != "ok" or not on_devices(env, outside[name]):
            refused.add(name)
    assert not refused, f"nothing was proved of {refused}"
    for name, (text, *_) in made.items():
        assert not on_devices(env, text) and not everywhere(env, text), name
    # What is odd does not arrive either: a stranger's datagram is not, nor are two fragments that make one packet.
    for to in (V4, V6):
        text = new_text(env)
        nobody.ok("udp", to, OPEN, text)
        env.actors["db"].ok("wait", "open", text, 2 * PATIENCE)
    arrived = {name: found for name, text in outside.items() if (found := everywhere(env, text))}
    datagram, whole = {"db:open": 1}, {f"db:raw4/{HAND_MADE}": 1}
    assert arrived == {"a datagram": datagram, "a datagram over IPv6": datagram, "a first fragment": whole,
                       "a later fragment": whole}, arrived


def test_raw_sockets_for_tcp_and_udp_send_nothing(env):
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        for to in (V4, V6):
            text = new_text(env)
            data = tcp_data(to, to, text.encode()) if protocol == 6 else udp_header(to, to, text.encode(), 40001, OPEN)
            answer = env.actors["probe"].do("raw", to, protocol, data.decode("latin-1"))
            assert answer["result"] == "EPERM" and not on_devices(env, text), f"{protocol} to {to}: {answer}"


def test_copies_of_what_others_talk_come_to_no_raw_socket(env):
    """web's conversations with db, and a stranger's: a raw socket outside any workload sees them all."""
    texts = [new_text(env) for _ in range(4)]
    env.actors["web"].ok("tcp", V4, DB, texts[0])
    env.actors["web"].ok("udp", V4, DB, texts[1])
    env.actors["nobody"].ok("udp", V4, OPEN, texts[2])
    env.actors["web"].ok("icmp", V4, 8, texts[3], 77, "raw", 0)
    for text, ear in zip(texts, ("copy/6", "copy/17", "copy/17", "raw4/1")):
        wait_for(lambda t=text, e=ear: env.actors["nobody"].count(t)[e] > 0, "a raw socket to see it")
    for text, found in zip(texts, ({"db:tcp": 1}, {"db:udp": 1}, {"db:open": 1}, {"db:raw4/1": 1})):
        assert everywhere(env, text) == found, everywhere(env, text)
    # Of the echo, db got the request, which it may; the answer, with the same text, is web's.
    assert env.actors["nobody"].count(texts[3])["raw4/1"] == 2
    logged(env, "ingress", ("RAW_SOCKET",), zt__destination__spiffe_id=env.svid["shut"].spiffe_id)


def test_up_to_eight_extension_headers_are_walked_out_and_in(env):
    """Out by web to a protocol that it may send; in, a datagram by hand from outside, to a port that is open."""
    ears = {f"raw6/{HAND_MADE}": env.actors["web"], "open": env.actors["nobody"]}
    for kinds in ([DSTOPTS] * 8, [ROUTING] * 8, [HOPOPTS] + [DSTOPTS, ROUTING] * 3 + [DSTOPTS]):
        for n in range(9):
            for ear, actor in ears.items():
                text = new_text(env)
                data = text.encode() if actor is env.actors["web"] else udp_header(V6, V6, text.encode(), 40002, OPEN)
                packet = ipv6(*chain(kinds[:n], HAND_MADE if actor is env.actors["web"] else 17, data))
                answer = actor.ok("own_header", V6, packet.hex())
                assert env.actors["db"].do("wait", ear, text, 2 * PATIENCE)["result"] == "ok", f"{n} {kinds[:1]}: {answer}"
                # shut has a socket for the one, and may receive nothing.
                assert everywhere(env, text) == {f"db:{ear}": 1}, f"{n} {kinds[:1]}: {everywhere(env, text)}"
            text = new_text(env)
            packet = ipv6(*chain(kinds[:n], HAND_MADE, text.encode()))
            assert env.actors["lone"].do("own_header", V6, packet.hex())["result"] == "EPERM", f"{n} {kinds[:1]}"
            assert not on_devices(env, text), f"{n} {kinds[:1]}"


def test_odd_packets_do_not_arrive(env):
    """From outside any workload, so that they leave. Where the kernel hands them to a socket at all, one that is outside
    gets them."""
    nobody, db = env.actors["nobody"], env.actors["db"]
    answers = {}
    for name, last in ((n, p) for n in ("nine", "first of two") for p in (HAND_MADE, 17)):
        text = new_text(env)
        data = text.encode() if last == HAND_MADE else udp_header(V6, V6, text.encode(), 40003, OPEN)
        if name == "nine":
            packets = [ipv6(*chain([DSTOPTS] * 9, last, data))]
        else:
            packets = [ipv6(*chain([FRAGMENT], last, data.ljust(64)))[:40 + 8 + 64]]
            packets[0] = packets[0][:42] + b"\0\1" + packets[0][44:]  # more fragments
        for packet in packets:
            nobody.ok("own_header", V6, packet.hex())
        answers[name, last] = text
    # Later by the same way, and allowed.
    text = new_text(env)
    nobody.ok("udp", V6, OPEN, text)
    assert db.do("wait", "open", text, 2 * PATIENCE)["result"] == "ok"
    for (name, last), text in answers.items():
        assert not everywhere(env, text), f"{name} before {last}: {everywhere(env, text)}"
    assert nobody.count(answers["nine", HAND_MADE])[f"raw6/{HAND_MADE}"] == 1, "nothing was proved"
    logged(env, "ingress", ("PARSE",), zt__destination__spiffe_id=env.svid["db"].spiffe_id)


# ---- ICMP: whose answer, whose error ----

def test_an_echo_reply_comes_to_the_socket_that_asked_and_to_no_other(env):
    """Two raw sockets of web ask the same host with different identifiers; a ping with another's identifier is unanswered."""
    web = env.actors["web"]
    for name, ident in (("a", 101), ("b", 102)):
        web.ok("icmp", V4, 8, new_text(env), ident, "raw", 0, name)
    web.ok("icmp", V4, 8, new_text(env), 101, "raw", None, "a")
    assert web.do("icmp_wait", "b", 0, 101)["result"] == "ETIMEDOUT", "b heard what a asked"
    web.ok("icmp_wait", "a", 0, 101)
    # A reply that answers nothing.
    env.actors["nobody"].ok("own_header", V4, ipv4(1, icmp_bytes(0, 103, "unasked")).hex())
    assert web.do("icmp_wait", "a", 0, 103)["result"] == "ETIMEDOUT"


def icmp_bytes(kind, ident, text, rest=b""):
    message = struct.pack("!BBHHH", kind, 0, 0, ident, 1) + rest + text.encode()
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def test_a_workload_that_answers_an_echo_request_itself_may(env):
    """The answer belongs to the request that the policy let in; the same answer before it does not."""
    db, to = env.actors["db"], "127.0.0.9"
    assert db.do("own_header", V4, ipv4(1, icmp_bytes(0, 104, "early"), src=to).hex())["result"] == "EPERM"
    text = new_text(env)
    env.actors["web"].ok("own_header", to, ipv4(1, icmp_bytes(8, 104, text), dst=to).hex())
    db.ok("wait", "raw4/1", text, 2 * PATIENCE)
    # By the socket that got the request.
    assert db.do("answer_echo", "raw4/1", to, V4, ipv4(1, icmp_bytes(0, 104, text), src=to).hex())["result"] == "ok"


def test_an_icmp_error_comes_to_the_flow_that_it_quotes(env):
    web, nobody = env.actors["web"], env.actors["nobody"]
    web.ok("icmp", V4, 8, new_text(env), 105, "raw", 0, "errors")
    for ident, heard in ((105, "ok"), (106, "ETIMEDOUT")):
        quoted = ipv4(1, icmp_bytes(8, ident, ""))
        nobody.ok("own_header", V4, ipv4(1, icmp_bytes(11, 0, "", quoted)).hex())
        assert web.do("icmp_wait", "errors", 11)["result"] == heard, ident


# ---- sockets that are older than what they are used for, or another's ----

def test_a_socket_that_is_older_than_its_workloads_tag_is_judged_by_the_tag(env):
    late = env.workload("late")
    actor = Actor(late)
    for kind, ear in (("udp", "udp"), ("tcp", "tcp")):
        actor.ok("make", kind, V4, kind)
        text = new_text(env)
        assert actor.do("send_on", kind, V4, DB, text)["result"] == "EPERM", kind
        assert not everywhere(env, text)
    late.attest(env.ca.issue("/web/late"))
    for kind, ear in (("udp", "udp"), ("tcp", "tcp")):
        text = new_text(env)
        actor.ok("send_on", kind, V4, DB, text)
        env.actors["db"].ok("wait", ear, text, 2 * PATIENCE)
    logged(env, "egress", ("NO_IDENTITY",), zt__cgroup__path=lambda p: p and p.endswith("/late"))


def procs(env, name):
    return f"{env.members[name].path}/cgroup.procs"


def test_a_socket_belongs_to_who_made_it(env):
    """Passed by SCM_RIGHTS; inherited by a program in another cgroup; and kept by a process that moves."""
    db = env.actors["db"]
    for maker, user, result in (("web", "lone", "ok"), ("lone", "web", "EPERM")):
        for kind, ear in (("udp", "udp"), ("tcp", "tcp")):
            path, name = f"{env.dir}/{maker}-{kind}", f"{maker}-{kind}"
            env.actors[user].ok("receive", path)
            env.actors[maker].ok("make", name, V4, kind)
            env.actors[maker].ok("give", name, path)
            env.actors[user].ok("take", name, path)
            texts = [new_text(env) for _ in range(2)]
            got = env.actors[user].do("send_on", name, V4, DB, texts[0])["result"]
            assert got in (result, "ETIMEDOUT" if result != "ok" and kind == "tcp" else result), f"{kind} of {maker}: {got}"
            got = env.actors[maker].do("execute", procs(env, user), V4, DB, texts[1], kind)["result"]
            assert got in (result, "ETIMEDOUT" if result != "ok" and kind == "tcp" else result), f"{kind} of {maker}: {got}"
            for text in texts:
                if result == "ok":
                    db.ok("wait", ear, text, 2 * PATIENCE)
                else:
                    assert not everywhere(env, text) and not on_devices(env, text)


def test_a_socket_stays_with_its_cgroup_when_its_process_moves(env):
    mover = Actor(env.members["web"])
    mover.ok("make", "before", V4)
    mover.ok("move", procs(env, "lone"))
    mover.ok("make", "after", V4)
    texts = [new_text(env), new_text(env)]
    mover.ok("send_on", "before", V4, DB, texts[0])
    assert mover.do("send_on", "after", V4, DB, texts[1])["result"] == "EPERM"
    env.actors["db"].ok("wait", "udp", texts[0], 2 * PATIENCE)
    assert not everywhere(env, texts[1])


def test_an_activated_service_answers_as_who_made_its_listener(env):
    """db's listener in shut's service is db's, and shut's in db's service is shut's."""
    for maker, service, port, result in (("db", "shut", SERVICE, "ok"), ("shut", "db", SERVICE - 1, "ETIMEDOUT")):
        env.actors[maker].ok("activate", procs(env, service), V4, port)
        text = new_text(env)
        got = env.actors["web"].do("tcp", V4, port, text)["result"]
        assert got == result, f"{maker}'s listener in {service}: {got}"
        answer = env.actors[maker].ok("of_service", port, "count", text)
        assert answer["accepted"].get("activated", 0) == (result == "ok"), answer


# ---- AF_PACKET ----

def frame_of(packet):
    return (b"\0" * 12 + struct.pack("!H", 0x0800 if packet[0] >> 4 == 4 else 0x86DD) + packet).hex()


def test_a_packet_socket_passes_the_senders_hooks_and_not_the_receivers(env):
    """On this kernel no cgroup program sees it: lone may send nothing, and its frame is on the device. The receiver's ingress
    does not take it for web's."""
    lone = env.actors["lone"]
    texts = [new_text(env), new_text(env)]
    lone.ok("device", "lo", frame_of(ipv4(HAND_MADE, texts[0].encode(), src="192.0.2.7")))
    lone.ok("device", "lo", frame_of(ipv4(17, udp_header(V4, V4, texts[1].encode(), 40004, DB))))
    wait_for(lambda: all(env.actors["nobody"].count(t)["lo"] for t in texts), "the frames to be on the device")
    arrives(env, ROWS[0])
    for text in texts:
        assert not everywhere(env, text), everywhere(env, text)


def test_status_says_what_no_program_sees(env):
    """Every row of the documentation's table."""
    with open(f"{REPO}/docs/coverage.md", encoding="utf-8") as file:
        table = file.read().split("## What no program here sees")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][1:]
    told, shown = "\n".join(env.status()["not_enforced"]), env.ctl("status", expect=0).out
    assert len(rows) >= 5, table
    words = ("AF_PACKET", "AF_XDP", "AF_UNIX", "AF_VSOCK", "RDMA", "Forwarded and bridged packets", "IP_RECVERR")
    for row in rows:
        named = [word.lower() for word in words if word in row]
        assert named, f"no word is known for this row: {row}"
        assert all(word in told.lower() and word in shown.lower() for word in named), row


# ---- what this kernel does not have ----

def test_a_protocol_that_this_kernel_lacks_is_known_to_be_lacking(env):
    """SCTP: a row of the table as soon as the kernel has it, so that this does not go unnoticed."""
    answer = env.actors["nobody"].do("listen", "sctp", "sctp", V4, 5060)
    if answer["result"] == "ok":
        raise AssertionError("this kernel has SCTP: give it its rows")
    assert answer["result"] == "EPROTONOSUPPORT", answer
    raise Skip(f"SCTP sockets: {answer['result']}")


# ---- TCP with more in its handshake ----

def test_mptcp_and_fast_open_connect_at_once(env):
    """Their options leave 4 or 8 bytes in a SYN-ACK. Without the short form of the identity a retransmission would be needed."""
    web = env.actors["web"]
    if "mptcp" not in env.lacks:
        answer = web.ok("mptcp", V4, MPTCP, new_text(env))
        assert answer["mptcp"] and answer["ms"] < 300 * PATIENCE, answer
    for _ in range(2):
        answer = web.ok("fastopen", V4, FAST, new_text(env), 4.0)
        assert answer["ms"] < 300 * PATIENCE, answer
    assert not env.audit.find(0, event__code="UNPROVEN")


def test_fast_open_with_a_cookie_sends_no_data_before_the_peer_is_known(env):
    """The first connection asks for a cookie, the second would carry data in its SYN: it arrives once and whole, but later."""
    web, db = env.actors["web"], env.actors["db"]
    for _ in range(2):
        text = new_text(env)
        answer = web.ok("fastopen", V4, FAST, text, 4.0, seconds=15)
        assert not answer["in_syn"], answer
        db.ok("wait", "fastopen", text, 2 * PATIENCE)
        assert everywhere(env, text) == {"db:fastopen": 1}
    logged(env, "egress", ("EARLY_DATA",), zt__source__spiffe_id=env.svid["web"].spiffe_id)
    # Outside any workload the kernel does it, so the cookie is there.
    env.actors["nobody"].ok("listen", "fastopen", "fastopen", "::", FAST + 100)
    answers = [env.actors["nobody"].ok("fastopen", V4, FAST + 100, new_text(env)) for _ in range(2)]
    assert answers[1]["in_syn"], answers


def test_each_subflow_of_mptcp_is_judged(env):
    """Two more are opened by the kernel, from other addresses; of one of them a rule says no. Data goes on meanwhile, and ends on
    all of them with the identity."""
    ROWS_BY_NAME["mptcp"].need(env)
    svid = env.ca.issue("/web/paths")
    web, far, device = Actor(env.workload("paths", svid)), env.actors["far-db"], env.veth["dev"]
    for netns in (env.home, env.far):
        ip("-n", netns, "mptcp", "limits", "set", "subflow", "4", "add_addr_accepted", "4")
    for address in ("10.77.1.3", "10.77.1.66"):
        ip("-n", env.home, "addr", "add", f"{address}/24", "dev", device)
        ip("-n", env.home, "mptcp", "endpoint", "add", address, "dev", device, "subflow")
    try:
        text, more, late = (new_text(env) for _ in range(3))
        answer = web.ok("mptcp", "10.77.1.2", MPTCP, text, 2.0, "paths")
        assert answer["mptcp"], answer
        wait_for(lambda: far.ok("established", MPTCP)["peers"] == ["10.77.1.1", "10.77.1.3"], "the second path", 8)
        logged(env, "ingress", ("POLICY_DENY",), rule__name="no-detour", source__ip="10.77.1.66")
        web.ok("kept", "paths", more)
        far.ok("wait", "mptcp", more, 2 * PATIENCE)
        assert far.ok("established", MPTCP)["peers"] == ["10.77.1.1", "10.77.1.3"], "the path that a rule denies is there"
        assert env.ctl_json("revoke", svid.spiffe_id)["tags"] == 1
        web.do("kept", "paths", late)
        assert far.do("wait", "mptcp", late, 0.5)["result"] == "ETIMEDOUT"
    finally:
        ip("-n", env.home, "mptcp", "endpoint", "flush")
        for address in ("10.77.1.3", "10.77.1.66"):
            ip("-n", env.home, "addr", "del", f"{address}/24", "dev", device)

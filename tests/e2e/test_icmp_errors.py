# SPDX-License-Identifier: Apache-2.0
"""ICMP errors end and slow no connection and no connected UDP socket that they do not belong to; those that do belong are heard."""
import contextlib
import json
import re
import socket
import struct
import sys
import time

from actors import Actors
from common import ready as common_ready, router, setup  # noqa: F401
from harness import ip, wait_for
from packets import checksum, emit

DB, MTU = 5432, 1300
# Type and code: host, protocol, port unreachable, too big, prohibited; time exceeded; parameter problem.
ERRORS = {"4": [(3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (11, 0), (12, 0)],
          "6": [(1, 0), (1, 1), (1, 4), (2, 0), (3, 0), (4, 1)]}


def ready(env):
    common_ready(env)
    env.way = router(env)


actor = Actors(__file__)
act = actor.start


def segment_of(src, dst, sport, dport, seq):
    """The first bytes of a segment as an ICMP error quotes it."""
    tcp = struct.pack("!HHII", sport, dport, seq, 0) + b"\x50\x10\xff\xff\0\0\0\0"
    family = socket.AF_INET6 if ":" in src else socket.AF_INET
    a, b = socket.inet_pton(family, src), socket.inet_pton(family, dst)
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, len(tcp), 6, 64) + a + b + tcp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0) + a + b
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + tcp


@actor
def forge(to, src, dst, sport, dport, seed):
    """ICMP errors of each kind to `to`, about a segment from src to dst: with these ports and sequence numbers that fit
    nowhere, and with other ports."""
    family = "6" if ":" in to else "4"
    sock = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET, socket.SOCK_RAW,
                         socket.IPPROTO_ICMPV6 if family == "6" else socket.IPPROTO_ICMP)
    sent = 0
    for n in range(16):
        for kind, code in ERRORS[family]:
            rest = struct.pack("!I", 600) if (family, kind, code) in (("4", 3, 4), ("6", 2, 0)) else b"\0" * 4
            for ports in ((sport, dport), (int(sport) + 1, dport), (sport, int(dport) + 1)):
                inner = segment_of(src, dst, *[int(p) for p in ports], int(seed) + n * 0x08000000 & 0xFFFFFFFF)
                packet = struct.pack("!BBH", kind, code, 0) + rest + inner
                if family == "4":
                    packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
                sock.sendto(packet, (to, 0))
                sent += 1
    emit("outcome", sent=sent)


@actor
def sink(address, port):
    """Counts what comes, and answers at the end of it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, int(port)), family=family) as listener:
        emit("ready")
        connection = listener.accept()[0]
        got = 0
        while data := connection.recv(1 << 16):
            got += len(data)
        connection.send(str(got).encode())
        emit("outcome", received=got)


@actor
def pour(address, port, count):
    sock = socket.create_connection((address, int(port)), 5)
    sock.sendall(b"x" * int(count))
    sock.shutdown(socket.SHUT_WR)
    answer = sock.recv(64)
    level, option = (socket.IPPROTO_IPV6, 24) if ":" in address else (socket.IPPROTO_IP, 14)
    emit("outcome", received=int(answer or 0), mtu=sock.getsockopt(level, option))


UNREACHABLE = {"4": (3, 3), "6": (1, 4)}  # the port
RECVERR = {"4": (socket.IPPROTO_IP, 11), "6": (socket.IPPROTO_IPV6, 25)}


@actor
def datagrams(address, port):
    """Three sockets that each sent one datagram there: connected, not connected, and not connected but told of errors. Each line
    asks what they have been told since."""
    family = "6" if ":" in address else "4"
    names = ("connected", "loose", "told")
    held = {name: socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET, socket.SOCK_DGRAM) for name in names}
    held["told"].setsockopt(*RECVERR[family], 1)
    held["connected"].connect((address, int(port)))
    for sock in held.values():
        sock.setblocking(False)
        sock.sendto(b"question", (address, int(port)))
    emit("sent", ports={name: sock.getsockname()[1] for name, sock in held.items()})
    for _ in sys.stdin:
        errors = {name: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for name, sock in held.items()}
        quoted = []
        with contextlib.suppress(BlockingIOError):
            while True:
                quoted.append(held["told"].recvmsg(1024, 256, socket.MSG_ERRQUEUE)[0].decode(errors="replace"))
        emit("told", errors={name: error for name, error in errors.items() if error}, quoted=quoted)


@actor
def forge_unreachable(to, src, dst, sport, dport, text):
    """An ICMP error about a datagram from src to dst, with a text of the forger's."""
    family = "6" if ":" in to else "4"
    data = text.encode()
    udp = struct.pack("!HHHH", int(sport), int(dport), 8 + len(data), 0) + data
    a, b = (socket.inet_pton(socket.AF_INET6 if family == "6" else socket.AF_INET, x) for x in (src, dst))
    if family == "6":
        inner = struct.pack("!IHBB", 6 << 28, len(udp), 17, 64) + a + b + udp
    else:
        inner = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + a + b
        inner = inner[:10] + struct.pack("!H", checksum(inner)) + inner[12:] + udp
    packet = struct.pack("!BBHI", *UNREACHABLE[family], 0, 0) + inner
    if family == "4":
        packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
    with socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET, socket.SOCK_RAW,
                       socket.IPPROTO_ICMPV6 if family == "6" else socket.IPPROTO_ICMP) as sock:
        sock.sendto(packet, (to, 0))
    emit("outcome", sent=1)


def counters(netns, family):
    """Errors that fitted no connection, as the kernel counts them."""
    text = ip("netns", "exec", netns, "nstat", "-asj")
    names = ("TcpExtOutOfWindowIcmps", "IcmpInErrors" if family == "4" else "Icmp6InErrors")
    values = json.loads(text)["kernel"]
    return {name: int(values.get(name, 0)) for name in names}


def test_forged_errors_do_not_disturb_a_connection(env):
    """From the router, and so from an address that could have sent them; to both ends."""
    attacker = env.outside(env.way.netns)
    for family in ("4", "6"):
        here, there = env.way.here[family], env.way.there[family]
        env.db.tcp_server(f"{there},{DB}", netns=env.way.beyond)
        flow = env.web.tcp_stream(f"{there},{DB}", rate=500)
        local = flow.wait_event("connected")["local"]
        sport = int(re.split(r"[:,]", local)[-1])
        before = {netns: counters(netns, family) for netns in (env.home, env.way.beyond)}
        got = flow.stat()
        for to, src, dst, ports in ((here, here, there, (sport, DB)), (there, there, here, (DB, sport))):
            done = act(attacker, "forge", to, src, dst, *ports, time.monotonic_ns() & 0xFFFFFFFF)
            assert done.wait_event("outcome")["sent"] > 200
        for netns, was in before.items():
            wait_for(lambda n=netns, w=was: sum(counters(n, family).values()) > sum(w.values()) + 100,
                     f"the errors to arrive in {netns}")
        now = flow.stat()
        wait_for(lambda f=flow, n=now: f.stat()["received"] > n["received"] + 100, "the connection to go on")
        assert not flow.ended() and flow.stat()["max_gap_ns"] < 1e9, flow.stat()
        assert now["received"] > got["received"]
        route = ip("-n", env.home, "route", "get", there)
        assert "mtu" not in route, route
        flow.quit()


def test_an_error_that_belongs_to_a_connection_is_heard(env):
    """A router that cannot pass large segments on tells so (path MTU discovery), and the connection goes on."""
    device = env.way.other["dev"]
    ip("-n", env.way.netns, "link", "set", device, "mtu", str(MTU))
    try:
        for family in ("4", "6"):
            there = env.way.there[family]
            server = act(env.db, "sink", there, DB, netns=env.way.beyond)
            server.wait_event("ready")
            result = act(env.web, "pour", there, DB, 3000000).wait_event("outcome", seconds=10)
            assert result["received"] == 3000000, result
            assert result["mtu"] == MTU, f"IPv{family}: the path's MTU was not learned: {result}"
    finally:
        ip("-n", env.way.netns, "link", "set", device, "mtu", "1500")


def test_an_error_about_a_datagram_comes_to_the_socket_that_sent_it(env):
    """The kernel itself compares, and no program of a cgroup sees it (docs/coverage.md): addresses and ports of a connected socket.
    One that is not connected is told nothing, unless it asks to be told: then of anything that quotes its port."""
    attacker = env.outside(env.way.netns)
    for family in ("4", "6"):
        here, there = env.way.here[family], env.way.there[family]
        env.db.udp_server(f"{there},{DB}", netns=env.way.beyond)
        wait_for(lambda to=there: env.web.udp(f"{to},{DB}") == "ok", "whose address it is to be known")
        asker = act(env.web, "datagrams", there, DB)
        ports = asker.wait_event("sent")["ports"]

        def forged(name, sport=0, dport=0, asker=asker, here=here, there=there, ports=ports):
            done = act(attacker, "forge_unreachable", here, here, there, ports[name] + sport, DB + dport, f"about {name}")
            assert done.wait_event("outcome")["sent"] == 1
            since = len(asker.events)
            asker.command("")
            return asker.wait_event("told", since=since)

        for sport, dport in ((0, 1), (1, 0)):
            assert not forged("connected", sport, dport)["errors"], "of a flow that there is not"
        assert not forged("loose")["errors"]
        wait_for(lambda: forged("connected")["errors"], "an error that belongs to the flow to be heard")
        wait_for(lambda: "about told" in "".join(forged("told", 0, 1)["quoted"]), "who asks to be told of everything, to be told")
        asker.kill()


if __name__ == "__main__":
    actor.main()

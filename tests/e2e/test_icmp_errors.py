# SPDX-License-Identifier: Apache-2.0
"""ICMP errors end and slow no TCP connection that they do not belong to; those that do belong to one are heard."""
import json
import os
import re
import socket
import struct
import sys
import time

from common import ready as common_ready, router, setup  # noqa: F401
from harness import ip, wait_for
from packets import checksum, emit

DB, MTU = 5432, 1300
# Type and code: host, protocol, port unreachable, too big, prohibited; time exceeded; parameter problem.
ERRORS = {"4": [(3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (11, 0), (12, 0)], "6": [(1, 0), (1, 1), (1, 4), (2, 0), (3, 0), (4, 1)]}


def ready(env):
    common_ready(env)
    env.way = router(env)


ACTORS = {}


def actor(function):
    ACTORS[function.__name__] = function
    return function


def act(who, name, *args, netns=None):
    return who.spawn(["/usr/bin/python3", "-B", os.path.abspath(__file__), name, *[str(a) for a in args]], netns=netns)


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
    """A router that cannot pass large segments on tells so (path MTU discovery), and the connection goes on with smaller."""
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


if __name__ == "__main__":
    ACTORS[sys.argv[1]](*sys.argv[2:])

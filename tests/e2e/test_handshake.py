# SPDX-License-Identifier: Apache-2.0
"""Handshakes that do not go as in a book: answered by cookies, under a flood, sent again, crossing each other, without
room for an identity, and through something that removes it. Who is at the other end is known, or nobody is."""
import contextlib
import errno
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time

from actors import Actors, attempt, outcome
from common import HeldBack, mac_of, router, setup, spiffe, sysctl  # noqa: F401
from harness import BUILD, Skip, ip, remove_pins, wait_for
from packets import emit, make_syn

DB, SECRET, OLD_ONLY, WEB_ONLY = 5432, 5433, 5434, 5435
TCP_FASTOPEN, TCP_FASTOPEN_NO_COOKIE, MSG_FASTOPEN, TCP_MD5SIG = 23, 34, 0x20000000, 14

GREEDY = os.path.join(BUILD, "tests", "e2e", "greedy.bpf.o")

POLICY = f"""\
bulkhead: 1
identities:
  web: {spiffe('web')}
  db: {spiffe('db')}
  late: {spiffe('late')}
  early: {spiffe('early')}
defaults: {{action: deny, log: denied}}
rules:
  - {{name: web-and-db, action: allow, from: [web, db], to: [web, db], service: tcp/{DB}, log: new}}
  - {{name: web-only, action: allow, from: web, to: db, service: tcp/{WEB_ONLY}}}
  - {{name: world-to-db, action: allow, from: world, to: db, service: tcp/{DB}}}
  - {{name: crossing, action: allow, from: [web, db], to: [web, db], service: tcp/1024-5000}}
  - {{name: anyone-to-db, action: allow, from: any, to: db, service: tcp/{SECRET}, direction: ingress}}
  - {{name: web-to-host, action: allow, from: web, to: host, service: tcp/{SECRET}, direction: egress}}
  - {{name: early-sends, action: allow, from: early, to: db, service: tcp/{OLD_ONLY}, direction: egress}}
  - {{name: late-to-db, action: allow, from: late, to: db, service: tcp/{OLD_ONLY}, log: new}}
"""
CROSSING = 3000


def ready(env):
    env.apply(POLICY)
    env.svid = {name: env.ca.issue(f"/{name}") for name in ("web", "db", "early", "late")}
    env.web, env.db = env.workload("web", env.svid["web"]), env.workload("db", env.svid["db"])
    env.nobody = env.outside()
    env.far = env.network.namespace("b")
    env.veth = env.network.veth(env.home, env.far)


# ---- actors: started as programs in a workload ----

actor = Actors(__file__)
act = actor.start


@actor
def flood(device, mac, gateway_mac, to, port, count, rate):
    """SYNs onto the device, each from an address of its own."""
    frames = []
    for n in range(int(count)):
        source = f"10.{100 + n // 65536}.{n // 256 % 256}.{n % 256}"
        packet = make_syn((source, 1024 + n % 60000), (to, int(port)), b"", random.getrandbits(32))
        frames.append(bytes.fromhex((gateway_mac + mac).replace(":", "")) + b"\x08\0" + packet)
    emit("ready")
    sys.stdin.readline()
    start = time.monotonic()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((device, 0))
        for n, frame in enumerate(frames):
            with contextlib.suppress(OSError):  # the device's queue is full
                sock.send(frame)
            if n % 64 == 0 and (ahead := start + n / int(rate) - time.monotonic()) > 0:
                time.sleep(ahead)
    emit("outcome", seconds=time.monotonic() - start)


@actor
def cross(address, port, to, to_port):
    """Connects from a fixed port, without listening on it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, int(port)))
        sock.settimeout(1.5)
        emit("ready")
        emit("outcome", result=attempt(sock.connect, (to, int(to_port))))


def md5_key(address):
    """struct tcp_md5sig."""
    peer = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(address))
    return peer + struct.pack("=BBHi80s", 0, 0, 6, 0, b"secret")


@actor
def md5_server(address, port):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, md5_key(address))
        except OSError as error:
            emit("outcome", result="unsupported", errno=error.errno)
            return
        sock.bind((address, int(port)))
        sock.listen()
        emit("ready")
        while True:
            sock.accept()[0].close()


@actor
def md5_client(to, port):
    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, md5_key(to))
        except OSError as error:
            emit("outcome", result="unsupported", errno=error.errno)
            return
        sock.settimeout(0.7)
        emit("outcome", result=attempt(sock.connect, (to, int(port))))


@actor
def fast_server(address, port):
    """Answers a SYN at once with a connection, as Fast Open does, without asking for a cookie."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, int(port)))
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
        sock.listen()
        emit("ready")

        def serve():
            while True:
                connection = sock.accept()[0]
                with connection:
                    connection.settimeout(2)
                    data = connection.recv(64)
                    emit("received", data=data.decode(errors="replace"))
                    connection.send(b"answer:" + data)

        threading.Thread(target=serve, daemon=True).start()
        sys.stdin.read()


@actor
def fast_client(to, port, seconds):
    with socket.socket() as sock:
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", int(seconds), 0))

        def exchange():
            sock.sendto(b"early", MSG_FASTOPEN, (to, int(port)))
            data = sock.recv(64)
            if data != b"answer:early":
                raise ConnectionResetError(errno.ECONNRESET, f"got {data!r}")

        emit("outcome", result=attempt(exchange))


# ---- SYN cookies ----

def counters(netns):
    """TcpExt of a namespace."""
    lines = [line.split() for line in ip("netns", "exec", netns, "cat", "/proc/net/netstat").splitlines()]
    names, values = [line for line in lines if line[0] == "TcpExt:"]
    return {name: int(value) for name, value in zip(names[1:], values[1:])}


def both_judged(env, mark, client, server, to):
    """The connection from client to server is in the log as both ends judged it, each knowing the other."""
    for direction in ("egress", "ingress"):
        env.audit.wait(mark, event__action="flow-allowed", network__direction=direction, rule__name="web-and-db",
                       zt__proof="verified", zt__source__spiffe_id=env.svid[client].spiffe_id,
                       zt__destination__spiffe_id=env.svid[server].spiffe_id, destination__ip=to)


def test_identities_are_known_where_every_handshake_is_by_cookie(env):
    both = (env.home, env.far)
    for netns in both:
        sysctl(netns, "net.ipv4.tcp_syncookies=2")
    try:
        for family in ("4", "6"):
            any_ = "0.0.0.0" if family == "4" else "::"
            servers = [env.db.tcp_server(f"{any_},{DB}", netns=env.far), env.web.tcp_server(f"{any_},{DB}")]
            here, there = env.veth[family]
            loop = "127.0.0.1" if family == "4" else "::1"
            for name, netns, to, server in (("web", env.home, there, "db"), ("db", env.far, here, "web"),
                                            ("db", env.home, loop, "web"), ("web", env.far, loop, "db")):
                who = env.web if name == "web" else env.db
                mark, before = env.audit.mark(), counters(env.far if server == "db" else env.home)
                assert who.tcp(f"{to},{DB}", netns=netns) == "ok", f"{name} to {to}"
                after = counters(env.far if server == "db" else env.home)
                for counter in ("SyncookiesSent", "SyncookiesRecv"):
                    assert after[counter] > before[counter], f"{counter}: {name} to {to} was not by cookie"
                both_judged(env, mark, name, server, to)
            for server in servers:
                server.kill()
    finally:
        for netns in both:
            sysctl(netns, "net.ipv4.tcp_syncookies=1")


def test_a_peer_that_may_not_is_refused_where_every_handshake_is_by_cookie(env):
    sysctl(env.far, "net.ipv4.tcp_syncookies=2")
    try:
        env.db.tcp_server(f"{env.veth['4'][1]},{WEB_ONLY}", netns=env.far)
        mark = env.audit.mark()
        assert env.nobody.tcp(f"{env.veth['4'][1]},{WEB_ONLY}", timeout=300) == "ETIMEDOUT"
        env.audit.wait(mark, event__action="flow-denied", destination__port=WEB_ONLY, network__direction="ingress")
    finally:
        sysctl(env.far, "net.ipv4.tcp_syncookies=1")


def test_a_flood_of_syns_that_are_allowed_costs_no_identity(env):
    """More of them than the listener has room for, and than the kernel programs have for handshakes under way."""
    here, there = env.veth["4"]
    sysctl(env.far, "net.ipv4.tcp_max_syn_backlog=16", "net.core.somaxconn=16", "net.ipv4.conf.all.rp_filter=0",
           f"net.ipv4.conf.{env.veth['dev']}.rp_filter=0")
    ip("-n", env.far, "route", "replace", "default", "via", here)
    env.db.tcp_server(f"{there},{DB}", netns=env.far)
    dev = env.veth["dev"]
    attacker = act(env.nobody, "flood", dev, mac_of(env.home, dev), mac_of(env.far, dev), there, DB, 80000, 25000)
    attacker.wait_event("ready", seconds=20)
    before, mark, results, slow = counters(env.far), env.audit.mark(), [], 0
    allowed = env.status()["events"]["flows_allowed"]
    attacker.command("go")
    while not any(e["event"] == "outcome" for e in attacker.events):
        start = time.monotonic()
        results.append(env.web.tcp(f"{there},{DB}", timeout=8000))
        slow += time.monotonic() - start > 0.9
    after = counters(env.far)
    assert after["SyncookiesSent"] > before["SyncookiesSent"], "the backlog did not overflow"
    assert env.status()["events"]["flows_allowed"] - allowed > 40000, "the flood was not let in"
    assert len(results) > 5 and set(results) == {"ok"}, results

    def seen():
        return env.audit.find(mark, event__action="flow-allowed", network__direction="ingress", source__ip=here)

    wait_for(lambda: len({e["source"]["port"] for e in seen()}) >= len(results), "each connection to be judged by identity")
    for event in seen():
        assert event["zt"]["source"] == {"spiffe_id": env.svid["web"].spiffe_id}, event
    print(f"# {len(results)} connections during the flood, {slow} of them slow; "
          f"{after['SyncookiesSent'] - before['SyncookiesSent']} cookies")


# ---- SYNs that are sent again, or cross ----

def test_a_syn_that_is_sent_again_after_a_change_of_identity_shows_the_new_one(env):
    client = env.workload("changes", env.svid["early"])
    env.db.tcp_server(f"{env.veth['4'][1]},{OLD_ONLY}", netns=env.far)
    mark = env.audit.mark()
    process = client.traffic("tcp-client", "--to", f"{env.veth['4'][1]},{OLD_ONLY}", "--count", 1, "--timeout", 12000)
    env.audit.wait(mark, event__action="flow-denied", network__direction="ingress", destination__port=OLD_ONLY,
                   zt__source__spiffe_id=env.svid["early"].spiffe_id)
    env.ctl("revoke", env.svid["early"].spiffe_id, expect=0)
    revoked = env.audit.mark()
    client.attest(env.svid["late"])
    assert process.wait(15) == 0, process.out
    env.audit.wait(revoked, event__action="flow-allowed", network__direction="ingress", destination__port=OLD_ONLY,
                   zt__source__spiffe_id=env.svid["late"].spiffe_id, zt__proof="verified")
    assert not env.audit.find(revoked, event__action="flow-denied", zt__source__spiffe_id=env.svid["early"].spiffe_id)


def test_sockets_that_connect_to_each_other_are_refused_with_the_reason(env):
    here, there = env.veth["4"]
    mark = env.audit.mark()
    with HeldBack(env, both=True) as held:
        clients = [act(env.web, "cross", here, CROSSING, there, CROSSING),
                   act(env.db, "cross", there, CROSSING, here, CROSSING, netns=env.far)]
        for client in clients:
            client.wait_event("ready")
        wait_for(held.is_holding, "both SYNs to be under way")
        held.release()
        assert [outcome(c) for c in clients] == ["ETIMEDOUT", "ETIMEDOUT"]
    for cgroup in ("/web", "/db"):
        event = env.audit.wait(mark, event__action="flow-denied", event__code="SIMULTANEOUS_OPEN", zt__cgroup__path=cgroup)
        assert "let one of them listen" in event["event"]["reason"]


def test_a_socket_that_connects_to_itself_is_refused_with_the_reason(env):
    mark = env.audit.mark()
    assert outcome(act(env.web, "cross", "127.0.0.1", CROSSING, "127.0.0.1", CROSSING)) == "ETIMEDOUT"
    env.audit.wait(mark, event__action="flow-denied", event__code="SIMULTANEOUS_OPEN")
    denial = env.ctl("why-denied", "--last", 5, expect=0).out
    assert "let one of them listen" in denial, denial


# ---- Fast Open ----

def test_data_in_a_syn_waits_until_both_ends_are_known(env):
    """The kernel falls back to a handshake, and nothing is lost."""
    for netns in (env.home, env.far):
        sysctl(netns, "net.ipv4.tcp_fastopen=3")
    for to, netns in (("127.0.0.1", env.home), (env.veth["4"][1], env.far)):
        server = act(env.db, "fast_server", to, DB, netns=netns)
        server.wait_event("ready")
        for _ in range(2):
            mark = env.audit.mark()
            assert outcome(act(env.web, "fast_client", to, DB, 5)) == "ok", to
            both_judged(env, mark, "web", "db", to)
        server.kill()


def test_a_fast_open_server_does_not_pass_for_the_host(env):
    """Its SYN-ACK is sent by a socket that is accepted already: it must show who it is like any other."""
    sysctl(env.home, "net.ipv4.tcp_fastopen=3")
    server = act(env.db, "fast_server", "127.0.0.1", SECRET)
    server.wait_event("ready")
    result = outcome(act(env.web, "fast_client", "127.0.0.1", SECRET, 2))
    assert result != "ok" and not [e for e in server.events if e["event"] == "received"], result
    server.kill()
    host = act(env.nobody, "fast_server", "127.0.0.1", SECRET)
    host.wait_event("ready")
    assert outcome(act(env.web, "fast_client", "127.0.0.1", SECRET, 4)) == "ok", "web may talk to the host"


# ---- no room, and removed on the way ----

@actor
def multipath_server(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, int(port)))
        sock.listen()
        emit("ready")
        while True:
            with sock.accept()[0] as connection:
                emit("received", data=connection.recv(64).decode(errors="replace"))


@actor
def multipath_client(to, port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as sock:
        sock.settimeout(1)

        def exchange():
            sock.connect((to, int(port)))
            sock.send(b"for the host")
            sock.recv(64)

        emit("outcome", result=attempt(exchange))


def test_a_cookie_with_little_room_shows_who_answers(env):
    """The answer of MPTCP has 8 bytes left, and a cookie passes no hook of a socket: without the short form of the identity its
    sender could be taken for the host. It is db, and web may not talk to db there: not one byte arrives."""
    if not os.path.exists("/proc/sys/net/mptcp/enabled"):
        raise Skip("this kernel has no MPTCP")
    sysctl(env.home, "net.ipv4.tcp_syncookies=2", "net.mptcp.enabled=1")
    try:
        server = act(env.db, "multipath_server", "127.0.0.1", SECRET)
        server.wait_event("ready")
        mark = env.audit.mark()
        assert outcome(act(env.web, "multipath_client", "127.0.0.1", SECRET)) != "ok"
        env.audit.wait(mark, event__action="flow-denied", network__direction="egress", zt__proof="verified",
                       zt__destination__spiffe_id=env.svid["db"].spiffe_id)
        assert not [e for e in server.events if e["event"] == "received"], server.events
    finally:
        sysctl(env.home, "net.ipv4.tcp_syncookies=1")


def test_a_socket_whose_options_leave_little_room_shows_who_it_is(env):
    """TCP MD5 leaves 8 bytes."""
    server = act(env.db, "md5_server", "127.0.0.1", DB)
    if server.wait_event("ready", "outcome")["event"] == "outcome":
        raise Skip("this kernel has no TCP_MD5SIG")
    mark = env.audit.mark()
    assert outcome(act(env.web, "md5_client", "127.0.0.1", DB)) == "ok"
    both_judged(env, mark, "web", "db", "127.0.0.1")


@contextlib.contextmanager
def beside(env, workload, program):
    """Within it, a program of somebody else is on the cgroup of a workload: greedy.bpf.c."""
    pins = f"{env.bpffs}/{env.name}-greedy"
    os.mkdir(pins)
    try:
        subprocess.run(["bpftool", "prog", "loadall", GREEDY, pins], check=True)
        what = ["cgroup", "attach", workload.path, "cgroup_sock_ops", "pinned", f"{pins}/{program}"]
        subprocess.run(["bpftool", *what, "multi"], check=True)
        try:
            yield
        finally:
            subprocess.run(["bpftool", what[0], "detach", *what[2:]], check=True)
    finally:
        remove_pins(pins)


def test_a_segment_without_room_for_an_identity_is_refused_with_the_reason(env):
    """The SYN of one end, the SYN-ACK of the other."""
    to = f"{env.veth['4'][1]},{DB}"
    for who, direction in ((env.web, "egress"), (env.db, "ingress")):
        with beside(env, who, "takes_all"):
            server, mark = env.db.tcp_server(to, netns=env.far), env.audit.mark()
            assert env.web.tcp(to, timeout=400) == "ETIMEDOUT", who.name
            event = env.audit.wait(mark, event__action="flow-denied", event__code="UNPROVEN", network__direction=direction,
                                   zt__cgroup__path=f"/{who.name}")
            assert "leave no room" in event["event"]["reason"], event
            assert server.stat()["accepted"] == 0
            denial = env.ctl("why-denied", "--last", 5, expect=0).out
            assert "leave no room" in denial, denial
            server.kill()


def test_a_segment_too_long_for_its_link_is_refused_with_the_reason(env):
    """The SYN of a workload, and its SYN-ACK to somebody whose SYN did fit; the kernel would drop either without a word."""
    netns = env.network.namespace("n")
    link = env.network.veth(env.home, netns)
    near, far = (f"{address},{DB}" for address in link["4"])
    outsider = env.outside(netns=netns)
    env.db.tcp_server(near, netns=env.home)
    env.db.tcp_server(far, netns=netns)

    def mtu(size):
        for end in (env.home, netns):
            ip("-n", end, "link", "set", link["dev"], "mtu", str(size))

    mtu(76)
    wait_for(lambda: env.web.tcp(far) == "ok", "web to reach db")
    assert outsider.tcp(near) == "ok"
    mtu(75)
    for who, to, subject, direction in ((env.web, far, "web", "egress"), (outsider, near, "db", "ingress")):
        mark = env.audit.mark()
        assert who.tcp(to, timeout=400) == "ETIMEDOUT", to
        event = env.audit.wait(mark, event__action="flow-denied", event__code="UNPROVEN", network__direction=direction,
                               zt__cgroup__path=f"/{subject}")
        assert "MTU" in event["event"]["reason"], event


def test_four_bytes_of_room_are_enough_for_an_identity(env):
    to = f"{env.veth['4'][1]},{DB}"
    with beside(env, env.web, "leaves_four"):
        env.db.tcp_server(to, netns=env.far)
        mark = env.audit.mark()
        assert env.web.tcp(to) == "ok"
        both_judged(env, mark, "web", "db", env.veth["4"][1])


def nft(netns, text):
    ip("netns", "exec", netns, "nft", text)


@contextlib.contextmanager
def stripping(netns, flags, hook="forward"):
    """Overwrites the identity's option with padding, as a firewall does that lets only known options pass."""
    nft(netns, f"add table inet strip; add chain inet strip removes {{ type filter hook {hook} priority 0; }}; "
               f"add rule inet strip removes tcp flags & (syn | ack) == {flags} reset tcp option 254")
    try:
        yield
    finally:
        nft(netns, "delete table inet strip")


def test_an_identity_that_is_removed_on_the_way_makes_a_peer_of_the_world_and_is_told(env):
    way = router(env)
    server = env.db.tcp_server(f"::,{DB}", f"::,{WEB_ONLY}", netns=way.beyond)
    for family in ("4", "6"):
        to = way.there[family]
        mark = env.audit.mark()
        assert env.web.tcp(f"{to},{DB}") == "ok", "web reaches db as long as nothing removes who it is"
        both_judged(env, mark, "web", "db", to)
        stripped, accepted, mark = env.status()["handshakes"]["stripped"], server.stat()["accepted"], env.audit.mark()
        with stripping(way.netns, "syn"):
            assert env.web.tcp(f"{to},{WEB_ONLY}", timeout=400) == "ETIMEDOUT"
        event = env.audit.wait(mark, event__action="flow-denied", network__direction="ingress", destination__ip=to,
                               zt__proof="stripped", zt__source__kind="world")
        assert "let TCP option 254 pass" in event["event"]["reason"], event["event"]["reason"]
        assert env.status()["handshakes"]["stripped"] > stripped and server.stat()["accepted"] == accepted
        denial = env.ctl("why-denied", "--last", 5, expect=0).out
        assert "something on the way removed it" in denial, denial


def test_an_answer_whose_identity_is_removed_on_the_way_is_refused_and_told(env):
    way = router(env)
    env.db.tcp_server(f"::,{DB}", netns=way.beyond)
    for family in ("4", "6"):
        to, mark = way.there[family], env.audit.mark()
        with stripping(way.netns, "(syn | ack)"):
            assert env.web.tcp(f"{to},{DB}", timeout=400) == "ETIMEDOUT"
        event = env.audit.wait(mark, event__action="flow-denied", network__direction="egress", destination__ip=to,
                               zt__proof="stripped", zt__destination__kind="world")
        assert "something on the way removed it" in event["event"]["reason"]


def test_an_identity_that_is_removed_on_loopback_does_not_make_a_peer_the_host(env):
    env.db.tcp_server(f"127.0.0.1,{SECRET}")
    with stripping(env.home, "(syn | ack)", hook="prerouting"):
        assert env.web.tcp(f"127.0.0.1,{SECRET}", timeout=400) != "ok", "db is not the host"


def test_who_never_sent_an_identity_is_not_said_to_have_lost_it(env):
    way = router(env)
    env.db.tcp_server(f"::,{WEB_ONLY}", netns=way.beyond)
    stripped, mark = env.status()["handshakes"]["stripped"], env.audit.mark()
    assert env.nobody.tcp(f"{way.there['4']},{WEB_ONLY}", timeout=300) == "ETIMEDOUT"
    env.audit.wait(mark, event__action="flow-denied", network__direction="ingress", zt__proof="none",
                   destination__ip=way.there["4"])
    assert env.status()["handshakes"]["stripped"] == stripped


if __name__ == "__main__":
    actor.main()

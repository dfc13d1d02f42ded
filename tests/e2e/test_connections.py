# SPDX-License-Identifier: Apache-2.0
"""What the kernel programs keep of TCP sockets: it lasts as long as the connection, also where its first place is taken,
and without it nothing passes."""
import contextlib
import mmap
import struct

import bpf
from bpf import bpftool
from common import POLICY, POLICY_WITHOUT_WEB, ready as common_ready, setup  # noqa: F401
from harness import SANITIZED, ip, wait_for

PORT = 5432
DB = f"127.0.0.1,{PORT}"
# bpf/abi.h
SLOTS, MORE, ENTRY = 32768, 131072, 128
FAKE = 1 << 62  # no kernel has counted its cookies so far
MANY = 5000 if SANITIZED else 20000  # the programs that keep it are the same

# Accepts connections until its input ends; each line is what to do with the next: how it ended is printed.
SERVER = """
import json, socket, sys
s = socket.create_server(("127.0.0.1", 5433))
print(json.dumps({"event": "ready"}), flush=True)
for line in sys.stdin:
    c = s.accept()[0]
    got, end = 0, "closed"
    try:
        if line.strip() == "talk":
            c.sendall(b"x" * 100)
        while True:
            data = c.recv(65536)
            if not data:
                break
            got += len(data)
    except OSError as e:
        end = type(e).__name__
    c.close()
    print(json.dumps({"event": "end", "got": got, "end": end}), flush=True)
"""
UNREAD = """
import select, socket
c = socket.create_connection(("127.0.0.1", 5433), 2)
select.select([c], [], [], 2)
c.close()
"""
LINGER = """
import socket, struct
c = socket.create_connection(("127.0.0.1", 5433), 2)
c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
c.close()
"""
REST = """
import socket
c = socket.create_connection(("127.0.0.1", 5433), 2)
c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
c.sendall(b"x" * (1 << 20))
c.close()
"""
CONNECTS = """
import socket, sys
for i in range(int(sys.argv[1])):
    c = socket.create_connection(("127.0.0.1", 5432), 5)
    c.close()
print("done", flush=True)
"""
STAYS = """
import socket, sys
held = [socket.create_connection(("127.0.0.1", 5432), 5) for _ in range(int(sys.argv[1]))]
print("there", flush=True)
sys.stdin.readline()
for c in held:
    c.close()
print("closed", flush=True)
sys.stdin.readline()
"""
# A socket that is made before there is no room, and connects when there is none.
LATE = """
import socket, sys
c = socket.socket()
c.settimeout(5)
print("made", flush=True)
sys.stdin.readline()
try:
    c.connect(("127.0.0.1", 5432))
    c.sendall(bytes(24))
    print("got", len(c.recv(1)), flush=True)
except OSError as e:
    print(type(e).__name__, flush=True)
"""
# Begins to connect, from one port to each of several; each line asks how often each SYN was sent again.
CONNECTING = """
import json, socket, struct, sys
held = {}
for port in map(int, sys.argv[2:]):
    held[port] = socket.socket()
    held[port].setblocking(False)
    held[port].connect_ex((sys.argv[1], port))
print(json.dumps({"event": "connecting"}), flush=True)
for line in sys.stdin:
    again = {p: struct.unpack_from("=I", c.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)[0]
             for p, c in held.items()}
    print(json.dumps({"event": "again", "again": again}), flush=True)
"""
# Tells of each SYN that leaves on a device.
SYNS = """
import json, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
s.bind((sys.argv[1], 3))
print(json.dumps({"event": "ready"}), flush=True)
while True:
    packet, where = s.recvfrom(65536)
    tcp = packet[20:]
    if where[2] == socket.PACKET_OUTGOING and packet[0] == 0x45 and packet[9] == 6 and tcp[13] & 18 == 2:
        print(json.dumps({"event": "syn", "port": int.from_bytes(tcp[2:4], "big")}), flush=True)
"""
REFUSED = """
import socket, sys
for i in range(20):
    for close in (True, False):
        c = socket.socket()
        c.setblocking(False)
        c.connect_ex(("127.0.0.1", 5532 if close else 5432))
        c.close()
print("done", flush=True)
"""


# Nobody lets it make a socket.
NOT_MADE = """
import socket
for i in range(1000):
    try:
        socket.socket()
    except PermissionError:
        continue
    raise SystemExit("a socket was made")
"""


def ready(env):
    common_ready(env)
    ip("-n", env.home, "link", "set", "lo", "up")


@contextlib.contextmanager
def slots(env):
    with bpf.opened(env.map_pin("tcp_slots")) as fd:
        memory = mmap.mmap(fd, SLOTS * ENTRY)
        try:
            yield memory
        finally:
            memory.close()


def cookies_in_more(env):
    entries = bpftool("map", "dump", "pinned", env.map_pin("tcp_more"))
    return [e.get("formatted", e)["key"] for e in entries]


def cookies_in_slots(env):
    """Of either build: one has longer entries."""
    with bpf.opened_map(env.map_pin("tcp_slots")) as found, mmap.mmap(found.fd, SLOTS * found.value_bytes) as memory:
        cookies = (struct.unpack_from("=Q", memory, i * found.value_bytes)[0] for i in range(SLOTS))
        return [c for c in cookies if 0 < c < FAKE]


def kept(env):
    return set(cookies_in_slots(env)) | set(cookies_in_more(env))


@contextlib.contextmanager
def every_slot_taken(env):
    """By sockets that nobody has."""
    with slots(env) as memory:
        taken = []
        for i in range(SLOTS):
            if not struct.unpack_from("=Q", memory, i * ENTRY)[0]:
                struct.pack_into("=Q", memory, i * ENTRY, FAKE + i)
                taken.append(i)
        try:
            yield
        finally:
            for i in taken:
                if struct.unpack_from("=Q", memory, i * ENTRY)[0] == FAKE + i:
                    struct.pack_into("=Q", memory, i * ENTRY, 0)


def run(workload, text, *args):
    process = workload.spawn(["/usr/bin/python3", "-c", text, *[str(a) for a in args]])
    assert process.wait(60) == 0, "".join(process.out)


@contextlib.contextmanager
def server(env):
    process = env.db.spawn(["/usr/bin/python3", "-c", SERVER])
    process.wait_event("ready")
    yield process
    process.kill()


def end_of(process, client, text, first="listen"):
    """How the server saw a connection of `client` end."""
    since = len(process.events)
    process.command(first)
    run(client, text)
    return process.wait_event("end", since=since)


def test_nothing_is_left_of_thousands_of_connections_and_none_is_denied(env):
    before, mark = kept(env), env.audit.mark()
    db = env.db.tcp_server(f"::,{PORT}")
    clients = [env.web.spawn(["/usr/bin/python3", "-c", CONNECTS, str(MANY // 2)]) for _ in range(2)]
    for client in clients:
        assert client.wait(120) == 0, "".join(client.out)
    # Daemons of other tests come to the tracepoint and leave it, and the kernel may not tell of ends meanwhile. Those are found
    # by who looks, in a namespace that a workload lives in: at two looks, ten seconds apart.
    lives = env.web.spawn(["/usr/bin/python3", "-c", "import sys; sys.stdin.readline()"])
    db.kill()
    wait_for(lambda: kept(env) <= before, "all that was kept to be gone", 40)
    lives.kill()
    assert env.status()["map_full"] == 0
    assert env.loose.tcp(DB) == "EPERM"
    env.audit.wait(mark, event__action="flow-denied", zt__cgroup__path="/loose")
    denied = env.audit.find(mark, event__action="flow-denied", zt__cgroup__path=lambda path: path != "/loose")
    assert not denied, denied[:3]


def test_nothing_is_left_of_sockets_that_never_were_connected(env):
    before = kept(env)
    run(env.web, "import socket; [socket.socket() for _ in range(100)]")
    run(env.loose, "import socket; [socket.socket() for _ in range(100)]")
    run(env.web, REFUSED)
    wait_for(lambda: kept(env) <= before, "all that was kept to be gone", 5)


def test_nothing_is_left_of_raw_sockets_with_the_protocol_of_tcp(env):
    before = kept(env)
    run(env.web, "import socket; [socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) for _ in range(50)]")
    assert not kept(env) - before, "of a socket that TCP never destroys"


def test_nothing_is_left_of_sockets_that_another_program_refuses(env):
    before = kept(env)
    with bpf.sockets_refused(env.web.path):
        run(env.web, NOT_MADE)
    left = kept(env) - before
    assert not left, f"{len(left)} entries of sockets that no process ever had"
    run(env.web, "import socket; socket.socket()")


def test_a_socket_that_is_open_is_kept_and_goes_when_it_is_closed(env):
    db = env.db.tcp_server(f"::,{PORT}")
    before = kept(env)
    client = env.web.spawn(["/usr/bin/python3", "-c", STAYS, "10"])
    wait_for(lambda: client.out, "the connections")
    assert len(kept(env) - before) == 20, "both ends of 10 connections"
    client.command("")
    wait_for(lambda: kept(env) <= before, "both ends to be gone", 5)
    client.kill()
    db.kill()


def test_a_reset_reaches_the_peer_of_a_socket_closed_with_data_unread(env):
    with server(env) as process:
        assert end_of(process, env.web, UNREAD, "talk")["end"] == "ConnectionResetError"


def test_a_reset_reaches_the_peer_of_a_socket_closed_at_once(env):
    with server(env) as process:
        assert end_of(process, env.web, LINGER)["end"] == "ConnectionResetError"


def test_what_was_written_before_close_arrives(env):
    with server(env) as process:
        event = end_of(process, env.web, REST)
        assert event["end"] == "closed" and event["got"] == 1 << 20, event


def test_connections_whose_slot_is_taken_are_judged_cut_and_let_go_as_others(env):
    db = env.db.tcp_server(f"::,{PORT}")
    before = kept(env)
    with every_slot_taken(env):
        stream = env.web.tcp_stream(DB, rate=200)
        wait_for(lambda: stream.stat()["received"] > 10, "it to flow")
        assert len(set(cookies_in_more(env)) - before) >= 2, "both ends"
        assert env.web.tcp(DB) == "ok"
        assert env.loose.tcp(DB) == "EPERM"
        assert env.probe.tcp(DB) != "ok"
        env.apply(POLICY_WITHOUT_WEB)
        wait_for(stream.ended, "the connection to be cut")
        env.apply(POLICY)
        wait_for(lambda: kept(env) <= before, "what was kept to be gone", 5)
    with server(env) as process, every_slot_taken(env):
        assert end_of(process, env.web, UNREAD, "talk")["end"] == "ConnectionResetError"
    db.kill()


def test_no_room_denies_and_names_the_map_and_its_size(env):
    db = env.db.tcp_server(f"::,{PORT}")
    stream = env.web.tcp_stream(DB, rate=200)
    late = env.web.spawn(["/usr/bin/python3", "-c", LATE])
    wait_for(lambda: late.out, "the socket")
    full, mark = env.status()["map_full"], env.audit.mark()
    keys = [struct.pack("=Q", FAKE + SLOTS + i) for i in range(MORE)]
    with every_slot_taken(env), bpf.opened_map(env.map_pin("tcp_more")) as more:
        more.update_all(keys, bytes(ENTRY))
        try:
            assert env.web.tcp(DB) != "ok", "a socket was made"
            # The socket that accepts finds no room.
            late.command("")
            env.audit.wait(mark, event__action="flow-denied", event__code="MAP_FULL", zt__cgroup__path="/db")
            assert env.status()["map_full"] > full
            wait_for(lambda: f"map tcp_more is full ({MORE} entries)" in env.log_tail(100), "the log to name the map")
            # What is known goes on.
            received = stream.stat()["received"]
            wait_for(lambda: stream.stat()["received"] > received + 10, "the connection that was there to flow")
            wait_for(lambda: len(late.out) > 1, "the late one to fail", 10)
            assert "got" not in "".join(late.out), late.out
        finally:
            more.delete_all(keys)
    assert env.web.tcp(DB) == "ok"
    stream.kill()
    late.kill()
    db.kill()


def test_a_connection_of_which_nothing_is_kept_any_more_is_dead(env):
    db = env.db.tcp_server(f"::,{PORT}")
    before = set(cookies_in_slots(env))
    stream = env.web.tcp_stream(DB, rate=200)
    wait_for(lambda: stream.stat()["received"] > 10, "it to flow")
    mark = env.audit.mark()
    mine = set(cookies_in_slots(env)) - before
    assert len(mine) == 2
    with slots(env) as memory:
        for cookie in mine:
            struct.pack_into("=Q", memory, cookie % SLOTS * ENTRY, 0)
    env.audit.wait(mark, event__action="flow-denied", event__code="OLD_SOCKET", destination__port=PORT)
    received = stream.stat()["received"]
    assert env.web.tcp(DB) == "ok"
    assert stream.stat()["received"] == received
    stream.kill()
    db.kill()


def test_a_syn_that_is_sent_again_is_judged_by_the_policy_of_then(env):
    """What connect() asked of the policy before does not count: not for the next SYN, and not for the one after it."""
    denied, allowed = 5432, 5433
    silent = env.network.namespace("silent")
    ip("-n", env.home, "link", "add", "silent0", "type", "veth", "peer", "name", "eth0", "netns", silent)
    ip("-n", env.home, "addr", "add", "10.76.0.1/24", "dev", "silent0")
    ip("-n", env.home, "link", "set", "silent0", "up")
    ip("-n", silent, "link", "set", "eth0", "up")
    ip("-n", env.home, "neigh", "replace", "10.76.0.2", "lladdr", "02:00:00:00:00:02", "dev", "silent0", "nud", "permanent")
    ears = env.nobody.spawn(["/usr/bin/python3", "-c", SYNS, "silent0"])
    ears.wait_event("ready")

    def syns(port):
        return sum(e.get("port") == port for e in ears.events)

    client = env.probe.spawn(["/usr/bin/python3", "-c", CONNECTING, "10.76.0.2", str(denied), str(allowed)])
    client.wait_event("connecting")

    def again(port):
        since = len(client.events)
        client.command("")
        return client.wait_event("again", since=since)["again"][str(port)]

    wait_for(lambda: syns(denied) and syns(allowed), "both to begin")
    env.apply(POLICY.replace("    to: any\n", f"    to: any\n    service: tcp/{allowed}\n", 1))
    try:
        before, sent = {port: again(port) for port in (denied, allowed)}, {port: syns(port) for port in (denied, allowed)}
        wait_for(lambda: all(again(port) >= before[port] + 2 for port in before), "two more of each", 10)
        wait_for(lambda: syns(allowed) >= sent[allowed] + 2, "those that are still allowed to leave")
        assert syns(denied) == sent[denied], "a SYN left that the policy denies"
    finally:
        env.apply(POLICY)
        client.kill()
        ears.kill()

# SPDX-License-Identifier: Apache-2.0
"""UDP flows: how they end, who may answer, and that no datagram is counted twice or not at all, however it is sent.

The ends are the functions marked @actor: they run as processes of a workload, in this file started as a program."""
import ctypes
import json
import os
import select
import socket
import struct
import subprocess
import sys

from actors import Actors, attempt, family_of
from common import PORT, setup as common_setup, spiffe
from harness import PATIENCE, Skip, wait_for
from packets import emit

GROUP, OTHER_GROUP, GROUP_PORT = "239.77.1.1", "239.77.2.1", 7100
UDP_SEGMENT, UDP_GRO, SO_BINDTODEVICE, SO_COOKIE = 103, 104, 25, 57
RECENT_OF = 1024  # BH_UDP_RECENT_OF
SIZE = 64
OTHER = "other.example"  # another trust domain

POLICY = f"""\
bulkhead: 1
identities:
  web: [{spiffe('web')}, {spiffe('web/*')}, spiffe://{OTHER}/web]
  db: [{spiffe('db')}, {spiffe('db/*')}, spiffe://{OTHER}/db]
  probe: {spiffe('probe')}
networks:
  group: [{GROUP}/32, "ff15::77:1/128", 255.255.255.255/32]
services:
  news: udp/{GROUP_PORT}
defaults: {{action: deny, log: denied}}
rules:
  - {{name: web-to-db, action: allow, from: web, to: db, service: udp/{PORT}-{PORT + 1}}}
  - {{name: probe-sends, action: allow, from: probe, to: any, direction: egress}}
  - {{name: web-tells, action: allow, from: web, to: group, service: news, direction: egress}}
  - {{name: db-hears, action: allow, from: web, to: {{identity: db, network: group}}, service: news, direction: ingress}}
"""
POLICY_WITHOUT_WEB = POLICY.replace(f"to: db, service: udp/{PORT}-{PORT + 1}", "to: db, service: udp/1")


def setup(env):
    common_setup(env)
    env.other_ca = env.authority(OTHER)


def ready(env):
    env.apply(POLICY)
    env.svid = {name: env.ca.issue(f"/{name}") for name in ("web", "db", "probe")}
    env.web, env.db, env.probe = (env.workload(name, env.svid[name]) for name in ("web", "db", "probe"))
    env.far = env.network.namespace("b")
    env.veth = env.network.veth(env.home, env.far)
    env.count = 0
    # The addresses of a namespace are known a moment after the first process in it.
    env.db.udp_server(f"::,{PORT + 1}", netns=env.far)
    for address in (env.veth["4"][1], env.veth["6"][1]):
        wait_for(lambda to=address: env.web.udp(f"{to},{PORT + 1}", timeout=100) == "ok", "web to reach db over the veth")


def address_of(env):
    """One that no test had before."""
    env.count += 1
    return f"127.0.3.{env.count}"


# ---- actors ----

actor = Actors(__file__)
act = actor.start


def wait_for_the_end(sock):
    """Until the socket is destroyed; the other end is silent."""
    select.select([sock], [], [])
    emit("ended", errno=attempt(sock.recv, 64))


@actor
def ask_connected(address, port):
    """Asks once, then waits on the connected socket for what comes."""
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    sock.settimeout(2)
    sock.connect((address, int(port)))
    emit("asked", result=attempt(lambda: (sock.send(b"question"), sock.recv(64))))
    wait_for_the_end(sock)
    emit("again", result=attempt(lambda: (sock.connect((address, int(port))), sock.send(b"again"))))


@actor
def answer_connected(address, port):
    """Takes the first who asks, connects to it, and answers it alone."""
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    sock.bind((address, int(port)))
    emit("ready")
    data, peer = sock.recvfrom(64)
    sock.connect(peer)
    sock.send(data)
    wait_for_the_end(sock)


@actor
def answer_when_told(address, port):
    """Receives; each line on stdin sends an answer to the last who asked, or to the port that the line names."""
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    sock.bind((address, int(port)))
    emit("ready")
    peer = None
    while True:
        readable = select.select([sys.stdin, sock], [], [])[0]
        if sock in readable:
            peer = sock.recvfrom(64)[1]
            emit("heard", port=peer[1])
        if sys.stdin in readable:
            line = sys.stdin.readline()
            if not line:
                return
            to = (address, int(line)) if line.strip().isdigit() else peer
            emit("answered", result=attempt(sock.sendto, b"answer", to))


@actor
def ask(address, port):
    """Sends one question without connecting, and reports each answer."""
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    sock.bind((address, 0))
    emit("asked", result=attempt(sock.sendto, b"question", (address, int(port))), port=sock.getsockname()[1])
    while True:
        readable = select.select([sys.stdin, sock], [], [])[0]
        if sock in readable:
            sock.recv(64)
            emit("answer")
        if sys.stdin in readable:
            if not sys.stdin.readline():
                return
            emit("asked-again", result=attempt(sock.sendto, b"question", (address, int(port))))


def group_socket(address, device):
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, device.encode() + b"\0")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


@actor
def hear(address, device):
    """Counts what comes to a group, or to the broadcast address."""
    sock = group_socket(address, device)
    sock.bind((address, GROUP_PORT))
    index = socket.if_nametoindex(device)
    if ":" in address:
        member = socket.inet_pton(socket.AF_INET6, address) + struct.pack("=I", index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
    elif address != "255.255.255.255":
        member = socket.inet_aton(address) + struct.pack("=4sI", b"\0" * 4, index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    emit("ready")
    heard = 0
    while True:
        readable = select.select([sys.stdin, sock], [], [])[0]
        if sock in readable:
            sock.recv(64)
            heard += 1
        elif not sys.stdin.readline():
            return
        else:
            emit("stat", heard=heard)


@actor
def tell(address, device, port, count):
    """Sends to a group."""
    sock = group_socket(address, device)
    index = socket.if_nametoindex(device)
    if ":" in address:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4sI", b"\0" * 4, b"\0" * 4, index))

    def send():
        for _ in range(int(count)):
            sock.sendto(b"news", (address, int(port)))

    emit("told", result=attempt(send))
    sys.stdin.read()


class Message(ctypes.Structure):
    """struct mmsghdr, of a connected socket."""
    _fields_ = [("name", ctypes.c_void_p), ("name_len", ctypes.c_uint32), ("iov", ctypes.c_void_p),
                ("iov_len", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_len", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("pad", ctypes.c_int), ("sent", ctypes.c_uint)]


def send_many(sock, datagrams):
    buffers = [ctypes.create_string_buffer(d, len(d)) for d in datagrams]
    iovs = (ctypes.c_size_t * (2 * len(buffers)))()
    messages = (Message * len(buffers))()
    for i, buffer in enumerate(buffers):
        iovs[2 * i], iovs[2 * i + 1] = ctypes.addressof(buffer), len(buffer)
        messages[i].iov, messages[i].iov_len = ctypes.addressof(iovs) + 16 * i, 1
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sendmmsg(sock.fileno(), messages, len(buffers), 0) != len(buffers):
        raise OSError(ctypes.get_errno(), "sendmmsg")


@actor
def pour(how, address, port, rounds, each):
    """Sends rounds * each datagrams."""
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    sock.connect((address, int(port)))
    numbers = iter(range(int(rounds) * int(each)))

    def send():
        for _ in range(int(rounds)):
            datagrams = [struct.pack("=I", next(numbers)).ljust(SIZE, b"\0") for _ in range(int(each))]
            if how == "segments":
                sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, SIZE)
                sock.send(b"".join(datagrams))
            elif how == "sendmmsg":
                send_many(sock, datagrams)
            else:
                for datagram in datagrams:
                    sock.sendto(datagram, (address, int(port))) if how == "sendto" else sock.send(datagram)

    emit("poured", result=attempt(send), port=sock.getsockname()[1])
    sys.stdin.read()


@actor
def collect(address, port, merged):
    """Tells how many different datagrams came."""
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
    if int(merged):
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    sock.bind((address, int(port)))
    emit("ready")
    numbers, datagrams, largest = set(), 0, 0
    while True:
        readable = select.select([sys.stdin, sock], [], [])[0]
        if sock in readable:
            data = sock.recv(65536)
            largest = max(largest, len(data))
            for at in range(0, len(data), SIZE):
                numbers.add(struct.unpack("=I", data[at:at + 4])[0])
                datagrams += 1
        elif not sys.stdin.readline():
            return
        else:
            emit("stat", datagrams=datagrams, different=len(numbers), largest=largest)


@actor
def same_places(address, port, cookie):
    """Sends as many datagrams as each line says, by one port for all, from a socket whose flows are at hand in the same places as
    those of the socket `cookie`; 0: of any."""
    while True:
        sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
        own = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), sys.byteorder)
        if not int(cookie) or own % RECENT_OF == int(cookie) % RECENT_OF:
            break
        sock.close()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, int(port) + 7))
    sock.connect((address, int(port)))
    emit("ready", cookie=own)
    for line in sys.stdin:
        emit("sent", result=attempt(lambda n=int(line): [sock.send(bytes(SIZE)) for _ in range(n)]))


# ---- a flow that is no longer allowed ----

class Pair:
    """Both ends of a flow, on sockets that are connected to each other."""

    def __init__(self, env, web, db):
        address = address_of(env)
        self.server = act(db, "answer_connected", address, PORT)
        self.server.wait_event("ready")
        self.client = act(web, "ask_connected", address, PORT)
        assert self.client.wait_event("asked")["result"] == "ok"

    def destroyed(self, again):
        for end in (self.client, self.server):
            assert (got := end.wait_event("ended", seconds=3)["errno"]) == "ECONNABORTED", f"{end}: {got}"
        assert (got := self.client.wait_event("again")["result"]) == again, got


def test_a_policy_change_destroys_connected_sockets_of_both_ends(env):
    pair = Pair(env, env.web, env.db)
    try:
        result = env.ctl_json("apply", env.write_policy(POLICY_WITHOUT_WEB))
        assert result["sockets_cut"] >= 2, result
        pair.destroyed("EPERM")
    finally:
        env.apply(POLICY)


def test_revoking_either_end_destroys_connected_sockets_of_both(env):
    for n, name in enumerate(("web", "db")):
        svid = {"web": env.svid["web"], "db": env.svid["db"], name: env.ca.issue(f"/{name}/r{n}")}
        pair = Pair(env, env.workload(f"web-r{n}", svid["web"]), env.workload(f"db-r{n}", svid["db"]))
        assert env.ctl_json("revoke", svid[name].spiffe_id)["sockets_cut"] >= 2
        pair.destroyed("EPERM")


def test_an_identity_that_expires_destroys_connected_sockets(env):
    svid = env.ca.issue("/web/short", seconds=2 * PATIENCE)
    Pair(env, env.workload("web-short", svid), env.db).destroyed("EPERM")


def test_removing_a_trust_bundle_destroys_connected_sockets_of_both_ends(env):
    path = f"{env.dir}/bundles/{OTHER}.pem"
    for n, name in enumerate(("web", "db")):
        svid = {"web": env.svid["web"], "db": env.svid["db"], name: env.other_ca.issue(f"/{name}")}
        pair = Pair(env, env.workload(f"web-b{n}", svid["web"]), env.workload(f"db-b{n}", svid["db"]))
        os.rename(path, f"{env.dir}/bundle-away")
        try:
            env.ctl("reload", expect=0)
            pair.destroyed("EPERM")
        finally:
            os.rename(f"{env.dir}/bundle-away", path)
            env.ctl("reload", expect=0)


def test_a_policy_change_leaves_connected_sockets_that_are_still_allowed(env):
    pair = Pair(env, env.web, env.db)
    assert env.ctl_json("apply", env.write_policy(POLICY.replace("log: denied", "log: all")))["sockets_cut"] == 0
    env.apply(POLICY)
    assert not any(e["event"] == "ended" for end in (pair.client, pair.server) for e in end.events)


def test_a_socket_that_is_not_connected_is_told_at_its_next_datagram(env):
    address = address_of(env)
    server = act(env.db, "answer_when_told", address, PORT)
    server.wait_event("ready")
    client = act(env.web, "ask", address, PORT)
    server.wait_event("heard")
    server.command("answer")
    client.wait_event("answer")
    try:
        env.apply(POLICY_WITHOUT_WEB)
        client.command("again")
        assert client.wait_event("asked-again")["result"] == "EPERM"
        since = len(server.events)
        server.command("answer")
        assert server.wait_event("answered", since=since)["result"] == "EPERM"
        assert sum(e["event"] == "answer" for e in client.events) == 1
    finally:
        env.apply(POLICY)


# ---- who may answer ----

def bpftool(env, *args):
    try:
        done = subprocess.run(["bpftool", "-j", "map", *args[:1], "pinned", env.map_pin(args[1]), *args[2:]],
                              check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Skip("bpftool is not there") from error
    return json.loads(done.stdout) if done.stdout.strip() else None


def bytes_of(values):
    return bytes(int(v, 16) for v in values)


def flows(env, port):
    """Key and value of each UDP flow that has this port at one end."""
    for item in bpftool(env, "dump", "udp_flows"):
        key, value = bytes_of(item["key"]), bytes_of(item["value"])
        if port in struct.unpack_from("=HH", key, 40):
            yield key, value


def heard_question(env):
    address = address_of(env)
    server = act(env.db, "answer_when_told", address, PORT)
    server.wait_event("ready")
    client = act(env.web, "ask", address, PORT)
    return server, client, server.wait_event("heard")["port"]


def test_an_answer_passes_because_it_was_asked_for(env):
    """Without this, the tests after it would prove nothing."""
    server, client, _ = heard_question(env)
    server.command("answer")
    assert server.wait_event("answered")["result"] == "ok"
    client.wait_event("answer")


def test_an_answer_after_the_end_of_its_flow_is_denied(env):
    """A minute without packets ends a flow; the test moves the flow's clock instead of waiting."""
    server, client, port = heard_question(env)
    aged = 0
    for key, value in flows(env, port):
        seen = struct.unpack_from("=Q", value, 16)[0]
        value = value[:16] + struct.pack("=Q", seen - 61 * 10**9) + value[24:]
        bpftool(env, "update", "udp_flows", "key", *map(str, key), "value", *map(str, value))
        aged += 1
    assert aged == 2, aged
    server.command("answer")
    assert server.wait_event("answered")["result"] == "EPERM"
    assert not any(e["event"] == "answer" for e in client.events)


def test_a_flow_that_the_kernel_forgot_cannot_be_answered(env):
    """Losing a flow, as when the map is full, costs an answer; it never allows one."""
    server, _, port = heard_question(env)
    for key, _ in list(flows(env, port)):
        bpftool(env, "delete", "udp_flows", "key", *map(str, key))
    server.command("answer")
    assert server.wait_event("answered")["result"] == "EPERM"


def test_what_is_known_of_a_flow_is_nothing_for_another(env):
    """The kernel gives the memory of a flow to another while a program may still hold it: what was meant for the one
    must be nothing to the other. The test puts it there."""
    server, client, port = heard_question(env)
    other = 1 if port != 1 else 2
    for key, value in list(flows(env, port)):
        if struct.unpack_from("=HH", key, 40) == (PORT, port):  # the server's
            key = key[:42] + struct.pack("=H", other) + key[44:]
            bpftool(env, "update", "udp_flows", "key", *map(str, key), "value", *map(str, value))
    assert list(flows(env, other)), "nothing was put there"
    server.command(str(other))
    assert server.wait_event("answered")["result"] == "EPERM"
    since = len(server.events)
    server.command("answer")
    assert server.wait_event("answered", since=since)["result"] == "ok"
    client.wait_event("answer")


def test_a_question_that_was_denied_cannot_be_answered(env):
    address = address_of(env)
    server = act(env.db, "answer_when_told", address, PORT)
    server.wait_event("ready")
    mark = env.audit.mark()
    asked = act(env.probe, "ask", address, PORT).wait_event("asked")
    assert asked["result"] == "ok"
    env.audit.wait(mark, event__action="flow-denied", source__port=asked["port"], network__direction="ingress")
    server.command(str(asked["port"]))
    assert server.wait_event("answered")["result"] == "EPERM"
    assert not any(e["event"] == "heard" for e in server.events)


# ---- to many at once ----

def places(env):
    return {"loopback": ("lo", "lo", env.home), "veth": (env.veth["dev"], env.veth["dev"], env.far)}


def test_a_group_hears_what_the_policy_lets_it(env):
    """Each member once: two db hear, probe does not; and nobody may tell another group, or on another port."""
    other_db = env.workload("db-2", env.ca.issue("/db/2"))
    mark = env.audit.mark()  # denials of one kind within a second are one line
    for place, address in (("loopback", GROUP), ("veth", GROUP), ("veth", "ff15::77:1")):
        here, there, netns = places(env)[place]
        ears = [act(who, "hear", address, there, netns=netns) for who in (env.db, other_db, env.probe)]
        for ear in ears:
            ear.wait_event("ready")
        for _ in range(2):
            teller = act(env.web, "tell", address, here, GROUP_PORT, 20)
            assert (got := teller.wait_event("told")["result"]) == "ok", f"{place} {address}: {got}"
        what = f"{place} {address}"
        wait_for(lambda e=ears: [i.stat()["heard"] for i in e[:2]] == [40, 40], f"both to hear of {what}")
        env.audit.wait(mark, event__action="flow-denied", destination__port=GROUP_PORT, network__direction="ingress",
                       zt__destination__spiffe_id=env.svid["probe"].spiffe_id)
        assert ears[2].stat()["heard"] == 0, what
        for ear in ears:
            ear.quit()


def test_who_may_not_tell_a_group_is_told_so(env):
    for who, address, port in ((env.web, OTHER_GROUP, GROUP_PORT), (env.web, GROUP, GROUP_PORT + 1),
                               (env.db, GROUP, GROUP_PORT), (env.web, "255.255.255.255", GROUP_PORT + 1)):
        for device in ("lo", env.veth["dev"]):
            got = act(who, "tell", address, device, port, 1).wait_event("told")["result"]
            assert got == "EPERM", f"{who.name} to {address},{port} on {device}: {got}"


def test_a_broadcast_is_heard_by_whom_the_policy_lets_hear_it(env):
    here, there, netns = places(env)["veth"]
    ears = [act(who, "hear", "255.255.255.255", there, netns=netns) for who in (env.db, env.probe)]
    for ear in ears:
        ear.wait_event("ready")
    assert act(env.web, "tell", "255.255.255.255", here, GROUP_PORT, 20).wait_event("told")["result"] == "ok"
    wait_for(lambda: ears[0].stat()["heard"] == 20, "db to hear the broadcast")
    assert ears[1].stat()["heard"] == 0


# ---- none twice, none lost ----

# Of SHA-512, made odd (bpf/seal.h).
SEAL = (0x428a2f98d728ae23, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbd, 0x3956c25bf348b539, 0x59f111f1b605d019)


def sealed(key, word):
    words = struct.unpack("=6Q", key)
    return word ^ sum((w ^ w >> 32) * factor for w, factor in zip(words, SEAL)) % 2**64


def credits_left(env, port):
    """What stands on the tickets of a sender's port: datagrams that left and were not received."""
    left = []
    for item in bpftool(env, "dump", "udp_tickets"):
        key = bytes_of(item["key"])
        if struct.unpack_from("=H", key, 40)[0] == port:
            word = sealed(key, struct.unpack("=Q", bytes_of(item["value"]))[0])
            slot = struct.pack("=I", word >> 20 & 0x7FFF)  # BH_UDP_SLOTS
            value = bpftool(env, "lookup", "udp_slots", "key", *map(str, slot))["value"]
            left.append(struct.unpack("=Q", bytes_of(value)[:8])[0] & 0xFFFFF)
    return left


def bytes_counted(env, source="web"):
    """To db: sent by the one, received by the other."""
    got = {p["direction"]: p for p in env.ctl_json("top")["pairs"]
           if (p["from"], p["to"], p["protocol"]) == (spiffe(source), spiffe("db"), "udp")}
    return [got[d][n] if d in got else 0 for d, n in (("egress", "sent_bytes"), ("ingress", "received_bytes"))]


def test_every_datagram_has_one_credit_and_is_counted_once_however_it_is_sent_and_received(env):
    rounds, each = 40, 25
    before, ways = bytes_counted(env), 0
    for place in ("loopback", "veth"):
        _, _, netns = places(env)[place]
        for how in ("send", "sendto", "sendmmsg", "segments"):
            for merged in (0, 1):
                what = f"{how} to a socket {'with' if merged else 'without'} GRO on {place}"
                address = address_of(env) if place == "loopback" else env.veth["6" if merged else "4"][1]
                server = act(env.db, "collect", address, PORT, merged, netns=netns)
                server.wait_event("ready")
                client = act(env.web, "pour", how, address, PORT, rounds, each)
                poured = client.wait_event("poured")
                assert poured["result"] == "ok", f"{what}: {poured}"
                wait_for(lambda s=server: s.stat()["different"] == rounds * each, f"all datagrams of {what}")
                stat = server.stat()
                assert stat["datagrams"] == rounds * each, f"{what}: {stat}"
                assert how != "segments" or (stat["largest"] > SIZE) == bool(merged), f"{what}: {stat}"
                assert credits_left(env, poured["port"]) == [0], what
                server.quit()
                ways += 1
    counted = [b + ways * rounds * each * SIZE for b in before]
    wait_for(lambda: bytes_counted(env) == counted, f"{counted} bytes to be counted at both ends")


def test_sockets_of_one_address_whose_flows_have_the_same_places_are_judged_and_counted_apart(env):
    address, rounds = address_of(env), (40, 3, 40, 1, 1, 1, 40)
    server = act(env.db, "collect", address, PORT, 0)
    server.wait_event("ready")
    before = {name: bytes_counted(env, name) for name in ("web", "probe")}
    web = act(env.web, "same_places", address, PORT, 0)
    probe = act(env.probe, "same_places", address, PORT, web.wait_event("ready")["cookie"])
    probe.wait_event("ready")
    for number in rounds:
        for sender in (web, probe):
            since = len(sender.events)
            sender.command(str(number))
            assert sender.wait_event("sent", since=since)["result"] == "ok"
    sent = sum(rounds)
    wait_for(lambda: server.stat()["datagrams"] == sent, f"{sent} datagrams of web, and none of probe")
    wanted = {"web": [b + sent * SIZE for b in before["web"]],
              "probe": [before["probe"][0] + sent * SIZE, before["probe"][1]]}
    wait_for(lambda: {name: bytes_counted(env, name) for name in before} == wanted, f"{wanted} bytes to be counted")


if __name__ == "__main__":
    actor.main()

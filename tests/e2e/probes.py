#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The sockets of one workload, on command: opens them, sends by every way there is, and tells what came in.

Each line on stdin is a JSON array: a number, the name of a command, its arguments. The answer is one JSON line with that
number: {"event": "answer", "id": 1, "result": "ok" or the error as the sender saw it, ...}. What arrives at the sockets
opened by `listen` is kept, and counted by the text in it."""
import array
import contextlib
import ctypes
import errno
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time

from packets import checksum, emit, open_device

MPTCP, UDPLITE = 262, 136
TCP_FASTOPEN, UDP_SEGMENT, IPV6_HDRINCL = 23, 103, 36
# For who must be let go of quickly when nobody answers.
PATIENCE = 0.3

COMMANDS = {}


def command(function):
    COMMANDS[function.__name__] = function
    return function


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def inet(address, kind, protocol=0):
    sock = socket.socket(family_of(address), kind, protocol)
    sock.settimeout(PATIENCE)
    return sock


class Ears:
    """What arrives at this process."""

    def __init__(self):
        self.sockets = {}  # socket -> name
        self.listening = set()
        self.received = {}  # name -> [bytes]
        self.accepted = {}

    def add(self, name, sock, listening=False):
        sock.setblocking(False)
        self.sockets[sock] = name
        self.received.setdefault(name, [])
        if listening:
            self.listening.add(sock)

    def hear(self, sock):
        name = self.sockets[sock]
        with contextlib.suppress(BlockingIOError):
            while True:
                if sock in self.listening:
                    self.add(name, sock.accept()[0])
                    self.accepted[name] = self.accepted.get(name, 0) + 1
                    continue
                try:
                    data = sock.recv(65536)
                except ConnectionError:
                    data = b""
                if not data and sock.type == socket.SOCK_STREAM:
                    del self.sockets[sock]
                    sock.close()
                    return
                self.received[name].append(data)

    def hear_all(self, wait=0.0):
        while ready := select.select(list(self.sockets), [], [], wait)[0]:
            for sock in ready:
                self.hear(sock)
            wait = 0.0


EARS = Ears()
KEPT = {}


@command
def listen(name, kind, address, number, group=None, device_name="lo"):
    """Opens a socket and keeps what it receives. `number` is a port, or a protocol for kind "raw"."""
    if kind == "device":
        EARS.add(name, open_device(address))
        return {}
    if kind == "raw":
        sock = inet(address, socket.SOCK_RAW, number)
        EARS.add(name, sock)
        return {}
    stream = kind in ("tcp", "mptcp", "fastopen", "sctp")
    protocol = {"mptcp": MPTCP, "udplite": UDPLITE, "sctp": socket.IPPROTO_SCTP}.get(kind, 0)
    sock = inet(address, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind == "fastopen":
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
    sock.bind((address, number))
    if group and ":" in group:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP,
                        socket.inet_pton(socket.AF_INET6, group) + struct.pack("=i", socket.if_nametoindex(device_name)))
    elif group:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                        socket.inet_aton(group) + socket.inet_aton("127.0.0.1"))
    if stream:
        sock.listen(64)
    EARS.add(name, sock, stream)
    return {}


@command
def count(text):
    """How often the text came in, by the name of the socket, and how many connections each accepted."""
    EARS.hear_all()
    return {"count": {name: sum(text.encode() in m for m in got) for name, got in EARS.received.items()},
            "accepted": EARS.accepted}


@command
def wait(name, text, seconds):
    """Until the text has come in at that socket."""
    end = time.monotonic() + seconds
    while not any(text.encode() in m for m in EARS.received[name]):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        EARS.hear_all(left)
    return {}


# ---- ways to send ----

def stream(address, port, text, protocol=0, patience=PATIENCE):
    started = time.monotonic()
    with inet(address, socket.SOCK_STREAM, protocol) as sock:
        sock.settimeout(patience)
        sock.connect((address, port))
        ms = (time.monotonic() - started) * 1000
        sock.sendall(text.encode())
        return {"ms": ms}


@command
def tcp(address, port, text):
    return stream(address, port, text)


@command
def mptcp(address, port, text, patience=PATIENCE, hold=None):
    """Also says whether it is MPTCP still, when it has connected."""
    started = time.monotonic()
    sock = inet(address, socket.SOCK_STREAM, MPTCP)
    sock.settimeout(patience)
    sock.connect((address, port))
    ms = (time.monotonic() - started) * 1000
    sock.sendall(text.encode())
    info = mptcp_info(sock)
    if hold:
        KEPT[hold] = sock
    return {"ms": ms, **info}


def mptcp_info(sock):
    """Of struct mptcp_info: how many subflows there are besides the first; None of a socket that fell back to TCP."""
    try:
        info = sock.getsockopt(284, 1, 64)  # SOL_MPTCP, MPTCP_INFO
    except OSError:
        return {"mptcp": False, "subflows": 0}
    flags = struct.unpack_from("=I", info, 8)[0]
    return {"mptcp": not flags & 1, "subflows": info[0]}


@command
def kept(name, text=None):
    if text:
        KEPT[name].sendall(text.encode())
    return mptcp_info(KEPT[name])


@command
def established(port):
    """IPv4 addresses at the other ends of established connections to a port of this namespace."""
    found = []
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}", encoding="ascii") as lines:
            for line in list(lines)[1:]:
                local, remote, state = line.split()[1:4]
                if state == "01" and int(local.rsplit(":", 1)[1], 16) == port:
                    found.append(socket.inet_ntoa(bytes.fromhex(remote.rsplit(":", 1)[0][-8:])[::-1]))
    return {"peers": sorted(found)}


@command
def fastopen(address, port, text, patience=PATIENCE):
    """Data in the SYN, where the kernel has a cookie for that server; else it asks for one."""
    started = time.monotonic()
    with inet(address, socket.SOCK_STREAM) as sock:
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(patience), int(patience % 1 * 1e6)))
        sock.sendto(text.encode(), socket.MSG_FASTOPEN, (address, port))
        # struct tcp_info, tcpi_options: the SYN carried data that was acknowledged.
        options = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[5]
        return {"ms": (time.monotonic() - started) * 1000, "in_syn": bool(options & 32)}


@command
def udp(address, port, text, protocol=0):
    with inet(address, socket.SOCK_DGRAM, protocol) as sock:
        sock.sendto(text.encode(), (address, port))
    return {}


@command
def udp_connected(address, port, text):
    with inet(address, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        sock.send(text.encode())
    return {}


@command
def udp_segments(address, port, text):
    """One buffer that the kernel cuts into datagrams (GSO)."""
    with inet(address, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, len(text))
        sock.sendto(text.encode() * 4, (address, port))
    return {}


@command
def udp_large(address, port, text):
    """More than fits one frame: the kernel makes fragments, which carry a flow that was judged whole."""
    with inet(address, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode() + b"." * 9000, (address, port))
    return {}


@command
def multicast(group, port, text, device):
    with inet(group, socket.SOCK_DGRAM) as sock:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(device))
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack(
                "=4s4si", b"\0" * 4, b"\0" * 4, socket.if_nametoindex(device)))
        sock.sendto(text.encode(), (group, port))
    return {}


@command
def broadcast(address, port, text):
    with inet(address, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(text.encode(), (address, port))
    return {}


@command
def raw(address, protocol, text):
    with inet(address, socket.SOCK_RAW, protocol) as sock:
        sock.sendto(text.encode("latin-1"), (address, 0))
    return {}


@command
def own_header(address, packet):
    """A whole packet from the IP header on, in hex, as it is (IP_HDRINCL)."""
    with inet(address, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
        sock.sendto(bytes.fromhex(packet), (address, 0))
    return {}


def icmp_message(address, kind, ident, text):
    message = struct.pack("!BBHHH", kind, 0, 0, ident, 1) + text.encode()
    if family_of(address) == socket.AF_INET6:
        return message
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


@command
def icmp(address, kind, text, ident=7, how="raw", answer=None, keep=None, fill=20):
    """A message of type `kind`; with `answer`, waits for one of that type that carries the same identifier. A timestamp
    request has to have room for its times."""
    v6 = family_of(address) == socket.AF_INET6
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    sock = KEPT.get(keep) or inet(address, socket.SOCK_DGRAM if how == "ping" else socket.SOCK_RAW, protocol)
    if keep:
        KEPT[keep] = sock
    sock.sendto(icmp_message(address, kind, ident, text.ljust(fill, ".")), (address, 0))
    if answer is None:
        return {}
    return icmp_heard(sock, answer, ident if how == "raw" else None)


def icmp_heard(sock, kind, ident, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        data = sock.recv(65536)
        if sock.type == socket.SOCK_RAW and sock.family == socket.AF_INET:
            data = data[(data[0] & 15) * 4:]
        if data[0] == kind and ident in (None, struct.unpack("!H", data[4:6])[0]):
            return {"heard": kind}
    raise TimeoutError


@command
def icmp_wait(keep, kind, ident=None, seconds=PATIENCE):
    return icmp_heard(KEPT[keep], kind, ident, seconds)


@command
def answer_echo(name, _from, address, packet):
    """A whole packet, by the raw socket that listens under this name."""
    sock = next(s for s, n in EARS.sockets.items() if n == name)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    try:
        sock.sendto(bytes.fromhex(packet), (address, 0))
    finally:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 0)
    return {}


@command
def device(name, frame):
    """A frame straight onto a device."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((name, 0))
        sock.send(bytes.fromhex(frame))
    return {}


@command
def tool(*argv):
    """The traffic tool's `outcome`."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    for line in done.stdout.splitlines():
        event = json.loads(line)
        if event["event"] in ("outcome", "socket-failed"):
            return {"result": event.get("result") or event["errno"], "step": event.get("step", "socket")}
    raise RuntimeError(done.stdout + done.stderr)


# ---- sockets that change hands ----

@command
def make(name, address, kind="udp"):
    KEPT[name] = inet(address, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    return {}


# Long enough for one retransmission: the first SYN by another than the socket's maker says nobody's name.
RETRANSMITTED = 2.5


@command
def bind(name, kind, address, port):
    """A socket that could receive; `hear_on` does, here or where it was handed to."""
    sock = inet(address, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    if kind == "tcp":
        sock.listen()
    KEPT[name] = sock
    return {}


@command
def hear_on(name):
    sock = KEPT.pop(name)
    EARS.add(name, sock, sock.type == socket.SOCK_STREAM)
    return {}


@command
def send_on(name, address, port, text):
    sock = KEPT[name]
    if sock.type == socket.SOCK_STREAM:
        sock.connect((address, port))
        sock.sendall(text.encode())
    else:
        sock.sendto(text.encode(), (address, port))
    return {}


@command
def receive(path):
    """A socket for another process to give us one by."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    KEPT[path] = sock
    return {}


@command
def give(name, path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(path)
        sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [KEPT[name].fileno()]))])
    return {}


@command
def take(name, path):
    sock = KEPT.pop(path)
    sock.settimeout(2)
    _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(4))
    KEPT[name] = socket.socket(fileno=struct.unpack("=i", ancillary[0][2][:4])[0])
    KEPT[name].settimeout(RETRANSMITTED)
    return {}


EXEC = """
import errno, os, socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
sock.settimeout(float(sys.argv[5]))
to = (sys.argv[2], int(sys.argv[3]))
try:
    if sock.type == socket.SOCK_STREAM:
        sock.connect(to)
        sock.sendall(sys.argv[4].encode())
    else:
        sock.sendto(sys.argv[4].encode(), to)
    print("ok")
except TimeoutError:
    print("ETIMEDOUT")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def into(procs):
    def join():
        if procs:
            with open(procs, "w", encoding="ascii") as f:
                f.write("0")
    return join


@command
def execute(procs, address, port, text, kind="udp"):
    """Our socket, in a program that was started in another cgroup (or ours) and inherited it."""
    with inet(address, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as sock:
        done = subprocess.run([sys.executable, "-c", EXEC, str(sock.fileno()), address, str(port), text,
                               str(RETRANSMITTED)],
                              pass_fds=[sock.fileno()], preexec_fn=into(procs), capture_output=True, text=True,
                              timeout=20, check=False)
    return {"result": done.stdout.strip() or done.stderr}


@command
def activate(procs, address, port, kind="tcp"):
    """As systemd does it: listens, and starts the service with the socket as descriptor 3."""
    bind("activated", kind, address, port)
    listener = KEPT.pop("activated")

    def prepare():
        into(procs)()
        os.dup2(listener.fileno(), 3)
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))

    # The service is this program once more: what it accepts there is counted under "activated".
    KEPT[f"service-{port}"] = subprocess.Popen([sys.executable, "-B", os.path.abspath(__file__), "activated"],
                                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[3], text=True,
                                               preexec_fn=prepare)
    listener.close()
    return {}


@command
def of_service(port, *request):
    """Has the activated service answer a request."""
    service = KEPT[f"service-{port}"]
    service.stdin.write(json.dumps([0, *request]) + "\n")
    service.stdin.flush()
    answer = json.loads(service.stdout.readline())
    return {k: v for k, v in answer.items() if k not in ("event", "t", "id")}


@command
def move(procs):
    """This process goes to another cgroup; its sockets do not."""
    into(procs)()
    return {}


def perform(name, args):
    try:
        return {"result": "ok", **COMMANDS[name](*args)}
    except TimeoutError:
        return {"result": "ETIMEDOUT"}
    except OSError as error:
        return {"result": errno.errorcode.get(error.errno, str(error))}


def main():
    ctypes.CDLL(None).prctl(1, 9)  # ends with the process that started it
    if sys.argv[1:] == ["activated"]:
        given = socket.socket(fileno=3)
        EARS.add("activated", given, given.type == socket.SOCK_STREAM)
    else:
        emit("ready")
    pending = b""
    while True:
        ready = select.select([0, *EARS.sockets], [], [])[0]
        for sock in ready:
            if sock:
                EARS.hear(sock)
        if 0 not in ready:
            continue
        data = os.read(0, 65536)
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            number, name, *args = json.loads(line)
            emit("answer", id=number, **perform(name, args))


if __name__ == "__main__":
    main()

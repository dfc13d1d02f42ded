# SPDX-License-Identifier: Apache-2.0
"""Actors: processes of a workload that want to pass for somebody else, or past the judgement. Each is this file started as a
program, with the name of a function marked @actor and its arguments."""
import contextlib
import ctypes
import errno
import mmap
import os
import select
import socket
import struct
import sys
import time

from actors import Actors, attempt, error_of, family_of
from harness import mount_of, read, write
from packets import emit, open_device

DB, UNHEARD = 5432, 7001
MS = 1000000

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_WINDOW = 19, 20, 21, 29
IP_OPTIONS, IP_PKTINFO, IP_LOCAL_PORT_RANGE, IPV6_RTHDR = 4, 8, 51, 57

actor = Actors(__file__)
act = actor.start


def record(stream):
    """struct record of traffic.h."""
    return struct.pack("=IIQQ", 0x52544842, int(stream), 1, time.monotonic_ns())


def connect_and_exchange(sock, port):
    sock.connect(("127.0.0.1", int(port)))
    sock.sendall(record(0))
    if not sock.recv(64):
        raise ConnectionResetError(errno.ECONNRESET, "closed")


def disconnect(sock):
    """connect() to AF_UNSPEC."""
    if ctypes.CDLL(None, use_errno=True).connect(sock.fileno(), ctypes.create_string_buffer(16), 16):
        raise OSError(ctypes.get_errno(), "disconnect")


def procs_of(who):
    """Where a process joins this workload's cgroup; of `outside`, the runner's own."""
    if who.path:
        return f"{who.path}/cgroup.procs"
    own = next(line[3:] for line in read("/proc/self/cgroup").splitlines() if line.startswith("0::"))
    return f"{mount_of('cgroup2')}{own.rstrip('/')}/cgroup.procs"


def in_cgroup(procs, function, *args):
    """Has a child in another cgroup do it. Returns "ok" or the error."""
    result, report = os.pipe()
    pid = os.fork()
    if not pid:
        write(procs, "0")
        os.write(report, attempt(function, *args).encode())
        os._exit(0)
    os.close(report)
    os.waitpid(pid, 0)
    with os.fdopen(result) as f:
        return f.read()


@actor
def share_socket(port, procs, seconds):
    """The socket is ours; a process of another cgroup has inherited it and connects."""
    sock = socket.socket()
    sock.settimeout(float(seconds))
    emit("outcome", result=in_cgroup(procs, connect_and_exchange, sock, port))


@actor
def pass_socket(port, procs, seconds):
    """The same, but the socket comes to a process that was in another cgroup before, as a message."""
    ours, theirs = socket.socketpair()

    def receive_and_connect():
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        with socket.socket(fileno=fds[0]) as sock:
            sock.settimeout(float(seconds))
            connect_and_exchange(sock, port)

    if not os.fork():
        emit("outcome", result=in_cgroup(procs, receive_and_connect))
        os._exit(0)
    with socket.socket() as sock:
        socket.send_fds(ours, [b"x"], [sock.fileno()])
        os.wait()


@actor
def udp_hold(address, port, stream):
    """A connected socket that asks and gets its answer, again for each line."""
    sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
    sock.settimeout(2)
    sock.connect((address, int(port)))

    def ask():
        sock.send(record(stream))
        sock.recv(64)

    emit("outcome", result=attempt(ask), port=sock.getsockname()[1])
    for _ in sys.stdin:
        emit("again", result=attempt(ask))


@actor
def udp_spoof(own, own_port, source, to, port, stream):
    """Sends from a socket at own,own_port as if it were at `source`."""
    family = family_of(own)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((own, int(own_port)))
    as_source = socket.inet_pton(family, source)
    if family == socket.AF_INET:
        control = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 0, as_source, b"\0" * 4))
    else:
        control = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, as_source + struct.pack("=I", 0))

    def plain_then_spoofed():
        for ancillary in ([], [control], [control]):
            sock.sendmsg([record(stream)], ancillary, 0, (to, int(port)))

    emit("outcome", result=attempt(plain_then_spoofed), port=sock.getsockname()[1])


@actor
def talk(role, address, port):
    """One end of a connection on which both ends send the time every 5 ms, unasked."""
    sock = socket.socket()
    if role == "listen":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, int(port)))
        sock.listen()
        emit("ready")
        sock = sock.accept()[0]
    else:
        sock.settimeout(4)
        sock.connect((address, int(port)))
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    emit("connected")
    made, got, open_ = 0, b"", [sock]
    next_ns = time.monotonic_ns()
    while True:
        wait = max(0, next_ns - time.monotonic_ns()) / 1e9
        readable = select.select([0, *open_], [], [], wait)[0]
        if 0 in readable:
            if not os.read(0, 4096):
                return
            last = struct.unpack("=Q", got[len(got) // 8 * 8 - 8:len(got) // 8 * 8])[0] if len(got) >= 8 else 0
            emit("stat", made=made, received=len(got) // 8, last_sent_ns=last)
        try:
            if sock in readable:
                data = sock.recv(65536)
                if not data:
                    raise ConnectionResetError(errno.ECONNRESET, "closed")
                got += data
            if time.monotonic_ns() >= next_ns:
                next_ns = time.monotonic_ns() + 5 * MS
                made += 1
                if open_:
                    sock.send(struct.pack("=Q", time.monotonic_ns()))
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EPERM and open_:  # EPERM: this one did not leave, the connection is still there
                emit("ended", errno=error_of(error))
                open_ = []


@actor
def repair(procs, used, marker):
    """Makes a socket established to where it may not go without a handshake, and sends on it."""
    sock = socket.socket()
    sock.settimeout(2)
    if used == "used":
        connect_and_exchange(sock, DB)
        disconnect(sock)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    connected = in_cgroup(procs, sock.connect, ("127.0.0.1", UNHEARD))
    established = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[0] == 1

    def send():
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, 1)
        seq = sock.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, struct.pack("=5I", seq, 65535, 65535, 65535, seq))
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, 0)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, -1)
        sock.send(marker.encode())

    emit("outcome", connected=connected, established=established, result=attempt(send))
    sys.stdin.read()


@actor
def sniff(device, *patterns):
    """Counts the frames on a device that contain each pattern (hex)."""
    ears = open_device(device)
    ears.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    ears.setblocking(False)
    seen = {pattern: 0 for pattern in patterns}
    emit("ready")
    while True:
        asked = 0 in select.select([0, ears], [], [])[0]
        if asked and not os.read(0, 4096):
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = ears.recv(65536)
                for pattern in patterns:
                    seen[pattern] += bytes.fromhex(pattern) in frame
        if asked:
            emit("stat", seen=seen)


def routing_header(via, to):
    """A segment routing header: to `to` by way of `via`; segments are listed from the last."""
    segments = b"".join(socket.inet_pton(socket.AF_INET6, a) for a in (to, via))
    return struct.pack("!BBBBBBH", 17, len(segments) // 8, 4, 1, 1, 0, 0) + segments


def source_route(kind, via):
    return bytes((kind, 7, 4)) + socket.inet_aton(via) + b"\0"


@actor
def send_by_route(route, transport, own_port):
    """Sends to the database's port with a header that takes the packet elsewhere first."""
    v6 = route in ("segments", "none6")
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET,
                         socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM)
    sock.settimeout(0.3)
    if route == "segments":
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RTHDR, routing_header("::1", "fd77:99::2"))
    elif route in ("loose", "strict"):
        sock.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, source_route(131 if route == "loose" else 137, "127.0.0.1"))
    sock.bind(("", int(own_port)))

    def send():
        sock.connect(("fd77:99::2" if v6 else "127.0.0.9", DB))
        sock.send(b"by route")

    emit("outcome", result=attempt(send))


@actor
def first_senders(port, batches, size):
    """Two processes send the first datagram of each of many sockets at the same time."""
    turns = memoryview(mmap.mmap(-1, 4096)).cast("Q")
    for _ in range(int(batches)):
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(int(size))]
        for sock in socks:
            sock.connect(("127.0.0.1", int(port)))
            sock.setblocking(False)
        turns[0] = turns[1] = 0
        pid = os.fork()
        mine, other = (0, 1) if pid else (1, 0)
        for i, sock in enumerate(socks, 1):
            turns[mine] = i
            while turns[other] < i:
                os.sched_yield()
            attempt(sock.send, b"first")
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        for sock in socks:
            sock.close()
    emit("outcome", result="ok")


@actor
def leave_port(port, own_port):
    """Sends from a port that the kernel chose, gives it back by disconnecting, and keeps the socket."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    only = struct.pack("=HH", int(own_port), int(own_port))
    sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, only)
    sock.connect(("127.0.0.1", int(port)))
    had = sock.getsockname()[1]
    result = attempt(sock.send, b"from here")
    disconnect(sock)
    emit("outcome", result=result, port=had)
    sys.stdin.read()


@actor
def udp_answer_from_where_asked(port):
    """An echo server on the wildcard address whose answers come from the address that was asked."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.bind(("", int(port)))
    emit("ready")
    while True:
        data, ancillary, _, sender = sock.recvmsg(2048, 64)
        asked = struct.unpack("=I4s4s", ancillary[0][2])[1]
        with contextlib.suppress(PermissionError):
            sock.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 0, asked, b"\0" * 4))], 0,
                         sender)


@actor
def udp_ask_in_turn(port, count, *addresses):
    """One socket asks one address after the other; each answers for itself."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(1)

    def ask():
        for i in range(int(count)):
            to = (addresses[i % len(addresses)], int(port))
            sock.sendto(record(i), to)
            if sock.recvfrom(64)[1] != to:
                raise OSError(errno.EPROTO, "answered by another")

    emit("outcome", result=attempt(ask))


if __name__ == "__main__":
    actor.main()

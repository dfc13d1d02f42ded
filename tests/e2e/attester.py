#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The attestation protocol spoken by those who cheat, written from its description and not from the daemon's code.

  attester.py blind  --socket PATH --svid PEM --key PEM     signs whatever it is asked to
  attester.py hand   --socket PATH --at PATH                connects, and hands the connection to who comes to --at
  attester.py take   --at PATH --svid PEM --key PEM         attests over a connection it was handed
  attester.py leave  --socket PATH --svid --key --to DIR    connects, then moves to the cgroup DIR and attests
  attester.py relay  --socket PATH --at PATH [--rewrite ID] stands between a victim, who comes to --at, and the daemon
  attester.py reuse  --socket PATH --svid PEM --key PEM     sends a proof a second time, on another connection
  attester.py unsigned --socket PATH --svid PEM --key PEM   signs with a key that is not the leaf's
  attester.py each   --socket PATH                          sends as a HELLO each chain (PEM) that standard input names
  attester.py steps  --socket PATH --svid PEM --key PEM     does what standard input says, a step a line:
      connect, hello, challenge, proof, result: the protocol; drop: closes the connection
      move DIR: enters a cgroup;  exec: becomes another program (this one) in the middle of it
      spoof PID: what is sent from now on claims to be from PID
      child [hello]: a child connects (and sends the HELLO), hands us the connection, and is gone
      reuse DIR: another process, in the cgroup DIR, gets the pid of that child

Prints JSON lines; the last one is the daemon's answer: {"event": "result", "code": N, "text": "..."}."""
import argparse
import array
import contextlib
import ctypes
import hashlib
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys

MAGIC = 0x3141545A
HELLO, CHALLENGE, PROOF, RESULT = 1, 2, 3, 4
CONTEXT = b"\x20" * 64 + b"Bulkhead SVID attest v1, workload proof" + b"\0"
CGROUP_ID_AT = 12 + 32 + 16  # after header, nonce, boot id; the inode of the peer's pidfd follows


def emit(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def packet(kind, payload):
    return struct.pack("<IHHI", MAGIC, kind, 0, len(payload)) + payload


def hello(chain):
    with open(chain, encoding="ascii") as f:
        parts = [p[p.index("-----BEGIN"):] for p in f.read().split("-----END CERTIFICATE-----\n") if "-----BEGIN" in p]
    ders = [ssl.PEM_cert_to_DER_cert(p + "-----END CERTIFICATE-----\n") for p in parts]
    return packet(HELLO, struct.pack("<HB", 1, len(ders)) + b"".join(struct.pack("<I", len(d)) + d for d in ders))


def proof(key, hello_packet, challenge):
    text = CONTEXT + hashlib.sha256(hello_packet + challenge).digest()
    signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=text, capture_output=True,
                               check=True).stdout
    return packet(PROOF, struct.pack("<HH", 0x0403, len(signature)) + signature)


def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(10)
    sock.connect(path)
    return sock


def listen(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(20)
    sock.bind(path)
    sock.listen()
    emit("ready")
    return sock


def result(data):
    """Prints a RESULT packet; or that the daemon closed the connection instead."""
    if len(data) < 12 or struct.unpack("<IH", data[:6]) != (MAGIC, RESULT):
        emit("result", code=None, text=f"no result but {data.hex()!r}")
        return
    code, _, _, _, length = struct.unpack("<IQQQH", data[12:42])
    emit("result", code=code, text=data[42:42 + length].decode())


def receive(sock):
    try:
        return sock.recv(65536)
    except ConnectionResetError:
        return b""


def attest(sock, args, make_proof=None):
    first = hello(args.svid)
    with contextlib.suppress(BrokenPipeError):  # refused already: the answer is there
        sock.send(first)
    challenge = receive(sock)
    if len(challenge) < 12 or struct.unpack("<H", challenge[4:6])[0] != CHALLENGE:
        result(challenge)
        return None
    sent = (make_proof or proof)(args.key, first, challenge)
    sock.send(sent)
    result(receive(sock))
    return sent


def hand(args):
    sock = connect(args.socket)
    with listen(args.at) as server:
        taker, _ = server.accept()
        taker.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
        taker.recv(1)  # stays until the taker is done


def take(args):
    giver = connect(args.at)
    _, fds, _, _ = socket.recv_fds(giver, 1, 1)
    sock = socket.socket(fileno=fds[0])
    sock.settimeout(10)
    attest(sock, args)


def leave(args):
    sock = connect(args.socket)
    sock.send(hello(args.svid))
    challenge = receive(sock)
    with open(f"{args.to}/cgroup.procs", "w", encoding="ascii") as f:
        f.write("0")
    sock.send(proof(args.key, hello(args.svid), challenge))
    result(receive(sock))


def relay(args):
    """Hands each packet on, victim's HELLO to the daemon's RESULT; may rewrite whom the challenge names."""
    with listen(args.at) as server:
        victim, _ = server.accept()
        victim.settimeout(10)
        daemon = connect(args.socket)
        for here, there in ((victim, daemon), (daemon, victim), (victim, daemon), (daemon, victim)):
            data = receive(here)
            if not data:
                emit("result", code=None, text="the victim did not sign" if here is victim else "the daemon closed")
                return
            kind = struct.unpack("<H", data[4:6])[0]
            emit("relayed", kind=kind)
            if kind == CHALLENGE and args.rewrite:
                pid = struct.unpack("iII", victim.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
                inode = os.fstat(os.pidfd_open(pid)).st_ino
                data = data[:CGROUP_ID_AT] + struct.pack("<QQ", args.rewrite, inode) + data[CGROUP_ID_AT + 16:]
            if kind == RESULT:
                result(data)
            there.send(data)


def reuse(args):
    old = attest(connect(args.socket), args)
    attest(connect(args.socket), args, lambda *_: old)


def unsigned(args):
    other = args.key + ".other"
    subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", other],
                   check=True, capture_output=True)
    attest(connect(args.socket), args, lambda _, h, c: proof(other, h, c))


def each(args):
    emit("ready")
    for line in sys.stdin:
        sock = connect(args.socket)
        with contextlib.suppress(BrokenPipeError):
            sock.send(hello(line.rstrip("\n")))
        result(receive(sock))
        sock.close()


SYS_CLONE3 = 435
CLONE_INTO_CGROUP = 0x200000000


def clone_with_pid(pid, cgroup):
    """A process of this pid in this cgroup, which waits for its end."""
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    set_tid = (ctypes.c_int * 1)(pid)
    # struct clone_args of linux/sched.h
    clone_args = struct.pack("<11Q", CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(set_tid), 1,
                             fd)
    libc = ctypes.CDLL(None, use_errno=True)
    child = libc.syscall(SYS_CLONE3, clone_args, len(clone_args))
    if child == 0:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        while True:
            signal.pause()
    if child < 0:
        raise OSError(ctypes.get_errno(), "clone3")
    os.close(fd)
    return child


class Stepper:
    """An attestation that is taken apart."""

    def __init__(self, args):
        self.args = args
        self.claimed = None
        self.dead = self.sock = None
        self.first, self.challenged = hello(args.svid), b""
        if args.resume is not None:
            self.sock = socket.socket(fileno=args.resume)
            self.sock.settimeout(10)
            self.challenged = bytes.fromhex(os.environ["ATTESTER_CHALLENGE"])

    def send(self, data):
        control = []
        if self.claimed:
            control = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS,
                        struct.pack("iII", self.claimed, os.getuid(), os.getgid()))]
        self.sock.sendmsg([data], control)

    def connect(self):
        self.sock = connect(self.args.socket)

    def hello(self):
        self.send(self.first)

    def challenge(self):
        self.challenged = receive(self.sock)
        if len(self.challenged) < 12 or struct.unpack("<H", self.challenged[4:6])[0] != CHALLENGE:
            result(self.challenged)

    def proof(self):
        self.send(proof(self.args.key, self.first, self.challenged))

    def result(self):
        result(receive(self.sock))

    def drop(self):
        self.sock.close()

    @staticmethod
    def move(directory):
        with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as f:
            f.write("0")

    def exec(self):
        os.set_inheritable(self.sock.fileno(), True)
        os.environ["ATTESTER_CHALLENGE"] = self.challenged.hex()
        args = self.args
        os.execv(sys.executable, [sys.executable, "-B", __file__, "steps", "--socket", args.socket, "--svid", args.svid,
                                  "--key", args.key, "--resume", str(self.sock.fileno())])

    def spoof(self, pid):
        self.claimed = int(pid)

    def child(self, say=None):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.dead = os.fork()
        if self.dead == 0:
            sock = connect(self.args.socket)
            if say:
                sock.send(self.first)
            theirs.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
            os._exit(0)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        os.waitpid(self.dead, 0)
        self.sock = socket.socket(fileno=fds[0])
        self.sock.settimeout(10)

    def reuse(self, directory):
        if clone_with_pid(self.dead, directory) != self.dead:
            raise RuntimeError("another pid than asked for")


def steps(args):
    stepper = Stepper(args)
    emit("ready")
    # Read a line at a time, and no further: what follows an `exec` is for the next program.
    line = b""
    while byte := os.read(0, 1):
        line += byte
        if byte != b"\n":
            continue
        word, *rest = line.decode().split()
        line = b""
        try:
            getattr(stepper, word)(*rest)
            emit("did", step=word)
        except OSError as error:
            emit("did", step=word, error=error.errno)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("blind", "hand", "take", "leave", "relay", "reuse", "unsigned", "each", "steps"))
    for name in ("socket", "svid", "key", "at", "to"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--rewrite", type=int)
    parser.add_argument("--resume", type=int)
    args = parser.parse_args()
    if args.what == "blind":
        attest(connect(args.socket), args)
    else:
        globals()[args.what](args)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main())

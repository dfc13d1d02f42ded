#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""TCP SYNs by hand, as an attacker makes them: through a raw socket or straight onto a device.

  packets.py syn --dev IF --src ADDR,PORT --dst ADDR,PORT [--option HEX] [--seq N] [--how raw|device|bypass] [--peer-mac MAC]
  packets.py capture --dev IF --dst-port N       prints the first SYN to that port that is sent on the device
  packets.py replay --dev IF --frame HEX [--how raw|device|bypass]

Prints JSON lines: what was sent, or the errno, and what came back: "syn-ack", "reset" or "nothing"."""
import argparse
import errno
import json
import os
import select
import socket
import struct
import sys
import time

ETH_ALL, ETH_IP, ETH_IP6 = 3, 0x0800, 0x86DD
SYN, RST, ACK = 2, 4, 16


def emit(event, **fields):
    print(json.dumps({"event": event, "t": time.monotonic_ns(), **fields}), flush=True)


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address):
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def tcp_checksum(src, dst, tcp):
    """`tcp` with its checksum made right; addresses packed."""
    tcp = tcp[:16] + b"\0\0" + tcp[18:]
    if len(src) == 4:
        pseudo = src + dst + struct.pack("!BBH", 0, 6, len(tcp))
    else:
        pseudo = src + dst + struct.pack("!II", len(tcp), 6)
    return tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]


def finish(frame):
    """A captured frame as it would look on a wire: the kernel leaves the checksum to a device that is not there."""
    at = 14 + ((frame[14] & 15) * 4 if frame[14] >> 4 == 4 else 40)
    segment = Segment(frame)
    return frame[:at] + tcp_checksum(segment.src, segment.dst, frame[at:])


def make_syn(src, dst, option, seq):
    """An IP packet with a SYN that carries `option` after the usual MSS."""
    (src_ip, sport), (dst_ip, dport) = src, dst
    options = b"\x02\x04\x05\xb4" + option
    options += b"\x01" * (-len(options) % 4)
    header = struct.pack("!HHIIBBHHH", sport, dport, seq, 0, (5 + len(options) // 4) << 4, SYN, 64240, 0, 0) + options
    a, b = packed(src_ip), packed(dst_ip)
    header = tcp_checksum(a, b, header)
    if len(a) == 16:
        return struct.pack("!IHBB", 6 << 28, len(header), 6, 64) + a + b + header
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(header), 0x1234, 0x4000, 64, 6, 0) + a + b
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + header


class Segment:
    """The fields that tell segments apart, of a frame; not `ok` if it is no TCP."""

    def __init__(self, frame):
        self.ok = False
        kind = struct.unpack("!H", frame[12:14])[0] if len(frame) > 14 else 0
        ip = frame[14:]
        if kind == ETH_IP and len(ip) >= 20 and ip[9] == 6:
            self.src, self.dst, tcp = ip[12:16], ip[16:20], ip[(ip[0] & 15) * 4:]
        elif kind == ETH_IP6 and len(ip) >= 40 and ip[6] == 6:
            self.src, self.dst, tcp = ip[8:24], ip[24:40], ip[40:]
        else:
            return
        if len(tcp) < 20:
            return
        self.sport, self.dport = struct.unpack("!HH", tcp[:4])
        self.flags = tcp[13]
        self.ok = True

    def answers(self, other):
        return (self.ok and (self.src, self.dst, self.sport, self.dport)
                == (other.dst, other.src, other.dport, other.sport))


def open_device(device):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
    sock.bind((device, ETH_ALL))
    return sock


def send(how, device, frame):
    if how in ("device", "bypass"):
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            if how == "bypass":
                sock.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS: past the sender's own TC hooks
            sock.bind((device, 0))
            sock.send(frame)
        return
    segment = Segment(frame)
    family = socket.AF_INET if len(segment.dst) == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, 36, 1)  # IPV6_HDRINCL
        sock.sendto(frame[14:], (socket.inet_ntop(family, segment.dst), 0))


def send_and_listen(args, frame):
    """Whether anything answers; waits --wait seconds for it."""
    try:
        ears = open_device(args.dev)
        send(args.how, args.dev, frame)
    except OSError as error:
        emit("refused", errno=errno.errorcode.get(error.errno, str(error)))
        return 1
    emit("sent")
    mine = Segment(frame)
    end = time.monotonic() + args.wait
    while (left := end - time.monotonic()) > 0:
        if not select.select([ears], [], [], left)[0]:
            break
        answer = Segment(ears.recv(65536))
        if answer.answers(mine):
            if answer.flags & (SYN | ACK) == SYN | ACK:
                emit("answer", kind="syn-ack")
                return 0
            if answer.flags & RST:
                emit("answer", kind="reset")
                return 0
    emit("answer", kind="nothing")
    return 0


def capture(args):
    ears = open_device(args.dev)
    emit("ready")
    while True:
        frame, address = ears.recvfrom(65536)
        segment = Segment(frame)
        if (segment.ok and segment.dport == args.dst_port and segment.flags & (SYN | ACK) == SYN
                and address[2] == socket.PACKET_OUTGOING):
            emit("captured", frame=finish(frame).hex())
            return 0


def endpoint(text):
    address, port = text.rsplit(",", 1)
    return address, int(port)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("syn", "capture", "replay"))
    parser.add_argument("--dev", default="lo")
    parser.add_argument("--src", type=endpoint)
    parser.add_argument("--dst", type=endpoint)
    parser.add_argument("--dst-port", type=int)
    parser.add_argument("--option", type=bytes.fromhex, default=b"")
    parser.add_argument("--seq", type=int, default=0x01020304)
    parser.add_argument("--frame", type=bytes.fromhex)
    parser.add_argument("--how", choices=("raw", "device", "bypass"), default="raw")
    parser.add_argument("--peer-mac", default="00:00:00:00:00:00")
    parser.add_argument("--wait", type=float, default=0.6)
    args = parser.parse_args()
    if args.what == "capture":
        return capture(args)
    frame = args.frame
    if args.what == "syn":
        packet = make_syn(args.src, args.dst, args.option, args.seq)
        kind = ETH_IP if packet[0] >> 4 == 4 else ETH_IP6
        frame = bytes.fromhex(args.peer_mac.replace(":", "")) + b"\2\0\0\0\0\1" + struct.pack("!H", kind) + packet
    return send_and_listen(args, frame)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    sys.exit(main())

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A workload behind a tun device, as a VM or VPN is: tun.py ping --dev IF --src ADDR --dst ADDR

Makes the device, prints {"event": "ready"}, and for each line on standard input sends one ICMP echo request and prints whether
the reply came: {"event": "reply", "came": true}. Packets have no Ethernet header."""
import argparse
import fcntl
import json
import os
import select
import socket
import struct
import sys
import time

from packets import checksum

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def request(src, dst, number):
    icmp = struct.pack("!BBHHH", 8, 0, 0, 7, number) + b"bulkhead"
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), number, 0, 64, 1, 0) + src + dst
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + icmp


def reply_comes(fd, src, number, seconds):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0]:
            packet = os.read(fd, 65536)
            if packet[0] >> 4 == 4 and packet[9] == 1 and packet[16:20] == src and packet[20] == 0 \
                    and packet[26:28] == struct.pack("!H", number):
                return True
    return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("ping",))
    for name in ("dev", "src", "dst"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--wait", type=float, default=0.4)
    args = parser.parse_args()
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", args.dev.encode(), IFF_TUN | IFF_NO_PI))
    print(json.dumps({"event": "ready"}), flush=True)
    src, dst = socket.inet_aton(args.src), socket.inet_aton(args.dst)
    for number, _ in enumerate(sys.stdin, 1):
        os.write(fd, request(src, dst, number))
        print(json.dumps({"event": "reply", "came": reply_comes(fd, src, number, args.wait)}), flush=True)


if __name__ == "__main__":
    main()

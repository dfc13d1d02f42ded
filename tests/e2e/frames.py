# SPDX-License-Identifier: Apache-2.0
"""Frames made by hand inside of a box, put straight onto its end of the link."""
import struct

from boxes import PYTHON
from common import mac_of
from packets import checksum, packed

# Puts frames onto a device.
SEND = """import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
s.bind((sys.argv[1], 0))
for frame in sys.argv[2:]:
    s.send(bytes.fromhex(frame))
"""
# Puts a frame onto a device: does a frame come back that has these bytes at this offset?
ASK = """import json, select, socket, sys, time
device, frame, offset, answer, wait = sys.argv[1:]
offset, answer, end = int(offset), bytes.fromhex(answer), time.monotonic() + float(wait)
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((device, 3))
s.send(bytes.fromhex(frame))
came = False
while not came and select.select([s], [], [], max(0, end - time.monotonic()))[0]:
    seen, where = s.recvfrom(65536)
    came = where[2] != socket.PACKET_OUTGOING and seen[offset:offset + len(answer)] == answer
print(json.dumps({"event": "asked", "came": came}), flush=True)
"""


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def ethernet(box, packet, to=None):
    return (to or mac_bytes(box.mac)) + mac_bytes(mac_of(box.netns, "eth0")) + packet


def icmp6_packet(src, dst, message, hops=64):
    a, b = packed(src), packed(dst)
    right = checksum(a + b + struct.pack("!II", len(message), 58) + message)
    message = message[:2] + struct.pack("!H", right) + message[4:]
    return b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(message), 58, hops) + a + b + message


def answered(box, frame, offset, answer, wait):
    process = box.inside.spawn([*PYTHON, "-c", ASK, "eth0", frame.hex(), str(offset), answer.hex(), str(wait)])
    return process.wait_event("asked")["came"]

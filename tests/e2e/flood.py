# SPDX-License-Identifier: Apache-2.0
"""flood.py SOCKET CHAIN: shows the chain again and again, eight times at once and as fast as it is refused, until standard
input ends. Says when it has begun, and then how often it was refused, by code."""
import contextlib
import json
import select
import socket
import struct
import sys

from attester import connect, hello, receive


def main(path, chain):
    first, codes = hello(chain), {}
    while not select.select([sys.stdin], [], [], 0)[0]:
        socks = [connect(path) for _ in range(8)]
        for sock in socks:
            with contextlib.suppress(BrokenPipeError):  # refused already: the answer is there
                sock.send(first)
        for sock in socks:
            data = receive(sock)
            assert data[4:6] == b"\x04\x00", data  # RESULT
            code = struct.unpack("<I", data[12:16])[0]
            if not codes:
                print(json.dumps({"event": "begun"}), flush=True)
            codes[code] = codes.get(code, 0) + 1
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()
    print(json.dumps({"event": "refused", "codes": codes}), flush=True)


main(sys.argv[1], sys.argv[2])

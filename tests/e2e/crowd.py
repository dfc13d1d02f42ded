# SPDX-License-Identifier: Apache-2.0
"""crowd.py SOCKET CHAIN COUNT: clients that connect to the attestation socket and then say nothing more; every other one
sends its HELLO first. Says when all are connected, and when all were told to go: how long each held its place."""
import json
import select
import struct
import sys
import time

from attester import connect, hello


def main(path, chain, count):
    first = hello(chain)
    held, codes, longest, shortest = {}, {}, 0, 1e9
    poll = select.poll()
    for i in range(count):
        sock = connect(path)
        held[sock.fileno()] = (sock, time.monotonic())
        if i % 2:
            sock.send(first)
        poll.register(sock, select.POLLIN)
    print(json.dumps({"event": "taken", "count": len(held)}), flush=True)
    while held:
        for fd, _ in poll.poll(20000):
            sock, since = held[fd]
            data = sock.recv(65536)
            if data[4:6] == b"\x04\x00":  # RESULT
                code = struct.unpack("<I", data[12:16])[0]
                codes[code] = codes.get(code, 0) + 1
            elif data:
                continue
            took = time.monotonic() - since
            longest, shortest = max(longest, took), min(shortest, took)
            poll.unregister(fd)
            del held[fd]
            sock.close()
    print(json.dumps({"event": "ended", "codes": codes, "longest": longest, "shortest": shortest}), flush=True)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

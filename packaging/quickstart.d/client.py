#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""client.py ask PORT TEXT: asks a server.py on this machine once, prints the answer or why there is none; exit code 0 or 1.
client.py stream PORT NAME: sends to it until the connection fails, and prints four times a second how much it sent.

Knows nothing of Bulkhead: what it sees is what every program sees."""
import errno
import os
import socket
import sys
import time

PATIENCE_S = 1.0
CHUNK = b"x" * 65536
PAUSE_S = 0.01


def reason(error):
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE_S:g} s (timeout)"
    return f"{os.strerror(error.errno)} ({errno.errorcode[error.errno]})"


def ask(port, text):
    start = time.monotonic()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            connection.sendall(f"ask {text}\n".encode())
            answer = connection.makefile().readline().strip()
    except OSError as error:
        print(f"port {port}: failed after {(time.monotonic() - start) * 1000:.1f} ms: {reason(error)}")
        return 1
    print(f"port {port}: answered after {(time.monotonic() - start) * 1000:.1f} ms: {answer}")
    return 0 if answer else 1


def stream(port, name):
    sent, printed, last, pause = 0, 0.0, time.monotonic(), 0.0
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            connection.settimeout(None)
            connection.sendall(f"stream {name}\n".encode())
            while True:
                connection.sendall(CHUNK)
                sent += len(CHUNK)
                now = time.monotonic()
                pause, last = max(pause, now - last), now
                if now - printed > 0.25:
                    printed = now
                    print(f"{sent} bytes sent, longest pause {pause * 1000:.0f} ms", flush=True)
                time.sleep(PAUSE_S)
    except OSError as error:
        print(f"{sent} bytes sent, ended: {reason(error)}", flush=True)
    return 1


if len(sys.argv) != 4 or sys.argv[1] not in ("ask", "stream"):
    sys.exit(__doc__)
sys.exit((ask if sys.argv[1] == "ask" else stream)(int(sys.argv[2]), sys.argv[3]))

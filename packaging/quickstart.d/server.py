#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""server.py PORT...: a workload that is talked to. Knows nothing of Bulkhead.

A client's first line says what it wants: "ask TEXT" is answered with one line; "stream NAME" is followed by bytes
without end, which are counted. The count is printed four times a second and when nothing comes any more; and, when the
connection ends, how it ended."""
import errno
import os
import socket
import sys
import threading
import time


PRINT_EVERY_S = 0.25


def clock(seconds):
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds * 1000) % 1000:03d}"


def say(text):
    print(text, flush=True)


def count(connection, name, received):
    printed, printed_at, last = -1, 0.0, time.time()
    connection.settimeout(0.1)
    while True:
        idle = False
        try:
            data = connection.recv(1 << 20)
            if not data:
                say(f"{name}: {received} bytes received, ended: closed by the other end")
                return
            received, last = received + len(data), time.time()
        except TimeoutError:
            idle = True
        except OSError as error:
            say(f"{name}: {received} bytes received, ended: {os.strerror(error.errno)} ({errno.errorcode[error.errno]})")
            return
        if received != printed and (idle or time.time() - printed_at > PRINT_EVERY_S):
            printed, printed_at = received, time.time()
            say(f"{name}: {received} bytes received, the last at {clock(last)}")


def serve(connection):
    with connection:
        try:
            first = b""
            while b"\n" not in first:
                data = connection.recv(4096)
                if not data:
                    return
                first += data
            line, rest = first.split(b"\n", 1)
            verb, _, argument = line.decode(errors="replace").partition(" ")
            if verb == "ask":
                connection.sendall(f"{argument}? Here is pid {os.getpid()} on port {connection.getsockname()[1]}\n".encode())
            else:
                count(connection, argument, len(rest))
        except OSError as error:
            say(f"connection ended: {os.strerror(error.errno)}")


def listen(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=16)
    say(f"listening on 127.0.0.1:{port}")
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


for number in sys.argv[1:]:
    threading.Thread(target=listen, args=(int(number),), daemon=True).start()
threading.Event().wait()

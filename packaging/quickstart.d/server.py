#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""server.py PORT...: a workload that is talked to. Knows nothing of Bulkhead.

A client's first line says what it wants: "ask TEXT" is answered with one line; "stream NAME" is followed by bytes
without end, which are counted. The count is printed four times a second, and when the connection ends, how."""
import errno
import os
import socket
import sys
import threading
import time


def say(text):
    now = time.time()
    print(f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now * 1000) % 1000:03d} {text}", flush=True)


def count(connection, name, received):
    printed = 0.0
    try:
        while True:
            if time.monotonic() - printed > 0.25:
                printed = time.monotonic()
                say(f"{name}: {received} bytes received")
            data = connection.recv(1 << 20)
            if not data:
                say(f"{name}: {received} bytes received, ended: closed by the other end")
                return
            received += len(data)
    except OSError as error:
        say(f"{name}: {received} bytes received, ended: {os.strerror(error.errno)} ({errno.errorcode[error.errno]})")


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

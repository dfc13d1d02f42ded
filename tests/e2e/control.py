# SPDX-License-Identifier: Apache-2.0
"""Apply() over the control socket, without policyctl: that one says itself what is wrong with a policy, and a
test of what the daemon refuses must not depend on it. Just enough D-Bus for one call, peer to peer."""
import os
import socket
import struct

METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
PATH, INTERFACE, MEMBER, ERROR_NAME, SIGNATURE = 1, 2, 3, 4, 8


class Writer:
    def __init__(self):
        self.data = bytearray()

    def align(self, n):
        self.data += b"\0" * (-len(self.data) % n)

    def u32(self, value):
        self.align(4)
        self.data += struct.pack("<I", value)

    def string(self, text):
        raw = text.encode()
        self.u32(len(raw))
        self.data += raw + b"\0"

    def signature(self, text):
        self.data += bytes([len(text)]) + text.encode() + b"\0"

    def array(self, align, write_items):
        self.u32(0)
        at = len(self.data)
        self.align(align)
        start = len(self.data)
        write_items()
        self.data[at - 4:at] = struct.pack("<I", len(self.data) - start)


def call(path, member, signature, body):
    """One METHOD_CALL; returns (message type, error name or None, body bytes)."""
    w = Writer()
    w.data += struct.pack("<BBBBII", ord("l"), METHOD_CALL, 0, 1, len(body), 1)

    def fields():
        for code, kind, value in ((PATH, "o", "/org/bulkhead/Daemon"), (INTERFACE, "s", "org.bulkhead.Daemon1"),
                                  (MEMBER, "s", member), (SIGNATURE, "g", signature)):
            w.align(8)
            w.data.append(code)
            w.signature(kind)
            if kind == "g":
                w.signature(value)
            else:
                w.string(value)

    w.array(8, fields)
    w.align(8)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(path)
        # As sd-bus does: the whole authentication at once, and nothing else before the answer.
        sock.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\nBEGIN\r\n")
        answer = sock.recv(4096)
        assert answer.startswith(b"OK"), answer
        sock.sendall(bytes(w.data) + body)
        stream = sock.makefile("rb")
        while True:
            head = stream.read(16)
            _, kind, _, _, length, _, n_fields = struct.unpack("<BBBBIII", head)
            fields_data = stream.read(n_fields + -n_fields % 8)
            data = stream.read(length)
            if kind in (METHOD_RETURN, ERROR):
                name = None
                if kind == ERROR:
                    at = fields_data.index(b"org.bulkhead.") if b"org.bulkhead." in fields_data else 0
                    name = fields_data[at:fields_data.index(b"\0", at)].decode(errors="replace")
                return kind, name, data


def apply(run_dir, name, text):
    """Applies one file. Returns (None, "") or (error name, error text)."""
    w = Writer()

    def files():
        w.align(8)
        w.string(name)
        w.array(1, lambda: w.data.extend(text.encode()))

    w.array(8, files)
    w.string("")  # comment
    w.u32(0)      # for good
    w.string("")  # session
    w.u32(0)      # not even if it cuts it
    kind, error, data = call(f"{run_dir}/control.sock", "Apply", "a(say)susb", bytes(w.data))
    if kind == METHOD_RETURN:
        return None, ""
    length = struct.unpack("<I", data[:4])[0]
    return error, data[4:4 + length].decode(errors="replace")

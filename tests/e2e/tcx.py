#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Somebody else's program on the ingress hook of a device: tcx.py attach --dev IF --verdict next|drop
or pinned, for filters: tcx.py pin --path PIN --verdict next|drop

Loads and attaches it behind all others, prints {"event": "ready"}, and takes it off when its standard input ends."""
import argparse
import ctypes
import json
import os
import platform
import socket
import struct
import sys

BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
PROG_LOAD, OBJ_PIN, LINK_CREATE, SCHED_CLS, TCX_INGRESS, AFTER = 5, 6, 28, 3, 46, 1 << 4
VERDICTS = {"next": -1, "drop": 2}
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attr):
    buffer = ctypes.create_string_buffer(attr, len(attr))
    fd = libc.syscall(BPF, command, buffer, len(attr))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def load(verdict):
    program = struct.pack("<BBhi", 0xb7, 0, 0, verdict) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    code, text = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    return bpf(PROG_LOAD, struct.pack("<IIQQIIQII16s", SCHED_CLS, 2, ctypes.addressof(code), ctypes.addressof(text), 0, 0,
                                      0, 0, 0, b"e2e_other"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("attach", "pin"))
    parser.add_argument("--dev")
    parser.add_argument("--path")
    parser.add_argument("--verdict", choices=tuple(VERDICTS), required=True)
    args = parser.parse_args()
    program = load(VERDICTS[args.verdict])
    if args.what == "pin":
        path = ctypes.create_string_buffer(args.path.encode())
        bpf(OBJ_PIN, struct.pack("<QII", ctypes.addressof(path), program, 0))
        return
    link = bpf(LINK_CREATE, struct.pack("<IIIIIIQ", program, socket.if_nametoindex(args.dev), TCX_INGRESS, AFTER, 0, 0, 0))
    print(json.dumps({"event": "ready"}), flush=True)
    sys.stdin.read()
    os.close(link)


if __name__ == "__main__":
    main()

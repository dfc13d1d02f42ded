# SPDX-License-Identifier: Apache-2.0
"""bpf(2) as another process of root's would call it, for what bpftool cannot do or does slowly."""
import contextlib
import ctypes
import json
import os
import struct
import subprocess

from harness import Skip

NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
MAP_UPDATE_BATCH, MAP_DELETE_BATCH = 26, 27
MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_NEXT_KEY, OBJ_GET, OBJ_INFO, LINK_UPDATE = 1, 2, 3, 4, 7, 15, 29
PROG_LOAD, LINK_CREATE = 5, 28
CGROUP_SOCK, INET_SOCK_CREATE = 9, 2  # type of program, of attachment
libc = ctypes.CDLL(None, use_errno=True)


def call(command, attr):
    number = NUMBERS.get(os.uname().machine)
    if number is None:
        raise Skip(f"the number of bpf(2) on {os.uname().machine} is not known here")
    buffer = ctypes.create_string_buffer(attr, 128)
    done = libc.syscall(number, command, buffer, len(buffer))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


@contextlib.contextmanager
def opened(path):
    """The object that is pinned there."""
    name = ctypes.create_string_buffer(path.encode())
    fd = call(OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, 0))
    try:
        yield fd
    finally:
        os.close(fd)


class Map:
    """A pinned map, open; keys and values are bytes."""

    def __init__(self, fd):
        info = ctypes.create_string_buffer(96)
        call(OBJ_INFO, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))
        self.fd = fd
        self.type, self.id, self.key_bytes, self.value_bytes, self.max_entries = struct.unpack_from("=5I", info)

    def _element(self, command, key, value):
        a, b = (ctypes.create_string_buffer(x, len(x)) if x is not None else None for x in (key, value))
        call(command, struct.pack("=IIQQQ", self.fd, 0, *(ctypes.addressof(x) if x else 0 for x in (a, b)), 0))
        return b.raw if b else None

    def update(self, key, value):
        assert len(key) == self.key_bytes and len(value) == self.value_bytes, (len(key), len(value))
        self._element(MAP_UPDATE_ELEM, key, value)

    def delete(self, key):
        self._element(MAP_DELETE_ELEM, key, None)

    def lookup(self, key):
        return self._element(MAP_LOOKUP_ELEM, key, bytes(self.value_bytes))

    def _batch(self, command, keys, value):
        a = ctypes.create_string_buffer(b"".join(keys), self.key_bytes * len(keys))
        b = ctypes.create_string_buffer(value * len(keys), len(value) * len(keys)) if value else None
        call(command, struct.pack("=QQQQIIQQ", 0, 0, ctypes.addressof(a), ctypes.addressof(b) if b else 0, len(keys), self.fd,
                                  0, 0))

    def update_all(self, keys, value):
        self._batch(MAP_UPDATE_BATCH, keys, value)

    def delete_all(self, keys):
        self._batch(MAP_DELETE_BATCH, keys, None)

    def keys(self):
        key = None
        while True:
            try:
                key = self._element(MAP_GET_NEXT_KEY, key, bytes(self.key_bytes))
            except FileNotFoundError:
                return
            yield key


@contextlib.contextmanager
def opened_map(path):
    with opened(path) as fd:
        yield Map(fd)


def sealed(carrier, tag):
    """The value of an entry of `tags`: `tag` is its deadline, identity and flags, `carrier` the cgroup's id. As bpf/abi.h and
    bpf/seal.h say."""
    seal = 0
    for word, factor in zip((carrier, *struct.unpack("=QQ", tag)),
                            (0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f)):
        seal += (word ^ word >> 32) * (factor | 1)
    return tag + struct.pack("=Q", seal & 2**64 - 1 | 1)


def link_update(link_fd, program_fd):
    call(LINK_UPDATE, struct.pack("=IIII", link_fd, program_fd, 0, 0))


@contextlib.contextmanager
def sockets_refused(cgroup):
    """A program of somebody else's, which refuses every socket that is made in this cgroup."""
    # r0 = 0; exit
    text = ctypes.create_string_buffer(bytes.fromhex("b700000000000000" "9500000000000000"))
    license_name = ctypes.create_string_buffer(b"GPL")
    attr = struct.pack("=IIQQIIQII16sII", CGROUP_SOCK, 2, ctypes.addressof(text), ctypes.addressof(license_name), 0, 0, 0, 0, 0,
                       b"refuse", 0, INET_SOCK_CREATE)
    fds = [call(PROG_LOAD, attr)]
    try:
        fds.append(os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY))
        fds.append(call(LINK_CREATE, struct.pack("=IIII", fds[0], fds[1], INET_SOCK_CREATE, 0)))
        yield
    finally:
        for fd in reversed(fds):
            os.close(fd)


def bpftool(*args):
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(["bpftool", "--json", *args], capture_output=True, text=True, check=True)
        return json.loads(done.stdout or "null")
    raise Skip("bpftool is not installed")

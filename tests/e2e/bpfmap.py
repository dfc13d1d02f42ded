# SPDX-License-Identifier: Apache-2.0
"""A pinned BPF map of another process's, as root reads and writes it: straight through bpf(2), because thousands of
entries through bpftool take too long."""
import ctypes
import errno
import os
import struct

SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
LOOKUP, UPDATE, DELETE, NEXT_KEY, OBJ_GET = 1, 2, 3, 4, 7
libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command, attr):
    buffer = ctypes.create_string_buffer(attr.ljust(128, b"\0"), 128)
    result = libc.syscall(SYS_BPF[os.uname().machine], command, buffer, 128)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


class Map:
    def __init__(self, path, key_size, value_size):
        name = ctypes.create_string_buffer(path.encode())
        self.fd = _bpf(OBJ_GET, struct.pack("=Q", ctypes.addressof(name)))
        self.key_size, self.value_size = key_size, value_size

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def _call(self, command, key, value=None, flags=0):
        key = ctypes.create_string_buffer(key, self.key_size) if key is not None else None
        _bpf(command, struct.pack("=IIQQQ", self.fd, 0, ctypes.addressof(key) if key else 0,
                                  ctypes.addressof(value) if value else 0, flags))

    def update(self, key, value):
        """Returns False where the map is full."""
        try:
            self._call(UPDATE, key, ctypes.create_string_buffer(value, self.value_size))
        except OSError as error:
            if error.errno == errno.E2BIG:
                return False
            raise
        return True

    def delete(self, key):
        self._call(DELETE, key)

    def keys(self):
        found, key = [], None
        out = ctypes.create_string_buffer(self.key_size)
        while True:
            try:
                self._call(NEXT_KEY, key, out)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return found
                raise
            key = out.raw
            found.append(key)

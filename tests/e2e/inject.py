# SPDX-License-Identifier: Apache-2.0
"""Makes a process that runs do a system call, by ptrace(2): what code that took it over could do."""
import ctypes
import os
import platform

from host import Skip

PTRACE_PEEKTEXT, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = (
    1, 12, 13, 17, 0x4206, 0x4207)
WALL = 0x40000000
SYSCALL = 0x050F  # the instruction, as read from memory

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Registers(ctypes.Structure):
    """struct user_regs_struct of sys/user.h."""
    _fields_ = [(name, ctypes.c_ulonglong) for name in (
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
        "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs")]


def ptrace(request, pid, address=None, data=None):
    ctypes.set_errno(0)
    value = libc.ptrace(request, pid, address, data)
    if value < 0 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), f"ptrace({request:#x}): {os.strerror(ctypes.get_errno())}")
    return value


def x86_64_only():
    if platform.machine() != "x86_64":
        raise Skip("registers and numbers are those of x86-64")


def is_idle(pid):
    """Does it wait for events? Numbers of x86-64: epoll_wait, epoll_pwait, epoll_pwait2."""
    x86_64_only()
    with open(f"/proc/{pid}/syscall", encoding="ascii") as f:
        return f.read().split()[0] in ("232", "281", "441")


def system_call(pid, number, *args):
    """Has the process, which waits in a system call, do another one instead, and lets it go: what becomes of it is its
    parent's to see. An argument "stack" is an address that it can read."""
    x86_64_only()
    ptrace(PTRACE_SEIZE, pid)
    ptrace(PTRACE_INTERRUPT, pid)
    os.waitpid(pid, WALL)
    registers = Registers()
    ptrace(PTRACE_GETREGS, pid, None, ctypes.byref(registers))
    registers.rip -= 2
    assert ptrace(PTRACE_PEEKTEXT, pid, registers.rip) & 0xFFFF == SYSCALL, "it was not in a system call"
    registers.rax, registers.orig_rax = number, 2**64 - 1
    values = [registers.rsp if a == "stack" else a for a in args] + [0] * (6 - len(args))
    registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9 = values
    ptrace(PTRACE_SETREGS, pid, None, ctypes.byref(registers))
    ptrace(PTRACE_DETACH, pid)

# SPDX-License-Identifier: Apache-2.0
"""What is kept of a TCP socket whose end nobody was told is found and let go of, wherever the socket was; what may still be
used stays. The daemon is the one that does not wait for minutes."""
import os

from common import POLICY, ready, setup as common_setup  # noqa: F401
from harness import DAEMON_LAYOUT, ip, wait_for
from test_connections import LATE, LINGER, STAYS, kept

PORT = 5432
DB = f"127.0.0.1,{PORT}"

# One end of connections that are made where it is, before it goes to live in another namespace; there it talks over them.
LIVES_ON = """
import ctypes, os, socket, sys
end, n, netns = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if end == "accepts":
    s = socket.create_server(("127.0.0.1", 5433))
    print("listens", flush=True)
    held = [s.accept()[0] for _ in range(n)]
else:
    held = [socket.create_connection(("127.0.0.1", 5433), 5) for _ in range(n)]
if ctypes.CDLL(None, use_errno=True).setns(os.open(netns, os.O_RDONLY), 0x40000000):
    raise OSError(ctypes.get_errno(), "setns")
print("moved", flush=True)
sys.stdin.readline()
for c in held:
    c.settimeout(5)
    c.sendall(b"x")
print("got", sum(len(c.recv(1)) for c in held), flush=True)
sys.stdin.readline()
"""
# Takes no connection that comes.
DEAF = """
import socket, sys
s = socket.create_server(("127.0.0.1", 5433), backlog=16)
print("listens", flush=True)
sys.stdin.readline()
"""
CALLS = """
import socket, sys
held = [socket.create_connection(("127.0.0.1", 5433), 5) for _ in range(int(sys.argv[1]))]
print("there", flush=True)
sys.stdin.readline()
"""
# Keeps a connection that it accepted, when its peer has ended it; then uses the socket for another one.
REUSES = """
import ctypes, socket, sys
s = socket.create_server(("127.0.0.1", 5433))
print("listens", flush=True)
c = s.accept()[0]
try:
    c.recv(1)
except ConnectionResetError:
    print("reset", flush=True)
sys.stdin.readline()
nobody = ctypes.create_string_buffer(16)
if ctypes.CDLL(None, use_errno=True).connect(c.fileno(), nobody, 16):
    raise OSError(ctypes.get_errno(), "connect")
c.settimeout(5)
c.connect(("127.0.0.1", 5432))
c.sendall(bytes(24))
print("got", len(c.recv(1)), flush=True)
sys.stdin.readline()
"""


def setup(env):
    common_setup(env)
    env.program = DAEMON_LAYOUT


def python(workload, text, *args, **kwargs):
    """A process that has said its first word."""
    process = workload.spawn(["/usr/bin/python3", "-c", text, *[str(a) for a in args]], **kwargs)
    wait_for(lambda: process.out, "it to begin")
    return process


def told(process, word):
    wait_for(lambda: any(line.startswith(word) for line in process.out), f"it to say: {word}")


def an_end_is_missed(env):
    before = kept(env)
    env.web.tcp(f"127.0.0.1,{PORT + 1}")
    return bool(kept(env) - before)


def nobody_is_told(env):
    """The daemon is dead, and another process has removed the pin that kept the link. Returns what the proof of it left."""
    env.kill_daemon()
    before = kept(env)
    os.unlink(f"{env.pins}/link_bh_tcp_end")
    wait_for(lambda: an_end_is_missed(env), "the link to be gone, which the kernel lets go of in its own time")
    return kept(env) - before


def test_what_ended_while_nobody_was_told_is_cleared_up(env):
    """What is closed then is gone, what is open stays, whatever it is used for."""
    db, before = env.db.tcp_server(f"::,{PORT}"), kept(env)
    closes, stays = (python(env.web, STAYS, 50) for _ in range(2))
    late = python(env.web, LATE)
    mine = kept(env) - before
    assert len(mine) == 201, "both ends of 100 connections, and a socket"
    others = nobody_is_told(env)
    closes.command("")
    told(closes, "closed")
    left = kept(env) - before - others
    assert len(left) == 201, f"nothing was proved: {len(left)} missed their end"
    env.start()
    wait_for(lambda: len(kept(env) - before) == 101, "what was left to be cleared up", 40)
    late.command("")
    told(late, "got 1")
    stays.command("")
    told(stays, "closed")
    for process in (closes, stays, late):
        process.kill()
    wait_for(lambda: kept(env) <= before, "the rest to go when it is told")
    db.kill()


def test_what_ended_where_nobody_looks_is_cleared_up_too(env):
    """In a namespace that no process of a workload lives in. Sockets from there that processes elsewhere have stay."""
    netns = env.network.namespace("unseen")
    ip("-n", netns, "link", "set", "lo", "up")
    before = kept(env)
    ends = [python(workload, LIVES_ON, end, 5, f"/run/netns/{env.home}", netns=netns)
            for workload, end in ((env.db, "accepts"), (env.web, "connects"))]
    for end in ends:
        told(end, "moved")
    living = kept(env) - before
    assert len(living) == 11, "a listener, and both ends of 5 connections"
    db = env.db.tcp_server(f"::,{PORT}", netns=netns)
    closes = python(env.web, STAYS, 20, netns=netns)
    others = nobody_is_told(env)
    closes.command("")
    told(closes, "closed")
    closes.kill()
    db.kill()
    left = kept(env) - before - living - others
    assert len(left) == 41, f"nothing was proved: {len(left)} missed their end"
    env.start()
    wait_for(lambda: not kept(env) - before - living, "what was left to be cleared up", 40)
    assert kept(env) - before == living, "of those that a process has, every one is kept"
    for end in ends:
        end.command("")
    for end in ends:
        told(end, "got 5")
        end.kill()
    wait_for(lambda: kept(env) <= before, "the rest to go when it is told")


def test_what_no_process_took_from_its_listener_is_cleared_up(env):
    """Where a workload lives; elsewhere a process that is not there could have it."""
    lives, before = env.web.spawn(["/usr/bin/python3", "-c", "import sys; sys.stdin.readline()"]), kept(env)
    deaf = python(env.db, DEAF)
    calls = python(env.web, CALLS, 10)
    assert len(kept(env) - before) == 21, "a listener, and both ends of 10 connections"
    others = nobody_is_told(env)
    deaf.kill()
    calls.kill()
    left = kept(env) - before - others
    assert len(left) == 21, f"nothing was proved: {len(left)} missed their end"
    env.start()
    wait_for(lambda: kept(env) <= before, "what was left to be cleared up", 40)
    lives.kill()


def test_a_socket_that_was_accepted_can_be_used_again_when_it_was_cleared_up(env):
    """Nobody can tell whether a process has it: so it may be taken for one that no process took."""
    env.apply(POLICY.replace("    to: db\n    service: pg", "    to: [db, web]\n    service: pg", 1))
    try:
        db = env.db.tcp_server(f"::,{PORT}")
        reuses = env.web.spawn(["/usr/bin/python3", "-c", REUSES])
        told(reuses, "listens")
        before = kept(env)
        caller = env.web.spawn(["/usr/bin/python3", "-c", LINGER])
        told(reuses, "reset")
        assert caller.wait(10) == 0
        wait_for(lambda: len(kept(env) - before) == 1, "the end of the caller's socket")
        wait_for(lambda: not kept(env) - before, "the other one to be let go of", 40)
        reuses.command("")
        told(reuses, "got 1")
        reuses.kill()
        db.kill()
    finally:
        env.apply(POLICY)

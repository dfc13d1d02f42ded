# SPDX-License-Identifier: Apache-2.0
"""The keys that sign identities in handshakes: replaced under load without one refused connection, and dead when their
window has closed."""
import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time

import control
import harness
from common import POLICY, HeldBack, ready as common_ready, setup  # noqa: F401
from harness import PATIENCE, Skip, read, wait_for
from packets import emit

DB, STORM = 5432, 5433
# Without a line for each of the many connections.
BOTH_WAYS = POLICY.replace("log: new", "log: denied") + """\
  - name: db-to-web
    action: allow
    from: db
    to: web
    service: pg
"""


def ready(env):
    common_ready(env, BOTH_WAYS)
    env.far = env.network.namespace("b")
    env.veth = env.network.veth(env.home, env.far)
    env.servers = [env.db.tcp_server(f"0.0.0.0,{DB}", netns=netns) for netns in (env.home, env.far)]


def epoch(env):
    return env.status()["key"]["epoch"]


def forged(env):
    return env.status()["handshakes"]["forged"]


def rotate(env):
    return env.ctl_json("rotate-key")["epoch"]


# ---- actors: started as programs in a workload ----

def act(who, *args, netns=None):
    return who.spawn(["/usr/bin/python3", "-B", os.path.abspath(__file__), *[str(a) for a in args]], netns=netns)


def storm_server(address, port):
    """Gives each connection one byte."""
    sock = socket.create_server((address, int(port)), backlog=4096)
    emit("ready")
    while True:
        connection = sock.accept()[0]
        with connection, contextlib.suppress(OSError):
            connection.send(b"x")


def one_connection(address, port):
    with socket.socket() as sock:
        sock.settimeout(10)
        sock.connect((address, int(port)))
        if sock.recv(1) != b"x":
            raise ConnectionResetError("closed")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves no port behind


def storm(address, port):
    """Connects as fast as it can until its input ends; says how many did not succeed, and how many had to try again."""
    made = slow = 0
    failed = []
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    emit("ready")
    while not ended.is_set():
        start = time.monotonic()
        try:
            one_connection(address, port)
        except OSError as error:
            failed.append(str(error))
        made += 1
        slow += time.monotonic() - start > 0.9
    emit("outcome", made=made, slow=slow, failed=failed[:10])


# ---- tests ----

def test_the_kernel_signs_with_siphash_as_published_and_heeds_the_window_of_a_key(_env):
    reference = harness.BUILD + "/tests/reference"
    result = subprocess.run([f"{reference}/siphash_kernel", f"{reference}/siphash.bpf.o"], capture_output=True,
                            text=True, timeout=60, check=False)
    assert result.returncode == 0, f"{result.stdout[-3000:]}{result.stderr[-6000:]}"
    assert result.stdout.startswith("64 values and the MAC of a segment compared, 0 wrong"), result.stdout


@contextlib.contextmanager
def storms(env):
    """New connections, as fast as four clients can make them: in both directions, on loopback and across a veth. What
    became of them is appended to the list that this yields."""
    here, there = env.veth["4"]
    flows = [(env.web, env.home, env.db, env.home, "127.0.0.1"), (env.db, env.home, env.web, env.home, "127.0.0.2"),
             (env.web, env.home, env.db, env.far, there), (env.db, env.far, env.web, env.home, here)]
    outcomes = []
    for _, _, server, netns, address in flows:
        act(server, "storm_server", address, STORM, netns=netns).wait_event("ready")
    clients = [act(client, "storm", address, STORM, netns=netns) for client, netns, _, _, address in flows]
    for client in clients:
        client.wait_event("ready")
    yield outcomes
    for client in clients:
        client.popen.stdin.close()
        outcomes.append(client.wait_event("outcome", seconds=12))


def rotate_at_once(env):
    """By the control socket: starting policyctl would take longer than what is to be tested."""
    kind, error, _ = control.call(f"{env.run_dir}/control.sock", "RotateKey", "", b"")
    assert kind == control.METHOD_RETURN, error


def rotate_often(env, seconds, pause):
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        rotate_at_once(env)
        n += 1
        time.sleep(pause)
    return n


def test_no_connection_fails_while_the_key_is_replaced_every_20_ms(env):
    before = epoch(env)
    with storms(env) as outcomes:
        rotations = rotate_often(env, 3, 0.02)
    assert epoch(env) == before + rotations and rotations > 75 / PATIENCE
    for outcome in outcomes:
        assert not outcome["failed"] and outcome["made"] > 100 / PATIENCE, outcome
    print(f"# {rotations} rotations, {sum(o['made'] for o in outcomes)} connections, "
          f"{sum(o['slow'] for o in outcomes)} of them by a second SYN")


def test_no_segment_is_refused_while_the_key_is_replaced(env):
    """Not even to be sent again: each was under way over one replacement at most."""
    refused, mark = forged(env), env.audit.mark()
    with storms(env) as outcomes:
        rotate_often(env, 2, 0.4)
    for outcome in outcomes:
        assert not outcome["failed"] and not outcome["slow"] and outcome["made"] > 100 / PATIENCE, outcome
    assert forged(env) == refused
    assert not env.audit.find(mark, event__action="flow-denied")


def connect_over(env, rotations):
    """Connects across the veth, with its SYN held back while the key is replaced so often. Returns how long it took."""
    with HeldBack(env) as held:
        client = env.web.traffic("tcp-client", "--to", f"{env.veth['4'][1]},{DB}", "--count", 1, "--timeout", 5000)
        wait_for(held.is_holding, "the SYN to wait for its neighbour")
        start = time.monotonic()
        for _ in range(rotations):
            rotate_at_once(env)
        held.release()
        took = time.monotonic() - start
        assert took < 0.8, f"too slow: the SYN was held back for {took:.2f} s"
        assert client.wait(10) == 0, client.out
    return time.monotonic() - start


def test_a_syn_held_back_over_one_replacement_of_the_key_counts(env):
    refused = forged(env)
    connect_over(env, 1)
    assert forged(env) == refused


def test_a_syn_held_back_over_two_replacements_of_the_key_counts_by_its_ticket(env):
    """What the kernel itself noted of a segment of this host needs no key to prove it."""
    refused, mark = forged(env), env.audit.mark()
    took = connect_over(env, 2)
    assert forged(env) == refused and took < 0.9, f"{took:.2f} s: the SYN was sent again"
    assert not env.audit.find(mark, event__action="flow-denied")


def test_a_key_outlives_the_daemon(env):
    before, since = epoch(env), env.status()["key"]["since"]
    stream = env.web.tcp_stream(f"127.0.0.1,{DB}", rate=100)
    env.kill_daemon()
    assert env.web.tcp(f"127.0.0.1,{DB}") == "ok"
    assert env.web.tcp(f"{env.veth['4'][1]},{DB}") == "ok"
    env.start()
    assert epoch(env) == before and env.status()["key"]["since"] == since
    assert env.web.tcp(f"127.0.0.1,{DB}") == "ok"
    assert not stream.ended()


def slot_of(env, number):
    """The slot of an epoch in the pinned map, as bytes of struct bh_key."""
    text = subprocess.run(["bpftool", "-j", "map", "lookup", "pinned", env.map_pin("keys"), "key", str(number % 4), "0", "0", "0"],
                          capture_output=True, text=True, check=True).stdout
    return harness.json.loads(text)["value"]


def test_a_key_that_is_old_enough_when_the_daemon_starts_is_replaced(env):
    uptime = float(read("/proc/uptime").split()[0])
    if uptime < 3700:
        raise Skip("the machine is up for less than an hour, so no key can be that old")
    before = epoch(env)
    old = [int(x, 16) for x in slot_of(env, before)]
    aged = old[:16] + list(struct.pack("=Q", int((uptime - 3650) * 1e9)))
    env.stop()
    subprocess.run(["bpftool", "map", "update", "pinned", env.map_pin("keys"), "key", str(before % 4), "0", "0", "0", "value",
                    *[str(x) for x in aged]], check=True)
    mark = env.audit.mark()
    env.daemon_options = ["--key-hours", "1"]
    env.start()
    env.daemon_options = []
    wait_for(lambda: epoch(env) == before + 1, "the key to be replaced")
    env.audit.wait(mark, event__action="key-rotated", event__reason=lambda r: "key_hours" in r)
    assert env.status()["key"]["hours"] == 1
    assert env.web.tcp(f"127.0.0.1,{DB}") == "ok"


def test_old_keys_do_not_stay_in_the_map(env):
    """The slots of the key in use and of the one before it hold keys; the others hold what was never one."""
    seen = {}
    for _ in range(6):
        seen[tuple(slot_of(env, epoch(env))[:16])] = rotate(env)
    now = epoch(env)
    slots = [tuple(slot_of(env, n)) for n in range(4)]
    assert len(set(slots)) == 4
    for number, slot in enumerate(slots):
        lives = number in (now % 4, (now - 1) % 4)
        assert (any(int(x, 16) for x in slot[16:])) == lives, (number, now)
        assert lives or slot[:16] not in seen, "a key that is no longer accepted is still there"


def test_a_workload_cannot_read_the_key(env):
    for uid in (65534, 1000):
        process = env.web.spawn(["/usr/sbin/bpftool", "map", "dump", "pinned", env.map_pin("keys")], uid=uid)
        assert process.wait() != 0 and "key" not in "".join(process.out[1:]), process.out


if __name__ == "__main__":
    {"storm_server": storm_server, "storm": storm}[sys.argv[1]](*sys.argv[2:])

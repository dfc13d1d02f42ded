# SPDX-License-Identifier: Apache-2.0
"""Enforcement has no gap: not while policies are swapped, not while the daemon is killed and comes back."""
import time

from common import POLICY, POLICY_WITHOUT_WEB, ready as common_ready, setup, stream_of  # noqa: F401
from harness import SANITIZED, wait_for
from trials import revision_copy

DB = "127.0.0.1,5432"
ROUNDS = 20
ALLOWED, PROBE, LOOSE, OUTSIDE = 1, 2, 3, 4

# Another policy of other shape: its classes and tables have nothing in common with the first.
OTHER = POLICY.replace("rules:\n", "rules:\n" + "".join(
    f"  - {{name: extra-{i}, action: allow, from: db, to: web, service: tcp/{20000 + i}, log: none}}\n"
    for i in range(200)), 1)


def ready(env):
    common_ready(env)
    env.tcp = env.db.tcp_server("::,5432")
    env.udp = env.db.udp_server("::,5432")
    env.allowed_tcp = env.web.tcp_stream(DB, rate=200, stream=ALLOWED)
    env.allowed_udp = env.web.udp_stream(DB, rate=500, stream=ALLOWED)
    wait_for(lambda: all(s.stat()["received"] > 10 for s in (env.allowed_udp, env.allowed_tcp)), "both to flow")


class Flood:
    """Who may not, all at once: denied by the receiver (probe, outside) or at the source (loose)."""

    def __init__(self, env):
        self.udp = [env.probe.udp_stream(DB, rate=7000, stream=PROBE),
                    env.nobody.udp_stream(DB, rate=4000, stream=OUTSIDE),
                    env.loose.udp_stream(DB, rate=2000, stream=LOOSE)]
        self.tcp = [w.traffic("tcp-flood", "--to", DB, "--rate", 100) for w in (env.probe, env.loose, env.nobody)]
        self.start = time.monotonic()
        wait_for(lambda: all(t.stat()["tried"] > 10 for t in self.tcp), "the TCP floods to run")
        wait_for(lambda: all(u.stat()["made"] > 100 for u in self.udp), "the UDP floods to run")

    def check(self, env, accepted):
        packets = sum(u.stat()["made"] for u in self.udp) + sum(t.stat()["tried"] for t in self.tcp)
        rate = packets / (time.monotonic() - self.start)
        print(f"# {packets} denied packets, {rate:.0f} a second")
        # Nothing of this is on the way any more once an allowed record that was sent later has come back.
        for process in (*self.udp, *self.tcp):
            process.quit()
        assert env.web.udp(DB, stream=9) == "ok"
        assert [t.stat()["connected"] for t in self.tcp] == [0, 0, 0]
        assert [u.stat()["received"] for u in self.udp] == [0, 0, 0]
        denied = (PROBE, LOOSE, OUTSIDE)
        arrived = {s["stream"]: s["received"] for s in env.udp.stat()["streams"] if s["stream"] in denied}
        assert not arrived, f"denied datagrams arrived: {arrived}"
        assert env.tcp.stat()["accepted"] == accepted, "a denied connection was accepted"
        assert SANITIZED or rate >= 10000, f"only {rate:.0f} denied packets a second: this proves less than it should"


def check_no_gap(env):
    """The allowed flows lost nothing."""
    for stream in (env.allowed_tcp, env.allowed_udp):
        stream.command("rate 0")
    sent = env.allowed_udp.stat()["sent"]
    wait_for(lambda: env.allowed_udp.stat()["received"] == sent, "all UDP records to come back")
    tcp, udp = env.allowed_tcp.stat(), env.allowed_udp.stat()
    wait_for(lambda: env.allowed_tcp.stat()["received"] == tcp["sent"], "all TCP records to come back")
    assert not env.allowed_tcp.ended()
    assert udp["refused"] == 0 and udp["out_of_order"] == 0, udp
    assert stream_of(env.udp, ALLOWED)["out_of_order"] == 0
    pauses = ", ".join(f"{name} {s['max_gap_ns'] / 1e6:.1f} ms" for name, s in (("TCP", tcp), ("UDP", udp)))
    print(f"# longest pause of the allowed flows: {pauses}")
    for stream in (env.allowed_tcp, env.allowed_udp):
        stream.command("rate 200")


def test_nothing_denied_arrives_during_policy_swaps(env):
    flood, accepted = Flood(env), env.tcp.stat()["accepted"]
    for i in range(ROUNDS):
        env.apply(OTHER if i % 2 == 0 else POLICY)
        assert env.web.tcp(DB, stream=9) == "ok", "a new connection during the swaps"
    flood.check(env, accepted + ROUNDS)
    check_no_gap(env)


def test_nothing_denied_arrives_while_the_daemon_is_killed_and_restarted(env):
    flood, accepted = Flood(env), env.tcp.stat()["accepted"]
    revision = env.status()["policy"]["revision"]
    rounds = ROUNDS // 2 if SANITIZED else ROUNDS  # what goes on meanwhile is in the kernel
    for _ in range(rounds):
        env.kill_daemon()
        assert env.web.tcp(DB, stream=9) == "ok", "a new connection while the daemon is dead"
        assert env.loose.tcp(DB) == "EPERM", "while the daemon is dead"
        env.start()
    status = env.status()
    assert status["adopted"] and status["enforcing"] and status["policy"]["revision"] == revision, status
    assert env.tag_of(env.web) and env.tag_of(env.db)
    flood.check(env, accepted + rounds)
    check_no_gap(env)


def test_a_daemon_killed_in_the_middle_of_a_swap_leaves_one_policy_whole(env):
    """Whichever it is, the next daemon knows which, and enforces it."""
    for i in range(10):
        apply = env.spawn(env.ctl_argv("apply", env.write_policy(OTHER if i % 2 else POLICY)))
        kill_at = time.monotonic() + 0.004 * i
        wait_for(lambda end=kill_at: time.monotonic() >= end, "the moment to kill it")
        env.kill_daemon()
        apply.wait()
        env.start()
        status = env.status()
        assert status["enforcing"] and env.web.tcp(DB, stream=9) == "ok" and env.loose.tcp(DB) == "EPERM"
        shown = env.ctl_json("show")
        assert shown["revision"] == status["policy"]["revision"], (shown["revision"], status["policy"])
    env.apply(POLICY)
    check_no_gap(env)


def test_a_stored_revision_that_is_not_what_the_kernel_has_takes_its_place(env):
    """As when another version of the compiler made its tables anew: what the daemon knows is what is enforced."""
    env.apply(POLICY)
    good = env.status()["policy"]["revision"]
    env.apply(POLICY_WITHOUT_WEB)
    assert env.stop() == 0
    revision_copy(env, good, good + 1)
    env.start()
    try:
        assert env.status()["policy"]["revision"] == good + 1 and "they are made anew" in env.log_tail()
        assert "service: pg" in env.ctl("show", expect=0).out and env.web.tcp(DB, stream=9) == "ok"
    finally:
        env.apply(POLICY)

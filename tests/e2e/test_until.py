# SPDX-License-Identifier: Apache-2.0
"""Rules end when they say: in the kernel, by the clock, without another policy, and without the daemon."""
import math
import time

from common import POLICY, ready as common_ready, setup  # noqa: F401
from harness import wait_for

DB = "127.0.0.1,5432"
AHEAD = 4  # seconds: enough to apply a policy and to see traffic flow
MS = 1000000
TICK = 20 * MS  # the kernel programs read the clock once a tick, of at most 10 ms


def ready(env):
    common_ready(env)
    env.server = env.db.tcp_server("::,5432")


class Moment:
    """A second of the calendar that lies ahead."""

    def __init__(self):
        self.seconds = math.ceil(time.time()) + AHEAD
        self.text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.seconds))
        self.monotonic_ns = time.monotonic_ns() + int((self.seconds - time.time()) * 1e9)

    def wait(self):
        wait_for(lambda: time.time() > self.seconds + 0.1, "the moment", AHEAD + 2)


def ending_allow(moment):
    return POLICY.replace("    service: pg\n", f"    service: pg\n    until: {moment.text}\n", 1)


def ending_deny(moment):
    return POLICY + f"  - {{name: not-yet, action: deny, from: web, to: db, until: {moment.text}}}\n"


def last_arrived(env, stream):
    connection = next(c for c in env.server.stat()["connections"] if c["stream"] == stream)
    return connection["last_sent_ns"]


def flow_until(env, stream, kill):
    """A connection that is allowed until a moment: it flows before, and nothing that was sent after arrives."""
    moment = Moment()
    env.apply(ending_allow(moment))
    revision = env.status()["policy"]["revision"]
    if kill:
        env.kill_daemon()
    tcp = env.web.tcp_stream(DB, rate=200, stream=stream)
    wait_for(lambda: tcp.stat()["received"] > 20, "traffic before the moment")
    assert time.time() < moment.seconds, "too slow: the moment has come"
    moment.wait()
    assert env.web.tcp(DB, timeout=300) != "ok", "a new connection after the moment"
    late = last_arrived(env, stream) - moment.monotonic_ns
    assert -2000 * MS < late < TICK, f"the last record was sent {late / MS:.0f} ms after the moment"
    return tcp, revision


def test_an_allow_with_until_ends_flows_when_its_time_comes(env):
    try:
        tcp, revision = flow_until(env, 1, kill=False)
        for end in (tcp, env.server):
            event = end.wait_event("ended")
            assert event["errno"] in ("ECONNABORTED", "ECONNRESET", "EPIPE", "ETIMEDOUT", "EPERM"), event
        assert env.status()["policy"]["revision"] == revision, "nobody applied another policy"
    finally:
        env.apply(POLICY)
    assert env.web.tcp(DB) == "ok"


def test_an_allow_with_until_ends_flows_also_without_a_daemon(env):
    try:
        flow_until(env, 2, kill=True)
    finally:
        env.start()
    try:
        assert env.web.tcp(DB, timeout=300) != "ok", "adopted: still over"
    finally:
        env.apply(POLICY)
    assert env.web.tcp(DB) == "ok"


def test_a_deny_with_until_ends_when_its_time_comes(env):
    for kill in (False, True):
        moment = Moment()
        env.apply(ending_deny(moment))
        try:
            if kill:
                env.kill_daemon()
            assert env.web.tcp(DB, timeout=300) != "ok", "before the moment"
            assert time.time() < moment.seconds, "too slow: the moment has come"
            moment.wait()
            assert env.web.tcp(DB) == "ok", "after the moment"
        finally:
            if kill:
                env.start()
            env.apply(POLICY)


def test_a_rule_that_ended_before_it_was_applied_counts_for_nothing(env):
    env.apply(POLICY.replace("    service: pg\n", "    service: pg\n    until: 2020-01-01T00:00:00Z\n", 1))
    try:
        assert env.web.tcp(DB, timeout=300) != "ok"
    finally:
        env.apply(POLICY)


GUARDED = POLICY.replace("rules:\n", """\
tiers: [guardrails, app]
rules:
  - {name: never, tier: guardrails, action: deny, from: web, to: db, service: tcp/5433}
  - {name: go-on, tier: guardrails, priority: 1, action: pass, from: web, to: db}
  - {name: on-trial, priority: -1, action: deny, from: web, to: db, service: tcp/5532, mode: audit}
""", 1)


def test_a_guardrail_beats_the_app_and_audit_mode_lets_pass(env):
    env.db.tcp_server("::,5433", "::,5532")
    assert env.web.tcp("127.0.0.1,5433") == "ok", "the app allows it"
    env.apply(GUARDED)
    try:
        mark = env.audit.mark()
        assert env.web.tcp("127.0.0.1,5433", timeout=300) != "ok", "the guardrail denies first"
        env.audit.wait(mark, event__action="flow-denied", rule__name="never")
        assert env.web.tcp(DB) == "ok", "a pass goes on to the next tier"
        env.audit.wait(mark, event__action="flow-allowed", rule__name="web-to-db")
        assert env.web.tcp("127.0.0.1,5532") == "ok", "in audit mode nothing is denied"
        event = env.audit.wait(mark, event__action="flow-would-deny", rule__name="on-trial")
        assert event["destination"]["port"] == 5532, event
    finally:
        env.apply(POLICY)


LOOPBACK_ONLY = POLICY + """\
  - {name: web-to-loopback, action: allow, from: web, to: pingable, service: tcp/6100}
  - {name: loopback-in, action: allow, from: any, to: any, service: tcp/6100, direction: ingress}
"""


def test_the_address_that_means_this_host_is_not_refused_before_it_is_known(env):
    """connect() to 0.0.0.0 or :: goes to the loopback address, which may be allowed where they are not."""
    env.apply(LOOPBACK_ONLY)
    try:
        env.db.tcp_server("::,6100")
        for address in ("127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:0.0.0.0"):
            assert env.web.tcp(f"{address},6100") == "ok", address
        for address in ("0.0.0.0", "::"):
            assert env.web.tcp(f"{address},6101", timeout=300) != "ok", address
    finally:
        env.apply(POLICY)

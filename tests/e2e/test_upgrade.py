# SPDX-License-Identifier: Apache-2.0
"""Another build with other maps takes over, and back again, with traffic running: nothing is let through, nothing that is
allowed is lost."""
import os

from common import POLICY, setup  # noqa: F401
from harness import DAEMON, DAEMON_LAYOUT, wait_for
from test_audit import balanced
from test_survive import ALLOWED, DB, Flood, check_no_gap, ready, stream_of  # noqa: F401

ROUNDS = 5


def layouts(env):
    """Layout number by map, of what is pinned."""
    found = {}
    for pin in os.listdir(env.pins):
        name, _, number = pin.rpartition("_")
        if number.isdigit():
            assert name not in found, f"{name} is pinned in layouts {found[name]} and {number}"
            found[name] = int(number)
    return found


def change_build(env, to, kill):
    if kill:
        env.kill_daemon()
    else:
        assert env.stop() == 0
    env.program = to
    env.start()
    status = env.status()
    assert status["adopted"] and status["enforcing"], status


def identities(env):
    return sorted((t["identity"], t["cgroup_id"], t["seconds_left"] // 60) for t in env.tags())


def test_another_layout_takes_over_and_back_without_a_gap(env):
    before, tags, revision = layouts(env), identities(env), env.status()["policy"]["revision"]
    flood, accepted = Flood(env), env.tcp.stat()["accepted"]
    for i in range(2 * ROUNDS):
        to = DAEMON if i % 2 else DAEMON_LAYOUT
        change_build(env, to, kill=i % 4 < 2)
        assert (layouts(env) == before) == (to == DAEMON), "the layouts pinned are those of the build that runs"
        assert identities(env) == tags and env.status()["policy"]["revision"] == revision
        assert env.web.tcp(DB, stream=9) == "ok" and env.loose.tcp(DB) == "EPERM"
    assert not env.allowed_tcp.ended(), "an allowed connection ended"
    flood.check(env, accepted + 2 * ROUNDS)
    check_no_gap(env)
    balanced(env)


def test_connections_that_are_no_longer_allowed_are_cut_after_an_upgrade_too(env):
    """What was carried over is judged: by what it says of its peer, under tables that the new build has filled."""
    stream = env.web.tcp_stream(DB, rate=50, stream=5)
    wait_for(lambda: stream.stat()["received"] > 3, "the connection to flow")
    change_build(env, DAEMON_LAYOUT, kill=True)
    got = stream.stat()["received"]
    wait_for(lambda: stream.stat()["received"] > got + 3, "it to flow on")
    try:
        env.apply(POLICY.replace("service: pg", "service: udp/5432"))
        wait_for(stream.ended, "it to be cut")
    finally:
        env.apply(POLICY)
        change_build(env, DAEMON, kill=False)
    # The connection of the file's own is cut with it.
    env.allowed_tcp.kill()
    env.allowed_tcp = env.web.tcp_stream(DB, rate=200, stream=ALLOWED)

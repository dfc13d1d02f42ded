# SPDX-License-Identifier: Apache-2.0
"""What each pair of identities does is counted: exactly, at both ends, and through restarts, full maps and whoever asks
how often."""
import errno
import os
import pty
import re
import select
import subprocess
import time

from bpf import opened_map
from common import POLICY, ready as common_ready, setup, spiffe  # noqa: F401
from harness import PATIENCE, wait_for

PG = "127.0.0.1,5432"
RECORD = 24  # bytes, traffic.h
NUMBERS = ("flows", "denied", "sent_bytes", "received_bytes", "retransmits")
PAIRS_MAX = 16384
VALUE = 64  # struct bh_pair


def ready(env):
    common_ready(env)
    env.far = env.network.namespace("b")
    env.veth = env.network.veth(env.home, env.far)


def pairs(env):
    return {(p["from"], p["to"], p["direction"], p["protocol"]): p for p in env.ctl_json("top")["pairs"]}


class Counted:
    """What has come to a pair since this was made."""

    def __init__(self, env, source, destination, direction, protocol="tcp"):
        names = [n if n in ("world", "host", "unidentified", "other") else spiffe(n) for n in (source, destination)]
        self.env, self.key = env, (*names, direction, protocol)
        self.before = self._now()

    def _now(self):
        pair = pairs(self.env).get(self.key, {})
        return {n: pair.get(n, 0) for n in NUMBERS}

    def __call__(self):
        now = self._now()
        return {n: now[n] - self.before[n] for n in NUMBERS}

    def wait(self, **numbers):
        def there():
            now = self()
            return all(now[n] == want for n, want in numbers.items())
        try:
            wait_for(there, f"{self.key} to have {numbers}")
        except AssertionError as error:
            raise AssertionError(f"{error}, but it has {self()}") from error


def both_ends(env, source="web", destination="db", protocol="tcp"):
    return [Counted(env, source, destination, direction, protocol) for direction in ("egress", "ingress")]


def test_before_anything_is_judged_it_says_so(env):
    result = env.ctl("top", expect=0)
    assert result.out.startswith("nothing has been judged yet"), result
    assert not env.ctl_json("top")["pairs"]


def test_every_connection_is_counted_at_both_ends_with_the_bytes_of_its_payload(env):
    env.db.tcp_server(PG)
    counted = both_ends(env)
    for _ in range(7):
        assert env.web.tcp(PG, count=5) == "ok"
    for end in counted:
        end.wait(flows=7, denied=0, sent_bytes=7 * 5 * RECORD, received_bytes=7 * 5 * RECORD, retransmits=0)


def test_a_connection_that_lives_is_counted_while_it_lives_and_once(env):
    server = env.db.tcp_server(PG)
    counted = both_ends(env)
    stream = env.web.tcp_stream(PG)
    stream.command("send 100")
    wait_for(lambda: stream.stat()["received"] == 100, "all records to come back")
    for end in counted:
        end.wait(flows=1, sent_bytes=100 * RECORD, received_bytes=100 * RECORD)
    for _ in range(5):  # asking does not count anything again
        env.ctl_json("top")
    stream.command("send 11")
    wait_for(lambda: stream.stat()["received"] == 111, "the rest to come back")
    stream.quit()
    wait_for(lambda: not [c for c in server.stat()["connections"] if c.get("open", False)], "the server to close")
    for end in counted:
        end.wait(flows=1, sent_bytes=111 * RECORD, received_bytes=111 * RECORD)
        assert pairs(env)[end.key]["rtt_us"] > 0


def test_the_round_trip_time_is_what_the_kernel_measured(env):
    """Of a pair with one connection that rests."""
    svid = env.ca.issue("/web/rtt")
    to = f"{env.veth['4'][1]},5432"
    env.db.tcp_server(to, netns=env.far)
    stream = env.workload("rtt", svid).tcp_stream(to)
    stream.command("send 50")
    wait_for(lambda: stream.stat()["received"] == 50, "all records to come back")

    def measured():
        text = subprocess.run(["ip", "netns", "exec", env.home, "ss", "-tinHO", "dport", "=", ":5432"], capture_output=True,
                              text=True, check=True).stdout
        return [1000 * float(rtt) for rtt in re.findall(r"\brtt:([0-9.]+)/", text)]

    told = lambda: pairs(env).get((svid.spiffe_id, spiffe("db"), "egress", "tcp"), {}).get("rtt_us")  # noqa: E731
    wait_for(told, "the pair to be told")
    rtt = measured()
    assert len(rtt) == 1 and abs(told() - rtt[0]) <= 2, (told(), rtt)


def test_connections_in_other_namespaces_are_counted_too(env):
    to = f"{env.veth['4'][1]},5432"
    env.db.tcp_server(to, netns=env.far)
    counted = both_ends(env)
    stream = env.web.tcp_stream(to)
    stream.command("send 50")
    wait_for(lambda: stream.stat()["received"] == 50, "all records to come back")
    for end in counted:
        end.wait(flows=1, sent_bytes=50 * RECORD, received_bytes=50 * RECORD)


def test_every_denial_is_counted_also_those_that_the_log_folds(env):
    env.db.udp_server(PG)
    folded = env.status()["events"]["denials_folded"]
    calls = Counted(env, "unidentified", "world", "egress")
    datagrams = Counted(env, "probe", "db", "ingress", "udp")
    for _ in range(5):
        assert env.loose.tcp(PG) == "EPERM"
    flood = env.probe.udp_stream(PG)
    flood.command("send 500")
    wait_for(lambda: flood.stat()["sent"] == 500, "the datagrams to be sent")
    calls.wait(denied=5, flows=0)
    datagrams.wait(denied=500, flows=0)
    assert env.status()["events"]["denials_folded"] > folded + 400


def test_udp_flows_and_their_bytes_are_counted_once(env):
    env.db.udp_server(PG)
    counted = both_ends(env, protocol="udp")
    for connected in (False, True):
        for _ in range(3):
            assert env.web.udp(PG, count=20, connected=connected) == "ok"
    for end in counted:
        end.wait(flows=6, denied=0, sent_bytes=6 * 20 * RECORD, received_bytes=6 * 20 * RECORD)


def test_bytes_of_a_udp_socket_that_lives_are_counted_while_it_lives_and_once(env):
    """Of more flows than a socket keeps at hand, in another namespace, and in the first second as after it."""
    to = f"{env.veth['4'][1]},5432"
    env.db.udp_server(to, netns=env.far)
    wait_for(lambda: env.web.udp(to, timeout=100) == "ok", "web to reach db over the veth")
    reached = time.monotonic()
    wait_for(lambda: time.monotonic() > reached + 0.6, "the daemon to look again: it does twice a second, at most")
    counted, sent = both_ends(env, protocol="udp"), 0
    streams = [env.web.udp_stream(to, connected=True) for _ in range(9)]
    for number in (7, 100):
        for stream in streams:
            stream.command(f"send {number}")
        sent += number
        for stream in streams:
            wait_for(lambda s=stream, n=sent: s.stat()["received"] == n, "all records to come back")
        for end in counted:
            end.wait(flows=9, sent_bytes=9 * sent * RECORD, received_bytes=9 * sent * RECORD)
        for _ in range(3):  # asking does not count anything again
            env.ctl_json("top")
    for stream in streams:
        stream.quit()
    for end in counted:
        end.wait(flows=9, denied=0, sent_bytes=9 * sent * RECORD, received_bytes=9 * sent * RECORD)


def test_bytes_from_who_shows_no_identity_are_counted_too(env):
    env.apply(POLICY + "  - {name: host-asks, action: allow, from: host, to: db, service: udp/7001}\n")
    try:
        env.db.udp_server("127.0.0.1,7001")
        counted = Counted(env, "host", "db", "ingress", "udp")
        for _ in range(2):
            assert env.nobody.udp("127.0.0.1,7001", count=50) == "ok"
        counted.wait(flows=2, sent_bytes=100 * RECORD, received_bytes=100 * RECORD)
    finally:
        env.apply(POLICY)


def test_what_was_denied_has_no_bytes(env):
    env.db.udp_server(PG)
    sent, denied = both_ends(env, "probe", "db", "udp")
    flood = env.probe.udp_stream(PG)
    flood.command("send 50")
    denied.wait(flows=0, denied=50, sent_bytes=0, received_bytes=0)
    sent.wait(flows=1, denied=0, sent_bytes=50 * RECORD, received_bytes=0)


def retransmits(netns):
    """Of all sockets of the namespace, as the kernel counts them."""
    lines = subprocess.run(["ip", "netns", "exec", netns, "cat", "/proc/net/snmp"], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    head, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[head.index("RetransSegs")])


def test_segments_sent_again_are_counted_for_their_pair(env):
    """Every third segment with payload is lost on its way."""
    to = f"{env.veth['4'][1]},5432"
    rules = ("table ip loss { chain in { type filter hook input priority 0;"
             " tcp dport 5432 ip length > 60 numgen inc mod 3 == 0 drop; }\n}\n")
    env.db.tcp_server(to, netns=env.far)
    web, db = both_ends(env)
    subprocess.run(["ip", "netns", "exec", env.far, "nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        before = retransmits(env.home)
        stream = env.web.tcp_stream(to, rate=50)
        wait_for(lambda: stream.stat()["received"] > 60, "records to get through", 15)
        stream.command("rate 0")
        wait_for(lambda: stream.stat()["received"] == stream.stat()["sent"], "the last to get through", 15)
        sent = stream.stat()["sent"]
        want = retransmits(env.home) - before
        assert want > 5, "nothing was lost: this proves nothing"
        web.wait(flows=1, retransmits=want, sent_bytes=sent * RECORD)
        db.wait(flows=1, received_bytes=sent * RECORD)
    finally:
        subprocess.run(["ip", "netns", "exec", env.far, "nft", "delete", "table", "ip", "loss"], check=True)


def test_a_restart_keeps_the_counts_and_counts_on_while_the_daemon_is_away(env):
    env.db.tcp_server(PG)
    counted = both_ends(env)
    stream = env.web.tcp_stream(PG)
    stream.command("send 10")
    wait_for(lambda: stream.stat()["received"] == 10, "the records to come back")
    for end in counted:
        end.wait(flows=1, sent_bytes=10 * RECORD)
    env.db.udp_server(PG)
    datagrams = both_ends(env, protocol="udp")
    env.kill_daemon()
    stream.command("send 10")
    wait_for(lambda: stream.stat()["received"] == 20, "the records to come back")
    assert env.web.tcp(PG, count=5) == "ok"
    assert env.web.udp(PG, count=30) == "ok"
    env.start()
    for end in counted:
        end.wait(flows=2, sent_bytes=25 * RECORD, received_bytes=25 * RECORD)
    for end in datagrams:
        end.wait(flows=1, sent_bytes=30 * RECORD, received_bytes=30 * RECORD)


def test_a_full_map_denies_nothing_and_counts_the_rest_as_other(env):
    env.db.tcp_server(PG)
    # Numbers of identities that workloads carry now: nobody takes these away.
    numbers = [0, 1, 2] + [t["identity"] for t in env.tags()]
    keys = [a.to_bytes(4, "little") + b.to_bytes(4, "little") + bytes((direction, proto, 0, 0))
            for proto in range(255, 17, -1) for a in numbers for b in numbers for direction in (0, 1)]
    others = [Counted(env, "other", "other", direction, "any") for direction in ("egress", "ingress")]
    map_full, made = env.status()["map_full"], []
    svid = env.ca.issue("/web/new")
    with opened_map(f"{env.pins}/pairs_1") as pair_map:
        try:
            for key in keys:
                pair_map.update(key, bytes(VALUE))
                made.append(key)
            raise AssertionError("the map is not full")
        except OSError as error:
            assert error.errno == errno.E2BIG, error
        try:
            new = env.workload("new", svid)
            for _ in range(3):
                assert new.tcp(PG, count=2) == "ok"
            for end in others:
                end.wait(flows=3, sent_bytes=3 * 2 * RECORD)
            assert "no room" in env.ctl("top", expect=0).out
            # All but the two of the rest, and but pairs of identities that have gone since: those make room.
            assert PAIRS_MAX - 20 <= env.ctl_json("top")["pairs_counted"] <= PAIRS_MAX - 2
            assert env.status()["map_full"] == map_full, "something was denied for it"
        finally:
            for key in made:
                pair_map.delete(key)


def test_pairs_of_identities_that_have_gone_make_room(env):
    """Only where room is scarce at once; else they stay for some minutes (tests/unit/test_metrics.c)."""
    def key(number):
        return (9000 + number).to_bytes(4, "little") + bytes(6) + bytes(2)

    with opened_map(f"{env.pins}/pairs_1") as pair_map:
        kept = len(list(pair_map.keys()))
        few, many = 100, PAIRS_MAX // 8 * 7
        for number in range(few):
            pair_map.update(key(number), b"\xff" * 8 + bytes(VALUE - 8))
        assert len(list(pair_map.keys())) == kept + few
        for number in range(few, many):
            # 7000 identities have numbers; the rest are pairs of the same ones.
            pair_map.update(key(number % 7000)[:9] + bytes((17 + number // 7000,)) + bytes(2), bytes(VALUE))
        wait_for(lambda: len(list(pair_map.keys())) <= kept, "them to go", 15)


# ---- what people see ----

def test_one_table_is_printed_where_there_is_no_terminal(env):
    env.db.tcp_server(PG)
    env.db.udp_server(PG)
    assert env.web.tcp(PG, count=5) == "ok" and env.web.udp(PG, count=5) == "ok"
    result = env.ctl("top", expect=0)
    head, *rows = result.out.splitlines()
    assert head.split() == ["FROM", "TO", "DIRECTION", "PROTO", "FLOWS", "DENIED", "SENT", "RECEIVED", "RETRANS", "RTT"]
    assert any(row.split()[:4] == [spiffe("web"), spiffe("db"), "ingress", "tcp"] for row in rows), result
    datagrams = [row.split() for row in rows if row.split()[:4] == [spiffe("web"), spiffe("db"), "ingress", "udp"]]
    assert datagrams and datagrams[0][6] not in ("-", "0") and datagrams[0][-2:] == ["-", "-"], result
    by_denials = env.ctl("--json", "top", "--sort", "denied", expect=0).json()["pairs"]
    assert by_denials == sorted(by_denials, key=lambda p: -p["denied"])


def test_with_an_interval_rates_are_told(env):
    env.db.tcp_server(PG)
    stream = env.web.tcp_stream(PG, rate=200)
    wait_for(lambda: stream.stat()["received"] > 20, "the stream to flow")
    out = env.ctl_json("top", "--interval", "1")
    pair = next(p for p in out["pairs"] if (p["from"], p["direction"]) == (spiffe("web"), "egress")
                and p["protocol"] == "tcp")
    assert 0.9 < out["seconds"] < 3 * PATIENCE
    # What it sends in a second, as far as a busy machine lets it.
    assert 50 * RECORD < pair["per_second"]["sent_bytes"] < 400 * RECORD, pair
    assert pair["per_second"]["flows"] == 0 and 0 < pair["rtt_us"] < 1e6


def test_on_a_terminal_it_is_shown_again_and_again_with_rates(env):
    env.db.tcp_server(PG)
    assert env.web.tcp(PG, count=5) == "ok"
    ours, theirs = pty.openpty()
    argv = env.ctl_argv("top", "--interval", "0.2", "--sort", "flows")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        said, end = "", time.monotonic() + 10 * PATIENCE
        while said.count("\033[H\033[J") < 3 and time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                said += os.read(ours, 65536).decode()
        child.terminate()
    os.close(ours)
    assert said.count("\033[H\033[J") >= 3 and "FLOWS/S" in said and "per second over 0." in said, said
    # No line is wider than the screen (80 columns) but for its names, which are cut in front.
    assert re.search("\u2026[a-z0-9.:/]*/web ", said), said


def test_what_cannot_be_meant_is_refused(env):
    for words in (["--interval", "0"], ["--interval", "x"], ["--sort", "size"], ["--sort"], ["now"],
                  ["--interval", "nan"], ["--interval", "3601"]):
        result = env.ctl("top", *words, expect=2)
        assert "policyctl top:" in result.err, result

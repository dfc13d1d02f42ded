# SPDX-License-Identifier: Apache-2.0
"""The audit log: complete or with its losses counted, one valid JSON line per event, repeated denials folded."""
import contextlib
import os
import signal
import subprocess
import time

from common import POLICY, line_of, ready as common_ready, setup as common_setup, spiffe
from harness import field, read, wait_for
from test_metrics import samples, scrape, value

DB = "127.0.0.1,5432"


def setup(env):
    common_setup(env)
    env.metrics = f"{env.run_dir}/metrics.sock"
    env.daemon_options = ["--metrics", env.metrics]


def ready(env):
    common_ready(env)
    env.tcp_server = env.db.tcp_server("::,5432")
    env.udp_server = env.db.udp_server("::,5432")
    env.kills = 0


def balanced(env):
    """Waits until the ring is empty; returns the counters then."""
    def counters():
        e = env.status()["events"]
        done = (e["made"] == e["written"] + e["lost"]
                and e["notices_made"] == e["notices_written"] + e["notices_lost"])
        return e if done else None
    try:
        return wait_for(counters, "made = written + lost", 20)
    except AssertionError as error:
        raise AssertionError(f"{error}: {env.status()['events']}") from error


def is_flow(event):
    return event["event"]["dataset"] == "bulkhead.flow"


def is_loss(event):
    return event["event"]["action"] == "events-lost"


def check_log_agrees(env):
    """What the counters say was written stands in the log, and what they say was lost is told there. An auditor that is
    killed between writing a line and counting it leaves that line to its successor, who writes it once more: a line too
    many, never one too few."""
    def agrees():
        e = balanced(env)  # anew: telling of a loss makes a notice
        lines = env.audit.poll()
        told = sum(x["zt"]["lost"]["count"] for x in lines if is_loss(x) and x["zt"]["lost"]["what"] == "flow")
        flows = sum(map(is_flow, lines))
        notices = sum(not is_flow(x) for x in lines)
        spare = flows - e["written"] + notices - e["notices_written"]
        return flows >= e["written"] and notices >= e["notices_written"] and spare <= env.kills and told == e["lost"] and e
    try:
        e = wait_for(agrees, "the log to agree with the counters", 20)
    except AssertionError as error:
        lines = env.audit.poll()
        raise AssertionError(f"{error}: {sum(map(is_flow, lines))} flow lines, "
                             f"{sum(not is_flow(x) for x in lines)} notice lines, "
                             f"{[x['zt']['lost'] for x in lines if is_loss(x)]}; counters {env.status()['events']}") from error
    # The kernel lets SIGKILL end a write at a page: the successor ends that line and writes the event again.
    assert len(env.audit.bad) <= env.kills and all(b.startswith(b'{"@timestamp"') for b in env.audit.bad), \
        f"not JSON: {env.audit.bad[:3]}"
    return e


def test_events_made_are_written_or_lost(env):
    before = balanced(env)
    for _ in range(20):
        assert env.web.tcp(DB) == "ok"
    env.loose.tcp(DB)
    env.web.udp(DB)
    after = check_log_agrees(env)
    assert after["made"] >= before["made"] + 42 and after["lost"] == before["lost"], (before, after)


def test_each_line_has_the_documented_fields(env):
    assert env.web.tcp(DB) == "ok"
    env.loose.tcp(DB)
    balanced(env)
    lines = env.audit.poll()
    assert lines and not env.audit.bad
    for line in lines:
        for name in ("@timestamp", "ecs.version", "event.id", "event.sequence", "event.kind", "event.category",
                     "event.type", "event.action", "event.outcome", "event.provider", "event.dataset", "host.id",
                     "observer.type"):
            assert field(line, name) is not None, f"{name} is missing: {line}"
        assert line["event"]["outcome"] in ("success", "failure"), line
        if is_flow(line):
            # A caller that is told no has no source address yet.
            early = line["network"]["direction"] == "egress" and line["event"]["action"] == "flow-denied"
            for name in (*(() if early else ("source.ip",)), "destination.ip", "network.transport", "network.direction",
                         "network.type", "event.code", "event.reason", "rule.version", "zt.proof", "zt.cgroup.id"):
                assert field(line, name) is not None, f"{name} is missing: {line}"


def test_ids_are_unique_and_sequences_have_no_gap(env):
    balanced(env)
    lines = env.audit.poll()
    assert len({x["event"]["id"] for x in lines}) == len(lines)
    for i in range(1, len(lines)):
        a, b = lines[i - 1], lines[i]
        same = a["event"]["id"].rsplit("-", 1)[0] == b["event"]["id"].rsplit("-", 1)[0]
        assert b["event"]["sequence"] == (a["event"]["sequence"] + 1 if same else 1), (a["event"], b["event"])


def test_a_verdict_names_its_rule_with_file_and_line(env):
    mark = env.audit.mark()
    assert env.web.tcp(DB) == "ok"
    event = env.audit.wait(mark, event__action="flow-allowed", network__direction="ingress")
    assert event["rule"]["name"] == "web-to-db" and event["event"]["code"] == "POLICY_ALLOW", event
    assert event["zt"]["rule"]["file"].endswith("policy.yaml"), event
    assert event["zt"]["rule"]["line"] == line_of(POLICY, "name: web-to-db"), event
    assert event["rule"]["version"] == str(env.status()["policy"]["revision"]), event
    assert spiffe("web") in event["related"]["user"] and spiffe("db") in event["related"]["user"], event


def test_a_rule_that_denies_is_named_too(env):
    policy = POLICY + "  - {name: never-6000, action: deny, from: probe, to: any, service: tcp/6000, log: denied}\n"
    env.apply(policy)
    try:
        mark = env.audit.mark()
        assert env.probe.tcp("127.0.0.1,6000") == "EPERM"
        event = env.audit.wait(mark, event__action="flow-denied", zt__source__spiffe_id=spiffe("probe"))
        assert event["rule"]["name"] == "never-6000" and event["event"]["code"] == "POLICY_DENY", event
        assert event["zt"]["rule"]["line"] == line_of(policy, "never-6000"), event
    finally:
        env.apply(POLICY)


def test_repeated_denials_are_folded_and_none_is_uncounted(env):
    mark = env.audit.mark()
    stream = env.loose.udp_stream("127.0.0.1,7171")
    sent = 500
    stream.command(f"send {sent}")
    wait_for(lambda: stream.stat()["made"] == sent, "the datagrams")

    def counted():
        return sum(e["zt"]["count"] for e in env.audit.find(mark, event__action="flow-denied", destination__port=7171))

    # What is not reported yet goes out with the first denial after a second.
    end = time.monotonic() + 10
    while counted() != sent and time.monotonic() < end:
        stream.command("send 1")
        sent += 1
        wait_for(lambda: stream.stat()["made"] == sent, "one more")
        wait_for(lambda t=time.monotonic() + 0.3: time.monotonic() > t or counted() == sent, "the line")
    assert counted() == sent, f"{counted()} of {sent} counted"
    lines = env.audit.find(mark, event__action="flow-denied", destination__port=7171)
    assert len(lines) < 15, f"{len(lines)} lines for {sent} denials"


def test_rules_that_log_nothing_make_no_line(env):
    env.apply(POLICY.replace("log: new", "log: none"))
    try:
        mark = env.audit.mark()
        assert env.web.tcp(DB) == "ok" and env.web.udp(DB) == "ok"
        balanced(env)
        assert not env.audit.find(mark, event__action="flow-allowed")
    finally:
        env.apply(POLICY)


def overflow(env):
    """More verdicts, each of its own kind, than the ring can hold."""
    before = env.status()["events"]
    flood = env.loose.traffic("udp-client", "--to", "127.0.0.1,10000", "--spread", 50000, "--rate", 200000)
    wait_for(lambda: env.status()["events"]["lost"] > before["lost"] + 1000, "events to be lost", 60)
    flood.quit()
    return before


def test_a_stopped_auditor_loses_events_and_says_how_many(env):
    pid = env.role_pids()["auditor"]
    mark = env.audit.mark()
    os.kill(pid, signal.SIGSTOP)
    try:
        before = overflow(env)
    finally:
        if os.path.exists(f"/proc/{pid}"):
            os.kill(pid, signal.SIGCONT)
    after = check_log_agrees(env)
    assert after["lost"] > before["lost"]
    env.audit.wait(mark, event__action="events-lost", event__kind="metric")


def one_event_each(env, workload, to, number):
    """As many datagrams, each to a port of its own, with nobody reading the ring. Returns how many events that lost."""
    before = balanced(env)
    pid = env.role_pids()["auditor"]
    os.kill(pid, signal.SIGSTOP)
    try:
        flood = workload.traffic("udp-client", "--to", to, "--spread", number, "--rate", 0)
        flood.command(f"send {number}")
        wait_for(lambda: flood.stat()["made"] == number, "the datagrams", 20)
        full = env.status()["events"]
        flood.quit()
    finally:
        if os.path.exists(f"/proc/{pid}"):
            os.kill(pid, signal.SIGCONT)
    assert full["made"] - before["made"] == number, "each of them made one event, whatever became of it"
    assert full["written"] == before["written"]
    after = check_log_agrees(env)
    assert after["made"] == full["made"] and after["lost"] == full["lost"], "nothing was lost later"
    return after["lost"] - before["lost"]


def test_the_loss_of_a_full_ring_is_exact_for_both_verdicts(env):
    number = 20000
    room = (1 << 20) // 128  # of the ring, in events with their header
    env.apply(POLICY.replace("    to: any\n    direction: egress\n", "    to: any\n    direction: egress\n    log: new\n"))
    try:
        for workload, to in ((env.loose, "127.0.0.3,10000"), (env.probe, "127.0.0.4,10000")):
            lost = one_event_each(env, workload, to, number)
            print(f"# of {number} events, {lost} did not fit and were counted")
            assert number - room <= lost <= number - room + 64, f"the ring holds {room}"
    finally:
        env.apply(POLICY)


def test_a_killed_auditor_loses_nothing_that_is_not_counted(env):
    flood = env.loose.traffic("udp-client", "--to", "127.0.0.1,10000", "--spread", 50000, "--rate", 20000)
    for _ in range(5):
        pid = env.role_pids()["auditor"]
        written = env.status()["events"]["written"]
        wait_for(lambda w=written: env.status()["events"]["written"] > w, "events to be written")
        env.kills += 1
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda p=pid: env.role_pids().get("auditor") not in (p, None, 0), "another auditor")
    flood.quit()
    check_log_agrees(env)


def test_a_killed_daemon_loses_nothing_that_is_not_counted(env):
    flood = env.loose.traffic("udp-client", "--to", "127.0.0.1,10000", "--spread", 50000, "--rate", 10000)
    for _ in range(3):
        written = env.status()["events"]["written"]
        wait_for(lambda w=written: env.status()["events"]["written"] > w, "events to be written")
        env.kills += 1
        env.kill_daemon()
        env.start()
    flood.quit()
    check_log_agrees(env)


def test_a_moved_log_is_opened_again_on_reload(env):
    balanced(env)
    env.audit.poll()
    os.rename(env.audit.path, env.audit.path + ".1")
    env.ctl("reload", expect=0)
    wait_for(lambda: os.path.exists(env.audit.path), "a new log")
    old = os.path.getsize(env.audit.path + ".1")
    assert env.web.tcp(DB) == "ok"
    wait_for(lambda: os.path.getsize(env.audit.path) > 0, "lines in the new log")
    assert os.path.getsize(env.audit.path + ".1") == old


# ---- a log that cannot be written ----

@contextlib.contextmanager
def full_disk(env):
    """The log is on a file system without room. Yields what makes room there."""
    small, log = f"{env.dir}/small", f"{env.dir}/small/audit.jsonl"
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=True)
    try:
        open(log, "x", encoding="ascii").close()
        with open(f"{small}/filler", "wb", buffering=0) as f, contextlib.suppress(OSError):
            while True:
                f.write(bytes(4096))
        subprocess.run(["mount", "--bind", log, env.audit.path], check=True)
        try:
            env.ctl("reload", expect=0)
            yield lambda: os.unlink(f"{small}/filler")
        finally:
            subprocess.run(["umount", "-l", env.audit.path], check=True)
    finally:
        env.ctl("reload", expect=0)  # and nobody has it open any more
        subprocess.run(["umount", "-l", small], check=True)
        os.rmdir(small)


def health(env):
    """What `status` says of the log, for people and for programs, and the metric."""
    result = None
    while result is None or told != env.status()["audit"]:  # it may change between the two
        told, result = env.status()["audit"], env.ctl("status")
    assert result.rc == (0 if told["ok"] else 1), str(result)
    assert result.out.split("  ")[0] == ("ok" if told["ok"] else "NOT LOGGING"), str(result)
    assert told["ok"] == (told["problem"] is None) == (told["since"] is None), told
    assert told["ok"] or f"since {told['since']} {told['problem']}" in result.out, str(result)
    return told


def is_written(env):
    return value(samples(scrape(env)[1]), "bulkhead_audit_writing")


def test_a_log_on_a_full_disk_is_told_until_there_is_room(env):
    assert health(env)["ok"] and is_written(env) == 1
    with full_disk(env) as make_room:
        assert env.loose.tcp(DB) == "EPERM"
        told = wait_for(lambda: (told := health(env))["problem"] and told, "it to be told")
        assert "No space left on device" in told["problem"] and "make room there" in told["problem"], told
        wait_for(lambda: is_written(env) == 0, "the metric")
        # One that starts anew has still to find out: what was known stays.
        pid = env.role_pids()["auditor"]
        env.kills += 1
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: env.role_pids().get("auditor") not in (pid, None, 0), "another auditor")
        assert health(env)["since"] == told["since"]
        make_room()
        wait_for(lambda: health(env)["ok"], "it to be well, though nothing else happens")
        wait_for(lambda: is_written(env) == 1, "the metric")
        assert "events-lost" in read(env.audit.path)


def test_a_log_that_cannot_be_opened_is_told_until_it_can(env):
    os.rename(env.audit.path, env.audit.path + ".kept")
    os.mkdir(env.audit.path)
    try:
        assert env.ctl("reload").rc
        told = health(env)
        assert "Is a directory; events still go to the file that was opened before" in told["problem"], told
        assert "`policyctl reload`" in told["problem"], told
    finally:
        os.rmdir(env.audit.path)
        os.rename(env.audit.path + ".kept", env.audit.path)
    env.ctl("reload", expect=0)
    assert health(env)["ok"]

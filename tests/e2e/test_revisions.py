# SPDX-License-Identifier: Apache-2.0
"""Revisions: a policy on trial comes back by itself, in every way that a night can go wrong; going back; who did what;
and no operator cuts their own session unasked."""
import json
import os
import shutil
import struct
import subprocess
import sys
import time

from common import POLICY, POLICY_WITHOUT_WEB, ready as common_ready, setup  # noqa: F401
from harness import PATIENCE, Skip, read, wait_for

DB = "127.0.0.1,5432"
YES, NO, USAGE = 0, 1, 2
TRIAL = 5 * PATIENCE  # the shortest there is is 5 s

# Denies by a rule, where POLICY_WITHOUT_WEB leaves it to the default.
POLICY_AGAINST_WEB = POLICY.replace("rules:\n", "rules:\n  - {name: no-web, action: deny, from: web, to: any}\n", 1)


def ready(env):
    common_ready(env)
    serve(env)


def serve(env):
    env.server = env.db.tcp_server("::,5432", "::,6000")


def policy_of(env):
    return env.status()["policy"]


def on_trial(env, text=POLICY_WITHOUT_WEB, seconds=TRIAL):
    """Applies for a time. Returns what policyctl answered."""
    return env.ctl_json("apply", env.write_policy(text), "--confirm", f"{seconds}s")


def fresh(env):
    """POLICY in force, for good, and a db that listens."""
    if env.server.ended():
        serve(env)
    if policy_of(env)["waiting"]:
        env.ctl("rollback", "--yes", expect=YES)
    env.apply(POLICY)
    return policy_of(env)


def web_reaches(env, expected):
    assert (env.web.tcp(DB) == "ok") == expected


def back(env, before, since):
    """What was in force before is in force again, and the audit log says why."""
    event = env.audit.wait(since, seconds=TRIAL + 10, event__action="policy-not-confirmed")
    after = wait_for(lambda: (p := policy_of(env))["digest"] == before["digest"] and p, "the policy to come back")
    assert after["waiting"] is None and after["revision"] == before["revision"] + 2, (before, after)
    assert event["zt"]["policy"]["revision"] == before["revision"] + 2, event
    assert event["zt"]["policy"]["previous_revision"] == before["revision"] + 1, event
    assert not os.path.exists(f"{env.dir}/state/confirmation")
    web_reaches(env, True)


# ---- on trial ----

def test_a_confirmed_policy_stays(env):
    before, mark = fresh(env), env.audit.mark()
    result = on_trial(env)
    assert result["revision"] == before["revision"] + 1 and result["replaced"] == before["revision"], result
    waiting = policy_of(env)["waiting"]
    assert waiting["revision"] == result["revision"] and waiting["previous"] == before["revision"], waiting
    assert 0 < waiting["seconds_left"] <= TRIAL, waiting
    assert "waits to be confirmed" in env.ctl("status", expect=YES).out
    event = env.audit.wait(mark, event__action="policy-applied")
    assert event["zt"]["policy"]["confirm_by"], event
    web_reaches(env, False)
    assert env.ctl_json("confirm")["revision"] == result["revision"]
    env.audit.wait(mark, event__action="policy-confirmed", user__id="0")
    assert policy_of(env)["waiting"] is None
    end = time.monotonic() + TRIAL + 1
    wait_for(lambda: time.monotonic() > end, "the time to be over", TRIAL + 5)
    assert policy_of(env)["revision"] == result["revision"]
    web_reaches(env, False)


def test_an_unconfirmed_policy_goes_by_itself(env):
    before, mark = fresh(env), env.audit.mark()
    start = time.monotonic()
    on_trial(env)
    web_reaches(env, False)
    back(env, before, mark)
    assert TRIAL - 1 < time.monotonic() - start < TRIAL + 3 * PATIENCE
    result = env.ctl("confirm", expect=NO)
    assert "nothing waits" in result.err, str(result)


def test_going_back_cuts_what_only_the_trial_allowed(env):
    fresh(env)
    stream, mark = None, env.audit.mark()
    on_trial(env, POLICY.replace("tcp/7000", "tcp/6000").replace("from: world", "from: web"))
    stream = env.web.tcp_stream("127.0.0.1,6000", rate=100)
    wait_for(lambda: stream.stat()["received"] > 10, "traffic")
    assert stream.wait_event("ended", seconds=TRIAL + 5)["errno"]
    env.audit.wait(mark, event__action="sockets-cut", event__reason="policy not confirmed")


def test_the_trial_ends_though_the_daemon_was_killed_and_came_back_late(env):
    before, mark = fresh(env), env.audit.mark()
    on_trial(env)
    env.kill_daemon()
    end = time.monotonic() + TRIAL
    web_reaches(env, False)  # what is in the kernel goes on
    wait_for(lambda: time.monotonic() > end, "the time to be over", TRIAL + 5)
    env.start()
    back(env, before, mark)


def test_the_trial_goes_on_with_a_daemon_that_came_back_in_time(env):
    before, mark = fresh(env), env.audit.mark()
    on_trial(env)
    env.kill_daemon()
    env.start()
    waiting = policy_of(env)["waiting"]
    assert waiting and waiting["previous"] == before["revision"], waiting
    back(env, before, mark)


def test_a_restarted_daemon_can_still_be_told_that_it_stays(env):
    fresh(env)
    result = on_trial(env)
    assert env.stop() == 0
    env.start()
    assert env.ctl_json("confirm")["revision"] == result["revision"]
    assert env.stop() == 0
    env.start()
    assert policy_of(env)["revision"] == result["revision"] and policy_of(env)["waiting"] is None


def reboot(env):
    """Another boot: another boot id, a clock that began anew, and nothing in the kernel. Was one on trial?"""
    path = f"{env.dir}/state/confirmation"
    for name in os.listdir(env.pins):
        os.unlink(f"{env.pins}/{name}")
    if not os.path.exists(path):
        return False
    with open(path, "rb") as f:
        data = f.read()
    boot = read("/proc/sys/kernel/random/boot_id").strip().encode()
    with open(path, "wb") as f:
        f.write(data.replace(boot, b"0" * len(boot)))
    return boot in data


def test_after_a_reboot_the_confirmed_policy_starts(env):
    before, mark = fresh(env), env.audit.mark()
    on_trial(env, seconds=3600)
    env.kill_daemon()
    assert reboot(env)
    env.start()
    for workload in (env.web, env.db):
        workload.attest(env.svid[workload.name])
    env.server.kill()  # its socket was judged in the former boot
    serve(env)
    back(env, before, mark)


def test_a_policy_that_never_came_into_force_is_forgotten(env):
    """The daemon was killed when the trial was on disk and the policy not yet in the kernel."""
    before = fresh(env)
    env.kill_daemon()
    number = before["revision"] + 1
    directory = f"{env.dir}/state/revisions"
    with open(f"{directory}/{before['revision']:08}.rev", "rb") as f:
        data = bytearray(f.read())
    data[8:12] = struct.pack("=I", number)
    with open(f"{directory}/{number:08}.rev", "wb") as f:
        f.write(data)
    with open(f"{env.dir}/state/confirmation", "wb") as f:
        f.write(struct.pack("=8sIIQ37s3x", b"BHCNF1", number, before["revision"], 1 << 62,
                            read("/proc/sys/kernel/random/boot_id").strip().encode()))
    env.start()
    assert policy_of(env)["revision"] == before["revision"] and policy_of(env)["waiting"] is None
    assert not os.path.exists(f"{directory}/{number:08}.rev")


def revision_path(env, number):
    return f"{env.dir}/state/revisions/{number:08}.rev"


def test_a_policy_that_was_stored_but_not_answered_does_not_come_with_the_next_boot(env):
    """The daemon was killed between storing the revision and the swap, and the host restarts a month later."""
    before = fresh(env)
    number = before["revision"] + 1
    env.apply(POLICY_WITHOUT_WEB)
    shutil.copy(revision_path(env, number), f"{env.dir}/kept")
    env.kill_daemon()
    reboot(env)
    os.unlink(revision_path(env, number))
    env.start()
    assert policy_of(env)["digest"] == before["digest"]
    env.kill_daemon()
    os.rename(f"{env.dir}/kept", revision_path(env, number))
    env.start()
    assert policy_of(env)["revision"] == before["revision"]
    assert not os.path.exists(revision_path(env, number))
    env.kill_daemon()
    reboot(env)
    env.start()
    assert policy_of(env)["revision"] == before["revision"]


def test_a_policy_on_trial_that_cannot_be_read_is_gone_back_from(env):
    before, number = fresh(env), on_trial(env, seconds=3600)["revision"]
    env.kill_daemon()
    with open(revision_path(env, number), "r+b") as f:
        f.truncate(100)
    env.start()
    after = policy_of(env)
    assert after["digest"] == before["digest"] and after["waiting"] is None, after


def test_what_replaced_the_policy_on_trial_outlives_its_record(env):
    """The record of the trial could not be removed when the operator rolled back, and then the host restarted."""
    fresh(env)
    env.apply(POLICY_AGAINST_WEB)
    against = policy_of(env)
    env.apply(POLICY)
    on_trial(env, seconds=3600)
    shutil.copy(f"{env.dir}/state/confirmation", f"{env.dir}/kept")
    env.ctl("rollback", against["revision"], "--yes", expect=YES)
    rolled_back = policy_of(env)
    env.kill_daemon()
    os.rename(f"{env.dir}/kept", f"{env.dir}/state/confirmation")
    assert reboot(env)
    env.start()
    after = policy_of(env)
    assert (after["revision"], after["digest"]) == (rolled_back["revision"], against["digest"]), after
    assert after["waiting"] is None


def test_a_trial_without_a_way_back_does_not_begin(env):
    before = fresh(env)
    os.rename(revision_path(env, before["revision"]), f"{env.dir}/kept")
    result = env.ctl("apply", env.write_policy(POLICY_WITHOUT_WEB), "--confirm", "60s")
    os.rename(f"{env.dir}/kept", revision_path(env, before["revision"]))
    assert result.rc == 3 and f"no way back to revision {before['revision']}" in result.err, str(result)
    assert "without --confirm" in result.err, str(result)
    assert policy_of(env)["revision"] == before["revision"] and policy_of(env)["waiting"] is None


def killed_at(env, call, nth, *args):
    """Runs policyctl, and kills the enforcer when it enters a system call of that kind for the nth time. Returns the
    exit code of policyctl, or None if the call was never made."""
    tracer = subprocess.Popen(  # pylint: disable=consider-using-with
        ["strace", "-qq", "-o", "/dev/null", "-p", str(env.daemon.pid), "-e", f"trace={call}",
         "-e", f"inject={call}:signal=SIGKILL:when={nth}"], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: "TracerPid:\t0\n" not in read(f"/proc/{env.daemon.pid}/status"), "the tracer")
        result = env.ctl(*args)
        killed = result.rc == 3
        if killed:
            env.daemon.wait(10)
        return result.rc if killed else None
    finally:
        tracer.terminate()
        tracer.wait()


def restarted(env):
    env.start()
    return policy_of(env)


def killed_everywhere(env, prepare, *args):
    """Kills the enforcer at every system call by which it carries out a command, `prepare` having come before each.
    Yields where, the policy in force after a restart, and that after a reboot."""
    if not shutil.which("strace"):
        raise Skip("there is no strace")
    points = 0
    for call in ("fsync", "renameat", "unlinkat", "membarrier"):
        for nth in range(1, 50):
            prepare()
            if killed_at(env, call, nth, *args) is None:
                break
            points += 1
            after = restarted(env)
            env.kill_daemon()
            reboot(env)
            yield (call, nth), after, restarted(env)
    assert points >= 3, points
    if policy_of(env)["waiting"]:
        env.ctl("rollback", "--yes", expect=YES)
    for workload in (env.web, env.db):
        workload.attest(env.svid[workload.name])


def digests(env):
    """Of POLICY, in force now, and of POLICY_WITHOUT_WEB."""
    old = fresh(env)["digest"]
    env.apply(POLICY_WITHOUT_WEB)
    new = policy_of(env)["digest"]
    env.apply(POLICY)
    return old, new


def test_a_trial_begins_wholly_or_not_at_all(env):
    old, new = digests(env)
    path = env.write_policy(POLICY_WITHOUT_WEB)
    for where, after, rebooted in killed_everywhere(env, lambda: fresh(env), "apply", path, "--confirm", "1h"):
        assert after["digest"] == (new if after["waiting"] else old), (where, after)
        assert rebooted["digest"] == old and rebooted["waiting"] is None, (where, rebooted)


def test_a_trial_is_gone_back_from_wholly_or_not_at_all(env):
    old, new = digests(env)

    def prepare():
        fresh(env)
        on_trial(env, seconds=3600)

    for where, after, rebooted in killed_everywhere(env, prepare, "rollback", "--yes"):
        assert after["digest"] == (new if after["waiting"] else old), (where, after)
        assert rebooted["digest"] == old and rebooted["waiting"] is None, (where, rebooted)


def test_a_confirmed_policy_is_never_gone_back_from_even_if_the_answer_was_lost(env):
    old, new = digests(env)

    def prepare():
        fresh(env)
        on_trial(env, seconds=3600)

    points = 0
    for call in ("unlinkat", "fsync"):
        for nth in range(1, 10):
            prepare()
            if killed_at(env, call, nth, "confirm") is None:
                break
            points += 1
            after = restarted(env)
            assert after["digest"] == new, (call, nth, after)
            env.kill_daemon()
            reboot(env)
            rebooted = restarted(env)
            assert rebooted["digest"] == (old if after["waiting"] else new), (call, nth, after, rebooted)
            assert rebooted["waiting"] is None, (call, nth, rebooted)
    assert points >= 2, points
    for workload in (env.web, env.db):
        workload.attest(env.svid[workload.name])


def test_a_daemon_killed_over_and_over_on_its_way_back_gets_there(env):
    """The time ended while the daemon was away; it is killed at every step of going back, each time a step later."""
    if not shutil.which("strace"):
        raise Skip("there is no strace")
    before = fresh(env)
    trial = on_trial(env)
    env.kill_daemon()
    end = time.monotonic() + TRIAL
    wait_for(lambda: time.monotonic() > end, "the time to be over", TRIAL + 5)
    for call in ("fsync", "renameat", "membarrier", "unlinkat"):
        argv = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when=1"]
        subprocess.run(argv + env.daemon_argv(), check=False, timeout=30, capture_output=True)
    after = restarted(env)
    assert after["digest"] == before["digest"] and after["waiting"] is None, after
    assert after["revision"] <= trial["revision"] + 5, (trial, after)


def test_the_way_back_is_gone_even_if_it_cannot_be_stored(env):
    before, mark = fresh(env), env.audit.mark()
    on_trial(env)
    os.rename(f"{env.dir}/state/revisions/{before['revision']:08}.rev", f"{env.dir}/kept")
    os.mkdir(f"{env.dir}/state/revisions/new")  # nothing can be written under this name
    wait_for(lambda: "the way back to" in env.log_tail(), "the first attempt", TRIAL + 5)
    assert policy_of(env)["waiting"], "it stays on trial"
    os.rename(f"{env.dir}/kept", f"{env.dir}/state/revisions/{before['revision']:08}.rev")
    env.audit.wait(mark, seconds=TRIAL + 15, event__action="policy-not-confirmed")
    web_reaches(env, True)
    os.rmdir(f"{env.dir}/state/revisions/new")
    # Its revision is not on disk: who starts next does not take the policy on trial for a good one.
    assert env.stop() == 0
    env.start()
    assert policy_of(env)["digest"] == before["digest"]
    web_reaches(env, True)


def test_a_trial_whose_way_back_is_lost_can_be_ended_by_hand(env):
    """Also after a reboot, whose clock knows nothing of the deadline."""
    before = fresh(env)
    env.apply(POLICY_AGAINST_WEB)
    lost = policy_of(env)["revision"]
    trial = on_trial(env, seconds=3600)
    env.kill_daemon()
    reboot(env)
    os.unlink(revision_path(env, lost))
    after = restarted(env)
    assert after["revision"] == trial["revision"] and after["waiting"]["seconds_left"] == 0, after
    result = env.ctl("apply", env.write_policy(POLICY), expect=NO)
    assert f"revision {trial['revision']} waits" in result.err, str(result)
    env.ctl("rollback", expect=NO)
    env.ctl("rollback", before["revision"], expect=YES)
    assert policy_of(env)["digest"] == before["digest"] and policy_of(env)["waiting"] is None
    for workload in (env.web, env.db):
        workload.attest(env.svid[workload.name])


def test_only_one_policy_is_on_trial(env):
    before = fresh(env)
    trial = on_trial(env, seconds=3600)
    path = env.write_policy(POLICY)
    for args in (("apply", path), ("apply", path, "--confirm", "60s"), ("apply", path, "--yes")):
        result = env.ctl(*args, expect=NO)
        assert f"revision {trial['revision']} waits to be confirmed" in result.err, str(result)
    assert policy_of(env)["revision"] == trial["revision"]
    mark = env.audit.mark()
    result = env.ctl_json("rollback")
    assert result["revision"] == trial["revision"] + 1 and result["replaced"] == trial["revision"], result
    assert policy_of(env)["digest"] == before["digest"] and policy_of(env)["waiting"] is None
    event = env.audit.wait(mark, event__action="policy-rolled-back")
    assert event["event"]["reason"] == f"rollback to {before['revision']}", event
    web_reaches(env, True)


def test_a_time_to_confirm_has_bounds(env):
    path = env.write_policy(POLICY)
    for text in ("4s", "25h", "60", "x", "-5s", "99999999999999999999s", "5x", ""):
        result = env.ctl("apply", path, "--confirm", text, expect=USAGE)
        assert "5s to 24h" in result.err, str(result)
    env.ctl("apply", path, "--confirm", expect=USAGE)
    env.ctl("apply", path, "--dry-run", "--confirm", "60s", expect=USAGE)


# ---- going back ----

def test_a_rollback_goes_back_one_and_again_one(env):
    a = fresh(env)
    env.apply(POLICY_WITHOUT_WEB)
    b = policy_of(env)
    env.apply(POLICY_AGAINST_WEB)
    first = env.ctl_json("rollback")
    assert first["revision"] == b["revision"] + 2 and policy_of(env)["digest"] == b["digest"], first
    second = env.ctl_json("rollback")
    assert second["revision"] == b["revision"] + 3 and policy_of(env)["digest"] == a["digest"], second
    web_reaches(env, True)
    text = env.ctl("rollback", b["revision"], expect=YES).out
    assert f"rolled back from {second['revision']}" in text, text
    assert policy_of(env)["digest"] == b["digest"]


def test_a_rollback_never_returns_to_what_was_not_confirmed(env):
    fresh(env)
    env.apply(POLICY_AGAINST_WEB)
    good = policy_of(env)
    mark = env.audit.mark()
    bad = on_trial(env)
    env.audit.wait(mark, seconds=TRIAL + 10, event__action="policy-not-confirmed")
    wait_for(lambda: policy_of(env)["digest"] == good["digest"], "the policy to come back")
    env.ctl("rollback", expect=YES)
    assert policy_of(env)["digest"] not in (good["digest"], env.ctl_json("show", bad["revision"])["digest"])
    web_reaches(env, True)


def test_a_rollback_to_nowhere_says_where_one_could(env):
    now = fresh(env)["revision"]
    for args in (("rollback", 999999), ("show", 999999)):
        result = env.ctl(*args, expect=NO)
        assert "there is no revision 999999" in result.err and f" to {now}" in result.err, str(result)
    for text in ("x", "0", "-1"):
        env.ctl("rollback", text, expect=USAGE)
    assert policy_of(env)["revision"] == now


def test_a_rollback_is_not_held_up_by_a_test_that_has_become_wrong(env):
    """What was in force once can come back at 3 a.m., whatever it says about itself."""
    end = time.time() + 3 * PATIENCE
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end + 1))
    text = POLICY.replace("    service: pg\n", f"    service: pg\n    until: {stamp}\n", 1) + \
        "tests:\n  - {from: web, to: db, service: tcp/5432, expect: allow}\n"
    fresh(env)
    env.apply(text)
    good = policy_of(env)
    env.apply(POLICY)
    wait_for(lambda: time.time() > end + 2, "the rule to expire", 10)
    result = env.ctl("apply", env.write_policy(text), expect=NO)
    assert "tests" in result.err and "stays" in result.err, str(result)
    dry = env.ctl("apply", env.write_policy(text), "--dry-run", expect=NO)
    assert "could not be applied" in dry.err, str(dry)
    env.ctl("rollback", expect=YES)
    assert policy_of(env)["digest"] == good["digest"]


# ---- history ----

def test_history_tells_who_when_and_what(env):
    fresh(env)
    env.ctl("apply", env.write_policy(POLICY_AGAINST_WEB), "--comment", "web is\nsuspicious", expect=YES)
    env.apply(POLICY_AGAINST_WEB.replace("tcp/7000", "tcp/7001").replace("log: new", "log: all", 1))
    env.ctl("rollback", expect=YES)
    items = env.ctl_json("history")
    rolled, changed, added, first = items[:4]
    now = policy_of(env)["revision"]
    assert [i["revision"] for i in items[:4]] == [now, now - 1, now - 2, now - 3]
    assert [i["state"] for i in items[:4]] == ["in-force", "past", "past", "past"]
    assert added["comment"] == "web is\nsuspicious" and added["uid"] == 0
    assert added["via"].startswith("policyctl < python3"), added["via"]
    assert added["changes"]["rules"] == {"added": ["no-web"], "removed": [], "changed": []}, added
    assert added["changes"]["definitions"] == {"added": [], "removed": [], "changed": []}, added
    assert changed["changes"]["rules"]["changed"] == ["web-to-db"], changed
    assert changed["changes"]["definitions"]["changed"] == ["services/open"], changed
    assert rolled["cause"] == "rolled-back" and rolled["target"] == now - 2, rolled
    assert rolled["changes"] == changed["changes"], "as it came so it goes"
    assert first["rules"] == POLICY.count("- name:") and added["rules"] == first["rules"] + 1
    text = env.ctl("history", "--last", 3, expect=YES).out
    assert "root (0)" in text and "+no-web" in text and "~web-to-db ~services/open" in text, text
    assert "web is suspicious" in text and "in force" in text.splitlines()[0], text
    assert len(env.ctl_json("history", "--last", 2)) == 2
    env.ctl("history", "--last", "x", expect=USAGE)


def test_history_tells_a_trial_that_failed(env):
    fresh(env)
    mark = env.audit.mark()
    trial = on_trial(env)
    assert env.ctl_json("history")[0]["state"] == "waiting"
    env.audit.wait(mark, seconds=TRIAL + 10, event__action="policy-not-confirmed")
    items = wait_for(lambda: (i := env.ctl_json("history"))[0]["revision"] == trial["revision"] + 1 and i, "the end")
    assert items[0]["cause"] == "not-confirmed" and items[1]["state"] == "not-confirmed", items[:2]
    assert "the daemon" in env.ctl("history", "--last", 1, expect=YES).out


def test_the_audit_log_names_the_operator(env):
    mark = env.audit.mark()
    env.apply(POLICY)
    event = env.audit.wait(mark, event__action="policy-applied")
    assert event["zt"]["operator"]["via"].startswith("policyctl < python3"), event
    assert event["user"]["id"] == "0" and event["process"]["pid"], event


# ---- dry run ----

def test_a_dry_run_changes_nothing_and_says_what_would(env):
    before = fresh(env)
    stream = env.web.tcp_stream(DB, rate=100)
    wait_for(lambda: stream.stat()["received"] > 10, "traffic")
    mark = env.audit.mark()
    path = env.write_policy(POLICY_AGAINST_WEB)
    result = env.ctl("--json", "apply", path, "--dry-run", expect=YES).json()
    assert result["would_cut"] >= 1 and result["would_cut_session"] is False, result
    assert result["changes"]["rules"]["added"] == ["no-web"], result
    assert "no-web" in json.dumps(result["diff"]) and "web-to-db" in json.dumps(result["diff"]), result["diff"]
    text = env.ctl("apply", "--dry-run", path, expect=YES).out
    assert "+no-web" in text and "nothing was changed" in text, text
    same = env.ctl("--json", "apply", env.write_policy(POLICY), "--dry-run", expect=YES).json()
    assert same["would_cut"] == 0, same
    bad = env.ctl("apply", env.write_policy(POLICY.replace("from: web", "from: wbe")), "--dry-run", expect=NO)
    assert "wbe" in bad.err, str(bad)
    after = policy_of(env)
    assert (after["revision"], after["digest"]) == (before["revision"], before["digest"])
    seen = stream.stat()["received"]
    wait_for(lambda: stream.stat()["received"] > seen + 10, "traffic to go on")
    assert not env.audit.find(mark, event__action="policy-applied") and not stream.ended()


def test_what_is_foretold_to_be_cut_is_what_is_cut(env):
    fresh(env)
    streams = [env.web.tcp_stream(DB, rate=100, stream=i) for i in range(5)]
    wait_for(lambda: all(s.stat()["received"] > 5 for s in streams), "traffic")
    path = env.write_policy(POLICY_AGAINST_WEB)
    foretold = env.ctl("--json", "apply", path, "--dry-run", expect=YES).json()["would_cut"]
    cut = env.ctl_json("apply", path)["sockets_cut"]
    # Both ends of each are here; the destruction of one may close the other before its turn comes.
    assert foretold == 10 and 5 <= cut <= 10, (foretold, cut)


# ---- the operator's own session ----

class Session:
    """web plays the operator's end, db plays sshd, which runs commands as its children; or who is named."""

    def __init__(self, env, server=None, client=None, address="127.0.0.1"):
        server, client = server or env.db, client or env.web
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "session.py")
        self.env = env
        self.server = server.spawn([sys.executable, script, "server", address, "5433"])
        self.server.wait_event("ready")
        self.client = client.spawn([sys.executable, script, "client", address, "5433"])
        self.client.wait_event("connected")
        self.hint = self.server.wait_event("accepted")["hint"]

    def ctl(self, *args, answer=None, **settings):
        since = len(self.server.events)
        self.server.command(json.dumps({"argv": self.env.ctl_argv(*args), "answer": answer, "env": settings}))
        return self.server.wait_event("ran", since=since, seconds=20)

    def lives(self):
        since = len(self.server.events)
        self.server.command("ping")
        return self.server.wait_event("pong", since=since, seconds=20)["ok"]


def test_an_apply_that_would_cut_its_own_session_is_refused(env):
    before, session, mark = fresh(env), Session(env), env.audit.mark()
    for text, by in ((POLICY_WITHOUT_WEB, "no rule allows it"), (POLICY_AGAINST_WEB, 'rule "no-web"')):
        path = env.write_policy(text)
        result = session.ctl("apply", path)
        assert result["rc"] == NO, result
        for part in ("you came through", by, "127.0.0.1:5433", "--yes", "--confirm 60s"):
            assert part in result["err"], f"{part!r} is not in {result['err']!r}"
        env.audit.wait(mark, event__action="policy-refused", event__reason=lambda r: by in r)
        dry = session.ctl("apply", path, "--dry-run")
        assert dry["rc"] == YES and "CAUTION" in dry["out"] and by in dry["out"], dry
    assert session.lives()
    after = policy_of(env)
    assert (after["revision"], after["digest"]) == (before["revision"], before["digest"])
    assert session.ctl("apply", env.write_policy(POLICY.replace("tcp/7000", "tcp/7001")))["rc"] == YES
    assert session.lives(), "another change does not concern it"


def test_an_apply_with_yes_cuts_its_own_session(env):
    fresh(env)
    session = Session(env)
    result = session.ctl("apply", env.write_policy(POLICY_WITHOUT_WEB), "--yes", "--confirm", f"{TRIAL}s")
    assert result["rc"] == YES, result
    assert session.client.wait_event("ended")["errno"] != "EOF"
    assert not session.lives()
    wait_for(lambda: policy_of(env)["waiting"] is None, "the way back", TRIAL + 5)
    web_reaches(env, True)


def test_an_operator_at_a_terminal_is_asked(env):
    before, session = fresh(env), Session(env)
    path = env.write_policy(POLICY_WITHOUT_WEB)
    for answer in ("n", "", "q"):
        result = session.ctl("apply", path, answer=answer)
        assert result["rc"] == NO and "Apply all the same? [y/N]" in result["err"], result
        assert "nothing was changed" in result["err"], result
    assert session.lives() and policy_of(env)["revision"] == before["revision"]
    result = session.ctl("apply", path, answer="y")
    assert result["rc"] == YES and "in force" in result["out"], result
    assert not session.lives()


def test_a_rollback_that_would_cut_its_own_session_is_refused(env):
    env.apply(POLICY_WITHOUT_WEB)
    fresh(env)
    session = Session(env)
    result = session.ctl("rollback")
    assert result["rc"] == NO and "you came through" in result["err"], result
    assert session.lives()
    assert session.ctl("rollback", "--yes")["rc"] == YES
    assert not session.lives()


def test_a_session_is_known_by_what_its_client_says_too(env):
    """As in tmux, whose server is nobody's child."""
    before, session = fresh(env), Session(env)
    path = env.write_policy(POLICY_WITHOUT_WEB)
    os.environ["SSH_CONNECTION"] = session.hint
    try:
        result = env.ctl("apply", path, expect=NO)
        assert "you came through" in result.err, str(result)
        for nonsense in ("", "x", "1.2.3.4 5 6.7.8.9 99999999999", "::1 22 ::1", "127.0.0.1 1 127.0.0.1 2"):
            os.environ["SSH_CONNECTION"] = nonsense
            env.ctl("apply", env.write_policy(POLICY), expect=YES)
    finally:
        del os.environ["SSH_CONNECTION"]
    assert session.lives() and policy_of(env)["digest"] == before["digest"]


def test_a_session_is_known_by_what_a_parent_says(env):
    """As with sudo in tmux: sudo takes SSH_CONNECTION away, the shell before it has it."""
    fresh(env)
    session = Session(env)
    command = " ".join(env.ctl_argv("apply", env.write_policy(POLICY_WITHOUT_WEB)))
    for hint, rc in ((session.hint, NO), ("", YES)):
        done = subprocess.run(["env", "SSH_CONNECTION=" + hint, "sh", "-c",
                               f"env -u SSH_CONNECTION {command}; exit $?"],
                              capture_output=True, text=True, check=False)
        assert done.returncode == rc, (hint, done)
        assert ("you came through" in done.stderr) == (rc == NO), done


def test_a_session_over_a_link_local_address_is_known(env):
    """sshd names the link with such an address."""
    fresh(env)
    session = Session(env, address="::1")
    os.environ["SSH_CONNECTION"] = session.hint.replace("::1", "::1%lo")
    try:
        result = env.ctl("apply", env.write_policy(POLICY_WITHOUT_WEB), expect=NO)
    finally:
        del os.environ["SSH_CONNECTION"]
    assert "you came through" in result.err, str(result)
    assert session.lives()


def test_a_session_over_ipv6_is_known(env):
    fresh(env)
    session = Session(env, address="::1")
    result = session.ctl("apply", env.write_policy(POLICY_WITHOUT_WEB))
    assert result["rc"] == NO and "to [::1]:5433" in result["err"], result
    assert session.lives()


def test_a_session_outside_the_managed_subtree_is_never_cut(env):
    fresh(env)
    session = Session(env, server=env.nobody, client=env.nobody)
    result = session.ctl("apply", env.write_policy("bulkhead: 1\n"))
    assert result["rc"] == YES, result
    assert session.lives()


def test_a_session_is_cut_at_its_other_end_too(env):
    """sshd is not managed, but the operator's end is, on the same host."""
    to_all = POLICY + "  - {name: web-everywhere, action: allow, from: web, to: any, direction: egress}\n"
    fresh(env)
    env.apply(to_all)
    session = Session(env, server=env.nobody)
    result = session.ctl("apply", env.write_policy(POLICY))
    assert result["rc"] == NO and "denied on the way out, at /web," in result["err"], result
    assert session.lives()
    assert session.ctl("apply", env.write_policy(POLICY), "--yes")["rc"] == YES
    assert not session.lives()


def test_the_identities_that_a_policy_brings_are_foreseen(env):
    """sshd's identity is given by the policy itself: with another policy it is another one, or none."""
    web_out = "  - {name: web-out, action: allow, from: web, to: any, direction: egress}\n"
    local = POLICY.replace("networks:\n", "  %s: {cgroup: /shell}\nnetworks:\n") + \
        "  - {name: log-in, action: allow, from: any, to: %s, service: tcp/5433}\n" + web_out
    before, shell = fresh(env), env.workload("shell")
    env.apply(local % ("shell", "shell"))
    session = Session(env, server=shell)
    result = session.ctl("apply", env.write_policy(local % ("other", "db")))
    assert result["rc"] == NO and "no rule allows it" in result["err"], result
    result = session.ctl("apply", env.write_policy(POLICY + web_out))
    assert result["rc"] == NO and "denied on the way in, at /shell" in result["err"], result
    assert session.lives()
    # Under another name, which has no number yet, it is allowed all the same.
    renamed = session.ctl("apply", env.write_policy(local % ("sshd", "sshd")))
    assert renamed["rc"] == YES, renamed
    assert session.lives()
    assert session.ctl("rollback", before["revision"])["rc"] == NO
    assert session.lives()


def test_what_is_foreseen_is_foreseen_by_the_calendar(env):
    fresh(env)
    session = Session(env)
    for year, cut in ((2020, True), (2099, False)):
        text = POLICY.replace("    service: pg\n", f"    service: pg\n    until: {year}-01-01T00:00:00Z\n", 1)
        result = session.ctl("--json", "apply", "--dry-run", env.write_policy(text))
        assert result["rc"] == YES and json.loads(result["out"])["would_cut_session"] == cut, (year, result)
    assert session.lives()


def test_history_tells_where_the_operator_came_from(env):
    fresh(env)
    session = Session(env)
    assert session.ctl("apply", env.write_policy(POLICY))["rc"] == YES
    item = env.ctl_json("history")[0]
    assert item["from"] == ":".join(session.hint.split()[:2]), (item, session.hint)
    assert item["via"].startswith("policyctl < python3"), item

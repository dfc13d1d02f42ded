# SPDX-License-Identifier: Apache-2.0
"""A policy on trial comes back by itself, in every way that a night can go wrong."""
import os
import shutil
import struct
import time

from common import POLICY, POLICY_WITHOUT_WEB, setup  # noqa: F401
from harness import PATIENCE, read, wait_for
from trials import (NO, POLICY_AGAINST_WEB, TRIAL, USAGE, YES, back, fresh, latest_is, on_trial, policy_of, ready, revision_copy,  # noqa: F401
                    reborn, reboot, restarted, revision_path, web_reaches)


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
    result = on_trial(env, seconds=3600)
    assert env.stop() == 0
    env.start()
    assert env.ctl_json("confirm")["revision"] == result["revision"]
    assert env.stop() == 0
    env.start()
    assert policy_of(env)["revision"] == result["revision"] and policy_of(env)["waiting"] is None


def test_after_a_reboot_the_confirmed_policy_starts(env):
    before, mark = fresh(env), env.audit.mark()
    on_trial(env, seconds=3600)
    env.kill_daemon()
    assert reboot(env)
    env.start()
    reborn(env)
    back(env, before, mark)


def test_a_policy_that_never_came_into_force_is_forgotten(env):
    """The daemon was killed when the trial was on disk and the policy not yet in the kernel."""
    before = fresh(env)
    env.kill_daemon()
    number = before["revision"] + 1
    revision_copy(env, before["revision"], number)
    with open(f"{env.dir}/state/confirmation", "wb") as f:
        f.write(struct.pack("=8sIIQ37s3x", b"BHCNF1", number, before["revision"], 1 << 62,
                            read("/proc/sys/kernel/random/boot_id").strip().encode()))
    env.start()
    assert policy_of(env)["revision"] == before["revision"] and policy_of(env)["waiting"] is None
    assert not os.path.exists(revision_path(env, number))


def test_a_policy_that_was_stored_but_not_answered_does_not_come_with_the_next_boot(env):
    """The daemon was killed between storing the revision and the swap, and the host restarts a month later."""
    before = fresh(env)
    number = before["revision"] + 1
    env.apply(POLICY_WITHOUT_WEB)
    shutil.copy(revision_path(env, number), f"{env.dir}/kept")
    env.kill_daemon()
    reboot(env)
    os.unlink(revision_path(env, number))
    latest_is(env, before["revision"])
    env.start()
    assert policy_of(env)["digest"] == before["digest"]
    env.kill_daemon()
    os.rename(f"{env.dir}/kept", revision_path(env, number))
    latest_is(env, number)
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
    reborn(env)


def test_a_trial_without_a_way_back_does_not_begin(env):
    before = fresh(env)
    os.rename(revision_path(env, before["revision"]), f"{env.dir}/kept")
    result = env.ctl("apply", env.write_policy(POLICY_WITHOUT_WEB), "--confirm", "60s")
    os.rename(f"{env.dir}/kept", revision_path(env, before["revision"]))
    assert result.rc == 3 and f"no way back to revision {before['revision']}" in result.err, str(result)
    assert "without --confirm" in result.err, str(result)
    assert policy_of(env)["revision"] == before["revision"] and policy_of(env)["waiting"] is None


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

# SPDX-License-Identifier: Apache-2.0
"""A daemon that is killed anywhere while a policy begins its trial, or ends it, leaves one policy whole."""
import os
import shutil
import subprocess
import time

from common import POLICY, POLICY_WITHOUT_WEB, setup  # noqa: F401
from harness import SANITIZED, Skip, read, wait_for
from trials import (TRIAL, YES, fresh, on_trial, policy_of, ready, reborn, reboot, restarted,  # noqa: F401
                    web_reaches)

# Every place that the daemon can be killed at is tried with the build that is installed; of the one with sanitizers, which a
# kill shows nothing of, every second.
STEP = 2 if SANITIZED else 1


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


def killed_everywhere(env, prepare, *args):
    """Kills the enforcer at every system call by which it carries out a command, `prepare` having come before each.
    Yields where, the policy in force after a restart, and that after a reboot."""
    if not shutil.which("strace"):
        raise Skip("there is no strace")
    points = 0
    for call in ("fsync", "renameat", "unlinkat", "membarrier"):
        for nth in range(1, 50, STEP):
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
    reborn(env)


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
        for nth in range(1, 10, STEP):
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
    reborn(env)


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

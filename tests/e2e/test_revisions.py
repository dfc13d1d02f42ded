# SPDX-License-Identifier: Apache-2.0
"""Revisions: going back, and who did what."""
import os
import time

from common import POLICY, POLICY_WITHOUT_WEB, setup  # noqa: F401
from harness import PATIENCE, wait_for
from trials import (NO, POLICY_AGAINST_WEB, TRIAL, USAGE, YES, fresh, on_trial, policy_of, ready, reboot, reborn,  # noqa: F401
                    revision_path, web_reaches)


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


def test_a_revision_that_was_damaged_on_disk_is_not_enforced_and_the_log_says_what_to_do(env):
    """With one bit changed it may be well-formed, and allow something else."""
    good = fresh(env)
    env.apply(POLICY_AGAINST_WEB)
    bad = policy_of(env)["revision"]
    assert env.stop() == 0
    with open(revision_path(env, bad), "r+b") as f:
        text = f.read()
        f.seek(text.index(b"tcp/7000") + 7)
        f.write(b"1")
    assert os.listdir(f"{env.dir}/policy"), "the policy directory has files, which may allow more, too"
    env.start()
    assert policy_of(env)["revision"] == 0
    web_reaches(env, False)
    log = env.log_tail()
    assert f"revision {bad} is in force, and cannot be read from {env.dir}/state/revisions: it is damaged" in log, log
    assert f"`policyctl rollback {good['revision']}`" in log, log
    for command in ("show", "rollback"):
        assert f"the file of revision {bad} is damaged" in env.ctl(command, bad, expect=NO).err
    item, before = env.ctl_json("history")[:2]
    assert item["revision"] == bad and item["damaged"] and item["changes"] is None, item
    assert not before["damaged"] and before["rules"], before
    assert "  damaged\n" in env.ctl("history", expect=YES).out
    env.ctl("rollback", good["revision"], expect=YES)
    web_reaches(env, True)


def test_a_revision_whose_file_is_missing_is_not_replaced_by_an_earlier_one(env):
    """Neither when the kernel knows what was in force, also where an older version kept no record of it, nor when the host has just
    booted."""
    good = fresh(env)
    env.apply(POLICY_AGAINST_WEB)
    gone = policy_of(env)["revision"]
    assert env.stop() == 0
    os.unlink(revision_path(env, gone))
    os.rename(f"{env.dir}/state/revisions/latest", f"{env.dir}/kept")
    for known in ("is in force, and cannot be read", "cannot be read"):
        env.start()
        assert policy_of(env)["revision"] == 0, policy_of(env)
        log = env.log_tail()
        assert f"revision {gone} {known} from {env.dir}/state/revisions: No such file" in log, log
        assert f"`policyctl rollback {good['revision']}`" in log, log
        if known.startswith("is"):
            assert env.stop() == 0
            os.rename(f"{env.dir}/kept", f"{env.dir}/state/revisions/latest")
            reboot(env)
    assert env.ctl_json("rollback", good["revision"])["revision"] == gone + 1, "its number is not given away"
    reborn(env)
    web_reaches(env, True)


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

# SPDX-License-Identifier: Apache-2.0
"""A policy on trial: what tests of trials, of going back and of operators' sessions do again and again."""
import hashlib
import os
import struct

from common import POLICY, POLICY_WITHOUT_WEB, ready as common_ready
from harness import SANITIZED, read, wait_for

DB = "127.0.0.1,5432"
YES, NO, USAGE = 0, 1, 2
TRIAL = 8 if SANITIZED else 5  # the shortest there is is 5 s; a daemon has to start within it

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


def restarted(env):
    env.start()
    return policy_of(env)


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


def reborn(env):
    """After a reboot: nobody has an identity, and what listens was judged in the former boot."""
    for workload in (env.web, env.db):
        workload.attest(env.svid[workload.name])
    env.server.kill()
    serve(env)


def revision_path(env, number):
    return f"{env.dir}/state/revisions/{number:08}.rev"


def latest_is(env, number):
    """In the record of which revision was stored last."""
    path = f"{env.dir}/state/revisions/latest"
    os.unlink(path)
    os.symlink(os.path.basename(revision_path(env, number)), path)


def revision_copy(env, number, to):
    """The file of a revision under another number, whole: it ends with the SHA-256 of what stands before."""
    with open(revision_path(env, number), "rb") as f:
        data = bytearray(f.read()[:-32])
    data[8:12] = struct.pack("=I", to)
    with open(revision_path(env, to), "wb") as f:
        f.write(data + hashlib.sha256(data).digest())

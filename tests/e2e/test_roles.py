# SPDX-License-Identifier: Apache-2.0
"""The daemon is several processes with few rights each; losing one, or all, does not weaken enforcement."""
import contextlib
import glob
import os
import re
import signal
import socket
import subprocess

import harness
import inject
from common import POLICY, POLICY_WITHOUT_WEB, ready as common_ready, setup  # noqa: F401
from harness import PATIENCE, read, wait_for

DB = "127.0.0.1,5432"
CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF = 12, 21, 39
NOBODY = 65534


def ready(env):
    common_ready(env)
    env.server = env.db.tcp_server("::,5432")


def rights(pid):
    """What /proc/PID/status says about rights."""
    fields = dict(line.split(":\t", 1) for line in read(f"/proc/{pid}/status").splitlines() if ":\t" in line)
    return {"uids": {int(u) for u in fields["Uid"].split()}, "gids": {int(g) for g in fields["Gid"].split()},
            "groups": fields.get("Groups", "").split(), "no_new_privs": fields["NoNewPrivs"],
            "seccomp": fields["Seccomp"],
            **{cap: int(fields[cap], 16) for cap in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")}}


def check_unprivileged(name, r):
    assert r["uids"] == {NOBODY} and r["gids"] == {NOBODY} and not r["groups"], f"{name}: {r}"
    assert not r["CapEff"] | r["CapPrm"] | r["CapInh"] | r["CapAmb"], f"{name} has capabilities: {r}"
    assert r["no_new_privs"] == "1" and r["seccomp"] == "2", f"{name}: {r}"


def enforces(env):
    assert env.web.tcp(DB) == "ok", "web reaches db"
    assert env.web.tcp("127.0.0.1,6000") == "EPERM"
    assert env.loose.tcp(DB) == "EPERM"
    assert env.probe.tcp(DB, timeout=250) == "ETIMEDOUT"


def test_only_the_enforcer_has_privileges(env):
    roles = env.role_pids()
    assert {"enforcer", "identity", "auditor"} <= set(roles), roles
    assert len(set(roles.values())) == len(roles), "each is a process of its own"
    for name, pid in roles.items():
        r = rights(pid)
        if name != "enforcer":
            check_unprivileged(name, r)
            continue
        assert r["CapEff"] >> CAP_BPF & 1 and r["CapEff"] >> CAP_NET_ADMIN & 1, r
        assert not r["CapEff"] >> CAP_SYS_ADMIN & 1, "SYS_ADMIN is raised for a moment only"
        assert bin(r["CapBnd"]).count("1") <= 12, f"bounding set: {r['CapBnd']:x}"


def waiting_compiler(env):
    """The one child of the daemon that is no role, once it has given up its rights; or None."""
    known, found = set(env.role_pids().values()), []
    for task in glob.glob(f"/proc/{env.daemon.pid}/task/*/children"):
        found += [int(pid) for pid in read(task).split() if int(pid) not in known]
    with contextlib.suppress(OSError, KeyError, ValueError):
        if len(found) == 1 and rights(found[0])["seccomp"] == "2":
            return found[0]
    return None


def test_the_compiler_has_no_privileges_before_there_is_a_policy_to_compile(env):
    """It waits for one; it compiles that, and another takes its place."""
    pid = wait_for(lambda: waiting_compiler(env), "a compiler that waits")
    check_unprivileged("compiler", rights(pid))
    rules = "".join(f"  - {{name: r{i}, action: allow, from: web, to: db, service: tcp/{10000 + i}, log: none}}\n"
                    for i in range(5000))
    path = env.write_policy(POLICY + rules, "large.yaml")
    env.ctl("apply", path, expect=0)
    following = wait_for(lambda: waiting_compiler(env) not in (None, pid) and waiting_compiler(env), "another compiler")
    check_unprivileged("compiler", rights(following))
    # Nothing depends on it: without it, one is started for the policy.
    os.kill(following, signal.SIGKILL)
    env.apply(POLICY)
    wait_for(lambda: waiting_compiler(env) not in (None, pid, following), "a third compiler")
    os.remove(path)
    enforces(env)


def test_a_killed_role_comes_back_and_nothing_is_enforced_less(env):
    stream = env.web.tcp_stream(DB, rate=200)
    for role in ("identity", "auditor"):
        pid, mark = env.role_pids()[role], env.audit.mark()
        os.kill(pid, signal.SIGKILL)
        enforces(env)
        wait_for(lambda r=role, p=pid: env.role_pids().get(r) not in (None, 0, p), f"another {role}")
        env.audit.wait(mark, event__action="role-restarted")
        assert [r["restarts"] for r in env.status()["roles"] if r["role"] == role][0] >= 1
        env.workload(f"after-{role}", env.ca.issue("/web"))
        enforces(env)
    assert not stream.ended() and env.daemon.pid == env.role_pids()["enforcer"]


def test_a_role_that_hangs_is_replaced(env):
    pid = env.role_pids()["identity"]
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: env.role_pids().get("identity") not in (None, 0, pid), "another identity role", 60)
    env.workload("after-hang", env.ca.issue("/web"))


# What code that took over the role that reads certificates would try first. Numbers of x86-64.
ATTEMPTS = {
    "socket": (41, socket.AF_INET, socket.SOCK_STREAM, 0),
    "connect": (42, 3, "stack", 16),
    "open for writing": (257, -100, "stack", os.O_WRONLY | os.O_CREAT, 0o600),
    "execve": (59, "stack", 0, 0),
    "ptrace": (101, 16, 1, 0, 0),
    "bpf": (321, 0, "stack", 128),
}


def test_a_role_that_was_taken_over_dies_of_what_it_tries(env):
    """From inside the role as it runs, not a copy of it: by ptrace, its own thread makes the call."""
    for name, (number, *args) in ATTEMPTS.items():
        pid = wait_for(lambda: env.role_pids().get("identity"), "the identity role")
        wait_for(lambda p=pid: inject.is_idle(p), "it to wait for events: then it is in its sandbox")
        mark = env.audit.mark()
        inject.system_call(pid, number, *[a & 2**64 - 1 if isinstance(a, int) else a for a in args])
        event = env.audit.wait(mark, event__action="role-restarted", seconds=10)
        assert f"identity role ended (signal {int(signal.SIGSYS)})" in event["event"]["reason"], f"{name}: {event}"
    env.workload("after-attempts", env.ca.issue("/web"))
    enforces(env)


def test_the_role_that_reads_certificates_holds_nothing_to_write_to(env):
    """No file that is writable, no socket but its two and the connections of workloads: by its descriptors."""
    pid = env.role_pids()["identity"]
    kinds = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{fd}")
        flags = int(re.search(r"flags:\s*(\d+)", read(f"/proc/{pid}/fdinfo/{fd}")).group(1), 8)
        if target.startswith("/") and int(fd) > 2:
            assert flags & os.O_ACCMODE == os.O_RDONLY, f"{target} is open for writing"
        kinds.append(re.sub(r"[:/].*", "", target))
    assert kinds.count("socket") <= 2 + 16, kinds
    inet = {line.split()[9] for f in ("tcp", "tcp6", "udp", "udp6") for line in
            read(f"/proc/{pid}/net/{f}").splitlines()[1:]}
    ours = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert not {f"socket:[{inode}]" for inode in inet} & ours, "it holds a network socket"


def test_the_other_roles_end_with_the_enforcer(env):
    pids = env.daemon_pids()
    env.kill_daemon()
    wait_for(lambda: not any(harness.alive(p) for p in pids), "all roles to end")
    enforces(env)
    env.start()
    enforces(env)


def test_a_clean_stop_leaves_enforcement_and_a_start_adopts_it(env):
    before, tag = env.status(), env.tag_of(env.web)
    stream = env.web.tcp_stream(DB, rate=200)
    env.notified = []
    assert env.stop() == 0
    assert "STOPPING=1" in env.poll_notify(), env.notified
    enforces(env)
    env.ctl("status", expect=3)
    env.start()
    after = env.status()
    assert after["adopted"] and after["enforcing"], after
    assert after["policy"]["revision"] == before["policy"]["revision"]
    assert env.tag_of(env.web)["deadline"] == tag["deadline"]
    received = stream.stat()["received"]
    wait_for(lambda: stream.stat()["received"] > received + 20, "the connection to go on")
    enforces(env)
    env.audit.wait(event__action="daemon-stopped")


def test_the_watchdog_is_fed(env):
    env.stop()
    env.start(WATCHDOG_USEC="400000")
    try:
        for _ in range(3):
            env.poll_notify()
            env.notified = []
            env.wait_notify("WATCHDOG=1")
    finally:
        env.stop()
        env.start()


def test_two_instances_do_not_disturb_each_other(env):
    with harness.Environment() as other:
        ca = other.authority("other.example")
        other.ctl("reload", expect=0)
        other.apply(POLICY.replace("e2e.example", "other.example"))
        web, db = other.workload("web", ca.issue("/web")), other.workload("db", ca.issue("/db"))
        db.tcp_server("::,5432")
        assert web.tcp(DB) == "ok" and other.workload("loose").tcp(DB) == "EPERM"
        enforces(env)
        # The identities of one mean nothing to the other, nor does its subtree.
        env.web.spawn(other.ctl_argv("attest", "--svid", env.svid["web"].cert, "--key", env.svid["web"].key)).wait()
        assert not other.tag_of(env.web)
        other.apply(POLICY_WITHOUT_WEB.replace("e2e.example", "other.example"))
        assert web.tcp(DB) == "EPERM"
        enforces(env)
        other.kill_daemon()
        enforces(env)
    enforces(env)
    assert env.status()["enforcing"]


def test_a_second_daemon_of_the_same_instance_does_not_start(env):
    second = subprocess.run(env.daemon_argv(), capture_output=True, text=True, check=False, timeout=30,
                            stdin=subprocess.DEVNULL)
    assert second.returncode not in (0, -signal.SIGSEGV) and second.stderr.startswith("bulkheadd: "), second
    assert env.status()["enforcing"]
    enforces(env)


def test_messages_have_a_priority_in_front_for_the_journal_and_nobody_else(env):
    """JOURNAL_STREAM is inherited, so it may name another stream than ours (systemd.exec(5))."""
    path = f"{env.dir}/journal"
    for ours, begin in ((True, "<3>bulkheadd: "), (False, "bulkheadd: ")):
        with open(path, "w", encoding="utf-8") as stream:
            stat = os.stat(stream.fileno() if ours else env.dir)
            subprocess.run(env.daemon_argv(), env={**os.environ, "JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"},
                           stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False, timeout=30)
        assert read(path).startswith(begin), read(path)


def test_an_instance_below_another_says_that_both_judge(env):
    """Each denies what it does not know: nobody should have to find that out."""
    inner, other = f"{env.cgroup}/inner", harness.Environment()
    os.mkdir(inner)
    try:
        other.daemon_options = ["--subtree", f"{env.subtree}/inner"]
        other.start()
        assert "another instance of Bulkhead judges this subtree too" in other.log_tail(), other.log_tail()
    finally:
        other.remove()
        harness.remove_cgroup(inner)
    assert "another instance" not in read(env.log_path)
    enforces(env)


def option_with(argv, **values):
    argv = list(argv)
    for name, value in values.items():
        name = "--" + name.replace("_", "-")
        if name in argv:
            argv[argv.index(name) + 1] = value
        else:
            argv += [name, value]
    return argv


def test_a_start_that_fails_changes_nothing(env):
    """Not in the kernel, not for the daemon that has the place: what is wrong with the places is found first."""
    other = harness.Environment()
    try:
        argv = other.daemon_argv()
        plain = f"{other.dir}/plain"
        harness.write(plain, "")
        for wrong, told in ((option_with(argv, run_dir=env.run_dir), "another bulkheadd may be running with this run directory"),
                            (option_with(argv, run_dir=plain), f"cannot use the directory {plain}: Not a directory"),
                            (option_with(argv, pin_dir=f"{other.dir}/pins"), f"{other.dir}/pins is not below a bpffs"),
                            (option_with(argv, pin_dir=f"{plain}/pins"), f"at the pin directory {plain}/pins: Not a directory")):
            done = subprocess.run(wrong, capture_output=True, text=True, check=False, timeout=30 * PATIENCE,
                                  stdin=subprocess.DEVNULL)
            assert done.returncode == 1 and told in done.stderr, done
            assert not os.path.exists(other.pins), os.listdir(other.pins)
            assert other.workload("a").udp("127.0.0.1,9", connected=True) == "ECONNREFUSED", "it enforces nothing"
        # Its sockets are where they were.
        env.workload("late", env.svid["web"])
        enforces(env)
        other.start()
    finally:
        other.remove()


def test_a_start_that_others_can_make_fail_enforces_all_the_same(env):  # pylint: disable=unused-argument
    """The port of the metrics may be taken by anybody, and a disk be full, when a host has just booted."""
    for wrong, told in (("audit_log", "cannot open the audit log"), ("metrics", "another process has it")):
        other = harness.Environment()
        try:
            metrics = f"{other.dir}/metrics.sock"
            with socket.socket(socket.AF_UNIX) as served:
                served.bind(metrics)
                served.listen()
                argv = option_with(other.daemon_argv(), **{wrong: {"audit_log": other.dir, "metrics": metrics}[wrong]})
                done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30 * PATIENCE,
                                      stdin=subprocess.DEVNULL)
            assert done.returncode == 1 and told in done.stderr, done
            assert other.workload("a").udp("127.0.0.1,9", connected=True) == "EPERM", wrong
        finally:
            other.remove()


def test_removing_the_pins_ends_enforcement(env):  # pylint: disable=unused-argument
    """What every test relies on to leave nothing behind."""
    fresh = harness.Environment()
    try:
        fresh.start()
        fresh.workload("a").tcp_server("::,5432")
        assert fresh.workload("b").tcp(DB, timeout=300) != "ok"
        fresh.stop()
        assert fresh.workload("b").tcp(DB, timeout=300) != "ok"
        harness.remove_pins(fresh.pins)
        wait_for(lambda: fresh.workload("b").tcp(DB, timeout=300) == "ok", "enforcement to end")
    finally:
        fresh.remove()

# SPDX-License-Identifier: Apache-2.0
"""Attacks on attestation, on the kernel that runs, and on the older ones that the operator may allow: there the calls that
they lack are refused to the daemon and to its clients. test_identity.py has the attacks that are about keys and relays."""
import contextlib
import os
import threading
import time

import bpf
import harness
from common import POLICY, ready as common_ready, setup  # noqa: F401
from harness import Skip, read, wait_for
from test_identity import answer, attest_socket, cheat

DB = "127.0.0.1,5432"
NO_PIDFD, PEER_GONE, PEER_DIFFERS, CGROUP_MOVED, FULL, DELEGATED = 2, 3, 4, 6, 11, 14
EPERM = 1
NOBODY = 65534
STALL_S = 5
# As many as the issue asks for take a quarter of a minute: say BULKHEAD_ATTESTATIONS=10000 for that.
ATTESTATIONS = int(os.environ.get("BULKHEAD_ATTESTATIONS", "1000"))


def ready(env):
    common_ready(env)
    env.server = env.db.tcp_server("::,5432")


class Steps:
    """attester.py steps, in a workload."""

    def __init__(self, env, workload, svid, uid=None):
        self.process = cheat(env, workload, "steps", socket=attest_socket(env), svid=svid.cert, key=svid.key, uid=uid)
        self.process.wait_event("ready")

    def do(self, *steps):
        """Returns what the last one came to."""
        event = None
        for step in steps:
            since = len(self.process.events)
            self.process.command(step)
            event = self.process.wait_event("ready" if step == "exec" else "did", since=since, seconds=15)
            assert event.get("error") in (None, 32, 104), f"{step}: {event}"  # EPIPE, ECONNRESET: it was refused already
        return event

    def result(self):
        since = len(self.process.events)
        self.process.command("result")
        return self.process.wait_event("result", since=since, seconds=15)


def restart(env, version, *options):
    """The daemon as it is on an older kernel, with these options. It stays so: the tests that do this come last."""
    prefix = [harness.OLDKERNEL, version]
    if (env.daemon_prefix, env.daemon_options) == (prefix, [*options]):
        return
    env.stop()
    env.daemon_prefix, env.daemon_options = prefix, [*options]
    env.start()


@contextlib.contextmanager
def stopped(env):
    """While nothing of the daemon runs."""
    env.stop_daemon()
    try:
        yield
    finally:
        env.continue_daemon()


def refused(env, mark, name):
    return env.audit.wait(mark, event__action="identity-refused", event__code=name)


# ---- a dead process's pid ----

def dead_connector_is_refused(env, say):
    """A child connects and is gone; its pid is another's, in a cgroup that an identity would suit."""
    evil, victim, svid = env.workload("evil"), env.workload("victim"), env.ca.issue("/web")
    for daemon_waits in (False, True):
        steps, mark = Steps(env, evil, svid), env.audit.mark()
        with stopped(env) if daemon_waits else contextlib.nullcontext():
            steps.do(f"child {say}", f"reuse {victim.path}")
        for step in ("challenge", "proof") if say else ("hello",):
            steps.do(step)
        result = steps.result()
        assert result["code"] in (PEER_GONE, PEER_DIFFERS, None), (daemon_waits, result)
        event = env.audit.wait(mark, event__action="identity-refused")
        assert event["event"]["code"] in ("peer-gone", "peer-differs"), event
        assert not env.tag_of(evil) and not env.tag_of(victim)
        steps.process.kill()
        victim.kill()


def test_a_connection_whose_process_is_gone_is_refused_though_its_pid_lives_on(env):
    dead_connector_is_refused(env, "")


def test_a_hello_of_a_process_that_is_gone_is_refused_though_its_pid_lives_on(env):
    dead_connector_is_refused(env, "hello")


# ---- a process that moves ----

def test_who_moves_before_the_hello_attests_for_where_it_is(env):
    here, there = env.workload("here"), env.workload("there")
    steps = Steps(env, here, env.ca.issue("/web"))
    steps.do("connect", f"move {there.path}", "hello", "challenge", "proof")
    result = steps.result()
    assert result["code"] == 0, result
    assert env.tag_of(there) and not env.tag_of(here)


def moves_after(env, *before):
    here, there, mark = env.workload("here"), env.workload("there"), env.audit.mark()
    steps = Steps(env, here, env.ca.issue("/web"))
    steps.do("connect", "hello", "challenge")
    with stopped(env):
        steps.do(*[f"move {there.path}" if s == "move" else s for s in before])
    if "proof" not in before:
        steps.do("proof")
    result = steps.result()
    assert result["code"] == CGROUP_MOVED, result
    refused(env, mark, "cgroup-moved")
    assert not env.tag_of(here) and not env.tag_of(there)


def test_who_moves_after_the_challenge_is_refused(env):
    moves_after(env, "move")


def test_who_moves_after_the_proof_is_refused(env):
    moves_after(env, "proof", "move")


def test_a_process_that_is_moved_all_the_time_gets_a_tag_only_where_it_was_told_so(env):
    here, there = env.workload("here"), env.workload("there")
    steps, done = Steps(env, here, env.ca.issue("/web")), threading.Event()
    places = {w.cgroup_id: w for w in (here, there)}

    def move():
        while not done.is_set():
            for workload in (there, here):
                harness.write(f"{workload.path}/cgroup.procs", str(steps.process.pid))

    mover, answers = threading.Thread(target=move), []
    mover.start()
    try:
        for _ in range(12):
            steps.do("connect", "hello", "challenge", "proof")
            answers.append(steps.result())
            steps.do("drop")
    finally:
        done.set()
        mover.join()
    assert {a["code"] for a in answers} <= {0, CGROUP_MOVED}, answers
    attested = {e["zt"]["cgroup"]["id"] for e in env.audit.find(event__action="identity-attested")}
    for cgroup, workload in places.items():
        assert not env.tag_of(workload) or cgroup in attested, f"{workload.name} has a tag that nobody was told of"


def test_who_leaves_afterwards_leaves_the_identity_behind(env):
    """And who comes in has it: it is the cgroup's."""
    here, there = env.workload("here", env.ca.issue("/web")), env.workload("there")
    process = connector(here)
    assert connect_from(process) == "0"
    harness.write(f"{there.path}/cgroup.procs", str(process.pid))
    assert connect_from(process) == str(EPERM)
    harness.write(f"{here.path}/cgroup.procs", str(process.pid))
    assert connect_from(process) == "0"


# ---- other processes ----

def test_the_connection_of_another_is_refused(env):
    """The giver lives on: its pid is right, its messages are not."""
    svid, giver, taker, mark = env.ca.issue("/web"), env.workload("giver"), env.workload("taker"), env.audit.mark()
    place = f"{env.dir}/hand-{time.monotonic_ns()}"
    first = cheat(env, giver, "hand", socket=attest_socket(env), at=place)
    first.wait_event("ready")
    result = answer(cheat(env, taker, "take", at=place, svid=svid.cert, key=svid.key))
    assert result["code"] == PEER_DIFFERS, result
    refused(env, mark, "peer-differs")
    assert not env.tag_of(giver) and not env.tag_of(taker)


def test_a_message_that_claims_another_sender_is_refused(env):
    """Root may write any pid into SCM_CREDENTIALS, and then the kernel's SCM_PIDFD names it too."""
    evil, victim, mark = env.workload("evil"), env.workload("victim"), env.audit.mark()
    waits = victim.spawn(["sleep", "60"])
    steps = Steps(env, evil, env.ca.issue("/web"))
    steps.do("connect", f"spoof {waits.pid}", "hello")
    result = steps.result()
    assert result["code"] == PEER_DIFFERS, result
    refused(env, mark, "peer-differs")
    assert not env.tag_of(evil) and not env.tag_of(victim)


def test_only_root_can_claim_another_sender(env):
    """Nobody, who can read the files, is stopped by the kernel already."""
    svid = env.ca.issue("/web")
    os.chmod(svid.key, 0o644)
    steps = Steps(env, env.workload("evil"), svid, uid=65534)
    steps.do("connect", f"spoof {env.daemon.pid}")
    steps.process.command("hello")
    event = wait_for(lambda: [e for e in steps.process.events if e.get("step") == "hello"], "the attempt")[0]
    assert event["error"] == EPERM, event


def test_a_program_executed_meanwhile_is_the_same_process(env):
    """The identity is its cgroup's, so which program runs there makes no difference."""
    workload = env.workload("becomes")
    steps = Steps(env, workload, env.ca.issue("/web"))
    steps.do("connect", "hello", "challenge", "exec", "proof")
    result = steps.result()
    assert result["code"] == 0, result
    assert env.tag_of(workload)


def test_a_server_that_is_not_root_is_told_nothing(env):
    """Whoever can make a file where the socket is looked for is not the daemon yet."""
    place = f"{env.dir}/fake-daemon"
    os.mkdir(place)
    os.chown(place, 65534, 65534)
    script = ("import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(sys.argv[1]); "
              "s.listen(); print('{\"event\": \"ready\"}', flush=True); c, _ = s.accept(); "
              "print('{\"event\": \"got\", \"bytes\": %d}' % len(c.recv(65536)), flush=True)")
    fake = env.outside().spawn(["/usr/bin/python3", "-c", script, f"{place}/attest.sock"], uid=65534)
    fake.wait_event("ready")
    svid = env.ca.issue("/web")
    client = env.workload("asks").spawn(env.ctl_argv("attest", "--svid", svid.cert, "--key", svid.key, run_dir=place))
    assert client.wait() == 3, "".join(client.out)
    assert "not by root: nothing was signed" in "".join(client.out)
    assert fake.wait_event("got")["bytes"] == 0


# ---- sockets and cgroups from before ----

def connector(workload, again=True):
    """Connects to the db when it is told to: each time by a socket of that moment, or always by the one of its beginning."""
    text = ("import socket, sys; s = socket.socket(); print('{\"event\": \"ready\"}', flush=True)\n"
                   "for _ in sys.stdin:\n"
                   f"    s = socket.socket() if {again} else s\n"
                   "    print('{\"event\": \"connect\", \"r\": \"%d\"}' % s.connect_ex(('127.0.0.1', 5432)), flush=True)")
    process = workload.spawn(["/usr/bin/python3", "-c", text])
    process.wait_event("ready")
    return process


def connect_from(process):
    since = len(process.events)
    process.command("")
    return process.wait_event("connect", since=since)["r"]


def test_a_socket_made_before_its_cgroup_was_tagged_is_judged_by_the_tag(env):
    workload = env.workload("early")
    process = connector(workload, again=False)
    assert connect_from(process) == str(EPERM)
    workload.attest(env.ca.issue("/web"))
    assert connect_from(process) == "0"


def test_a_cgroup_that_others_can_enter_gets_no_identity_unless_allowed(env):
    svid, delegated, mark = env.ca.issue("/web"), env.workload("delegated"), env.audit.mark()
    os.chown(f"{delegated.path}/cgroup.procs", 65534, 65534)
    result = delegated.attest(svid, expect=1)
    assert "cgroup-delegated" in result.out and "allow_delegated" in result.out, str(result)
    refused(env, mark, "cgroup-delegated")
    assert not env.tag_of(delegated)
    os.chown(f"{delegated.path}/cgroup.procs", 0, 0)
    os.chmod(delegated.path, 0o775)
    delegated.attest(svid, expect=1)


# ---- too many, too long ----

HERE = os.path.dirname(os.path.abspath(__file__))


def script(name, *args):
    return ["/usr/bin/python3", "-B", f"{HERE}/{name}", *args]


def attest_as(workload, svid, uid):
    """As another user, who can read the key. Returns how long it took."""
    since = time.monotonic()
    process = workload.spawn(workload.env.ctl_argv("attest", "--svid", svid.cert, "--key", svid.key), uid=uid)
    assert process.wait() == 0, "".join(process.out)
    return time.monotonic() - since


def test_clients_that_stall_cost_a_place_for_5_seconds_and_others_none(env):
    """All 16 places of a cgroup are taken by clients that connect and wait, half of them after their HELLO. The next one is
    refused, whoever it is, and told that it may try again; other cgroups notice nothing, not even those of the same user."""
    svid, evil, mark = env.ca.issue("/web"), env.workload("evil"), env.audit.mark()
    os.chmod(svid.key, 0o644)
    crowd = evil.spawn(script("crowd.py", attest_socket(env), svid.cert, "16"), uid=NOBODY)
    taken = crowd.wait_event("taken", seconds=10)
    result = answer(cheat(env, evil, "blind", socket=attest_socket(env), svid=svid.cert, key=svid.key))
    assert result["code"] == FULL and "of this cgroup" in result["text"], result
    waits = evil.spawn(env.ctl_argv("attest", "--svid", svid.cert, "--key", svid.key))
    env.workload("honest", svid)
    attest_as(env.workload("same-user"), svid, NOBODY)
    ended = crowd.wait_event("ended", seconds=15)
    assert ended["codes"] == {"1": 8, "7": 8}, ended
    assert ended["longest"] < (STALL_S + 1.5) * harness.PATIENCE and ended["shortest"] > STALL_S - 1, (taken, ended)
    assert waits.wait(10) == 0, "".join(waits.out)
    env.audit.wait(mark, event__action="identity-refused", event__code="challenge-expired")


def test_one_user_who_takes_all_places_there_are_keeps_nobody_out(env):
    """Root's clients hold 16 places in each of 16 cgroups, and say nothing."""
    svid, places = env.ca.issue("/web"), [env.workload(f"taken{i}") for i in range(16)]
    os.chmod(svid.key, 0o644)
    crowds = [p.spawn(script("crowd.py", attest_socket(env), svid.cert, "16")) for p in places]
    for crowd in crowds:
        crowd.wait_event("taken", seconds=10)
    for uid in (0, NOBODY):
        took = attest_as(env.workload(f"third-{uid}"), svid, uid)
        assert took < STALL_S, f"uid {uid}: {took} s"
    for crowd in crowds:
        crowd.kill()


def refusals(events):
    """How many refusals these lines of the audit log stand for."""
    return sum(harness.field(e, "zt.count") or 1 for e in events)


def test_a_flood_of_refusals_delays_nobody_and_is_counted_exactly(env):
    """Three clients of one cgroup show a foreign authority's SVID as fast as they can."""
    evil, mark = env.workload("evil"), env.audit.mark()
    foreign, svid = env.authority("foreign.example", trust=False).issue("/web"), env.ca.issue("/web")
    floods = [evil.spawn(script("flood.py", attest_socket(env), foreign.cert)) for _ in range(3)]
    for flood in floods:
        flood.wait_event("begun")
    slowest = max(attest_as(env.workload(f"calm{i}"), svid, 0) for i in range(8))
    assert slowest < STALL_S, f"{slowest} s"
    codes = {}
    for flood in floods:
        flood.popen.stdin.close()
        for code, count in flood.wait_event("refused")["codes"].items():
            codes[code] = codes.get(code, 0) + count
    assert sum(codes.values()) > 200, codes

    def told():
        return env.audit.find(mark, event__action="identity-refused", zt__cgroup__id=evil.cgroup_id)

    wait_for(lambda: refusals(told()) >= sum(codes.values()), f"{codes} in the audit log, not {refusals(told())}")
    events = told()
    assert refusals(events) == sum(codes.values()), (codes, refusals(events))
    assert len(events) < 16 + sum(codes.values()) / 4, f"{len(events)} lines for {codes}"
    assert any("more like it" in e["event"]["reason"] for e in events), events[-1]


def sizes(env):
    """Descriptors and resident memory in KiB of each role; entries of each map that identities are kept in."""
    found = {}
    for role, pid in {**env.role_pids(), "enforcer": env.daemon.pid}.items():
        rss = [line for line in read(f"/proc/{pid}/smaps_rollup").splitlines() if line.startswith("Rss:")]
        found[role] = len(os.listdir(f"/proc/{pid}/fd")), int(rss[0].split()[1])
    for name in ("tags", "names", "vouchers"):
        with bpf.opened_map(env.map_pin(name)) as entries:
            found[name] = len(list(entries.keys())), 0
    return found


def attest_times(env, svid, count):
    workload = env.workload("many")
    process = workload.spawn([harness.ATTEST_TIME, attest_socket(env), svid.cert, svid.key, str(count)])
    assert process.wait(30 + count / 50) == 0, "".join(process.out[-3:])
    return sorted(int(line) for line in process.out)


def test_many_attestations_leave_nothing_behind(env):
    if not os.path.exists(harness.ATTEST_TIME):
        raise Skip("the benchmarks are not built")
    svid = env.ca.issue("/web")
    attest_times(env, svid, 300)  # what is kept for good is made by the first
    before = sizes(env)
    times = attest_times(env, svid, ATTESTATIONS if not harness.SANITIZED else ATTESTATIONS // 4)

    def grown():
        return {name: (was, now) for name, was in before.items() if (now := sizes(env)[name])[0] > was[0]}

    wait_for(lambda: not grown(), f"descriptors and entries to be as before, not {grown()}")
    after = sizes(env)
    print(f"# {len(times)} attestations: median {times[len(times) // 2]} us, 99th percentile "
          f"{times[len(times) * 99 // 100]} us; descriptors or entries, and KiB {before} -> {after}", flush=True)
    if not harness.SANITIZED:  # its allocator keeps what is freed for a while
        for name, (_, kib) in before.items():
            assert after[name][1] - kib < 512, f"{name} grew from {kib} to {after[name][1]} KiB"


def test_64_clients_at_once_are_all_attested(env):
    svid, workloads = env.ca.issue("/web"), [env.workload(f"crowd{i}") for i in range(8)]
    processes = [workloads[i % 8].spawn([harness.ATTEST_TIME, attest_socket(env), svid.cert, svid.key, "4"])
                 for i in range(64)]
    for process in processes:
        assert process.wait(30) == 0, "".join(process.out)
    assert all(env.tag_of(w) for w in workloads)


def connected_to(path, process):
    """How many connections there are to this socket, accepted or not, as the process's network namespace knows them."""
    with contextlib.suppress(OSError):
        return sum(line.endswith(f" {path}") for line in read(f"/proc/{process.pid}/net/unix").splitlines())
    return 0


def test_64_clients_of_one_cgroup_are_all_attested_in_the_end(env):
    """More than have places there: who is told that it is full tries again."""
    svid, workload, mark, processes = env.ca.issue("/web"), env.workload("crowded"), env.audit.mark(), []
    argv = env.ctl_argv("attest", "--svid", svid.cert, "--key", svid.key)
    with stopped(env):
        processes += [workload.spawn(argv) for _ in range(32)]
        wait_for(lambda: connected_to(attest_socket(env), processes[-1]) >= 24, "more clients than there are places")
    processes += [workload.spawn(argv) for _ in range(32)]
    for process in processes:
        assert process.wait(20) == 0, "".join(process.out)
    assert env.tag_of(workload)
    env.audit.wait(mark, event__action="identity-refused", event__code="full", zt__cgroup__id=workload.cgroup_id)


def test_a_relay_is_not_signed_on_an_older_kernel_either(env):
    svid, evil, victim = env.ca.issue("/web"), env.workload("evil"), env.workload("victim")
    place = f"{env.dir}/fake-old"
    os.mkdir(place)
    relay = cheat(env, evil, "relay", socket=attest_socket(env), at=f"{place}/attest.sock")
    relay.wait_event("ready")
    client = victim.spawn([harness.OLDKERNEL, "6.4", *env.ctl_argv("attest", "--svid", svid.cert, "--key", svid.key,
                                                                   run_dir=place)])
    assert client.wait() == 3 and "nothing was signed" in "".join(client.out), "".join(client.out)
    assert answer(relay)["code"] is None
    assert not env.tag_of(evil) and not env.tag_of(victim)


# ---- older kernels ----

def test_an_older_kernel_is_refused_unless_the_operator_says_otherwise(env):
    restart(env, "6.12")
    workload, mark = env.workload("old"), env.audit.mark()
    result = workload.attest(env.ca.issue("/web"), expect=1)
    assert "no-pidfd" in result.out and "allow_proc_fallback" in result.out, str(result)
    refused(env, mark, "no-pidfd")
    assert not env.tag_of(workload)


def old_kernel_holds(env, version):
    """What is promised on a new kernel, with what /proc tells."""
    svid, workload = env.ca.issue("/web"), env.workload("old")
    client = workload.spawn([harness.OLDKERNEL, version, *env.ctl_argv("attest", "--svid", svid.cert, "--key", svid.key)])
    assert client.wait() == 0, "".join(client.out)
    assert env.tag_of(workload)["pid"] == client.pid
    assert workload.tcp(DB) == "ok"
    # Nothing of it depends on what the client's kernel can do.
    env.workload("new", svid)
    test_the_connection_of_another_is_refused(env)
    for check in (test_a_connection_whose_process_is_gone_is_refused_though_its_pid_lives_on,
                  test_a_hello_of_a_process_that_is_gone_is_refused_though_its_pid_lives_on,
                  test_who_moves_after_the_challenge_is_refused, test_who_moves_after_the_proof_is_refused,
                  test_a_message_that_claims_another_sender_is_refused):
        with env.scope():
            check(env)
    result = answer(cheat(env, env.nobody, "blind", socket=attest_socket(env), svid=svid.cert, key=svid.key))
    assert result["code"] == 5, result


def test_an_allowed_kernel_without_pidfd_info_is_attested_by_proc(env):
    restart(env, "6.12", "--allow-proc-fallback", "true", "--allow-delegated", "true")
    old_kernel_holds(env, "6.12")


def test_a_cgroup_that_others_can_enter_gets_an_identity_where_that_is_allowed(env):
    restart(env, "6.12", "--allow-proc-fallback", "true", "--allow-delegated", "true")
    delegated = env.workload("delegated")
    os.chown(f"{delegated.path}/cgroup.procs", 65534, 65534)
    delegated.attest(env.ca.issue("/web"))
    assert env.tag_of(delegated)


def test_an_allowed_kernel_without_peer_pidfds_is_attested_by_proc(env):
    restart(env, "6.4", "--allow-proc-fallback", "true")
    old_kernel_holds(env, "6.4")

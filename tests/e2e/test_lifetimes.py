# SPDX-License-Identifier: Apache-2.0
"""How identities are kept alive, by whom, and what ends them: SVIDs in directories that the daemon looks into, files that are
rotated under a client, the longest life that the configuration allows, warnings, and a clock that is set."""
import datetime
import os
import re
import shutil
import time

import harness
from bpf import Map, opened
from common import POLICY, TRUST_DOMAIN, ready as common_ready, setup as common_setup, spiffe
from harness import Skip, read, wait_for, write

DB = "127.0.0.1,5432"
UNIT = "system.slice/e2e-bound.service"
MAX_LIFETIME_S = 5400
SHIFT_S = 2
BRIEF_S = 6

BOUND = POLICY.replace("networks:\n", f"""\
  bound: {{spiffe: {spiffe('bound')}, only: {{cgroup: /vault}}}}
  byuid: {{spiffe: {spiffe('byuid')}, only: {{uid: 65534}}}}
  byunit: {{spiffe: {spiffe('byunit')}, only: {{unit: e2e-byunit.service}}}}
networks:
""", 1)


def setup(env):
    common_setup(env)
    env.dirs = {name: f"{env.dir}/svids/{name}" for name in ("unit", "batch", "wrong")}
    os.mkdir(f"{env.dir}/svids")
    for path in env.dirs.values():
        os.mkdir(path)
    env.daemon_options = ["--max-lifetime", "90m", "--svids",
                          f"{env.dirs['unit']}=unit:e2e-bound.service,{env.dirs['batch']}=cgroup:/batch,"
                          f"{env.dirs['wrong']}=cgroup:/elsewhere"]


def ready(env):
    common_ready(env, BOUND)
    env.server = env.db.tcp_server("::,5432")


def put(env, name, svid, rename=True):
    """As spiffe-helper does it, or as `cp` does."""
    for source, target in ((svid.cert, "svid.pem"), (svid.key, "svid_key.pem")):
        path = f"{env.dirs[name]}/{target}"
        if rename:
            shutil.copyfile(source, f"{path}.new")
            os.chmod(f"{path}.new", 0o600)
            os.rename(f"{path}.new", path)
        else:
            shutil.copyfile(source, path)
    return svid


def take_away(env, name):
    for file in ("svid.pem", "svid_key.pem"):
        os.unlink(f"{env.dirs[name]}/{file}")


def put_and_prove(env, name, svid):
    put(env, name, svid)
    wait_for(lambda: svid.spiffe_id in [s.get("spiffe_id") for s in env.status()["svids"]], "the SVID to be proved")


def problem(env, name):
    return next(s for s in env.status()["svids"] if s["dir"] == env.dirs[name]).get("problem")


def serial_of(env, workload):
    tag = env.tag_of(workload)
    return tag and tag["serial"]


# ---- directories ----

def test_an_svid_in_a_directory_is_proved_for_the_unit_that_it_is_bound_to(env):
    unit, mark = env.workload(UNIT), env.audit.mark()
    assert unit.tcp(DB) == "EPERM"
    svid = put(env, "unit", env.ca.issue("/web"))
    wait_for(lambda: env.tag_of(unit), "the unit's tag")
    assert env.tag_of(unit)["spiffe_id"] == svid.spiffe_id
    assert unit.tcp(DB) == "ok"
    event = env.audit.wait(mark, event__action="identity-attested", zt__cgroup__id=unit.cgroup_id)
    assert env.dirs["unit"] in event["event"]["reason"], event
    assert env.workload("web2/e2e-bound.service").tcp(DB) == "EPERM", "only what lies below slices is a unit"
    # A service that is started again is in another cgroup of the same place.
    unit.recreate()
    wait_for(lambda: env.tag_of(unit), "the tag of the unit that was started again")
    assert unit.tcp(DB) == "ok"


def test_files_that_are_replaced_or_written_in_place_renew_the_identity(env):
    batch = env.workload("batch")
    put(env, "batch", env.ca.issue("/web", seconds=600))
    wait_for(lambda: env.tag_of(batch), "the tag")
    for rename in (True, False):
        before, mark = serial_of(env, batch), env.audit.mark()
        put(env, "batch", env.ca.issue("/web", seconds=1200 + 600 * (not rename)), rename)
        wait_for(lambda b=before: serial_of(env, batch) != b, "the renewed tag")
        env.audit.wait(mark, event__action="identity-renewed", zt__cgroup__id=batch.cgroup_id)
        assert not env.audit.find(mark, event__action="identity-refused"), "half of a change was taken"
    assert env.tag_of(batch)["seconds_left"] > 1700


def test_a_key_that_is_not_the_certificates_changes_nothing(env):
    batch, svid = env.workload("batch"), put(env, "batch", env.ca.issue("/web"))
    wait_for(lambda: env.tag_of(batch), "the tag")
    before, mark = env.tag_of(batch), env.audit.mark()
    shutil.copyfile(env.ca.issue("/web").key, f"{env.dirs['batch']}/svid_key.pem")
    event = env.audit.wait(mark, event__action="identity-refused", seconds=8)
    assert event["event"]["code"] == "signature" and "not that of the certificate" in event["event"]["reason"], event
    assert "not that of the certificate" in problem(env, "batch")
    assert env.tag_of(batch)["deadline"] == before["deadline"]
    shutil.copyfile(svid.key, f"{env.dirs['batch']}/svid_key.pem")
    wait_for(lambda: not problem(env, "batch"), "the problem to be over")


def test_a_directory_or_file_that_others_could_write_is_not_believed(env):
    path, mark, elsewhere = env.dirs["wrong"], env.audit.mark(), env.workload("elsewhere")
    os.chmod(path, 0o777)
    put(env, "wrong", env.ca.issue("/web"))
    for spoil, repair, text in (
            (lambda: os.chown(path, 65534, 0), lambda: os.chown(path, 0, 0), "belongs to others than root"),
            (lambda: os.chmod(path, 0o777), lambda: None, "they may write in it"),
            (lambda: os.chmod(path, 0o755) or os.chmod(f"{path}/svid_key.pem", 0o644),
             lambda: os.chmod(f"{path}/svid_key.pem", 0o600), "not everybody may read"),
            (lambda: os.chown(f"{path}/svid.pem", 65534, 0), lambda: None, "of root's"),
            (lambda: os.rename(path, path + ".d") or os.symlink(path + ".d", path),
             lambda: os.unlink(path) or os.rename(path + ".d", path), "symbolic link")):
        spoil()
        wait_for(lambda t=text: t in (problem(env, "wrong") or ""), f"a problem with {text!r}")
        assert not env.tag_of(elsewhere), text
        repair()
    os.chown(f"{path}/svid.pem", 0, 0)
    env.audit.wait(mark, event__action="identity-refused", event__code="svid-files")
    wait_for(lambda: env.tag_of(elsewhere), "the tag once it is root's alone")


class Volume:
    """As the kubelet writes a Secret: the directory is everybody's and sticky, its files are links through one link, and that is
    replaced as a whole (k8s.io/kubernetes/pkg/volume/util/atomic_writer.go)."""

    def __init__(self, path):
        self.path = path
        self.number = 0
        self.remove()
        os.chmod(path, 0o1777)

    def put(self, svid):
        self.number += 1
        inner = f"{self.path}/..2026_11_22_{self.number}"
        os.mkdir(inner)
        for source, name in ((svid.cert, "svid.pem"), (svid.key, "svid_key.pem")):
            shutil.copyfile(source, f"{inner}/{name}")
            os.chmod(f"{inner}/{name}", 0o400)
        self.link("..data", os.path.basename(inner))
        for name in ("svid.pem", "svid_key.pem"):
            if not os.path.lexists(f"{self.path}/{name}"):
                self.link(name, f"..data/{name}")
        return svid

    def link(self, name, to):
        """In the place of what is there, at once."""
        os.symlink(to, f"{self.path}/..new")
        os.rename(f"{self.path}/..new", f"{self.path}/{name}")

    def remove(self):
        shutil.rmtree(self.path)
        os.mkdir(self.path)


def test_a_kubernetes_volume_is_followed_from_one_state_to_the_next(env):
    """And never half of it: the key of one state and the certificate of another would be told as a theft."""
    batch, mark = env.workload("batch"), env.audit.mark()
    volume = Volume(env.dirs["batch"])
    try:
        for seconds in (4200, 4800):  # longer than those of the tests before
            svid = volume.put(env.ca.issue("/web", seconds=seconds))
            wait_for(lambda s=svid: (t := env.tag_of(batch)) and abs(t["seconds_left"] - s.not_after + time.time()) < 3,
                     "the tag of this state")
        assert not env.audit.find(mark, event__action="identity-refused"), "half of a change was taken"
        assert not problem(env, "batch")
    finally:
        volume.remove()


def test_an_svid_that_the_policy_binds_elsewhere_is_an_alarm(env):
    mark = env.audit.mark()
    put_and_prove(env, "batch", env.ca.issue("/bound"))
    batch = env.workload("batch")
    event = env.audit.wait(mark, event__action="identity-refused", event__code="binding", seconds=8)
    assert event["event"]["kind"] == "alert" and event["event"]["severity"] == 2, event
    assert event["log"]["level"] == "critical" and "/vault" in event["event"]["reason"], event
    assert not env.tag_of(batch)
    assert len(env.audit.find(mark, event__code="binding")) == 1, "told once"


def test_an_svid_may_be_bound_to_the_user_who_proves_it(env):
    svid, workload, mark = env.ca.issue("/byuid"), env.workload("byuid"), env.audit.mark()
    result = workload.attest(svid, expect=1)
    assert "bound to uid 65534; uid 0 proved it" in result.out, str(result)
    event = env.audit.wait(mark, event__action="identity-refused", event__code="binding")
    assert event["event"]["kind"] == "alert", event
    os.chmod(svid.key, 0o644)
    process = workload.spawn(env.ctl_argv("attest", "--svid", svid.cert, "--key", svid.key), uid=65534)
    assert process.wait() == 0, "".join(process.out)
    assert env.tag_of(workload)["spiffe_id"] == svid.spiffe_id


def test_an_svid_may_be_bound_to_a_unit(env):
    """That is a cgroup of its name below slices; one that merely has the name is none."""
    svid, impostor, mark = env.ca.issue("/byunit"), env.workload("web2/e2e-byunit.service"), env.audit.mark()
    result = impostor.attest(svid, expect=1)
    event = env.audit.wait(mark, event__action="identity-refused", event__code="binding")
    assert event["event"]["kind"] == "alert" and "e2e-byunit.service" in event["event"]["reason"], event
    assert f" refused: binding: {event['event']['reason']}\n" in result.out and not env.tag_of(impostor), str(result)
    unit = env.workload("system.slice/e2e-byunit.service", svid)
    assert env.tag_of(unit)["spiffe_id"] == svid.spiffe_id


def test_an_svid_in_a_directory_ends_with_its_authority(env):
    unit, mark = env.workload(UNIT), env.audit.mark()
    put(env, "unit", env.ca.issue("/web"))
    wait_for(lambda: env.tag_of(unit), "the tag")
    bundle = f"{env.dir}/bundles/{TRUST_DOMAIN}.pem"
    write(bundle, env.authority(TRUST_DOMAIN, name="next", trust=False).bundle())
    try:
        env.ctl("reload", expect=0)
        wait_for(lambda: not env.tag_of(unit), "the identity to end")
        env.audit.wait(mark, event__action="identity-revoked", zt__cgroup__id=unit.cgroup_id)
        assert unit.tcp(DB) == "EPERM"
    finally:
        write(bundle, env.ca.bundle())
        env.ctl("reload", expect=0)
    wait_for(lambda: env.tag_of(unit), "the identity to come back with the authority")
    common_ready(env, BOUND)


def test_a_role_that_was_replaced_goes_on_with_the_directories(env):
    batch = env.workload("batch")
    put(env, "batch", env.ca.issue("/web", seconds=600))
    wait_for(lambda: env.tag_of(batch), "the tag")
    before = serial_of(env, batch)
    os.kill(env.role_pids()["identity"], 9)
    put(env, "batch", env.ca.issue("/web", seconds=1200))
    wait_for(lambda: serial_of(env, batch) != before, "the renewed tag", 10)


def test_bundles_that_come_again_end_no_svid_whose_files_are_gone(env):
    bundle = f"{env.dir}/bundles/{TRUST_DOMAIN}.pem"
    put_and_prove(env, "batch", env.ca.issue("/web/again-batch"))
    put_and_prove(env, "unit", env.ca.issue("/web/again-unit"))
    unit, batch = env.workload(UNIT), env.workload("batch")
    wait_for(lambda: env.tag_of(unit), "the unit's tag")
    wait_for(lambda: env.tag_of(batch), "the other's tag")
    take_away(env, "unit")
    before, mark = env.tag_of(unit), env.audit.mark()
    wait_for(lambda: problem(env, "unit"), "the files to be missed")
    try:
        # The same text is not looked at again, what says the same in other bytes is, and what says nothing is refused.
        for text, told in ((env.ca.bundle(), None), (env.ca.bundle() + "\n", "bundle-loaded"),
                           ("nothing", "bundle-refused")):
            step, serial = env.audit.mark(), serial_of(env, batch)
            write(bundle, text)
            env.ctl("reload", expect=0)
            if told:
                env.audit.wait(step, event__action=told, zt__bundle__trust_domain=TRUST_DOMAIN)
            # By what is looked at later than the bundle was judged.
            put(env, "batch", env.ca.issue("/web/again-batch"))
            wait_for(lambda s=serial: serial_of(env, batch) != s, "the other directory to be looked into")
            assert not env.audit.find(mark, event__action="identity-revoked"), f"{told or 'a reload'} ended an identity"
            assert env.tag_of(unit)["deadline"] == before["deadline"]
    finally:
        write(bundle, env.ca.bundle())
        env.ctl("reload", expect=0)
    # What has the same proof still comes to a unit that is started again.
    unit.recreate()
    wait_for(lambda: env.tag_of(unit), "the tag of the unit that was started again")


# ---- clients ----

def watched(env, argv_of, name):
    """Files that are rotated under a client are proved long before its renewal is due."""
    svid = env.ca.issue("/web", seconds=900)
    process = argv_of(svid)
    tag = wait_for(lambda: [t for t in env.tags() if t["cgroup"] == f"/{name}"], "the tag")[0]
    other = env.ca.issue("/web", seconds=1800)
    for source, target in ((other.cert, svid.cert), (other.key, svid.key)):
        os.rename(source, target)
    wait_for(lambda: [t for t in env.tags() if t["cgroup"] == f"/{name}" and t["serial"] != tag["serial"]],
             "the rotated SVID to be proved", 8)
    assert not process.ended(), "".join(process.out)


def test_attest_watch_proves_files_that_were_rotated(env):
    workload = env.workload("watching")
    watched(env, lambda svid: workload.spawn(env.ctl_argv("attest", "--watch", "--svid", svid.cert, "--key", svid.key)),
            "watching")


def test_run_proves_files_that_were_rotated(env):
    watched(env, lambda svid: env.spawn(env.ctl_argv("run", "--svid", svid.cert, "--key", svid.key, "--cgroup", "ran",
                                                     "--", "sleep", "60"), netns=env.home), "ran")


def test_a_key_of_another_certificate_does_not_leave_the_client(env):
    svid, mark = env.ca.issue("/web"), env.audit.mark()
    svid.key = env.ca.issue("/web").key
    result = env.workload("mixed").attest(svid, expect=1)
    assert "the key is not that of the certificate" in result.out, str(result)
    assert not env.audit.find(mark, event__action="identity-refused"), "nothing was asked of the daemon"


def test_the_unit_of_the_documentation_attests_its_own_cgroup(env):
    """Its ExecStartPre as systemd would run it: in the unit's cgroup, as its user, with its credentials."""
    unit = re.search(r"^# \S*/web.service\n(.*?)^```", read(f"{harness.REPO}/docs/attestation.md"), re.M | re.S).group(1)
    credentials = re.findall(r"^LoadCredential=(\S+?):\S+$", unit, re.M)
    line = re.search(r"^ExecStartPre=/usr/bin/policyctl (.*)$", unit, re.M).group(1)
    svid, workload, directory = env.ca.issue("/web"), env.workload("system.slice/web.service"), f"{env.dir}/credentials"
    os.mkdir(directory, 0o700)
    os.chown(directory, 65534, 65534)
    for name, path in zip(credentials, (svid.cert, svid.key)):
        shutil.copyfile(path, f"{directory}/{name}")
        os.chown(f"{directory}/{name}", 65534, 65534)
    process = workload.spawn(env.ctl_argv(*line.replace("${CREDENTIALS_DIRECTORY}", directory).split()), uid=65534)
    assert process.wait() == 0, "".join(process.out)
    assert env.tag_of(workload)["spiffe_id"] == svid.spiffe_id


# ---- limits, warnings, the clock ----

def test_no_proof_gives_a_longer_life_than_the_configuration_allows(env):
    workload = env.workload("long")
    svid = env.ca.issue("/web", seconds=86400 - 600)
    result = workload.attest(svid)
    tag = env.tag_of(workload)
    assert MAX_LIFETIME_S - 10 < tag["seconds_left"] <= MAX_LIFETIME_S, tag
    assert tag["deadline"] in result.out, f"{result} was told another deadline than {tag}"


def test_an_identity_is_renewed_before_half_of_its_life_or_warned_of_and_then_ends(env):
    """Beside the one that nobody renews runs one whose client watches, though its files do not change."""
    svid, watching, mark = env.ca.issue("/web", seconds=9), env.workload("at-half"), env.audit.mark()
    watching.spawn(env.ctl_argv("attest", "--watch", "--svid", svid.cert, "--key", svid.key))
    ending = env.workload("ending", env.ca.issue("/web", seconds=6))
    shown = wait_for(lambda: env.status()["identities"]["ending"], "status to show it", 9)
    assert [s["cgroup"] for s in shown] == ["/ending"], shown
    attested, renewed = (env.audit.wait(mark, event__action=f"identity-{how}", zt__cgroup__id=watching.cgroup_id)
                         for how in ("attested", "renewed"))
    proved, again = (datetime.datetime.fromisoformat(e["@timestamp"].replace("Z", "+00:00")) for e in (attested, renewed))
    # 40 to 50 % of 9 s, of which a part of a second was over, and times are told in whole seconds; then there is work to do.
    assert 2 <= (again - proved).total_seconds() < 6.5, (attested, renewed)
    event = env.audit.wait(mark, event__action="identity-ending", zt__cgroup__id=ending.cgroup_id)
    assert event["log"]["level"] == "warning" and "nobody has proved a renewed" in event["event"]["reason"], event
    env.audit.wait(mark, event__action="identity-expired", zt__cgroup__id=ending.cgroup_id)
    assert len(env.audit.find(mark, event__action="identity-ending", zt__cgroup__id=ending.cgroup_id)) == 1


def test_files_that_are_gone_give_no_life_beyond_the_longest_of_their_last_proof(env):
    """Neither to who has the identity nor to a cgroup of the place that comes later, before the end or after."""
    options = env.daemon_options
    env.stop()
    env.daemon_options = ["--max-lifetime", f"{BRIEF_S}s", *options[2:]]
    try:
        env.start()
        put_and_prove(env, "unit", env.ca.issue("/web/brief"))
        take_away(env, "unit")
        unit, mark = env.workload(UNIT), env.audit.mark()
        wait_for(lambda: env.tag_of(unit), "the unit's tag")
        wait_for(lambda: env.tag_of(unit)["seconds_left"] <= BRIEF_S / 2, "half of the life to be over", BRIEF_S)
        second = env.workload("second.slice/e2e-bound.service")
        left = wait_for(lambda: env.tag_of(second), "the tag of a second cgroup of the unit")["seconds_left"]
        assert left <= BRIEF_S / 2, f"{left} s are left of a proof that gave {BRIEF_S} s"
        for workload in (unit, second):
            env.audit.wait(mark, event__action="identity-expired", zt__cgroup__id=workload.cgroup_id, seconds=BRIEF_S)
        put_and_prove(env, "batch", env.ca.issue("/web/brief-batch"))
        mark, third, batch = env.audit.mark(), env.workload("third.slice/e2e-bound.service"), env.workload("batch")
        wait_for(lambda: env.tag_of(batch), "the tag of another whose files are there")
        assert not [w.path for w in (unit, second, third) if env.tag_of(w)], "a proof that is over gave a tag"
        for workload in (unit, second, third):
            assert not env.audit.find(mark, zt__cgroup__id=workload.cgroup_id), "a proof that is over gave a tag"
    finally:
        if not env.daemon.ended():
            env.stop()
        env.daemon_options = options
        env.start()


def set_clock_by(nanoseconds):
    """By as much as it takes: what was slewed meanwhile stays."""
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_REALTIME) + nanoseconds)
    except OSError as error:
        raise Skip(f"the clock cannot be set here: {error}") from error


def test_a_clock_that_is_set_brings_deadlines_nearer_and_not_farther(env):
    """The clock shows two seconds more for a moment. An SVID that has a little longer to live ends that much earlier, and
    does not live on when the clock is put back."""
    workload = env.workload("clock")
    workload.attest(env.ca.issue("/web", seconds=60))
    before, deadline = time.monotonic(), env.tag_of(workload)["seconds_left"]
    set_clock_by(SHIFT_S * 10**9)
    try:
        wait_for(lambda: env.tag_of(workload)["seconds_left"] < deadline - (time.monotonic() - before) - SHIFT_S / 2,
                 "the deadline to follow the clock")
    finally:
        set_clock_by(-SHIFT_S * 10**9)
    left = env.tag_of(workload)["seconds_left"]
    assert left <= deadline - SHIFT_S + 1, f"{deadline} s were left, and now {left}"
    # A proof under the right clock sets it right.
    workload.attest(env.ca.issue("/web", seconds=60))
    assert env.tag_of(workload)["seconds_left"] > left


def test_a_clock_that_is_set_back_makes_no_svid_of_a_directory_last(env):
    """The directory is proved anew then, by a calendar that gives it two seconds more."""
    put_and_prove(env, "batch", env.ca.issue("/web/back", seconds=600))
    batch = env.workload("batch")
    wait_for(lambda: env.tag_of(batch), "the tag")
    before, left, mark = time.monotonic(), env.tag_of(batch)["seconds_left"], env.audit.mark()
    set_clock_by(-SHIFT_S * 10**9)
    try:
        env.audit.wait(mark, event__action="identity-renewed", zt__cgroup__id=batch.cgroup_id)
        now_left, now = env.tag_of(batch)["seconds_left"], time.monotonic()
    finally:
        set_clock_by(SHIFT_S * 10**9)
    assert now_left < left + 1 - (now - before) + 1e-3, f"{left} s were left, and now {now_left}"


def test_an_svid_that_the_clock_says_is_of_the_future_ends(env):
    svid = env.ca.issue("/web", start=-1, seconds=600)
    workload, mark = env.workload("future", svid), env.audit.mark()
    # Back to before its notBefore, which lies a second or so ago.
    shift = int((time.time() - (svid.not_after - 600 - 1) + 1) * 10**9)
    set_clock_by(-shift)
    try:
        env.audit.wait(mark, event__action="identity-expired", zt__cgroup__id=workload.cgroup_id)
    finally:
        set_clock_by(shift)
    event = env.audit.find(mark, event__action="identity-expired", zt__cgroup__id=workload.cgroup_id)[0]
    assert "notBefore" in event["event"]["reason"], event
    assert workload.tcp(DB, timeout=300) != "ok"


# ---- what outlives the daemon ----

def restart(env, meanwhile=None):
    assert env.stop() == 0
    if meanwhile:
        meanwhile()
    env.start()


def attest_as(env, workload, svid, uid):
    os.chmod(svid.key, 0o644)
    process = workload.spawn(env.ctl_argv("attest", "--svid", svid.cert, "--key", svid.key), uid=uid)
    assert process.wait() == 0, "".join(process.out)


def test_a_binding_to_a_uid_holds_for_identities_that_a_daemon_adopts(env):
    root, nobody = env.workload("by-root"), env.workload("by-nobody")
    env.apply(POLICY)  # which binds nothing
    root.attest(env.ca.issue("/byuid"))
    attest_as(env, nobody, env.ca.issue("/byuid"), 65534)
    restart(env)
    assert env.tag_of(root)["uid"] == 0 and env.tag_of(nobody)["uid"] == 65534
    mark = env.audit.mark()
    env.apply(BOUND)
    wait_for(lambda: not env.tag_of(root), "the identity that root proved to end")
    event = env.audit.wait(mark, event__action="identity-revoked", zt__cgroup__id=root.cgroup_id)
    assert "bound to uid 65534; uid 0 proved it" in event["event"]["reason"], event
    assert env.tag_of(nobody)

    # An earlier build did not keep it: who it was is not known, so it is nobody.
    def forget():
        with opened(env.map_pin("vouchers")) as fd:
            Map(fd).delete(nobody.cgroup_id.to_bytes(8, "little"))

    mark = env.audit.mark()
    restart(env, forget)
    event = env.audit.wait(mark, event__action="identity-revoked", zt__cgroup__id=nobody.cgroup_id)
    assert "it is not known who proved it" in event["event"]["reason"], event
    assert not env.tag_of(nobody)


def test_a_revocation_that_no_daemon_carried_out_is_when_one_starts(env):
    """It was written down, and the daemon ended before it took anything away."""
    goes, stays, web = (env.workload(name, env.ca.issue(f"/web/{name}")) for name in ("half-revoked", "unrevoked", "later"))
    env.ctl("revoke", spiffe("web/later"), expect=0)
    wait_for(lambda: int(time.time()) > int(read(f"{env.dir}/state/revoked").split()[0]), "a second to pass")
    web.attest(env.ca.issue("/web/later", start=0))
    env.workload("revocation-db", env.ca.issue("/db/revocation")).tcp_server("::,5433")
    stream, mark = goes.tcp_stream("127.0.0.1,5433", rate=50), env.audit.mark()
    wait_for(lambda: stream.stat()["received"] > 0, "the connection to be in use")

    def revoke():
        with open(f"{env.dir}/state/revoked", "a", encoding="ascii") as f:
            f.write(16 * chr(0) + f"\n{int(time.time())} {spiffe('web/half-revoked')}\nwhat a disk made of\n")
            f.write(f"{int(time.time())} {spiffe('web/unrevoked')}")  # and the host stopped before it could write /more
        # Without knowing what was revoked nobody can be let in.
        os.rename(f"{env.dir}/state/revoked", f"{env.dir}/state/aside")
        os.mkdir(f"{env.dir}/state/revoked")
        env.start(wait=False)
        assert env.daemon.wait(30) == 1 and "cannot read the revocations: Is a directory" in env.log_tail(), env.log_tail()
        os.rmdir(f"{env.dir}/state/revoked")
        os.rename(f"{env.dir}/state/aside", f"{env.dir}/state/revoked")

    restart(env, revoke)
    for number, told in ((2, "is no revocation"), (4, "is no revocation"), (5, "was cut off")):
        assert f"revoked: line {number} {told}" in env.log_tail(), env.log_tail()
    event = env.audit.wait(mark, event__action="identity-revoked", zt__cgroup__id=goes.cgroup_id)
    assert "no daemon was there" in event["event"]["reason"], event
    wait_for(stream.ended, "its connection to be cut")
    assert not env.tag_of(goes) and env.tag_of(stays)
    assert env.tag_of(web), "what was issued after its revocation is none of it"
    env.ctl("revoke", spiffe("web/later"), expect=0)
    assert read(f"{env.dir}/state/revoked").splitlines()[-1].split()[1:] == [spiffe("web/later")], "it is a line of its own"
    restart(env)
    assert "revoked: line 5 was cut off" in env.log_tail() and env.tag_of(stays), "which does not make a whole one of it"


def test_an_identity_that_a_daemon_adopts_follows_the_clock_by_its_svid(env):
    svid = env.ca.issue("/web", start=-1, seconds=600)
    workload, mark = env.workload("adopted-future", svid), env.audit.mark()
    restart(env)
    shift = int((time.time() - (svid.not_after - 600 - 1) + 1) * 10**9)
    set_clock_by(-shift)
    try:
        event = env.audit.wait(mark, event__action="identity-expired", zt__cgroup__id=workload.cgroup_id)
    finally:
        set_clock_by(shift)
    assert "notBefore" in event["event"]["reason"], event


# ---- one SVID, several places ----

def shared(env, mark, **fields):
    return env.audit.find(mark, event__action="identity-shared", **fields)


def test_an_svid_in_force_in_a_second_cgroup_is_told_once_and_not_refused(env):
    svid, mark = env.ca.issue("/web/replica"), env.audit.mark()
    one, two, three = (env.workload(f"replica-{n}") for n in (1, 2, 3))
    one.attest(svid)
    env.workload("of-its-own", env.ca.issue("/web/replica"))
    two.attest(svid)
    event = env.audit.wait(mark, event__action="identity-shared", zt__cgroup__id=two.cgroup_id)
    assert event["zt"]["other"]["cgroup"] == {"id": one.cgroup_id, "path": "/replica-1"}, event
    assert event["user"]["id"] == svid.spiffe_id and event["log"]["level"] == "notice" and event["zt"]["count"] == 1
    assert event["event"]["kind"] == "event" and "/replica-1" in event["event"]["reason"], event
    tags = [env.tag_of(w) for w in (one, two)]
    assert tags[0]["svid_sha256"] == tags[1]["svid_sha256"] == event["tls"]["client"]["hash"]["sha256"].lower()
    assert [t["shared_with"] for t in tags] == [1, 1]
    # Neither renewal nor rotation of what replicas share is news, in whatever order, nor a daemon that starts again.
    rotated = env.ca.issue("/web/replica")
    for workload in (two, one, two):
        workload.attest(rotated)
    restart(env)
    for workload in (one, two):
        workload.attest(env.ca.issue("/web/replica", key=rotated) if workload is one else rotated)
    one.attest(rotated)
    three.attest(rotated)
    event = env.audit.wait(mark, event__action="identity-shared", zt__cgroup__id=three.cgroup_id)
    assert event["zt"]["count"] == 2 and "and in 1 more" in event["event"]["reason"], event
    assert len(shared(env, mark)) == 2
    assert "3 of them rest on an SVID that is in force in another place too" in env.ctl("identities", expect=0).out
    three.remove()
    wait_for(lambda: env.tag_of(one)["shared_with"] == 1, "the third one to be gone")


def test_what_one_directory_gives_is_shared_on_purpose_and_what_was_copied_from_it_is_told(env):
    svid, mark = env.ca.issue("/web/copied"), env.audit.mark()
    put_and_prove(env, "unit", svid)
    unit, second = env.workload(UNIT), env.workload("other.slice/e2e-bound.service")
    for workload in (unit, second):
        wait_for(lambda w=workload: (env.tag_of(w) or {}).get("spiffe_id") == svid.spiffe_id, "the tag of the unit")
    thief = env.workload("thief", svid)
    event = env.audit.wait(mark, event__action="identity-shared", zt__cgroup__id=thief.cgroup_id)
    assert "e2e-bound.service" in event["zt"]["other"]["cgroup"]["path"], event
    assert len(shared(env, mark)) == 1

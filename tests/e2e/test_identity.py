# SPDX-License-Identifier: Apache-2.0
"""Who gets an identity, who does not and why, and how it is lost."""
import os
import struct
import time

import bpf
import harness
from common import POLICY, TRUST_DOMAIN, setup as common_setup, ready as common_ready, spiffe
from harness import wait_for

ATTESTER = ["/usr/bin/python3", "-B", os.path.join(os.path.dirname(os.path.abspath(__file__)), "attester.py")]
DB = "127.0.0.1,5432"

# enum attest_code of identity/attest.h: stable numbers.
PEER_DIFFERS, CGROUP_UNMANAGED, CGROUP_MOVED, SIGNATURE, BINDING, OTHER_IDENTITY, SVID = 4, 5, 6, 8, 9, 10, 1000

IDENTITIES = f"""\
  bound: {{spiffe: {spiffe('bound')}, only: {{cgroup: /vault}}}}
  legacy: {{cgroup: /legacy.slice/app}}
  backup: {{unit: e2e-backup.service}}
networks:
"""
RULES = """\
  - {name: locals-to-db, action: allow, from: [legacy, backup, bound], to: db, service: pg}
"""
POLICY_WITH_LOCALS = POLICY.replace("networks:\n", IDENTITIES, 1) + RULES


def setup(env):
    common_setup(env)
    env.foreign = env.authority(TRUST_DOMAIN, name="foreign", trust=False)


def ready(env):
    common_ready(env, POLICY_WITH_LOCALS)
    env.server = env.db.tcp_server(f"::,{5432}", "::,5433", "::,6000")


def refused(env, workload, svid, name, code=None):
    """The answer names the rule, the audit log has it, the cgroup stays without a tag."""
    mark = env.audit.mark()
    result = workload.attest(svid, expect=1)
    assert " refused: " in result.out and name in result.out, str(result)
    event = env.audit.wait(mark, event__action="identity-refused", event__code=name, event__outcome="failure")
    reason = event["event"]["reason"]
    assert reason in result.out, f"audit says {reason!r}, the workload was told {result.out!r}"
    if code:
        assert harness.field(event, "zt.svid.rule") == code and harness.field(event, "zt.svid.rule_name") == name, event
    assert not env.tag_of(workload), "it got a tag all the same"
    return event


# ---- what is inherited, what is lost ----

def test_a_nested_cgroup_inherits_the_identity(env):
    assert env.web.tcp(DB) == "ok"
    for name in ("web/inner", "web/inner/most"):
        inner = env.workload(name)
        assert inner.tcp(DB) == "ok", name
        assert inner.tcp("127.0.0.1,6000") == "EPERM", name


def test_a_nested_cgroup_with_an_identity_of_its_own_has_only_that(env):
    outer = env.workload("outer", env.ca.issue("/web"))
    inner = env.workload("outer/inner", env.ca.issue("/lone"))
    assert outer.tcp(DB) == "ok"
    assert inner.tcp(DB) == "EPERM"


def test_an_expired_nested_identity_does_not_fall_back_to_the_outer_one(env):
    env.workload("outer2", env.ca.issue("/web"))
    inner, mark = env.workload("outer2/inner"), env.audit.mark()
    assert inner.tcp(DB) == "ok"
    svid = env.ca.issue("/web", seconds=2)
    inner.attest(svid)
    wait_for(lambda: time.time() > svid.not_after, "the SVID to expire")
    assert inner.tcp(DB, timeout=300) != "ok"
    # Nor once the daemon has noticed.
    env.audit.wait(mark, event__action="identity-expired", zt__cgroup__id=inner.cgroup_id, seconds=10)
    assert inner.tcp(DB, timeout=300) != "ok"


def tag_put(env, carrier, value):
    with bpf.opened_map(env.map_pin("tags")) as tags:
        tags.update(struct.pack("=Q", carrier), value.ljust(tags.value_bytes, b"\0"))


def test_the_tag_of_another_cgroup_is_none(env):
    """The kernel gives the memory of a tag to another cgroup's while a program may still hold it. What was meant for the one
    must be nothing to the other, and not make room for what an outer cgroup has. The test puts it there."""
    outer = env.workload("outer3", env.ca.issue("/web"))
    stranger, inner = env.workload("stranger"), env.workload("outer3/inner")
    assert inner.tcp(DB) == "ok"
    with bpf.opened_map(env.map_pin("tags")) as tags:
        tag = tags.lookup(struct.pack("=Q", outer.cgroup_id))
    mark = env.audit.mark()
    for workload in (stranger, inner):
        tag_put(env, workload.cgroup_id, tag)
        assert workload.tcp(DB) == "EPERM", workload.path
        env.audit.wait(mark, event__action="flow-denied", event__code="NO_IDENTITY", zt__cgroup__id=workload.cgroup_id)
    assert outer.tcp(DB) == "ok"
    # It is the seal that keeps them apart.
    for workload in (stranger, inner):
        tag_put(env, workload.cgroup_id, bpf.sealed(workload.cgroup_id, tag[:16]))
        assert workload.tcp(DB) == "ok", workload.path
        with bpf.opened_map(env.map_pin("tags")) as tags:
            tags.delete(struct.pack("=Q", workload.cgroup_id))


def test_a_recreated_cgroup_of_the_same_name_is_denied_from_its_first_packet(env):
    web = env.workload("phoenix", env.ca.issue("/web"))
    assert web.tcp(DB) == "ok"
    old, mark = web.cgroup_id, env.audit.mark()
    web.recreate()
    assert web.cgroup_id != old
    assert web.tcp(DB) == "EPERM"
    env.audit.wait(mark, event__action="flow-denied", event__code="NO_IDENTITY", zt__cgroup__id=web.cgroup_id)


def test_a_recreated_cgroup_is_denied_while_the_daemon_is_dead(env):
    web = env.workload("phoenix2", env.ca.issue("/web"))
    assert web.tcp(DB) == "ok"
    env.kill_daemon()
    web.recreate()
    assert web.tcp(DB) == "EPERM"
    env.start()
    assert web.tcp(DB) == "EPERM"


def test_a_removed_cgroup_loses_its_tag(env):
    gone, mark = env.workload("gone", env.ca.issue("/web")), env.audit.mark()
    cgroup = gone.cgroup_id
    gone.remove()
    wait_for(lambda: cgroup not in [t["cgroup_id"] for t in env.tags()], "the tag to go")
    env.audit.wait(mark, event__action="identity-removed", zt__cgroup__id=cgroup)


def test_a_cgroup_removed_while_the_daemon_was_dead_loses_its_tag_at_the_start(env):
    gone = env.workload("gone2", env.ca.issue("/web"))
    cgroup = gone.cgroup_id
    env.kill_daemon()
    gone.remove()
    env.start()
    wait_for(lambda: cgroup not in [t["cgroup_id"] for t in env.tags()], "the tag to go")
    assert env.tag_of(env.web), "and the others stay"


# ---- attestation ----

def test_an_attestation_is_listed_and_logged(env):
    mark, svid = env.audit.mark(), env.ca.issue("/web", seconds=1800)
    workload = env.workload("listed", svid)
    tag = env.tag_of(workload)
    assert tag["spiffe_id"] == svid.spiffe_id and tag["cgroup"].endswith("/listed"), tag
    assert abs(tag["seconds_left"] - (svid.not_after - time.time())) < 3, tag
    event = env.audit.wait(mark, event__action="identity-attested", zt__cgroup__id=workload.cgroup_id)
    assert event["user"]["id"] == svid.spiffe_id and event["event"]["outcome"] == "success", event
    assert event["tls"]["client"]["x509"]["serial_number"], event


def test_renewal_extends_the_deadline(env):
    workload = env.workload("renewed", env.ca.issue("/web", seconds=600))
    before, mark = env.tag_of(workload), env.audit.mark()
    workload.attest(env.ca.issue("/web", seconds=3000))
    after = env.tag_of(workload)
    assert after["seconds_left"] > before["seconds_left"] + 2000, (before, after)
    assert after["identity"] == before["identity"]
    env.audit.wait(mark, event__action="identity-renewed", zt__cgroup__id=workload.cgroup_id)


def test_a_second_identity_for_a_tagged_cgroup_is_refused(env):
    workload = env.workload("two", env.ca.issue("/web"))
    mark = env.audit.mark()
    result = workload.attest(env.ca.issue("/db"), expect=1)
    assert "other-identity" in result.out, str(result)
    env.audit.wait(mark, event__action="identity-refused", event__code="other-identity")
    assert env.tag_of(workload)["spiffe_id"] == spiffe("web")


def test_an_intermediate_that_ends_first_sets_the_deadline(env):
    mid = env.authority(TRUST_DOMAIN, name="mid", parent=env.ca, seconds=300)
    workload = env.workload("shorter", mid.issue("/web", seconds=3000))
    assert 290 <= env.tag_of(workload)["seconds_left"] <= 300, env.tag_of(workload)


def test_run_starts_a_command_with_its_identity_and_clears_up(env):
    svid = env.ca.issue("/web")
    process = env.spawn(env.ctl_argv("run", "--svid", svid.cert, "--key", svid.key, "--cgroup", "runner", "--",
                                     harness.TRAFFIC, "tcp-client", "--to", DB, "--count", "1"), netns=env.home)
    assert process.wait() == 0, "".join(process.out)
    assert process.wait_event("done")
    assert not os.path.exists(f"{env.cgroup}/runner")


def test_run_without_a_valid_identity_does_not_start_the_command(env):
    svid, marker = env.foreign.issue("/web"), f"{env.dir}/started"
    process = env.spawn(env.ctl_argv("run", "--svid", svid.cert, "--key", svid.key, "--cgroup", "runner2", "--",
                                     "touch", marker), netns=env.home)
    assert process.wait() == 1, "".join(process.out)
    assert not os.path.exists(marker) and not os.path.exists(f"{env.cgroup}/runner2")


def test_files_that_cannot_be_read_are_a_matter_of_usage_and_may_come_later(env):
    svid, late = env.ca.issue("/web"), f"{env.dir}/pki/late.pem"
    for missing in ("--svid", "--key"):
        argv = ["--svid", svid.cert, "--key", svid.key]
        argv[argv.index(missing) + 1] = late
        for command in (["attest", *argv], ["run", *argv, "--cgroup", "runner3", "--", "true"]):
            process = env.spawn(env.ctl_argv(*command), netns=env.home)
            assert process.wait() == 2 and f"cannot read {late}: No such file" in "".join(process.out), process.out
    workload = env.workload("late")
    watching = workload.spawn(env.ctl_argv("attest", "--watch", "--svid", late, "--key", svid.key))
    wait_for(lambda: any("cannot read" in line for line in watching.out), "it to find no file")
    os.link(svid.cert, late)
    wait_for(lambda: env.tag_of(workload), "the file to be proved when it is there")
    watching.popen.terminate()
    assert watching.wait() == 0


# ---- SVIDs that are refused, and by which rule ----

def test_an_svid_of_a_foreign_ca_is_refused(env):
    refused(env, env.loose, env.foreign.issue("/web"), "untrusted-issuer", 44)


def test_an_svid_of_an_unknown_trust_domain_is_refused(env):
    other = env.authority("other.example", trust=False)
    refused(env, env.loose, other.issue("/web"), "no-bundle", 75)


def test_an_authority_vouches_for_its_own_trust_domain_only(env):
    refused(env, env.loose, env.ca.issue("/web", subjectAltName="URI:spiffe://other.example/web"), "no-bundle", 75)
    theirs = env.authority("third.example")
    env.ctl("reload", expect=0)
    refused(env, env.loose, theirs.issue("/web", subjectAltName=f"URI:{spiffe('web')}"), "untrusted-issuer", 44)
    env.workload("third", theirs.issue("/x"))


def test_an_expired_svid_is_refused(env):
    refused(env, env.loose, env.ca.issue("/web", start=-60, seconds=-1), "validity", 62)


def test_an_svid_of_the_future_is_refused(env):
    refused(env, env.loose, env.ca.issue("/web", start=600), "validity", 62)


def test_an_svid_without_path_is_refused(env):
    refused(env, env.loose, env.ca.issue(""), "leaf-no-path", 29)


def test_a_ca_as_leaf_is_refused(env):
    refused(env, env.loose, env.ca.issue("/web", basicConstraints="critical,CA:TRUE",
                                         keyUsage="critical,digitalSignature"), "leaf-is-ca", 30)


def test_an_svid_that_may_sign_certificates_is_refused(env):
    refused(env, env.loose, env.ca.issue("/web", keyUsage="critical,digitalSignature,keyCertSign"),
            "leaf-key-cert-sign", 32)
    refused(env, env.loose, env.ca.issue("/web", keyUsage="critical,digitalSignature,cRLSign"), "leaf-crl-sign", 33)


def test_an_svid_with_two_uris_or_none_is_refused(env):
    refused(env, env.loose, env.ca.issue("/web", subjectAltName=f"URI:{spiffe('web')},URI:https://x.example/"),
            "leaf-many-uris", 25)
    refused(env, env.loose, env.ca.issue(None, subjectAltName="DNS:web.e2e.example"), "leaf-no-uri", 26)


def test_an_svid_signed_by_a_leaf_is_refused(env):
    leaf = env.ca.issue("/web")
    fake = harness.Authority(f"{env.dir}/pki/leaf-signs", TRUST_DOMAIN)
    fake.cert, fake.key = leaf.cert, leaf.key
    svid = fake.issue("/db", authorityKeyIdentifier=None)
    with open(svid.cert, "a", encoding="ascii") as out:
        out.write(harness.read(leaf.cert))
    refused(env, env.loose, svid, "signer-not-ca", 47)


def test_a_chain_that_brings_its_own_root_is_refused(env):
    svid = env.foreign.issue("/web")
    with open(svid.cert, "a", encoding="ascii") as out:
        out.write(env.foreign.bundle())
    refused(env, env.loose, svid, "own-root", 65)


# ---- possession, and whose cgroup it is ----

def cheat(env, workload, what, uid=None, **options):
    args = [a for name, value in options.items() for a in (f"--{name}", str(value))]
    return workload.spawn([*ATTESTER, what, *args], uid=uid)


def answer(process):
    process.wait(15)
    return process.wait_event("result")


def attest_socket(env):
    return f"{env.run_dir}/attest.sock"


def test_the_protocol_as_described_is_the_protocol_as_spoken(env):
    """The cheats below are only worth something if this client is understood."""
    svid, workload = env.ca.issue("/web"), env.workload("by-hand")
    result = answer(cheat(env, workload, "blind", socket=attest_socket(env), svid=svid.cert, key=svid.key))
    assert result["code"] == 0, result
    assert env.tag_of(workload)["spiffe_id"] == svid.spiffe_id


def test_a_certificate_without_its_key_is_refused(env):
    svid, workload, mark = env.ca.issue("/web"), env.workload("thief"), env.audit.mark()
    result = answer(cheat(env, workload, "unsigned", socket=attest_socket(env), svid=svid.cert, key=svid.key))
    assert result["code"] == SIGNATURE, result
    env.audit.wait(mark, event__action="identity-refused", event__code="signature")
    assert not env.tag_of(workload)


def test_a_proof_sent_twice_is_refused(env):
    svid, workload = env.ca.issue("/web"), env.workload("again")
    process = cheat(env, workload, "reuse", socket=attest_socket(env), svid=svid.cert, key=svid.key)
    process.wait(15)
    codes = [e["code"] for e in process.events if e["event"] == "result"]
    assert codes == [0, SIGNATURE], process.events


def test_a_relayed_attestation_is_not_signed_by_its_victim(env):
    """evil connects to the daemon and stands between it and a victim with a good SVID: the victim sees that the
    challenge names another cgroup."""
    svid, evil, victim = env.ca.issue("/web"), env.workload("evil"), env.workload("victim")
    os.makedirs(f"{env.dir}/fake", exist_ok=True)
    relay = cheat(env, evil, "relay", socket=attest_socket(env), at=f"{env.dir}/fake/attest.sock")
    relay.wait_event("ready")
    client = victim.spawn(env.ctl_argv("attest", "--svid", svid.cert, "--key", svid.key, run_dir=f"{env.dir}/fake"))
    assert client.wait() not in (0, 1), "".join(client.out)
    assert "cgroup" in "".join(client.out), "".join(client.out)
    result = answer(relay)
    assert result["code"] is None and "did not sign" in result["text"], result
    assert [e["kind"] for e in relay.events if e["event"] == "relayed"] == [1, 2]
    assert not env.tag_of(evil) and not env.tag_of(victim)


def test_a_relay_that_rewrites_the_challenge_gets_a_worthless_proof(env):
    svid, evil, victim = env.ca.issue("/web"), env.workload("evil2"), env.workload("victim2")
    os.makedirs(f"{env.dir}/fake2", exist_ok=True)
    mark = env.audit.mark()
    relay = cheat(env, evil, "relay", socket=attest_socket(env), at=f"{env.dir}/fake2/attest.sock",
                  rewrite=victim.cgroup_id)
    relay.wait_event("ready")
    client = victim.spawn(env.ctl_argv("attest", "--svid", svid.cert, "--key", svid.key, run_dir=f"{env.dir}/fake2"))
    client.wait()
    result = answer(relay)
    assert result["code"] == SIGNATURE, f"{result}; the victim said {''.join(client.out)}"
    env.audit.wait(mark, event__action="identity-refused", event__code="signature")
    assert not env.tag_of(evil) and not env.tag_of(victim)


def test_a_connection_passed_to_another_process_is_refused(env):
    svid, giver, taker = env.ca.issue("/web"), env.workload("giver"), env.workload("taker")
    mark, place = env.audit.mark(), f"{env.dir}/hand"
    first = cheat(env, giver, "hand", socket=attest_socket(env), at=place)
    first.wait_event("ready")
    result = answer(cheat(env, taker, "take", at=place, svid=svid.cert, key=svid.key))
    assert result["code"] == PEER_DIFFERS, result
    env.audit.wait(mark, event__action="identity-refused", event__code="peer-differs")
    assert not env.tag_of(giver) and not env.tag_of(taker)


def test_a_process_that_changes_its_cgroup_meanwhile_is_refused(env):
    svid, here, there, mark = env.ca.issue("/web"), env.workload("here"), env.workload("there"), env.audit.mark()
    result = answer(cheat(env, here, "leave", socket=attest_socket(env), svid=svid.cert, key=svid.key, to=there.path))
    assert result["code"] == CGROUP_MOVED, result
    env.audit.wait(mark, event__action="identity-refused", event__code="cgroup-moved")
    assert not env.tag_of(here) and not env.tag_of(there)


def test_a_process_outside_the_managed_subtree_is_refused(env):
    svid = env.ca.issue("/web")
    result = answer(cheat(env, env.nobody, "blind", socket=attest_socket(env), svid=svid.cert, key=svid.key))
    assert result["code"] == CGROUP_UNMANAGED, result


def test_a_copied_key_is_refused_in_a_cgroup_it_is_not_bound_to(env):
    svid = env.ca.issue("/bound")
    vault = env.workload("vault", svid)
    assert vault.tcp(DB) == "ok"
    thief = env.workload("copycat")
    event = refused(env, thief, svid, "binding")
    assert "/vault" in event["event"]["reason"], event
    assert thief.tcp(DB) == "EPERM"


# ---- local identities ----

def test_a_cgroup_named_by_the_policy_has_a_local_identity(env):
    mark = env.audit.mark()
    legacy = env.workload("legacy.slice/app")
    wait_for(lambda: env.tag_of(legacy), "the tag of a local identity")
    tag = env.tag_of(legacy)
    assert tag["local"] == "legacy" and tag["deadline"] is None, tag
    assert legacy.tcp(DB) == "ok"
    env.audit.wait(mark, event__action="identity-local", zt__cgroup__id=legacy.cgroup_id)
    assert legacy.tcp("127.0.0.1,6000") == "EPERM"
    env.audit.wait(mark, event__action="flow-denied", zt__source__local="legacy")
    neighbour = env.workload("legacy.slice/other")
    assert neighbour.tcp(DB) == "EPERM"


def test_a_unit_named_by_the_policy_has_a_local_identity(env):
    unit = env.workload("system.slice/e2e-backup.service")
    wait_for(lambda: env.tag_of(unit), "the tag of a local identity")
    assert env.tag_of(unit)["local"] == "backup"
    assert unit.tcp(DB) == "ok"
    impostor = env.workload("web2/e2e-backup.service")
    assert impostor.tcp(DB) == "EPERM", "only what lies below slices is a unit"


def test_a_local_identity_goes_with_the_policy(env):
    legacy = env.workload("legacy.slice/app")
    wait_for(lambda: env.tag_of(legacy), "the tag of a local identity")
    env.apply(POLICY)
    try:
        assert not env.tag_of(legacy)
        assert legacy.tcp(DB) == "EPERM"
    finally:
        env.apply(POLICY_WITH_LOCALS)

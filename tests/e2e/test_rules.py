# SPDX-License-Identifier: Apache-2.0
"""The text of a refusal: in the answer to the workload, in the audit log and by `policyctl svid verify`, one and the same, for
every rule that a chain alone can break. The chains are the generator's."""
import concurrent.futures
import os
import re
import subprocess

import harness
from authority import Svid
from harness import wait_for
from test_identity import ATTESTER, attest_socket

CHAINS = os.path.join(harness.BUILD, "tests", "chains", "write_chains")
TRUST_DOMAIN = "prod.example"
# What is no chain of certificates is refused by the client before there is anything to send.
BY_THE_CLIENT = {72, 201, 202, 205}


class Case:
    def __init__(self, directory, line):
        name, _, told, *_, self.usual = line.split("\t")
        self.name, self.told, self.chain = name, int(told), f"{directory}/{name}/chain.pem"
        self.svid = Svid(self.chain, f"{directory}/{name}/leaf.key", None, None)


def setup(env):
    env.chains = f"{env.dir}/chains"
    os.mkdir(env.chains)
    lines = subprocess.run([CHAINS, env.chains], capture_output=True, text=True, check=True).stdout.splitlines()
    env.cases = {case.name: case for case in (Case(env.chains, line) for line in lines) if case.usual == "1"}
    env.bundle = f"{env.dir}/bundles/{TRUST_DOMAIN}.pem"
    harness.write(env.bundle, harness.read(f"{env.chains}/good/bundle.pem"))


def verify(env, case, at=None):
    """What `svid verify` says: (its text, all of its output)."""
    when = ["--at", at] if at else []
    result = env.ctl("svid", "verify", "--bundle", env.bundle, "--trust-domain", TRUST_DOMAIN, *when, case.chain)
    found = re.match(r"refused: (.*)\n", result.out)
    return found and found.group(1), result.out + result.err


def one_of_each_rule(env):
    """The first chain that is refused by each rule, by the rule."""
    found = {}
    for case in env.cases.values():
        found.setdefault(case.told, case)
    del found[0]
    return found


def test_a_refusal_reads_the_same_to_the_workload_in_the_log_and_offline(env):
    workload = env.workload("refused")
    told = one_of_each_rule(env)
    assert len(told) >= 35, sorted(told)
    for rule, case in sorted(told.items()):
        mark = env.audit.mark()
        answer = workload.attest(case.svid, expect=1).out
        if rule in BY_THE_CLIENT:
            text = verify(env, case)[0]
            assert f" refused: {text}\n" in answer, f"{case.name}: verify says {text!r}, the client {answer!r}"
            continue
        event = env.audit.wait(mark, event__action="identity-refused")
        logged = event["event"]["reason"]
        assert harness.field(event, "zt.svid.rule") == rule, f"{case.name}: {event}"
        # The time that it was judged at is part of the text.
        at = re.search(r"and it is ([0-9TZ:-]+)", logged)
        text = verify(env, case, at and at.group(1))[0]
        assert text == logged, f"{case.name}: verify says {text!r}, the log {logged!r}"
        assert f" refused: {logged}\n" in answer, f"{case.name}: the log says {logged!r}, the workload was told {answer!r}"
        assert f"(rule {rule}): " in logged, logged
    assert not env.tag_of(workload)


def test_every_bad_chain_reads_the_same_in_all_three(env):
    """Sent by a client that looks at nothing, so what policyctl would not send reaches the daemon too."""
    # A HELLO has 1 to 8 certificates, and a block without any bytes is no PEM.
    cases = [case for case in env.cases.values() if case.told and case.name not in ("limit-none", "limit-nine", "malformed-empty")]
    # More from one cgroup at once are told together (docs/attestation.md).
    at_once = 16
    workloads, events = [], []
    for first in range(0, len(cases), at_once):
        workload = env.workload(f"every{first}")
        sender = workload.spawn([*ATTESTER, "each", "--socket", attest_socket(env)])
        sender.wait_event("ready")
        workloads.append(workload)
        for number, case in enumerate(cases[first:first + at_once]):
            mark = env.audit.mark()
            sender.command(case.chain)
            answer = sender.wait_event("result", since=number + 1)
            event = env.audit.wait(mark, event__action="identity-refused", zt__cgroup__id=workload.cgroup_id)
            assert answer["code"] == 1000 + case.told and harness.field(event, "zt.svid.rule") == case.told, \
                f"{case.name}: {answer}, {event}"
            assert answer["text"] == event["event"]["reason"], \
                f"{case.name}: told {answer['text']!r}, logged {event}"
            events.append(event)
        sender.kill()
    assert len(events) >= 200, len(events)

    def offline(case, event):
        at = re.search(r"and it is ([0-9TZ:-]+)", event["event"]["reason"])
        return verify(env, case, at and at.group(1))[0]

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for case, event, text in zip(cases, events, pool.map(offline, cases, events)):
            assert text == event["event"]["reason"], f"{case.name}: verify says {text!r}, the log {event['event']['reason']!r}"
    assert not any(env.tag_of(workload) for workload in workloads)


def test_a_signer_of_another_trust_domain_is_noted_in_all_three(env):
    case, mark = env.cases["int-other-td"], env.audit.mark()
    workload = env.workload("noted", case.svid)
    assert env.tag_of(workload)
    event = env.audit.wait(mark, event__action="identity-attested", zt__cgroup__id=workload.cgroup_id)
    note = re.search(r"note: (.*)\n", verify(env, case)[1]).group(1)
    assert "spiffe://other.example" in note and "(rule 54)" in note, note
    assert note in event["event"]["reason"], event
    again = workload.attest(case.svid)
    assert note in again.out, str(again)

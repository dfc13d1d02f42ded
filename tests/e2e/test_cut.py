# SPDX-License-Identifier: Apache-2.0
"""Established flows end when they are no longer allowed: no payload that was sent after that arrives."""
import contextlib
import os
import time

import common
from common import spiffe, stream_of
from harness import PATIENCE, SANITIZED, read, wait_for, write

PORT = 5432
MS = 1000000

# The same for workloads of another trust domain.
OTHER = "other.example"
POLICY = common.POLICY
for _name in ("web", "db"):
    POLICY = POLICY.replace(f"  {_name}: [", f"  {_name}: [spiffe://{OTHER}/{_name}/*, ")
POLICY_WITHOUT_WEB = POLICY.replace("service: pg", "service: tcp/1")
# Only one of the two ends still allows it.
POLICY_INGRESS_ONLY = POLICY.replace("    service: pg\n", "    service: pg\n    direction: ingress\n")
POLICY_EGRESS_ONLY = POLICY.replace("    service: pg\n", "    service: pg\n    direction: egress\n")


def setup(env):
    common.setup(env)
    env.other_ca = env.authority(OTHER)


def ready(env):
    common.ready(env, POLICY)
    env.far = env.network.namespace("b")
    env.veth = env.network.veth(env.home, env.far)
    env.count = 0


class Flow:
    """A TCP connection and a UDP flow of a web of its own to a db of its own, both in use all the time."""

    def __init__(self, env, far=False, web_seconds=3600, db_seconds=3600, web_ca=None, db_ca=None, port=PORT):
        env.count += 1
        n = self.stream = env.count
        self.env = env
        self.db_svid = (db_ca or env.ca).issue(f"/db/{n}", seconds=db_seconds)
        self.web_svid = (web_ca or env.ca).issue(f"/web/{n}", seconds=web_seconds)
        self.db, self.web = env.workload(f"db{n}", self.db_svid), env.workload(f"web{n}", self.web_svid)
        netns = env.far if far else env.home
        address = env.veth["4"][1] if far else f"127.0.1.{n}"
        self.tcp_server = self.db.tcp_server(f"{address},{port}", netns=netns)
        self.udp_server = self.db.udp_server(f"{address},{port}", netns=netns)
        wait_for(lambda: self.web.udp(f"{address},{port}", stream=1000 + n) == "ok", "web to reach db over udp")
        self.tcp = self.web.tcp_stream(f"{address},{port}", rate=500, stream=n)
        self.udp = self.web.udp_stream(f"{address},{port}", rate=500, stream=n)
        self.flows()

    def stop(self):
        """Leaves the address to another."""
        for process in (self.tcp, self.udp, self.tcp_server, self.udp_server):
            process.kill()

    def flows(self):
        """Waits until records of both have gone there and back."""
        tcp, udp = self.tcp.stat()["received"], self.udp.stat()["received"]
        wait_for(lambda: self.tcp.stat()["received"] > tcp + 20, "TCP to flow")
        wait_for(lambda: self.udp.stat()["received"] > udp + 20, "UDP to flow")

    def server_side(self):
        connection = next(c for c in self.tcp_server.stat()["connections"] if c["stream"] == self.stream)
        return connection, stream_of(self.udp_server, self.stream)

    def check_nothing_after(self, cut_ns):
        """The clients go on sending, unless they learned of the end, and nothing of it arrives."""
        made, tries = self.udp.stat()["made"], self.tcp.stat()
        wait_for(lambda: self.udp.stat()["made"] > made + 200, "the UDP client to go on")
        # 0.8 s of records: four times TCP's shortest time to a retransmission.
        wait_for(lambda: self.tcp.ended() or self.tcp.stat()["sent"] > tries["sent"] + 400, "the TCP client to go on")
        tcp, udp = self.server_side()
        for name, seen in (("TCP", tcp), ("UDP", udp)):
            late = (seen["last_sent_ns"] - cut_ns) / MS
            assert late <= 0, f"{name}: a record sent {late:.1f} ms after the cut arrived"
        for name, seen in (("TCP", self.tcp.stat()), ("UDP", self.udp.stat())):
            late = (seen["last_sent_ns"] - cut_ns) / MS
            assert late <= 0, f"{name}: a record sent {late:.1f} ms after the cut was answered"

    def check_both_ends_learned(self, cut_ns):
        errors = ("ECONNABORTED", "ECONNRESET", "EPIPE", "ETIMEDOUT", "EPERM")
        for end in (self.tcp, self.tcp_server):
            event = end.wait_event("ended")
            assert event["errno"] in errors, f"{end}: {event}"
            took = (event["t"] - cut_ns) / MS
            assert took < 1000 * PATIENCE, f"{end} learned only after {took:.0f} ms"


def cut_by_policy(env, flow, policy=POLICY_WITHOUT_WEB):
    env.apply(policy)
    cut_ns = time.monotonic_ns()
    try:
        flow.check_both_ends_learned(cut_ns)
        flow.check_nothing_after(cut_ns)
    finally:
        env.apply(POLICY)


def test_a_policy_change_cuts_on_loopback(env):
    cut_by_policy(env, Flow(env))


def test_a_policy_change_cuts_across_a_veth(env):
    cut_by_policy(env, Flow(env, far=True))


def test_a_policy_change_of_one_end_cuts_for_both(env):
    for far in (False, True):
        for policy in (POLICY_INGRESS_ONLY, POLICY_EGRESS_ONLY):
            flow = Flow(env, far=far)
            cut_by_policy(env, flow, policy)
            flow.stop()


def test_a_cut_udp_flow_goes_on_when_it_is_allowed_again(env):
    flow = Flow(env)
    cut_by_policy(env, flow)
    before = flow.udp.stat()["received"]
    wait_for(lambda: flow.udp.stat()["received"] > before + 20, "UDP to flow again")


def test_a_policy_change_leaves_what_is_still_allowed(env):
    flow, refused = Flow(env), 0
    for policy in (POLICY.replace("log: new", "log: all"), POLICY.replace("tcp/5532", "tcp/5533"), POLICY):
        env.apply(policy)
        flow.flows()
        refused = flow.udp.stat()["refused"]
    assert not flow.tcp.ended() and refused == 0
    assert stream_of(flow.udp_server, flow.stream)["out_of_order"] == 0


def test_an_apply_tells_how_many_sockets_it_cut(env):
    Flow(env)
    mark = env.audit.mark()
    path = env.write_policy(POLICY_WITHOUT_WEB)
    try:
        result = env.ctl_json("apply", path)
        assert result["sockets_cut"] >= 1, result
        event = env.audit.wait(mark, event__action="sockets-cut")
        assert event["zt"]["count"] == result["sockets_cut"], event
    finally:
        env.apply(POLICY)


def revoke(env, flow, svid):
    mark = env.audit.mark()
    result = env.ctl_json("revoke", svid.spiffe_id)
    cut_ns = time.monotonic_ns()
    assert result["tags"] == 1, result
    flow.check_both_ends_learned(cut_ns)
    flow.check_nothing_after(cut_ns)
    env.audit.wait(mark, event__action="identity-revoked", user__id=svid.spiffe_id)


def test_revoking_the_source_cuts(env):
    flow = Flow(env)
    revoke(env, flow, flow.web_svid)
    assert not env.tag_of(flow.web)


def test_revoking_the_destination_cuts(env):
    flow = Flow(env)
    revoke(env, flow, flow.db_svid)


def test_revoking_cuts_across_a_veth(env):
    flow = Flow(env, far=True)
    revoke(env, flow, flow.web_svid)


def test_revoking_the_destination_cuts_across_a_veth(env):
    flow = Flow(env, far=True)
    revoke(env, flow, flow.db_svid)


@contextlib.contextmanager
def bundle_removed(env):
    """The bundle of the other trust domain is gone; yields when that was told to the daemon."""
    path = f"{env.dir}/bundles/{OTHER}.pem"
    os.rename(path, f"{env.dir}/bundle-away")
    try:
        env.ctl("reload", expect=0)
        yield time.monotonic_ns()
    finally:
        os.rename(f"{env.dir}/bundle-away", path)
        env.ctl("reload", expect=0)


def cut_by_bundle(env, flow, svid):
    mark = env.audit.mark()
    with bundle_removed(env) as cut_ns:
        flow.check_both_ends_learned(cut_ns)
        flow.check_nothing_after(cut_ns)
        for end in (flow.tcp, flow.tcp_server):
            assert end.wait_event("ended")["t"] - cut_ns < 1000 * MS * PATIENCE, "not within a second"
        env.audit.wait(mark, event__action="bundle-removed", zt__bundle__trust_domain=OTHER)
        event = env.audit.wait(mark, event__action="identity-revoked", user__id=svid.spiffe_id)
        assert OTHER in event["event"]["reason"], event["event"]


def test_removing_a_trust_bundle_cuts_its_sources(env):
    for far in (False, True):
        flow, stays = Flow(env, far=far, web_ca=env.other_ca), Flow(env, far=not far)
        cut_by_bundle(env, flow, flow.web_svid)
        stays.flows()
        assert not stays.tcp.ended() and env.tag_of(stays.web), "identities of other trust domains stay"
        flow.stop()
        stays.stop()


def test_removing_a_trust_bundle_cuts_its_destinations(env):
    for far in (False, True):
        flow = Flow(env, far=far, db_ca=env.other_ca)
        cut_by_bundle(env, flow, flow.db_svid)


def test_a_removed_trust_bundle_that_comes_back_lets_its_workloads_in_again(env):
    """Nothing was revoked by name: the same SVID counts again."""
    svid = env.other_ca.issue("/web/back")
    workload = env.workload("back", svid)
    with bundle_removed(env):
        assert not env.tag_of(workload)
        workload.attest(svid, expect=1)
    workload.attest(svid)
    assert env.tag_of(workload)


def test_a_trust_bundle_left_without_authority_ends_its_identities(env):
    svid = env.other_ca.issue("/web/empty")
    workload = env.workload("empty", svid)
    path = f"{env.dir}/bundles/{OTHER}.pem"
    text = read(path)
    try:
        write(path, read(svid.cert))  # a certificate, and no authority
        env.ctl("reload", expect=0)
        wait_for(lambda: not env.tag_of(workload), "the identity to end", 1)
    finally:
        write(path, text)
        env.ctl("reload", expect=0)


def test_a_trust_bundle_that_cannot_be_read_changes_nothing(env):
    svid = env.other_ca.issue("/web/unread")
    workload, mark = env.workload("unread", svid), env.audit.mark()
    path = f"{env.dir}/bundles/{OTHER}.pem"
    os.rename(path, f"{env.dir}/bundle-away")
    try:
        os.mkdir(path)
        env.ctl("reload", expect=0)
        env.audit.wait(mark, event__action="bundle-refused", zt__bundle__trust_domain=OTHER)
        assert env.tag_of(workload), "a bundle that cannot be read is not one that is gone"
    finally:
        os.rmdir(path)
        os.rename(f"{env.dir}/bundle-away", path)
        env.ctl("reload", expect=0)


def test_a_trust_bundle_removed_while_the_daemon_is_down_ends_its_identities(env):
    flow = Flow(env, web_ca=env.other_ca)
    path = f"{env.dir}/bundles/{OTHER}.pem"
    env.stop()
    os.rename(path, f"{env.dir}/bundle-away")
    try:
        env.start()
        cut_ns = time.monotonic_ns()
        flow.check_both_ends_learned(cut_ns)
        assert not env.tag_of(flow.web)
    finally:
        os.rename(f"{env.dir}/bundle-away", path)
        env.ctl("reload", expect=0)


def test_a_revoked_svid_is_refused_until_a_new_one_is_issued(env):
    svid = env.ca.issue("/web/revoked")
    workload = env.workload("revoked", svid)
    env.ctl("revoke", svid.spiffe_id, expect=0)
    revoked = time.time()
    assert not env.tag_of(workload)
    mark = env.audit.mark()
    workload.attest(svid, expect=1)
    env.audit.wait(mark, event__action="identity-refused")
    # "Issued after" is told by notBefore, which counts seconds.
    wait_for(lambda: time.time() > revoked + 1, "the next second")
    workload.attest(env.ca.issue("/web/revoked", start=0))
    assert env.tag_of(workload)


def test_revoking_what_nobody_carries_is_a_no(env):
    env.ctl("revoke", spiffe("web/nobody"), expect=1)


def deadline_ns(svid):
    """When an SVID ends, on the clock of the records, plus what reading two clocks may differ by."""
    return time.monotonic_ns() + int((svid.not_after - time.time()) * 1e9) + 20 * MS


def expires(flow, svid, disable, enable):
    end_ns = deadline_ns(svid)
    disable()
    assert time.monotonic_ns() < end_ns, "too slow: the SVID ended before the flow was in use"
    try:
        flow.flows()
        wait_for(lambda: time.monotonic_ns() > end_ns, "the SVID to expire", 15)
        flow.check_nothing_after(end_ns)
        tcp, udp = flow.server_side()
        for name, seen in (("TCP", tcp), ("UDP", udp)):
            early = (end_ns - seen["last_sent_ns"]) / MS
            assert early < 500, f"{name}: cut {early:.0f} ms before the deadline"
    finally:
        enable()


SECONDS = 6 if SANITIZED else 4


def test_expiry_of_the_source_cuts_while_the_daemon_is_stopped(env):
    flow = Flow(env, web_seconds=SECONDS)
    expires(flow, flow.web_svid, env.stop_daemon, env.continue_daemon)


def test_expiry_of_the_source_cuts_while_the_daemon_is_dead(env):
    flow = Flow(env, web_seconds=SECONDS)
    expires(flow, flow.web_svid, env.kill_daemon, env.start)


def test_expiry_of_the_destination_cuts_while_the_daemon_is_dead(env):
    flow = Flow(env, db_seconds=SECONDS)
    expires(flow, flow.db_svid, env.kill_daemon, env.start)


def test_expiry_cuts_across_a_veth_while_the_daemon_is_dead(env):
    flow = Flow(env, far=True, web_seconds=SECONDS)
    expires(flow, flow.web_svid, env.kill_daemon, env.start)


def test_expiry_ends_the_sockets_of_both_ends(env):
    """With a daemon, both processes are told at once."""
    ending = []
    for far in (False, True):
        for end, port in (("web", PORT), ("db", PORT + 1)):
            flow = Flow(env, far=far, port=port, **{f"{end}_seconds": 2 * SECONDS})
            ending.append((flow, deadline_ns(flow.web_svid if end == "web" else flow.db_svid)))
    for flow, end_ns in ending:
        assert time.monotonic_ns() < end_ns, "too slow: an SVID ended before all flows were in use"
    for flow, end_ns in ending:
        wait_for(lambda e=end_ns: time.monotonic_ns() > e, "the SVID to expire", 15)
        flow.check_both_ends_learned(end_ns)
        flow.check_nothing_after(end_ns)


def test_expiry_of_the_destination_cuts_across_a_veth_while_the_daemon_is_dead(env):
    flow = Flow(env, far=True, db_seconds=SECONDS)
    expires(flow, flow.db_svid, env.kill_daemon, env.start)


def test_expiry_is_logged_and_the_tag_goes(env):
    svid, mark = env.ca.issue("/web/short", seconds=2 * PATIENCE), env.audit.mark()
    workload = env.workload("short", svid)
    env.audit.wait(mark, event__action="identity-expired", user__id=svid.spiffe_id, seconds=10)
    assert not env.tag_of(workload)
    mark = env.audit.mark()
    assert workload.tcp("127.0.0.1,5432") == "EPERM"
    env.audit.wait(mark, event__action="flow-denied",
                   event__code=lambda code: code in ("EXPIRED", "NO_IDENTITY"), zt__cgroup__id=workload.cgroup_id)


def test_renewal_before_the_deadline_keeps_a_connection(env):
    flow = Flow(env, web_seconds=SECONDS)
    flow.web.attest(env.ca.issue(f"/web/{flow.stream}"))
    end_ns = deadline_ns(flow.web_svid)
    wait_for(lambda: time.monotonic_ns() > end_ns, "the first SVID to expire", 15)
    flow.flows()
    assert not flow.tcp.ended() and flow.udp.stat()["refused"] == 0

# SPDX-License-Identifier: Apache-2.0
"""Managed devices by the cgroup of who is behind them: a container with an identity needs nobody to bind its device."""
import os
import time

from boxes import MS, Box, bind, tag_of_device
from common import spiffe, setup as common_setup, sysctl
from harness import ip, wait_for

POLICY = f"""\
bulkhead: 1
identities:
  box: [{spiffe('box')}, {spiffe('box/*')}]
  crate: {spiffe('crate')}
  kept: {{spiffe: {spiffe('kept')}, only: {{cgroup: /kept}}}}
  local: {{cgroup: /local}}
defaults: {{action: deny, log: denied}}
rules:
  - {{name: served, action: allow, from: [box, kept, local], to: {{identity: [host, world]}}, service: [tcp/5432, udp/5432], log: new}}
"""
PORT = 5432


class Contained(Box):
    """A container whose processes are in a cgroup below the managed subtree."""

    def __init__(self, env, name, svid=None, **kwargs):
        super().__init__(env, **kwargs)
        self.to = f"{self.host4},{PORT}"
        self.workload = env.workload(name, netns=self.netns)
        self.idle = self.workload.spawn(["sleep", "3600"])  # or nobody is there
        if svid:
            self.workload.attest(svid)

    def tag(self):
        return tag_of_device(self.env, self.device)

    def wait_bound(self, by=None):
        tag = wait_for(self.tag, f"{self.device} to have an identity")
        assert tag["by_cgroup"] == (by or f"/{self.workload.name}"), tag
        return tag

    def wait_unbound(self):
        wait_for(lambda: self.tag() is None, f"{self.device} to have no identity")

    def reaches(self, host=None):
        return self.workload.tcp(f"{host},{PORT}" if host else self.to, timeout=300) == "ok"


def ns_of(pid):
    return os.readlink(f"/proc/{pid}/ns/net")


def setup(env):
    common_setup(env)
    env.daemon_netns = env.home
    env.daemon_options = ["--devices", "bhc*"]
    env.boxes, env.port = 0, 40000


def ready(env):
    env.apply(POLICY)
    sysctl(env.home, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    env.nobody = env.outside(netns=env.home)
    env.servers = [env.nobody.tcp_server(f"::,{PORT}"), env.nobody.udp_server(f"::,{PORT}")]
    env.box = Contained(env, "box", env.ca.issue("/box"))


def test_a_device_has_the_identity_of_the_cgroup_behind_it(env):
    box = env.box
    tag = box.wait_bound()
    assert tag["spiffe_id"] == spiffe("box") and {box.v4, box.v6} <= set(tag["addresses"]), tag
    for host in (box.host4, box.host6):
        assert box.reaches(host)
    # A frame made by hand is judged by the same identity, and by no other address.
    assert box.syn(box.v4, box.host4, PORT) == "syn-ack"
    assert box.syn(box.v4, box.host4, PORT + 1) == "nothing"
    assert box.syn("10.78.1.77", box.host4, PORT) == "nothing"
    event = env.audit.wait(event__action="identity-attested", zt__device__name=box.device)
    assert "/box" in event["event"]["reason"], event


def test_one_that_is_attested_before_its_device_is_there_gets_it_too(env):
    group = env.workload("early", netns=env.home)
    group.attest(env.ca.issue("/box/early"))
    box = Contained(env, "early")
    assert box.wait_bound()["spiffe_id"] == spiffe("box/early")
    assert box.reaches()


def test_a_local_identity_and_one_that_is_kept_to_its_cgroup_are_carried(env):
    local = Contained(env, "local")
    assert local.wait_bound()["local"] == "local"
    assert local.reaches()
    kept = Contained(env, "kept", env.ca.issue("/kept"))
    assert kept.wait_bound()["spiffe_id"] == spiffe("kept")
    assert kept.reaches()


def test_a_cgroup_that_loses_its_identity_takes_it_off_the_device(env):
    box = Contained(env, "revoked", env.ca.issue("/box/revoked"))
    box.wait_bound()
    stream = box.workload.tcp_stream(box.to, rate=200)
    wait_for(lambda: stream.stat()["received"] > 20, "the connection to be in use")
    env.ctl("revoke", spiffe("box/revoked"), expect=0)
    cut = time.monotonic_ns()
    assert box.tag() is None
    assert (stream.stat()["last_sent_ns"] - cut) / MS <= 0
    assert box.syn(box.v4, box.host4, PORT) == "nothing"
    # And with the end of who lives there.
    other = Contained(env, "ended", env.ca.issue("/box/ended"))
    other.wait_bound()
    other.workload.remove()
    other.wait_unbound()


def test_an_identity_that_is_renewed_is_renewed_on_the_device(env):
    box = Contained(env, "renewed", env.ca.issue("/box/renewed", seconds=600))
    before = box.wait_bound()["deadline"]
    box.workload.attest(env.ca.issue("/box/renewed", seconds=3600))
    assert box.tag()["deadline"] > before


def test_workloads_of_different_identities_in_one_namespace_get_none(env):
    box = Contained(env, "mine", env.ca.issue("/box/mine"))
    box.wait_bound()
    # Who has no identity does not count.
    loose = env.workload("loose", netns=box.netns)
    idle = loose.spawn(["sleep", "3600"])
    wait_for(lambda: env.tags() and box.tag(), "a sweep")
    other = env.workload("theirs", netns=box.netns)
    other.spawn(["sleep", "3600"])
    other.attest(env.ca.issue("/crate"))
    assert box.tag() is None
    assert box.syn(box.v4, box.host4, PORT) == "nothing"
    assert "share its network namespace" in env.log_tail(200)
    other.remove()
    box.wait_bound()
    idle.kill()


def test_one_of_another_identity_that_ended_counts_as_long_as_somebody_is_there(env):
    """What it sends by hand would go under the name of the others."""
    box = Contained(env, "alone", env.ca.issue("/box/alone"))
    box.wait_bound()
    other = env.workload("former", netns=box.netns)
    other.spawn(["sleep", "3600"])
    other.attest(env.ca.issue("/crate/former"))
    box.wait_unbound()
    env.ctl("revoke", spiffe("crate/former"), expect=0)
    assert not [t for t in env.tags() if t["cgroup"] == "/former"]
    assert box.tag() is None, "what has ended was taken for nobody"
    assert box.syn(box.v4, box.host4, PORT) == "nothing"
    # One that ended and was the same is no other.
    twin = env.workload("twin", netns=box.netns)
    twin.spawn(["sleep", "3600"])
    other.remove()
    box.wait_bound()
    twin.attest(env.ca.issue("/box/alone", seconds=4))
    wait_for(lambda: not [t for t in env.tags() if t["cgroup"] == "/twin"], "the twin's identity to end", 9)
    assert box.wait_bound()["spiffe_id"] == spiffe("box/alone")


def test_an_address_that_the_host_would_not_send_there_is_not_bound(env):
    """A workload that may add addresses takes another's, the host's, and a stranger's."""
    box = Contained(env, "greedy")
    claims = {env.box.v4, env.box.host4, "192.0.2.7", "fd99::7"}
    for address in claims:
        ip("-n", box.netns, "addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
    box.workload.attest(env.ca.issue("/box/greedy"))
    addresses = set(box.wait_bound()["addresses"])
    assert {box.v4, box.v6} <= addresses and not addresses & claims, addresses
    assert box.syn("192.0.2.7", box.host4, PORT) == "nothing"
    assert env.box.v4 in env.box.wait_bound()["addresses"]
    # One that comes later, and is the host's to reach there, is bound.
    ip("-n", box.netns, "addr", "add", box.v4[:-1] + "9/24", "dev", "eth0")
    wait_for(lambda: box.v4[:-1] + "9" in box.tag()["addresses"], "the new address to be bound")


def test_on_a_bridge_that_the_host_has_an_address_on(env):
    ip("-n", env.home, "link", "add", "br0", "type", "bridge")
    ip("-n", env.home, "addr", "add", "10.78.200.254/24", "dev", "br0")
    ip("-n", env.home, "link", "set", "br0", "up")
    box = Contained(env, "bridged", env.ca.issue("/box/bridged"), bridge="br0")
    assert box.v4 in box.wait_bound()["addresses"]
    assert box.reaches("10.78.200.254")


def test_a_namespace_of_another_user_namespace_says_nothing(env):
    """There somebody is root who is nobody here: who enters it is not the host's to say."""
    group = env.workload("rootless")
    inside = group.spawn(["unshare", "--user", "--map-root-user", "--net", "sleep", "3600"])
    pid = str(inside.popen.pid)
    group.attest(env.ca.issue("/box/rootless"))
    wait_for(lambda: ns_of(pid) != ns_of("self"), "the namespaces to be made")
    ip("-n", env.home, "link", "add", "bhcr0", "type", "veth", "peer", "name", "eth0", "netns", pid)
    ip("-n", env.home, "addr", "add", "10.79.9.1/24", "dev", "bhcr0")
    ip("-n", env.home, "link", "set", "bhcr0", "up")
    process = group.spawn(["nsenter", "-t", pid, "-U", "-n", "--preserve-credentials", "ip", "addr", "add", "10.79.9.2/24",
                           "dev", "eth0"])
    assert process.wait() == 0, "".join(process.out)
    wait_for(lambda: "bhcr0" not in str(env.status()["devices"]["uncovered"]), "it to be covered")
    env.tags()  # a sweep
    assert tag_of_device(env, "bhcr0") is None


def test_who_binds_by_hand_has_the_last_word(env):
    box = Contained(env, "both", env.ca.issue("/box/both"))
    box.wait_bound()
    bind(env, box.device, env.ca.issue("/crate"), [box.v4])
    assert box.tag()["spiffe_id"] == spiffe("crate") and "by_cgroup" not in box.tag()
    assert not box.reaches()
    env.ctl("revoke", spiffe("crate"), expect=0)
    assert box.tag() is None, "the cgroup's identity took the place of the one that was revoked"


def test_a_daemon_that_starts_again_goes_on_with_them(env):
    box = Contained(env, "kept2", env.ca.issue("/box/kept2"))
    box.wait_bound()
    gone = Contained(env, "gone", env.ca.issue("/box/gone"))
    gone.wait_bound()
    stream = box.workload.tcp_stream(box.to, rate=200)
    env.kill_daemon()
    gone.workload.remove()
    env.start()
    box.wait_bound()
    gone.wait_unbound()
    received = stream.stat()["received"]
    wait_for(lambda: stream.stat()["received"] > received + 20, "the connection to go on")
    assert not stream.ended()

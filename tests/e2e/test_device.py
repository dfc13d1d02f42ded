# SPDX-License-Identifier: Apache-2.0
"""Managed devices: what has no socket on the host (a container in a network namespace of its own, behind a veth) is judged by
programs on the host's end of its device, under an identity that root binds to it.

The "host" of these tests is the network namespace `a`, where the daemon runs; no device of the machine is touched."""
import subprocess

from common import TRUST_DOMAIN, spiffe, setup as common_setup
from harness import POLICYCTL, TRAFFIC, Result, field, ip, wait_for  # noqa: F401

POLICY = f"""\
bulkhead: 1
identities:
  box: {spiffe('box')}
  crate: {spiffe('crate')}
  web: {spiffe('web')}
  db: {spiffe('db')}
networks:
  gate: [10.78.0.1/32, 10.78.1.1/32, 10.78.2.1/32, "fd78:1::1/128", "fd78:2::1/128"]
  far: [10.79.0.0/16]
services:
  echo: [tcp/5432, udp/5432, icmp/echo-request, icmpv6/echo-request]
defaults: {{action: deny, log: denied}}
rules:
  - {{name: box-and-host, action: allow, from: box, to: gate, service: echo, log: new}}
  - {{name: host-to-box, action: allow, from: gate, to: box, service: echo, log: new}}
  - {{name: box-to-db, action: allow, from: box, to: db, service: echo, log: new}}
  - {{name: web-to-box, action: allow, from: web, to: box, service: echo, log: new}}
  - {{name: box-to-crate, action: allow, from: box, to: crate, service: echo, log: new}}
"""
PORT, OTHER = 5432, 6000


class Box:
    """A container: a network namespace behind a veth whose host's end is a managed device."""

    def __init__(self, env, number, name, netns):
        self.env, self.name, self.netns = env, name, netns
        self.device = f"bhc{number}"
        self.v4, self.v6 = f"10.78.{number}.2", f"fd78:{number}::2"
        self.host4, self.host6 = f"10.78.{number}.1", f"fd78:{number}::1"
        ip("-n", env.home, "link", "add", self.device, "type", "veth", "peer", "name", "eth0", "netns", netns)
        ip("-n", env.home, "addr", "add", f"{self.host4}/24", "dev", self.device)
        ip("-n", env.home, "addr", "add", f"{self.host6}/64", "dev", self.device, "nodad")
        ip("-n", netns, "addr", "add", f"{self.v4}/24", "dev", "eth0")
        ip("-n", netns, "addr", "add", f"{self.v6}/64", "dev", "eth0", "nodad")
        ip("-n", env.home, "link", "set", self.device, "up")
        ip("-n", netns, "link", "set", "eth0", "up")
        ip("-n", netns, "route", "add", "default", "via", self.host4)
        ip("-n", netns, "-6", "route", "add", "default", "via", self.host6)
        wait_for(lambda: covered(env, self.device), f"{self.device} to be covered")
        self.inside = env.outside(netns=netns)

    def bind(self, svid, *addresses, expect=0, netns=None, **kwargs):
        addresses = addresses or (self.v4, self.v6)
        args = [a for address in addresses for a in ("--address", address)]
        process = self.env.spawn(self.env.ctl_argv("attest", "--device", self.device, *args, "--svid", svid.cert, "--key",
                                                   svid.key), netns=netns or self.env.home, **kwargs)
        rc = process.wait()
        result = Result(process.argv, rc, "".join(process.out), "")
        assert expect is None or rc == expect, str(result)
        return result


def sysctl(env, netns, *settings):
    process = env.spawn(["sysctl", "-qw", *settings], netns=netns)
    assert process.wait() == 0, "".join(process.out)


def covered(env, device):
    status = env.status()["devices"]
    return device not in [d["name"] for d in status["uncovered"]] and bound_or_covered(env, device)


def bound_or_covered(env, device):
    index = ifindex(env, device)
    return index and pinned(env, index)


def ifindex(env, device):
    text = ip("-n", env.home, "-o", "link", "show", "dev", device, check=False)
    return int(text.split(":")[0]) if text else None


def pinned(env, index):
    import os
    return all(os.path.exists(f"{env.pins}/device_{index}_{hook}") for hook in ("from", "to"))


def setup(env):
    common_setup(env)
    env.daemon_netns = env.home
    env.daemon_options = ["--devices", "bhc*"]


def ready(env):
    env.apply(POLICY)
    env.svid = {name: env.ca.issue(f"/{name}") for name in ("box", "crate", "web", "db", "probe")}
    sysctl(env, env.home, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    env.box = Box(env, 1, "box", env.network.namespace("c1"))
    env.crate = Box(env, 2, "crate", env.network.namespace("c2"))
    env.box.bind(env.svid["box"])
    env.crate.bind(env.svid["crate"])
    env.web = env.workload("web", env.svid["web"])
    env.db = env.workload("db", env.svid["db"])
    env.nobody = env.outside(netns=env.home)
    env.servers = []
    for where in (env.nobody, env.box.inside, env.crate.inside):
        env.servers.append(where.tcp_server(f"::,{PORT}", f"::,{OTHER}"))
        env.servers.append(where.udp_server(f"::,{PORT}", f"::,{OTHER}"))


def ping(who, to, timeout=400):
    process = who.traffic("ping", "--raw", "--timeout", timeout, "--to", f"{to},0")
    return process.wait() == 0


def test_a_device_carries_what_its_identity_may_send(env):
    for host in (env.box.host4, env.box.host6):
        assert env.box.inside.tcp(f"{host},{PORT}") == "ok"
        assert env.box.inside.udp(f"{host},{PORT}") == "ok"
        assert ping(env.box.inside, host)


def test_a_device_does_not_carry_what_its_identity_may_not_send(env):
    for host in (env.box.host4, env.box.host6):
        assert env.box.inside.tcp(f"{host},{OTHER}", timeout=250) == "ETIMEDOUT"
        assert env.box.inside.udp(f"{host},{OTHER}", timeout=150) == "no-echo"
    mark = env.audit.mark()
    assert env.crate.inside.tcp(f"{env.crate.host4},{PORT}", timeout=250) == "ETIMEDOUT"
    event = env.audit.wait(mark, event__action="flow-denied", zt__device__name=env.crate.device)
    assert field(event, "zt.source.spiffe_id") == env.svid["crate"].spiffe_id, event


def test_the_host_reaches_the_workload_of_a_device_where_the_policy_says_so(env):
    for address in (env.box.v4, env.box.v6):
        assert env.nobody.tcp(f"{address},{PORT}") == "ok"
        assert env.nobody.udp(f"{address},{PORT}") == "ok"
        assert ping(env.nobody, address)
        assert env.nobody.tcp(f"{address},{OTHER}", timeout=250) == "ETIMEDOUT"
        assert env.nobody.udp(f"{address},{OTHER}", timeout=150) == "no-echo"
    assert env.nobody.tcp(f"{env.crate.v4},{PORT}", timeout=250) == "ETIMEDOUT"

# SPDX-License-Identifier: Apache-2.0
"""Managed devices in tests: boxes (network namespaces behind a device of the "host", which is the network namespace `a`,
where the daemon runs; no device of the machine is touched), and the environment that several files of tests share."""
import os

import bpf
from common import setup as common_setup, mac_of, spiffe, stream_of, sysctl
from harness import REPO, Result, ip, wait_for

POLICY = f"""\
bulkhead: 1
identities:
  box: [{spiffe('box')}, {spiffe('box/*')}]
  crate: [{spiffe('crate')}, {spiffe('crate/*')}]
  web: {spiffe('web')}
  db: {spiffe('db')}
networks:
  gate: {{include: [10.78.0.0/16, "fd78::/16"]}}
services:
  echo: [tcp/5432, udp/5432, tcp/5434, udp/5434, icmp/echo-request, icmpv6/echo-request]
defaults: {{action: deny, log: denied}}
rules:
  - {{name: box-and-host, action: allow, from: box, to: {{identity: [host, world], network: gate}}, service: echo, log: new}}
  - {{name: host-to-box, action: allow, from: {{identity: [host, world], network: gate}}, to: box, service: echo, log: new}}
  - {{name: box-to-db, action: allow, from: box, to: db, service: echo, log: new}}
  - {{name: web-to-box, action: allow, from: web, to: box, service: echo, log: new}}
  - {{name: box-to-crate, action: allow, from: box, to: crate, service: echo, log: new}}
"""
POLICY_WITHOUT_BOX = POLICY.replace("service: echo", "service: tcp/1")
PORT, OTHER, CLOSED = 5432, 6000, 5434
E2E = os.path.join(REPO, "tests", "e2e")
PYTHON = ["/usr/bin/python3", "-B"]
MS = 1000000


class Box:
    """A container: a network namespace behind a veth whose host's end is a managed device."""

    def __init__(self, env, device=None, bridge=None):
        env.boxes += 1
        n = env.boxes
        self.env, self.device = env, device or f"bhc{n}"
        self.netns = env.network.namespace(f"c{n}")
        self.v4, self.v6 = f"10.78.{n}.2", f"fd78:{n}::2"
        self.host4, self.host6 = f"10.78.{n}.1", f"fd78:{n}::1"
        ip("-n", env.home, "link", "add", self.device, "type", "veth", "peer", "name", "eth0", "netns", self.netns)
        if bridge:
            self.v4, self.v6 = f"10.78.200.{n}", f"fd78:200::{n}"
            ip("-n", env.home, "link", "set", self.device, "master", bridge)
        else:
            ip("-n", env.home, "addr", "add", f"{self.host4}/24", "dev", self.device)
            ip("-n", env.home, "addr", "add", f"{self.host6}/64", "dev", self.device, "nodad")
        ip("-n", self.netns, "addr", "add", f"{self.v4}/24", "dev", "eth0")
        ip("-n", self.netns, "addr", "add", f"{self.v6}/64", "dev", "eth0", "nodad")
        ip("-n", env.home, "link", "set", self.device, "up")
        ip("-n", self.netns, "link", "set", "eth0", "up")
        if not bridge:
            ip("-n", self.netns, "route", "add", "default", "via", self.host4)
            ip("-n", self.netns, "-6", "route", "add", "default", "via", self.host6)
        self.mac = mac_of(env.home, self.device)
        self.inside = env.outside(netns=self.netns)

    def bind(self, svid, *addresses, expect=0, who=None, **kwargs):
        """policyctl attest --device, by the host's root or `who`."""
        wait_for(lambda: covered(self.env, self.device), f"{self.device} to be covered")
        return bind(self.env, self.device, svid, addresses or (self.v4, self.v6), expect, who, **kwargs)

    def serve(self):
        return (self.inside.tcp_server(f"::,{PORT}", f"::,{OTHER}"), self.inside.udp_server(f"::,{PORT}", f"::,{OTHER}"))

    def syn(self, src, dst, port, how="device", option=b""):
        """What answers a hand-made SYN of the container's root, put straight onto its end of the veth."""
        self.env.port += 1
        process = self.inside.spawn([*PYTHON, f"{E2E}/packets.py", "syn", "--dev", "eth0", "--src",
                                     f"{src},{self.env.port}", "--dst", f"{dst},{port}", "--how", how, "--peer-mac",
                                     self.mac, "--option", option.hex(), "--wait", "0.3"])
        process.wait()
        event = process.wait_event("answer", "refused")
        return event.get("kind") or event["errno"]


def bind(env, device, svid, addresses, expect=0, who=None, **kwargs):
    args = [a for address in addresses for a in ("--address", address)]
    who = who or env.nobody
    process = who.spawn(env.ctl_argv("attest", "--device", device, *args, "--svid", svid.cert, "--key", svid.key), **kwargs)
    rc = process.wait()
    result = Result(process.argv, rc, "".join(process.out), "")
    assert expect is None or rc == expect, str(result)
    return result


def ifindex(env, device):
    text = ip("-n", env.home, "-o", "link", "show", "dev", device, check=False)
    return int(text.split(":")[0]) if text else None


def pins(env):
    return {name for name in os.listdir(env.pins) if name.startswith("device_")}


def covered(env, device):
    return any(d["name"] == device and d["covered"] for d in env.status()["devices"]["items"])


def linked(env, device):
    """One that has stayed for a while is covered by links; until then by filters."""
    n = ifindex(env, device)
    return n and {f"device_{n}_from", f"device_{n}_to"} <= pins(env)


def filtered(env, device, sides=(("ingress", "from"),)):
    def has(side, name):
        process = env.nobody.spawn(["tc", "filter", "show", "dev", device, side])
        assert process.wait() == 0, "".join(process.out)
        return f"bulkhead_{name}" in "".join(process.out)
    return any(has(*side) for side in sides)


def only_linked(env, device):
    """While both are there, both programs run."""
    return linked(env, device) and not filtered(env, device, (("ingress", "from"), ("egress", "to")))


def tag_of_device(env, device):
    tags = [t for t in env.tags() if t.get("device") == device]
    return tags[0] if tags else None


def ping(who, to, timeout=400):
    return who.traffic("ping", "--raw", "--timeout", timeout, "--to", f"{to},0").wait() == 0


def setup(env):
    common_setup(env)
    env.daemon_netns = env.home
    env.daemon_options = ["--devices", "bhc*, bht*"]
    env.boxes, env.port = 0, 40000


def ready(env):
    env.apply(POLICY)
    env.svid = {name: env.ca.issue(f"/{name}") for name in ("box", "crate", "web", "db")}
    sysctl(env.home, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    env.nobody = env.outside(netns=env.home)
    env.box, env.crate = Box(env), Box(env)
    env.box.bind(env.svid["box"])
    env.crate.bind(env.svid["crate"])
    env.web, env.db = env.workload("web", env.svid["web"]), env.workload("db", env.svid["db"])
    env.servers = [*env.box.serve(), *env.crate.serve(), env.nobody.tcp_server(f"::,{PORT}", f"::,{OTHER}"),
                   env.nobody.udp_server(f"::,{PORT}", f"::,{OTHER}")]


class Flow:
    """TCP and UDP of a box of its own to the host, in use all the time."""

    def __init__(self, env, seconds=3600):
        self.env, self.box = env, Box(env)
        self.svid = env.ca.issue(f"/box/{env.boxes}", seconds=seconds)
        self.box.bind(self.svid)
        to = f"{self.box.host4},{PORT}"
        self.stream = env.boxes
        self.server = env.nobody.tcp_server(f"{self.box.host4},{CLOSED}")
        self.udp_server = env.nobody.udp_server(f"{self.box.host4},{CLOSED}")
        to = f"{self.box.host4},{CLOSED}"
        self.tcp = self.box.inside.tcp_stream(to, rate=500, stream=self.stream)
        self.udp = self.box.inside.udp_stream(to, rate=500, stream=self.stream)
        self.goes_on()

    def goes_on(self):
        tcp, udp = self.tcp.stat()["received"], self.udp.stat()["received"]
        wait_for(lambda: self.tcp.stat()["received"] > tcp + 20, "TCP to flow")
        wait_for(lambda: self.udp.stat()["received"] > udp + 20, "UDP to flow")

    def check_nothing_after(self, cut_ns):
        made = self.udp.stat()["made"]
        wait_for(lambda: self.udp.stat()["made"] > made + 200, "the UDP client to go on")
        connection = next(c for c in self.server.stat()["connections"] if c["stream"] == self.stream)
        for seen in (connection, stream_of(self.udp_server, self.stream), self.tcp.stat(), self.udp.stat()):
            late = (seen["last_sent_ns"] - cut_ns) / MS
            assert late <= 0, f"a record sent {late:.1f} ms after the cut arrived"


def map_id(env, name):
    with bpf.opened_map(env.map_pin(name)) as found:
        return found.id

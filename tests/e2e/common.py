# SPDX-License-Identifier: Apache-2.0
"""What several test files start from: identities, a policy, a web that talks to a db."""

from harness import ip

TRUST_DOMAIN = "e2e.example"
PORT = 5432


def spiffe(name):
    return f"spiffe://{TRUST_DOMAIN}/{name}"


# `probe` may send to anyone, so what stops it is the other end's ingress; nothing names `lone`.
POLICY = f"""\
bulkhead: 1
identities:
  web: [{spiffe('web')}, {spiffe('web/*')}]
  db: [{spiffe('db')}, {spiffe('db/*')}]
  probe: {spiffe('probe')}
networks:
  pingable: [127.0.0.0/8, "::1/128", 10.77.0.0/16, "fd77::/16"]
services:
  pg: [tcp/5432-5433, udp/5432-5433, tcp/5532, udp/5532]
  ping: [icmp/echo-request, icmpv6/echo-request]
  open: tcp/7000
defaults: {{action: deny, log: denied}}
rules:
  - name: web-to-db
    action: allow
    from: web
    to: db
    service: pg
    log: new
  - name: web-pings
    action: allow
    from: web
    to: pingable
    service: ping
    direction: egress
    log: new
  - name: probe-sends
    action: allow
    from: probe
    to: any
    direction: egress
  - name: world-to-open
    action: allow
    from: world
    to: db
    service: open
    log: new
"""

# The same without what lets web reach db.
POLICY_WITHOUT_WEB = POLICY.replace("service: pg", "service: tcp/1")

LOOPBACK = {"ipv4": "127.0.0.1", "ipv6": "::1", "mapped": "::ffff:127.0.0.1"}


def sysctl(netns, *settings):
    for setting in settings:
        ip("netns", "exec", netns, "sysctl", "-qw", setting)


def mac_of(netns, device):
    return ip("-n", netns, "-o", "link", "show", device).split("link/ether ")[1].split()[0]


def line_of(policy, text):
    """Number of the line of a policy that contains `text`."""
    return next(i for i, line in enumerate(policy.splitlines(), 1) if text in line)


def setup(env):
    env.ca = env.authority(TRUST_DOMAIN)


def ready(env, policy=POLICY):
    """web, db, probe attested; loose without identity; outside no workload at all."""
    env.apply(policy)
    env.svid = {name: env.ca.issue(f"/{name}") for name in ("web", "db", "probe")}
    env.web = env.workload("web", env.svid["web"])
    env.db = env.workload("db", env.svid["db"])
    env.probe = env.workload("probe", env.svid["probe"])
    env.loose = env.workload("loose")
    env.nobody = env.outside()


def stream_of(server, stream):
    """What a UDP server received of one stream: its counters, or None."""
    return next((s for s in server.stat()["streams"] if s["stream"] == stream), None)


def connections_of(server, stream):
    return [c for c in server.stat()["connections"] if c["stream"] == stream]


class HeldBack:
    """Within it, segments across the veth wait for the address of their neighbour, behind all of the kernel's hooks;
    release() lets them go. From env.home to env.far; with `both`, the other way as well."""

    def __init__(self, env, both=False):
        self.dev = env.veth["dev"]
        ends = ((env.home, env.far, env.veth["4"][1]), (env.far, env.home, env.veth["4"][0]))
        self.ends = ends if both else ends[:1]

    def __enter__(self):
        for near, far, _ in self.ends:
            sysctl(far, "net.ipv4.conf.all.arp_ignore=8")
            ip("-n", near, "neigh", "flush", "dev", self.dev)
        return self

    def is_holding(self):
        return all("INCOMPLETE" in ip("-n", near, "neigh", "show", to, "dev", self.dev) for near, _, to in self.ends)

    def release(self):
        for near, far, to in self.ends:
            ip("-n", near, "neigh", "replace", to, "lladdr", mac_of(far, self.dev), "dev", self.dev, "nud", "permanent")

    def __exit__(self, *_):
        for near, far, to in self.ends:
            sysctl(far, "net.ipv4.conf.all.arp_ignore=0")
            ip("-n", near, "neigh", "del", to, "dev", self.dev, check=False)


class Router:
    """A namespace between env.home and another, through which the workloads of both must go."""

    def __init__(self, env):
        self.netns = env.network.namespace("r")
        self.beyond = env.network.namespace("c")
        self.near, self.other = env.network.veth(env.home, self.netns), env.network.veth(self.netns, self.beyond)
        sysctl(self.netns, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for family in ("4", "6"):
            here, router_here = self.near[family]
            router_there, there = self.other[family]
            ip("-n", env.home, "route", "add", there, "via", router_here)
            ip("-n", self.beyond, "route", "add", here, "via", router_there)
        self.here = {family: self.near[family][0] for family in ("4", "6")}
        self.there = {family: self.other[family][1] for family in ("4", "6")}


def router(env):
    """The router of this environment, made when first needed."""
    if not hasattr(env, "router"):
        env.router = Router(env)
    return env.router

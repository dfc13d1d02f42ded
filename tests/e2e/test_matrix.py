# SPDX-License-Identifier: Apache-2.0
"""Every way to send a packet, out and in, allowed and denied: the rows of docs/coverage.md on a real kernel.

web may send what the table has, and db may receive it; lone may send nothing; probe may send everything, so what stops it is
the other end; shut may receive nothing. A process outside any workload listens to the loopback device: of what is denied
at egress, nothing may be there. That nothing arrived is asked after something later did arrive by the same way."""
import json
import os
import socket
import struct

from common import setup, spiffe  # noqa: F401
from harness import PATIENCE, TRAFFIC, Skip, ip, read, wait_for, write
from packets import checksum, packed, tcp_checksum

PROBES = ["/usr/bin/python3", "-B", os.path.join(os.path.dirname(os.path.abspath(__file__)), "probes.py")]
DB, SHUT, GROUP4, GROUP6, MPTCP, FAST, OPEN, SERVICE = 5432, 5431, 5433, 5434, 5440, 5441, 7000, 5450
HAND_MADE, GRE, ESP, AH, SCTP, UDPLITE = 253, 47, 50, 51, 132, 136
GROUPS = {"4": "239.7.7.7", "6": "ff15::77"}
V4, V6, MAPPED = "127.0.0.1", "::1", "::ffff:127.0.0.1"

POLICY = f"""\
bulkhead: 1
identities:
  web: [{spiffe('web')}, {spiffe('web/*')}]
  db: {spiffe('db')}
  probe: {spiffe('probe')}
networks:
  here: [127.0.0.0/8, "::1/128", 10.77.0.0/16, "fd77::/16"]
  groups: [224.0.0.0/4, "ff00::/8", 255.255.255.255/32, 10.77.1.255/32]
services:
  db: [tcp/{DB}-{SERVICE}, udp/{DB}-{SERVICE}]
  by-number: [proto/{HAND_MADE}, proto/{GRE}, proto/{ESP}-{AH}, proto/{UDPLITE}, sctp/5060]
  messages: [icmp/echo-request, icmp/timestamp-request, icmp/40, icmpv6/echo-request, icmpv6/200]
defaults: {{action: deny, log: denied}}
rules:
  - {{name: web-to-db, action: allow, from: web, to: db, service: db}}
  - {{name: web-to-groups, action: allow, from: web, to: groups, service: db, direction: egress}}
  - {{name: web-sends, action: allow, from: web, to: here, service: [by-number, messages], direction: egress}}
  - {{name: db-receives, action: allow, from: here, to: db, service: [by-number, messages], direction: ingress}}
  - {{name: probe-sends, action: allow, from: probe, to: any, direction: egress}}
  - {{name: anyone-to-open, action: allow, from: any, to: db, service: udp/{OPEN}, direction: ingress}}
"""


class Actor:
    """A process of a workload that does what a test tells it: probes.py."""

    def __init__(self, who, netns=None):
        self.process = who.spawn(PROBES, netns=netns)
        self.number = 0
        self.process.wait_event("ready")

    def do(self, name, *args, seconds=10.0):
        self.number += 1
        since = len(self.process.events)
        self.process.command(json.dumps([self.number, name, *args]))
        while True:
            answer = self.process.wait_event("answer", since=since, seconds=seconds)
            if answer["id"] == self.number:
                return answer
            since += 1

    def ok(self, name, *args, **kwargs):
        answer = self.do(name, *args, **kwargs)
        assert answer["result"] == "ok", f"{name} {args}: {answer}"
        return answer

    def count(self, text):
        return self.ok("count", text)["count"]


def ready(env):
    env.apply(POLICY)
    env.svid = {name: env.ca.issue(f"/{name}") for name in ("web", "db", "probe", "lone", "shut")}
    env.members = {name: env.workload(name, svid) for name, svid in env.svid.items()}
    env.members["nobody"] = env.outside()
    env.far = env.network.namespace("b")
    env.veth = env.network.veth(env.home, env.far)
    nobody = env.members["nobody"]
    for setting in ("net.ipv4.ping_group_range=0 2147483647", "net.ipv4.tcp_fastopen=3", "net.mptcp.enabled=1"):
        assert nobody.spawn(["sysctl", "-qw", setting]).wait() == 0
    env.actors = {name: Actor(who) for name, who in env.members.items()}
    env.texts = 0
    env.lacks = {}
    for name in ("db", "shut", "nobody"):
        listen(env, name)
    for device in ("lo", env.veth["dev"]):
        env.actors["nobody"].ok("listen", device, "device", device, 0)
    for name in ("db", "shut"):
        far = env.actors[f"far-{name}"] = Actor(env.members[name], env.far)
        far.ok("listen", f"raw4/{GRE}", "raw", "0.0.0.0", GRE)
    far = env.actors["far-db"]
    far.ok("listen", "broadcast", "udp", "0.0.0.0", GROUP4)
    far.ok("listen", "group6", "udp", "::", GROUP6, GROUPS["6"], env.veth["dev"])
    # A namespace's addresses are known a moment after its first workload is.
    wait_for(lambda: env.actors["web"].do("raw", env.veth["4"][1], GRE, "")["result"] == "ok", "the addresses to be known")


def listen(env, name):
    """What db listens to, shut and nobody listen to as well, where more than one can."""
    actor = env.actors[name]
    for protocol in (GRE, ESP, AH, HAND_MADE, SCTP, socket.IPPROTO_ICMP):
        actor.ok("listen", f"raw4/{protocol}", "raw", "0.0.0.0", protocol)
    for protocol in (GRE, ESP, AH, HAND_MADE, SCTP, socket.IPPROTO_ICMPV6):
        actor.ok("listen", f"raw6/{protocol}", "raw", "::", protocol)
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        actor.ok("listen", f"copy/{protocol}", "raw", "0.0.0.0", protocol)
    if name == "shut":
        actor.do("listen", "udplite", "udplite", "::", SHUT)
    if name != "db":
        return
    actor.ok("listen", "tcp", "tcp", "::", DB)
    actor.ok("listen", "udp", "udp", "::", DB)
    actor.ok("listen", "open", "udp", "::", OPEN)
    actor.ok("listen", "group4", "udp", "0.0.0.0", GROUP4, GROUPS["4"])
    actor.ok("listen", "fastopen", "fastopen", "::", FAST)
    for kind, port in (("mptcp", MPTCP), ("udplite", DB)):
        answer = actor.do("listen", kind, kind, "::", port)
        if answer["result"] != "ok":
            env.lacks[kind] = answer["result"]


def new_text(env):
    env.texts += 1
    return f"[{os.getpid()}-{env.texts:04}]"


def everywhere(env, text):
    """Where in a workload a text has come in."""
    found = {}
    for name in ("db", "shut", "far-db", "far-shut"):
        found.update({f"{name}:{ear}": n for ear, n in env.actors[name].count(text).items() if n})
    return found


def on_devices(env, text):
    """How many frames carried it, on the way out of the namespace that most are in."""
    count = env.actors["nobody"].count(text)
    return count["lo"] + count[env.veth["dev"]]


# ---- the table ----

class Row:
    """One way to send. `arguments` may hold {text}. `ear`: where db gets it, at "db" or across the veth at "far-db". At
    ingress, probe is denied as a sender; but `shared`: shut has such a socket too, and no part in what db gets; or `shut`:
    these arguments send to a socket of shut's own."""

    def __init__(self, name, how, *arguments, ear="tcp", at="db", shared=False, shut=None, times=1, lacks=None):
        self.name, self.how, self.arguments, self.ear, self.at = name, how, arguments, ear, at
        self.shared, self.shut, self.times, self.lacks = shared, shut, times, lacks

    def send(self, actor, text, arguments=None):
        return actor.do(self.how, *[a.replace("{text}", text) if isinstance(a, str) else a
                                    for a in arguments or self.arguments], seconds=15)

    def need(self, env):
        if self.lacks in env.lacks:
            raise Skip(f"this kernel has no {self.lacks}: {env.lacks[self.lacks]}")


def uring(kind, address, *more):
    return ("tool", TRAFFIC, f"uring-{kind}", "--to", f"{address},{DB}", "--text", "{text}", "--timeout", "300", *more)


def raw_rows():
    for protocol, name in ((GRE, "gre"), (ESP, "esp"), (AH, "ah"), (HAND_MADE, "protocol_253")):
        for family, address in (("4", V4), ("6", V6)):
            yield Row(f"raw_{name}_over_ipv{family}", "raw", address, protocol, "{text}", ear=f"raw{family}/{protocol}",
                      shared=True)


def icmp_rows():
    for name, address, kind, ear, more in (
            ("icmp_echo", V4, 8, 1, (0,)), ("icmpv6_echo", V6, 128, 58, (129,)), ("icmp_timestamp", V4, 13, 1, (14,)),
            ("icmp_type_40", V4, 40, 1, ()), ("icmpv6_type_200", V6, 200, 58, ())):
        yield Row(f"{name}_by_a_raw_socket", "icmp", address, kind, "{text}", 7, "raw", *more,
                  ear=f"raw{'6' if ':' in address else '4'}/{ear}", shared=True)
    for name, address, kind, ear, answer in (("icmp", V4, 8, 1, 0), ("icmpv6", V6, 128, 58, 129)):
        yield Row(f"{name}_echo_by_a_ping_socket", "icmp", address, kind, "{text}", 0, "ping", answer,
                  ear=f"raw{'6' if ':' in address else '4'}/{ear}", shared=True)


ROWS = [
    Row("tcp_over_ipv4", "tcp", V4, DB, "{text}"),
    Row("tcp_to_a_v4_mapped_address", "tcp", MAPPED, DB, "{text}"),
    Row("tcp_over_ipv6", "tcp", V6, DB, "{text}"),
    Row("tcp_fast_open", "fastopen", V4, FAST, "{text}", 2.5, ear="fastopen"),
    Row("udp_sendto", "udp", V4, DB, "{text}", ear="udp"),
    Row("udp_sendto_over_ipv6", "udp", V6, DB, "{text}", ear="udp"),
    Row("udp_to_a_v4_mapped_address", "udp", MAPPED, DB, "{text}", ear="udp"),
    Row("udp_connected", "udp_connected", V4, DB, "{text}", ear="udp"),
    Row("udp_sendmmsg", "tool", TRAFFIC, "udp-mmsg", "--to", f"{V4},{DB}", "--text", "{text}", ear="udp", times=3),
    Row("udp_segmented_by_the_kernel", "udp_segments", V4, DB, "{text}", ear="udp", times=4),
    Row("udp_in_fragments_of_the_kernel", "udp_large", V4, DB, "{text}", ear="udp"),
    Row("udp_multicast_over_ipv4", "multicast", GROUPS["4"], GROUP4, "{text}", "lo", ear="group4"),
    Row("udp_multicast_over_ipv6", "multicast", GROUPS["6"], GROUP6, "{text}", "v1", ear="group6", at="far-db"),
    Row("udp_broadcast", "broadcast", "10.77.1.255", GROUP4, "{text}", ear="broadcast", at="far-db"),
    Row("udp_lite", "udp", V4, DB, "{text}", UDPLITE, ear="udplite", lacks="udplite",
        shut=(V4, SHUT, "{text}", UDPLITE)),
    Row("raw_gre_across_a_veth", "raw", "10.77.1.2", GRE, "{text}", ear=f"raw4/{GRE}", at="far-db", shared=True),
    Row("sctp_by_hand", "raw", V4, SCTP, "\x9c\x41\x13\xc4........{text}", ear=f"raw4/{SCTP}", shared=True),
    Row("io_uring_connect_and_send", *uring("tcp", V4)),
    Row("io_uring_connect_and_send_by_a_kernel_thread", *uring("tcp", V6, "--sqpoll")),
    Row("io_uring_sendmsg", *uring("udp", V4), ear="udp"),
    Row("io_uring_sendmsg_by_a_kernel_thread", *uring("udp", V4, "--sqpoll"), ear="udp"),
    *raw_rows(),
    *icmp_rows(),
]


def arrives(env, row):
    """From web at db, as often as it was sent, and at no other workload."""
    row.need(env)
    text = new_text(env)
    answer = row.send(env.actors["web"], text)
    assert answer["result"] == "ok", answer
    env.actors[row.at].do("wait", row.ear, text, 4 * PATIENCE)
    assert everywhere(env, text) == {f"{row.at}:{row.ear}": row.times}, f"{everywhere(env, text)} {answer}"


def logged(env, direction, codes, **fields):
    env.audit.wait(0, event__action="flow-denied", network__direction=direction, event__code=lambda c: c in codes, **fields)


def does_not_leave(env, row):
    row.need(env)
    text = new_text(env)
    answer = row.send(env.actors["lone"], text)
    assert answer["result"] in ("EPERM", "ETIMEDOUT", "ETIME", "EINPROGRESS"), answer
    arrives(env, row)
    assert not everywhere(env, text), everywhere(env, text)
    assert not on_devices(env, text), "it was on the device"
    logged(env, "egress", ("DEFAULT_DENY", "IMPOSSIBLE"), zt__source__spiffe_id=env.svid["lone"].spiffe_id)


def does_not_arrive(env, row):
    row.need(env)
    if row.shared:
        arrives(env, row)
        logged(env, "ingress", ("DEFAULT_DENY",), zt__destination__spiffe_id=env.svid["shut"].spiffe_id)
        return
    text = new_text(env)
    answer = row.send(env.actors["web" if row.shut else "probe"], text, row.shut)
    assert answer["result"] in ("ok", "ETIMEDOUT", "ETIME", "EINPROGRESS"), answer
    assert on_devices(env, text) or answer["result"] != "ok", "it never left"
    arrives(env, row)
    assert not everywhere(env, text), everywhere(env, text)
    source, destination = ("web", "shut") if row.shut else ("probe", "db")
    logged(env, "ingress", ("DEFAULT_DENY",), zt__destination__spiffe_id=env.svid[destination].spiffe_id,
           where=lambda e: row.shut or e["zt"]["source"].get("spiffe_id") == env.svid[source].spiffe_id)


for _row in ROWS:
    globals()[f"test_{_row.name}_arrives_where_both_ends_allow_it"] = lambda env, row=_row: arrives(env, row)
    globals()[f"test_{_row.name}_does_not_leave_where_egress_denies_it"] = lambda env, row=_row: does_not_leave(env, row)
    globals()[f"test_{_row.name}_does_not_arrive_where_ingress_denies_it"] = lambda env, row=_row: does_not_arrive(env, row)

# SPDX-License-Identifier: Apache-2.0
"""What a process tries that wants to pass for somebody else, or past the judgement: each of these worked once.

Everyone may send in these tests, so what stops an attacker is what the receiver knows of it (evaders.py)."""
import json
import os
import struct
import subprocess
import time

from actors import outcome
from common import setup, spiffe, stream_of  # noqa: F401
from evaders import DB, MS, act, procs_of
from harness import PATIENCE, TRAFFIC, Skip, ip, wait_for

HOST_ONLY, SPARE = 6000, 45555

POLICY = f"""\
bulkhead: 1
identities:
  web: [{spiffe('web')}, {spiffe('web/*')}]
  db: [{spiffe('db')}, {spiffe('db/*')}]
  probe: {spiffe('probe')}
  local: {{cgroup: /local}}
services:
  pg: [tcp/{DB}, udp/{DB}]
  admin: [tcp/{HOST_ONLY}, udp/{HOST_ONLY}]
defaults: {{action: deny, log: denied}}
rules:
  - {{name: all-send, action: allow, from: any, to: any, direction: egress}}
  - {{name: nameless-send, action: allow, from: unidentified, to: any, direction: egress}}
  - {{name: clients-to-db, action: allow, from: [web, local], to: db, service: pg, direction: ingress}}
  - {{name: host-to-db, action: allow, from: host, to: db, service: admin, direction: ingress}}
"""
# Only who has an identity may send.
PROVEN_SEND = POLICY.replace("from: any,", "from: verified,").replace("from: unidentified,", "from: local,")
# Only web may send, and only to db's service.
WEB_SENDS = POLICY.replace("from: any, to: any,", "from: web, to: db, service: pg,").replace("from: unidentified,",
                                                                                             "from: local,")
# What is asked of the peer is asked by the one that connects.
EGRESS_ASKS = f"""\
{POLICY[:POLICY.index('rules:')]}rules:
  - {{name: all-receive, action: allow, from: any, to: any, direction: ingress}}
  - {{name: clients-to-db, action: allow, from: [web, local], to: db, service: pg, direction: egress}}
"""


def ready(env):
    env.in_force = None
    use(env, POLICY)
    env.svid = {name: env.ca.issue(f"/{name}") for name in ("web", "db", "probe")}
    env.web, env.db, env.probe = (env.workload(name, env.svid[name]) for name in ("web", "db", "probe"))
    env.loose = env.workload("loose")
    env.nobody = env.outside()
    ip("-n", env.home, "addr", "add", "fd77:99::2/128", "dev", "lo", "nodad")
    env.tcp = env.db.tcp_server(f"::,{DB}", f"::,{HOST_ONLY}")
    env.udp = env.db.udp_server(f"::,{DB}", f"::,{HOST_ONLY}")
    env.talks = env.network.namespace("talks")
    env.streams = 100


def use(env, policy):
    if env.in_force != policy:
        env.apply(policy)
        env.in_force = policy


def new_stream(env):
    env.streams += 1
    return env.streams


# ---- an untagged workload is not the host ----

ADDRESSES = ("127.0.0.1", "::1")


def test_the_host_is_let_in_where_it_alone_may(env):
    """Without this, the tests after it would prove nothing."""
    use(env, POLICY)
    for address in ADDRESSES:
        assert env.nobody.tcp(f"{address},{HOST_ONLY}") == "ok"
        assert env.nobody.udp(f"{address},{HOST_ONLY}") == "ok"


def test_an_untagged_workload_that_may_send_is_not_taken_for_the_host(env):
    use(env, POLICY)
    mark, accepts = env.audit.mark(), env.tcp.stat()["accepted"]
    for address in ADDRESSES:
        assert env.loose.tcp(f"{address},{HOST_ONLY}", timeout=250) == "ETIMEDOUT"
        for connected in (False, True):
            stream = new_stream(env)
            assert env.loose.udp(f"{address},{HOST_ONLY}", timeout=100, stream=stream, connected=connected) == "no-echo"
            assert env.nobody.udp(f"{address},{HOST_ONLY}") == "ok"
            assert stream_of(env.udp, stream) is None, address
        for transport in ("tcp", "udp"):
            env.audit.wait(mark, event__action="flow-denied", network__transport=transport, destination__ip=address,
                           destination__port=HOST_ONLY, network__direction="ingress", zt__source__kind="unidentified",
                           zt__destination__spiffe_id=env.svid["db"].spiffe_id)
    assert env.tcp.stat()["accepted"] == accepts


def test_an_untagged_workload_that_may_not_send_is_told_so(env):
    use(env, PROVEN_SEND)
    mark = env.audit.mark()
    for address in ADDRESSES:
        assert env.loose.tcp(f"{address},{HOST_ONLY}") == "EPERM"
        assert env.loose.udp(f"{address},{HOST_ONLY}", timeout=100) == "EPERM"
        assert env.loose.udp(f"{address},{HOST_ONLY}", timeout=100, connected=True) == "EPERM"
        for transport in ("tcp", "udp"):
            env.audit.wait(mark, event__action="flow-denied", network__transport=transport, destination__ip=address,
                           destination__port=HOST_ONLY, network__direction="egress", zt__source__kind="unidentified")


# ---- a socket is its creator's, whoever connects it ----

def test_a_socket_connected_by_another_cgroup_shows_its_creator(env):
    """Neither more nor less: who may reach db does, perhaps with the second SYN; nobody becomes the host, or web."""
    use(env, POLICY)
    before = env.tcp.stat()["accepted"]
    denied = [act(creator, how, port, procs_of(caller), 1.6) for how, creator, caller, port in (
        ("share_socket", env.web, env.loose, HOST_ONLY), ("share_socket", env.web, env.nobody, HOST_ONLY),
        ("pass_socket", env.web, env.nobody, HOST_ONLY), ("share_socket", env.loose, env.nobody, HOST_ONLY),
        ("share_socket", env.loose, env.web, DB), ("pass_socket", env.probe, env.web, DB))]
    allowed = [act(creator, how, port, procs_of(caller), 4) for how, creator, caller, port in (
        ("share_socket", env.web, env.loose, DB), ("share_socket", env.web, env.nobody, DB),
        ("pass_socket", env.web, env.probe, DB), ("share_socket", env.nobody, env.nobody, HOST_ONLY))]
    for process in denied:
        assert outcome(process) in ("EPERM", "ETIMEDOUT"), process
    for process in allowed:
        assert (got := outcome(process)) == "ok", f"{process}: {got}"
    assert env.tcp.stat()["accepted"] == before + len(allowed)


# ---- UDP has the sender's socket, not what the packet says ----

SPOOF = {"127.0.0.1": ("127.0.0.2", "127.0.0.3"), "::1": ("fd77:99::2", "fd77:99::2")}


def test_a_source_address_does_not_make_a_udp_sender_another_workload(env):
    """Same port, and the address of the one that may: neither a workload nor the host gets in with it."""
    use(env, POLICY)
    for db, (other, _) in SPOOF.items():
        stream = new_stream(env)
        web = act(env.web, "udp_hold", db, DB, stream)
        assert outcome(web) == "ok"
        port = web.wait_event("outcome")["port"]
        for who in (env.probe, env.loose, env.nobody):
            spoofed = new_stream(env)
            sent = outcome(act(who, "udp_spoof", other, port, db, db, DB, spoofed))
            assert sent == ("ok" if who is env.nobody else "EPERM"), f"{db}: {who.name} sent with web's address: {sent}"
            since = len(web.events)
            web.command("again")
            assert web.wait_event("again", since=since)["result"] == "ok", f"{db}: web itself, after {who.name}"
            assert stream_of(env.udp, spoofed) is None, f"{db}: {who.name} was taken for web"
        assert stream_of(env.udp, stream)["received"] == 4


def test_a_source_address_does_not_make_a_udp_sender_the_host(env):
    use(env, POLICY)
    for db, (other, source) in SPOOF.items():
        for who in (env.web, env.probe, env.loose):
            for as_source in {source, db}:
                stream = new_stream(env)
                assert outcome(act(who, "udp_spoof", other, 0, as_source, db, HOST_ONLY, stream)) == "ok"
                assert env.nobody.udp(f"{db},{HOST_ONLY}") == "ok"
                assert stream_of(env.udp, stream) is None, f"{who.name} as {as_source}"


# ---- a peer that is none any more ends a connection at the end that still is what it was ----

class Talk:
    """A connection from a client to a db of its own, on which both talk."""

    def __init__(self, env, client, number, db=None):
        address = f"127.0.2.{number}"
        self.server = act(db or env.db, "talk", "listen", address, DB, netns=env.talks)
        self.server.wait_event("ready")
        self.client = act(client, "talk", "connect", address, DB, netns=env.talks)
        self.ends = (self.server, self.client)
        for end in self.ends:
            end.wait_event("connected")
        for end in self.ends:
            wait_for(lambda e=end: e.stat()["received"] > 20, "both ends to hear each other")

    def silent_since(self, cut_ns):
        """Both go on for four times TCP's shortest time to a retransmission, unless they learned of the end."""
        made = [end.stat()["made"] for end in self.ends]
        for end, first in zip(self.ends, made):
            wait_for(lambda e=end, m=first: e.stat()["made"] > m + 130, "both to go on", 8)
        for end in self.ends:
            late = (end.stat()["last_sent_ns"] - cut_ns) / MS
            assert late <= 0, f"{end} heard what was said {late:.1f} ms after the cut"

    def ended_at(self, cut_ns):
        self.silent_since(cut_ns)
        for end in self.ends:
            event = end.wait_event("ended")
            took = (event["t"] - cut_ns) / MS
            assert took < 1000 * PATIENCE, f"{end} learned only after {took:.0f} ms"


def revoke_client(env, number):
    svid = env.ca.issue(f"/web/{number}")
    flow = Talk(env, env.workload(f"web{number}", svid), number)
    assert env.ctl_json("revoke", svid.spiffe_id)["tags"] == 1
    flow.ended_at(time.monotonic_ns())


def test_revoking_the_client_ends_its_connection_at_the_server_too(env):
    use(env, POLICY)
    revoke_client(env, 1)


def test_revoking_the_client_ends_its_connection_where_only_egress_asks(env):
    """Here it is the client's own end that nobody may use; the server takes anyone."""
    use(env, EGRESS_ASKS)
    revoke_client(env, 2)


def test_revoking_the_server_ends_its_connection_at_the_client_too(env):
    """The client's egress alone says that it is to be db."""
    use(env, EGRESS_ASKS)
    svid = env.ca.issue("/db/3")
    flow = Talk(env, env.web, 3, env.workload("db3", svid))
    assert env.ctl_json("revoke", svid.spiffe_id)["tags"] == 1
    flow.ended_at(time.monotonic_ns())


def client_expires(env, name, number):
    """The daemon does nothing meanwhile."""
    use(env, POLICY)
    svid = env.ca.issue(name, seconds=2 + 2 * PATIENCE)
    flow = Talk(env, env.workload(f"web{number}", svid), number)
    end_ns = time.monotonic_ns() + int((svid.not_after - time.time()) * 1e9) + 20 * MS
    env.stop_daemon()
    try:
        assert time.monotonic_ns() < end_ns, "too slow: the SVID ended before the connection was in use"
        wait_for(lambda: time.monotonic_ns() > end_ns, "the SVID to expire", 8)
        flow.silent_since(end_ns)
    finally:
        env.continue_daemon()


def test_an_expired_client_is_not_heard_by_the_server(env):
    client_expires(env, "/web/4", 4)


def test_an_expired_client_does_not_live_on_by_another_workload_with_its_identity(env):
    client_expires(env, "/web", 5)


def test_a_client_that_a_policy_no_longer_names_is_not_heard_by_the_server(env):
    use(env, POLICY)
    flow = Talk(env, env.workload("local"), 6)
    use(env, POLICY.replace("cgroup: /local", "cgroup: /elsewhere"))
    flow.ended_at(time.monotonic_ns())


# ---- sockets and packets that no handshake made ----

def test_a_socket_established_by_tcp_repair_sends_nothing(env):
    use(env, WEB_SENDS)
    makers = [(env.nobody, "fresh"), (env.web, "fresh"), (env.web, "used")]
    markers = [f"repaired-{i}" for i in range(len(makers))]
    sniffer = act(env.nobody, "sniff", "lo", *[m.encode().hex() for m in markers])
    sniffer.wait_event("ready")
    processes = [act(who, "repair", procs_of(env.nobody), used, marker) for (who, used), marker in zip(makers, markers)]
    for process in processes:
        outcome(process)
        event = process.wait_event("outcome")
        assert event["connected"] == "ok" and event["established"], event
    assert processes[0].wait_event("outcome")["result"] == "ok"
    # As long as two retransmissions take.
    end = time.monotonic() + 0.7
    wait_for(lambda: time.monotonic() > end, "retransmissions")
    seen = list(sniffer.stat()["seen"].values())
    assert seen[0], "nothing was proved: not even an unmanaged process can send like this"
    assert not any(seen[1:]), seen


def test_a_packet_that_says_where_to_go_next_does_not_leave(env):
    """The policy judges a destination; a routing header or a source route would hide another."""
    use(env, POLICY)
    attempts = [(who, route, transport) for who in (env.nobody, env.web) for transport in ("udp", "tcp")
                for route in ("segments", "loose", "strict", "none6", "none4")]
    pairs = [struct.pack("!HH", 43000 + i, DB).hex() for i in range(len(attempts))]
    sniffer = act(env.nobody, "sniff", "lo", *pairs)
    sniffer.wait_event("ready")
    processes = [act(who, "send_by_route", route, transport, 43000 + i)
                 for i, (who, route, transport) in enumerate(attempts)]
    results = [outcome(process) for process in processes]
    seen = sniffer.stat()["seen"]
    for (who, route, transport), result, pair in zip(attempts, results, pairs):
        what = f"{who.name} {route} {transport}: {result}"
        if who is env.web and not route.startswith("none"):
            assert not seen[pair], f"{what}, but it left"
            assert result in (("EPERM",) if transport == "udp" else ("EPERM", "ETIMEDOUT")), what
        else:
            assert seen[pair], f"{what}, and nothing left"


# ---- the map of UDP endpoints holds what is there ----

def endpoints(env):
    try:
        done = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", env.map_pin("endpoints")], check=True,
                              capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Skip("bpftool is not there") from error
    return len(json.loads(done.stdout))


def test_sockets_that_two_send_on_first_leave_no_endpoint_behind(env):
    use(env, POLICY)
    before = endpoints(env)
    assert outcome(act(env.web, "first_senders", DB, 8, 400)) == "ok"
    wait_for(lambda: endpoints(env) == before, f"the map to have {before} endpoints again", 5)


def leave_spare_port(env):
    former = act(env.probe, "leave_port", HOST_ONLY, SPARE)
    assert outcome(former) == "ok" and former.wait_event("outcome")["port"] == SPARE
    return former


def test_a_client_can_use_a_port_that_a_disconnected_socket_gave_back(env):
    use(env, POLICY)
    former = leave_spare_port(env)
    client = env.web.traffic("udp-client", "--to", f"127.0.0.1,{DB}", "--from", f"0.0.0.0,{SPARE}", "--count", 3,
                             "--timeout", 400)
    assert client.wait() == 0, "".join(client.out)
    assert not former.ended()


def test_a_server_can_use_a_port_that_a_disconnected_socket_gave_back(env):
    """Its clients ask who it is, and are told as soon as the stale entry is gone."""
    use(env, POLICY)
    former = leave_spare_port(env)
    env.db.udp_server(f"127.0.0.1,{SPARE}")
    use(env, EGRESS_ASKS.replace(f"udp/{DB}]", f"udp/{DB}, udp/{SPARE}]"))
    wait_for(lambda: env.web.udp(f"127.0.0.1,{SPARE}", timeout=200) == "ok", "web to reach db on that port", 5)
    assert not former.ended()


# ---- what must go on working. Where only web may send, an answer passes because it is one. ----

def test_a_namespace_that_a_workload_made_discovers_its_neighbours(env):
    use(env, POLICY)
    for kind, makers in (("tagged", (env.web, env.db)), ("untagged", (env.loose, env.loose))):
        names = [f"{env.network.tag}-{kind}{i}" for i in (1, 2)]
        for maker, name in zip(makers, names):
            assert maker.spawn(["ip", "netns", "add", name]).wait() == 0
            env.network.names.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        veth = env.network.veth(*names)
        env.db.tcp_server(f"::,{DB}", netns=names[1])
        for name in names:
            ip("-n", name, "-6", "neigh", "flush", "dev", veth["dev"])
        assert (got := env.web.tcp(f"{veth['6'][1]},{DB}", timeout=3000, netns=names[0])) == "ok", f"{kind}: {got}"
        assert (got := env.web.tcp(f"{veth['4'][1]},{DB}", netns=names[0])) == "ok", f"{kind}: {got}"


def test_a_udp_server_on_the_wildcard_address_answers_on_each_of_its_addresses(env):
    use(env, WEB_SENDS)
    elsewhere = env.network.namespace("wild")
    act(env.db, "udp_answer_from_where_asked", DB, netns=elsewhere).wait_event("ready")
    for _ in range(2):
        for address in ("127.0.0.1", "127.0.0.2"):
            assert env.web.udp(f"{address},{DB}", count=20, netns=elsewhere, connected=True) == "ok", address
    assert outcome(act(env.web, "udp_ask_in_turn", DB, 60, "127.0.0.1", "127.0.0.2", netns=elsewhere)) == "ok"


def test_a_udp_server_loses_no_answer_under_load_from_two_cpus(env):
    """Eight clients: each flow's time is written anew every second, and that is when two clocks may disagree."""
    use(env, WEB_SENDS)
    cpus = sorted(os.sched_getaffinity(0))
    errors = env.udp.stat()["echo_errors"]
    clients = [env.web.spawn(["taskset", "-c", str(cpus[-(i % 2)]), TRAFFIC, "udp-client", "--rate", "1250",
                              "--to", f"{ADDRESSES[i // 2 % 2]},{DB}", "--count", "3750", "--timeout", "1500",
                              "--stream", str(new_stream(env))]) for i in range(8)]
    for client in clients:
        assert client.wait(15) == 0, f"{client}: {''.join(client.out[-2:])}"
    assert env.udp.stat()["echo_errors"] == errors, "an answer was refused"

# SPDX-License-Identifier: Apache-2.0
"""Who reaches whom: TCP, UDP and ICMP echo, over IPv4, IPv6 and v4-mapped addresses, on the loopback device and across
a veth pair between two network namespaces."""
from common import LOOPBACK, ready as common_ready, setup, stream_of  # noqa: F401
from harness import wait_for

ALLOWED, V4_ONLY, WEB_PORT, OTHER = 5432, 5433, 5532, 6000


def ready(env):
    """db serves in namespace a (loopback) and in b (behind the veth), web in a; all on dual-stack sockets, and on an
    IPv4 socket as well."""
    common_ready(env)
    env.far = env.network.namespace("b")
    veth = env.network.veth(env.home, env.far)
    env.places = {
        "loopback": LOOPBACK,
        "veth": {"ipv4": veth["4"][1], "ipv6": veth["6"][1], "mapped": f"::ffff:{veth['4'][1]}"},
    }
    env.tcp, env.udp = {}, {}
    for place, netns in (("loopback", env.home), ("veth", env.far)):
        endpoints = (f"::,{ALLOWED}", f"0.0.0.0,{V4_ONLY}", f"::,{OTHER}")
        env.tcp[place] = env.db.tcp_server(*endpoints, netns=netns)
        env.udp[place] = env.db.udp_server(*endpoints, netns=netns)
    env.web_tcp = env.web.tcp_server(f"::,{WEB_PORT}")
    env.web_udp = env.web.udp_server(f"::,{WEB_PORT}")
    # For those that come from the other side of the veth.
    env.back = {"ipv4": veth["4"][0], "ipv6": veth["6"][0], "mapped": f"::ffff:{veth['4'][0]}"}


def accepted(env):
    return sum(s.stat()["accepted"] for s in (*env.tcp.values(), env.web_tcp))


def received(env):
    return sum(s["received"] for u in (*env.udp.values(), env.web_udp) for s in u.stat()["streams"])


def reaches(env, place, transport):
    web = env.web
    for family, address in env.places[place].items():
        for port in (ALLOWED, V4_ONLY) if family != "ipv6" else (ALLOWED,):
            to = f"{address},{port}"
            if transport == "tcp":
                assert web.tcp(to) == "ok", f"{family} {to}: {web.tcp(to)}"
                continue
            # The addresses of a namespace become known a moment after they are made.
            wait_for(lambda t=to: web.udp(t) == "ok", f"web to reach db over {family} udp at {to}")
            assert web.udp(to, connected=True) == "ok", f"{family} {to}, connected"


def test_web_reaches_db_over_tcp_on_loopback(env):
    reaches(env, "loopback", "tcp")


def test_web_reaches_db_over_tcp_across_a_veth(env):
    reaches(env, "veth", "tcp")


def test_web_reaches_db_over_udp_on_loopback(env):
    reaches(env, "loopback", "udp")


def test_web_reaches_db_over_udp_across_a_veth(env):
    reaches(env, "veth", "udp")


def test_an_allowed_connection_is_logged_with_identities_rule_and_position(env):
    mark = env.audit.mark()
    assert env.web.tcp(f"127.0.0.1,{ALLOWED}") == "ok"
    for direction in ("egress", "ingress"):
        event = env.audit.wait(mark, event__action="flow-allowed", network__direction=direction,
                               rule__name="web-to-db", zt__rule__file=lambda f: f and f.endswith("policy.yaml"),
                               zt__source__spiffe_id=env.svid["web"].spiffe_id, destination__port=ALLOWED,
                               zt__destination__spiffe_id=env.svid["db"].spiffe_id, zt__proof="verified")
        assert event["network"]["transport"] == "tcp", event


def denied(env, who, addresses, ports, netns=None):
    """None of these is reached, over TCP nor UDP. The error is what the caller sees at once, or silence."""
    tcp, udp = accepted(env), received(env)
    for family, address in addresses.items():
        for port in ports:
            to = f"{address},{port}"
            got = who.tcp(to, timeout=250, netns=netns)
            assert got in ("EPERM", "ETIMEDOUT"), f"tcp {family} {to}: {got}"
            got = who.udp(to, timeout=100, netns=netns)
            assert got in ("EPERM", "no-echo"), f"udp {family} {to}: {got}"
            got = who.udp(to, timeout=100, netns=netns, connected=True)
            assert got in ("EPERM", "no-echo"), f"connected udp {family} {to}: {got}"
    # What is allowed still arrives, so what did not arrive until now will not.
    assert env.web.tcp(f"127.0.0.1,{ALLOWED}") == "ok"
    assert env.web.udp(f"127.0.0.1,{ALLOWED}", count=3) == "ok"
    assert accepted(env) == tcp + 1, "a denied connection was accepted"
    assert received(env) == udp + 3, "a denied datagram arrived"


def test_web_does_not_reach_db_on_another_port(env):
    denied(env, env.web, env.places["loopback"], (OTHER,))
    denied(env, env.web, env.places["veth"], (OTHER,))


def test_db_cannot_open_a_flow_to_web_on_loopback(env):
    denied(env, env.db, env.places["loopback"], (WEB_PORT,))


def test_db_cannot_open_a_flow_to_web_across_a_veth(env):
    denied(env, env.db, env.back, (WEB_PORT,), netns=env.far)


def test_an_untagged_workload_reaches_neither_on_loopback(env):
    denied(env, env.loose, env.places["loopback"], (ALLOWED, WEB_PORT))


def test_an_untagged_workload_reaches_neither_across_a_veth(env):
    denied(env, env.loose, env.places["veth"], (ALLOWED,))
    denied(env, env.loose, env.back, (WEB_PORT,), netns=env.far)


def test_a_process_outside_any_workload_reaches_neither_on_loopback(env):
    denied(env, env.nobody, env.places["loopback"], (ALLOWED, WEB_PORT))


def test_a_process_outside_any_workload_reaches_neither_across_a_veth(env):
    denied(env, env.nobody, env.places["veth"], (ALLOWED,))
    denied(env, env.nobody, env.back, (WEB_PORT,), netns=env.far)


def test_ingress_denies_what_egress_allows(env):
    """probe may send to anyone: db refuses it."""
    mark = env.audit.mark()
    denied(env, env.probe, env.places["loopback"], (ALLOWED,))
    denied(env, env.probe, env.places["veth"], (ALLOWED,))
    for transport in ("tcp", "udp"):
        env.audit.wait(mark, event__action="flow-denied", network__direction="ingress", network__transport=transport,
                       zt__source__spiffe_id=env.svid["probe"].spiffe_id, event__code="DEFAULT_DENY",
                       zt__destination__spiffe_id=env.svid["db"].spiffe_id)


def test_what_no_rule_can_allow_fails_at_once_with_eperm(env):
    for who in (env.web, env.loose, env.db):
        for address in LOOPBACK.values():
            client = who.traffic("tcp-client", "--to", f"{address},{OTHER}", "--timeout", 3000)
            assert client.wait() == 1
            event = client.wait_event("connect-failed")
            assert event["errno"] == "EPERM" and event["ms"] < 200, f"{who.name} to {address}: {event}"
            assert who.udp(f"{address},{OTHER}", timeout=100) == "EPERM", f"{who.name} to {address}, udp"


def test_a_denial_is_logged_with_what_decided(env):
    mark = env.audit.mark()
    assert env.web.tcp(f"127.0.0.1,{OTHER}") == "EPERM"
    event = env.audit.wait(mark, event__action="flow-denied", destination__port=OTHER, network__direction="egress",
                           zt__source__spiffe_id=env.svid["web"].spiffe_id)
    assert event["event"]["code"] in ("DEFAULT_DENY", "IMPOSSIBLE"), event
    mark = env.audit.mark()
    assert env.loose.tcp(f"127.0.0.1,{ALLOWED}") == "EPERM"
    env.audit.wait(mark, event__action="flow-denied", event__code="NO_IDENTITY", zt__source__kind="unidentified",
                   destination__port=ALLOWED)


def ping(env, who, raw):
    return {(place, family): who.traffic("ping", "--to", f"{address},0", "--timeout", 300, *(["--raw"] if raw else []))
            for place, addresses in env.places.items() for family, address in addresses.items() if family != "mapped"}


def test_echo_request_passes_where_a_rule_allows_it(env):
    env.nobody.spawn(["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]).wait()
    for raw in (False, True):
        for where, process in ping(env, env.web, raw).items():
            assert process.wait() == 0, f"{where}, {'raw' if raw else 'ping'} socket: {''.join(process.out)}"


def test_echo_request_is_denied_where_no_rule_allows_it(env):
    env.nobody.spawn(["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"]).wait()
    for who in (env.db, env.loose):
        for raw in (False, True):
            for where, process in ping(env, who, raw).items():
                process.wait()
                event = process.wait_event("done", "socket-failed")
                assert event.get("received", 0) == 0, f"{who.name} {where}: {event}"


def test_a_server_without_identity_is_not_reached(env):
    """web may reach db; who listens there without being db gets nothing of it."""
    elsewhere = env.network.namespace("c")
    for who in (env.loose, env.nobody):
        tcp, udp = who.tcp_server("::,5432", netns=elsewhere), who.udp_server("::,5432", netns=elsewhere)
        for address in LOOPBACK.values():
            assert env.web.tcp(f"{address},5432", timeout=250, netns=elsewhere) != "ok"
            assert env.web.udp(f"{address},5432", timeout=100, netns=elsewhere) != "ok"
        assert not [c for c in tcp.stat()["connections"] if c["received"]], who.name
        assert stream_of(udp, 1) is None, who.name
        tcp.quit()
        udp.quit()
    env.db.tcp_server("::,5432", netns=elsewhere)
    assert env.web.tcp("127.0.0.1,5432", netns=elsewhere) == "ok", "it is who listens that makes the difference"

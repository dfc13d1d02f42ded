# SPDX-License-Identifier: Apache-2.0
"""Who receives: docs/coverage.md at the end where a packet arrives. Sockets that change hands, answers that come too late,
strangers' data in a SYN, and what stands behind extension headers. The workloads are those of test_matrix.py."""
from common import HeldBack, setup, sysctl  # noqa: F401
from harness import PATIENCE, wait_for
from test_matrix import (DB, DSTOPTS, FAST, HAND_MADE, HOPOPTS, OPEN, OPEN_FAST, POLICY, ROUTING, V4, V6, Actor, chain,
                         everywhere, ipv6, logged, new_text, on_devices, procs, ready, udp_header)  # noqa: F401

# The same without what lets web ask.
POLICY_WITHOUT_MESSAGES = POLICY.replace("[by-number, messages], direction: egress", "by-number, direction: egress")


def reaches(env, kind, address):
    """A stranger sends to the port that is open to everybody, where there is such a socket of db's. Returns the text."""
    text = new_text(env)
    result = env.actors["nobody"].do(kind, address, OPEN, text)["result"]
    assert result == "ok" or kind == "tcp", result
    return text


def hears(actor, name, text, heard):
    """Whether a text comes in at a socket of this actor, at once or after all that was sent before."""
    result = actor.do("wait", name, text, 2 * PATIENCE if heard else 0.3)["result"]
    assert result == ("ok" if heard else "ETIMEDOUT"), f"{name}: {result}"


def test_a_socket_that_is_older_than_its_workloads_tag_receives_by_the_tag(env):
    address, late = "127.0.0.20", env.workload("late-ears")
    actor = Actor(late)
    for kind in ("udp", "tcp"):
        actor.ok("bind", kind, kind, address, OPEN)
        actor.ok("hear_on", kind)
        hears(actor, kind, reaches(env, kind, address), False)
    logged(env, "ingress", ("NO_IDENTITY",), zt__cgroup__path=lambda p: p and p.endswith("/late-ears"))
    late.attest(env.svid["db"])
    for kind in ("udp", "tcp"):
        hears(actor, kind, reaches(env, kind, address), True)


def test_a_socket_that_receives_belongs_to_who_made_it(env):
    """Passed by SCM_RIGHTS; inherited by a program in another cgroup; and kept by a process that moves."""
    for n, (maker, user, heard) in enumerate((("db", "shut", True), ("shut", "db", False))):
        for kind in ("udp", "tcp"):
            address, name = f"127.0.0.{21 + n}", f"{maker}-{kind}-ears"
            path = f"{env.dir}/{name}"
            env.actors[user].ok("receive", path)
            env.actors[maker].ok("bind", name, kind, address, OPEN)
            env.actors[maker].ok("give", name, path)
            env.actors[user].ok("take", name, path)
            env.actors[user].ok("hear_on", name)
            hears(env.actors[user], name, reaches(env, kind, address), heard)
            # By another program.
            env.actors[maker].ok("activate", procs(env, user), f"127.0.0.{23 + n}", OPEN, kind)
            text = reaches(env, kind, f"127.0.0.{23 + n}")
            wait = env.actors[maker].do("of_service", OPEN, "wait", "activated", text, 2 * PATIENCE if heard else 0.3)
            assert wait["result"] == ("ok" if heard else "ETIMEDOUT"), f"{kind} of {maker} in {user}: {wait}"
        mover, address = Actor(env.members[maker]), f"127.0.0.{25 + n}"
        mover.ok("bind", "before", "udp", address, OPEN)
        mover.ok("hear_on", "before")
        mover.ok("move", procs(env, user))
        hears(mover, "before", reaches(env, "udp", address), heard)


def test_a_strangers_syn_with_data_is_judged_like_one_without(env):
    """With settings that send data at once, and take it without a cookie."""
    nobody, db, mark = env.actors["nobody"], env.actors["db"], env.audit.mark()
    sysctl(env.home, f"net.ipv4.tcp_fastopen={0x207}")
    try:
        denied, allowed = new_text(env), new_text(env)
        nobody.do("fastopen", V4, FAST, denied, 0.5)
        wait_for(lambda: on_devices(env, denied), "the SYN with data to leave")
        assert nobody.ok("fastopen", V4, OPEN_FAST, allowed)["in_syn"], "nothing was proved: the data came later"
        db.ok("wait", "open-fast", allowed, 2 * PATIENCE)
        assert everywhere(env, allowed) == {"db:open-fast": 1} and not everywhere(env, denied), everywhere(env, denied)
        env.audit.wait(mark, event__action="flow-denied", network__direction="ingress", destination__port=FAST,
                       event__code="DEFAULT_DENY")
    finally:
        sysctl(env.home, "net.ipv4.tcp_fastopen=3")


def test_behind_extension_headers_the_policy_denies_as_without(env):
    """Out by lone, who may send nothing; in, from outside any workload: to shut, who may receive nothing, and to a port of db
    that is not for strangers."""
    lone, nobody, db = (env.actors[name] for name in ("lone", "nobody", "db"))
    chains, mark = [([HOPOPTS] + [DSTOPTS, ROUTING] * 4)[:n] for n in range(9)], env.audit.mark()
    kept, sent = ([new_text(env) for _ in chains] for _ in range(2))
    for kinds, inside, outside in zip(chains, kept, sent):
        packet = ipv6(*chain(kinds, HAND_MADE, inside.encode()))
        assert lone.do("own_header", V6, packet.hex())["result"] == "EPERM", kinds
        datagram = udp_header(V6, V6, outside.encode(), 40005, DB)
        nobody.ok("own_header", V6, ipv6(*chain(kinds, 17, datagram)).hex())
    for kinds in chains:
        text = new_text(env)
        nobody.ok("own_header", V6, ipv6(*chain(kinds, HAND_MADE, text.encode())).hex())
        assert db.do("wait", f"raw6/{HAND_MADE}", text, 2 * PATIENCE)["result"] == "ok", kinds
        assert everywhere(env, text) == {f"db:raw6/{HAND_MADE}": 1}, f"{kinds}: {everywhere(env, text)}"
    for inside, outside in zip(kept, sent):
        assert on_devices(env, outside) and not on_devices(env, inside)
        assert not everywhere(env, inside) and not everywhere(env, outside), everywhere(env, outside)
    denied = env.audit.find(mark, event__action="flow-denied")
    assert {e["event"]["code"] for e in denied} <= {"DEFAULT_DENY", "IMPOSSIBLE", "RAW_SOCKET"}, denied
    logged(env, "ingress", ("DEFAULT_DENY",), destination__port=DB, source__port=40005)


def test_an_echo_reply_does_not_outlive_what_allowed_the_request(env):
    """The policy changes while the request is under way."""
    web, to = env.actors["web"], env.veth["4"][1]
    for policy, heard in ((POLICY, "ok"), (POLICY_WITHOUT_MESSAGES, "ETIMEDOUT")):
        text = new_text(env)
        with HeldBack(env) as held:
            web.ok("icmp", to, 8, text, 107, "raw", None, "late")
            wait_for(held.is_holding, "the request to wait for its neighbour")
            env.apply(policy)
            held.release()
            wait_for(lambda t=text: on_devices(env, t) == 2, "the reply to come back")
            result = web.do("icmp_wait", "late", 0, 107)["result"]
        env.apply(POLICY)
        assert result == heard, heard
    # The flow is web's.
    logged(env, "egress", ("DEFAULT_DENY",), network__transport="icmp", destination__ip=to, zt__again=True,
           zt__source__spiffe_id=env.svid["web"].spiffe_id)

# SPDX-License-Identifier: Apache-2.0
"""A policy is replaced at once: no judgement is made by a part of the old one and a part of the new one, and no packet
passes by what one says of its sender and the other of its receiver."""
import time

import control
from common import HeldBack, TRUST_DOMAIN, setup, spiffe  # noqa: F401
from harness import wait_for

CLOSED, OPEN, FILLING = 6001, 6002, 400
RATE = 4000
SWAPS = 30
CROSSING = 7001


def policy(new):
    """Two policies that judge `closed` and `open` alike: the first is denied by each, the second allowed by each. But by other
    rules, by identities that have other numbers in the tables, and by rows that lie elsewhere: in a mixture of the two, what
    stops `closed` is missing, or what lets `open` pass. Only the sender's end asks them."""
    filling = range(FILLING) if new else range(FILLING, 2 * FILLING)
    others = "".join(f"  other{i}: {spiffe(f'other/{i}')}\n" for i in filling)
    before, behind = (others, "") if new else ("", others)
    rules = [f"{{name: other{i}, action: {'deny' if i % 3 else 'allow'}, from: other{i}, to: db, "
             f"service: [tcp/{1000 + i}, udp/{2000 + i}]}}" for i in filling]
    # Who has the number of web in the other policy may do what web may not.
    rules.append(f"{{name: all-others, action: allow, from: [{', '.join(f'other{i}' for i in filling)}], to: any, "
                 f"direction: egress}}")
    if new:
        rules.append(f"{{name: second-opens, priority: 5, action: allow, from: web, to: db, service: udp/{OPEN}, "
                     "direction: egress}")
    else:
        rules += [f"{{name: first-stops, action: deny, from: web, to: db, service: udp/{CLOSED}, direction: egress}}",
                  f"{{name: first-opens, priority: 5, action: allow, from: web, to: db, service: udp/{CLOSED}-{OPEN}, "
                  "direction: egress}"]
    rules.append("{name: all-arrives, action: allow, from: any, to: any, direction: ingress}")
    rules.append("{name: db-answers, action: allow, from: db, to: any, direction: egress}")
    return ("bulkhead: 1\nidentities:\n" + before + f"  web: {spiffe('web')}\n  db: {spiffe('db')}\n" + behind
            + "rules:\n" + "".join(f"  - {rule}\n" for rule in rules))


def ready(env):
    env.apply(policy(False))
    env.web = env.workload("web", env.ca.issue("/web"))
    env.db = env.workload("db", env.ca.issue("/db"))
    env.far = env.network.namespace("b")
    env.veth = env.network.veth(env.home, env.far)


def probe(env, port):
    """A datagram from a socket that is not connected is judged as it is sent, and its sender is told."""
    return env.web.udp_stream(f"127.0.0.1,{port}", rate=RATE, stream=port)


def test_no_packet_is_judged_by_a_part_of_each_policy(env):
    server = env.db.udp_server(f"127.0.0.1,{CLOSED}", f"127.0.0.1,{OPEN}")
    closed, opened = probe(env, CLOSED), probe(env, OPEN)
    wait_for(lambda: opened.stat()["received"] > 100 and closed.stat()["refused"] > 100, "both to be judged")
    texts = [policy(True), policy(False)]
    first = closed.stat()["made"]
    for i in range(SWAPS):
        error, said = control.apply(env.run_dir, "swap.yaml", texts[i % 2])
        assert not error, said
        made = closed.stat()["made"]
        wait_for(lambda m=made: closed.stat()["made"] > m + 20, "probes under this policy")
    was_closed, was_open = closed.stat(), opened.stat()
    assert was_closed["made"] - first > 20 * SWAPS, was_closed
    assert was_closed["sent"] == 0, f"let pass, which both policies deny: {was_closed}"
    assert was_open["refused"] == 0, f"stopped, which both policies allow: {was_open}"
    arrived = {s["stream"]: s["received"] for s in server.stat()["streams"]}
    assert arrived.get(CLOSED, 0) == 0 and arrived[OPEN] > 0, arrived


def half(*directions):
    """Lets web reach db, as far as the ends of these directions are asked. At web's end it could always be somebody else."""
    rules = [f"{{name: {d}, action: allow, from: web, to: db, service: [tcp/{CROSSING}, udp/{CROSSING}], direction: {d}}}"
             for d in directions]
    rules.append(f"{{name: another, action: allow, from: web, to: other, service: [tcp/{CROSSING}, udp/{CROSSING}], "
                 "direction: egress}")
    return (f"bulkhead: 1\nidentities:\n  web: {spiffe('web')}\n  db: {spiffe('db')}\n  other: {spiffe('other')}\nrules:\n"
            + "".join(f"  - {rule}\n" for rule in rules))


def replace(env, text):
    error, said = control.apply(env.run_dir, "swap.yaml", text)
    assert not error, said


def overtaken(env, before, after, send):
    """What send(), under the policy `before`, sends across the veth waits for its neighbour while `after` takes its place. What
    has been under way for a second is void whatever the policy says: then once more. Returns who sent, and the mark in the
    audit log."""
    for _ in range(5):
        replace(env, before)
        with HeldBack(env) as held:
            mark = env.audit.mark()
            start = time.monotonic()
            sender = send()
            wait_for(held.is_holding, "the packet to wait for its neighbour")
            replace(env, after)
            held.release()
            if time.monotonic() - start < 0.8:
                return sender, mark
        sender.kill()
    raise AssertionError("a policy takes the better part of a second to replace")


def test_a_datagram_that_a_policy_overtakes_needs_the_whole_of_the_new_one(env):
    """Each of the two denies it, at one end."""
    to = f"{env.veth['4'][1]},{CROSSING}"
    server = env.db.udp_server(to, netns=env.far)

    def send():
        return env.web.traffic("udp-client", "--to", to, "--count", 1, "--timeout", 3000)

    _, mark = overtaken(env, half("egress"), half("ingress"), send)
    event = env.audit.wait(mark, event__action="flow-denied", event__code="OVERTAKEN", network__direction="ingress")
    assert "under the policy before" in event["event"]["reason"], event
    assert not server.stat()["streams"], "it passed by a half of each policy"


def test_a_datagram_that_a_policy_overtakes_arrives_where_that_allows_it_too(env):
    to = f"{env.veth['4'][1]},{CROSSING}"
    env.db.udp_server(to, netns=env.far)
    both = half("egress", "ingress")
    sender, _ = overtaken(env, both, both + "# another\n",
                          lambda: env.web.traffic("udp-client", "--to", to, "--count", 1, "--timeout", 3000))
    assert sender.wait() == 0, sender.out


def test_an_answer_to_a_syn_that_a_policy_overtakes_needs_the_whole_of_the_new_one(env):
    """Who connects is judged when the answer arrives, and who answers when it leaves."""
    to = f"{env.veth['4'][0]},{CROSSING}"
    server = env.db.tcp_server(to)
    sender, mark = overtaken(env, half("ingress"), half("egress"), lambda: env.web.traffic(
        "tcp-client", "--to", to, "--count", 1, "--timeout", 1500, netns=env.far))
    env.audit.wait(mark, event__action="flow-denied", event__code="OVERTAKEN", network__direction="egress")
    assert sender.wait() != 0 and not [e for e in sender.events if e["event"] == "connected"], sender.out
    assert server.stat()["accepted"] == 0, "it passed by a half of each policy"


def test_a_syn_that_a_policy_overtakes_is_answered_where_that_allows_it_too(env):
    to = f"{env.veth['4'][1]},{CROSSING}"
    env.db.tcp_server(to, netns=env.far)
    both = half("egress", "ingress")
    sender, _ = overtaken(env, both, both + "# another\n",
                          lambda: env.web.traffic("tcp-client", "--to", to, "--count", 1, "--timeout", 3000))
    assert sender.wait() == 0, sender.out

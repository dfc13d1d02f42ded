# SPDX-License-Identifier: Apache-2.0
"""The identity in the TCP handshake cannot be made up nor used twice: who tries is `world`, known by address only."""
import os
import struct

from common import ready as common_ready, setup  # noqa: F401
from harness import ip, wait_for

PACKETS = ["/usr/bin/python3", "-B", os.path.join(os.path.dirname(os.path.abspath(__file__)), "packets.py")]
DB, OPEN = 5432, 7000
VERIFIED, FORGED, REPLAYED = "verified", "forged", "replayed"


def ready(env):
    common_ready(env)
    env.far = env.network.namespace("b")
    env.veth = env.network.veth(env.home, env.far)
    env.here = {"4": env.veth["4"][0], "6": env.veth["6"][0]}
    env.there = {"4": env.veth["4"][1], "6": env.veth["6"][1]}
    env.mac = ip("-n", env.far, "-o", "link", "show", env.veth["dev"]).split("link/ether ")[1].split()[0]
    env.servers = [env.db.tcp_server(f"::,{DB}", f"::,{OPEN}", netns=netns) for netns in (env.home, env.far)]
    env.port = 40000


def option(identity, mac=b"\xaa" * 8):
    """struct bh_tcpopt of bpf/abi_handshake.h."""
    return struct.pack("!BBHI", 254, 16, 0x4248, identity) + mac


def identity_number(env, workload):
    return env.tag_of(workload)["identity"]


def syn(env, who, dst, port, opt=b"", how="raw", dev="lo", src=None):
    """What answers a hand-made SYN."""
    env.port += 1
    process = who.spawn([*PACKETS, "syn", "--dev", dev, "--src", f"{src or dst},{env.port}", "--dst", f"{dst},{port}",
                         "--option", opt.hex(), "--how", how, "--peer-mac", env.mac])
    process.wait()
    event = process.wait_event("answer", "refused")
    return event.get("kind") or event["errno"]


def count(env, what):
    return env.status()["handshakes"][what]


def test_a_made_up_option_on_loopback_is_taken_for_world(env):
    forged, mark = count(env, FORGED), env.audit.mark()
    for dst in ("127.0.0.1", "::1"):
        assert syn(env, env.nobody, dst, DB, option(identity_number(env, env.web))) == "nothing"
        env.audit.wait(mark, event__action="flow-denied", destination__port=DB, destination__ip=dst, zt__proof=FORGED,
                       zt__source__kind="world", network__direction="ingress")
    assert count(env, FORGED) == forged + 2


def test_a_made_up_option_across_a_veth_is_taken_for_world(env):
    forged, mark = count(env, FORGED), env.audit.mark()
    for family in ("4", "6"):
        for how in ("raw", "device"):
            assert syn(env, env.nobody, env.there[family], DB, option(identity_number(env, env.web)), how,
                       env.veth["dev"], env.here[family]) == "nothing", f"IPv{family} {how}"
        env.audit.wait(mark, event__action="flow-denied", destination__ip=env.there[family], zt__proof=FORGED,
                       zt__source__kind="world")
    assert count(env, FORGED) == forged + 4


def test_world_gets_what_world_may_have_with_a_made_up_option_too(env):
    """A wrong option makes a peer `world`, neither less nor more."""
    assert syn(env, env.nobody, env.there["4"], OPEN, option(identity_number(env, env.web)), "device",
               env.veth["dev"], env.here["4"]) == "syn-ack"
    assert syn(env, env.nobody, env.there["4"], OPEN, b"", "device", env.veth["dev"], env.here["4"]) == "syn-ack"


def test_options_that_are_no_identity_do_not_help(env):
    web = identity_number(env, env.web)
    for opt in (b"", option(web)[:8], b"\xfe\x04BH", b"\xfe\x02", b"\xfe\x00" + b"\0" * 14, b"\xfe\x28" + b"A" * 14,
                option(0), option(1), option(2), option(0xFFFFFFFF), option(web) + option(web)):
        assert syn(env, env.nobody, env.there["4"], DB, opt, "device", env.veth["dev"], env.here["4"]) == "nothing", opt


def captured(env, dev, dst):
    """The SYN of a real connection from web to db that is over."""
    tool = env.nobody.spawn([*PACKETS, "capture", "--dev", dev, "--dst-port", str(DB)])
    tool.wait_event("ready")
    assert env.web.tcp(f"{dst},{DB}") == "ok"
    # While the connection is there, a second SYN of it would not be the listener's business.
    wait_for(lambda: not any(c["open"] for s in env.servers for c in s.stat()["connections"]), "the connection to end")
    return tool.wait_event("captured")["frame"]


def replay(who, frame, how, dev):
    process = who.spawn([*PACKETS, "replay", "--dev", dev, "--frame", frame, "--how", how])
    process.wait()
    event = process.wait_event("answer", "refused")
    return event.get("kind") or event["errno"]


def test_the_short_option_of_somebody_else_is_taken_for_world(env):
    """It says no more than "there is a ticket"; of a segment that this kernel did not send for a workload there is none."""
    replayed, mark = count(env, REPLAYED), env.audit.mark()
    short = b"\xfe\x04BH"
    for dst in ("127.0.0.1", "::1"):
        assert syn(env, env.nobody, dst, DB, short) == "nothing", dst
        env.audit.wait(mark, event__action="flow-denied", destination__ip=dst, zt__proof=REPLAYED, zt__source__kind="world")
    assert count(env, REPLAYED) == replayed + 2


def test_a_replayed_option_across_a_veth_is_taken_for_world(env):
    for family in ("4", "6"):
        frame = captured(env, env.veth["dev"], env.there[family])
        assert option(identity_number(env, env.web))[:8].hex() in frame, "the SYN carries no identity of web"
        replayed, mark = count(env, REPLAYED), env.audit.mark()
        assert replay(env.nobody, frame, "device", env.veth["dev"]) != "syn-ack", f"IPv{family}"
        env.audit.wait(mark, event__action="flow-denied", destination__ip=env.there[family], zt__proof=REPLAYED,
                       zt__source__kind="world")
        assert count(env, REPLAYED) == replayed + 1


def test_a_replayed_option_on_loopback_is_taken_for_world(env):
    frame = captured(env, "lo", "127.0.0.1")
    replayed, mark = count(env, REPLAYED), env.audit.mark()
    assert replay(env.nobody, frame, "raw", "lo") != "syn-ack"
    env.audit.wait(mark, event__action="flow-denied", destination__ip="127.0.0.1", zt__proof=REPLAYED,
                   zt__source__kind="world")
    assert count(env, REPLAYED) == replayed + 1


def test_a_workload_cannot_send_tcp_by_hand(env):
    """Not even one that may connect: its raw socket is refused at the source."""
    frame = captured(env, "lo", "127.0.0.1")
    for who in (env.web, env.loose):
        mark = env.audit.mark()
        assert syn(env, who, "127.0.0.1", DB, option(identity_number(env, env.web))) == "EPERM"
        env.audit.wait(mark, event__action="flow-denied", event__code="RAW_SOCKET", network__direction="egress",
                       zt__cgroup__path=lambda p, n=who.name: p and p.endswith(f"/{n}"))
        assert replay(who, frame, "raw", "lo") == "EPERM"
        assert syn(env, who, "::1", DB, option(identity_number(env, env.web))) == "EPERM"


def test_a_packet_socket_passes_the_sender_but_not_the_receiver(env):
    """AF_PACKET leaves a cgroup unseen (README, limits); the receiver's ingress does not believe it."""
    for who in (env.loose, env.web):
        forged = count(env, FORGED)
        assert syn(env, who, env.there["4"], DB, option(identity_number(env, env.web)), "device", env.veth["dev"],
                   env.here["4"]) == "nothing"
        assert count(env, FORGED) == forged + 1, who.name


def test_a_verified_handshake_is_counted(env):
    verified = count(env, VERIFIED)
    assert env.web.tcp(f"{env.there['4']},{DB}") == "ok"
    assert count(env, VERIFIED) == verified + 2  # SYN at db, SYN-ACK at web

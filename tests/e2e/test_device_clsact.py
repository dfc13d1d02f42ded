# SPDX-License-Identifier: Apache-2.0
"""Managed devices covered by filters of their clsact qdisc, as where the kernel has no tcx: `device_hook: clsact`."""
import contextlib
import json
import os

import bpf
from boxes import E2E, OTHER, POLICY, PORT, PYTHON, Box, Flow, ifindex, map_id, ping, pins, tag_of_device
from common import setup as common_setup, sysctl
from harness import DAEMON, DAEMON_LAYOUT, OLDKERNEL, ip, wait_for
from test_upgrade import change_build, layouts


OURS = "0x62756c6b"
SIDES = {"from": "ingress", "to": "egress"}


class Filtered(Box):
    """One whose device is covered once both filters are there."""

    def bind(self, svid, *addresses, **kwargs):
        wait_for(lambda: is_covered(self.env, self.device), f"{self.device} to be covered")
        return bind_now(self.env, self, svid, addresses or (self.v4, self.v6), **kwargs)


def bind_now(env, box, svid, addresses, expect=0):
    args = [a for address in addresses for a in ("--address", address)]
    process = env.nobody.spawn(env.ctl_argv("attest", "--device", box.device, *args, "--svid", svid.cert, "--key", svid.key))
    assert process.wait() == expect, "".join(process.out)


def tc(env, *args, expect=0):
    process = env.nobody.spawn(["tc", *args])
    rc = process.wait()
    assert expect is None or rc == expect, f"tc {' '.join(args)}: {''.join(process.out)}"
    return "".join(process.out)


def filters(env, device, side):
    """(preference, kind, name or handle), in the order in which they run."""
    found = json.loads(tc(env, "-j", "filter", "show", "dev", device, SIDES[side]) or "[]")
    return [(f["pref"], f["kind"], f["options"].get("bpf_name", f["options"].get("handle"))) for f in found
            if "options" in f and (f["kind"] != "u32" or "fh" in f["options"])]


def ours(env, device, side):
    found = json.loads(tc(env, "-j", "filter", "show", "dev", device, SIDES[side], expect=None) or "[]")
    return next((f["options"]["prog"]["id"] for f in found if f.get("options", {}).get("bpf_name") == f"bulkhead_{side}"),
                None)


def links(env):
    return {name for name in pins(env) if name.endswith(("_from", "_to"))}


def is_covered(env, device):
    return all(ours(env, device, side) for side in SIDES)


def uncovered(env, device):
    return next((d["error"] for d in env.status()["devices"]["uncovered"] if d["name"] == device), None)


@contextlib.contextmanager
def their_program(env, verdict):
    """The path of a pin of somebody else's program."""
    path = f"{env.bpffs}/{env.name}-{verdict}"
    try:
        assert env.nobody.spawn([*PYTHON, f"{E2E}/tcx.py", "pin", "--path", path, "--verdict", verdict]).wait() == 0
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def setup(env):
    common_setup(env)
    env.daemon_netns = env.home
    env.daemon_options = ["--devices", "bhc*", "--device-hook", "clsact"]
    env.boxes, env.port = 0, 40000


def ready(env):
    env.apply(POLICY)
    sysctl(env.home, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    env.nobody = env.outside(netns=env.home)
    env.svid = {name: env.ca.issue(f"/{name}") for name in ("box", "web")}
    env.box = Filtered(env)
    env.box.bind(env.svid["box"])
    env.servers = [*env.box.serve(), env.nobody.tcp_server(f"::,{PORT}", f"::,{OTHER}"),
                   env.nobody.udp_server(f"::,{PORT}", f"::,{OTHER}")]


def judged(env, box):
    """What the policy allows passes, in both directions, and what it does not, does not."""
    assert box.inside.tcp(f"{box.host4},{PORT}") == "ok"
    assert box.inside.tcp(f"{box.host4},{OTHER}", timeout=200) == "ETIMEDOUT"
    assert env.nobody.tcp(f"{box.v4},{PORT}") in ("ok", "ECONNREFUSED")
    assert env.nobody.tcp(f"{box.v4},{OTHER}", timeout=200) == "ETIMEDOUT"


def test_filters_judge_as_links_do(env):
    box = env.box
    judged(env, box)
    for host, inside in ((box.host4, box.v4), (box.host6, box.v6)):
        assert box.inside.udp(f"{host},{PORT}") == "ok" and env.nobody.udp(f"{inside},{PORT}") == "ok"
        assert ping(box.inside, host) and ping(env.nobody, inside)
    assert box.syn(box.v4, box.host4, PORT, "bypass") == "syn-ack"
    assert box.syn("10.78.1.77", box.host4, PORT, "bypass") == "nothing"
    assert not links(env), "a link was made"
    assert env.status()["devices"]["hook"] == "clsact"
    assert "by clsact filters" in env.ctl("status", expect=0).out
    # Identity goes across.
    web = env.workload("web", env.svid["web"])
    assert web.tcp(f"{box.v4},{PORT}", netns=env.home) == "ok"
    env.audit.wait(event__action="flow-allowed", network__direction="ingress", zt__device__name=box.device,
                   zt__source__spiffe_id=env.svid["web"].spiffe_id, zt__proof="verified")


def mixed(env, name, pass_only=False):
    """A device that becomes a managed one, with filters of others on it. Returns it and what they are."""
    box = Filtered(env, device="other0")
    tc(env, "qdisc", "add", "dev", "other0", "clsact")
    for pref, handle, verdict in ((1, 7, "next"), (5, 1, "next"), (9, 1, "drop"))[:2 if pass_only else 3]:
        with their_program(env, verdict) as path:
            tc(env, "filter", "add", "dev", "other0", "ingress", "pref", str(pref), "handle", str(handle), "bpf",
               "object-pinned", path, "direct-action")
    theirs = filters(env, "other0", "from")
    for args in (("down",), ("name", name), ("up",)):
        ip("-n", env.home, "link", "set", "other0" if args[0] != "up" else name, *args)
    box.device = name
    box.bind(env.ca.issue(f"/box/{name}"))
    return box, theirs


def test_filters_of_others_stay_in_place_and_in_order(env):
    box, theirs = mixed(env, "bhcother")
    assert [f[0] for f in theirs] == [1, 5, 9], theirs
    ip("-n", env.home, "addr", "replace", f"{box.host4}/24", "dev", box.device)
    ip("-n", box.netns, "route", "replace", "default", "via", box.host4)
    now = filters(env, box.device, "from")
    assert now[0][2] == "bulkhead_from" and now[1:] == theirs, now
    assert not ping(box.inside, box.host4, 250), "their program did not run"
    tc(env, "filter", "del", "dev", box.device, "ingress", "pref", "9", "handle", "1", "bpf")
    wait_for(lambda: ping(box.inside, box.host4), "the device to carry")
    assert box.inside.tcp(f"{box.host4},{OTHER}", timeout=200) == "ETIMEDOUT"


def test_a_filter_that_somebody_takes_off_or_replaces_is_put_back(env):
    device = env.box.device
    program = ours(env, device, "from")

    def put_back(what, *args):
        mark = env.audit.mark()
        tc(env, *args)
        env.audit.wait(mark, event__action="enforcement-lost")
        wait_for(lambda: ours(env, device, "from") == program and is_covered(env, device), f"{what} to be put right")

    where = ("dev", device, "ingress", "pref", "1", "handle", OURS, "bpf")
    put_back("a filter taken off", "filter", "del", *where)
    with their_program(env, "next") as path:
        put_back("another program", "filter", "replace", *where, "object-pinned", path, "direct-action")
    put_back("the qdisc", "qdisc", "del", "dev", device, "clsact")
    assert tag_of_device(env, device)["spiffe_id"] == env.svid["box"].spiffe_id
    judged(env, env.box)


def test_where_ours_cannot_be_the_first_status_says_why(env):
    for name, args in (("bhck", ("clsact",)), ("bhci", ("ingress",))):
        ip("-n", env.home, "link", "add", "odd0", "type", "veth", "peer", "name", f"p{name}")
        tc(env, "qdisc", "add", "dev", "odd0", *args)
        if args == ("clsact",):
            with their_program(env, "next") as path:
                tc(env, "filter", "add", "dev", "odd0", "ingress", "pref", "1", "protocol", "ip", "bpf", "object-pinned",
                   path, "direct-action")
        ip("-n", env.home, "link", "set", "odd0", "name", name)
        error = wait_for(lambda n=name: (uncovered(env, n) or "not covered yet") != "not covered yet" and uncovered(env, n),
                         "the reason")
        assert "cannot be the first" in error, error
        assert "NOT" in env.ctl("status", expect=0).out
        # Nothing of theirs was touched, and with it gone the device is covered.
        tc(env, "qdisc", "del", "dev", name, *args)
        wait_for(lambda n=name: is_covered(env, n), f"{name} to be covered")
        ip("-n", env.home, "link", "del", name)


def test_a_device_that_goes_away_takes_its_identity_with_it(env):
    box = Filtered(env)
    box.bind(env.ca.issue("/box/leaving"))
    number = ifindex(env, box.device)
    ip("-n", env.home, "link", "del", box.device)
    wait_for(lambda: tag_of_device(env, box.device) is None, "its tag to be removed")
    ip("-n", env.home, "link", "add", box.device, "index", str(number), "type", "veth", "peer", "name", "eth0",
       "netns", box.netns)
    wait_for(lambda: is_covered(env, box.device), "the new one to be covered")
    assert tag_of_device(env, box.device) is None


class FilteredFlow(Flow):
    """As test_device's, on a device that is covered by filters."""

    def __init__(self, env):  # pylint: disable=super-init-not-called
        self.env, self.box = env, Filtered(env)
        self.svid = env.ca.issue(f"/box/{env.boxes}")
        self.box.bind(self.svid)
        self.server = env.nobody.tcp_server(f"{self.box.host4},5434")
        self.udp_server = env.nobody.udp_server(f"{self.box.host4},5434")
        self.tcp = self.box.inside.tcp_stream(f"{self.box.host4},5434", rate=500)
        self.udp = self.box.inside.udp_stream(f"{self.box.host4},5434", rate=500)
        self.goes_on()


def test_another_build_takes_over_the_filters_with_traffic(env):
    flow, before = FilteredFlow(env), layouts(env)
    tag = tag_of_device(env, flow.box.device)
    for program in (DAEMON_LAYOUT, DAEMON):
        change_build(env, program, kill=program == DAEMON_LAYOUT)
        assert (layouts(env) == before) == (program == DAEMON)
        flow.goes_on()
        assert tag_of_device(env, flow.box.device)["spiffe_id"] == tag["spiffe_id"]
        judged(env, flow.box)
        for side in SIDES:
            maps = bpf.bpftool("prog", "show", "id", str(ours(env, flow.box.device, side)))["map_ids"]
            assert map_id(env, "tags") in maps and map_id(env, "device_flows") in maps
    assert not flow.tcp.ended()


def test_from_filters_to_links_and_back_and_no_more(env):
    """Nothing is left of what covered a device before, and of others' nothing is lost."""
    flow, (other, theirs) = FilteredFlow(env), mixed(env, "bhcmixed", pass_only=True)
    device, number = flow.box.device, ifindex(env, flow.box.device)
    for hook in ("tcx", "clsact", None):
        env.daemon_options = ["--devices", "bhc*", "--device-hook", hook] if hook else []
        env.stop()
        env.start()
        assert ({f"device_{number}_from", f"device_{number}_to"} <= links(env)) == (hook == "tcx"), links(env)
        assert is_covered(env, device) == (hook == "clsact")
        assert bool(ours(env, device, "from")) == (hook == "clsact")
        if hook:
            flow.goes_on()
            assert tag_of_device(env, device)["spiffe_id"] == flow.svid.spiffe_id
            judged(env, flow.box)
        assert [f for f in filters(env, other.device, "from") if f[2] != "bulkhead_from"] == theirs
    assert not flow.tcp.ended() and not links(env)



def test_where_the_kernel_has_no_tcx_filters_are_taken_by_itself(env):
    """`auto` asks the kernel: here one that answers as Linux 6.5 does, and then one that has tcx."""
    env.stop()
    env.daemon_options = ["--devices", "bhc*", "--device-hook", "clsact"]
    env.start()
    flow = FilteredFlow(env)
    number = ifindex(env, flow.box.device)
    env.daemon_options = ["--devices", "bhc*"]
    for prefix, hook in (([OLDKERNEL, "6.5"], "clsact"), ([], "tcx")):
        env.stop()
        env.daemon_prefix = prefix
        env.start()
        assert env.status()["devices"]["hook"] == hook
        assert is_covered(env, flow.box.device) == (hook == "clsact")
        assert ({f"device_{number}_from", f"device_{number}_to"} <= links(env)) == (hook == "tcx"), links(env)
        flow.goes_on()
        judged(env, flow.box)
        # One that comes while it runs, too: and carries nothing.
        loose = Filtered(env)
        wait_for(lambda b=loose: not uncovered(env, b.device) and is_covered(env, b.device), "the new device to be covered")
        assert loose.syn(loose.v4, loose.host4, PORT) == "nothing"
    assert not flow.tcp.ended()

# SPDX-License-Identifier: Apache-2.0
"""Managed devices are covered, whatever becomes of them, of the daemon, and of what covers them: each from the moment it is there,
also while nobody watches, and nothing is left of those that went."""
import os
import time

import bpf
import tcx
from boxes import (E2E, OTHER, PORT, PYTHON, Box, Flow, bind, covered, filtered, ifindex, linked, map_id, ping, pins,  # noqa: F401
                   ready, setup, tag_of_device)
from common import spiffe, stream_of
from harness import DAEMON, DAEMON_LAYOUT, ip, wait_for
from test_upgrade import change_build, layouts


def test_a_device_that_goes_away_takes_its_identity_with_it(env):
    box = Box(env)
    box.bind(env.ca.issue("/box/leaving"))
    number, mark = ifindex(env, box.device), env.audit.mark()
    ip("-n", env.home, "link", "del", box.device)
    wait_for(lambda: not {f"device_{number}_from", f"device_{number}_to"} & pins(env), "its pins to be removed")
    env.audit.wait(mark, event__action="identity-removed", zt__device__name=box.device)
    assert tag_of_device(env, box.device) is None
    # Another one under the same name and number begins with nothing.
    ip("-n", env.home, "link", "add", box.device, "index", str(number), "type", "veth", "peer", "name", "eth0",
       "netns", box.netns)
    wait_for(lambda: covered(env, box.device), "the new one to be covered")
    assert tag_of_device(env, box.device) is None


def test_a_new_device_is_covered_at_once_and_by_links_when_it_stays(env):
    flow = Flow(env)
    wait_for(lambda: linked(env, flow.box.device) and not filtered(env, flow.box.device), "links in the place of filters")
    flow.goes_on()
    assert flow.box.inside.tcp(f"{flow.box.host4},{OTHER}", timeout=250) == "ETIMEDOUT"


def other_program(env, device, verdict):
    process = env.nobody.spawn([*PYTHON, f"{E2E}/tcx.py", "attach", "--dev", device, "--verdict", verdict])
    process.wait_event("ready")
    return process


def test_a_program_that_somebody_else_has_on_the_hook_stays_and_runs(env):
    box = Box(env, device="other0")
    theirs = other_program(env, box.device, "drop")
    ip("-n", env.home, "link", "set", box.device, "down")
    ip("-n", env.home, "link", "set", box.device, "name", "bhcother")
    ip("-n", env.home, "link", "set", "bhcother", "up")
    box.device = "bhcother"
    box.bind(env.ca.issue("/box/other"))
    ip("-n", env.home, "addr", "replace", f"{box.host4}/24", "dev", box.device)
    ip("-n", box.netns, "route", "replace", "default", "via", box.host4)
    assert not ping(box.inside, box.host4, 250), "their program did not run"
    theirs.quit()
    wait_for(lambda: ping(box.inside, box.host4), "the device to carry")
    theirs = other_program(env, box.device, "next")
    assert ping(box.inside, box.host4)
    assert box.inside.tcp(f"{box.host4},{OTHER}", timeout=250) == "ETIMEDOUT"
    theirs.quit()


def test_a_daemon_that_is_killed_leaves_the_devices_covered(env):
    flow, late = Flow(env), None
    env.kill_daemon()
    try:
        flow.goes_on()
        assert flow.box.inside.tcp(f"{flow.box.host4},{OTHER}", timeout=250) == "ETIMEDOUT"
        late = Box(env)
    finally:
        env.start()
    # What came while nobody watched is covered before the daemon says it is ready.
    assert linked(env, late.device)
    assert tag_of_device(env, flow.box.device)["spiffe_id"] == flow.svid.spiffe_id
    flow.goes_on()
    assert not flow.tcp.ended()
    assert flow.box.inside.tcp(f"{flow.box.host4},{OTHER}", timeout=250) == "ETIMEDOUT"


def test_another_build_takes_over_the_devices_with_traffic(env):
    """With other maps, and back again: killed, and stopped."""
    flow, before = Flow(env), layouts(env)
    tag, to = tag_of_device(env, flow.box.device), f"{flow.box.host4},{OTHER}"
    number = ifindex(env, flow.box.device)
    listener = env.nobody.udp_server(to)
    flow.box.inside.udp_stream(to, rate=500, stream=9)
    for program in (DAEMON_LAYOUT, DAEMON):
        change_build(env, program, kill=program == DAEMON_LAYOUT)
        assert (layouts(env) == before) == (program == DAEMON), "the layouts pinned are those of the build that runs"
        flow.goes_on()
        now = tag_of_device(env, flow.box.device)
        assert (now["spiffe_id"], now["identity"]) == (tag["spiffe_id"], tag["identity"]), now
        assert flow.box.inside.tcp(f"{flow.box.host4},{PORT}") == "ok"
        assert flow.box.inside.tcp(to, timeout=250) == "ETIMEDOUT"
        maps = [set(bpf.bpftool("prog", "show", "id", str(program_on(env, number, side)))["map_ids"])
                for side in ("from", "to")]
        assert all(map_id(env, "tags") in ids and map_id(env, "device_flows") in ids for ids in maps), maps
    assert not flow.tcp.ended(), "an allowed connection ended"
    assert not stream_of(listener, 9), listener.stat()


def program_on(env, number, side):
    return bpf.bpftool("link", "show", "pinned", f"{env.pins}/device_{number}_{side}")["prog_id"]


def test_a_program_put_into_the_place_of_ours_is_replaced(env):
    """One that lets everything pass, in the link of each side."""
    wait_for(lambda: linked(env, env.box.device), "the device to have links")
    number = ifindex(env, env.box.device)
    theirs = tcx.load(tcx.VERDICTS["next"])
    try:
        for side in ("from", "to"):
            ours, mark = program_on(env, number, side), env.audit.mark()
            with bpf.opened(f"{env.pins}/device_{number}_{side}") as link:
                bpf.link_update(link, theirs)
            env.audit.wait(mark, event__action="enforcement-lost")
            wait_for(lambda s=side, o=ours: program_on(env, number, s) == o, "our program to be back")
    finally:
        os.close(theirs)
    assert env.box.inside.tcp(f"{env.box.host4},{OTHER}", timeout=250) == "ETIMEDOUT"
    assert env.box.inside.tcp(f"{env.box.host4},{PORT}") == "ok"


def test_a_link_that_somebody_takes_off_is_put_back(env):
    wait_for(lambda: linked(env, env.box.device), "the device to have links")
    number, mark = ifindex(env, env.box.device), env.audit.mark()
    process = env.nobody.spawn(["bpftool", "link", "detach", "pinned", f"{env.pins}/device_{number}_from"])
    assert process.wait() == 0, "".join(process.out)
    event = env.audit.wait(mark, event__action="enforcement-lost")
    assert "device" in event["event"]["reason"], event
    wait_for(lambda: env.box.inside.tcp(f"{env.box.host4},{OTHER}", timeout=200) == "ETIMEDOUT", "it to be judged again")
    assert env.box.inside.tcp(f"{env.box.host4},{PORT}") == "ok"
    os.unlink(f"{env.pins}/device_{number}_to")
    wait_for(lambda: linked(env, env.box.device), "the pin to be made again")


def open_files(env):
    return len(os.listdir(f"/proc/{env.daemon.popen.pid}/fd"))


def device_entries(env):
    return len(bpf.bpftool("map", "dump", "pinned", env.map_pin("devices")))


def churn(env, n):
    """n veth pairs made, put up and removed, as fast as the machine does it; returns how many a second."""
    path = f"{env.dir}/batch"
    with open(path, "w", encoding="ascii") as f:
        for i in range(n):
            f.write(f"link add bht{i} type veth peer name p{i}\nlink set bht{i} up\nlink del bht{i}\n")
    start = time.monotonic()
    ip("-n", env.home, "-batch", path)
    return n / (time.monotonic() - start)


def crowd_made(env, n):
    path = f"{env.dir}/batch"
    with open(path, "w", encoding="ascii") as f:
        f.writelines(f"link add bht{i} group 77 type veth peer name p{i} group 77\n" for i in range(n))
    ip("-n", env.home, "-batch", path)


def crowds(env, n, times):
    """n at a time: all are covered, and forgotten when they go at once. Returns a sentence of how fast."""
    making, covering, removing = 0, 0, 0
    for _ in range(times):
        start = time.monotonic()
        crowd_made(env, n)
        made = time.monotonic()
        wait_for(lambda: (d := env.status()["devices"]) and not d["uncovered"] and d["covered"] >= n, "all to be covered", 60)
        known = time.monotonic()
        ip("-n", env.home, "link", "del", "group", "77")
        making, covering, removing = making + made - start, max(covering, known - made), removing + time.monotonic() - known
    return (f"{n * times} in {times} crowds, {n * times / making:.0f} a second made, all covered at most {covering:.2f} s after "
            f"the last, {n * times / removing:.0f} a second removed")


def nothing_leaks(env, what, *args):
    """Of devices that came and went nothing is left: no pin, no place in the map, no descriptor, no device in the list."""
    def left():
        there = {line.split(":")[0] for line in ip("-n", env.home, "-o", "link", "show").splitlines()}
        strays = {name for name in pins(env) if name.endswith(("_from", "_to")) and name.split("_")[1] not in there}
        return strays, device_entries(env), env.status()["devices"]["covered"], env.status()["devices"]["uncovered"]

    wait_for(lambda: all(linked(env, d["name"]) for d in env.status()["devices"]["items"]), "those that stay to have links")
    before, files = left(), open_files(env)
    result = what(env, *args)
    wait_for(lambda: left() == before, "nothing to be left", 30)
    wait_for(lambda: open_files(env) <= files, "the descriptors to be closed")
    return result


def test_of_devices_that_come_and_go_nothing_is_left(env):
    rate = nothing_leaks(env, churn, 50)
    print(f"# veth pairs one by one: {rate:.0f} a second made, put up and removed; at once: {nothing_leaks(env, crowds, 250, 4)}")


def test_the_daemon_answers_while_it_makes_links_for_a_crowd(env):
    """Devices that stay get links, for which the kernel takes its time; until then filters cover them."""
    n, before = 60, len(pins(env))
    crowd_made(env, n)
    try:
        wait_for(lambda: len(pins(env)) >= before + 20, "the first links to be made")
        env.status()
        made = len(pins(env)) - before
        assert made < 2 * n, f"it answered when it had made {made} of {2 * n} links"
        wait_for(lambda: len(pins(env)) >= before + 2 * n, "all links to be made", 30)
    finally:
        ip("-n", env.home, "link", "del", "group", "77")


def test_messages_that_are_lost_are_made_up_for(env):
    """More devices change than the daemon's socket has room for while it does not run: it looks at all devices again."""
    gone, stays = Box(env, device="bhtgone"), Box(env, device="bhtstays")
    stays.bind(env.ca.issue("/box/stays"))
    gone.bind(env.ca.issue("/box/gone"))
    path = f"{env.dir}/batch"
    with open(path, "w", encoding="ascii") as f:
        f.writelines(f"link set {stays.device} mtu {1400 + i % 2}\n" for i in range(6000))
    env.stop_daemon()
    try:
        ip("-n", env.home, "-batch", path)
        ip("-n", env.home, "link", "del", gone.device)
        late = Box(env, device="bhtlate")
    finally:
        env.continue_daemon()
    wait_for(lambda: covered(env, late.device), "the one that came meanwhile to be covered")
    wait_for(lambda: tag_of_device(env, gone.device) is None, "the one that went to be forgotten")
    assert "messages of network devices were lost" in env.log_tail(400), "nothing was lost: the test proves nothing"
    assert tag_of_device(env, stays.device)["spiffe_id"] == spiffe("box/stays")
    assert stays.inside.tcp(f"{stays.host4},{PORT}") == "ok"


def test_a_tun_device_is_covered_like_an_ethernet_one(env):
    machine = env.nobody.spawn([*PYTHON, f"{E2E}/tun.py", "ping", "--dev", "bht0", "--src", "10.78.250.2", "--dst",
                                "10.78.250.1"])
    machine.wait_event("ready")
    ip("-n", env.home, "addr", "add", "10.78.250.1/24", "dev", "bht0")
    ip("-n", env.home, "link", "set", "bht0", "up")
    wait_for(lambda: covered(env, "bht0"), "the tun device to be covered")

    def answered():
        since = len(machine.events)
        machine.command("once")
        return machine.wait_event("reply", since=since)["came"]

    assert not answered()
    bind(env, "bht0", env.ca.issue("/box/machine"), ["10.78.250.2"])
    assert answered()
    env.ctl("revoke", spiffe("box/machine"), expect=0)
    assert not answered()

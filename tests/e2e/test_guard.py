# SPDX-License-Identifier: Apache-2.0
"""Another process of root's takes enforcement away, or what would keep it: that is seen within a second, told, and put
right."""
import os
import subprocess
import time

import bpf
from bpf import bpftool
from common import ready as common_ready, setup  # noqa: F401
from harness import BUILD, PATIENCE, read, remove_pins, wait_for

DB = "127.0.0.1,5432"
EMPTY = os.path.join(BUILD, "tests", "bench", "empty.bpf.o")  # programs that allow everything
LINKS = ["bh_ingress", "bh_egress", "bh_sockops", "bh_connect4", "bh_sendmsg6", "bh_sock_create"]


def ready(env):
    common_ready(env)
    env.tcp = env.db.tcp_server("::,5432")
    env.udp = env.db.udp_server("::,5432")
    denies(env)


def denies(env):
    assert env.loose.tcp(DB) == "EPERM"
    assert env.probe.tcp(DB, timeout=200) != "ok"
    assert env.web.tcp(DB) == "ok" and env.web.udp(DB) == "ok"


def check_put_right(env, mark, start, lost):
    """Both lines come within a second of what was done, and the second says for how long it was so."""
    seen = env.audit.wait(mark, event__action="enforcement-lost")
    took = time.monotonic() - start
    assert lost in seen["event"]["reason"], seen["event"]["reason"]
    restored = env.audit.wait(mark, event__action="enforcement-restored")["event"]["reason"]
    assert took <= 1.0 * PATIENCE, f"seen after {took:.2f} s"
    bound = int(restored.split(" ms at most")[0].rsplit(" ", 1)[1])
    assert bound <= 1000 * PATIENCE, restored
    assert env.status()["enforcing"]
    denies(env)
    return took


def still_enforced_without_the_daemon(env):
    """Which is what pins are for."""
    env.kill_daemon()
    denies(env)
    env.start()
    assert env.status()["adopted"]
    denies(env)


def test_a_link_detached_by_its_id_is_attached_again(env):
    slowest = 0
    for program in LINKS:
        link = bpftool("link", "show", "pinned", f"{env.pins}/link_{program}")["id"]
        mark, start = env.audit.mark(), time.monotonic()
        bpftool("link", "detach", "id", str(link))
        slowest = max(slowest, check_put_right(env, mark, start, f"the program {program} was detached"))
    print(f"# seen and told after {slowest * 1000:.0f} ms at most, of {len(LINKS)}")
    still_enforced_without_the_daemon(env)


def test_a_program_put_into_the_place_of_ours_is_replaced(env):
    pins = f"{env.bpffs}/{env.name}-empty"
    os.mkdir(pins)
    try:
        subprocess.run(["bpftool", "prog", "loadall", EMPTY, pins], check=True)
        for direction in ("ingress", "egress"):
            mark, start = env.audit.mark(), time.monotonic()
            with bpf.opened(f"{pins}/empty_{direction}") as program:
                with bpf.opened(f"{env.pins}/link_bh_{direction}") as link:
                    bpf.link_update(link, program)
            check_put_right(env, mark, start, f"the program bh_{direction} was replaced by another")
    finally:
        remove_pins(pins)
    still_enforced_without_the_daemon(env)


def test_a_pin_that_was_removed_is_made_again(env):
    for pin in (f"{env.pins}/link_bh_egress", f"{env.pins}/link_bh_tcp_end", env.map_pin("tags"), env.map_pin("sockets")):
        mark, start = env.audit.mark(), time.monotonic()
        os.unlink(pin)
        check_put_right(env, mark, start, f"the pin {pin} was removed")
        wait_for(lambda p=pin: os.path.exists(p), "the pin")
    still_enforced_without_the_daemon(env)
    assert env.tag_of(env.web), "tags are where they were"


def test_a_pin_that_names_something_else_is_put_right(env):
    pin, other = env.map_pin("tags"), env.map_pin("names")
    mark, start = env.audit.mark(), time.monotonic()
    os.rename(other, pin)  # and so that one is missing, too
    check_put_right(env, mark, start, "the pin ")
    wait_for(lambda: os.path.exists(other), "the other pin")
    still_enforced_without_the_daemon(env)
    assert env.tag_of(env.web)


def test_the_whole_pin_directory_is_made_again(env):
    mark, start = env.audit.mark(), time.monotonic()
    before = sorted(os.listdir(env.pins))
    remove_pins(env.pins)
    check_put_right(env, mark, start, f"the pin {env.pins}/link_")
    assert sorted(os.listdir(env.pins)) == before
    argv = env.daemon_argv()
    argv[argv.index("--state-dir") + 1] = f"{env.dir}/state2"
    argv[argv.index("--run-dir") + 1] = f"{env.dir}/run2"
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode and "pin directory" in done.stderr, "the new directory is locked, too: " + done.stderr
    still_enforced_without_the_daemon(env)
    assert env.tag_of(env.web)


def test_links_detached_and_pins_removed_while_the_daemon_is_away_are_made_at_its_start(env):
    env.kill_daemon()
    for program in ("bh_ingress", "bh_sockops"):
        bpftool("link", "detach", "pinned", f"{env.pins}/link_{program}")
    os.unlink(f"{env.pins}/link_bh_connect4")
    os.unlink(f"{env.pins}/link_bh_tcp_end")
    env.start()
    assert env.status()["enforcing"] and env.tag_of(env.web)
    denies(env)


def test_a_daemon_that_cannot_pin_again_says_so_and_goes_on_enforcing(env):
    """The place of the directory is taken by a file."""
    remove_pins(env.pins)
    mark = env.audit.mark()
    os.symlink("/nonexistent/place", env.pins)
    try:
        env.audit.wait(mark, event__action="enforcement-lost")
        wait_for(lambda: "cannot restore enforcement" in read(env.log_path), "the reason")
        denies(env)
    finally:
        os.unlink(env.pins)
    env.audit.wait(mark, event__action="enforcement-restored")
    still_enforced_without_the_daemon(env)

# SPDX-License-Identifier: Apache-2.0
"""What the kernel holds for one instance: the maps, by what it says of each itself (memlock in fdinfo), with a large policy in
force and many identities tagged; and the resident memory of the enforcer."""
import contextlib
import os

import policies
import report
import rig as bench
import times

IDENTITIES = 1000
LIMIT_MIB = 64


def maps_of(env):
    """name -> bytes of every map of this instance: those that a program uses, not all of which are pinned, and the pinned ones,
    some of which only the daemon uses."""
    ids = {i for program in bench.instance_programs(env) for i in program["map_ids"]}
    for directory, _, files in os.walk(env.pins):
        for name in files:
            with contextlib.suppress(RuntimeError):  # a link
                ids.add(bench.bpftool("map", "show", "pinned", os.path.join(directory, name))["id"])
    found = {}
    for map_id in ids:
        info = bench.bpftool("map", "show", "id", map_id)
        found[info["name"]] = found.get(info["name"], 0) + int(info["bytes_memlock"])
    return found


def with_identities(text, n):
    """The same policy with so many local identities, each a cgroup, which need no certificate to be tagged."""
    names = "".join(f"  local{i}: {{cgroup: /local{i}}}\n" for i in range(n))
    rule = f"  - {{name: locals, action: allow, from: [{', '.join(f'local{i}' for i in range(n))}], to: app0}}\n"
    return text.replace("identities:\n", "identities:\n" + names, 1) + rule


def measure_one(spec):
    shape, rules = spec
    env = bench.harness.Environment()
    try:
        env.start()
        for i in range(IDENTITIES):
            os.mkdir(f"{env.cgroup}/local{i}")
        env.apply(with_identities(policies.text(shape, 10, rules), IDENTITIES))
        bench.harness.wait_for(lambda: len(env.tags()) >= IDENTITIES, "the tags", 10)
        maps = maps_of(env)
        return {"policy": f"{rules} rules, {shape}, {IDENTITIES} identities", "maps": maps, "total": sum(maps.values()),
                "tables_used": env.status()["policy"]["table_bytes"],
                "enforcer_rss": times.resident_kib(env.daemon.pid) * 1024}
    finally:
        env.remove()


def measure(specs=(("ports", 100000), ("mixed", 100000))):
    return [measure_one(spec) for spec in specs]


def mib(n):
    return f"{n / 2**20:.2f}"


def table(rows):
    names = sorted({n for row in rows for n in row["maps"]}, key=lambda n: -rows[0]["maps"].get(n, 0))
    body = [[name, *(mib(row["maps"].get(name, 0)) for row in rows)] for name in names]
    body.append([f"all maps (limit {LIMIT_MIB})", *(mib(row["total"]) for row in rows)])
    body.append(["of `tables`, in use by one policy", *(mib(row["tables_used"]) for row in rows)])
    body.append(["enforcer, resident", *(mib(row["enforcer_rss"]) for row in rows)])
    return ["MiB", *(row["policy"] for row in rows)], body

# SPDX-License-Identifier: Apache-2.0
"""How long `policyctl apply` and an attestation take. On a daemon of its own, with four workloads tagged; nothing runs
beside it but the sleeping ends of the other systems."""
import os
import subprocess
import time

import report
import rig as bench
import rulesets

REPEATS = 7


def clock(argv):
    """Wall time in ms from start to exit, and what went wrong ("" if nothing)."""
    start = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    ms = (time.perf_counter() - start) * 1e3
    return ms, "" if done.returncode == 0 else (done.stderr or done.stdout).strip().splitlines()[0]


def repeated(what, argvs):
    """Medians over several calls; `argvs` are taken in turn."""
    values, error = [], ""
    for i in range(REPEATS):
        ms, error = clock(argvs[i % len(argvs)])
        if error:
            return {"what": what, "error": error}
        values.append(ms)
    return {"what": what, **report.spread(values)}


def policies_of(env, size):
    """Two that have no rule in common but for names; the first lets the benchmark's traffic pass, the second does not."""
    for variant in (0, 1):
        path = f"{env.dir}/policy{size}-{variant}.yaml"
        bench.harness.write(path, rulesets.bulkhead(size, bench.Bulkhead.TRUST_DOMAIN, bench.PORT, variant, not variant))
        yield path


def replacement(env, ctl, server, client, allowing, denying):
    """Ms from the start of the command to the last datagram that the old policy let pass; to the end of the command; or what
    went wrong."""
    ms, error = clock([*ctl, "apply", allowing])
    if error:
        return None, None, error
    before = client.stat()["sent"]
    bench.harness.wait_for(lambda: client.stat()["sent"] > before + 50, "traffic under the policy that allows it")
    start_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    ms, error = clock([*ctl, "apply", denying])
    if error:
        return None, None, error
    refused = client.stat()["refused"]
    bench.harness.wait_for(lambda: client.stat()["refused"] > refused, "the traffic to be denied")
    streams = server.stat()["streams"]
    return (streams[0]["last_sent_ns"] - start_ns) / 1e6, ms, ""


def apply_times(env, sizes):
    """With traffic running, whose verdict each policy turns over: five datagrams a millisecond say when."""
    ctl = [bench.harness.POLICYCTL, "--run-dir", env.run_dir]
    yield repeated("start of policyctl (--version)", [[*ctl, "--version"]])
    server = env.db.udp_server(f"127.0.0.1,{bench.PORT}")
    client = env.web.udp_stream(f"127.0.0.1,{bench.PORT}", rate=5000)
    for size in sizes:
        allowing, denying = policies_of(env, size)
        last, command, error = [], [], ""
        for _ in range(REPEATS):
            to_last, ms, error = replacement(env, ctl, server, client, allowing, denying)
            if error:
                break
            last.append(to_last)
            command.append(ms)
        what = f"policyctl apply, {size} rules"
        if error:
            yield {"what": what, "error": error}
            continue
        yield {"what": f"{what}: to the last packet judged by the old policy", **report.spread(last)}
        yield {"what": f"{what}: to the end of the command", **report.spread(command)}


def nft_times(rig, sizes):
    """A table of the same size replaced by another, in a namespace of the measured system."""
    system = next((s for s in rig.systems if isinstance(s, bench.Peer)), None)
    for size in dict.fromkeys(rulesets.parse_size(s)[0] for s in sizes) if system else ():
        for form, text in (("linear", rulesets.nft_linear), ("set", rulesets.nft_set)):
            path = f"{rig.dir}/times{size}-{form}.nft"
            bench.harness.write(path, text(size, "127.0.0.1", bench.PORT, True))
            yield repeated(f"nft -f, {form}, {size} rules",
                           [["nsenter", f"--net=/run/netns/{system.near}", "nft", "-f", path]])


def attest_times(env, svid, count):
    """From HELLO to RESULT within one process; then the whole command, beside one that does nothing."""
    workload = env.workload("times")
    socket = os.path.join(env.run_dir, "attest.sock")
    process = workload.spawn([bench.ATTEST_TIME, socket, svid.cert, svid.key, str(count)])
    rc = process.wait(60)
    lines = "".join(process.out).split()
    if rc or len(lines) != count:
        yield {"what": "attest, HELLO to RESULT", "error": "".join(process.out).strip()}
        return
    yield {"what": "attest, HELLO to RESULT", **report.spread([int(v) / 1e3 for v in lines])}
    # The clock must be inside the cgroup, or it would time the way into it.
    script = ('n=$1; shift; i=0; while [ $i -lt "$n" ]; do s=$(date +%s%N); "$@" >/dev/null || exit 1; '
              'e=$(date +%s%N); echo $((e - s)); i=$((i + 1)); done')
    ctl = [bench.harness.POLICYCTL, "--run-dir", env.run_dir]
    for what, argv in (("policyctl attest, whole command", [*ctl, "attest", "--svid", svid.cert, "--key", svid.key]),
                       ("the same clock around policyctl --version", [*ctl, "--version"])):
        process = workload.spawn(["sh", "-c", script, "sh", str(count), *argv])
        rc = process.wait(60)
        lines = "".join(process.out).split()
        if rc or len(lines) != count:
            yield {"what": what, "error": "".join(process.out).strip()}
        else:
            yield {"what": what, **report.spread([int(v) / 1e6 for v in lines])}


def resident_kib(pid):
    for line in bench.harness.read(f"/proc/{pid}/status").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def measure(rig, sizes, attests):
    rows = []
    if not sizes and not attests:
        return rows
    env = bench.harness.Environment()
    try:
        ca = env.authority(bench.Bulkhead.TRUST_DOMAIN)
        svid = ca.issue("/web")
        env.start()
        env.apply(rulesets.bulkhead("10", bench.Bulkhead.TRUST_DOMAIN, bench.PORT))
        env.web, env.db = env.workload("web", svid), env.workload("db", ca.issue("/db"))
        for i in range(4):
            env.workload(f"other{i}", ca.issue(f"/app/{i}"))
        if attests:
            rows += attest_times(env, svid, attests)
        if sizes:
            rows += apply_times(env, sizes)
            rows += nft_times(rig, sizes)
        rows.append({"what": f"enforcer resident memory, MiB ({sizes[-1] if sizes else 10} rules)",
                     **report.spread([resident_kib(env.daemon.pid) / 1024])})
    finally:
        env.remove()
    return rows


def table(rows):
    body = []
    for row in rows:
        if "error" in row:
            body.append([row["what"], "-", row["error"]])
        else:
            body.append([row["what"], f"{row['median']:.2f}", f"{row['min']:.2f}..{row['max']:.2f}"])
    return ["what (ms unless said)", "median", "min..max"], body

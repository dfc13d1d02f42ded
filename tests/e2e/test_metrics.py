# SPDX-License-Identifier: Apache-2.0
"""Metrics: what is told is OpenMetrics as others read it, it is what `policyctl top` and `status` say, and nobody who
can connect can do more than read it."""
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

from common import ready as common_ready, setup as common_setup, spiffe
from harness import DAEMON, PATIENCE, alive, wait_for

PG = "127.0.0.1,5432"
GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def setup(env):
    common_setup(env)
    env.metrics = f"{env.run_dir}/metrics.sock"
    env.daemon_options = ["--metrics", env.metrics]


def ready(env):
    common_ready(env)


def open_metrics(text):
    # Imported here: who runs other tests need not have it (packaging/deps has it for tests/run).
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
    return text_string_to_metric_families(text)


def plain_text(text):
    from prometheus_client.parser import text_string_to_metric_families
    return text_string_to_metric_families(text)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def connect(where):
    if isinstance(where, int):
        return socket.create_connection(("127.0.0.1", where), 10 * PATIENCE)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(where)  # blocking: where the queue is full, it waits
    sock.settimeout(10 * PATIENCE)
    return sock


def read_all(sock):
    data = b""
    while part := sock.recv(65536):
        data += part
    return data


def exchange(where, request):
    """Status, header fields, body."""
    with connect(where) as sock:
        sock.sendall(request)
        answer = read_all(sock)
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode("ascii").split("\r\n")
    fields = {name.lower(): value for name, value in (f.split(": ", 1) for f in fields)}
    assert int(fields["content-length"]) == len(body) and fields["connection"] == "close", answer[:300]
    return int(status.split()[1]), fields, body.decode()


def scrape(env, accept="*/*", where=None):
    status, fields, body = exchange(where or env.metrics, GET + f"Accept: {accept}\r\n\r\n".encode())
    assert status == 200, (status, body)
    return fields["content-type"], body


def fresh(env):
    """A scrape that is not the one of a moment ago: an exposition is told for a second. Where nothing has happened since, it has
    the same text."""
    time.sleep(1.1)
    return scrape(env)[1]


def samples(text):
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in open_metrics(text) for s in f.samples}


def value(found, name, **labels):
    return found.get((name, tuple(sorted(labels.items()))))


def traffic(env):
    env.db.tcp_server(PG)
    for _ in range(3):
        assert env.web.tcp(PG, count=4) == "ok"
    env.db.udp_server(PG)
    assert env.web.udp(PG, count=4) == "ok"
    assert env.loose.tcp(PG) == "EPERM"


# ---- the format ----

def test_the_exposition_is_open_metrics_for_its_own_parser(env):
    traffic(env)
    kind, text = scrape(env)
    assert kind == OPEN and text.endswith("\n# EOF\n")
    families = {f.name: f for f in open_metrics(text)}
    types = {"bulkhead_build": "info", "bulkhead_pair_flows": "counter", "bulkhead_pair_denials": "counter",
             "bulkhead_pair_tcp_sent_bytes": "counter", "bulkhead_pair_tcp_rtt_seconds": "summary",
             "bulkhead_map_entries": "gauge", "bulkhead_denied": "counter", "bulkhead_events_made": "counter"}
    for name, kind in types.items():
        assert families[name].type == kind, (name, families[name].type)
    assert families["bulkhead_pair_tcp_sent_bytes"].unit == "bytes"
    assert all(f.documentation for f in families.values())


def test_prometheus_reads_both_formats(env):
    """promtool check metrics knows the older format; Prometheus' reader of OpenMetrics is behind `tsdb
    create-blocks-from`, which wants a time with each sample."""
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: packaging/deps install test"
    traffic(env)
    kind, text = scrape(env, "text/plain;version=0.0.4")
    assert kind.startswith("text/plain; version=0.0.4")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr
    assert {f.name for f in plain_text(text)} >= {"bulkhead_pair_flows", "bulkhead_pair_tcp_rtt_seconds"}

    kind, text = scrape(env, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind == OPEN
    timed = re.sub(r"^([^#\n].*)$", r"\1 1700000000", text, flags=re.M)
    path = f"{env.dir}/openmetrics"
    with open(path, "w", encoding="utf-8") as file:
        file.write(timed)
    done = subprocess.run([promtool, "tsdb", "create-blocks-from", "openmetrics", path, f"{env.dir}/tsdb"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = int(done.stdout.splitlines()[1].split()[6])
    assert read == len(re.findall(r"^[^#\n]", text, flags=re.M)), done.stdout


def test_every_family_is_in_the_documentation_and_the_other_way_round(env):
    repo = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(f"{repo}/docs/metrics.md", encoding="utf-8") as file:
        documented = set(re.findall(r"^\| `(bulkhead_[a-z_]+)`", file.read(), flags=re.M))
    told = {f.name for f in open_metrics(scrape(env)[1])}
    assert documented == told, documented ^ told


# ---- what it says ----

def test_metrics_say_what_top_and_status_say(env):
    traffic(env)
    wait_for(lambda: any(p["sent_bytes"] for p in env.ctl_json("top")["pairs"]), "the connections to end")
    found = samples(fresh(env))
    pairs = env.ctl_json("top")["pairs"]
    assert pairs
    for pair in pairs:
        labels = {"source": pair["from"], "destination": pair["to"], "direction": pair["direction"],
                  "protocol": pair["protocol"]}
        assert value(found, "bulkhead_pair_flows_total", **labels) == pair["flows"], pair
        assert value(found, "bulkhead_pair_denials_total", **labels) == pair["denied"], pair
        if pair["rtt_us"] is not None:
            assert value(found, "bulkhead_pair_tcp_sent_bytes_total", **labels) == pair["sent_bytes"], pair
            assert value(found, "bulkhead_pair_tcp_rtt_seconds_count", **labels) > 0
        if pair["protocol"] == "udp" and pair["flows"]:
            assert value(found, "bulkhead_pair_udp_sent_bytes_total", **labels) == pair["sent_bytes"] > 0, pair
            assert value(found, "bulkhead_pair_udp_received_bytes_total", **labels) == pair["received_bytes"], pair
    status = env.status()
    assert value(found, "bulkhead_policy_revision") == status["policy"]["revision"]
    assert value(found, "bulkhead_enforcing") == 1
    for program in status["programs"]:
        assert value(found, "bulkhead_program_attached", program=program["name"]) == 1
    assert value(found, "bulkhead_build_info", version=status["version"], daemon=env.instance) == 1
    assert value(found, "bulkhead_tags", kind="verified") == 3
    assert value(found, "bulkhead_map_entries", map="tags") == 3
    assert value(found, "bulkhead_map_capacity", map="pairs") == 16384
    assert value(found, "bulkhead_map_entries", map="pairs") == len(pairs) + 2  # the places for others
    assert value(found, "bulkhead_denied_total", reason="NO_IDENTITY") == \
        sum(v for (name, _), v in found.items() if name == "bulkhead_denied_total") > 0
    made = value(found, "bulkhead_events_made_total", kind="flow")
    assert made and made <= status["events"]["made"]
    deadline = [(dict(labels), v) for (name, labels), v in found.items()
                if name == "bulkhead_nearest_deadline_timestamp_seconds"]
    assert len(deadline) == 1 and deadline[0][1] > time.time() and deadline[0][0]["identity"] in \
        {spiffe(n) for n in ("web", "db", "probe")}


# ---- who asks ----

def test_what_is_no_scrape_is_refused(env):
    for request, status in ((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
                            (b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 405),
                            (b"GET /metrics HTTP/3.0\r\nHost: x\r\n\r\n", 505), (b"\x16\x03\x01\x02\r\n\r\n", 400),
                            (GET + b"Content-Length: 3\r\n\r\nabc", 400)):
        got = exchange(env.metrics, request)
        assert got[0] == status and not got[2], (request, got)
        assert status != 405 or got[1]["allow"] == "GET"


def test_a_request_without_end_is_cut_short(env):
    for endless in (b"a" * 100000, GET + b"X-Long: " + b"a" * 100000):
        with connect(env.metrics) as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(endless)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                answer = sock.recv(4096)
            assert answer.startswith(b"HTTP/1.1 431 ") or not answer, answer
    scrape(env)


def test_slow_and_many_clients_keep_nobody_from_scraping(env):
    metrics_pid = env.role_pids()["metrics"]
    slow = [connect(env.metrics) for _ in range(60)]
    for sock in slow:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(b"GET /metrics HT")
    start = time.monotonic()
    scrape(env)
    assert env.web.tcp("127.0.0.1,1") == "EPERM" and env.status()["enforcing"]
    assert time.monotonic() - start < 2 * PATIENCE
    # Those who were not driven out have a few seconds for all they want to say.
    end = time.monotonic() + 8 * PATIENCE
    for sock in slow:
        sock.settimeout(max(end - time.monotonic(), 0.1))
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
        sock.close()
    assert env.role_pids()["metrics"] == metrics_pid


def test_many_who_scrape_at_once_get_whole_answers_of_few_looks(env):
    failed = []

    def run():
        for _ in range(20):
            try:
                open_texts.add(scrape(env)[1])
            except Exception as error:  # pylint: disable=broad-except
                failed.append(error)

    open_texts, start = set(), time.monotonic()
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed[:3]
    # One a second, and one at the beginning.
    assert len(open_texts) <= time.monotonic() - start + 2, len(open_texts)


def test_the_role_has_no_rights_and_is_started_again(env):
    pid = env.role_pids()["metrics"]
    status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status", encoding="ascii").read().splitlines()
                  if ":\t" in line)
    assert status["Uid"].split() == ["65534"] * 4 and int(status["CapEff"], 16) == 0 and status["Seccomp"] == "2"
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: env.role_pids()["metrics"] not in (0, pid), "another metrics role")
    assert alive(env.role_pids()["metrics"])
    scrape(env)


def test_the_socket_is_for_root_and_its_group(env):
    mode = os.stat(env.metrics).st_mode & 0o777
    assert mode in (0o600, 0o660), oct(mode)
    nobody = env.outside()
    code = f"import socket; socket.socket(socket.AF_UNIX).connect({env.metrics!r})"
    process = env.spawn(["/usr/bin/python3", "-c", code], netns=nobody.netns, uid=65534)
    assert process.wait() == 1 and "PermissionError" in "".join(process.out)


def test_on_a_port_of_the_loopback_interface(env):
    port, before = free_port(), env.daemon_options
    env.kill_daemon()
    env.daemon_options = ["--metrics", f"127.0.0.1:{port}"]
    try:
        env.start()
        text = scrape(env, where=port)[1]
        assert value(samples(text), "bulkhead_enforcing") == 1
        # A page in a browser can make it ask, by a name of its own for this address.
        assert exchange(port, b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n")[0] == 421
        with contextlib.suppress(OSError):
            other = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
            for address in [a for a in other if "." in a][:1]:
                try:
                    socket.create_connection((address, port), 1).close()
                except ConnectionRefusedError:
                    continue
                raise AssertionError(f"{address} answers")
    finally:
        env.kill_daemon()
        env.daemon_options = before
        env.start()
    scrape(env)


def test_a_role_that_a_killed_daemon_left_behind_does_not_keep_the_next_one_from_its_place(env):
    """It listens until it has seen the end of its daemon, which on a busy host takes a moment."""
    role = env.role_pids()["metrics"]
    os.kill(role, signal.SIGSTOP)
    try:
        env.kill_daemon()
        env.start(wait=False)
        wait_for(lambda: "a process has the place" in env.log_tail() or env.daemon.ended(), "the place to be found taken", 20)
    finally:
        os.kill(role, signal.SIGCONT)
    env.wait_notify("READY=1", 30)
    scrape(env)


def test_other_addresses_are_refused_with_a_sentence(env):
    for where in ("0.0.0.0:9470", "[::]:9470", "10.0.0.1:9470", "9470", "localhost:9470"):
        done = subprocess.run([DAEMON, "--metrics", where], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and f'metrics "{where}"' in done.stderr and "127.0.0.1:PORT" in done.stderr, done


def test_off_is_the_default(env):
    env.kill_daemon()
    before, env.daemon_options = env.daemon_options, []
    try:
        env.start()
        status = env.status()
        assert status["metrics"] == "off" and "metrics" not in [r["role"] for r in status["roles"]]
    finally:
        env.kill_daemon()
        env.daemon_options = before
        env.start()

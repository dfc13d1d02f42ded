# SPDX-License-Identifier: Apache-2.0
"""The systems under test, all set up at once and side by side: what a connection meets is decided by the cgroup and the
network namespace that its two processes were started in, so switching from one system to the next costs nothing, and
samples can be taken in turn.

Every system has three network namespaces of its own: place `loopback` is traffic within the first, `veth` is from the second
to the third, which a veth pair joins. Everything carries the name of this process and is removed at the end."""
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

E2E = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e")
os.environ.setdefault("BULKHEAD_BUILD", os.path.join("build", "release"))
sys.path.insert(0, E2E)
import harness  # noqa: E402  pylint: disable=wrong-import-position
import rulesets  # noqa: E402  pylint: disable=wrong-import-position

LOAD = os.path.join(harness.BUILD, "tests", "bench", "load")
ATTEST_TIME = os.path.join(harness.BUILD, "tests", "bench", "attest_time")
EMPTY = os.path.join(harness.BUILD, "tests", "bench", "empty.bpf.o")
EMPTY_HOOKS = os.path.join(harness.BUILD, "tests", "bench", "empty_hooks")

WORKLOADS = ("crr", "rr", "stream", "udp")
MORE_WORKLOADS = ("udpto",)
PLACES = ("loopback", "veth")
PORT = 5201

# As in a busy server: closed connections do not pile up, ports do not run out.
SYSCTLS = ("net.ipv4.tcp_max_tw_buckets=16", "net.ipv4.ip_local_port_range=10000 65000")
# The same mercy for conntrack, whose table would otherwise fill with closed connections during the run.
CONNTRACK_SYSCTLS = ("net.netfilter.nf_conntrack_tcp_timeout_time_wait=1",
                     "net.netfilter.nf_conntrack_tcp_timeout_close=1")


class Pair:
    """A server and a client of one system in one place."""

    def __init__(self, server, client):
        self.server, self.client = server, client
        for process in (server, client):
            process.wait_event("ready", seconds=10)

    def _run(self, workload, ms):
        since = len(self.client.events)
        self.client.command(f"{workload} {ms}")
        return self.client.wait_event("sample", since=since, seconds=ms / 1000 + 5)

    def _settled(self, key):
        """The server's counters, once no more is coming."""
        last = self.server.stat()
        for _ in range(50):
            time.sleep(0.002)
            now = self.server.stat()
            if now[key] == last[key]:
                return now
            last = now
        return last

    def sample(self, workload, ms):
        """Rate per second of what arrived, and the CPU time of both ends per operation. The first tenth is not counted:
        caches and the idle CPU wake up."""
        self._run(workload, max(ms // 10, 5))
        key = "udp" if workload == "udpto" else workload
        before = self._settled(key)
        event = self._run(workload, ms)
        after = self._settled(key)
        if event["failed"] or not event["ns"]:
            raise RuntimeError(f"{workload}: {event['failed'] or 'nothing'} after {event['ops']} operations")
        arrived = after[key] - before[key] if workload in ("stream", "udp", "udpto") else event["ops"]
        # Of a datagram the sender's side: it runs until the socket's queue, and there is no waiting in it.
        cpu_ns = event["cpu_ns"] if key == "udp" else event["cpu_ns"] + after["cpu_ns"] - before["cpu_ns"]
        return {"rate": arrived * 1e9 / event["ns"], "sent": event["ops"], "arrived": arrived, "ns": event["ns"],
                "cpu_ns_per_op": cpu_ns / event["ops"]}

    def works(self):
        """Also TCP and UDP that no packet came through for yet."""
        try:
            return all(self.sample(w, 10)["arrived"] for w in ("crr", "rr", "udp", "udpto"))
        except RuntimeError:
            return False


class System:
    """One thing to measure. Subclasses say how its processes are started and what stands in their way."""

    def __init__(self, rig, name):
        self.rig, self.name = rig, name
        self.alone, self.near, self.far = (rig.network.namespace(f"{name}-{n}") for n in "abc")
        veth = rig.network.veth(self.near, self.far)
        self.addresses = {"loopback": ("127.0.0.1", "127.0.0.1"), "veth": veth["4"]}
        self.pairs = {}
        for netns in (self.alone, self.near, self.far):
            self.sysctl(netns, *SYSCTLS)

    def sysctl(self, netns, *settings):
        process = self.rig.spawn(["sysctl", "-qw", *settings], netns=netns)
        assert process.wait() == 0, "".join(process.out)

    def prepare(self):
        """What stands in the way, before the processes are started."""

    def spawn(self, role, place, netns, argv):
        raise NotImplementedError

    def command(self, role, place):
        cpu, spare = self.rig.cpus
        return [LOAD, role, "--address", self.addresses[place][1], "--port", str(PORT), "--cpu", str(cpu),
                "--spare-cpu", str(spare)]

    def start(self, places):
        self.prepare()
        for place in places:
            client_ns, server_ns = (self.alone, self.alone) if place == "loopback" else (self.near, self.far)
            server = self.spawn("server", place, server_ns, self.command("server", place))
            server.wait_event("ready", seconds=10)
            client = self.spawn("client", place, client_ns, self.command("client", place))
            self.pairs[place] = Pair(server, client)
            harness.wait_for(self.pairs[place].works, f"traffic of {self.name} over {place}", 10)

    def programs(self):
        """{program id: name} of what runs for each packet, for `hooks`."""
        return {}

    def remove(self):
        """What removing cgroups and namespaces leaves."""


class NoFilter(System):
    """Two cgroups outside everything."""

    def cgroup(self, *below):
        path = os.path.join(self.rig.cgroup, self.name, *below)
        os.makedirs(path, exist_ok=True)
        return path

    def spawn(self, role, place, netns, argv):
        return self.rig.spawn(argv, cgroup=self.cgroup(f"{role}-{place}"), netns=netns)


class EmptyPrograms(NoFilter):
    """The same below a cgroup with a cgroup_skb pair that does nothing: no cgroup_skb filter can be faster."""

    def prepare(self):
        pins = self.rig.pins
        bpftool("prog", "loadall", EMPTY, pins)
        for direction in ("ingress", "egress"):
            # Attached without a link: the attachment goes with the cgroup.
            bpftool("cgroup", "attach", self.cgroup(), f"cgroup_inet_{direction}",
                    "pinned", f"{pins}/empty_{direction}", "multi")
        harness.remove_pins(pins)

    def programs(self):
        return {p["id"]: p["name"] for p in bpftool("cgroup", "show", self.cgroup())}


class EmptyHooks(NoFilter):
    """The same at every place where Bulkhead has a program, with an option of the same length in each handshake: what is left
    when nothing is judged."""

    def prepare(self):
        self.rig.spawn([EMPTY_HOOKS, EMPTY_HOOKS + ".bpf.o", self.cgroup()]).wait_event("ready", seconds=10)


class Bulkhead(System):
    """The daemon with a subtree of its own; web (client) and db (server) attested before they start. Identity in both
    directions, audit on, denials logged (the default)."""

    TRUST_DOMAIN = "bench.example"

    def __init__(self, rig, name, rules):
        super().__init__(rig, name)
        self.rules = rules
        self.env = harness.Environment()

    def prepare(self):
        ca = self.env.authority(self.TRUST_DOMAIN)
        self.svids = {"client": ca.issue("/web"), "server": ca.issue("/db")}
        self.env.start()
        self.env.apply(rulesets.bulkhead(self.rules, self.TRUST_DOMAIN, PORT))

    def spawn(self, role, place, netns, argv):
        svid = self.svids[role]
        return self.env.spawn([harness.POLICYCTL, "--run-dir", self.env.run_dir, "run", "--svid", svid.cert, "--key",
                               svid.key, "--cgroup", f"{role}-{place}", "--", *argv], netns=netns)

    def programs(self):
        return {p["id"]: p["name"] for p in instance_programs(self.env)}

    def remove(self):
        self.env.remove()


class Peer(NoFilter):
    """Another filter, in the server's network namespace: it judges what arrives there, and knows no identities; nothing
    stands in the client's way on the veth pair."""

    def __init__(self, rig, name, text, command):
        super().__init__(rig, name)
        self.text, self.command_line = text, command

    def load(self, netns, client):
        path = f"{self.rig.dir}/{netns}.rules"
        harness.write(path, self.text(client))
        process = self.rig.spawn([*self.command_line, path], netns=netns)
        assert process.wait(60) == 0, "".join(process.out)

    def prepare(self):
        for netns, place in ((self.alone, "loopback"), (self.far, "veth")):
            self.load(netns, self.addresses[place][0])
            with contextlib.suppress(AssertionError):  # older names on older kernels
                self.sysctl(netns, *CONNTRACK_SYSCTLS)


def peers(size):
    """What users could choose instead, at one size: name -> (text of the rules for a client's address, command). What is not
    installed is not there."""
    found = {}
    legacy = shutil.which("iptables-legacy-restore") or shutil.which("iptables-restore")
    forms = []
    if shutil.which("nft"):
        forms += [("nft-linear", rulesets.nft_linear, ["nft", "-f"]), ("nft-set", rulesets.nft_set, ["nft", "-f"])]
    if legacy:
        forms.append(("iptables", rulesets.iptables, [legacy]))
    for form, text, command in forms:
        for suffix, conntrack in (("", False), ("-ct", True)):
            found[f"{form}{suffix}-{size}"] = (lambda client, t=text, c=conntrack: t(size, client, PORT, c), command)
    return found


class Rig:
    """All of it. A context manager; what was made is removed in whatever way it ends."""

    def __init__(self, rules, peer_sizes=(), names=None):
        self.processes = []
        self.systems = []
        self.skipped = []
        self.name = f"{harness.PREFIX}{os.getpid()}-0"
        self.cgroup = harness.mount_of("cgroup2") + "/" + self.name
        self.dir = f"/tmp/{self.name}-"
        self.pins = None
        self.rules, self.peer_sizes, self.names = rules, peer_sizes, names
        self.network = harness.Network(f"bh{os.getpid()}x0", harness.TRAFFIC)
        cpus = sorted(os.sched_getaffinity(0))
        self.cpus = (cpus[-1], cpus[0])

    def spawn(self, argv, cgroup=None, netns=None):
        process = harness.Process(argv, cgroup, netns)
        self.processes.append(process)
        return process

    def _add(self, name, make):
        if not self.names or name in self.names:
            self.systems.append(make(self, name))

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self.remove()
            raise
        return self

    def _make(self):
        os.mkdir(self.cgroup)
        os.mkdir(self.dir)
        self.pins = (harness.mount_of("bpf") or harness.Environment._mount_bpffs()) + "/" + self.name
        self._add("none", NoFilter)
        self._add("none-again", NoFilter)  # what two that are the same differ by
        self._add("empty", EmptyPrograms)
        self._add("empty-hooks", EmptyHooks)
        for n in self.rules:
            self._add(f"bulkhead-{n}", lambda rig, name, n=n: Bulkhead(rig, name, n))
        for size in self.peer_sizes:
            for peer, (text, command) in peers(size).items():
                self._add(peer, lambda rig, name, t=text, c=command: Peer(rig, name, t, c))
        if self.peer_sizes:
            self.skipped += [f"{tool}: not installed (packaging/deps install bench)" for tool in ("nft", "iptables")
                             if not shutil.which(tool)]

    def start(self, places=PLACES):
        for system in list(self.systems):
            try:
                system.start(places)
            except AssertionError as error:
                # A peer that is missing something here, or a policy that this version cannot hold; the smallest one is
                # what the benchmark is about.
                if not isinstance(system, (Bulkhead, Peer)) or getattr(system, "rules", "") == self.rules[0]:
                    raise
                self.skipped.append(f"{system.name}: {str(error).strip().splitlines()[-1]}")
                self.systems.remove(system)
                system.remove()
        return self

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        steps = [s.remove for s in self.systems]
        steps += [p.kill for p in self.processes]
        steps += [lambda: harness.remove_pins(self.pins) if self.pins else None,
                  lambda: harness.remove_cgroup(self.cgroup), self.network.remove,
                  lambda: shutil.rmtree(self.dir, ignore_errors=True), harness.remove_all]
        self.systems, self.processes = [], []
        for step in steps:
            try:
                step()
            except Exception as error:  # pylint: disable=broad-except
                print(f"# cleaning up: {error}", file=sys.stderr, flush=True)


def bpftool(*args):
    tool = shutil.which("bpftool", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    done = subprocess.run([tool, "-j", *[str(a) for a in args]], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"bpftool {' '.join(str(a) for a in args)}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def instance_programs(env):
    """bpftool's view of every program that uses the pinned maps of an instance, on whatever hook it is: each reads the state
    word, or what is kept for sockets."""
    maps = {bpftool("map", "show", "pinned", env.map_pin(name))["id"] for name in ("state", "tcp_slots", "udp_sockets")}
    return [p for p in bpftool("prog", "show") if maps & set(p.get("map_ids", []))]


def require(*paths):
    if os.geteuid() != 0:
        sys.exit("the benchmark must run as root: it loads BPF programs and makes cgroups and network namespaces")
    for path in (harness.DAEMON, harness.POLICYCTL, harness.TRAFFIC, LOAD, EMPTY, EMPTY_HOOKS, *paths):
        if not os.path.exists(path):
            sys.exit(f"{path} is missing: cmake --preset release && cmake --build --preset release")

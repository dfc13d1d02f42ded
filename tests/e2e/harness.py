# SPDX-License-Identifier: Apache-2.0
"""One daemon with a world of its own: cgroup subtree, directories, pins, network namespaces, certificates, workloads.

Everything that an Environment makes carries the name of this process, so that several runs do not meet, and everything
is taken away again at the end, in whatever way it comes. Tests wait for conditions with a deadline and never sleep for
a time."""
import atexit
import contextlib
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile

from auditlog import Audit, field  # noqa: F401
from authority import Authority
from host import (PATIENCE, SANITIZED, DaemonProcess, Network, Process, Skip, alive, ip, mount_of,  # noqa: F401
                  read, remove_cgroup, remove_pins, wait_for, write)

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("BULKHEAD_BUILD") or os.path.join(REPO, "build", "dev")
if not os.path.isabs(BUILD):
    BUILD = os.path.join(REPO, BUILD)
DAEMON = os.path.join(BUILD, "daemon", "bulkheadd")
# The same with maps of another layout, and of small capacities.
DAEMON_LAYOUT = os.path.join(BUILD, "tests", "layout", "bulkheadd-layout")
POLICYCTL = os.path.join(BUILD, "cli", "policyctl")
TRAFFIC = os.path.join(BUILD, "tests", "e2e", "traffic")
OLDKERNEL = os.path.join(BUILD, "tests", "e2e", "oldkernel")
ATTEST_TIME = os.path.join(BUILD, "tests", "bench", "attest_time")

PREFIX = "bulkhead-e2e-"


class Result:
    """What a command answered."""

    def __init__(self, argv, rc, out, err):
        self.argv, self.rc, self.out, self.err = argv, rc, out, err

    def json(self):
        return json.loads(self.out)

    def __str__(self):
        return f"{' '.join(self.argv)} -> {self.rc}\n{self.out}{self.err}"


class Workload:
    """A cgroup below the managed subtree (or, by `path`, anywhere), in which processes are started."""

    def __init__(self, env, name, netns, path=None):
        self.env, self.name, self.netns = env, name, netns
        self.path = path or f"{env.cgroup}/{name}"
        os.makedirs(self.path, exist_ok=True)

    @property
    def cgroup_id(self):
        return os.stat(self.path).st_ino

    def spawn(self, argv, netns=None, **kwargs):
        return self.env.spawn(argv, cgroup=self.path, netns=netns or self.netns, **kwargs)

    def attest(self, svid, expect=0):
        """policyctl attest in this cgroup. Returns its Result; the exit code is checked unless `expect` is None."""
        process = self.spawn(self.env.ctl_argv("attest", "--svid", svid.cert, "--key", svid.key))
        rc = process.wait()
        result = Result(process.argv, rc, "".join(process.out), "")
        assert expect is None or rc == expect, str(result)
        return result

    def traffic(self, *args, netns=None):
        return self.spawn([TRAFFIC, *[str(a) for a in args]], netns=netns)

    def tcp_server(self, *endpoints, netns=None):
        return self._server("tcp-server", endpoints, netns)

    def udp_server(self, *endpoints, netns=None):
        return self._server("udp-server", endpoints, netns)

    def _server(self, command, endpoints, netns):
        listen = [a for e in endpoints for a in ("--listen", e)]
        process = self.traffic(command, *listen, netns=netns)
        assert process.wait_event("ready", "bind-failed", "socket-failed")["event"] == "ready", "".join(process.out)
        return process

    def tcp(self, to, count=1, timeout=1000, netns=None, stream=1):
        """Connects, has `count` records echoed. Returns "ok" or the error as the caller saw it."""
        process = self.traffic("tcp-client", "--to", to, "--count", count, "--timeout", timeout, "--stream", stream,
                               netns=netns)
        if process.wait(timeout / 1000 + 10) == 0:
            return "ok"
        last = [e for e in process.events if e["event"] != "stat"][-1]
        return last.get("errno", last["event"])

    def udp(self, to, count=3, timeout=400, netns=None, connected=False, stream=1):
        process = self.traffic("udp-client", "--to", to, "--count", count, "--timeout", timeout, "--stream", stream,
                               *(["--connected"] if connected else []), netns=netns)
        if process.wait(timeout / 1000 + 10) == 0:
            return "ok"
        stats = [e for e in process.events if e["event"] == "stat"]
        return (stats[-1]["errno"] if stats else process.events[-1].get("errno")) or "no-echo"

    def tcp_stream(self, to, rate=0, netns=None, stream=1):
        """A connection that stays."""
        process = self.traffic("tcp-client", "--to", to, "--rate", rate, "--stream", stream, netns=netns)
        event = process.wait_event("connected", "connect-failed")
        assert event["event"] == "connected", event
        return process

    def udp_stream(self, to, rate=0, netns=None, stream=1, connected=False):
        process = self.traffic("udp-client", "--to", to, "--rate", rate, "--stream", stream,
                               *(["--connected"] if connected else []), netns=netns)
        process.wait_event("ready")
        return process

    def kill(self):
        """Ends all that runs in it, and waits until it is empty."""
        with contextlib.suppress(OSError):
            write(f"{self.path}/cgroup.kill", "1")
        wait_for(lambda: "populated 0" in read(f"{self.path}/cgroup.events"), f"{self.path} to be empty")

    def remove(self):
        self.kill()
        for directory, _, _ in os.walk(self.path, topdown=False):
            os.rmdir(directory)

    def recreate(self):
        self.remove()
        os.mkdir(self.path)


class Environment:
    """See the top. `start()` starts the daemon; as a context manager it starts and cleans up."""

    _count = 0
    _all = []
    _mounted_bpffs = None

    def __init__(self, **daemon_env):
        Environment._count += 1
        self.name = f"{PREFIX}{os.getpid()}-{Environment._count}"
        self.instance = f"e2e-{os.getpid()}-{Environment._count}"
        self.subtree = f"/{self.name}"
        self.cgroup = None
        self.dir = None
        self.daemon = None
        self.daemon_env = daemon_env
        self.daemon_options = []  # beside those of daemon_argv()
        self.daemon_netns = None  # the test's own: that of the runner
        self.program = DAEMON  # that start() starts
        self.daemon_prefix = []  # what runs it
        self.processes = []
        self.workloads = []
        self.started = 0
        self.network = Network(f"bh{os.getpid()}x{Environment._count}", TRAFFIC)
        self.notified = []
        Environment._all.append(self)
        self._make()

    # ---- making and removing ----

    def _make(self):
        mount = mount_of("cgroup2")
        assert mount, "no cgroup2 is mounted"
        self.cgroup = mount + self.subtree
        os.mkdir(self.cgroup)
        self.dir = tempfile.mkdtemp(prefix=f"{self.name}-")
        os.chmod(self.dir, 0o755)
        for name in ("run", "state", "log", "bundles", "policy", "pki"):
            os.mkdir(f"{self.dir}/{name}")
        self.run_dir = f"{self.dir}/run"
        self.log_path = f"{self.dir}/log/bulkheadd.log"
        self.audit = Audit(f"{self.dir}/log/audit.jsonl")
        self.bpffs = mount_of("bpf") or self._mount_bpffs()
        self.pins = f"{self.bpffs}/{self.name}"
        self.home = self.network.namespace("a")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(f"{self.dir}/notify")
        os.chmod(f"{self.dir}/notify", 0o666)
        self.notify.setblocking(False)

    @staticmethod
    def _mount_bpffs():
        subprocess.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=True)
        Environment._mounted_bpffs = "/sys/fs/bpf"
        return "/sys/fs/bpf"

    def remove(self):
        """Takes everything away. Never fails half-way; says what it could not remove."""
        steps = [self._kill_processes, self._kill_daemon, lambda: remove_pins(self.pins),
                 lambda: remove_cgroup(self.cgroup), self.network.remove, self.notify.close,
                 lambda: shutil.rmtree(self.dir)]
        for step in steps:
            try:
                step()
            except Exception as error:  # pylint: disable=broad-except
                print(f"# cleaning up {self.name}: {error}", flush=True)
        if self in Environment._all:
            Environment._all.remove(self)
        if not Environment._all and Environment._mounted_bpffs:
            subprocess.run(["umount", Environment._mounted_bpffs], check=False)
            Environment._mounted_bpffs = None

    def _kill_processes(self, first=0):
        for process in self.processes[first:]:
            process.kill()
        del self.processes[first:]

    def _kill_daemon(self):
        if self.daemon and not self.daemon.ended():
            self.continue_daemon()
            self.daemon.popen.terminate()
            with contextlib.suppress(AssertionError):
                self.daemon.wait(5)
            self.kill_daemon()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.remove()

    @contextlib.contextmanager
    def scope(self):
        """What a test starts ends with it; what was there before stays."""
        processes, workloads = len(self.processes), len(self.workloads)
        try:
            yield
        finally:
            self._kill_processes(processes)
            for workload in reversed(self.workloads[workloads:]):
                with contextlib.suppress(OSError):
                    workload.remove()
            del self.workloads[workloads:]

    # ---- the daemon ----

    def daemon_argv(self):
        return [*self.daemon_prefix, self.program, "--instance", self.instance, "--subtree", self.subtree, "--run-dir", self.run_dir,
                "--state-dir", f"{self.dir}/state", "--audit-log", self.audit.path,
                "--bundle-dir", f"{self.dir}/bundles", "--policy-dir", f"{self.dir}/policy", "--pin-dir", self.pins,
                *self.daemon_options]

    def start(self, wait=True, **env):
        """Starts the daemon and waits until it says READY=1. What it prints goes to log_path, over all starts."""
        settings = {"NOTIFY_SOCKET": f"{self.dir}/notify", **self.daemon_env, **env}
        self.notified = []
        self.started += 1
        self.daemon = DaemonProcess(self.daemon_argv(), settings, self.log_path, self.daemon_netns)
        if wait:
            self.wait_notify("READY=1", 30)
        return self

    def poll_notify(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.notified += self.notify.recv(4096).decode().split("\n")
        return self.notified

    def wait_notify(self, text, seconds=5.0):
        def there():
            if text in self.poll_notify():
                return True
            if self.daemon.ended():
                raise AssertionError(f"bulkheadd ended with {self.daemon.popen.returncode} instead of {text}:\n"
                                     + self.log_tail())
            return False

        wait_for(there, f"{text} from bulkheadd", seconds)

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.daemon.popen.terminate()
        return self.daemon.wait(10)

    def kill_daemon(self):
        """SIGKILL to the enforcer; the other roles end with it."""
        if not self.daemon.ended():
            self.daemon.popen.kill()
        self.daemon.wait(10)

    def stop_daemon(self):
        """SIGSTOP to all of it: nothing of the daemon runs until continue_daemon()."""
        self._signal_all(signal.SIGSTOP)
        wait_for(lambda: all(read(f"/proc/{p}/stat").rsplit(")", 1)[1].split()[0] == "T" for p in self.daemon_pids()),
                 "the daemon to be stopped")

    def continue_daemon(self):
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number):
        for pid in self.daemon_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def daemon_pids(self):
        """The enforcer and its children."""
        pids = [self.daemon.pid]
        for pid in pids:
            for task in glob.glob(f"/proc/{pid}/task/*/children"):
                with contextlib.suppress(OSError):
                    pids += [int(p) for p in read(task).split()]
        return pids

    def role_pids(self):
        return {r["role"]: r["pid"] for r in self.status()["roles"]}

    def log_tail(self, lines=30):
        with contextlib.suppress(OSError):
            return "".join(read(self.log_path).splitlines(keepends=True)[-lines:])
        return ""

    def sanitizer_report(self):
        text = read(self.log_path) if os.path.exists(self.log_path) else ""
        found = re.search(r"^.*(ERROR: \w+Sanitizer|runtime error:)[\s\S]{0,4000}", text, re.M)
        return found.group(0) if found else None

    # ---- policyctl ----

    def ctl_argv(self, *args, run_dir=None):
        return [POLICYCTL, "--run-dir", run_dir or self.run_dir, *[str(a) for a in args]]

    def ctl(self, *args, expect=None, stdin=None, run_dir=None):
        argv = self.ctl_argv(*args, run_dir=run_dir)
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, input=stdin, errors="replace",
                                  stdin=None if stdin is not None else subprocess.DEVNULL, timeout=30 * PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{' '.join(argv)} did not end") from error
        result = Result(argv, done.returncode, done.stdout, done.stderr)
        assert expect is None or done.returncode == expect, f"expected exit code {expect}: {result}"
        return result

    def ctl_json(self, *args):
        return self.ctl("--json", *args, expect=0).json()

    def status(self):
        """Also of a daemon that has a role to restart, where `status` says 1."""
        result = self.ctl("--json", "status")
        assert result.rc in (0, 1), str(result)
        return result.json()

    def write_policy(self, text, name="policy.yaml"):
        path = f"{self.dir}/policy/{name}"
        write(path, text)
        return path

    def apply(self, text, name="policy.yaml", expect=0):
        return self.ctl("apply", self.write_policy(text, name), expect=expect)

    def map_pin(self, name):
        """Where a map is pinned: the name carries the number of its layout."""
        found = [f for f in os.listdir(self.pins) if re.fullmatch(rf"{name}_\d+", f)]
        assert len(found) == 1, f"pins of {name}: {found}"
        return f"{self.pins}/{found[0]}"

    def tags(self):
        return self.ctl_json("identities")

    def tag_of(self, workload):
        tags = [t for t in self.tags() if t["cgroup_id"] == workload.cgroup_id]
        return tags[0] if tags else None

    # ---- certificates, workloads, processes ----

    def authority(self, trust_domain, name=None, parent=None, trust=True, seconds=86400):
        """A new CA; with `trust` its bundle is given to the daemon (which must be told to reload if it runs)."""
        ca = Authority(f"{self.dir}/pki/{name or trust_domain}", trust_domain, parent, seconds)
        if trust and not parent:
            write(f"{self.dir}/bundles/{trust_domain}.pem", ca.bundle())
        return ca

    def workload(self, name, svid=None, netns=None, path=None):
        workload = Workload(self, name, netns or self.home, path)
        self.workloads.append(workload)
        if svid:
            workload.attest(svid)
        return workload

    def outside(self, netns=None):
        """Processes outside the managed subtree: the test's own cgroup."""
        return Outside(self, netns or self.home)

    def spawn(self, argv, cgroup=None, netns=None, **kwargs):
        process = Process(argv, cgroup, netns, **kwargs)
        self.processes.append(process)
        return process


class Outside(Workload):
    """The interface of a workload for what is none."""

    def __init__(self, env, netns):  # pylint: disable=super-init-not-called
        self.env, self.name, self.netns, self.path = env, "outside", netns, None


def remove_all():
    for env in list(Environment._all):
        env.remove()


def sweep():
    """Removes what a run that was killed left behind: names carry the pid of the run."""
    def dead(name, pattern):
        found = re.match(pattern, name)
        return found and not os.path.exists(f"/proc/{found.group(1)}")

    ours = rf"{PREFIX}(\d+)-"
    places = [(mount_of("bpf"), remove_pins, ours), (mount_of("cgroup2"), remove_cgroup, ours),
              (tempfile.gettempdir(), shutil.rmtree, ours),
              ("/run/netns", lambda path: ip("netns", "del", os.path.basename(path)), r"bh(\d+)x\d+-")]
    for place, remove, pattern in places:
        for name in os.listdir(place) if place and os.path.isdir(place) else []:
            if dead(name, pattern):
                with contextlib.suppress(Exception):
                    remove(os.path.join(place, name))


def _interrupted(number, _frame):
    for again in (signal.SIGTERM, signal.SIGINT):  # once is enough: what follows is cleaning up
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def install_cleanup():
    """Called by the runner's main thread."""
    atexit.register(remove_all)
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGINT, _interrupted)

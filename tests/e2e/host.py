# SPDX-License-Identifier: Apache-2.0
"""What a test needs of the host: processes in cgroups and network namespaces, veth pairs, waiting, cleaning up."""
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import threading
import time

SANITIZED = "asan" in os.path.basename(os.environ.get("BULKHEAD_BUILD", ""))
# Sanitized code on a busy machine is slow: deadlines are there to end a test that hangs, not to measure.
PATIENCE = 3 if SANITIZED else 1

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


class Skip(Exception):
    """The test cannot run here; says why."""


def wait_for(condition, what, seconds=5.0):
    """Waits until condition() is true and returns what it returned."""
    end = time.monotonic() + seconds * PATIENCE
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds * PATIENCE:g} s for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def mount_of(fstype):
    """Where a file system is mounted as a whole, or None."""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        for line in f:
            left, right = line.split(" - ", 1)
            fields = left.split()
            if right.split()[0] == fstype and fields[3] == "/":
                return fields[4]
    return None


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def alive(pid):
    with contextlib.suppress(OSError):
        return read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


class Process:
    """A child that may print JSON lines. `out` holds everything, `events` what was JSON."""

    def __init__(self, argv, cgroup=None, netns=None, env=None, uid=None):
        self.argv = argv
        self.events = []
        self.out = []
        self._news = threading.Condition()
        netns_fd = os.open(f"/run/netns/{netns}", os.O_RDONLY) if netns else -1
        procs = f"{cgroup}/cgroup.procs" if cgroup else None
        parent = os.getpid()

        def prepare():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(127)
            if procs:
                fd = os.open(procs, os.O_WRONLY)
                os.write(fd, b"0")
                os.close(fd)
            if netns_fd >= 0 and libc.setns(netns_fd, CLONE_NEWNET):
                os._exit(126)
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])

        try:
            self.popen = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          stderr=subprocess.STDOUT, preexec_fn=prepare, text=True, bufsize=1,
                                          env=dict(os.environ, **(env or {})), errors="replace")
        finally:
            if netns_fd >= 0:
                os.close(netns_fd)
        self.pid = self.popen.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.popen.stdout:
            event = None
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
            with self._news:
                self.out.append(line)
                if event is not None:
                    self.events.append(event)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def ended(self):
        return self.popen.poll() is not None

    def wait_event(self, *names, since=0, seconds=5.0):
        """The first event of one of these names at or after index `since`."""
        end = time.monotonic() + seconds * PATIENCE
        with self._news:
            while True:
                for event in self.events[since:]:
                    if event.get("event") in names:
                        return event
                left = end - time.monotonic()
                if left <= 0 or (not self._reader.is_alive() and self.ended()):
                    raise AssertionError(f"no {' or '.join(names)} from {self}: {''.join(self.out[-5:])!r}")
                self._news.wait(min(left, 0.2))

    def command(self, text):
        self.popen.stdin.write(text + "\n")
        self.popen.stdin.flush()

    def stat(self):
        """Asks a traffic tool for its counters; of one that ended, the last it printed."""
        since = len(self.events)
        try:
            self.command("stat")
        except (BrokenPipeError, ValueError):
            self.wait(5)
            self._reader.join(5)
            return [e for e in self.events if e.get("event") == "stat"][-1]
        try:
            return self.wait_event("stat", since=since)
        except AssertionError:
            if self.ended():
                return [e for e in self.events if e.get("event") == "stat"][-1]
            raise

    def wait(self, seconds=10.0):
        """Waits for the end; returns the exit code."""
        try:
            rc = self.popen.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{self} did not end: {''.join(self.out[-5:])!r}") from error
        self._reader.join(5)
        return rc

    def quit(self):
        with contextlib.suppress(OSError, ValueError):
            self.popen.stdin.close()
        return self.wait()

    def kill(self):
        if not self.ended():
            self.popen.kill()
        self.popen.wait()
        self._reader.join(5)
        with contextlib.suppress(OSError, ValueError):
            self.popen.stdin.close()
        self.popen.stdout.close()

    def __str__(self):
        return " ".join(os.path.basename(self.argv[0:1][0]) if i == 0 else a for i, a in enumerate(self.argv))


class DaemonProcess(Process):
    """bulkheadd: what it prints goes to a file that outlives it."""

    def __init__(self, argv, settings, log_path, netns=None):  # pylint: disable=super-init-not-called
        self.argv, self.events, self.out = argv, [], []
        netns_fd = os.open(f"/run/netns/{netns}", os.O_RDONLY) if netns else -1

        def prepare():
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if netns_fd >= 0 and libc.setns(netns_fd, CLONE_NEWNET):
                os._exit(126)

        env = {k: v for k, v in os.environ.items() if k not in ("WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS")}
        with open(log_path, "ab") as log:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                          env={**env, **settings}, preexec_fn=prepare)
        if netns_fd >= 0:
            os.close(netns_fd)
        self.pid = self.popen.pid

    def wait(self, seconds=10.0):
        try:
            return self.popen.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise AssertionError("bulkheadd did not end") from error


class Network:
    """Network namespaces with loopback up, and veth pairs between them."""

    def __init__(self, tag, ping):
        self.tag = tag
        self.ping = ping  # the traffic tool
        self.names = []
        self.pairs = 0

    def namespace(self, name):
        full = f"{self.tag}-{name}"
        if full not in self.names:
            ip("netns", "add", full)
            self.names.append(full)
            ip("-n", full, "link", "set", "lo", "up")
        return full

    def veth(self, a, b):
        """Connects two namespaces; returns {"4": (addr a, addr b), "6": (...)}."""
        self.pairs += 1
        n = self.pairs
        ifname = f"v{n}"
        ip("-n", a, "link", "add", ifname, "type", "veth", "peer", "name", ifname, "netns", b)
        four = (f"10.77.{n}.1", f"10.77.{n}.2")
        six = (f"fd77:{n}::1", f"fd77:{n}::2")
        for i, ns in enumerate((a, b)):
            ip("-n", ns, "addr", "add", f"{four[i]}/24", "dev", ifname)
            ip("-n", ns, "addr", "add", f"{six[i]}/64", "dev", ifname, "nodad")
            ip("-n", ns, "link", "set", ifname, "up")
        # A packet sent before the neighbour is up would be lost, and its sender would seem to have been denied.
        for address in (four[1], six[1]):
            wait_for(lambda to=address: not Process([self.ping, "ping", "--raw", "--timeout", "50", "--to", f"{to},0"],
                                                    netns=a).wait(), f"{address} to answer from {a}")
        return {"4": four, "6": six, "dev": ifname}

    def remove(self):
        for name in self.names:
            ip("netns", "del", name, check=False)
        self.names = []


def ip(*args, check=True):
    result = subprocess.run(["ip", *args], capture_output=True, text=True, check=False)
    if check and result.returncode:
        raise RuntimeError(f"ip {' '.join(args)}: {result.stderr}")
    return result.stdout


def remove_pins(path):
    """Without the pins of its links nothing is enforced any more."""
    for directory, _, files in os.walk(path, topdown=False):
        for name in files:
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


def remove_cgroup(path):
    if not os.path.isdir(path):
        return
    with contextlib.suppress(OSError):
        write(f"{path}/cgroup.kill", "1")
    wait_for(lambda: "populated 0" in read(f"{path}/cgroup.events"), f"{path} to be empty")
    for directory, _, _ in os.walk(path, topdown=False):
        os.rmdir(directory)

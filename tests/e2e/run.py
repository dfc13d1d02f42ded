#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the e2e tests: run.py [--jobs N] [FILTER...]

A test is a function test_BEHAVIOUR(env) in a file test_AREA.py. The tests of a file share one Environment with a
running daemon; `setup(env)` of the file prepares it before the daemon starts, `ready(env)` after. A filter is a part of
AREA.BEHAVIOUR; without one, all run. With --jobs, N files are run at the same time, each by a runner of its own. Set
BULKHEAD_BUILD to test another build than build/dev. Output is TAP."""
import argparse
import glob
import importlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402  pylint: disable=wrong-import-position


class Run:
    def __init__(self):
        self.number = self.passed = self.failed = self.skipped = 0

    def report(self, ok, name, seconds, note=""):
        self.number += 1
        print(f"{'ok' if ok else 'not ok'} {self.number} - {name}{note} ({seconds:.2f} s)", flush=True)

    def skip(self, name, why):
        self.skipped += 1
        self.report(True, name, 0, f" # SKIP {why}")

    def fail(self, name, seconds, text, env=None):
        self.failed += 1
        self.report(False, name, seconds)
        for line in text.rstrip().splitlines():
            print(f"#   {line}")
        if env:
            print("#   --- daemon log")
            for line in env.log_tail(20).splitlines():
                print(f"#   {line}")
            print("#   --- last audit lines")
            for event in env.audit.poll()[-12:]:
                print(f"#   {brief(event)[:500]!a}")
        sys.stdout.flush()


def brief(event):
    """What of an audit line helps to understand a failure."""
    names = ("@timestamp", "event.action", "event.code", "network.direction", "network.transport", "source.ip",
             "source.port", "destination.ip", "destination.port", "rule.name", "rule.version", "event.reason", "zt")
    return " ".join(f"{n.rsplit('.', 1)[-1]}={v}" for n in names if (v := harness.field(event, n)) is not None)


def explain(error):
    """The assertion with the lines of the test that led to it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tests/e2e/" in f.filename
              and not f.filename.endswith("run.py")]
    text = [f"{type(error).__name__}: {error}"]
    text += [f"at {os.path.basename(f.filename)}:{f.lineno} {f.name}: {f.line}" for f in frames]
    return "\n".join(text)


def run_test(run, name, test, env):
    start = time.monotonic()
    try:
        with env.scope():
            test(env)
            if env.daemon.ended():
                env.start()
        report = env.sanitizer_report()
        assert not report, report
    except harness.Skip as skip:
        run.skip(name, skip)
        return True
    except Exception as error:  # pylint: disable=broad-except
        run.fail(name, time.monotonic() - start, explain(error), env)
        return False
    run.passed += 1
    run.report(True, name, time.monotonic() - start)
    return True


def new_environment(module):
    env = harness.Environment(**getattr(module, "DAEMON_ENV", {}))
    try:
        getattr(module, "setup", lambda env: None)(env)
        env.start()
        getattr(module, "ready", lambda env: None)(env)
    except BaseException:
        print(f"# {module.__name__}: no environment\n" + env.log_tail(), flush=True)
        env.remove()
        raise
    return env


def run_file(run, module, tests):
    env = None
    broken = False
    area = module.__name__.removeprefix("test_")
    for name, test in tests:
        start = time.monotonic()
        if broken:
            run.fail(f"{area}.{name}", 0, "no environment, see above")
            continue
        try:
            env = env or new_environment(module)
        except Exception as error:  # pylint: disable=broad-except
            run.fail(f"{area}.{name}", time.monotonic() - start, explain(error))
            broken = True
            continue
        # After a failure nothing is known of the state: the next test gets a new world.
        if not run_test(run, f"{area}.{name}", test, env):
            env.remove()
            env = None
    if env:
        start = time.monotonic()
        env.remove()
        if getattr(module, "VERBOSE", False):
            print(f"# removed in {time.monotonic() - start:.1f} s")


HERE = os.path.dirname(os.path.abspath(__file__))


def areas():
    """Those that take longest come first: they are not to be the last that run."""
    slow = ["trial_killed", "survive", "cut", "trial", "lifetimes", "upgrade", "roles", "connections", "federation", "top",
            "device_cover", "device", "evasion", "device_clsact", "attest", "audit", "guard", "revisions", "until", "bundles",
            "reach"]
    names = [os.path.basename(path)[5:-3] for path in sorted(glob.glob(os.path.join(HERE, "test_*.py")))]
    return [n for n in slow if n in names] + [n for n in names if n not in slow]


def tests_of(area, filters):
    module = importlib.import_module(f"test_{area}")
    tests = [(n.removeprefix("test_"), f) for n, f in vars(module).items() if n.startswith("test_") and callable(f)]
    return module, [(n, f) for n, f in tests if not filters or any(x in f"{area}.{n}" for x in filters)]


class Jobs:
    """Runners of one file each, so many at a time. Their lines are shown as they come, with numbers of our own."""

    def __init__(self, run, filters):
        self.run, self.filters = run, filters
        self.lines = queue.Queue()
        self.running = {}

    def start(self, area):
        child = subprocess.Popen([sys.executable, __file__, "--area", area, *self.filters], stdout=subprocess.PIPE,
                                 text=True)
        self.running[area] = child

        def read():
            for line in child.stdout:
                self.lines.put((area, line.rstrip("\n")))
            self.lines.put((area, None))
        threading.Thread(target=read, daemon=True).start()

    def show(self, area, line):
        test = re.match(r"(ok|not ok) \d+ (- .*)", line)
        if test:
            self.run.number += 1
            line = f"{test.group(1)} {self.run.number} {test.group(2)}"
        elif line.startswith("#   "):
            line = f"# {area}: {line[4:]}"
        elif counts := re.fullmatch(r"# (\d+) passed, (\d+) failed, (\d+) skipped", line):
            self.run.passed += int(counts.group(1))
            self.run.failed += int(counts.group(2))
            self.run.skipped += int(counts.group(3))
            return
        elif line.startswith("1.."):
            return
        print(line, flush=True)

    def end(self, area):
        child = self.running.pop(area)
        # A runner that fails without a failed test broke off.
        if child.wait() not in (0, 1):
            self.run.fail(area, 0, f"its runner ended with {child.returncode}")

    def all(self, waiting, most):
        while waiting or self.running:
            while waiting and len(self.running) < most:
                self.start(waiting.pop(0))
            area, line = self.lines.get()
            if line is None:
                self.end(area)
            else:
                self.show(area, line)

    def stop(self):
        """Each cleans up what it made."""
        for child in self.running.values():
            child.send_signal(signal.SIGTERM)
        while self.running:
            area, line = self.lines.get()
            if line is None:
                self.running.pop(area).wait()
            else:
                self.show(area, line)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("filter", nargs="*")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--area", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = arguments()
    if os.geteuid() != 0:
        print("run.py: must run as root", file=sys.stderr)
        return 2
    for path in (harness.DAEMON, harness.POLICYCTL, harness.TRAFFIC):
        if not os.access(path, os.X_OK):
            print(f"run.py: {path} is missing: build first", file=sys.stderr)
            return 2
    filters = [f.removeprefix("test_") for f in args.filter]
    if not args.area:
        harness.sweep()
    harness.install_cleanup()
    run = Run()
    jobs = Jobs(run, filters)
    interrupted = False
    try:
        chosen = [a for a in ([args.area] if args.area else areas()) if tests_of(a, filters)[1]]
        if args.jobs > 1:
            jobs.all(chosen, args.jobs)
            chosen = []
        for area in chosen:
            print(f"# {area}", flush=True)
            run_file(run, *tests_of(area, filters))
    except KeyboardInterrupt as signal_:
        print(f"# interrupted by {signal_ or 'SIGINT'}: cleaning up", flush=True)
        interrupted = True
        jobs.stop()
    harness.remove_all()
    print(f"1..{run.number}")
    print(f"# {run.passed} passed, {run.failed} failed, {run.skipped} skipped")
    if not run.number and not interrupted:
        print("# no test matches", filters)
    return 130 if interrupted else 1 if run.failed or not run.number else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the e2e tests: run.py [FILTER...]

A test is a function test_BEHAVIOUR(env) in a file test_AREA.py. The tests of a file share one Environment with a
running daemon; `setup(env)` of the file prepares it before the daemon starts, `ready(env)` after. A filter is a part of
AREA.BEHAVIOUR; without one, all run. Set BULKHEAD_BUILD to test another build than build/dev. Output is TAP."""
import glob
import importlib
import os
import sys
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


def main():
    if os.geteuid() != 0:
        print("run.py: must run as root", file=sys.stderr)
        return 2
    for path in (harness.DAEMON, harness.POLICYCTL, harness.TRAFFIC):
        if not os.access(path, os.X_OK):
            print(f"run.py: {path} is missing: build first", file=sys.stderr)
            return 2
    filters = [f.removeprefix("test_") for f in sys.argv[1:]]
    harness.sweep()
    harness.install_cleanup()
    run = Run()
    interrupted = False
    try:
        for path in sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "test_*.py"))):
            module = importlib.import_module(os.path.basename(path)[:-3])
            area = module.__name__.removeprefix("test_")
            tests = [(n.removeprefix("test_"), f) for n, f in vars(module).items()
                     if n.startswith("test_") and callable(f)]
            tests = [(n, f) for n, f in tests if not filters or any(x in f"{area}.{n}" for x in filters)]
            if tests:
                print(f"# {area}", flush=True)
                run_file(run, module, tests)
    except KeyboardInterrupt as signal:
        print(f"# interrupted by {signal or 'SIGINT'}: cleaning up", flush=True)
        interrupted = True
    harness.remove_all()
    print(f"1..{run.number}")
    print(f"# {run.passed} passed, {run.failed} failed, {run.skipped} skipped")
    if not run.number and not interrupted:
        print("# no test matches", filters)
    return 130 if interrupted else 1 if run.failed or not run.number else 0


if __name__ == "__main__":
    sys.exit(main())

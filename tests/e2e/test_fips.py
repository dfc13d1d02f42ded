# SPDX-License-Identifier: Apache-2.0
"""`fips: require`: cryptography of OpenSSL's FIPS module, or no daemon.

Debian ships no such module; `tests/fips-module` makes one. Where BULKHEAD_TEST_FIPS names its fipsmodule.cnf (and
OPENSSL_MODULES the directory of its fips.so), the daemon runs on it here; elsewhere what is tested is the refusal."""
import os
import subprocess

from common import ready, setup  # noqa: F401
from authority import Svid, openssl
from harness import Skip, read

MODULE = os.environ.get("BULKHEAD_TEST_FIPS")


def refused(env, *options):
    argv = [*env.daemon_argv(), "--fips", "require", *options]
    argv[argv.index("--state-dir") + 1] = f"{env.dir}/untouched"
    settings = {k: v for k, v in os.environ.items() if k != "OPENSSL_MODULES"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=settings)
    assert done.returncode == 1, done.stderr
    assert "not started: the configuration says fips: require" in done.stderr, done.stderr
    assert not os.path.exists(f"{env.dir}/untouched"), "it had begun before it refused"
    return done.stderr


def test_without_the_module_the_daemon_refuses_to_start_and_says_what_is_missing(env):
    text = refused(env, "--fips-config", f"{env.dir}/nowhere.cnf")
    assert f"{env.dir}/nowhere.cnf, cannot be read: No such file" in text and "openssl fipsinstall" in text, text
    if os.path.exists(openssl("info", "-modulesdir").strip() + "/fips.so"):
        return
    config = f"{env.dir}/fipsmodule.cnf"
    with open(config, "w", encoding="ascii") as file:
        file.write("[fips_sect]\nactivate = 1\nmodule-mac = 00\n")
    for options in ((), ("--fips-config", config)):
        text = refused(env, *options)
        assert "fips.so" in text and "cannot" in text, text


def test_with_the_module_identities_are_verified_by_it_and_ed25519_is_refused(env):
    if not MODULE:
        raise Skip("BULKHEAD_TEST_FIPS names no FIPS module")
    env.stop()
    env.daemon_options = ["--fips", "require", "--fips-config", MODULE]
    try:
        env.start()
        assert "/fips.so" in read(f"/proc/{env.role_pids()['identity']}/maps")
        env.workload("approved", env.ca.issue("/web"))
        key = f"{env.dir}/pki/ed25519.key"
        openssl("genpkey", "-algorithm", "ED25519", "-out", key)
        svid = env.ca.issue("/web", key=Svid(None, key, None, 0))
        result = env.workload("other").attest(svid, expect=1)
        assert "key-not-approved (rule 220)" in str(result), str(result)
        env.ctl("reload", expect=0)
        env.workload("again", env.ca.issue("/web"))
    finally:
        env.daemon_options = []
        env.kill_daemon()
        env.start()

# SPDX-License-Identifier: Apache-2.0
"""Trust bundles of foreign trust domains, from their bundle endpoints into the daemon and out again; and those of a SPIFFE
Workload API."""
import base64
import datetime
import hashlib
import os
import re
import signal
import subprocess
import threading

import harness
import test_fetcher
from endpoint import Endpoint, der_of, readable, spiffe_bundle, web_certificate
from harness import read, wait_for, write
from test_workload import Hostile, message
from workload_api import WorkloadApi

DB = "127.0.0.1,5432"
POLICY = """\
bulkhead: 1
identities:
  web: spiffe://web.example/web
  db: spiffe://own.example/db
rules:
  - {name: web-to-db, action: allow, from: web, to: db, service: tcp/5432}
"""


def setup(env):
    """web.example has an https_web endpoint, own.example an https_spiffe one that serves itself, and served.example one that
    own.example serves."""
    env.ca = {name: env.authority(name, trust=False) for name in ("web.example", "own.example", "served.example")}
    env.host_ca = env.authority("host", "host-ca", trust=False)
    env.host = web_certificate(env.host_ca)
    env.sequence = 1
    env.web = Endpoint(env.host)
    env.own = Endpoint(env.ca["own.example"].issue("/endpoint"))
    serve(env)
    env.first = f"{env.dir}/pki/own.json"
    write(env.first, spiffe_bundle([env.ca["own.example"]], 1))
    env.config = f"{env.dir}/bulkhead.yaml"
    configure(env)
    env.daemon_options = ["--config", env.config, "--federation-ca", readable(env.host_ca.cert)]


def ready(env):
    env.apply(POLICY)


def serve(env):
    """What the endpoints serve from now on: newer, with the authorities there are."""
    env.sequence += 1
    env.web.pages = {"/bundle": spiffe_bundle([env.ca["web.example"]], env.sequence, 120)}
    env.own.pages = {"/bundle": spiffe_bundle([env.ca["own.example"]], env.sequence, 60),
                     "/served": spiffe_bundle([env.ca["served.example"]], env.sequence)}


def configure(env, web=True, extra="", path="/bundle"):
    text = "federation:\n"
    if web:
        text += f"  - trust_domain: web.example\n    url: {env.web.url(path)}\n    profile: https_web\n"
    text += f"""\
  - trust_domain: own.example
    url: {env.own.url()}
    profile: https_spiffe
    endpoint_spiffe_id: spiffe://own.example/endpoint
    bundle: {env.first}
  - trust_domain: served.example
    url: {env.own.url("/served")}
    profile: https_spiffe
    endpoint_spiffe_id: spiffe://own.example/endpoint
    endpoint_trust_domain: own.example
"""
    write(env.config, text + extra)


def bundle(env, trust_domain):
    found = [b for b in env.ctl_json("bundles") if b["trust_domain"] == trust_domain]
    return found[0] if found else None


def wait_bundle(env, trust_domain, **wanted):
    """The bundle when it is as wanted."""
    def there():
        found = bundle(env, trust_domain)
        return found if found and all(found[k] == v for k, v in wanted.items()) else None
    try:
        return wait_for(there, f"the bundle of {trust_domain} with {wanted}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {bundle(env, trust_domain)}") from error


def wait_error(env, trust_domain, text):
    found = wait_for(lambda: (b := bundle(env, trust_domain)) and text in (b["error"] or "") and b,
                     f"\"{text}\" of {trust_domain}")
    return found


def poll(env):
    """The operator has all endpoints asked, and waits until the newest bundles are there."""
    env.ctl("reload", expect=0)
    for name in ("web.example", "own.example", "served.example"):
        wait_bundle(env, name, sequence=str(env.sequence), error=None)


def test_foreign_identities_are_verified_by_the_bundles_of_their_endpoints(env):
    poll(env)
    assert bundle(env, "web.example")["source"] == "https_web"
    assert bundle(env, "web.example")["origin"] == env.web.url()
    assert bundle(env, "own.example")["source"] == "https_spiffe"
    web = env.workload("web", env.ca["web.example"].issue("/web"))
    db = env.workload("db", env.ca["own.example"].issue("/db"))
    env.workload("third", env.ca["served.example"].issue("/third"))
    db.tcp_server("::,5432")
    assert web.tcp(DB) == "ok"
    # An authority of one trust domain says nothing of another.
    forged = env.ca["web.example"].issue("/db", subjectAltName="URI:spiffe://own.example/db")
    assert "untrusted" in str(env.workload("forger").attest(forged, expect=1))
    assert [r["role"] for r in env.status()["roles"] if r["role"] == "fetcher"]
    text = env.ctl("bundles", expect=0).out
    assert env.web.url() in text and "web.example" in text, text


def test_the_next_poll_is_when_the_bundle_hints_at(env):
    poll(env)
    found = bundle(env, "web.example")
    assert found["refresh_s"] == 120 and bundle(env, "served.example")["refresh_s"] == 300
    left = (datetime.datetime.fromisoformat(found["next_poll"].replace("Z", "+00:00"))
            - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    assert 100 < left <= 121, found
    asked = len(env.web.asked)
    older = wait_for(lambda: (b := bundle(env, "web.example"))["age_s"] > found["age_s"] and b, "the bundle to be a second older")
    assert older["age_s"] < 60, older
    assert len(env.web.asked) == asked, "it is not asked meanwhile"
    row = next(line for line in env.ctl("bundles", expect=0).out.splitlines() if line.startswith("web.example"))
    assert re.search(rf" {env.sequence} +[1-5]?[0-9] s ", row), row


def test_an_endpoint_that_serves_itself_may_change_its_keys(env):
    poll(env)
    old, new = env.ca["own.example"], env.authority("own.example", f"own-{env.sequence}", trust=False)
    kept = env.workload("kept", old.issue("/db"))
    env.sequence += 1
    env.own.pages["/bundle"] = spiffe_bundle([old, new], env.sequence)
    env.ctl("reload", expect=0)
    wait_bundle(env, "own.example", sequence=str(env.sequence))
    # From now on it proves itself by the new key alone, which the bundle in the configuration does not know.
    env.own.show(new.issue("/endpoint"))
    env.ca["own.example"] = new
    serve(env)
    poll(env)
    mark = env.audit.mark()
    assert len(bundle(env, "own.example")["authorities"]) == 1
    wait_for(lambda: not env.tag_of(kept), "the identity of the old authority to end")
    # The old key no longer opens the door.
    env.own.show(old.issue("/endpoint"))
    serve(env)
    env.ctl("reload", expect=0)
    error = wait_error(env, "own.example", "https_spiffe: the server is not spiffe://own.example/endpoint: ")
    assert error["sequence"] == str(env.sequence - 1)
    env.audit.wait(mark, event__action="bundle-refused")
    env.own.show(new.issue("/endpoint"))
    poll(env)


def test_an_older_bundle_is_refused_and_the_newer_one_stays(env):
    poll(env)
    env.own.pages["/bundle"] = spiffe_bundle([env.authority("own.example", f"attacker-{env.sequence}", trust=False)], 1)
    env.ctl("reload", expect=0)
    found = wait_error(env, "own.example", "bundle-older (rule 79)")
    assert found["sequence"] == str(env.sequence)
    env.workload("after", env.ca["own.example"].issue("/x"))
    env.own.pages["/bundle"] = "{"
    env.ctl("reload", expect=0)
    wait_error(env, "own.example", "bundle-malformed (rule 76)")
    serve(env)
    poll(env)


def test_without_network_the_last_good_bundle_stays_over_a_restart(env):
    poll(env)
    web = env.workload("stays", env.ca["web.example"].issue("/web"))
    pages, env.web.pages = env.web.pages, {}
    env.ctl("reload", expect=0)
    found = wait_error(env, "web.example", "status 404")
    assert found["sequence"] == str(env.sequence) and found["authorities"]
    env.stop()
    env.start()
    found = wait_bundle(env, "web.example", sequence=str(env.sequence))
    assert found["authorities"] and found["source"] == "https_web"
    assert env.tag_of(web)
    env.workload("restarted", env.ca["web.example"].issue("/web"))
    # What is kept is also the measure for what is older.
    env.web.pages = {"/bundle": spiffe_bundle([env.ca["web.example"]], 1)}
    env.ctl("reload", expect=0)
    wait_error(env, "web.example", "bundle-older (rule 79)")
    env.web.pages = pages
    poll(env)


def test_the_end_of_a_relationship_ends_its_identities(env):
    poll(env)
    web = env.workload("ends", env.ca["web.example"].issue("/web"))
    db = env.workload("enddb", env.ca["own.example"].issue("/db"))
    db.tcp_server("::,5432")
    stream = web.tcp_stream(DB, rate=50)
    mark = env.audit.mark()
    configure(env, web=False)
    asked = len(env.web.asked)
    env.ctl("reload", expect=0)
    assert not bundle(env, "web.example") and not env.tag_of(web)
    env.audit.wait(mark, event__action="identity-revoked")
    env.audit.wait(mark, event__action="bundle-removed")
    wait_for(stream.ended, "its connection to be cut")
    assert env.tag_of(db) and web.tcp(DB) != "ok"
    assert "no-bundle" in str(env.workload("late").attest(env.ca["web.example"].issue("/web"), expect=1))
    assert "web.example.bundle" not in os.listdir(f"{env.dir}/state/bundles"), "nothing of it was kept"
    configure(env)
    assert len(env.web.asked) == asked, "nobody asked it any more"
    poll(env)


def test_what_one_profile_brought_is_not_kept_for_another_over_a_restart(env):
    poll(env)
    kept = f"{env.dir}/state/bundles/web.example.bundle"
    assert os.path.exists(kept)
    web = env.workload("formerly", env.ca["web.example"].issue("/web"))
    db = env.workload("olddb", env.ca["own.example"].issue("/db"))
    db.tcp_server("::,5432")
    stream = web.tcp_stream(DB, rate=50)
    env.stop()
    # The endpoint still shows its host's certificate, so nothing comes in by the new profile.
    configure(env, web=False, extra=f"""\
  - trust_domain: web.example
    url: {env.web.url()}
    profile: https_spiffe
    endpoint_spiffe_id: spiffe://own.example/endpoint
    endpoint_trust_domain: own.example
""")
    mark = env.audit.mark()
    env.start()
    found = wait_error(env, "web.example", "https_spiffe: ")
    assert found["source"] == "https_spiffe" and not found["authorities"], found
    # Nor are the identities that it vouched for, as after a reload.
    wait_for(lambda: not env.tag_of(web), "the identity by the former profile to end")
    env.audit.wait(mark, event__action="identity-revoked", user__id="spiffe://web.example/web")
    wait_for(stream.ended, "its connection to be cut")
    assert env.tag_of(db)
    assert env.workload("former").attest(env.ca["web.example"].issue("/web"), expect=1)
    assert not os.path.exists(kept), "what the former profile brought is kept"
    assert bundle(env, "own.example")["authorities"], "the others' bundles are kept"
    configure(env)
    poll(env)


def test_without_its_bundle_directory_a_daemon_knows_what_ended_and_keeps_what_did_not(env):
    poll(env)
    filed = env.authority("filed.example")
    env.ctl("reload", expect=0)
    wait_bundle(env, "filed.example", source="file", error=None)
    goes, stays = env.workload("goes", env.ca["web.example"].issue("/web")), env.workload("filed", filed.issue("/filed"))
    directory, away = f"{env.dir}/bundles", f"{env.dir}/away"
    env.stop()
    configure(env, web=False)
    os.rename(directory, away)
    try:
        mark = env.audit.mark()
        env.start()
        wait_for(lambda: not env.tag_of(goes), "the identity of a relationship that has ended to end")
        env.audit.wait(mark, event__action="identity-revoked", user__id="spiffe://web.example/web")
        found = wait_bundle(env, "filed.example", source="file")
        assert found["authorities"] and env.tag_of(stays)
        env.workload("filed2", filed.issue("/filed"))
    finally:
        os.rename(away, directory)
    configure(env)
    poll(env)
    assert env.tag_of(stays)
    # Files that are really gone take their identities along.
    os.remove(f"{directory}/filed.example.pem")
    env.ctl("reload", expect=0)
    assert not bundle(env, "filed.example") and not env.tag_of(stays)


def test_an_answer_of_an_url_that_is_no_longer_configured_is_not_taken(env):
    poll(env)
    fetcher = env.role_pids()["fetcher"]

    def fetches():
        return read(f"/proc/{fetcher}/task/{fetcher}/children").split()

    wait_for(lambda: not fetches(), "nothing to be asked")
    held = env.web.release = threading.Event()
    try:
        asked = len(env.web.asked)
        env.ctl("reload", expect=0)
        wait_for(lambda: len(env.web.asked) > asked, "the former URL to be asked")
        env.web.release = None  # who asks from now on does not wait
        serve(env)
        env.web.pages = {"/new": env.web.pages["/bundle"],
                         "/bundle": spiffe_bundle([env.authority("web.example", "former", trust=False)], 1 << 40)}
        configure(env, path="/new")
        env.ctl("reload", expect=0)
        wait_bundle(env, "web.example", sequence=str(env.sequence), origin=env.web.url("/new"))
        assert fetches(), "the former URL has answered already"
    finally:
        held.set()
    wait_for(lambda: not fetches(), "the former URL to answer")
    # The enforcer hears of it before what is asked now: were it taken, this would be older.
    env.sequence += 1
    env.web.pages["/new"] = spiffe_bundle([env.ca["web.example"]], env.sequence, 120)
    env.ctl("reload", expect=0)
    wait_bundle(env, "web.example", sequence=str(env.sequence), error=None)
    configure(env)
    serve(env)
    poll(env)


def test_a_configuration_that_is_wrong_changes_nothing(env):
    poll(env)
    before = bundle(env, "web.example")
    configure(env, extra="  - trust_domain: bad.example\n    url: http://bad.example/\n    profile: https_web\n")
    line = read(env.config).splitlines().index("  - trust_domain: bad.example") + 1
    result = env.ctl("reload", expect=3)
    assert f"{env.config}:{line}:5: error: url \"http://bad.example/\" does not begin with https://" in result.err, result
    assert bundle(env, "web.example")["authorities"] == before["authorities"] and not bundle(env, "bad.example")
    configure(env)
    poll(env)


def test_a_bundle_in_the_directory_does_not_stand_beside_a_federation(env):
    poll(env)
    intruder = env.authority("web.example", f"intruder-{env.sequence}", trust=False)
    mark = env.audit.mark()
    write(f"{env.dir}/bundles/web.example.pem", intruder.bundle())
    env.ctl("reload", expect=0)
    alarm = env.audit.wait(mark, event__action="bundle-refused")
    assert "file web.example.pem offers a bundle, which comes from https_web" in str(alarm), alarm
    assert env.workload("intruder").attest(intruder.issue("/web"), expect=1)
    os.remove(f"{env.dir}/bundles/web.example.pem")
    serve(env)
    poll(env)


def test_a_fetcher_that_ends_comes_back(env):
    poll(env)
    pid = env.role_pids()["fetcher"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: env.role_pids().get("fetcher") not in (None, 0, pid), "another fetcher")
    serve(env)
    poll(env)


def test_an_endpoint_that_a_fetcher_was_asking_when_it_ended_is_asked_soon(env):
    """Not after the two minutes that its bundle hints at: it was not heard."""
    poll(env)
    pid = env.role_pids()["fetcher"]
    held = env.web.release = threading.Event()
    try:
        asked = len(env.web.asked)
        env.ctl("reload", expect=0)
        wait_for(lambda: len(env.web.asked) > asked, "the endpoint to be asked")
        env.web.release = None  # who asks from now on does not wait
        serve(env)
        os.kill(pid, signal.SIGKILL)
        wait_bundle(env, "web.example", sequence=str(env.sequence), error=None)
    finally:
        held.set()
    poll(env)


def test_an_endpoint_for_which_no_fetch_could_start_is_asked_soon(env):
    poll(env)
    pid = env.role_pids()["fetcher"]
    test_fetcher.leave_one_descriptor(pid)
    try:
        serve(env)
        env.ctl("reload", expect=0)
        for name in ("web.example", "own.example", "served.example"):
            wait_error(env, name, "the endpoint was not asked, and will be soon")
    finally:
        test_fetcher.limit_descriptors(pid, 256)
    for name in ("web.example", "own.example", "served.example"):
        wait_bundle(env, name, sequence=str(env.sequence), error=None)


def test_a_relationship_that_ends_while_no_daemon_runs_and_a_workload_api(env):
    poll(env)
    web = env.workload("away", env.ca["web.example"].issue("/web"))
    env.stop()
    configure(env, web=False)
    path = f"{env.dir}/agent.sock"
    env.daemon_options += ["--workload-api", f"unix://{path}"]
    env.start()
    wait_for(lambda: not env.tag_of(web), "the identity of a relationship that has ended to end")
    assert not bundle(env, "web.example")
    assert "web.example.bundle" not in os.listdir(f"{env.dir}/state/bundles")

    agents = {name: env.authority(name, f"agent-{name}", trust=False) for name in ("a.example", "b.example")}
    der = {name: der_of(ca.cert) for name, ca in agents.items()}
    with WorkloadApi(path) as api:
        api.bundles(a_example=der["a.example"], b_example=der["b.example"])
        found = wait_bundle(env, "a.example", source="workload_api", format="der")
        assert found["origin"] == f"unix://{path}"
        wait_bundle(env, "b.example", format="der")
        one = env.workload("one", agents["a.example"].issue("/one"))
        two = env.workload("two", agents["b.example"].issue("/two"))
        api.bundles(a_example=der["a.example"])
        wait_for(lambda: not env.tag_of(two), "the identity of a redacted trust domain to end")
        assert env.tag_of(one) and not bundle(env, "b.example")
    # Without the API the last state stays, also for a daemon that starts again.
    wait_error(env, "a.example", "cannot connect")
    env.stop()
    env.daemon_options = env.daemon_options[:-2]
    env.start(SPIFFE_ENDPOINT_SOCKET=f"unix://{path}")
    wait_bundle(env, "a.example", format="der")
    assert env.tag_of(one)
    env.workload("three", agents["a.example"].issue("/three"))
    with WorkloadApi(path) as api:
        api.bundles(a_example=der["a.example"])
        wait_bundle(env, "a.example", format="der", error=None)
        api.bundles(a_example=b"")
        wait_for(lambda: not env.tag_of(one), "an empty bundle to vouch for nobody")
        api.bundles(a_example=der["a.example"])
        wait_for(lambda: bundle(env, "a.example")["authorities"], "the authority to be back")
        four = env.workload("four", agents["a.example"].issue("/four"))
        api.tell(deny=True)
        wait_for(lambda: not env.tag_of(four), "a refusal to take all back")
        assert not bundle(env, "a.example")
        # What comes from elsewhere is not the API's to take or to give.
        assert bundle(env, "own.example")["authorities"]
        api.tell(bundles={"spiffe://own.example": base64.b64encode(der["a.example"]).decode()})
        wait_error(env, "own.example", "a trust domain has one source")


def limit_memory(pid, kib):
    subprocess.run(["prlimit", f"--pid={pid}", f"--as={kib * 1024 if kib else 'unlimited'}:"], user=65534, group=65534,
                   extra_groups=[], check=True)


def test_what_the_identity_role_could_not_take_is_asked_for_again(env):
    """The rest of the message comes after the role has said so, and is whole. The next test starts the daemon anew."""
    if harness.SANITIZED:
        raise harness.Skip("a sanitizer's allocator ends who is short of memory")
    path = f"{env.dir}/short.sock"
    der = der_of(env.authority("large.example", "large", trust=False).cert)
    body = message((b"spiffe://large.example", der * 3000), *((f"spiffe://d{i}.example".encode(), b"") for i in range(200)))
    env.stop()
    env.start(SPIFFE_ENDPOINT_SOCKET=f"unix://{path}")
    identity = env.role_pids()["identity"]
    size = int(re.search(r"VmSize:\s+(\d+) kB", read(f"/proc/{identity}/status"))[1])
    with open(env.authority("file.example", "file", trust=False).cert, encoding="ascii") as f:
        pem = f.read()
    limit_memory(identity, size + 256)
    with Hostile(path, body):
        try:
            write(f"{env.dir}/bundles/file.example.pem", pem * 3000)
            wait_error(env, "file.example", "Cannot allocate memory")
            wait_error(env, "large.example", "Cannot allocate memory")
            wait_bundle(env, "d199.example", error=None, format="der")
        finally:
            limit_memory(identity, None)
        found = wait_bundle(env, "large.example", error=None, format="der")
        assert len(found["authorities"]) == 1
        assert len(wait_bundle(env, "file.example", error=None, format="pem")["authorities"]) == 1, "nor does a file come again"
    assert env.role_pids()["identity"] == identity
    os.remove(f"{env.dir}/bundles/file.example.pem")


def test_a_message_that_could_not_be_taken_is_asked_for_again(env):
    """The API says it once. An identity role that hangs takes no more than 64 texts of one trust domain."""
    path = f"{env.dir}/busy.sock"
    first, second = (env.authority("busy.example", f"busy-{name}", trust=False) for name in ("first", "second"))
    both, last = der_of(first.cert) + der_of(second.cert), der_of(second.cert)
    env.stop()
    env.start(SPIFFE_ENDPOINT_SOCKET=f"unix://{path}")
    with WorkloadApi(path) as api:
        api.bundles(busy_example=der_of(first.cert))
        wait_bundle(env, "busy.example", source="workload_api", error=None)
        identity = env.role_pids()["identity"]
        os.kill(identity, signal.SIGSTOP)
        try:
            for i in range(66):
                told = api.told()
                api.bundles(busy_example=last if i == 65 else both)
                wait_for(lambda t=told: api.told() > t, "the message to be taken")
            wait_error(env, "busy.example", "could not be taken as a whole")
        finally:
            os.kill(identity, signal.SIGCONT)
        digest = hashlib.sha256(last).hexdigest()
        wait_for(lambda: [a["sha256"] for a in bundle(env, "busy.example")["authorities"]] == [digest],
                 "what the API says to be in force")
        wait_bundle(env, "busy.example", error=None)
        assert env.role_pids()["identity"] == identity
    env.stop()
    env.start()


def test_an_endpoint_is_asked_again_by_itself(env):
    """In the daemon of the tests a second of an interval takes 10 ms. It is the last test: it leaves that daemon behind."""
    configure(env)
    env.stop()
    env.program = harness.DAEMON_LAYOUT
    env.start()
    for _ in range(2):
        serve(env)
        for name in ("own.example", "web.example"):
            wait_bundle(env, name, sequence=str(env.sequence), error=None)
    # A failure makes it wait as long as an answer: 120 s are 1.2 s.
    env.web.pages = {}
    wait_error(env, "web.example", "status 404")
    asked = len(env.web.asked)
    wait_for(lambda: len(env.web.asked) > asked, "another try")
    serve(env)
    wait_bundle(env, "web.example", sequence=str(env.sequence), error=None)

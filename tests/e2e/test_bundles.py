# SPDX-License-Identifier: Apache-2.0
"""Trust bundles follow their directory: what is better comes into force by itself, what is not changes nothing, and an
authority that leaves takes along those whom it alone vouched for, with traffic running and over restarts."""
import base64
import hashlib
import json
import os
import signal
import ssl
import time

import common
from authority import openssl
from harness import PATIENCE, read, wait_for, write
from test_fetcher import limit_descriptors

TD = "rot.example"  # whose bundle is changed; db and all others are of common.TRUST_DOMAIN
POLICY = common.POLICY.replace("  web: [", f"  web: [spiffe://{TD}/web/*, ")
S = 1000000000


def setup(env):
    common.setup(env)
    env.old = env.authority(TD, "old", trust=False)
    env.new = env.authority(TD, "new", trust=False)
    env.number, env.sequence = 0, 100


def ready(env):
    common.ready(env, POLICY)
    env.server = env.db.tcp_server("127.0.3.1,5432", netns=env.home)


def entry(cert):
    """A certificate file as an entry of a SPIFFE bundle."""
    der = ssl.PEM_cert_to_DER_cert(read(cert))
    pub = base64.b64decode("".join(openssl("x509", "-in", cert, "-noout", "-pubkey").splitlines()[1:-1]))
    x, y = (base64.urlsafe_b64encode(pub[at:at + 32]).decode().rstrip("=") for at in (len(pub) - 64, len(pub) - 32))
    return {"kty": "EC", "use": "x509-svid", "crv": "P-256", "x": x, "y": y, "x5c": [base64.b64encode(der).decode()]}


def bundle_text(*certs, sequence=None, more=()):
    return json.dumps({"spiffe_sequence": sequence, "spiffe_refresh_hint": 60, "keys": [*map(entry, certs), *more]})


def put(env, text, name=f"{TD}.json"):
    """As a careful publisher does: nobody sees half of it. Returns when it was there."""
    write(f"{env.dir}/bundles/.new", text)
    os.rename(f"{env.dir}/bundles/.new", f"{env.dir}/bundles/{name}")
    return time.monotonic_ns()


def publish(env, *certs, **more):
    """The next bundle of the trust domain; returns when it was there."""
    env.sequence += 1
    return put(env, bundle_text(*certs, sequence=env.sequence, **more))


def bundle(env, trust_domain=TD):
    return next((b for b in env.ctl_json("bundles") if b["trust_domain"] == trust_domain), None)


def in_force(env, *certs):
    """Waits until these authorities are, and no others."""
    def keys():
        there = bundle(env)
        return there and sorted(a["sha256"] for a in there["authorities"])

    want = sorted(hashlib.sha256(ssl.PEM_cert_to_DER_cert(read(c))).hexdigest() for c in certs)
    wait_for(lambda: keys() == want, "the bundle to be in force")


def both(env):
    publish(env, env.old.cert, env.new.cert)
    in_force(env, env.old.cert, env.new.cert)
    wait_for(lambda: bundle(env)["sequence"] == str(env.sequence), "this very bundle to be in force")


def web(env, ca):
    env.number += 1
    svid = ca.issue(f"/web/{env.number}")
    workload = env.workload(f"rot{env.number}", svid)
    workload.svid = svid
    workload.stream = workload.tcp_stream("127.0.3.1,5432", rate=200, stream=env.number)
    flows(workload)
    return workload


def flows(workload):
    seen = workload.stream.stat()["received"]
    wait_for(lambda: workload.stream.stat()["received"] > seen + 10, "TCP to flow")


def check_cut(env, workload, since, mark, authority):
    event = workload.stream.wait_event("ended")
    assert event["t"] - since < S * PATIENCE, f"cut only after {(event['t'] - since) / S:.2f} s"
    assert not env.tag_of(workload)
    event = env.audit.wait(mark, event__action="identity-revoked", user__id=workload.svid.spiffe_id)
    assert f"CN={TD} {authority}" in event["event"]["reason"], event["event"]


def check_lives(env, workload):
    assert env.tag_of(workload) and not workload.stream.ended(), "an identity ended that another authority vouches for"
    flows(workload)


def test_a_spiffe_bundle_is_used_as_soon_as_it_is_there(env):
    mark = env.audit.mark()
    publish(env, env.new.cert)
    event = env.audit.wait(mark, event__action="bundle-loaded", zt__bundle__trust_domain=TD)
    assert f"sequence {env.sequence}" in event["event"]["reason"]
    web(env, env.new)
    seen = bundle(env)
    assert seen["source"] == "file" and seen["origin"] == f"{TD}.json" and seen["format"] == "spiffe", seen
    assert seen["sequence"] == str(env.sequence) and seen["refresh_s"] == 60 and seen["error"] is None, seen
    assert [a["subject"] for a in seen["authorities"]] == [f"CN={TD} new,O=e2e"], seen
    table = env.ctl("bundles", expect=0).out
    assert TD in table and seen["authorities"][0]["key_id"] in table and f"file {TD}.json" in table, table


def test_an_authority_that_leaves_takes_its_identities_along_within_a_second(env):
    both(env)
    goes, also_goes, stays = web(env, env.old), web(env, env.old), web(env, env.new)
    mark = env.audit.mark()
    since = publish(env, env.new.cert)
    check_cut(env, goes, since, mark, "old")
    check_cut(env, also_goes, since, mark, "old")
    check_lives(env, stays)
    goes.attest(goes.svid, expect=1)
    assert env.tag_of(env.db), "identities of other trust domains stay"


def test_an_authority_that_leaves_while_no_daemon_runs_takes_its_identities_along(env):
    both(env)
    goes, stays = web(env, env.old), web(env, env.new)
    env.kill_daemon()
    publish(env, env.new.cert)
    mark = env.audit.mark()
    env.start()
    check_cut(env, goes, time.monotonic_ns(), mark, "old")
    check_lives(env, stays)


def test_an_identity_role_that_ends_costs_nobody_an_identity_and_the_next_one_knows_all(env):
    both(env)
    goes, stays = web(env, env.old), web(env, env.new)
    pid = env.role_pids()["identity"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: env.role_pids()["identity"] not in (0, pid), "the identity role to be started again")
    in_force(env, env.old.cert, env.new.cert)
    check_lives(env, goes)
    mark = env.audit.mark()
    put(env, bundle_text(env.old.cert, sequence=1))
    env.audit.wait(mark, event__action="bundle-refused", zt__bundle__trust_domain=TD)
    check_lives(env, stays)
    check_cut(env, goes, publish(env, env.new.cert), mark, "old")
    check_lives(env, stays)


def test_a_bundle_that_the_identity_role_could_not_even_receive_is_not_lost(env):
    """For want of a descriptor. An authority that left it would count on, and nobody would say so."""
    both(env)
    goes, stays, pid, mark = web(env, env.old), web(env, env.new), env.role_pids()["identity"], env.audit.mark()
    limit_descriptors(pid, len(os.listdir(f"/proc/{pid}/fd")))
    publish(env, env.new.cert)
    event = env.audit.wait(mark, event__action="identity-revoked", user__id=goes.svid.spiffe_id)
    assert f"CN={TD} old" in event["event"]["reason"], event["event"]
    in_force(env, env.new.cert)
    check_lives(env, stays)
    assert env.role_pids()["identity"] not in (0, pid)


def test_a_bundle_file_that_could_not_be_read_by_a_fault_is_read_again(env):
    """Nothing changes in the directory meanwhile: the link has led nowhere."""
    os.symlink(f"{env.dir}/late.pem", f"{env.dir}/bundles/late.example.pem")
    try:
        wait_for(lambda: "cannot read" in ((there := bundle(env, "late.example")) and there["error"] or ""), "it to fail")
        write(f"{env.dir}/late.pem", env.authority("late.example", trust=False).bundle())
        wait_for(lambda: bundle(env, "late.example")["authorities"], "it to be read")
    finally:
        os.remove(f"{env.dir}/bundles/late.example.pem")


def test_an_authority_that_is_issued_anew_keeps_its_identities(env):
    """The same key and another certificate: the chains are verified again."""
    both(env)
    stays = web(env, env.old)
    again = env.old.reissue()
    publish(env, again)
    in_force(env, again)
    check_lives(env, stays)


def test_a_renewal_by_the_next_authority_outlives_the_last_one(env):
    """Also one that ends sooner: then the identity does."""
    both(env)
    stays = web(env, env.old)
    short = env.new.issue(stays.svid.spiffe_id.split(TD)[1], seconds=1800)
    stays.attest(short)
    long_deadline = env.tag_of(stays)["deadline"]
    publish(env, env.new.cert)
    in_force(env, env.new.cert)
    check_lives(env, stays)
    assert env.tag_of(stays)["deadline"] < long_deadline
    assert abs(env.tag_of(stays)["seconds_left"] - (short.not_after - time.time())) < 3


def is_quiet(workload):
    seen = workload.stream.stat()["received"]
    time.sleep(0.2)  # 40 messages
    return workload.stream.stat()["received"] == seen


def test_what_ends_sooner_by_the_next_authority_ends_on_time_without_a_daemon(env):
    """Also a connection that was judged when the end was far."""
    both(env)
    ends = web(env, env.old)
    short = env.new.issue(ends.svid.spiffe_id.split(TD)[1], seconds=8)
    ends.attest(short)
    publish(env, env.new.cert)
    wait_for(lambda: env.tag_of(ends)["seconds_left"] < 10, "the tag to end sooner")
    check_lives(env, ends)
    env.kill_daemon()
    wait_for(lambda: time.time() > short.not_after + 1, "the SVID to end", 12)
    wait_for(lambda: is_quiet(ends), "its connection to end", 2)
    env.start()


def test_a_bundle_that_changes_nothing_ends_and_tells_nothing(env):
    both(env)
    stays = web(env, env.old)
    mark = env.audit.mark()
    put(env, read(f"{env.dir}/bundles/{TD}.json"))
    env.ctl("reload", expect=0)
    publish(env, env.new.cert, env.old.cert)  # only the order and the sequence are others
    event = env.audit.wait(mark, event__action="bundle-loaded", zt__bundle__trust_domain=TD)
    assert f"sequence {env.sequence}" in event["event"]["reason"], "the same bundle was told again"
    check_lives(env, stays)


def refused(env, mark, rule):
    event = env.audit.wait(mark, event__action="bundle-refused", zt__bundle__trust_domain=TD)
    assert f"(rule {rule})" in event["event"]["reason"], event["event"]
    assert f"(rule {rule})" in bundle(env)["error"]
    status = next(b for b in env.status()["bundles"] if b["trust_domain"] == TD)
    assert f"(rule {rule})" in status["error"], status
    assert f"(rule {rule})" in env.ctl("bundles", expect=0).out


def test_an_older_bundle_is_refused(env):
    both(env)
    stays, mark = web(env, env.new), env.audit.mark()
    put(env, bundle_text(env.old.cert, sequence=env.sequence - 1))
    refused(env, mark, 79)
    mark = env.audit.mark()
    put(env, bundle_text(env.old.cert, sequence=env.sequence))
    refused(env, mark, 80)
    in_force(env, env.old.cert, env.new.cert)
    check_lives(env, stays)


def test_a_restart_forgets_neither_the_sequence_nor_who_vouches_for_whom(env):
    both(env)
    goes, stays = web(env, env.old), web(env, env.new)
    put(env, bundle_text(env.old.cert, sequence=env.sequence - 1))
    env.stop()
    mark = env.audit.mark()
    env.start()
    refused(env, mark, 79)
    in_force(env, env.old.cert, env.new.cert)
    check_lives(env, goes)
    check_lives(env, stays)
    mark = env.audit.mark()
    check_cut(env, goes, publish(env, env.new.cert), mark, "old")
    check_lives(env, stays)


def test_a_half_written_bundle_changes_nothing_also_over_a_restart(env):
    both(env)
    stays, mark = web(env, env.old), env.audit.mark()
    text = read(f"{env.dir}/bundles/{TD}.json")
    write(f"{env.dir}/bundles/{TD}.json", text[:len(text) // 2])
    refused(env, mark, 76)
    env.kill_daemon()
    env.start()
    in_force(env, env.old.cert, env.new.cert)
    check_lives(env, stays)
    web(env, env.new)
    mark = env.audit.mark()
    write(f"{env.dir}/bundles/{TD}.json", text)
    env.audit.wait(mark, event__action="bundle-loaded", zt__bundle__trust_domain=TD)
    assert bundle(env)["error"] is None


def test_what_is_no_bundle_is_told_by_what_it_is_and_whose_it_was_to_be(env):
    names, mark = [f"{form}.{TD}" for form in ("empty", "json", "pem", "directory")], env.audit.mark()
    paths = [f"{env.dir}/bundles/{name}.{'json' if name.startswith('pem') else 'pem'}" for name in names]
    monitor = env.spawn(env.ctl_argv("monitor", "--all", "--since-start"))
    try:
        os.mkdir(paths[3])
        for path, text in zip(paths, ("", bundle_text(env.new.cert), env.new.bundle())):
            write(path, text)
        for name, told in zip(names, ("it is empty", "but JSON, as of a SPIFFE bundle", "it is PEM, and a SPIFFE bundle is JSON",
                                      "Is a directory")):
            event = env.audit.wait(mark, event__action="bundle-refused", zt__bundle__trust_domain=name)
            assert told in event["event"]["reason"], event["event"]
            wait_for(lambda n=name: any(f" bundle-refused {n}: " in line for line in monitor.out), f"monitor to name {name}")
    finally:
        monitor.popen.terminate()
        monitor.wait()
        os.rmdir(paths[3])
        for path in paths[:3]:
            os.remove(path)
    wait_for(lambda: not bundle(env, names[0]), "them to be gone")


def test_a_file_that_no_trust_domain_has_is_told_until_it_is_gone(env):
    """In status and bundles, where an operator looks who wonders why nobody of it can attest; not only in the daemon's log."""
    names = {"Prod.example.pem": "\"Prod.example\" is no name of a trust domain (rule 7)",
             "a b.json": "\"a b\" is no name of a trust domain (rule 9)",
             "prod.example.crt": "neither TRUSTDOMAIN.pem nor TRUSTDOMAIN.json",
             "evil\x1b[31m\n.pem": "\"evil?[31m?\" is no name of a trust domain (rule 9)"}
    for name in names:
        write(f"{env.dir}/bundles/{name}", env.new.bundle())
    try:
        for command in ("bundles", "status"):
            def strays(command=command):
                told = env.ctl_json(command)
                return {b["origin"]: b["error"] for b in (told["bundles"] if command == "status" else told) if not b["trust_domain"]}
            wait_for(lambda: len(strays()) == len(names), "all to be told")
            text = env.ctl(command, expect=0).out
            for name, problem in names.items():
                shown = name.replace("\x1b", "?").replace("\n", "?")
                assert problem in strays()[shown], strays()
                assert f"{shown}: not used: " in text and problem in text, text
        log = env.log_tail(200)
        env.ctl("reload", expect=0)
        assert env.log_tail(200).count("Prod.example.pem") == log.count("Prod.example.pem") == 1, "told once"
    finally:
        for name in names:
            os.remove(f"{env.dir}/bundles/{name}")
    wait_for(lambda: all(b["trust_domain"] for b in env.ctl_json("bundles")), "nothing to be told any more")


def test_of_many_files_that_no_trust_domain_has_each_is_logged_once(env):
    """Also those that there is no room for in `status`, which says how many they are."""
    names = [f"{env.dir}/bundles/stray-{i:02}" for i in range(40)]
    for name in names:
        write(name, "")
    try:
        def strays():
            return [b for b in env.ctl_json("bundles") if not b["trust_domain"]]
        wait_for(lambda: len(strays()) == 33, "all to be told")
        assert strays()[-1]["origin"] == f"{env.dir}/bundles" and strays()[-1]["error"].startswith("8 more files"), strays()
        os.rename(names[0], f"{env.dir}/bundles/Upper.pem")
        names[0] = f"{env.dir}/bundles/Upper.pem"
        for _ in range(2):
            env.ctl("reload", expect=0)
        log = read(env.log_path)
        for name in ["stray-00", *map(os.path.basename, names)]:
            assert log.count(f"bundles: {name}: ") == 1, (name, log)
    finally:
        for name in names:
            os.remove(name)
    wait_for(lambda: not strays(), "nothing to be told any more")


def test_a_bundle_that_could_not_be_kept_is_told_until_it_is(env):
    """Without it, the next start would take an older one for new."""
    both(env)
    os.mkdir(f"{env.dir}/state/bundles/new~")  # in the place of the file that is written first
    try:
        publish(env, env.new.cert)
        wait_for(lambda: "cannot be kept for the next start" in (bundle(env)["error"] or ""), "it to be told")
        env.ctl("reload", expect=0)
        assert "cannot be kept for the next start" in (bundle(env)["error"] or ""), bundle(env)
    finally:
        os.rmdir(f"{env.dir}/state/bundles/new~")
    wait_for(lambda: bundle(env)["error"] is None, "it to be kept, though nothing in its directory changed")
    with open(f"{env.dir}/state/bundles/{TD}.bundle", "rb") as f:
        assert f'"spiffe_sequence": {env.sequence}'.encode() in f.read()


def test_an_empty_bundle_means_nobody(env):
    both(env)
    goes, mark = web(env, env.old), env.audit.mark()
    since = publish(env)
    check_cut(env, goes, since, mark, "old")
    goes.attest(goes.svid, expect=1)
    assert "no authority" in env.ctl("bundles", expect=0).out


def test_an_entry_that_cannot_be_used_is_dropped_and_told(env):
    mark = env.audit.mark()
    leaf = env.new.issue("/web/none")
    publish(env, env.new.cert, leaf.cert, more=[{"kty": "EC", "use": "jwt-svid", "kid": "k"}, {"kty": "EC", "x5c": []}])
    event = env.audit.wait(mark, event__action="bundle-loaded", zt__bundle__trust_domain=TD)
    assert "entry 1 dropped" in event["event"]["reason"] and "(rule 96)" in event["event"]["reason"], event["event"]
    told = [(e["index"], e["rule"], e["dropped"]) for e in bundle(env)["entries"]]
    assert told == [(1, 96, True), (3, 88, True)], told
    in_force(env, env.new.cert)


def test_links_that_change_all_at_once_are_followed(env):
    """As a mounted volume has it: files are links through one link, which is replaced."""
    def volume(name, text):
        os.mkdir(f"{env.dir}/{name}")
        write(f"{env.dir}/{name}/{TD}.json", text)
        os.symlink(f"../{name}", f"{env.dir}/bundles/..new")
        os.rename(f"{env.dir}/bundles/..new", f"{env.dir}/bundles/..data")
        return time.monotonic_ns()

    if bundle(env):  # of the tests before
        os.remove(f"{env.dir}/bundles/{TD}.json")
        wait_for(lambda: bundle(env) is None, "the bundle to be gone")
    volume("one", bundle_text(env.old.cert, env.new.cert, sequence=1))
    os.symlink(f"..data/{TD}.json", f"{env.dir}/bundles/{TD}.json")
    in_force(env, env.old.cert, env.new.cert)
    goes, stays, mark = web(env, env.old), web(env, env.new), env.audit.mark()
    check_cut(env, goes, volume("two", bundle_text(env.new.cert, sequence=2)), mark, "old")
    check_lives(env, stays)


def test_a_directory_that_is_replaced_is_watched_again(env):
    both(env)
    stays = web(env, env.new)
    os.rename(f"{env.dir}/bundles", f"{env.dir}/away")
    env.ctl("reload", expect=0)
    assert f"bundle directory {env.dir}/bundles: cannot read: No such file" in env.log_tail()
    assert f"{env.dir}/bundles: not used: cannot read: No such file" in env.ctl("status", expect=0).out
    check_lives(env, stays)
    os.rename(f"{env.dir}/away", f"{env.dir}/bundles")
    goes, mark = web(env, env.old), env.audit.mark()
    publish(env, env.new.cert)
    env.audit.wait(mark, event__action="identity-revoked", user__id=goes.svid.spiffe_id)
    check_lives(env, stays)


def test_a_bundle_in_two_files_is_none_of_them(env):
    both(env)
    stays, mark = web(env, env.old), env.audit.mark()
    put(env, env.new.bundle(), f"{TD}.pem")
    event = env.audit.wait(mark, event__action="bundle-refused", zt__bundle__trust_domain=TD)
    assert f"{TD}.pem and {TD}.json" in event["event"]["reason"], event["event"]
    check_lives(env, stays)
    in_force(env, env.old.cert, env.new.cert)
    mark = env.audit.mark()
    os.remove(f"{env.dir}/bundles/{TD}.json")  # the PEM file is left, without a sequence
    check_cut(env, stays, time.monotonic_ns(), mark, "old")
    in_force(env, env.new.cert)
    os.remove(f"{env.dir}/bundles/{TD}.pem")
    wait_for(lambda: bundle(env) is None, "the bundle to be gone")

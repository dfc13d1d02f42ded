# SPDX-License-Identifier: Apache-2.0
"""policyctl against a running daemon: what it answers, with which exit code, and what it leaves unchanged."""
import json
import os
import re

import control
import harness
from common import POLICY, POLICY_WITHOUT_WEB, TRUST_DOMAIN, line_of, ready as common_ready, setup, spiffe  # noqa: F401
from harness import wait_for

DB = "127.0.0.1,5432"
YES, NO, USAGE, UNREACHABLE = 0, 1, 2, 3


def ready(env):
    common_ready(env)
    env.server = env.db.tcp_server("::,5432", "::,6000")


def bad(env, text, *messages, line=None):
    """A policy that is refused, by policyctl and by the daemon itself: says where and why, and changes nothing."""
    before, mark = env.status()["policy"], env.audit.mark()
    path = env.write_policy(text, "bad.yaml")
    try:
        for command in ("apply", "check"):
            result = env.ctl(command, path, expect=NO)
            said = result.out + result.err
            lines = [int(n) for n in re.findall(r"bad\.yaml:(\d+):\d+: error: .+", said)]
            assert lines or not text, f"no position in {said!r}"
            assert not line or line in lines, f"line {line} expected: {said}"
            assert not line or re.search(r"^ *\^$", said, re.M), f"no caret: {said}"
            for message in messages:
                assert message in said, f"{message!r} is not in {said!r}"
    finally:
        os.remove(path)
    error, said = control.apply(env.run_dir, "bad.yaml", text)
    assert error == "org.bulkhead.Error.Invalid" and "bad.yaml" in said, (error, said)
    for message in messages:
        assert message in said, f"{message!r} is not in {said!r}"
    after = env.status()["policy"]
    assert (after["revision"], after["digest"]) == (before["revision"], before["digest"]), (before, after)
    env.audit.wait(mark, event__action="policy-refused", event__outcome="failure")


def test_a_bad_policy_changes_nothing(env):
    stream = env.web.tcp_stream(DB, rate=200)
    wait_for(lambda: stream.stat()["received"] > 10, "traffic")
    bad(env, POLICY.replace("action: allow", "action: alow", 1), "alow", line=line_of(POLICY, "action: allow"))
    before = stream.stat()["received"]
    wait_for(lambda: stream.stat()["received"] > before + 20, "traffic to go on")
    assert not stream.ended() and stream.stat()["out_of_order"] == 0
    assert env.web.tcp(DB) == "ok" and env.web.tcp("127.0.0.1,6000") == "EPERM"


def test_errors_of_each_kind_have_a_position(env):
    bad(env, POLICY.replace("from: web", "frm: web", 1), "frm", line=line_of(POLICY, "from: web"))
    bad(env, POLICY.replace("from: web", "from: wbe", 1), "wbe", line=line_of(POLICY, "from: web"))
    bad(env, POLICY.replace("tcp/5432-5433", "tcp/5433-5432"), line=line_of(POLICY, "tcp/5432"))
    bad(env, POLICY.replace("tcp/5432-5433", "tcp/70000"), line=line_of(POLICY, "tcp/5432"))
    bad(env, POLICY.replace("10.77.0.0/16", "10.77.0.0/33"), line=line_of(POLICY, "10.77"))
    bad(env, POLICY.replace("bulkhead: 1", "bulkhead: 9"), line=1)
    bad(env, POLICY.replace("from: probe", "from: []"), line=line_of(POLICY, "from: probe"))
    bad(env, POLICY.replace("name: web-pings", "name: web-to-db"), "web-to-db", line=line_of(POLICY, "name: web-pings"))
    bad(env, POLICY + "  - {name: [\n")
    bad(env, "")


def test_all_errors_are_shown_at_once(env):
    text = POLICY.replace("from: web", "from: wbe", 1).replace("from: probe", "from: prob")
    path = env.write_policy(text, "bad.yaml")
    try:
        result = env.ctl("apply", path, expect=NO)
        assert len(re.findall(r"bad\.yaml:\d+:\d+: error: ", result.out + result.err)) == 2, str(result)
    finally:
        os.remove(path)


# Two tiers: the guardrails look first. probe and web differ in what the guardrails say of them.
TIERS = POLICY.replace("networks:\n", "  either: {any: [web, probe]}\nnetworks:\n") \
    .replace("rules:\n", """\
tiers: [guardrails, app]
rules:
  - {name: probe-stops, tier: guardrails, action: deny, from: {all: [either, {not: web}]}, to: db, service: tcp/6001}
  - {name: go-on, tier: guardrails, priority: 7, action: pass, from: either, to: db}
  - {name: either-to-db, action: allow, from: either, to: db, service: tcp/6000-6001}
  - {name: not-so-early, priority: -1, action: deny, from: web, to: db, service: tcp/6000, mode: audit}
""", 1)


def test_tiers_sets_and_audit_mode_hold_in_the_kernel(env):
    env.db.tcp_server("::,6001")
    assert env.web.tcp("127.0.0.1,6000") == "EPERM"
    env.apply(TIERS)
    try:
        mark = env.audit.mark()
        assert env.web.tcp("127.0.0.1,6000") == "ok", "a deny in audit mode lets pass"
        env.audit.wait(mark, event__action="flow-would-deny", rule__name="not-so-early")
        assert env.web.tcp("127.0.0.1,6001") == "ok" and env.probe.tcp("127.0.0.1,6000") == "ok"
        assert env.probe.tcp("127.0.0.1,6001", timeout=300) != "ok"
    finally:
        env.apply(POLICY)


def test_the_whole_language_is_taken(env):
    env.apply(POLICY.replace("rules:\n", """tiers: [guardrails, app, baseline]
tests:
  - {from: web, to: db, service: tcp/5432, expect: allow, by: web-to-db}
rules:
""").replace("networks:\n", "  either: {any: [web, db]}\nnetworks:\n") + """
  - {name: not-probe, tier: guardrails, priority: 3, action: pass, from: either, to: db, mode: audit}
  - {name: later, tier: baseline, action: allow, from: {not: either}, to: db, until: 2099-01-01T00:00:00Z}
""")
    assert env.web.tcp(DB) == "ok"
    env.apply(POLICY)

def test_apply_makes_a_new_revision(env):
    before, mark = env.status()["policy"], env.audit.mark()
    path = env.write_policy(POLICY_WITHOUT_WEB)
    result = env.ctl_json("apply", path)
    try:
        assert result["revision"] == before["revision"] + 1, (before, result)
        status = env.status()["policy"]
        assert status["revision"] == result["revision"] and status["digest"] != before["digest"], status
        assert env.web.tcp(DB) == "EPERM"
        event = env.audit.wait(mark, event__action="policy-applied")
        assert event["zt"]["policy"]["revision"] == result["revision"], event
        assert event["zt"]["policy"]["previous_revision"] == before["revision"], event
        assert event["zt"]["policy"]["digest"] == status["digest"], event
    finally:
        env.apply(POLICY)
    assert env.web.tcp(DB) == "ok"


def test_a_policy_is_the_union_of_the_files_of_a_directory(env):
    directory = f"{env.dir}/union"
    os.mkdir(directory)
    head, rules = POLICY.split("rules:\n")
    harness.write(f"{directory}/10-names.yaml", head)
    harness.write(f"{directory}/20-rules.yaml", "bulkhead: 1\nrules:\n" + rules)
    harness.write(f"{directory}/README", "not a policy")
    try:
        env.ctl("apply", directory, expect=YES)
        mark = env.audit.mark()
        assert env.web.tcp(DB) == "ok" and env.loose.tcp(DB) == "EPERM"
        env.audit.wait(mark, rule__name="web-to-db", zt__rule__file=lambda f: f and f.endswith("20-rules.yaml"),
                       zt__rule__line=3)
        assert len(env.ctl_json("show")["files"]) == 2
    finally:
        env.apply(POLICY)


def test_show_prints_the_policy_in_force_and_earlier_ones(env):
    first = env.status()["policy"]["revision"]
    env.apply(POLICY_WITHOUT_WEB)
    try:
        assert "service: tcp/1" in env.ctl("show", expect=YES).out
        earlier = env.ctl_json("show", first)
        assert earlier["revision"] == first and "service: pg" in json.dumps(earlier), earlier
        env.ctl("show", 999999, expect=NO)
        env.ctl("show", "x", expect=USAGE)
    finally:
        env.apply(POLICY)


def test_diff_compares_with_the_policy_in_force_and_earlier_ones(env):
    before = env.status()["policy"]["revision"]
    path = env.write_policy(POLICY_WITHOUT_WEB, "next.yaml")
    try:
        said = env.ctl("diff", path, expect=NO).out
        assert "- deny" in said and "next.yaml" in said and f"@{before}:" in said, said
        assert env.ctl("diff", "@", f"@{before}", expect=YES).out == "no change: the policies are the same\n"
        env.apply(POLICY_WITHOUT_WEB)
        changes = env.ctl("--json", "diff", f"@{before}", "@", expect=NO).json()["changes"]
        assert {change["verdict"] for change in changes} == {"allow", "deny"}, changes
        env.ctl("diff", "@999999", "@", expect=NO)
        env.ctl("diff", "@x", "@", expect=USAGE)
    finally:
        os.remove(path)
        env.apply(POLICY)


def test_the_policy_in_force_survives_a_restart(env):
    before = env.status()["policy"]
    assert env.stop() == 0
    env.start()
    after = env.status()["policy"]
    assert (after["revision"], after["digest"]) == (before["revision"], before["digest"])
    assert "web-to-db" in env.ctl("show", expect=YES).out


def explain(env, who, to, service, *policy):
    result = env.ctl("--json", "explain", *policy, "--from", who, "--to", to, service)
    assert result.rc in (YES, NO), str(result)
    return result


def test_explain_says_what_the_kernel_does(env):
    env.db.udp_server("::,5432", "::,6000")
    env.web.tcp_server("::,5532")
    path = env.write_policy(POLICY)
    tested = 0
    for who in (env.web, env.db, env.probe, env.loose):
        name = spiffe(who.name) if who is not env.loose else "unidentified"
        for target, ports in ((env.db, (5432, 6000)), (env.web, (5532,))):
            for port in ports:
                said = [explain(env, f"{name}@127.0.0.1", f"{spiffe(target.name)}@127.0.0.1", f"tcp/{port}", *policy).rc
                        for policy in ((), ("--policy", path))]
                found = who.tcp(f"127.0.0.1,{port}", timeout=300) == "ok"
                assert said == [YES if found else NO] * 2, f"{who.name} to {target.name} {port}: {said}, found {found}"
                tested += found
    assert tested == 1


def test_explain_names_rule_and_position(env):
    result = explain(env, spiffe("web"), spiffe("db"), "tcp/5432")
    assert result.rc == YES
    said = json.dumps(result.json())
    assert "web-to-db" in said and "policy.yaml" in said, said
    assert str(line_of(POLICY, "name: web-to-db")) in said, said
    text = env.ctl("explain", "--from", spiffe("db"), "--to", spiffe("web"), "tcp/5432", expect=NO).out
    assert "default" in text, text


def test_explain_takes_a_batch(env):
    path = env.write_policy(POLICY)
    lines = [(spiffe("web"), spiffe("db"), "tcp/5432"), (spiffe("db"), spiffe("web"), "udp/5432"),
             (spiffe("probe"), spiffe("db"), "tcp/5432"), ("192.0.2.1", spiffe("db"), "tcp/7000")]
    result = env.ctl("explain", "--policy", path, "--batch", "-",
                     stdin="".join("\t".join(line) + "\n" for line in lines))
    got = [line.split("\t") for line in result.out.splitlines()]
    assert [g[0] for g in got] == ["allow", "deny", "deny", "allow"], str(result)
    assert got[0][1:] == ["web-to-db", "web-to-db"] and got[2][1:] == ["probe-sends", "default"], got


def test_status_tells_health(env):
    status = env.ctl_json("status")
    assert status["enforcing"] is True and status["subtree"] == env.subtree and status["instance"] == env.instance
    assert status["programs"] and all(p["attached"] for p in status["programs"]), status["programs"]
    assert status["policy"]["rules"] == POLICY.count("- name:"), status["policy"]
    assert status["identities"]["tags"] >= 3 and status["identities"]["nearest_deadline"], status["identities"]
    assert [b["trust_domain"] for b in status["bundles"]] == [TRUST_DOMAIN] and status["bundles"][0]["authorities"] == 1
    assert env.ctl("status", expect=YES).out.startswith("ok"), "the first word"


def test_identities_lists_tags_with_deadlines(env):
    fresh = env.workload("fresh", env.ca.issue("/fresh"))
    found = {t["spiffe_id"]: t for t in env.tags() if "spiffe_id" in t}
    for workload in (env.web, env.db, env.probe, fresh):
        tag = found[spiffe(workload.name)]
        assert tag["cgroup_id"] == workload.cgroup_id and 0 < tag["seconds_left"] <= 3600, tag
    assert tag["serial"] and tag["pid"], tag
    assert spiffe("web") in env.ctl("identities", expect=YES).out


def test_without_a_daemon_the_exit_code_is_3(env):
    for args in (("status",), ("identities",), ("show",), ("apply", env.write_policy(POLICY)),
                 ("revoke", spiffe("web"))):
        result = env.ctl(*args, run_dir=f"{env.dir}/nowhere", expect=UNREACHABLE)
        assert result.err, "says why"


def test_wrong_usage_has_exit_code_2(env):
    for args in ((), ("nonsense",), ("apply",), ("explain",), ("status", "x"), ("attest",), ("run",), ("revoke",),
                 ("svid",)):
        env.ctl(*args, expect=USAGE)


def test_each_command_has_help(env):
    for command in ("check", "test", "prove", "explain", "diff", "lint", "fmt", "graph", "schema", "import", "learn", "apply",
                    "confirm", "rollback", "history", "show", "status", "attest", "run", "svid", "identities", "revoke",
                    "reload", "monitor", "why-denied"):
        result = env.ctl(command, "--help", expect=YES)
        assert "usage" in result.out.lower() and command in result.out, str(result)
    assert "apply" in env.ctl("--help", expect=YES).out


def test_check_accepts_a_good_policy(env):
    env.ctl("check", env.write_policy(POLICY), expect=YES)
    env.ctl("check", f"{env.dir}/policy", expect=YES)
    assert env.ctl("check", f"{env.dir}/no-such-file").rc in (NO, USAGE)


def test_why_denied_tells_who_what_and_which_rule(env):
    mark = env.audit.mark()
    assert env.probe.tcp(DB, timeout=300) == "ETIMEDOUT"
    env.audit.wait(mark, event__action="flow-denied", zt__source__spiffe_id=spiffe("probe"))
    for args in (("why-denied", "--last", "1"), ("--json", "why-denied", "--last", "1")):
        said = env.ctl(*args, expect=YES).out
        for part in (spiffe("probe"), spiffe("db"), "5432", "default"):
            assert part in said, f"{part} is not in {said}"


def test_monitor_shows_verdicts_as_they_happen(env):
    monitor = env.spawn(env.ctl_argv("--json", "monitor"))
    # What happens before it reads the log is not its business: try until one is seen.
    wait_for(lambda: env.web.tcp(DB) == "ok" and any("web-to-db" in line for line in monitor.out), "a verdict", 10)
    monitor.popen.terminate()
    monitor.wait()


def test_svid_verify_needs_no_daemon(env):
    foreign = env.authority(TRUST_DOMAIN, name="foreign", trust=False)
    args = ("svid", "verify", "--bundle", env.ca.cert, "--trust-domain", TRUST_DOMAIN)
    good = env.ctl(*args, env.svid["web"].cert, run_dir="/nowhere", expect=YES)
    assert good.out.startswith(f"ok {spiffe('web')} "), str(good)
    result = env.ctl(*args, foreign.issue("/web").cert, run_dir="/nowhere", expect=NO)
    assert "untrusted-issuer" in result.out + result.err, str(result)
    result = env.ctl(*args, env.ca.issue("").cert, run_dir="/nowhere", expect=NO)
    assert "leaf-no-path" in result.out + result.err, str(result)


def test_reload_takes_a_new_bundle(env):
    workload, mark = env.workload("new"), env.audit.mark()
    new = env.authority("new.example")
    env.ctl("reload", expect=YES)
    env.audit.wait(mark, event__action="bundle-loaded", zt__bundle__trust_domain="new.example")
    workload.attest(new.issue("/x"))
    os.remove(f"{env.dir}/bundles/new.example.pem")
    env.ctl("reload", expect=YES)
    env.workload("new2").attest(new.issue("/y"), expect=1)


def test_without_any_policy_all_is_denied(env):  # pylint: disable=unused-argument
    with harness.Environment() as fresh:
        assert fresh.status()["policy"]["revision"] == 0
        server, outside = fresh.workload("a").tcp_server("::,5432"), fresh.outside().tcp_server("::,5433")
        assert fresh.workload("b").tcp("127.0.0.1,5432", timeout=300) != "ok"
        assert fresh.outside().tcp("127.0.0.1,5432", timeout=300) != "ok"
        assert fresh.workload("b").tcp("127.0.0.1,5433", timeout=300) != "ok"
        assert fresh.outside().tcp("127.0.0.1,5433") == "ok", "outside the managed subtree nothing changes"
        assert server.stat()["accepted"] == 0 and outside.stat()["accepted"] == 1

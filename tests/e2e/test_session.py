# SPDX-License-Identifier: Apache-2.0
"""What a policy would cut is said before it does, and no operator cuts their own session unasked."""
import json
import os
import subprocess
import sys

from common import POLICY, POLICY_WITHOUT_WEB, setup  # noqa: F401
from harness import wait_for
from trials import (DB, NO, POLICY_AGAINST_WEB, TRIAL, YES, fresh, policy_of, ready,  # noqa: F401
                    web_reaches)


# ---- dry run ----

def test_a_dry_run_changes_nothing_and_says_what_would(env):
    before = fresh(env)
    stream = env.web.tcp_stream(DB, rate=100)
    wait_for(lambda: stream.stat()["received"] > 10, "traffic")
    mark = env.audit.mark()
    path = env.write_policy(POLICY_AGAINST_WEB)
    result = env.ctl("--json", "apply", path, "--dry-run", expect=YES).json()
    assert result["would_cut"] >= 1 and result["would_cut_session"] is False, result
    assert result["changes"]["rules"]["added"] == ["no-web"], result
    assert "no-web" in json.dumps(result["diff"]) and "web-to-db" in json.dumps(result["diff"]), result["diff"]
    text = env.ctl("apply", "--dry-run", path, expect=YES).out
    assert "+no-web" in text and "nothing was changed" in text, text
    same = env.ctl("--json", "apply", env.write_policy(POLICY), "--dry-run", expect=YES).json()
    assert same["would_cut"] == 0, same
    bad = env.ctl("apply", env.write_policy(POLICY.replace("from: web", "from: wbe")), "--dry-run", expect=NO)
    assert "wbe" in bad.err, str(bad)
    after = policy_of(env)
    assert (after["revision"], after["digest"]) == (before["revision"], before["digest"])
    seen = stream.stat()["received"]
    wait_for(lambda: stream.stat()["received"] > seen + 10, "traffic to go on")
    assert not env.audit.find(mark, event__action="policy-applied") and not stream.ended()


def test_what_is_foretold_to_be_cut_is_what_is_cut(env):
    fresh(env)
    streams = [env.web.tcp_stream(DB, rate=100, stream=i) for i in range(5)]
    wait_for(lambda: all(s.stat()["received"] > 5 for s in streams), "traffic")
    path = env.write_policy(POLICY_AGAINST_WEB)
    foretold = env.ctl("--json", "apply", path, "--dry-run", expect=YES).json()["would_cut"]
    cut = env.ctl_json("apply", path)["sockets_cut"]
    # Both ends of each are here; the destruction of one may close the other before its turn comes.
    assert foretold == 10 and 5 <= cut <= 10, (foretold, cut)


# ---- the operator's own session ----

class Session:
    """web plays the operator's end, db plays sshd, which runs commands as its children; or who is named."""

    def __init__(self, env, server=None, client=None, address="127.0.0.1"):
        server, client = server or env.db, client or env.web
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "session.py")
        self.env = env
        self.server = server.spawn([sys.executable, script, "server", address, "5433"])
        self.server.wait_event("ready")
        self.client = client.spawn([sys.executable, script, "client", address, "5433"])
        self.client.wait_event("connected")
        self.hint = self.server.wait_event("accepted")["hint"]

    def ctl(self, *args, answer=None, **settings):
        since = len(self.server.events)
        self.server.command(json.dumps({"argv": self.env.ctl_argv(*args), "answer": answer, "env": settings}))
        return self.server.wait_event("ran", since=since, seconds=20)

    def lives(self):
        since = len(self.server.events)
        self.server.command("ping")
        return self.server.wait_event("pong", since=since, seconds=20)["ok"]


def test_an_apply_that_would_cut_its_own_session_is_refused(env):
    before, session, mark = fresh(env), Session(env), env.audit.mark()
    for text, by in ((POLICY_WITHOUT_WEB, "no rule allows it"), (POLICY_AGAINST_WEB, 'rule "no-web"')):
        path = env.write_policy(text)
        result = session.ctl("apply", path)
        assert result["rc"] == NO, result
        for part in ("you came through", by, "127.0.0.1:5433", "--yes", "--confirm 60s"):
            assert part in result["err"], f"{part!r} is not in {result['err']!r}"
        env.audit.wait(mark, event__action="policy-refused", event__reason=lambda r: by in r)
        dry = session.ctl("apply", path, "--dry-run")
        assert dry["rc"] == YES and "CAUTION" in dry["out"] and by in dry["out"], dry
    assert session.lives()
    after = policy_of(env)
    assert (after["revision"], after["digest"]) == (before["revision"], before["digest"])
    assert session.ctl("apply", env.write_policy(POLICY.replace("tcp/7000", "tcp/7001")))["rc"] == YES
    assert session.lives(), "another change does not concern it"


def test_an_apply_with_yes_cuts_its_own_session(env):
    fresh(env)
    session = Session(env)
    result = session.ctl("apply", env.write_policy(POLICY_WITHOUT_WEB), "--yes", "--confirm", f"{TRIAL}s")
    assert result["rc"] == YES, result
    assert session.client.wait_event("ended")["errno"] != "EOF"
    assert not session.lives()
    wait_for(lambda: policy_of(env)["waiting"] is None, "the way back", TRIAL + 5)
    web_reaches(env, True)


def test_an_operator_at_a_terminal_is_asked(env):
    before, session = fresh(env), Session(env)
    path = env.write_policy(POLICY_WITHOUT_WEB)
    for answer in ("n", "", "q"):
        result = session.ctl("apply", path, answer=answer)
        assert result["rc"] == NO and "Apply all the same? [y/N]" in result["err"], result
        assert "nothing was changed" in result["err"], result
    assert session.lives() and policy_of(env)["revision"] == before["revision"]
    result = session.ctl("apply", path, answer="y")
    assert result["rc"] == YES and "in force" in result["out"], result
    assert not session.lives()


def test_a_rollback_that_would_cut_its_own_session_is_refused(env):
    env.apply(POLICY_WITHOUT_WEB)
    fresh(env)
    session = Session(env)
    result = session.ctl("rollback")
    assert result["rc"] == NO and "you came through" in result["err"], result
    assert session.lives()
    assert session.ctl("rollback", "--yes")["rc"] == YES
    assert not session.lives()


def test_a_session_is_known_by_what_its_client_says_too(env):
    """As in tmux, whose server is nobody's child."""
    before, session = fresh(env), Session(env)
    path = env.write_policy(POLICY_WITHOUT_WEB)
    os.environ["SSH_CONNECTION"] = session.hint
    try:
        result = env.ctl("apply", path, expect=NO)
        assert "you came through" in result.err, str(result)
        for nonsense in ("", "x", "1.2.3.4 5 6.7.8.9 99999999999", "::1 22 ::1", "127.0.0.1 1 127.0.0.1 2"):
            os.environ["SSH_CONNECTION"] = nonsense
            env.ctl("apply", env.write_policy(POLICY), expect=YES)
    finally:
        del os.environ["SSH_CONNECTION"]
    assert session.lives() and policy_of(env)["digest"] == before["digest"]


def test_a_session_is_known_by_what_a_parent_says(env):
    """As with sudo in tmux: sudo takes SSH_CONNECTION away, the shell before it has it."""
    fresh(env)
    session = Session(env)
    command = " ".join(env.ctl_argv("apply", env.write_policy(POLICY_WITHOUT_WEB)))
    for hint, rc in ((session.hint, NO), ("", YES)):
        done = subprocess.run(["env", "SSH_CONNECTION=" + hint, "sh", "-c",
                               f"env -u SSH_CONNECTION {command}; exit $?"],
                              capture_output=True, text=True, check=False)
        assert done.returncode == rc, (hint, done)
        assert ("you came through" in done.stderr) == (rc == NO), done


def test_a_session_over_a_link_local_address_is_known(env):
    """sshd names the link with such an address."""
    fresh(env)
    session = Session(env, address="::1")
    os.environ["SSH_CONNECTION"] = session.hint.replace("::1", "::1%lo")
    try:
        result = env.ctl("apply", env.write_policy(POLICY_WITHOUT_WEB), expect=NO)
    finally:
        del os.environ["SSH_CONNECTION"]
    assert "you came through" in result.err, str(result)
    assert session.lives()


def test_a_session_over_ipv6_is_known(env):
    fresh(env)
    session = Session(env, address="::1")
    result = session.ctl("apply", env.write_policy(POLICY_WITHOUT_WEB))
    assert result["rc"] == NO and "to [::1]:5433" in result["err"], result
    assert session.lives()


def test_a_session_outside_the_managed_subtree_is_never_cut(env):
    fresh(env)
    session = Session(env, server=env.nobody, client=env.nobody)
    result = session.ctl("apply", env.write_policy("bulkhead: 1\n"))
    assert result["rc"] == YES, result
    assert session.lives()


def test_a_session_is_cut_at_its_other_end_too(env):
    """sshd is not managed, but the operator's end is, on the same host."""
    to_all = POLICY + "  - {name: web-everywhere, action: allow, from: web, to: any, direction: egress}\n"
    fresh(env)
    env.apply(to_all)
    session = Session(env, server=env.nobody)
    result = session.ctl("apply", env.write_policy(POLICY))
    assert result["rc"] == NO and "denied on the way out, at /web," in result["err"], result
    assert session.lives()
    assert session.ctl("apply", env.write_policy(POLICY), "--yes")["rc"] == YES
    assert not session.lives()


def test_the_identities_that_a_policy_brings_are_foreseen(env):
    """sshd's identity is given by the policy itself: with another policy it is another one, or none."""
    web_out = "  - {name: web-out, action: allow, from: web, to: any, direction: egress}\n"
    local = POLICY.replace("networks:\n", "  %s: {cgroup: /shell}\nnetworks:\n") + \
        "  - {name: log-in, action: allow, from: any, to: %s, service: tcp/5433}\n" + web_out
    before, shell = fresh(env), env.workload("shell")
    env.apply(local % ("shell", "shell"))
    session = Session(env, server=shell)
    result = session.ctl("apply", env.write_policy(local % ("other", "db")))
    assert result["rc"] == NO and "no rule allows it" in result["err"], result
    result = session.ctl("apply", env.write_policy(POLICY + web_out))
    assert result["rc"] == NO and "denied on the way in, at /shell" in result["err"], result
    assert session.lives()
    # Under another name, which has no number yet, it is allowed all the same.
    renamed = session.ctl("apply", env.write_policy(local % ("sshd", "sshd")))
    assert renamed["rc"] == YES, renamed
    assert session.lives()
    assert session.ctl("rollback", before["revision"])["rc"] == NO
    assert session.lives()


def test_what_is_foreseen_is_foreseen_by_the_calendar(env):
    fresh(env)
    session = Session(env)
    for year, cut in ((2020, True), (2099, False)):
        text = POLICY.replace("    service: pg\n", f"    service: pg\n    until: {year}-01-01T00:00:00Z\n", 1)
        result = session.ctl("--json", "apply", "--dry-run", env.write_policy(text))
        assert result["rc"] == YES and json.loads(result["out"])["would_cut_session"] == cut, (year, result)
    assert session.lives()


def test_history_tells_where_the_operator_came_from(env):
    fresh(env)
    session = Session(env)
    assert session.ctl("apply", env.write_policy(POLICY))["rc"] == YES
    item = env.ctl_json("history")[0]
    assert item["from"] == ":".join(session.hint.split()[:2]), (item, session.hint)
    assert item["via"].startswith("policyctl < python3"), item

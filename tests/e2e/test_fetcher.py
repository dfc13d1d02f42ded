# SPDX-License-Identifier: Apache-2.0
"""What the fetcher role accepts from a bundle endpoint, and why it refuses the rest. The role runs alone: the test plays the
enforcer at its socket, and real HTTPS servers play the endpoints."""
import array
import os
import select
import signal
import socket
import ssl
import struct
import subprocess
import threading

import harness
import inject
from endpoint import Endpoint, readable, spiffe_bundle, web_certificate

FETCH, FETCHED, READY, PING = 56, 64, 48, 49
PEM, JWKS = 1, 2
ID = "spiffe://foreign.example/endpoint"


class Fetcher:
    """The role, and the enforcer's end of its socket."""

    def __init__(self, **environment):
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(60)
        self.requests = 0
        self.process = subprocess.Popen([harness.DAEMON, "--role", "fetcher"], pass_fds=(3,), env={**os.environ, **environment},
                                        preexec_fn=lambda: os.dup2(theirs.fileno(), 3))
        theirs.close()
        assert self.receive()[0] == READY

    def receive(self, binary=False):
        """Type, packet, what was beside it (None: nothing)."""
        packet, control, _, _ = self.sock.recvmsg(16384, socket.CMSG_SPACE(4))
        text = None
        for _, _, data in control:
            fd = array.array("i", data)[0]
            with os.fdopen(fd, "rb") as f:
                text = f.read() if binary else f.read().decode(errors="replace")
        return struct.unpack_from("<I", packet)[0] if packet else 0, packet, text

    def send(self, url, ca="", spiffe_id="", bundle=None, form=JWKS):
        self.requests += 1
        packet = struct.pack("<IIQII1024s1024s2049s7x", FETCH, 4128, self.requests, form, 0, url.encode(), ca.encode(),
                             spiffe_id.encode())
        beside = []
        if bundle is not None:
            fd = os.memfd_create("bundle")
            os.write(fd, bundle.encode())
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self.sock.sendmsg([packet], beside)
        if bundle is not None:
            os.close(fd)
        return self.requests

    def answer(self):
        """Request, body (None: it failed), why."""
        kind, packet, text = self.receive()
        assert kind == FETCHED, kind
        request, why, self.interrupted, _ = struct.unpack("<Q400sII", packet[8:])
        return request, text, why.split(b"\0")[0].decode()

    def fetch(self, *args, **kwargs):
        request = self.send(*args, **kwargs)
        answered, text, why = self.answer()
        assert answered == request
        return text, why

    def refused(self, *args, **kwargs):
        text, why = self.fetch(*args, **kwargs)
        assert text is None, "a bundle came"
        assert not self.interrupted, "it is the endpoint's answer"
        return why

    def close(self):
        self.sock.close()
        assert self.process.wait(20) == 0


def ready(env):
    env.web_ca = env.authority("web.example", trust=False)
    env.ca_file = readable(env.web_ca.cert)
    env.host = web_certificate(env.web_ca)
    env.foreign = env.authority("foreign.example", trust=False)
    env.bundle = spiffe_bundle([env.foreign], 7)
    env.fetcher = Fetcher()


def https_spiffe(env, endpoint, **kwargs):
    return {"url": endpoint.url(), "spiffe_id": ID, "bundle": env.bundle, **kwargs}


def test_a_bundle_comes_by_https_web(env):
    with Endpoint(env.host, {"/bundle": env.bundle}) as endpoint:
        for host in ("localhost", "127.0.0.1"):
            assert env.fetcher.fetch(endpoint.url(host=host), env.ca_file) == (env.bundle, "")
        assert not any("Authorization" in h or "Cookie" in h for h in endpoint.headers), endpoint.headers


def test_an_endpoint_learns_nothing_of_who_asks(env):
    """Neither a certificate, though it asks for one, nor a header that names anybody; and no proxy of the environment is used."""
    with Endpoint(env.host, {"/bundle": env.bundle}) as endpoint, socket.socket() as proxy:
        endpoint.context.verify_mode = ssl.CERT_OPTIONAL
        endpoint.context.load_verify_locations(env.web_ca.cert)
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()
        there = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        fetcher = Fetcher(HTTPS_PROXY=there, https_proxy=there, ALL_PROXY=there)
        try:
            assert fetcher.fetch(endpoint.url(), env.ca_file) == (env.bundle, "")
        finally:
            fetcher.close()
        assert endpoint.shown == [None], "it showed a certificate"
        headers = endpoint.headers[0]
        assert set(headers) <= {"Host", "User-Agent", "Accept"} and headers["User-Agent"].startswith("bulkhead/"), headers
        proxy.settimeout(0)
        assert not select.select([proxy], [], [], 0)[0], "the proxy was asked"


def test_https_web_refuses_another_host_and_an_unknown_authority(env):
    with Endpoint(web_certificate(env.web_ca, "DNS:other.example"), {"/bundle": env.bundle}) as endpoint:
        why = env.fetcher.refused(endpoint.url(), env.ca_file)
        assert why.startswith("https_web: ") and "localhost" in why, why
        endpoint.show(env.host)
        why = env.fetcher.refused(endpoint.url(), "")
        assert why.startswith("https_web: ") and "issuer" in why, why
        endpoint.show(web_certificate(env.web_ca, seconds=-5, start=-600))
        why = env.fetcher.refused(endpoint.url(), env.ca_file)
        assert "expired" in why, why
        # An X.509-SVID names no host.
        endpoint.show(env.web_ca.issue("/server"))
        env.fetcher.refused(endpoint.url(), env.ca_file)
        assert endpoint.asked == [], "nothing was asked of a server that is not known"


def test_a_bundle_comes_by_https_spiffe(env):
    with Endpoint(env.foreign.issue("/endpoint"), {"/bundle": env.bundle}) as endpoint:
        assert env.fetcher.fetch(**https_spiffe(env, endpoint)) == (env.bundle, "")
        pem = env.foreign.bundle()
        assert env.fetcher.fetch(**https_spiffe(env, endpoint, bundle=pem, form=PEM)) == (env.bundle, "")
        # The name in the URL means nothing.
        assert env.fetcher.fetch(**https_spiffe(env, endpoint, url=endpoint.url(host="127.0.0.1"))) == (env.bundle, "")
        between = env.authority("foreign.example", "between", parent=env.foreign)
        endpoint.show(between.issue("/endpoint"))
        assert env.fetcher.fetch(**https_spiffe(env, endpoint)) == (env.bundle, "")


def test_https_spiffe_refuses_whoever_is_not_exactly_that_id(env):
    impostor = env.authority("foreign.example", "impostor", trust=False)
    shown = [
        (env.foreign.issue("/endpoint/other"), "it proved to be spiffe://foreign.example/endpoint/other"),
        (env.foreign.issue("/endpoint", seconds=-5, start=-600), "validity (rule 62)"),
        (impostor.issue("/endpoint"), "(rule "),
        (env.web_ca.issue("/endpoint"), "no-bundle (rule 75)"),
        (env.host, "no-uri (rule 26)"),
        (env.foreign.issue("/endpoint", keyUsage="critical,digitalSignature,keyCertSign"), "(rule 32)"),
    ]
    with Endpoint(env.host, {"/bundle": env.bundle}) as endpoint:
        for svid, reason in shown:
            endpoint.show(svid)
            why = env.fetcher.refused(**https_spiffe(env, endpoint))
            assert why.startswith(f"https_spiffe: the server is not {ID}: ") and reason in why, why
        assert endpoint.asked == []


def test_https_spiffe_needs_a_bundle_to_begin_with(env):
    with Endpoint(env.foreign.issue("/endpoint"), {"/bundle": env.bundle}) as endpoint:
        why = env.fetcher.refused(**https_spiffe(env, endpoint, bundle=None))
        assert "no bundle of trust domain foreign.example" in why, why
        why = env.fetcher.refused(**https_spiffe(env, endpoint, bundle='{"keys": []}'))
        assert "(rule 21)" in why, why
        assert "cannot be read" in env.fetcher.refused(**https_spiffe(env, endpoint, bundle="{"))
        assert endpoint.asked == []


def redirect(to, status=302):
    return status, {"Location": to}, "elsewhere"


def test_a_redirect_is_followed_with_the_same_checks_and_forgotten(env):
    with Endpoint(env.host, {"/bundle": env.bundle}) as there, Endpoint(env.host) as here:
        for status in (301, 302, 303, 307, 308):
            here.pages["/bundle"] = redirect(there.url(), status)
            assert env.fetcher.fetch(here.url(), env.ca_file) == (env.bundle, "")
        assert here.asked == ["/bundle"] * 5 and len(there.asked) == 5
        there.show(web_certificate(env.web_ca, "DNS:other.example"))
        assert "localhost" in env.fetcher.refused(here.url(), env.ca_file)
        here.pages["/bundle"] = redirect("/elsewhere")
        here.pages["/elsewhere"] = "a"
        assert env.fetcher.fetch(here.url(), env.ca_file) == ("a", "")


def test_https_spiffe_holds_a_redirect_to_the_same_id(env):
    endpoint, other = env.foreign.issue("/endpoint"), env.foreign.issue("/other")
    with Endpoint(endpoint, {"/bundle": env.bundle}) as there, Endpoint(endpoint) as here:
        here.pages["/bundle"] = redirect(there.url())
        assert env.fetcher.fetch(**https_spiffe(env, here)) == (env.bundle, "")
        there.show(other)
        why = env.fetcher.refused(**https_spiffe(env, here))
        assert "it proved to be spiffe://foreign.example/other" in why, why


def test_a_redirect_to_what_could_not_be_configured_is_refused(env):
    with Endpoint(env.host) as here:
        for to, why in [("http://localhost/bundle", "https://"), ("https://user@localhost/x", "userinfo"),
                        ("file:///etc/passwd", "https://"), ("https://localhost:99999/x", "port"),
                        ("https://localhost/x#y", "fragment")]:
            here.pages["/bundle"] = redirect(to)
            said = env.fetcher.refused(here.url(), env.ca_file)
            assert why in said or "status 302" in said, said
        here.pages["/bundle"] = redirect(here.url())
        assert "more than 5 redirects" in env.fetcher.refused(here.url(), env.ca_file)


def test_other_answers_are_failures(env):
    with Endpoint(env.host) as endpoint:
        assert "status 404" in env.fetcher.refused(endpoint.url(), env.ca_file)
        for page, why in [((200, {}, ""), "sent nothing"), ((500, {}, env.bundle), "status 500"),
                          ((204, {}, ""), "status 204"), ((302, {}, env.bundle), "status 302"),
                          ((200, {}, b"x" * (5 << 20)), "more than 4 MiB"),
                          ((200, {"Content-Length": None}, b"x" * (5 << 20)), "more than 4 MiB"),
                          ((200, {"Content-Length": "5000"}, "short"), "https_web: ")]:
            endpoint.pages["/bundle"] = page
            said = env.fetcher.refused(endpoint.url(), env.ca_file)
            assert why in said, (page[:2], said)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        said = env.fetcher.refused(f"https://127.0.0.1:{nobody.getsockname()[1]}/bundle", env.ca_file)
        assert "https_web: " in said and "connect" in said.lower(), said
    assert "resolve" in env.fetcher.refused("https://nowhere.invalid/bundle", env.ca_file)


def test_one_endpoint_that_hangs_holds_up_no_other(env):
    with Endpoint(env.host, {"/bundle": "late"}) as slow, Endpoint(env.host, {"/bundle": env.bundle}) as quick:
        slow.release = threading.Event()
        first = env.fetcher.send(slow.url(), env.ca_file)
        harness.wait_for(lambda: slow.asked, "the slow one to be asked")
        assert env.fetcher.fetch(quick.url(), env.ca_file) == (env.bundle, "")
        env.fetcher.sock.send(struct.pack("<II", PING, 8))
        assert env.fetcher.receive()[0] == PING
        slow.release.set()
        assert env.fetcher.answer() == (first, "late", "")


def test_a_fetch_that_does_not_end_stalls_nobody_and_ends_with_the_role(env):
    """A process that was taken over closes its pipe and stays. The role answers meanwhile, and then starts anew."""
    inject.x86_64_only()
    fetcher = Fetcher()
    fetcher.sock.settimeout(10)
    with Endpoint(env.host, {"/bundle": env.bundle}) as slow:
        slow.release = threading.Event()
        fetcher.send(slow.url(), env.ca_file)
        harness.wait_for(lambda: slow.asked, "the endpoint to be asked")
        children = f"/proc/{fetcher.process.pid}/task/{fetcher.process.pid}/children"
        child = int(harness.read(children))
        harness.wait_for(lambda: harness.read(f"/proc/{child}/syscall").startswith("7 "), "it to wait for the answer")
        pipe = [int(fd) for fd in os.listdir(f"/proc/{child}/fd")
                if int(fd) > 2 and os.readlink(f"/proc/{child}/fd/{fd}").startswith("pipe:")]
        assert len(pipe) == 1, pipe
        inject.system_call(child, 3, pipe[0])
        fetcher.sock.send(struct.pack("<II", PING, 8))
        assert fetcher.receive()[0] == PING
        assert fetcher.process.wait(15) == 1, "it ends by itself"
        harness.wait_for(lambda: not harness.alive(child), "its children to end with it")
    fetcher.sock.close()


def limit_descriptors(pid, number):
    """As nobody, whose process it is: even root may not change the limits of another's everywhere."""
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={number}:"], user=65534, group=65534, extra_groups=[], check=True)


def leave_one_descriptor(pid):
    """It can be handed one, and open no pipe."""
    used = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
    first, second = [fd for fd in range(len(used) + 2) if fd not in used][:2]
    assert first < second
    limit_descriptors(pid, second)


def test_a_fetch_that_cannot_start_is_no_answer_of_the_endpoint(env):
    fetcher = Fetcher()
    with Endpoint(env.host, {"/bundle": env.bundle}) as endpoint:
        leave_one_descriptor(fetcher.process.pid)
        for bundle in (None, env.bundle):
            text, why = fetcher.fetch(endpoint.url(), env.ca_file, bundle=bundle)
            assert text is None and fetcher.interrupted, why
            assert "no fetch could be started: Too many open files; the endpoint was not asked" in why, why
        limit_descriptors(fetcher.process.pid, 256)
        assert not endpoint.asked
        assert fetcher.fetch(endpoint.url(), env.ca_file) == (env.bundle, "") and not fetcher.interrupted
    fetcher.close()


def test_a_fetch_that_was_killed_for_its_memory_is_no_answer_and_one_that_crashed_is(env):
    """What an endpoint can crash it shall not be let try again at once."""
    fetcher = Fetcher()
    with Endpoint(env.host, {"/bundle": env.bundle}) as slow:
        slow.release = threading.Event()
        for number, interrupted in ((signal.SIGKILL, 1), (signal.SIGSYS, 0)):
            asked = len(slow.asked)
            fetcher.send(slow.url(), env.ca_file)
            harness.wait_for(lambda n=asked: len(slow.asked) > n, "the endpoint to be asked")
            os.kill(int(harness.read(f"/proc/{fetcher.process.pid}/task/{fetcher.process.pid}/children")), number)
            _, text, why = fetcher.answer()
            assert text is None and f"signal {int(number)}" in why and fetcher.interrupted == interrupted, why
        slow.release.set()
    fetcher.close()


def test_more_fetches_at_once_than_there_are_places_are_no_answers_either(env):
    fetcher = Fetcher()
    with Endpoint(env.host, {"/bundle": env.bundle}) as slow:
        slow.release = threading.Event()
        first = [fetcher.send(slow.url(), env.ca_file) for _ in range(32)]
        text, why = fetcher.fetch(slow.url(), env.ca_file)
        assert text is None and fetcher.interrupted and "too many are under way" in why, why
        slow.release.set()
        assert sorted(fetcher.answer()[0] for _ in first) == first
    fetcher.close()


def test_the_fetcher_has_no_rights_and_leaves_nothing_behind(env):
    pid = env.fetcher.process.pid
    status = harness.read(f"/proc/{pid}/status")
    for line in ("Uid:\t65534\t65534\t65534\t65534", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status, status
    open_files = os.listdir(f"/proc/{pid}/fd")
    with Endpoint(env.host, {"/bundle": env.bundle}) as endpoint:
        for _ in range(20):
            assert env.fetcher.fetch(endpoint.url(), env.ca_file)[0]
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == sorted(open_files)
    assert not harness.read(f"/proc/{pid}/task/{pid}/children").split(), "no process is left"
    env.fetcher.close()

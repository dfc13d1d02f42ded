# SPDX-License-Identifier: Apache-2.0
"""The client of the SPIFFE Workload API in the fetcher role: what it tells the enforcer of what a server says. The servers are
gRPC's own library, nghttpd, and, for what no library would send, Python's h2."""
import contextlib
import os
import re
import socket
import struct
import subprocess
import threading
import time

import h2.config
import h2.connection
import h2.events
import inject
from endpoint import der_of
from harness import read, wait_for
from test_fetcher import PING, Fetcher, limit_descriptors
from workload_api import WorkloadApi

WATCH, BUNDLE, STATE = 57, 65, 66
COMPLETE, DENIED, LOST = 1, 2, 3


class Watcher(Fetcher):
    def watch(self, path):
        self.sock.send(struct.pack("<II108s", WATCH, 116, path.encode()))

    def stop(self):
        """It watches nothing any more, and all it had to say of that is read."""
        self.watch("")
        self.sock.send(struct.pack("<II", PING, 8))
        while self.receive()[0] != PING:
            pass

    def state(self):
        """What the next message says: state, {trust domain: DER}, why."""
        bundles = {}
        while True:
            kind, packet, der = self.receive(binary=True)
            if kind == STATE:
                state, _, why = struct.unpack_from("<II400s", packet, 8)
                return state, bundles, why.split(b"\0")[0].decode()
            assert kind == BUNDLE, kind
            name = packet[8:].split(b"\0")[0].decode()
            assert name not in bundles
            bundles[name] = der

    def until(self, wanted):
        """The next one of this kind; what is lost meanwhile is not looked at."""
        while True:
            state, bundles, why = self.state()
            if state == wanted:
                return bundles, why
            assert state == LOST, (state, why)


def ready(env):
    env.path = f"{env.dir}/agent.sock"
    env.der = {n: der_of(env.authority(n, trust=False).cert) for n in ("one.example", "two.example")}


@contextlib.contextmanager
def watcher(env):
    client = Watcher()
    try:
        client.watch(env.path)
        yield client
    finally:
        client.close()


def test_each_message_is_the_whole_state(env):
    one, two = env.der["one.example"], env.der["two.example"]
    with WorkloadApi(env.path) as api, watcher(env) as client:
        assert client.state() == (COMPLETE, {}, "")
        api.bundles(one_example=one + two, two_example=two)
        assert client.state() == (COMPLETE, {"one.example": one + two, "two.example": two}, "")
        api.bundles(two_example=b"")
        assert client.state() == (COMPLETE, {"two.example": b""}, "")
        api.bundles()
        assert client.state() == (COMPLETE, {}, "")
        wait_for(api.calls, "the server to tell of the call")
        assert len(api.calls()) == 1, "all on one stream"
        assert api.calls()[0]["workload.spiffe.io"] == "true"


def test_a_large_message_comes_whole(env):
    with WorkloadApi(env.path) as api, watcher(env) as client:
        client.state()
        der = env.der["one.example"] * 5000
        api.tell(bundles={})
        assert client.state()[0] == COMPLETE
        api.bundles(one_example=der)
        assert client.state() == (COMPLETE, {"one.example": der}, "") and len(der) > 1 << 20


def test_what_was_told_stays_when_the_server_goes_and_the_stream_comes_back(env):
    one = env.der["one.example"]
    with watcher(env) as client:
        state, _, why = client.state()
        assert state == LOST and "cannot connect" in why, (state, why)
        with WorkloadApi(env.path) as api:
            api.bundles(one_example=one)
            while client.until(COMPLETE)[0] != {"one.example": one}:
                pass
            api.tell(close=True)
            _, why = client.until(LOST)
            assert "gRPC status 14: going away" in why, why
            assert client.until(COMPLETE)[0] == {"one.example": one}
        assert client.until(LOST)


def test_a_server_that_is_away_is_asked_ever_more_seldom_until_it_answers(env):
    """After 0.5 s, then 1 s, give or take a quarter, as test_backoff.c has it; and after an answer as at first."""
    with watcher(env) as client:
        lost = []
        for _ in range(2):
            assert client.state()[0] == LOST
            lost.append(time.monotonic())
        assert lost[1] - lost[0] > 0.35, lost
        with WorkloadApi(env.path) as api:
            client.until(COMPLETE)
            assert time.monotonic() - lost[1] > 0.72
            api.tell(close=True)
            client.until(LOST)
            closed = time.monotonic()
            client.until(COMPLETE)
            assert time.monotonic() - closed < 1.4, "the next step would be 2 s, or 1.5 at least"


def test_permission_denied_takes_all_back_and_is_asked_again(env):
    one = env.der["one.example"]
    with WorkloadApi(env.path) as api, watcher(env) as client:
        client.state()
        api.tell(deny=True)
        _, why = client.until(DENIED)
        assert "gRPC status 7: no identity issued" in why, why
        api.bundles(one_example=one)
        state = client.state()
        while state[0] == DENIED:  # asked again before the server was told
            state = client.state()
        assert state == (COMPLETE, {"one.example": one}, "")


def test_bundles_that_cannot_be_handed_over_come_with_the_next_stream(env):
    """The server says them once. A role without descriptors has no way to pass them on."""
    one = env.der["one.example"]
    with WorkloadApi(env.path) as api, watcher(env) as client:
        assert client.state()[0] == COMPLETE
        limit_descriptors(client.process.pid, 3)
        api.bundles(one_example=one)
        state, bundles, why = client.state()
        assert state == LOST and not bundles and "could not be handed over" in why, (state, why)
        limit_descriptors(client.process.pid, 256)
        assert client.until(COMPLETE)[0] == {"one.example": one}
        wait_for(lambda: len(api.calls()) > 1, "the server to tell of the second call")


def test_a_role_that_is_telling_something_ends_in_order_when_the_daemon_does(env):
    """Its exit status is what `systemctl status` and the log of a service manager show."""
    inject.x86_64_only()
    with WorkloadApi(env.path) as api:
        client = Watcher()
        try:
            client.watch(env.path)
            assert client.state()[0] == COMPLETE
            api.bundles(**{f"d{i}_example": b"" for i in range(256)})
            api.bundles(**{f"e{i}_example": b"" for i in range(256)})
            wait_for(lambda: read(f"/proc/{client.process.pid}/syscall").startswith("7 "), "it to wait for room")
        finally:
            client.close()


class Hostile:
    """An HTTP/2 server that answers a call with these bytes as its body, and these headers."""

    def __init__(self, path, body, headers=None, raw=None):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(path)
        os.chmod(path, 0o777)
        self.sock.listen()
        self.path, self.body, self.raw = path, body, raw
        self.headers = headers or [(":status", "200"), ("content-type", "application/grpc")]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.sock.accept()
                with peer, contextlib.suppress(OSError):
                    self._talk(peer)

    def _talk(self, peer):
        if self.raw:
            peer.sendall(self.raw)
            peer.recv(65536)
            return
        session = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        session.initiate_connection()
        peer.sendall(session.data_to_send())
        body, stream = self.body, None
        while data := peer.recv(65536):
            for event in session.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    stream = event.stream_id
                    session.send_headers(stream, self.headers)
            while stream and body:
                room = min(session.local_flow_control_window(stream), 16384, len(body))
                if not room:
                    break
                session.send_data(stream, body[:room])
                body = body[room:]
            peer.sendall(session.data_to_send())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        os.remove(self.path)


def message(*bundles):
    """A gRPC message with these pairs of key and value."""
    def varint(number):
        return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)

    def field(number, value):
        return bytes([number << 3 | 2]) + varint(len(value)) + value

    text = b"".join(field(2, field(1, key) + field(2, value)) for key, value in bundles)
    return struct.pack(">BI", 0, len(text)) + text


def test_a_message_that_is_not_understood_changes_nothing(env):
    good = (b"spiffe://one.example", b"x")
    cases = [
        (message(good, (b"spiffe://two.example\0.evil", b"y")), "no SPIFFE trust domain"),
        (message(good, (b"spiffe://TWO.example", b"y")), "no SPIFFE trust domain"),
        (message(good, (b"spiffe://two.example/path", b"y")), "no SPIFFE trust domain"),
        (message(good, (b"two.example", b"y")), "no SPIFFE trust domain"),
        (message(good, (b"spiffe://", b"y")), "no SPIFFE trust domain"),
        (message(good, (b"", b"y")), "no SPIFFE trust domain"),
        (message(good, (b"spiffe://one.example", b"y")), "two bundles of one.example"),
        (message(*((f"spiffe://d{i}".encode(), b"") for i in range(257))), "more than 256"),
        (struct.pack(">BI", 0, 3) + b"\x12\x7f\x00", "cannot be read"),
        (struct.pack(">BI", 1, 0), "compressed"),
        (struct.pack(">BI", 0, 0xffffffff), "more than 4194304"),
        (b"\xff" * 100000, "compressed"),
    ]
    with watcher(env) as client:
        for body, reason in cases:
            client.stop()
            with Hostile(env.path, body):
                client.watch(env.path)
                state, bundles, why = client.state()
            assert state == LOST and not bundles and reason in why, (body[:40], state, bundles, why)


def test_an_answer_that_is_no_grpc_changes_nothing(env):
    ok = message((b"spiffe://one.example", b"x"))
    with watcher(env) as client:
        for headers, raw, reason in [
                ([(":status", "404"), ("content-type", "application/grpc")], None, "HTTP status 404"),
                ([(":status", "200"), ("content-type", "text/html")], None, "other than gRPC"),
                (None, b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/2|cannot send"),
                (None, os.urandom(3000), "HTTP/2|cannot send")]:
            client.stop()
            with Hostile(env.path, ok, headers, raw):
                client.watch(env.path)
                state, bundles, why = client.state()
            assert state == LOST and not bundles and re.search(reason, why), (headers, state, why)


def test_the_frames_are_what_nghttpd_expects(env):
    """nghttpd prints what it reads. It listens on TCP; a pipe joins it with the socket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = f"{env.dir}/nghttpd.log"
    with open(log, "w", encoding="utf-8") as out:
        server = subprocess.Popen(["nghttpd", "-v", "--no-tls", "-a", "127.0.0.1", "-d", env.dir, str(port)],
                                  stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(env.path)
    os.chmod(env.path, 0o777)
    listener.listen()

    def copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def join():
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listener.accept()
                there = socket.create_connection(("127.0.0.1", port))
                threading.Thread(target=copy, args=(there, peer), daemon=True).start()
                threading.Thread(target=copy, args=(peer, there), daemon=True).start()

    try:
        wait_for(lambda: f"listen 127.0.0.1:{port}" in read(log), "nghttpd to listen")
        threading.Thread(target=join, daemon=True).start()
        with watcher(env) as client:
            state, _, why = client.state()
            assert state == LOST and "HTTP status 404" in why, (state, why)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        os.remove(env.path)
        server.kill()
        server.wait()
    text = re.sub(r"\x1b\[[0-9;]*m", "", read(log))
    fields = dict(re.findall(r"recv \(stream_id=1\) (:?[^:]+): (.*)", text))
    assert fields == {":method": "POST", ":scheme": "http", ":path": "/SpiffeWorkloadAPI/FetchX509Bundles",
                      ":authority": "localhost", "content-type": "application/grpc", "te": "trailers",
                      "user-agent": fields["user-agent"], "workload.spiffe.io": "true"}, text
    assert fields["user-agent"].startswith("bulkhead/")
    assert re.search(r"recv SETTINGS frame <length=12, flags=0x00, stream_id=0>\s+\(niv=2\)\s+"
                     r"\[SETTINGS_ENABLE_PUSH\(0x02\):0\]\s+\[SETTINGS_MAX_HEADER_LIST_SIZE\(0x06\):16384\]", text), text
    assert re.search(r"recv DATA frame <length=5, flags=0x01, stream_id=1>", text), text
    assert "PROTOCOL_ERROR" not in text, text

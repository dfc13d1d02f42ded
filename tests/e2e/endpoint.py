# SPDX-License-Identifier: Apache-2.0
"""Bundle endpoints for the tests: HTTPS servers on the loopback interface by Python's ssl and http.server, and the SPIFFE
bundles that they serve."""
import base64
import http.server
import json
import os
import ssl
import subprocess
import threading


def der_of(cert):
    with open(cert, encoding="ascii") as f:
        return ssl.PEM_cert_to_DER_cert(f.read())


def jwk(cert):
    """The entry of a bundle for a certificate with a P-256 key."""
    spki = subprocess.run(["openssl", "x509", "-in", cert, "-noout", "-pubkey"], capture_output=True, check=True).stdout
    raw = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=spki, capture_output=True,
                         check=True).stdout[-64:]
    x, y = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (raw[:32], raw[32:]))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "x509-svid",
            "x5c": [base64.b64encode(der_of(cert)).decode()]}


def spiffe_bundle(authorities, sequence=None, refresh=None):
    bundle = {"keys": [jwk(a.cert) for a in authorities]}
    if sequence is not None:
        bundle["spiffe_sequence"] = sequence
    if refresh is not None:
        bundle["spiffe_refresh_hint"] = refresh
    return json.dumps(bundle)


class Endpoint:
    """A server that shows the chain and key of an Svid. `pages`: path -> body, or (status, headers, body)."""

    def __init__(self, svid, pages=None, host="127.0.0.1"):
        self.pages = pages or {}
        self.asked = []  # paths, in order
        self.release = None  # an Event: answers wait for it
        self.headers = []
        self.shown = []  # by those who asked: a certificate or None
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def do_GET(self):  # pylint: disable=invalid-name
                endpoint.asked.append(self.path)
                endpoint.headers.append(dict(self.headers))
                endpoint.shown.append(self.connection.getpeercert() or None)
                if endpoint.release:
                    endpoint.release.wait(60)
                page = endpoint.pages.get(self.path, (404, {}, "not here"))
                status, headers, body = page if isinstance(page, tuple) else (200, {}, page)
                body = body if isinstance(body, bytes) else body.encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *args):  # pylint: disable=arguments-differ
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def finish_request(self, request, client_address):
                # Each connection by the certificate of the moment; a handshake that fails ends this connection alone.
                try:
                    with endpoint.context.wrap_socket(request, server_side=True) as wrapped:
                        super().finish_request(wrapped, client_address)
                except OSError:
                    pass

            def handle_error(self, request, client_address):
                pass

        self.show(svid)
        self.server = Server((host, 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def show(self, svid):
        """From now on it shows this chain."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(svid.cert, svid.key)

    def url(self, path="/bundle", host="localhost"):
        return f"https://{host}:{self.port}{path}"

    def close(self):
        if self.release:
            self.release.set()
        self.server.shutdown()
        self.server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def web_certificate(authority, names="DNS:localhost,IP:127.0.0.1", **options):
    """A certificate for a host, as of the Web PKI."""
    return authority.issue(None, subjectAltName=names, extendedKeyUsage="serverAuth", **options)


def readable(path):
    """Of a file that the fetcher, which is nobody, has to read."""
    os.chmod(path, 0o644)
    return path

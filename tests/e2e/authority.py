# SPDX-License-Identifier: Apache-2.0
"""Certificate authorities and SVIDs for the tests, made by the openssl command line: an implementation of X.509 that
shares nothing with the one under test but its library. Lifetimes are exact to the second, also in the past."""
import os
import subprocess
import time

CONFIG = """\
[ca]
default_ca = this
[this]
dir = {dir}
database = {dir}/index.txt
new_certs_dir = {dir}
rand_serial = yes
default_md = sha256
policy = anything
unique_subject = no
[anything]
organizationName = optional
commonName = optional
[req]
distinguished_name = name
[name]
"""

LEAF = {
    "basicConstraints": "critical,CA:FALSE",
    "keyUsage": "critical,digitalSignature",
    "extendedKeyUsage": "serverAuth,clientAuth",
    "authorityKeyIdentifier": "keyid",
}
SIGNER = {
    "basicConstraints": "critical,CA:TRUE",
    "keyUsage": "critical,keyCertSign,cRLSign",
    "subjectKeyIdentifier": "hash",
}


# What `openssl genpkey` is told.
KEYS = {
    "P-256": ("EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "RSA-2048": ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "Ed25519": ("ED25519",),
}


def openssl(*args):
    result = subprocess.run(["openssl", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"openssl {' '.join(args)}: {result.stderr}")
    return result.stdout


def asn1_time(seconds):
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(seconds))


class Svid:
    """A chain file and a key file."""

    def __init__(self, cert, key, spiffe_id, not_after):
        self.cert = cert
        self.key = key
        self.spiffe_id = spiffe_id
        self.not_after = not_after  # UTC seconds

    def der(self):
        """The chain as DER, leaf first."""
        import ssl
        with open(self.cert, encoding="ascii") as f:
            parts = f.read().split("-----END CERTIFICATE-----")
        return [ssl.PEM_cert_to_DER_cert(p[p.index("-----BEGIN"):] + "-----END CERTIFICATE-----\n")
                for p in parts if "-----BEGIN CERTIFICATE-----" in p]


class Authority:
    """A root, or with `parent` an intermediate, of one trust domain. `kind` of its key and those of its SVIDs."""

    def __init__(self, directory, trust_domain, parent=None, seconds=86400, kind="P-256"):
        self.kind = kind
        self.dir = directory
        self.trust_domain = trust_domain
        self.parent = parent
        self.made = 0
        os.makedirs(directory)
        open(f"{directory}/index.txt", "w", encoding="ascii").close()
        with open(f"{directory}/ca.cnf", "w", encoding="ascii") as f:
            f.write(CONFIG.format(dir=directory))
        self.key = f"{directory}/ca.key"
        self.cert = f"{directory}/ca.pem"
        self.not_after = self._make(self.key, self.cert, f"/O=e2e/CN={trust_domain} {os.path.basename(directory)}",
                                    dict(SIGNER, subjectAltName=f"URI:spiffe://{trust_domain}"), -3600, seconds,
                                    signer=parent, own=True)

    def _make(self, key, cert, subject, extensions, start, seconds, signer=None, own=False, reuse_key=False):
        now = int(time.time())
        ext = f"{cert}.ext"
        with open(ext, "w", encoding="ascii") as f:
            f.writelines(f"{name} = {value}\n" for name, value in extensions.items() if value is not None)
        if not reuse_key:
            openssl("genpkey", "-algorithm", *KEYS[self.kind], "-out", key)
        openssl("req", "-new", "-config", f"{self.dir}/ca.cnf", "-key", key, "-subj", subject, "-out", f"{cert}.csr")
        by = signer or self
        sign = ["-selfsign", "-keyfile", key] if own and not signer else ["-cert", by.cert, "-keyfile", by.key]
        openssl("ca", "-batch", "-notext", "-config", f"{by.dir}/ca.cnf", *sign, "-extfile", ext,
                "-startdate", asn1_time(now + start), "-enddate", asn1_time(now + seconds),
                "-in", f"{cert}.csr", "-out", cert)
        os.remove(ext)
        os.remove(f"{cert}.csr")
        return now + seconds

    def issue(self, path, seconds=3600, start=-60, key=None, **extensions):
        """An SVID for `path` ("" : an ID without path; None: no URI name at all). `extensions` replace those of a leaf,
        by their openssl names; None leaves one out. `key`: an Svid whose key is used again."""
        self.made += 1
        base = f"{self.dir}/svid{self.made}"
        spiffe_id = None if path is None else f"spiffe://{self.trust_domain}{path}"
        names = dict(LEAF)
        if spiffe_id:
            names["subjectAltName"] = f"URI:{spiffe_id}"
        names.update(extensions)
        key_file = key.key if key else f"{base}.key"
        not_after = self._make(key_file, f"{base}.pem", f"/O=e2e/CN=leaf {self.made}", names, start, seconds,
                               reuse_key=key is not None)
        above = self
        while above.parent:  # intermediates follow the leaf, the root does not
            with open(above.cert, encoding="ascii") as f, open(f"{base}.pem", "a", encoding="ascii") as out:
                out.write(f.read())
            above = above.parent
        return Svid(f"{base}.pem", key_file, spiffe_id, not_after)

    def reissue(self):
        """The same authority with a new certificate of the same key; returns its file. What it issued stays valid by both."""
        self.made += 1
        cert = f"{self.dir}/again{self.made}.pem"
        self._make(self.key, cert, f"/O=e2e/CN={self.trust_domain} {os.path.basename(self.dir)}",
                   dict(SIGNER, subjectAltName=f"URI:spiffe://{self.trust_domain}"), -3600, 90000, own=True, reuse_key=True)
        return cert

    def bundle(self):
        with open(self.cert, encoding="ascii") as f:
            return f.read()

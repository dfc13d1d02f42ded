#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""policyctl ca: what it issues passes our verifier and openssl's, its SPIFFE bundles say of each key what openssl says, and
it takes care of what is there. policyctl svid show of all of it.

usage: test_trial_ca.py POLICYCTL
"""
import base64
import json
import os
import re
import stat
import subprocess
import sys
import tempfile

POLICYCTL = sys.argv[1]
TD = "prod.example"
ID = f"spiffe://{TD}/ns/shop/sa/web"
KEYS = {"p256": "EC P-256", "p384": "EC P-384", "rsa2048": "RSA 2048", "ed25519": "ED25519"}


def run(*argv, expect=0, stdin=None, env=None):
    done = subprocess.run([str(a) for a in argv], capture_output=True, input=stdin, check=False,
                          env={**os.environ, **(env or {})})
    out = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == expect, f"{argv}: exit {done.returncode}, expected {expect}\n{out}"
    return out


def ctl(*args, **kwargs):
    return run(POLICYCTL, *args, **kwargs)


def ctl_json(*args, **kwargs):
    return json.loads(ctl("--json", *args, **kwargs))


def verifies(prefix, bundle="bundle.pem", expect=0):
    run("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", bundle, "-untrusted", f"{prefix}.pem",
        f"{prefix}.pem", expect=2 if expect else 0)
    return ctl("svid", "verify", "--bundle", bundle, "--trust-domain", TD, f"{prefix}.pem", expect=expect)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_svids_of_every_kind_of_key_pass_both_verifiers_and_fit_their_keys():
    for n, (kind, shown) in enumerate(KEYS.items()):
        ca = f"ca-{kind}"
        ctl("ca", "init", ca, "--trust-domain", TD, "--key-type", kind, "--intermediates", n)
        ctl("ca", "bundle", ca, "--out", f"{ca}.b")
        for leaf in KEYS:
            prefix = f"{kind}-{leaf}"
            told = ctl_json("ca", "issue", ca, ID, "--key-type", leaf, "--out", prefix)
            assert told["trial"] and told["spiffe_id"] == ID and told["chain"] == f"{prefix}.pem", told
            assert verifies(prefix, f"{ca}.b").startswith(f"ok {ID} {told['not_after']}")
            assert run("openssl", "pkey", "-in", f"{prefix}.key", "-pubout") == \
                run("openssl", "x509", "-in", f"{prefix}.pem", "-noout", "-pubkey")
            shows = ctl_json("svid", "show", f"{prefix}.pem")["certificates"]
            assert [c["role"] for c in shows] == ["leaf"] + ["intermediate"] * n, shows
            assert shows[0]["key"] == KEYS[leaf] and all(c["key"] == shown for c in shows[1:]), shows
            assert not any(c["problems"] for c in shows), shows
            assert mode(f"{prefix}.key") == 0o600 and mode(ca) == 0o700
        assert all(mode(f"{ca}/{f}") == 0o600 for f in os.listdir(ca) if f.endswith(".key"))


def test_every_certificate_says_that_it_is_for_trials():
    for ca in (f"ca-{kind}" for kind in KEYS):
        for name in os.listdir(ca):
            if name.endswith(".pem"):
                assert "not for production" in run("openssl", "x509", "-in", f"{ca}/{name}", "-noout", "-subject")
    assert "not for production" in ctl("ca", "show", "ca-p256") and "not for production" in ctl("ca", "--help")


def unpadded(text):
    assert "=" not in text and re.fullmatch("[A-Za-z0-9_-]+", text), text
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def public_key(der):
    """As openssl has it: the last bytes of the SubjectPublicKeyInfo, or the numbers of an RSA key."""
    pem = run("openssl", "x509", "-inform", "DER", "-noout", "-pubkey", stdin=der)
    spki = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=pem.encode(), capture_output=True,
                          check=True).stdout
    modulus = run("openssl", "x509", "-inform", "DER", "-noout", "-modulus", stdin=der).strip().removeprefix("Modulus=")
    return spki, modulus


def check_jwk(jwk):
    assert jwk["use"] == "x509-svid" and "kid" not in jwk and len(jwk["x5c"]) == 1, jwk
    der = base64.b64decode(jwk["x5c"][0], validate=True)
    spki, modulus = public_key(der)
    members = {"kty", "use", "x5c"}
    if jwk["kty"] == "EC":
        size = {"P-256": 32, "P-384": 48}[jwk["crv"]]
        x, y = unpadded(jwk["x"]), unpadded(jwk["y"])
        assert len(x) == len(y) == size and spki.endswith(b"\x04" + x + y), jwk
        members |= {"crv", "x", "y"}
    elif jwk["kty"] == "RSA":
        assert unpadded(jwk["n"]) == bytes.fromhex(modulus) and unpadded(jwk["e"]) == b"\x01\x00\x01", jwk
        members |= {"n", "e"}
    else:
        x = unpadded(jwk["x"])
        assert jwk["kty"] == "OKP" and jwk["crv"] == "Ed25519" and len(x) == 32 and spki.endswith(x), jwk
        members |= {"crv", "x"}
    assert set(jwk) == members, jwk
    return der


def test_spiffe_bundles_have_the_members_of_the_keys_in_their_certificates():
    ctl("ca", "init", "mixed", "--trust-domain", TD)
    for kind in ("p384", "rsa2048", "ed25519"):
        ctl("ca", "rotate", "mixed", "--key-type", kind)
    bundle = json.loads(ctl("ca", "bundle", "mixed", "--format", "spiffe", "--refresh-hint", "10m"))
    assert set(bundle) == {"keys", "spiffe_sequence", "spiffe_refresh_hint"}, bundle
    assert bundle["spiffe_sequence"] == 4 and bundle["spiffe_refresh_hint"] == 600, bundle
    assert [k["kty"] for k in bundle["keys"]] == ["EC", "EC", "RSA", "OKP"], bundle
    ders = [check_jwk(jwk) for jwk in bundle["keys"]]
    assert len(set(ders)) == 4
    # The same certificates as in the PEM bundle.
    pem = ctl("ca", "bundle", "mixed")
    blocks = re.findall("-----BEGIN CERTIFICATE-----(.*?)-----END", pem, flags=re.S)
    assert [base64.b64decode(b) for b in blocks] == ders
    shows = ctl_json("svid", "show", "-", stdin=pem.encode())["certificates"]
    assert [c["role"] for c in shows] == ["authority"] * 4 and not any(c["problems"] for c in shows), shows
    told = ctl_json("ca", "bundle", "mixed", "--format", "spiffe")
    assert told["bundle"]["keys"] == bundle["keys"] and told["authorities"] == 4, told


def test_a_rotation_keeps_what_was_issued_until_its_authority_is_removed():
    ctl("ca", "init", "ca", "--trust-domain", TD, "--intermediates", 1)
    ctl("ca", "issue", "ca", ID, "--out", "old")
    assert ctl_json("ca", "rotate", "ca")["sequence"] == 2
    ctl("ca", "issue", "ca", ID, "--out", "new")
    ctl("ca", "bundle", "ca", "--out", "bundle.pem")
    verifies("old")
    verifies("new")
    assert [a["number"] for a in ctl_json("ca", "remove", "ca", 1)["authorities"]] == [2]
    assert not [f for f in os.listdir("ca") if "-1" in f and not f.startswith("intermediate-2-1")], os.listdir("ca")
    ctl("ca", "bundle", "ca", "--out", "bundle.pem", "--force")
    assert "untrusted-issuer (rule 44)" in verifies("old", expect=1)
    verifies("new")
    assert "is the only one" in ctl("ca", "remove", "ca", 2, expect=1)
    assert "no authority 7" in ctl("ca", "remove", "ca", 7, expect=1)


def test_another_ca_of_the_same_trust_domain_signs_nothing_that_counts():
    ctl("ca", "init", "foreign", "--trust-domain", TD)
    ctl("ca", "issue", "foreign", ID, "--out", "fake")
    assert "untrusted-issuer (rule 44)" in verifies("fake", expect=1)


def content(path):
    with open(path, "rb") as file:
        return file.read()


def test_nothing_is_overwritten_unless_asked_for():
    before = {path: content(path) for path in ("new.pem", "new.key", "bundle.pem", "ca/ca.json", "ca/authority-2.key")}
    assert "new.key is there already; --force" in ctl("ca", "issue", "ca", ID, "--out", "new", expect=1)
    assert "bundle.pem is there already; --force" in ctl("ca", "bundle", "ca", "--out", "bundle.pem", expect=1)
    assert "cannot write nowhere/b" in ctl("ca", "bundle", "ca", "--out", "nowhere/b", expect=2)
    assert "is a trial CA already; --force" in ctl("ca", "init", "ca", "--trust-domain", TD, expect=1)
    os.rename("new.key", "aside.key")
    assert "new.pem is there already" in ctl("ca", "issue", "ca", ID, "--out", "new", expect=1)
    assert not os.path.exists("new.key"), "one of the two was written"
    os.rename("aside.key", "new.key")
    assert all(content(path) == text for path, text in before.items())
    ctl("ca", "issue", "ca", ID, "--out", "new", "--force")
    assert content("new.key") != before["new.key"] and content("new.pem") != before["new.pem"]
    verifies("new")
    assert ctl_json("ca", "init", "ca", "--trust-domain", TD, "--force")["sequence"] == 4, "a bundle never goes back"
    assert sorted(os.listdir("ca")) == ["authority-1.key", "authority-1.pem", "ca.json"]
    assert not [f for f in os.listdir(".") if f.startswith(".")], "files are left beside"


def test_what_is_wrong_is_told_in_a_sentence():
    for args, code, text in (
            (["issue", "ca", "spiffe://other.example/web"], 1, "not of the trust domain prod.example"),
            (["issue", "ca", f"spiffe://{TD}"], 2, "has a path"),
            (["issue", "ca", f"spiffe://{TD}/a b"], 2, "The path holds"),
            (["issue", "ca", ID, "--ttl", "60d", "--out", "long"], 1, "would outlive the authority"),
            (["issue", "ca", ID, "--ttl", "0s"], 2, "0s is not a time"),
            (["issue", "ca", ID, "--key-type", "rsa1024"], 2, "rsa1024 is not p256, p384"),
            (["issue", "ca", ID, "--intermediates", "1"], 2, "has no option --intermediates"),
            (["issue", "ca", ID, "--out", "no/such/place"], 2, "cannot write no/such/place.key: No such file"),
            (["issue", "ca"], 2, "a SPIFFE ID is missing"),
            (["init", "x"], 2, "--trust-domain NAME is needed"),
            (["init", "x", "--trust-domain", "Prod"], 2, "lower case"),
            (["init", "no/such/place", "--trust-domain", TD], 2, "cannot make the directory no/such/place"),
            (["bundle", "nowhere"], 2, "cannot open the directory nowhere"),
            (["bundle", "."], 1, ". is no trial CA"),
            (["remove", "ca", "one"], 2, "one is no number"),
            (["destroy", "ca"], 2, "has the subcommands"),
            ([], 2, "has the subcommands")):
        assert text in ctl("ca", *args, expect=code), args
    os.rename("ca/authority-1.pem", "aside")
    for args in (["show", "ca"], ["bundle", "ca"], ["bundle", "ca", "--format", "spiffe"], ["issue", "ca", ID, "--out", "x"]):
        assert ctl("ca", *args, expect=2) == "policyctl: cannot open ca/authority-1.pem: No such file or directory\n", args
    os.rename("aside", "ca/authority-1.pem")
    assert not os.path.exists("x") and not os.path.exists("long.key")
    for broken in ("{", "{}", '{"version": 1}', content("ca/ca.json").decode().replace(TD, "Prod"),
                   content("ca/ca.json").decode().replace('"sequence": 4', '"sequence": 0'),
                   re.sub(r"\[[^]]*\]", "[2, 1]", content("ca/ca.json").decode())):
        os.makedirs("broken", exist_ok=True)
        with open("broken/ca.json", "w", encoding="ascii") as file:
            file.write(broken)
        assert "is not as `policyctl ca` writes it" in ctl("ca", "show", "broken", expect=1), broken


def test_show_names_the_rules_that_a_certificate_breaks_on_its_own():
    ctl("ca", "issue", "ca", ID, "--out", "short", "--ttl", "1s")
    shown = ctl_json("svid", "show", "--at", "2020-01-01T00:00:00Z", "short.pem", expect=1)
    assert [p["rule"] for p in shown["certificates"][0]["problems"]] == [62] and not shown["ok"], shown
    run("openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-keyout", "weak.key", "-out", "weak.pem", "-subj",
        "/CN=weak", "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=URI:spiffe://td,URI:https://td")
    shown = ctl_json("svid", "show", "weak.pem", expect=1)["certificates"][0]
    assert shown["role"] == "leaf" and shown["spiffe_id"] is None and shown["key"] == "RSA 1024", shown
    assert {p["rule"] for p in shown["problems"]} == {25, 70}, shown
    text = ctl("svid", "show", "weak.pem", expect=1)
    assert "leaf-many-uris (rule 25)" in text and "weak-key (rule 70)" in text, text


def test_show_takes_der_alone_and_in_a_row_and_refuses_what_is_no_certificate():
    der = b"".join(subprocess.run(["openssl", "x509", "-in", f, "-outform", "DER"], capture_output=True,
                                  check=True).stdout for f in ("new.pem", "ca/authority-1.pem"))
    shown = ctl_json("svid", "show", "-", stdin=der)["certificates"]
    assert [c["role"] for c in shown] == ["leaf", "authority"], shown
    digest = run("openssl", "x509", "-in", "new.pem", "-noout", "-fingerprint", "-sha256").strip().split("=")[1]
    assert shown[0]["sha256"] == digest.replace(":", "").lower()
    assert shown[0]["serial"] == run("openssl", "x509", "-in", "new.pem", "-noout", "-serial").strip().split("=")[1]
    for text, why in ((der + b"x", "certificate 2 is no DER"), (der[:-1], "certificate 1 is no DER"), (b"", "no certificate"),
                      (b"hello\n", "no certificate"), (content("new.key"), "where only"),
                      (content("new.pem")[:-40], "cut off")):
        assert why in ctl("svid", "show", "-", stdin=text, expect=1), why
    ctl("svid", "show", "nowhere.pem", expect=2)
    ctl("svid", "show", expect=2)


def wrong_files():
    """What people have in place of a chain and of a key: file -> (what is said of it as a chain, as a key)."""
    ctl("ca", "init", "wrong", "--trust-domain", TD, "--intermediates", 1)
    ctl("ca", "bundle", "wrong", "--out", "wrong.pem")
    ctl("ca", "issue", "wrong", ID, "--out", "svid")
    ctl("ca", "issue", "wrong", ID, "--out", "other")
    leaf, between = re.findall("-----BEGIN .*?-----END CERTIFICATE-----\n", content("svid.pem").decode(), flags=re.S)
    for name, text in (("empty", b""), ("binary", os.urandom(3000)), ("words", b"hello\n"), ("json", b' {"keys": []}'),
                       ("reversed", (between + leaf).encode()), ("both", content("svid.pem") + content("svid.key"))):
        with open(name, "wb") as file:
            file.write(text)
    run("openssl", "pkcs12", "-export", "-in", "svid.pem", "-inkey", "svid.key", "-out", "p12", "-passout", "pass:x")
    run("openssl", "crl2pkcs7", "-nocrl", "-certfile", "svid.pem", "-out", "p7b")
    run("openssl", "req", "-new", "-key", "svid.key", "-subj", "/CN=x", "-out", "csr")
    run("openssl", "x509", "-in", "svid.pem", "-trustout", "-out", "trusted")
    run("openssl", "x509", "-in", "svid.pem", "-outform", "DER", "-out", "der")
    run("openssl", "pkey", "-in", "svid.key", "-outform", "DER", "-out", "der.key")
    run("openssl", "pkey", "-in", "svid.key", "-aes256", "-passout", "pass:x", "-out", "secret")
    run("openssl", "ec", "-in", "svid.key", "-aes128", "-passout", "pass:x", "-out", "secret.old")
    run("openssl", "pkey", "-in", "svid.key", "-pubout", "-out", "public")
    return {
        "empty": ("the file is empty", "the file is empty"),
        "binary": ("begins with -----BEGIN", "begins with -----BEGIN"),
        "words": ("begins with -----BEGIN", "begins with -----BEGIN"),
        "json": ("it is JSON", "it is JSON"),
        "reversed": ("the leaf is not the first", "it is a certificate"),
        "both": ("in one file", None),
        "p12": ("it is a PKCS#12 file; `openssl pkcs12 -in", "it is a PKCS#12 file; `openssl pkcs12 -in"),
        "p7b": ("`openssl pkcs7 -print_certs", "`openssl pkcs7 -print_certs"),
        "csr": ("it is a request", "it is a request"),
        "trusted": ("OpenSSL's own form", "OpenSSL's own form"),
        "der": ("certificate in DER; `openssl x509 -inform DER", "certificate in DER"),
        "der.key": ("private key in DER", "private key in DER; `openssl pkey -inform DER"),
        "svid.key": ("mixed up", None),
        "svid.pem": (None, "mixed up"),
        "secret": ("mixed up", "has a passphrase, and nobody is there to type it; `openssl pkey"),
        "secret.old": ("mixed up", "has a passphrase"),
        "public": ("where only", "it is a public key"),
        "wrong": ("it is a directory", "it is a directory"),
        "nowhere": ("No such file", "No such file"),
    }


def test_a_file_that_is_none_of_the_wanted_is_told_by_what_it_is():
    """To `attest`, which reads its files before it looks for the daemon, and to `svid verify`."""
    def attest(svid, key, said, code=1, json_too=False):
        argv = ["attest", "--run-dir", "/nonexistent", "--svid", svid, "--key", key]
        told = ctl(*argv, expect=code)
        assert said in told and told.count("policyctl: ") == 1, f"{argv}: {told}"
        name = svid if svid != "svid.pem" else key
        assert name in told and len(told.splitlines()) <= 2, f"{argv}: {told}"
        if json_too:
            done = subprocess.run([POLICYCTL, "--json", *argv], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
            assert json.loads(done.stdout)["ok"] is False and done.returncode == code, argv

    for name, (as_chain, as_key) in wrong_files().items():
        if as_chain:
            code = 2 if name in ("wrong", "nowhere") else 1
            told = ctl("svid", "verify", "--bundle", "wrong.pem", "--trust-domain", TD, name, expect=code)
            assert as_chain in told, f"svid verify {name}: {told}"
            attest(name, "svid.key", as_chain, code, json_too=True)
        if as_key:
            attest("svid.pem", name, as_key, 2 if name in ("wrong", "nowhere") else 1, json_too=True)
    # What is fine is not found fault with: only the daemon is missing. Lines may end as on other systems.
    for name in ("svid.pem", "crlf.pem", "bom.pem"):
        before, after = (b"\xef\xbb\xbf", b"\n") if name == "bom.pem" else (b"", b"\r\n")
        if name != "svid.pem":
            with open(name, "wb") as file:
                file.write(before + content("svid.pem").replace(b"\n", after))
        told = ctl("attest", "--run-dir", "/nonexistent", "--svid", name, "--key", "svid.key", expect=3)
        assert "is bulkheadd running?" in told and "hint" not in told, told
        assert verifies_with(name, "wrong.pem").startswith("ok "), name
    attest("svid.pem", "other.key", "the key is not that of the certificate")
    attest("reversed", "svid.key", "the leaf is not the first")
    assert "hint: the leaf is not the first" in ctl("svid", "show", "reversed", expect=1)


def verifies_with(chain, bundle, expect=0, trust_domain=TD):
    return ctl("svid", "verify", "--bundle", bundle, "--trust-domain", trust_domain, chain, expect=expect)


def test_a_bundle_of_the_other_form_is_told_by_what_it_is():
    ctl("ca", "bundle", "wrong", "--format", "spiffe", "--out", "spiffe.json")
    for source, name, said in (("spiffe.json", "json.pem", "whose name ends in .json"), ("wrong.pem", "pem.json", "it is PEM"),
                               ("svid.key", "key.pem", "hint: it is a private key"), ("p12", "p12.pem", "hint: it is a PKCS#12"),
                               ("empty", "empty.json", "it is empty"), ("empty", "empty.pem", "it is empty")):
        with open(name, "wb") as file:
            file.write(content(source))
        told = verifies_with("svid.pem", name, expect=1)
        assert said in told and f"bundle {name}: bundle-" in told, f"{name}: {told}"
    assert "follows \"spiffe://\"" in verifies_with("svid.pem", "wrong.pem", 2, f"spiffe://{TD}")
    assert "lower case" in verifies_with("svid.pem", "wrong.pem", 2, "Prod.example")


def test_ids_are_checked_one_by_one():
    shown = ctl_json("svid", "id", "check", ID, f"spiffe://{TD}/a%2fb", expect=1)
    good, bad = shown["ids"]
    assert good["trust_domain"] == TD and good["path"] == "/ns/shop/sa/web", good
    assert bad["rule"] == 12 and bad["name"] == "id-path-percent" and bad["offset"] == len(f"spiffe://{TD}/a"), bad
    assert ctl_json("svid", "id", "check", ID)["ok"]
    lines = ctl("svid", "id", "check", f"spiffe://{TD}/a\x1bb", expect=1).splitlines()
    assert lines[0] == f"invalid spiffe://{TD}/a?b" and lines[1].index("^") == lines[0].index("?"), lines
    ctl("svid", "id", "check", expect=2)
    ctl("svid", "id", "check", "--", expect=2)
    assert ctl("svid", "id", "check", "--", ID).startswith("ok ")
    ctl("svid", "id", expect=2)


def test_a_required_fips_module_that_is_not_there_is_an_error():
    out = ctl("svid", "verify", "--fips", "--fips-config", "/nonexistent.cnf", "--bundle", "bundle.pem",
              "--trust-domain", TD, "new.pem", expect=1)
    assert "/nonexistent.cnf, cannot be read" in out, out
    ctl("svid", "verify", "--fips-config", "/x", "--bundle", "bundle.pem", "--trust-domain", TD, "new.pem", expect=2)


def main():
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    with tempfile.TemporaryDirectory(prefix="bulkhead-test-") as directory:
        os.chdir(directory)
        for name, test in tests:
            print(name.removeprefix("test_"), flush=True)
            test()
        os.chdir("/")
    print(f"{len(tests)} passed, 0 failed")


main()

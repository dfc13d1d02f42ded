#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of the language against the parser: same verdict on what a schema can express, same keys, same words.

usage: check_schema.py POLICYCTL SOURCE_DIRECTORY
"""
import json
import pathlib
import re
import subprocess
import sys

import jsonschema
import yaml

policyctl, source = sys.argv[1], pathlib.Path(sys.argv[2])
failures = 0


def check(ok, text):
    global failures
    if not ok:
        failures += 1
        print(f"not ok: {text}")


def run(*args, text=""):
    return subprocess.run([policyctl, *args], input=text, capture_output=True, text=True, check=False)


def parser_says(text):
    """None if the parser finds no error, else what is wrong. Tests and invariants that fail are none."""
    result = run("check", "--json", "-", text=text)
    errors = [d["text"] for d in json.loads(result.stdout)["diagnostics"] if d["severity"] == "error"]
    return "; ".join(errors) or None


class PlainLoader(yaml.SafeLoader):
    """As yaml-language-server reads: numbers are numbers, dates and `on` are strings, keys are strings."""

    def construct_mapping(self, node, deep=False):
        return {self.construct_scalar(key): self.construct_object(value, deep=True) for key, value in node.value}


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":int", ":float", ":null"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
PlainLoader.add_constructor("tag:yaml.org,2002:map", lambda loader, node: loader.construct_mapping(node))

schema = json.loads(run("schema").stdout)
jsonschema.Draft7Validator.check_schema(schema)
validator = jsonschema.Draft7Validator(schema)


def schema_says(text, loader=PlainLoader):
    errors = list(validator.iter_errors(yaml.load(text, loader)))
    return None if not errors else "; ".join(e.message[:200] for e in errors)


# ---- the corpus ----

NAMES = """
identities:
  web: spiffe://prod.example/ns/shop/sa/web
  db: [spiffe://prod.example/ns/shop/sa/db, "spiffe://prod.example/ns/*/sa/pgbouncer"]
  backup: {unit: backup.service}
networks: {office: [192.0.2.0/24, "2001:db8:1::/48"], lan: {include: [10.0.0.0/8], except: [10.9.0.0/16]}}
services: {pg: [tcp/5432, tcp/6432-6440], ping: icmp/echo-request}
tiers: [guardrails, app]
"""
RULE = "name: r, action: allow, from: web, to: db"


def policy(text):
    return "bulkhead: 1\n" + text + "\n"


def rule(text):
    return policy(NAMES + "rules:\n  - {" + text + "}")


def more(text):
    """A rule with one more key."""
    return rule(RULE + ", " + text)


def selector(text):
    return rule("name: r, action: allow, to: db, from: " + text)


def identity(text):
    return policy("identities:\n  db: spiffe://a/db\n  x: " + text)


def network(text):
    return policy("networks:\n  x: " + text)


def service(text):
    return policy("services:\n  pg: tcp/5432\n  x: " + text)


def flow_test(text):
    return policy(NAMES + "tests:\n  - {" + text + "}")


def invariant(text):
    return policy(NAMES + "invariants:\n  - {" + text + "}")


VALID = [
    policy(""), 'bulkhead: "1"\n', policy(NAMES), rule(RULE), policy("rules: []"), policy("identities: {}"),
    policy("defaults: {action: allow, log: all}"), policy("defaults: {}"), policy("tiers: [a, b.c, app]"),
    *map(identity, [
        "spiffe://a/b", "spiffe://a/*/c/**", "spiffe://a_b-c.d/x", "[spiffe://a/b, {unit: a.service}]", "spiffe://a/...",
        "{spiffe: spiffe://a/b}", "{spiffe: [spiffe://a/b], only: {unit: a.service}}", "[{cgroup: /a/b}]",
        "{spiffe: [spiffe://a/b], only: [{unit: a.service}, {cgroup: /x/y}]}", "{unit: getty@tty1.service}",
        "{cgroup: /a.slice/b}", "{spiffe: spiffe://a/b, only: {uid: 33}}", "{spiffe: spiffe://a/b, only: [{unit: a.service, uid: 0}]}",
        "{any: [db]}", "{any: db}", "{all: [verified, {not: db}]}", "{not: db}",
        "{not: {any: [db, spiffe://a/q]}}", "{any: [spiffe://a/z/**]}"]),
    *map(network, [
        "192.0.2.1", "0.0.0.0/0", "'::/0'", "'::1'", "2001:db8::/32", "[10.0.0.0/8, '2001:db8::1/128']",
        "'64:ff9b::192.0.2.0/120'", "{include: 10.0.0.0/8}", "{include: [10.0.0.0/8], except: 10.1.0.0/16}"]),
    *map(service, [
        "tcp", "udp/53", "sctp/1-65535", "icmp", "icmp/echo-request", "icmpv6/packet-too-big", "icmp/8", "icmp/8-10",
        "proto", "proto/47", "proto/0-0", "[pg, udp/1]", "pg"]),
    *map(more, [
        "service: pg", "service: [pg, tcp/1]", "service: tcp", "tier: guardrails", "priority: 0", "priority: -7",
        "priority: 1000000", "priority: '5'", "direction: egress", "log: none", "mode: enforce",
        "until: 2027-01-01T00:00:00Z", "until: 2027-01-01 00:00:00+02:00", "until: '2027-01-01t00:00:00z'"]),
    rule("name: r.1-a_b, action: pass, from: any, to: any"), rule("name: 12, action: deny, from: any, to: any"),
    *map(selector, [
        "any", "verified", "world", "[web, office, host]", "{identity: web}", "{network: office}",
        "{identity: [web, db], network: [office, lan]}", "{identity: any, network: lan}", "{not: web}",
        "[{all: [web, db]}, office, unidentified]", "{identity: {not: web}, network: lan}", "{any: [web, {not: db}]}"]),
    flow_test("from: web, to: db, service: tcp/5432, expect: allow"),
    flow_test("name: 'it works', from: 192.0.2.1, to: spiffe://a/b@10.0.0.1, service: pg, expect: deny, by: default"),
    invariant("never: {from: office, to: db}"), invariant("name: n, always: {from: web, to: db, service: pg}"),
    invariant("isolated: [web, {network: office}]"),
]

INVALID = [
    "{}\n", "[]\n", "bulkhead: 2\n", "bulkhead: [1]\n", "rules: []\n", policy("rule: []"), policy("Rules: []"),
    policy("identities: []"), policy("identities:"), policy("networks: x"), policy("services: [a]"), policy("rules: {}"),
    policy("rules:"), policy("tests: {}"), policy("invariants: x"), policy("tiers: app"), policy("tiers: []"),
    policy("tiers: [a, a]"), policy("tiers: [-a]"), policy("tiers: [[a]]"), policy("defaults: []"),
    policy("defaults: {action: pass}"), policy("defaults: {log: some}"), policy("defaults: {mode: audit}"),
    policy("identities: {any: spiffe://a/b}"), policy("identities: {_x: spiffe://a/b}"), policy("identities: {a b: spiffe://a/b}"),
    policy("networks: {world: 10.0.0.0/8}"), policy("services: {tcp: tcp/1}"), policy("services: {any: tcp/1}"),
    policy("identities: {" + "x" * 64 + ": spiffe://a/b}"),
    *map(identity, [
        "[]", "{}", "web", "http://a/b", "SPIFFE://a/b", "spiffe://A/b", "spiffe://a", "spiffe://a/", "spiffe://a//b",
        "spiffe://a/./b", "spiffe://a/..", "spiffe://*/b", "spiffe://a/b*", "spiffe://a/**/b", "spiffe://a:1/b", "spiffe:///b",
        "spiffe://a/b?c", "spiffe://a/%41", "{unit: backup}", "{unit: a@.service}", "{unit: a b.service}", "{cgroup: a}",
        "{cgroup: /}", "{cgroup: /a/}", "{cgroup: /a//b}", "{cgroup: /a/../b}", "{cgroup: /1/2/3/4/5/6/7/8/9}",
        "{unit: a.service, cgroup: /a}", "{only: {unit: a.service}}", "{spiffe: []}", "{spiffe: spiffe://a/b, unit: a.service}",
        "{spiffe: spiffe://a/b, only: []}", "{spiffe: spiffe://a/b, only: spiffe://a/b}", "[[spiffe://a/b]]",
        "{spiffe: spiffe://a/b, only: {uid: -1}}", "{spiffe: spiffe://a/b, only: {uid: www-data}}", "{uid: 33}",
        "{spiffe: spiffe://a/b, only: {uid: 4294967295}}", "{spiffe: spiffe://a/b, only: {}}", "[{unit: a.service, uid: 33}]",
        "{spiffe: spiffe://a/b, only: {unit: a.service, cgroup: /a, uid: 33}}",
        "[{any: [db]}]", "[{spiffe: spiffe://a/b}]", "{any: []}", "{any: [any]}", "{any: [world]}", "{not: [db]}",
        "{any: [[db]]}", "{any: [db], all: [db]}", "{any: [{unit: a.service}]}", "{some: [db]}", "{not: any}", ""]),
    *map(network, [
        "[]", "{}", "web", "10.0.0.0/33", "10.0.0/8", "256.0.0.1", "010.0.0.1", "10.0.0.0/08", "'2001:db8::/129'", "'fe80::1%eth0'",
        "{except: 10.0.0.0/8}", "{include: []}", "{include: 10.0.0.0/8, but: 10.1.0.0/16}", "[[10.0.0.0/8]]", "10.0.0.0/", "12"]),
    *map(service, [
        "[]", "tcp/0", "tcp/65536", "tcp/x", "tcp/", "tcp/1-", "tcp/01", "TCP/1", "udp/1-70000", "icmp/256", "icmp/echo",
        "icmp/packet-too-big", "icmpv6/redirect-x", "proto/6", "proto/256", "proto/gre", "any", "http/80", "{tcp: 1}",
        "[[tcp/1]]", ""]),
    *map(more, [
        "service: []", "service: tcp/0", "service: any", "service: {}", "priority: 1.5", "priority: x", "priority: 1000001",
        "priority: '05'", "priority: []", "direction: out", "log: yes", "mode: try", "until: 2027-01-01", "until: tomorrow",
        "until: 2027-01-01T00:00:00", "until: 2027-13-01T00:00:00Z", "until: 2027-01-01T24:00:00Z",
        "until: 2027-01-01T00:00:00.5Z", "colour: red", "tier: ", "service: "]),
    rule("action: allow, from: web, to: db"), rule("name: r, from: web, to: db"), rule("name: r, action: allow, to: db"),
    rule("name: r, action: allow, from: web"), rule("name: default, action: allow, from: web, to: db"),
    rule("name: -r, action: allow, from: web, to: db"), rule("name: r, action: permit, from: web, to: db"),
    rule("name: [r], action: allow, from: web, to: db"), rule("name: " + "r" * 128 + ", action: deny, from: any, to: any"),
    policy("rules: [x]"), policy("rules: [[]]"),
    *map(selector, [
        "[]", "{}", "", "[[web]]", "{identity: []}", "{network: any}", "{network: world}", "{identity: web, any: [db]}",
        "[{identity: web}]", "[{network: lan}]", "{any: [web], not: db}", "{any: [office, any]}", "{unit: a.service}",
        "spiffe://a/b", "192.0.2.0/24", "{network: {not: lan}}", "{identity: web, net: lan}"]),
    flow_test("to: db, service: tcp/5432, expect: allow"), flow_test("from: web, to: db, expect: allow"),
    flow_test("from: web, to: db, service: tcp/5432"), flow_test("from: web, to: db, service: tcp/5432, expect: pass"),
    flow_test("from: [web], to: db, service: tcp/5432, expect: allow"),
    flow_test("from: web, to: db, service: tcp/5432, expect: allow, rule: r"),
    invariant("never: {from: office}"), invariant("never: {from: office, to: db}, always: {from: web, to: db}"),
    invariant("name: x"), invariant("isolated: [web]"), invariant("isolated: {from: web, to: db}"), invariant("perhaps: {}"),
    invariant("never: {from: office, to: db, direction: both}"),
]

# Right for a schema, which knows no definitions and no arithmetic; wrong for the parser.
BEYOND = [
    selector("wbe"), network("192.0.2.1/24"), service("tcp/9-8"), service("proto/1-255"), more("until: 2027-02-30T00:00:00Z"),
    more("tier: other"), network("'::ffff:192.0.2.0/120'"), policy("identities: {a: {any: [a]}}"), network("'1:2:3'"),
]

for text in VALID:
    check(parser_says(text) is None, f"the parser refuses: {parser_says(text)}\n{text}")
    check(schema_says(text) is None, f"the schema refuses: {schema_says(text)}\n{text}")
    # However its scalars are typed: a quoted word is the same word.
    check(schema_says(text, yaml.BaseLoader) is None, f"the schema refuses strings: {schema_says(text, yaml.BaseLoader)}\n{text}")
for text in INVALID:
    check(parser_says(text) is not None, f"the parser accepts:\n{text}")
    check(schema_says(text) is not None, f"the schema accepts, but: {parser_says(text)}\n{text}")
for text in BEYOND:
    check(parser_says(text) is not None and schema_says(text) is None, f"not beyond the schema:\n{text}")

# ---- keys and words ----


def objects(node):
    if isinstance(node, dict):
        if "properties" in node:
            yield node
        for value in node.values():
            yield from objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from objects(value)


def words_of(node):
    """The words that the values of each key may be, where they are listed."""
    words = {}
    for item in objects(node):
        for key, value in item["properties"].items():
            for part in (value, *value.get("allOf", ())):
                if "$ref" in part:
                    part = schema["definitions"][part["$ref"].rsplit("/", 1)[1]]
                if key != "bulkhead" and "enum" in part:
                    words.setdefault(key, set()).update(part["enum"])
    return words


c_text = "\n".join(path.read_text() for path in sorted(source.glob("policy/*.c")) if path.name.startswith(("read_", "parse")))
tables = re.findall(r"const struct key keys\[\] = \{(.*?)\};", c_text, re.S)
parser_keys = {key for table in tables for key in re.findall(r'\{\s*"(\w+)"', table)}
schema_keys = {key for item in objects(schema) for key in item["properties"]}
check(len(tables) >= 8, f"only {len(tables)} tables of keys are found in the parser")
check(parser_keys == schema_keys, f"keys of only one: {sorted(parser_keys ^ schema_keys)}")
for item in objects(schema):
    check(all("description" in str(v) or "$ref" in v for v in item["properties"].values()), f"no description: {item}")

parser_words = {}
for key, array in re.findall(r'read_word\(reader, [^,]+, "`(\w+)`", (\w+), \d\)', c_text):
    for listed in re.findall(r"const char \*const " + array + r"\[\] = \{(.*?)\};", c_text, re.S):
        parser_words.setdefault(key, set()).update(re.findall(r'"(\w+)"', listed))
check(len(parser_words) >= 5, f"only {sorted(parser_words)} are found in the parser")
check(parser_words == words_of(schema), f"words: {parser_words} and {words_of(schema)}")

# Each key where the schema has it: whatever is wrong with its value, the parser knows it there.
PLACES = {
    "": "bulkhead: 1\n{key}: {{}}\n", "defaults": policy("defaults: {{{key}: x}}"), "identity_map": policy("identities: {{x: {{{key}: x}}}}"),
    "rule": policy("rules: [{{{key}: x}}]"), "test": policy("tests: [{{{key}: x}}]"),
    "invariant": policy("invariants: [{{{key}: x}}]"), "claim": policy("invariants: [{{never: {{{key}: x}}}}]"),
    "place": policy("identities: {{x: [{{{key}: x}}]}}"), "network": policy("networks: {{x: {{{key}: x}}}}"),
    "selector": policy("rules: [{{name: x, action: deny, from: {{{key}: x}}, to: any}}]"),
    "algebra": policy("rules: [{{name: x, action: deny, from: [{{{key}: x}}], to: any}}]"),
}
for place, template in PLACES.items():
    found = [schema] if not place else list(objects(schema["properties"].get(place) or schema["definitions"][place]))
    for key in found[0]["properties"]:
        text = template.format(key=key)
        check("unknown key" not in (parser_says(text) or ""), f"the parser does not know:\n{text}")
    text = template.format(key="nonsense")
    check("unknown key" in (parser_says(text) or "") or place in ("identity_map", "algebra"), f"the parser knows:\n{text}")

type_names = re.findall(r'\{SERVICE_(ICMP6?), \d+, "([^"]+)"\}', (source / "policy/service.c").read_text())
check(len(type_names) >= 30, "the names of ICMP types are not found in the parser")
for family, name in type_names:
    text = service(("icmp/" if family == "ICMP" else "icmpv6/") + name)
    check(schema_says(text) is None and parser_says(text) is None, f"an ICMP type is missing:\n{text}")

print(f"{len(VALID)} valid, {len(INVALID)} invalid and {len(BEYOND)} other documents; {failures} failures")
sys.exit(failures > 0)

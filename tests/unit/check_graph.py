#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""policyctl graph: arrows against verdicts, and each format against its language.

Arrows of random policies are held against `explain --batch`, which asks the compiled tables and knows nothing of graphs:
for every pair that rules join, every member of both ends at every address that a rule can tell apart.

usage: check_graph.py POLICYCTL
"""
import base64
import hashlib
import html.parser
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

policyctl = sys.argv[1]
failures = 0


def check(ok, text):
    global failures
    if not ok:
        failures += 1
        print(f"not ok: {text}")


def run(*args, text="", code=0):
    result = subprocess.run([policyctl, *args], input=text, capture_output=True, text=True, check=False)
    check(code is None or result.returncode == code, f"{args} exits with {result.returncode}: {result.stderr}\n{text}")
    return result


# ---- arrows are verdicts ----

ID = "spiffe://prod.example/"
IDS = {"a": [ID + "a"], "b": [ID + "b1", ID + "b2"], "c": [ID + "c"]}
STRANGER = ID + "nobody/knows"
LOCAL = "backup"
ADDRESSES = {"lan": ["10.0.0.1"], "office": ["192.0.2.1", "2001:db8::1"], None: ["198.51.100.1", "2001:db8:ffff::1"]}
EVERYWHERE = [address for where in ADDRESSES.values() for address in where]
VERIFIED = [*itertools.chain(*IDS.values()), STRANGER]
WHO = {
    **IDS, LOCAL: [LOCAL], "shop": [*IDS["a"], *IDS["b"]], "rest": [*IDS["b"], *IDS["c"], STRANGER, LOCAL],
    "verified": VERIFIED, "unidentified": ["unidentified"], "host": ["host"], "world": ["world"],
    "any": [*VERIFIED, LOCAL, "unidentified", "host", "world"],
}
POINTS = ["tcp/1", "tcp/2", "tcp/3", "tcp/9", "udp/5"]
SERVICES = {"one": {"tcp/1"}, "two": {"tcp/2", "tcp/3"}}
HEAD = """bulkhead: 1
identities:
  a: spiffe://prod.example/a
  b: [spiffe://prod.example/b1, spiffe://prod.example/b2]
  c: spiffe://prod.example/c
  backup: {unit: backup.service}
  shop: {any: [a, b]}
  rest: {not: a}
networks: {lan: 10.0.0.0/8, office: [192.0.2.0/24, "2001:db8::/48"]}
services: {one: tcp/1, two: [tcp/2, tcp/3]}
tiers: [first, app]
"""


def members(node):
    """As explain takes them, of a node "who", "network" or "who at network"."""
    who, _, where = node.partition(" at ")
    if who in ("lan", "office"):
        who, where = "any", who
    addresses = ADDRESSES[where] if where else EVERYWHERE
    return [address if one == "world" else f"{one}@{address}" for one in WHO[who] for address in addresses]


def is_outside(end):
    return "@" not in end or end.startswith("host@")


def random_selector(rng):
    """Text, and the nodes it stands for."""
    names = [*WHO, "lan", "office"]
    what = rng.randrange(10)
    if what == 0:
        who, where = rng.choice(["a", "b", "shop", "verified"]), rng.choice(["lan", "office"])
        return f"{{identity: {who}, network: {where}}}", [f"{who} at {where}"]
    if what < 3:
        two = rng.sample([name for name in names if name != "any"], 2)
        return f"[{', '.join(two)}]", two
    name = rng.choice(names)
    return name, [name]


def random_policy(rng):
    """Text, and what joins nodes: (from, to) -> sample services."""
    joined = {}
    default = rng.choice(["deny", "deny", "deny", "allow"])
    text = HEAD + f"defaults: {{action: {default}}}\nrules:\n"
    if default == "allow":
        joined["any", "any"] = set(POINTS)
    nodes = {"any"} if default == "allow" else set()
    for number in range(rng.randrange(1, 7)):
        source, froms = random_selector(rng)
        target, tos = random_selector(rng)
        action = rng.choice(["allow", "allow", "allow", "deny", "pass"])
        service = rng.choice(["", "one", "two", "tcp/9"])
        keys = [f"name: r{number}", f"tier: {rng.choice(['first', 'app', 'app'])}", f"action: {action}", f"from: {source}",
                f"to: {target}"]
        if service:
            keys.append(f"service: {service}")
        if rng.randrange(4) == 0:
            keys.append(f"direction: {rng.choice(['egress', 'ingress'])}")
        if rng.randrange(4) == 0:
            keys.append(f"priority: {rng.choice([-1, 1])}")
        expired = rng.randrange(8) == 0
        if expired:
            keys.append("until: 2001-01-01T00:00:00Z")
        text += f"  - {{{', '.join(keys)}}}\n"
        if expired:
            continue
        nodes.update(froms, tos)
        if action == "allow":
            for pair in itertools.product(froms, tos):
                joined.setdefault(pair, set()).update(SERVICES.get(service) or ({service} if service else POINTS))
    return text, joined, nodes


def points_of(text):
    """The sample services that a label names."""
    if not text:
        return set()
    if text == "any":
        return set(POINTS)
    if text.startswith("any except "):
        return set(POINTS) - points_of(text[len("any except "):])
    found = set()
    for word in text.split(", "):
        if word in SERVICES:
            found |= SERVICES[word]
            continue
        protocol, _, ports = word.partition("/")
        first, _, last = ports.partition("-")
        for point in POINTS:
            kind, port = point.split("/")
            if kind == protocol and (not ports or int(first) <= int(port) <= int(last or first)):
                found.add(point)
    return found


def verdicts(path, flows):
    """(from, to, service) -> allowed."""
    lines = "".join("\t".join(flow) + "\n" for flow in flows)
    answers = run("explain", "--policy", path, "--batch", "-", text=lines).stdout.splitlines()
    return {flow: answer.split("\t")[0] == "allow" for flow, answer in zip(flows, answers, strict=True)}


def expected_edges(path, joined):
    flows, by_pair = {}, {}
    for (source, target), services in joined.items():
        by_pair[source, target] = pairs = [
            pair for pair in itertools.product(members(source), members(target))
            if not (is_outside(pair[0]) and is_outside(pair[1])) and (":" in pair[0].rpartition("@")[2]) == (
                ":" in pair[1].rpartition("@")[2])]
        for (one, other), service in itertools.product(pairs, services):
            flows[one, other, service] = None
    known = verdicts(path, list(flows))
    edges = {}
    for pair, services in joined.items():
        whole, part = set(), set()
        for service in services:
            said = {known[one, other, service] for one, other in by_pair[pair]}
            if said == {True}:
                whole.add(service)
            elif True in said:
                part.add(service)
        if whole or part:
            edges[pair] = (whole, part)
    return edges


def drawn_edges(path, *options):
    graph = json.loads(run("graph", "--json", *options, path).stdout)
    return {(edge["from"], edge["to"]): (points_of(edge["all"]), points_of(edge["part"])) for edge in graph["edges"]}


def arrows_are_verdicts(directory):
    rng = random.Random(4)
    drawn = 0
    for _ in range(120):
        text, joined, nodes = random_policy(rng)
        path = f"{directory}/p.yaml"
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
        expected, got = expected_edges(path, joined), drawn_edges(path)
        check(expected == got, f"arrows: expected {expected}\ngot {got}\n{text}")
        name = rng.choice(sorted(WHO))
        asked = {(name, node): set(POINTS) for node in nodes | {name}}
        expected, got = expected_edges(path, asked), drawn_edges(path, "--from", name)
        check(expected == got, f"--from {name}: expected {expected}\ngot {got}\n{text}")
        drawn += len(got)
    check(drawn > 200, f"only {drawn} arrows were drawn")


# ---- formats ----

SHOP = """bulkhead: 1
identities: {web: spiffe://a/web, db: spiffe://a/db, cart: spiffe://a/cart, old: {unit: old.service}}
networks: {office: 192.0.2.0/24}
services: {pg: tcp/5432}
rules:
  - {name: web-db, action: allow, from: web, to: db, service: pg}
  - {name: back, action: allow, from: db, to: web, service: tcp/1}
  - {name: cart-db, action: allow, from: [web, cart, old], to: db, service: pg}
  - {name: tried, action: deny, mode: audit, from: cart, to: web, service: tcp/2}
  - {name: own, action: allow, from: web, to: web}
  - {name: in, action: allow, from: office, to: web, service: tcp/443}
  - {name: no, action: deny, from: office, to: [db, web], service: tcp/22}
"""
SVG = "{http://www.w3.org/2000/svg}"


def boxes_of(svg):
    return [tuple(float(node.find(SVG + "rect").get(key)) for key in ("x", "y", "width", "height"))
            for node in svg.iter(SVG + "g") if node.get("class").startswith("node")]


def check_picture(svg, n_nodes, what):
    boxes, width, height = boxes_of(svg), float(svg.get("width")), float(svg.get("height"))
    check(len(boxes) == n_nodes, f"{what}: {len(boxes)} boxes of {n_nodes}")
    for x, y, w, h in boxes:
        check(x >= 0 and y >= 0 and x + w <= width and y + h <= height, f"{what}: a box outside of the picture")
    for (x, y, w, h), (x2, y2, w2, h2) in itertools.combinations(boxes, 2):
        check(x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y, f"{what}: boxes over each other")
    for path in svg.iter(SVG + "path"):
        check("nan" not in path.get("d") and "inf" not in path.get("d"), f"{what}: {path.get('d')}")


class Page(html.parser.HTMLParser):
    """What a page would load or run."""

    def __init__(self):
        super().__init__()
        self.open, self.script, self.policy, self.loads, self.handlers = [], "", "", [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in ("meta", "input", "path", "rect", "br"):
            self.open.append(tag)
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]
        self.loads += [value for key, value in attrs.items() if key in ("src", "href", "action")]
        self.handlers += [key for key in attrs if key.startswith("on")]

    def handle_endtag(self, tag):
        if tag not in ("path", "rect"):
            check(self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}")
            self.open.pop()

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.script += data


def formats_are_of_their_language(directory):
    # The names of files are what an attacker could choose most freely.
    path = directory + "/<script>alert(1)</script> \" ' & \\ `x` [y] #z \u202e \x01.yaml"
    path = path.replace("</", "<")
    with open(path, "w", encoding="utf-8") as out:
        out.write(SHOP)
    svg = ElementTree.fromstring(run("graph", "--format", "svg", "--denied", path).stdout)
    check_picture(svg, 5, "shop")
    check("web-db" in "".join(svg.itertext()), "the rules behind an arrow are not in the picture")
    text = run("graph", "--format", "html", "--denied", path).stdout
    page = Page()
    page.feed(text)
    page.close()
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    check(page.open == [], f"left open: {page.open}")
    check(f"script-src 'sha256-{digest}'" in page.policy and "default-src 'none'" in page.policy, f"the hash of the script is {digest}")
    check(page.loads == [] and page.handlers == [], f"the page loads {page.loads}, {page.handlers}")
    check("<script>alert" not in text, "a name is markup")
    check(text.count("<tr data-edge") == len(json.loads(run("graph", "--json", "--denied", path).stdout)["edges"]), "rows")
    check("\x01" not in text and "\u202e" not in text, "control characters")
    mermaid = run("graph", "--format", "mermaid", "--denied", path).stdout.splitlines()
    check(mermaid[0] == "flowchart LR", mermaid[0])
    for line in mermaid[1:]:
        check(re.fullmatch(r'  (n\d+(\["|\[\["|\(\["|\{\{"|\[/").*("\]|"\]\]|"\]\)|"\}\}|"/\])'
                           r'|n\d+ (-->|-\.->|-\.-x)\|"[^"]*"\| n\d+|linkStyle \d+ stroke:#c00)', line), line)
    dot = run("graph", "--denied", path).stdout
    check(len(re.sub(r"\\.", "", dot).split('"')) % 2 == 1, "quotes of DOT")
    if shutil.which("dot"):
        done = subprocess.run(["dot", "-Tsvg"], input=dot, capture_output=True, text=True, check=False)
        check(done.returncode == 0 and not done.stderr, f"dot: {done.stderr}")


def pictures_stand_clear(directory):
    rng = random.Random(9)
    for n in (1, 2, 7, 20, 40, 60):
        path = f"{directory}/many.yaml"
        names = [f"service-{i}" for i in range(n)]
        rules = [(rng.choice(names), rng.choice(names), rng.randrange(1, 9)) for _ in range(2 * n)]
        with open(path, "w", encoding="utf-8") as out:
            out.write("bulkhead: 1\nidentities:\n" + "".join(f"  {name}: spiffe://a/{name}\n" for name in names) + "rules:\n" +
                      "".join(f"  - {{name: r{i}, action: allow, from: {a}, to: {b}, service: tcp/{port}}}\n"
                              for i, (a, b, port) in enumerate(rules)))
        used = {name for a, b, _ in rules for name in (a, b)}
        first = run("graph", "--format", "svg", path).stdout
        check_picture(ElementTree.fromstring(first), len(used), f"{n} names")
        check(first == run("graph", "--format", "svg", path).stdout, "the same policy, another picture")


def what_is_asked_for_is_drawn(directory):
    path = f"{directory}/shop.yaml"
    with open(path, "w", encoding="utf-8") as out:
        out.write(SHOP)
    edges = {(e["from"], e["to"]): e for e in json.loads(run("graph", "--json", "--denied", path).stdout)["edges"]}
    check(edges["cart", "web"]["all"] == "tcp/2", "what is only tried to be denied passes")
    check(edges["office", "db"]["denied"] == "tcp/22" and not edges["office", "db"]["all"], "what is denied")
    check(edges["web", "db"]["rules"].splitlines()[0] == f"allowed by web-db ({path}:6)", edges["web", "db"]["rules"])
    check(("office", "db") not in drawn_edges(path), "a denied pair has an arrow")
    check(set(drawn_edges(path, "--from", "old", "--to", "db")) == {("old", "db")}, "--from --to")
    # Whoever may be at the office's addresses: web among them.
    check(drawn_edges(path, "--to", "db").keys() == {("web", "db"), ("cart", "db"), ("old", "db"), ("office", "db")}, "--to")
    check(set(drawn_edges(path, "--from", "old", "--to", "db", "--limit", "2")) == {("old", "db")}, "--limit of a part")
    check("no identity or network" in run("graph", "--from", "wbe", path, code=2).stderr, "--from of nothing")
    check("more than 2 names" in run("graph", "--limit", "2", path, code=1).stderr, "--limit")
    for args in (["graph"], ["graph", "--format", "png", path], ["graph", "--limit", "0", path], ["graph", "--from"]):
        run(*args, code=2)
    with open(path, "a", encoding="utf-8") as out:
        out.write("  - {name: x}\n")
    check("has no `action`" in run("graph", path, code=1).stderr, "a policy with mistakes")


with tempfile.TemporaryDirectory() as where:
    arrows_are_verdicts(where)
    formats_are_of_their_language(where)
    pictures_stand_clear(where)
    what_is_asked_for_is_drawn(where)
print(f"{failures} failures")
sys.exit(failures > 0)

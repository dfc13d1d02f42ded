#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Does an imported policy mean what the ruleset means? test_import_nftables.py POLICYCTL [SEED...]

Rulesets that the kernel listed (data/import/nftables-*.json) become what is written down beside them. Then random rulesets
are loaded into the kernel, in a network namespace of their own, and listed; a slow evaluator judges flows by the rules as
they were made up, `policyctl explain` by the imported policy. Any difference fails. Seeds given are run alone, and shown.
Without nft or the right to make a namespace, that part is left out, and said so."""
import glob
import ipaddress
import os
import random
import shutil
import subprocess
import sys
import tempfile

ROUNDS = 150
DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "import")
SUBJECTS = ["--subject", "web=spiffe://prod.example/web", "--subject", "db=unit:db.service"]


def run(*command, stdin=None):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


# ---- rulesets that are written down ----

def check_written_down(policyctl):
    """NAME.json, and what is printed for it: NAME.yaml, a policy, or NAME.txt, errors."""
    failed = 0
    paths = sorted(glob.glob(os.path.join(DATA, "nftables-*.json")))
    assert len(paths) >= 3, DATA
    for path in paths:
        options = SUBJECTS + (["--lo-by-address", "--ignore-forward"] if "host" in path else [])
        with open(path, encoding="utf-8") as file:
            code, out, err = run(policyctl, "import", "nftables", *options, "-", stdin=file.read())
        stem = path.removesuffix(".json")
        valid = os.path.exists(stem + ".yaml")
        with open(stem + (".yaml" if valid else ".txt"), encoding="utf-8") as file:
            expected = file.read()
        if (code, out + err) != (0 if valid else 1, expected):
            failed += 1
            print(f"{os.path.basename(path)}: exit code {code}, not what is written down:\n{out}{err}")
    return failed


def check_hostile(policyctl):
    """What is no ruleset is an error and never a crash."""
    cases = ["", "{", "[]", "{}", '{"nftables": {}}', '{"nftables": [1]}', '{"nftables": [{"chain": {}}]}',
             '{"nftables": [{"rule": {"family": "ip", "table": "t", "chain": "c"}}]}',
             '{"nftables": [{"surprise": {}}]}', "[" * 100000, '{"nftables": [{"set": {"name": 1}}]}']
    chain = '{"chain": {"family": "ip", "table": "t", "name": "%s"%s}}'
    base = chain % ("c", ', "type": "filter", "hook": "input", "prio": 0, "policy": "accept"')
    rule = '{"rule": {"family": "ip", "table": "t", "chain": "%s", "handle": 1, "expr": [%s]}}'
    for text in ('1', '{}', '{"match": 1}', '{"match": {"op": "==", "left": {}, "right": 1}}', '{"vmap": 1}',
                 '{"accept": null, "drop": null}', '{"jump": {"target": "nowhere"}}', '{"jump": null}', '{"xt": null}',
                 '{"jump": {"target": "c"}}', '{"match": {"left": {"concat": []}, "right": "@x"}}',
                 '{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": -1}}',
                 '{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": "@x"}}',
                 '{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "::1"}}',
                 '{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, '
                 '"right": {"prefix": {"addr": "10.0.0.0", "len": 64}}}}'):
        cases.append('{"nftables": [%s, %s]}' % (base, rule % ("c", text)))
    # Chains that jump twice to the next: 2^15 walks, each chain of them with 100 rules.
    items = [base] + [chain % (f"c{i}", "") for i in range(16)]
    items += [rule % ("c", '{"jump": {"target": "c0"}}')]
    for i in range(15):
        items += [rule % (f"c{i}", '{"jump": {"target": "c%d"}}' % (i + 1))] * 2
    items += [rule % ("c15", '{"counter": null}')] * 100
    cases.append('{"nftables": [' + ",".join(items) + "]}")
    failed = 0
    for case in cases:
        code, out, err = run(policyctl, "import", "nftables", "-", stdin=case)
        if code != 1 or out or "error: " not in err:
            failed += 1
            print(f"exit code {code} for {case[:200]}: {out[:200]}{err[:200]}")
    return failed


# ---- random rulesets ----

BLOCKS4 = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.0.2.0/24", "10.1.2.0-10.1.2.9", "203.0.113.7"]
BLOCKS6 = ["2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::5", "::1", "2001:db8:2::1-2001:db8:2::ff"]
ADDRESSES = ["10.1.2.3", "10.1.2.9", "10.9.9.9", "192.0.2.5", "203.0.113.7", "198.51.100.1", "2001:db8:1::5",
             "2001:db8:2::80", "2001:db8:9::1", "2001:dead::1"]
OURS = {4: ["10.1.2.3", "192.0.2.200"], 6: ["2001:db8:1::5", "2001:db8:3::1"]}
PORTS = [22, 53, 80, 443, 8080, 60000]
SERVICES = [("tcp", p) for p in PORTS] + [("udp", 53), ("udp", 80), ("sctp", 53)] + \
    [("icmp", 8), ("icmp", 3), ("icmpv6", 128), ("proto", 47)]


def contains(block, address):
    address = ipaddress.ip_address(address)
    if "-" in block:
        first, last = (ipaddress.ip_address(b) for b in block.split("-"))
        return address.version == first.version and first <= address <= last
    network = ipaddress.ip_network(block)
    return address.version == network.version and address in network


class Condition:
    """Text as nft reads it, and whether a flow meets it."""

    def __init__(self, text, meets):
        self.text = text
        self.meets = meets


# Listed without the match, which the answer implies.
TCP = Condition("meta l4proto tcp", lambda flow: flow["protocol"] == "tcp")


class Ruleset:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.tables = []   # (family, name, [set text], {chain: (head text or None, policy, [(conditions, verdict)])})
        for i in range(self.random.choice([1, 1, 1, 2, 3])):
            self.tables.append(self.table(f"t{i}"))

    # -- conditions --

    def address(self, _family, v4):
        r = self.random
        blocks = BLOCKS4 if v4 else BLOCKS6
        end = r.choice(["saddr", "daddr"])
        negate = r.random() < 0.25
        chosen = r.sample(blocks, r.choice([1, 1, 2, 3]))
        # nft refuses sets whose elements overlap.
        chosen = [b for i, b in enumerate(chosen) if not any(overlap(b, c) for c in chosen[:i])]
        text = chosen[0] if len(chosen) == 1 else "{ " + ", ".join(chosen) + " }"
        if r.random() < 0.3:
            text = "@" + self.named_set("ipv4_addr" if v4 else "ipv6_addr", chosen)
        version = 4 if v4 else 6

        def meets(flow):
            address = flow[end]
            if ipaddress.ip_address(address).version != version:
                return False
            return any(contains(b, address) for b in chosen) != negate
        return Condition(f"{'ip' if v4 else 'ip6'} {end} {'!= ' if negate else ''}{text}", meets)

    def named_set(self, kind, elements):
        name = f"s{len(self.sets)}"
        self.sets.append(f"set {name} {{ type {kind}; flags interval; elements = {{ {', '.join(elements)} }}; }}")
        return name

    def port_values(self):
        r = self.random
        kind = r.randrange(5)
        if kind == 0:
            ports = r.sample(PORTS, 2)
            return "{ " + ", ".join(map(str, ports)) + " }", lambda p: p in ports
        if kind == 1:
            first, last = sorted(r.sample(PORTS, 2))
            return f"{first}-{last}", lambda p: first <= p <= last
        port = r.choice(PORTS)
        if kind == 2:
            relation = r.choice(["<", ">", "<=", ">=", "!="])
            return f"{relation} {port}", {"<": lambda p: p < port, ">": lambda p: p > port, "<=": lambda p: p <= port,
                                          ">=": lambda p: p >= port, "!=": lambda p: p != port}[relation]
        if kind == 3:
            name = self.named_set("inet_service", [str(port), "9000-9100"])
            return f"@{name}", lambda p: p == port or 9000 <= p <= 9100
        return str(port), lambda p: p == port

    def port(self, _family, _v4):
        protocol = self.random.choice(["tcp", "tcp", "udp", "sctp"])
        text, holds = self.port_values()
        return Condition(f"{protocol} dport {text}", lambda f: f["protocol"] == protocol and holds(f["number"]))

    def transport_port(self, _family, _v4):
        protocols = self.random.sample(["tcp", "udp", "sctp"], 2)
        text, holds = self.port_values()
        return Condition(f"meta l4proto {{ {', '.join(protocols)} }} th dport {text}",
                         lambda f: f["protocol"] in protocols and holds(f["number"]))

    def protocol(self, family, _v4):
        name, ours = self.random.choice([("tcp", "tcp"), ("udp", "udp"), ("icmp", "icmp"), ("gre", "proto"),
                                         ("ipv6-icmp", "icmpv6")])
        if family == "ip" and self.random.random() < 0.5:
            return Condition(f"ip protocol {name}", lambda f: f["protocol"] == ours)
        negate = self.random.random() < 0.2
        return Condition(f"meta l4proto {'!= ' if negate else ''}{name}", lambda f: (f["protocol"] == ours) != negate)

    def icmp(self, _family, v4):
        if not v4:
            return Condition("icmpv6 type { echo-request, nd-neighbor-solicit }",
                             lambda f: f["protocol"] == "icmpv6" and f["number"] == 128)
        return Condition("icmp type echo-request", lambda f: f["protocol"] == "icmp" and f["number"] == 8)

    def family_condition(self, family, v4):
        if family != "inet":
            return self.address(family, v4)
        version = 4 if v4 else 6
        return Condition(f"meta nfproto ipv{version}",
                         lambda f: ipaddress.ip_address(f["saddr"]).version == version)

    def concatenation(self, family, v4):
        if not v4:
            return self.port(family, v4)
        pairs = [(a, p) for a in ("10.1.2.3", "192.0.2.5") for p in (22, 80) if self.random.random() < 0.6]
        pairs = pairs or [("10.9.9.9", 443)]
        text = ", ".join(f"{a} . {p}" for a, p in pairs)
        return Condition(f"ip saddr . tcp dport {{ {text} }}",
                         lambda f: f["protocol"] == "tcp" and (f["saddr"], f["number"]) in pairs)

    def state(self, _family, _v4):
        if self.random.random() < 0.7:
            return Condition("ct state new", lambda f: True)
        return Condition("ct state { new, established }", lambda f: True)

    def conditions(self, family):
        """At most one of the family and one of the transport: nft refuses rules that contradict themselves."""
        r = self.random
        v4 = family == "ip" or (family == "inet" and r.random() < 0.6)
        kinds = []
        if r.random() < 0.6:
            kinds += r.choice([[self.address], [self.address, self.address], [self.family_condition]])
        if r.random() < 0.7:
            kinds.append(r.choice([self.port, self.port, self.transport_port, self.protocol, self.icmp,
                                   self.concatenation]))
        if r.random() < 0.2:
            kinds.append(self.state)
        r.shuffle(kinds)
        return [kind(family, v4) for kind in kinds]

    # -- chains --

    def rules(self, family, targets, base):
        r = self.random
        rules = []
        if base and r.random() < 0.7:
            rules.append(([Condition("ct state established,related", lambda f: False)], "accept"))
        if base and r.random() < 0.3:
            rules.append(([Condition("ct state invalid", lambda f: False)], "drop"))
        for _ in range(r.randint(0, 5)):
            verdict = r.choice(["accept", "accept", "drop", "reject", "counter"] + ["jump"] * 2 * bool(targets) +
                               ["goto"] * (base and bool(targets)))
            conditions = self.conditions(family)
            if verdict == "reject":
                verdict, more = r.choice([("reject", []), ("reject with tcp reset", [TCP])])
                conditions = more or conditions
            if verdict in ("jump", "goto"):
                verdict += " " + r.choice(targets)
            rules.append((conditions, verdict))
        if r.random() < 0.15:
            port, other = r.sample(PORTS, 2)
            rules.append(([Condition(f"tcp dport vmap {{ {port} : accept, {other} : drop }}", None)],
                          {port: "accept", other: "drop"}))
        if not base and r.random() < 0.2:
            rules.append(([], "return"))
            rules.append(([], "drop"))
        return rules

    def table(self, name):
        r = self.random
        family = r.choice(["inet", "inet", "ip", "ip6"])
        self.sets = []
        chains = {"b": (None, None, self.rules(family, [], False))}
        chains["a"] = (None, None, self.rules(family, ["b"], False))
        for hook in ("input", "output"):
            if r.random() < 0.8:
                policy = r.choice(["accept", "drop"])
                head = f"type filter hook {hook} priority {r.choice([-10, 0, 10])}; policy {policy};"
                chains[hook] = (head, policy, self.rules(family, ["a", "b"], True))
        return family, name, self.sets, chains

    def text(self):
        lines = ["flush ruleset"]
        for family, name, sets, chains in self.tables:
            lines += [f"table {family} {name} {{", *sets]
            for chain, (head, _, rules) in chains.items():
                lines += [f"chain {chain} {{", *([head] if head else [])]
                for conditions, verdict in rules:
                    words = " ".join(c.text for c in conditions)
                    lines.append(words if isinstance(verdict, dict) else f"{words} {verdict}")
                lines.append("}")
            lines.append("}")
        return "\n".join(lines) + "\n"

    # -- the evaluator --

    def walk(self, chains, name, flow):
        """accept, drop, or None at the end of the chain."""
        for conditions, verdict in chains[name][2]:
            if isinstance(verdict, dict):
                if flow["protocol"] == "tcp" and flow["number"] in verdict:
                    return verdict[flow["number"]]
                continue
            if not all(c.meets(flow) for c in conditions):
                continue
            if verdict in ("accept", "drop"):
                return verdict
            if verdict.startswith("reject"):
                return "drop"
            if verdict == "return":
                return None
            word, _, target = verdict.partition(" ")
            if word in ("jump", "goto"):
                result = self.walk(chains, target, flow)
                if result or word == "goto":
                    return result
        return None

    def passes(self, hook, flow):
        version = ipaddress.ip_address(flow["saddr"]).version
        for family, _, _, chains in self.tables:
            if hook not in chains or (family == "ip" and version == 6) or (family == "ip6" and version == 4):
                continue
            if (self.walk(chains, hook, flow) or chains[hook][1]) == "drop":
                return False
        return True


def overlap(a, b):
    def bounds(block):
        if "-" in block:
            first, last = (ipaddress.ip_address(x) for x in block.split("-"))
        else:
            network = ipaddress.ip_network(block)
            first, last = network[0], network[-1]
        return first.version, int(first), int(last)
    (v, f, l), (w, g, m) = bounds(a), bounds(b)
    return v == w and f <= m and g <= l


class Namespace:
    """A network namespace, in which the kernel may have any ruleset."""

    def __init__(self):
        self.name = f"bh-import-{os.getpid()}"
        code, _, err = run("ip", "netns", "add", self.name)
        self.error = err.strip() if code else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        run("ip", "netns", "del", self.name)

    def listed(self, text):
        code, _, err = run("ip", "netns", "exec", self.name, "nft", "-f", "-", stdin=text)
        assert code == 0, f"nft: {err}"
        code, out, err = run("ip", "netns", "exec", self.name, "nft", "-j", "list", "ruleset")
        assert code == 0, f"nft: {err}"
        return out


def flows():
    for address in ADDRESSES:
        for ours in OURS[ipaddress.ip_address(address).version]:
            for protocol, number in SERVICES:
                if (protocol == "icmp" and ":" in address) or (protocol == "icmpv6" and ":" not in address):
                    continue
                yield address, ours, protocol, number


def check_round(policyctl, namespace, path, seed, show):
    ruleset = Ruleset(seed)
    text = ruleset.text()
    if show:
        print(text)
    listed = namespace.listed(text)
    code, policy, err = run(policyctl, "import", "nftables", *SUBJECTS, "-", stdin=listed)
    if show:
        print(policy, err)
    assert code == 0, f"import: {err}"
    with open(path, "w", encoding="utf-8") as file:
        file.write(policy)
    lines, expected = [], []
    for peer, ours, protocol, number in flows():
        web, db = f"spiffe://prod.example/web@{ours}", f"db@{ours}"
        for hook, source, destination in (("input", peer, web), ("output", db, peer)):
            flow = {"saddr": peer if hook == "input" else ours, "daddr": ours if hook == "input" else peer,
                    "protocol": protocol, "number": number}
            lines.append(f"{source}\t{destination}\t{protocol}/{number}\n")
            expected.append("allow" if ruleset.passes(hook, flow) else "deny")
    code, out, err = run(policyctl, "explain", "--policy", path, "--batch", "-", stdin="".join(lines))
    assert code == 0, f"explain: {err}"
    verdicts = [line.split("\t") for line in out.splitlines()]
    assert len(verdicts) == len(lines)
    for line, wanted, verdict in zip(lines, expected, verdicts):
        assert verdict[0] == wanted, f"{line.strip()}: {wanted} in nftables, here {verdict}"
    return len(lines), expected.count("allow")


def check_random(policyctl, seeds):
    if not shutil.which("nft") or not shutil.which("ip") or os.geteuid() != 0:
        print("random rulesets left out: they need nft, ip and root")
        return 0
    total = allowed = failed = 0
    with Namespace() as namespace, tempfile.TemporaryDirectory() as directory:
        if namespace.error:
            print(f"random rulesets left out: no network namespace: {namespace.error}")
            return 0
        for seed in seeds or range(ROUNDS):
            try:
                n, passed = check_round(policyctl, namespace, os.path.join(directory, "policy.yaml"), seed, bool(seeds))
                total += n
                allowed += passed
            except AssertionError as error:
                failed += 1
                print(f"seed {seed}: {error}")
    print(f"{total} flows, {allowed} allowed; {failed} rounds failed")
    # A generator that allows or denies nearly everything tests nothing.
    if not seeds and not failed:
        assert 0.2 < allowed / total < 0.8, "the rounds are one-sided"
    return failed


def main():
    policyctl, seeds = sys.argv[1], [int(s) for s in sys.argv[2:]]
    failed = 0 if seeds else check_written_down(policyctl) + check_hostile(policyctl)
    return 1 if failed + check_random(policyctl, seeds) else 0


if __name__ == "__main__":
    sys.exit(main())

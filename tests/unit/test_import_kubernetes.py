#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Does an imported policy mean what the Kubernetes objects mean? test_import_kubernetes.py POLICYCTL [SEED...]

A slow evaluator, written from the text of the Kubernetes API and sharing nothing with the importer, judges flows between
the workloads of random clusters under random policies; `policyctl explain` judges the same flows under the imported policy.
Any difference fails. Seeds given are run alone, with their objects printed."""
import ipaddress
import json
import os
import random
import subprocess
import sys
import tempfile

ROUNDS = 250
PROTOCOLS = ["TCP", "UDP", "SCTP"]
NAME_LABEL = "kubernetes.io/metadata.name"


# ---- the evaluator ----

class Pod:
    """A pod of a workload; two pods of one workload differ in their address."""

    def __init__(self, workload, namespace_labels, address):
        self.workload = workload
        self.namespace = workload["namespace"]
        self.labels = workload["labels"]
        self.namespace_labels = namespace_labels
        self.ports = {}
        for name, text in workload["ports"].items():
            protocol, number = text.split("/")
            self.ports[name] = (protocol.upper(), int(number))
        self.address = ipaddress.ip_address(address)


class Stranger:
    """Known by its address only."""

    def __init__(self, address):
        self.address = ipaddress.ip_address(address)


def selects(selector, labels):
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        key, present = expression["key"], expression["key"] in labels
        holds = {
            "In": lambda: present and labels[key] in expression["values"],
            "NotIn": lambda: not present or labels[key] not in expression["values"],
            "Exists": lambda: present,
            "DoesNotExist": lambda: not present,
        }[expression["operator"]]()
        if not holds:
            return False
    return True


def in_block(address, cidr):
    network = ipaddress.ip_network(cidr, strict=False)
    return address.version == network.version and address in network


def namespace_peer_matches(peer, policy, end):
    if "ipBlock" in peer:
        return in_block(end.address, peer["ipBlock"]["cidr"]) and not any(
            in_block(end.address, cidr) for cidr in peer["ipBlock"].get("except", []))
    if not isinstance(end, Pod):
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], end.namespace_labels):
            return False
    elif end.namespace != policy["metadata"]["namespace"]:
        return False
    return selects(peer.get("podSelector", {}), end.labels)


def namespace_port_matches(port, destination, protocol, number):
    if port.get("protocol", "TCP") != protocol:
        return False
    if "port" not in port:
        return True
    if isinstance(port["port"], str):
        return isinstance(destination, Pod) and destination.ports.get(port["port"]) == (protocol, number)
    return port["port"] <= number <= port.get("endPort", port["port"])


def namespace_rule_matches(rule, policy, ingress, peer, destination, protocol, number):
    peers, ports = rule.get("from" if ingress else "to"), rule.get("ports")
    return (not peers or any(namespace_peer_matches(p, policy, peer) for p in peers)) and \
        (not ports or any(namespace_port_matches(p, destination, protocol, number) for p in ports))


def pods_match(selection, end):
    """`subject` of an admin policy, and the peers that are pods."""
    if not isinstance(end, Pod):
        return False
    if "namespaces" in selection:
        return selects(selection["namespaces"], end.namespace_labels)
    return selects(selection["pods"]["namespaceSelector"], end.namespace_labels) and \
        selects(selection["pods"]["podSelector"], end.labels)


def admin_peer_matches(peer, end):
    if "networks" in peer:
        return any(in_block(end.address, cidr) for cidr in peer["networks"])
    return pods_match(peer, end)


def admin_port_matches(port, destination, protocol, number):
    if "namedPort" in port:
        return isinstance(destination, Pod) and destination.ports.get(port["namedPort"]) == (protocol, number)
    if "portNumber" in port:
        return port["portNumber"].get("protocol", "TCP") == protocol and port["portNumber"]["port"] == number
    one = port["portRange"]
    return one.get("protocol", "TCP") == protocol and one["start"] <= number <= one["end"]


def admin_action(policy, ingress, subject, peer, destination, protocol, number):
    """The action of the first rule that matches, or None."""
    if not pods_match(policy["spec"]["subject"], subject):
        return None
    for rule in policy["spec"].get("ingress" if ingress else "egress") or []:
        if any(admin_peer_matches(p, peer) for p in rule["from" if ingress else "to"]) and \
                ("ports" not in rule or
                 any(admin_port_matches(p, destination, protocol, number) for p in rule["ports"])):
            return rule["action"]
    return None


def policy_types(spec):
    return spec.get("policyTypes") or ["Ingress"] + (["Egress"] if spec.get("egress") else [])


def end_allows(objects, ingress, subject, peer, protocol, number):
    destination = subject if ingress else peer
    flow = (ingress, subject, peer, destination, protocol, number)
    direction = "Ingress" if ingress else "Egress"
    admin = [o for o in objects if o["kind"] == "AdminNetworkPolicy"]
    for policy in sorted(admin, key=lambda o: o["spec"]["priority"]):
        action = admin_action(policy, *flow)
        if action == "Pass":
            break
        if action:
            return action == "Allow"
    isolating = [o for o in objects if o["kind"] == "NetworkPolicy" and
                 o["metadata"]["namespace"] == subject.namespace and direction in policy_types(o["spec"]) and
                 selects(o["spec"]["podSelector"], subject.labels)]
    if isolating:
        return any(namespace_rule_matches(rule, policy, ingress, peer, destination, protocol, number)
                   for policy in isolating for rule in policy["spec"].get(direction.lower()) or [])
    for policy in objects:
        if policy["kind"] == "BaselineAdminNetworkPolicy":
            action = admin_action(policy, *flow)
            if action:
                return action == "Allow"
    return True


def flow_passes(objects, source, destination, protocol, number):
    return (not isinstance(source, Pod) or end_allows(objects, False, source, destination, protocol, number)) and \
        (not isinstance(destination, Pod) or end_allows(objects, True, destination, source, protocol, number))


# ---- random clusters and policies ----

LABELS = {"app": ["web", "db", "cache"], "tier": ["front", "back"], "team": ["red", "blue"]}
BLOCKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "192.0.2.0/24", "0.0.0.0/0", "::/0",
          "2001:db8::/32", "2001:db8:1::/48", "198.51.100.7/25"]
ADDRESSES = ["10.1.2.3", "10.1.2.4", "10.1.9.9", "10.200.0.1", "192.0.2.77", "198.51.100.200", "2001:db8:1::5",
             "2001:db8:2::5"]
PORT_NAMES = {"http": ["tcp/80", "tcp/8080"], "dns": ["udp/53", "tcp/53"], "sig": ["sctp/7000"]}


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.namespaces = {}
        self.workloads = []
        self.make_cluster()

    def labels(self):
        return {key: self.random.choice(values) for key, values in LABELS.items() if self.random.random() < 0.6}

    def make_cluster(self):
        for name in ["shop", "ops", "lab"][:self.random.randint(1, 3)]:
            self.namespaces[name] = self.labels()
        for i in range(self.random.randint(2, 6)):
            ports = {n: self.random.choice(t) for n, t in PORT_NAMES.items() if self.random.random() < 0.6}
            self.workloads.append({"name": f"w{i}", "namespace": self.random.choice(list(self.namespaces)),
                                   "labels": self.labels(), "ports": ports})

    def map(self):
        workloads = []
        for i, workload in enumerate(self.workloads):
            identity = {"unit": f"w{i}.service"} if i == 0 else f"spiffe://prod.example/w{i}"
            if i == 1:
                identity = [identity, "spiffe://prod.example/also/*"]
            workloads.append({**workload, "identity": identity})
        return {"namespaces": {n: {"labels": l} if l else None for n, l in self.namespaces.items()},
                "workloads": workloads}

    def selector(self):
        r = self.random
        if r.random() < 0.3:
            return {}
        selector = {}
        if r.random() < 0.6:
            key = r.choice(list(LABELS))
            selector["matchLabels"] = {key: r.choice(LABELS[key])}
        if r.random() < 0.4:
            key = r.choice(list(LABELS))
            operator = r.choice(["In", "NotIn", "Exists", "DoesNotExist"])
            expression = {"key": key, "operator": operator}
            if operator in ("In", "NotIn"):
                expression["values"] = r.sample(LABELS[key], r.randint(1, 2))
            selector["matchExpressions"] = [expression]
        return selector

    def namespace_selector(self):
        if self.random.random() < 0.4:
            return {"matchLabels": {NAME_LABEL: self.random.choice(["shop", "ops", "lab"])}}
        return self.selector()

    def block(self):
        cidr = self.random.choice(BLOCKS)
        network = ipaddress.ip_network(cidr, strict=False)
        inside = [b for b in BLOCKS if ipaddress.ip_network(b, strict=False).version == network.version and
                  ipaddress.ip_network(b, strict=False) != network and
                  ipaddress.ip_network(b, strict=False).subnet_of(network)]
        block = {"cidr": cidr}
        if inside and self.random.random() < 0.6:
            block["except"] = self.random.sample(inside, self.random.randint(1, min(2, len(inside))))
        return block

    def namespace_peer(self):
        kind = self.random.randrange(4)
        if kind == 0:
            return {"ipBlock": self.block()}
        peer = {}
        if kind in (1, 3):
            peer["podSelector"] = self.selector()
        if kind in (2, 3):
            peer["namespaceSelector"] = self.namespace_selector()
        return peer

    def namespace_port(self, named):
        r = self.random
        port = {}
        if r.random() < 0.6:
            port["protocol"] = r.choice(PROTOCOLS)
        kind = r.randrange(0 if named else 1, 4)
        if kind == 0:
            port["port"] = r.choice(list(PORT_NAMES))
        elif kind == 1:
            port["port"] = r.choice([53, 80, 443])
        elif kind == 2:
            port["port"] = r.choice([53, 80, 7000])
            port["endPort"] = r.choice([p for p in (80, 443, 7000, 65535) if p >= port["port"]])
        return port

    def several(self, make, most=3):
        return [make() for _ in range(self.random.randint(1, most))]

    def namespace_rule(self, list_name):
        r = self.random
        rule = {}
        if r.random() < 0.7:
            rule[list_name] = self.several(self.namespace_peer)
        elif r.random() < 0.3:
            rule[list_name] = []
        if r.random() < 0.6:
            # Names have no meaning at addresses: such a rule is refused.
            named = list_name == "from" or not any("ipBlock" in p for p in rule.get("to", []))
            rule["ports"] = self.several(lambda: self.namespace_port(named))
        elif r.random() < 0.3:
            rule["ports"] = []
        return rule

    def network_policy(self, i):
        r = self.random
        spec = {"podSelector": self.selector()}
        if r.random() < 0.6:
            spec["ingress"] = [self.namespace_rule("from") for _ in range(r.randint(0, 3))]
        if r.random() < 0.5:
            spec["egress"] = [self.namespace_rule("to") for _ in range(r.randint(0, 3))]
        if r.random() < 0.6:
            spec["policyTypes"] = r.choice([["Ingress"], ["Egress"], ["Ingress", "Egress"], []])
        return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": f"np{i}", "namespace": r.choice(list(self.namespaces)), "labels": {"x": "y"}},
                "spec": spec}

    def pod_selection(self):
        if self.random.random() < 0.5:
            return {"namespaces": self.namespace_selector()}
        return {"pods": {"namespaceSelector": self.namespace_selector(), "podSelector": self.selector()}}

    def admin_peer(self, ingress):
        if not ingress and self.random.random() < 0.4:
            return {"networks": self.random.sample(BLOCKS, self.random.randint(1, 2))}
        return self.pod_selection()

    def admin_port(self, named):
        r = self.random
        kind = r.randrange(0 if named else 1, 3)
        if kind == 0:
            return {"namedPort": r.choice(list(PORT_NAMES))}
        if kind == 1:
            return {"portNumber": {"protocol": r.choice(PROTOCOLS), "port": r.choice([53, 80, 443, 7000])}}
        one = {"start": r.choice([1, 53, 80]), "end": r.choice([80, 443, 65535])}
        if r.random() < 0.5:
            one["protocol"] = r.choice(PROTOCOLS)
        return {"portRange": one}

    def admin_rule(self, ingress, actions):
        rule = {"action": self.random.choice(actions),
                "from" if ingress else "to": self.several(lambda: self.admin_peer(ingress), 2)}
        if self.random.random() < 0.6:
            named = ingress or not any("networks" in p for p in rule["to"])
            rule["ports"] = self.several(lambda: self.admin_port(named))
        if self.random.random() < 0.3:
            rule["name"] = "a rule"
        return rule

    def admin_policy(self, kind, name, actions):
        r = self.random
        spec = {"subject": self.pod_selection()}
        for ingress in (True, False):
            if r.random() < 0.7:
                spec["ingress" if ingress else "egress"] = [self.admin_rule(ingress, actions)
                                                            for _ in range(r.randint(0, 4))]
        return {"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": kind, "metadata": {"name": name},
                "spec": spec, "status": {"conditions": []}}

    def objects(self):
        r = self.random
        objects = [self.network_policy(i) for i in range(r.choice([0, 1, 2, 3, 5]))]
        priorities = r.sample(range(0, 1001), 3)
        for i in range(r.choice([0, 0, 1, 2, 3])):
            policy = self.admin_policy("AdminNetworkPolicy", f"anp{i}", ["Allow", "Deny", "Pass"])
            policy["spec"]["priority"] = priorities[i]
            objects.append(policy)
        if r.random() < 0.4:
            objects.append(self.admin_policy("BaselineAdminNetworkPolicy", "default", ["Allow", "Deny"]))
        r.shuffle(objects)
        return objects

    def text(self, objects):
        """As documents, or as lists: JSON is YAML."""
        if self.random.random() < 0.3 or not objects:
            objects = [{"apiVersion": "v1", "kind": "List", "items": objects, "metadata": {"resourceVersion": ""}}]
        return "".join("---\n" + json.dumps(o, indent=1) + "\n" for o in objects)


# ---- against policyctl ----

def run(policyctl, *arguments, stdin=None):
    done = subprocess.run([policyctl, *arguments], input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def explain(policyctl, policy, lines):
    code, out, err = run(policyctl, "explain", "--policy", policy, "--batch", "-", stdin="".join(lines))
    assert code == 0, f"explain: {err}"
    return [line.split("\t") for line in out.splitlines()]


def flows_of(generator):
    """(text as explain takes it, expected by the evaluator or a verdict known in advance)"""
    namespaces = generator.namespaces
    ends = []
    for i, workload in enumerate(generator.workloads):
        labels = {**namespaces[workload["namespace"]], NAME_LABEL: workload["namespace"]}
        name = "w0" if i == 0 else f"spiffe://prod.example/w{i}"
        address = ADDRESSES[i % len(ADDRESSES)]
        ends.append((f"{name}@{address}", Pod(workload, labels, address)))
    again = generator.workloads[-1]
    labels = {**namespaces[again["namespace"]], NAME_LABEL: again["namespace"]}
    ends.append((f"spiffe://prod.example/w{len(generator.workloads) - 1}@10.77.0.1", Pod(again, labels, "10.77.0.1")))
    ends += [(address, Stranger(address)) for address in ("10.1.2.4", "192.0.2.200", "2001:db8:1::9", "203.0.113.1")]
    services = [("TCP", 80), ("TCP", 8080), ("TCP", 443), ("TCP", 53), ("UDP", 53), ("SCTP", 7000), ("UDP", 65535)]
    for from_text, source in ends:
        for to_text, destination in ends:
            if not isinstance(source, Pod) and not isinstance(destination, Pod):
                continue
            for protocol, number in services:
                yield (f"{from_text}\t{to_text}\t{protocol.lower()}/{number}\n", source, destination, protocol, number)


def known_flows(generator):
    """What holds whatever the policies say."""
    for i in range(len(generator.workloads)):
        name = "w0" if i == 0 else f"spiffe://prod.example/w{i}"
        yield f"{name}@127.0.0.1\t{name}@127.0.0.1\ttcp/80\n", "allow"
        yield f"host@10.1.2.4\t{name}@10.1.2.3\ttcp/80\n", "allow"
        yield f"unidentified@10.1.2.4\t{name}@10.1.2.3\ttcp/80\n", "deny"
        yield f"{name}@10.1.2.3\tunidentified@10.1.2.4\ttcp/80\n", "deny"
        yield f"spiffe://prod.example/unknown@10.1.2.4\t{name}@10.1.2.3\ttcp/80\n", "deny"


def check_round(policyctl, directory, seed, show):
    generator = Generator(seed)
    objects = generator.objects()
    paths = [os.path.join(directory, n) for n in ("map.yaml", "objects.yaml", "policy.yaml")]
    for path, text in zip(paths, (json.dumps(generator.map(), indent=1), generator.text(objects))):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    if show:
        print(json.dumps(generator.map(), indent=1), json.dumps(objects, indent=1), sep="\n")
    code, policy, err = run(policyctl, "import", "kubernetes", "--map", paths[0], paths[1])
    assert code == 0, f"import: {err}"
    with open(paths[2], "w", encoding="utf-8") as file:
        file.write(policy)
    if show:
        print(policy)
    flows = list(flows_of(generator))
    known = list(known_flows(generator))
    verdicts = explain(policyctl, paths[2], [f[0] for f in flows] + [f[0] for f in known])
    assert len(verdicts) == len(flows) + len(known)
    for (line, *flow), verdict in zip(flows, verdicts):
        expected = "allow" if flow_passes(objects, *flow) else "deny"
        assert verdict[0] == expected, f"{line.strip()}: {expected} in Kubernetes, here {verdict}"
    for (line, expected), verdict in zip(known, verdicts[len(flows):]):
        assert verdict[0] == expected, f"{line.strip()}: {expected} whatever the policies, here {verdict}"
    return len(flows), sum(v[0] == "allow" for v in verdicts[:len(flows)])


def main():
    policyctl, seeds = sys.argv[1], [int(s) for s in sys.argv[2:]]
    flows = allowed = failed = 0
    with tempfile.TemporaryDirectory() as directory:
        for seed in seeds or range(ROUNDS):
            try:
                n, passed = check_round(policyctl, directory, seed, bool(seeds))
                flows += n
                allowed += passed
            except AssertionError as error:
                failed += 1
                print(f"seed {seed}: {error}")
    print(f"{flows} flows, {allowed} allowed; {failed} rounds failed")
    # A generator that allows or denies nearly everything tests nothing.
    if not seeds and not failed:
        assert 0.2 < allowed / flows < 0.8, "the rounds are one-sided"
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Policies to compile, of many rules in several shapes; the same for the same arguments."""
import random

TRUST_DOMAIN = "bench.example"
SERVICES = 50  # of policies that are not about ports
NETWORKS = 24  # of policies that are not about networks


def network(i):
    return f"10.{i >> 12 & 255}.{i >> 4 & 255}.{(i & 15) << 4}/28"


def spiffe(i):
    return f"spiffe://{TRUST_DOMAIN}/ns/n{i % 20}/sa/app{i}"


def service(rng):
    return f"{rng.choice(('tcp', 'tcp', 'tcp', 'udp'))}/{1000 + rng.randrange(SERVICES)}"


def identity_rule(rng, i, identities):
    """From one identity to another."""
    return {"from": f"app{rng.randrange(identities)}", "to": f"app{rng.randrange(identities)}", "service": service(rng)}


def port_rule(rng, i, identities):
    """Likewise, each on ports of its own."""
    first = 1 + rng.randrange(65000)
    return {"from": f"app{rng.randrange(identities)}", "to": f"app{rng.randrange(identities)}",
            "service": f"tcp/{first}" if i % 3 else f"tcp/{first}-{first + rng.randrange(300)}"}


def network_rule(rng, i, identities):
    """Between an identity and a network of its own."""
    ends = [f"app{rng.randrange(identities)}", f"net{i}"]
    if i % 2:
        ends.reverse()
    return {"from": ends[0], "to": ends[1], "service": service(rng)}


def mixed_rule(rng, i, identities):
    """Everything that an end can be."""
    def end():
        kind = rng.random()
        if kind < 0.70:
            return f"app{rng.randrange(identities)}"
        if kind < 0.80:
            return f"[{', '.join(f'app{rng.randrange(identities)}' for _ in range(5))}]"
        if kind < 0.85:
            return "any"
        if kind < 0.88:
            return "verified"
        if kind < 0.95:
            return f"net{rng.randrange(NETWORKS)}"
        return f"{{identity: app{rng.randrange(identities)}, network: net{rng.randrange(NETWORKS)}}}"
    return {"from": end(), "to": end(), "service": service(rng)}


def tiers_rule(rng, i, identities):
    """Likewise, with all that can make a rule step aside."""
    rule = mixed_rule(rng, i, identities)
    rule["tier"] = rng.choice(("guardrails", "app", "app", "app", "baseline"))
    rule["priority"] = rng.choice((0, 0, 0, 10))
    if rng.random() < 0.05:
        rule["action"] = "pass"
    elif rng.random() < 0.05:
        rule.update(action="deny", mode="audit")
    if rng.random() < 0.02:
        rule["until"] = f"2030-01-{1 + rng.randrange(28):02}T00:00:00Z"
    return rule


SHAPES = {"identities": identity_rule, "ports": port_rule, "networks": network_rule, "mixed": mixed_rule,
          "tiers": tiers_rule}


def text(shape, identities, rules, variant=""):
    """The YAML of a policy; with a variant, of another one of the same names."""
    rng = random.Random(f"{shape} {identities} {rules}{variant}")
    networks = rules if shape == "networks" else NETWORKS if shape in ("mixed", "tiers") else 0
    lines = ["bulkhead: 1", "identities:", *(f"  app{i}: {spiffe(i)}" for i in range(identities))]
    if networks:
        lines += ["networks:"]
        for i in range(networks):
            # The few overlap: each is a part of the one before.
            block = network(i) if shape == "networks" else f"10.{i // 4 * 32}.0.0/{11 + i % 4 * 4}"
            lines.append(f"  net{i}: {block}")
    if shape == "tiers":
        lines.append("tiers: [guardrails, app, baseline]")
    lines.append("rules:")
    for i in range(rules):
        rule = {"action": "deny" if rng.random() < 0.2 else "allow", **SHAPES[shape](rng, i, identities)}
        lines.append(f"  - {{name: r{i}, " + ", ".join(f"{key}: {value}" for key, value in rule.items()) + "}")
    return "\n".join(lines) + "\n"


def edited(policy, n):
    """The policy after n edits: rules, evenly spread, do the opposite."""
    lines = policy.splitlines(True)
    rules = [i for i, line in enumerate(lines) if "action: allow" in line or "action: deny" in line]
    for i in rules[len(rules) // (2 * n)::len(rules) // n][:n]:
        old, new = ("deny", "allow") if "action: deny" in lines[i] else ("allow", "deny")
        lines[i] = lines[i].replace(f"action: {old}", f"action: {new}").replace(", mode: audit", "")
    return "".join(lines)


def flows(identities, n):
    """Lines for `explain --batch`."""
    rng = random.Random(f"{identities} {n}")

    def end():
        kind = rng.random()
        if kind < 0.6:
            return spiffe(rng.randrange(identities))
        address = f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}"
        return address if kind < 0.7 else f"{spiffe(rng.randrange(identities))}@{address}"
    return "".join(f"{end()}\t{end()}\ttcp/{990 + rng.randrange(SERVICES + 20)}\n" for _ in range(n))

# SPDX-License-Identifier: Apache-2.0
"""Rule sets of a given number of rules: one allows the benchmark's traffic, all others are about someone else.

For the peers they are written as one would write them by hand; in a linear list the rule that matches is the last. They
filter on the server's side only, which is less than half of what Bulkhead does: it judges each flow at both ends."""
import policies

PORTS = 20  # distinct ones among the rules of the peers that do not match
SERVICES = 4  # ports of the benchmark's traffic, from `port` on
SHAPES = {"": "ports", "m": "mixed", "i": "identities", "n": "networks"}


def address(i):
    return f"172.{16 + (i >> 12) % 16}.{(i >> 4) & 255}.{(i & 15) << 4}"


def parse_size(text):
    """"1000" is 1,000 rules between ten identities, each rule on ports of its own: the longest rows that a policy can
    have. Other shapes (policies.py): "1000m" also networks, lists and `any` between ten identities; "1000i" among as
    many identities as rules, up to 10,000; "1000n" between identities and a network for each rule."""
    return (int(text[:-1]), text[-1]) if text[-1] in SHAPES else (int(text), "")


def bulkhead(size, trust_domain, port, variant=0, allow=True):
    """The benchmark's rule has a priority of its own, for others may deny the same ports. `variant` makes all other rules
    different ones; without `allow` the benchmark's is one that denies."""
    rules, kind = parse_size(size)
    identities = min(max(rules, 2), 10000) if kind == "i" else 10
    text = policies.text(SHAPES[kind], identities, rules - 1, variant or "")
    # Two of the identities are those that talk: many rules are about them, too.
    for i, name in enumerate(("web", "db")):
        text = text.replace(f"  app{i}: {policies.spiffe(i)}\n", f"  app{i}: spiffe://{trust_domain}/{name}\n")
    last = port + SERVICES - 1
    return text + (f"  - {{name: bench, priority: -1, action: {'allow' if allow else 'deny'}, from: app0, to: app1, "
                   f"service: [tcp/{port}-{last}, udp/{port}-{last}]}}\n")


def is_deny(i):
    return i % 3 == 2


def _nft_table(conntrack, rules, maps=""):
    state = "\t\tct state established,related accept\n" if conntrack else ""
    return f"""\
table inet bench
delete table inet bench
table inet bench {{
{maps}\tchain input {{
		type filter hook input priority 0; policy drop;
{state}		icmp type echo-request accept
{rules}	}}
}}
"""


def nft_linear(rules, client, port, conntrack):
    """One rule below the other. Without conntrack, what comes back to the client is a rule, too, the very last: it is met
    where both ends are in one namespace."""
    ports = f"{port}-{port + SERVICES - 1}"
    lines = [f"\t\tip saddr {address(i)}/28 tcp dport {7000 + i % PORTS} {'drop' if is_deny(i) else 'accept'}\n"
             for i in range(rules - 1)]
    lines.append(f"\t\tip saddr {client} meta l4proto {{ tcp, udp }} th dport {ports} accept\n")
    if not conntrack:
        lines.append(f"\t\tip saddr {client} meta l4proto {{ tcp, udp }} th sport {ports} accept\n")
    return _nft_table(conntrack, "".join(lines))


def nft_set(rules, client, port, conntrack):
    """A rule here is an element of a verdict map, looked up by address and port: the fastest form that nftables has."""
    elements = [f"{address(i)} . {7000 + i % PORTS} : {'drop' if is_deny(i) else 'accept'}" for i in range(rules - 1)]
    elements += [f"{client} . {p} : accept" for p in range(port, port + SERVICES)]
    maps = ("\tmap allowed {\n\t\ttype ipv4_addr . inet_service : verdict\n\t\telements = { "
            + ", ".join(elements) + " }\n\t}\n")
    rules_text = "\t\tmeta l4proto { tcp, udp } ip saddr . th dport vmap @allowed\n"
    if not conntrack:
        rules_text += f"\t\tip saddr {client} th sport {port}-{port + SERVICES - 1} accept\n"
    return _nft_table(conntrack, rules_text, maps)


def iptables(rules, client, port, conntrack):
    """For iptables-restore."""
    ports = f"{port}:{port + SERVICES - 1}"
    lines = ["*filter", ":INPUT DROP [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
    if conntrack:
        lines.append("-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
    lines.append("-A INPUT -p icmp --icmp-type echo-request -j ACCEPT")
    lines += [f"-A INPUT -s {address(i)}/28 -p tcp --dport {7000 + i % PORTS} -j {'DROP' if is_deny(i) else 'ACCEPT'}"
              for i in range(rules - 1)]
    ways = ("--dport",) if conntrack else ("--dport", "--sport")
    lines += [f"-A INPUT -s {client} -p {protocol} {way} {ports} -j ACCEPT" for way in ways
              for protocol in ("tcp", "udp")]
    return "\n".join([*lines, "COMMIT", ""])

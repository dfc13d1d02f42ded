# SPDX-License-Identifier: Apache-2.0
"""Policies of a given number of rules: one allows the benchmark's traffic, all others are about someone else."""

PORTS = 20  # distinct ones among the rules that do not match


def address(i):
    return f"172.{16 + (i >> 12) % 16}.{(i >> 4) & 255}.{(i & 15) << 4}"


def parse_size(text):
    """"1000" is 1,000 rules, half of which name networks and half identities; "1000i" only identities, "1000n" only
    networks."""
    return (int(text[:-1]), text[-1]) if text[-1] in "in" else (int(text), "")


def bulkhead(size, trust_domain, port, variant=0):
    """Every third rule denies. `variant` changes the ports."""
    rules, kind = parse_size(size)
    identities = [f"  web: spiffe://{trust_domain}/web", f"  db: spiffe://{trust_domain}/db"]
    networks, lines = [], []
    for i in range(rules - 1):
        service = f"tcp/{7000 + 100 * variant + i % PORTS}"
        action = "deny" if i % 3 == 2 else "allow"
        if (kind or "ni"[i % 2]) == "i":
            identities.append(f"  app{i}: spiffe://{trust_domain}/app/{i}")
            source = f"app{i}"
        else:
            networks.append(f"  net{i}: {address(i)}/28")
            source = f"net{i}"
        lines.append(f"  - {{name: rule{i}, action: {action}, from: {source}, to: db, service: {service}}}")
    lines.append(f"  - {{name: bench, action: allow, from: web, to: db, service: [tcp/{port}-{port + 3}, "
                 f"udp/{port}-{port + 3}]}}")
    text = ["bulkhead: 1", "identities:", *identities]
    if networks:
        text += ["networks:", *networks]
    return "\n".join([*text, "rules:", *lines]) + "\n"


def nft(rules, client, port):
    """A rule here is an element of a verdict map, looked up by address and port."""
    elements = [f"{address(i)} . {7000 + i % PORTS} : {'drop' if i % 3 == 2 else 'accept'}" for i in range(rules - 1)]
    elements += [f"{client} . {p} : accept" for p in range(port, port + 4)]
    return f"""\
table inet bench
delete table inet bench
table inet bench {{
	map allowed {{
		type ipv4_addr . inet_service : verdict
		elements = {{ {", ".join(elements)} }}
	}}
	chain input {{
		type filter hook input priority 0; policy drop;
		ct state established,related accept
		icmp type echo-request accept
		meta l4proto {{ tcp, udp }} ip saddr . th dport vmap @allowed
	}}
}}
"""

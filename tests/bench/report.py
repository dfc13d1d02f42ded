# SPDX-License-Identifier: Apache-2.0
"""From samples to tables."""
import os
import platform
import statistics
import subprocess

UNITS = {"crr": ("connections/s", 1), "rr": ("transactions/s", 1), "stream": ("Gbit/s", 8e-9), "udp": ("packets/s", 1),
         "udpto": ("packets/s", 1)}


def machine():
    model = "?"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"kernel": platform.release(), "cpu": model, "cpus": os.cpu_count(), "load": os.getloadavg()}


def version(policyctl):
    done = subprocess.run([policyctl, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarize(samples):
    """samples: [{round, place, workload, system, rate}]. A ratio is always between two samples of the same round."""
    by = {}
    for s in samples:
        by.setdefault((s["place"], s["workload"]), {}).setdefault(s["system"], {})[s["round"]] = s["rate"]
    rows = []
    for (place, workload), systems in by.items():
        for system, rates in systems.items():
            row = {"place": place, "workload": workload, "system": system, "rate": spread(list(rates.values()))}
            for base in ("none", "empty"):
                common = [r for r in rates if r in systems.get(base, {})]
                if common and base != system:
                    row[f"to_{base}"] = spread([rates[r] / systems[base][r] for r in common])
                    if workload != "stream":
                        row[f"ns_over_{base}"] = statistics.median(1e9 / rates[r] - 1e9 / systems[base][r]
                                                                   for r in common)
            rows.append(row)
    return rows


def ratio(row, key):
    if key not in row:
        return "", ""
    value = row[key]
    return f"{value['median']:.3f}", f"{value['min']:.3f}..{value['max']:.3f}"


def table(rows):
    head = ["place", "workload", "system", "median", "unit", "to none", "min..max", "to empty", "min..max",
            "ns over empty"]
    body = []
    for row in rows:
        unit, scale = UNITS[row["workload"]]
        rate = row["rate"]["median"] * scale
        shown = f"{rate:.2f}" if rate < 1000 else f"{rate:.0f}"
        ns = f"{row['ns_over_empty']:+.0f}" if "ns_over_empty" in row else ""
        body.append([row["place"], row["workload"], row["system"], shown, unit, *ratio(row, "to_none"),
                     *ratio(row, "to_empty"), ns])
    return head, body


def text(head, body):
    widths = [max(len(str(r[i])) for r in [head, *body]) for i in range(len(head))]
    lines = ["  ".join(str(c).ljust(w) for c, w in zip(r, widths)).rstrip() for r in [head, *body]]
    return "\n".join(lines)


def markdown(head, body):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(c) for c in r) + " |" for r in body]
    return "\n".join(lines)

# SPDX-License-Identifier: Apache-2.0
"""From samples to tables."""
import os
import platform
import statistics
import subprocess

UNITS = {"crr": ("connections/s", 1), "rr": ("transactions/s", 1), "stream": ("Gbit/s", 8e-9), "udp": ("packets/s", 1),
         "udpto": ("packets/s", 1)}
SCALE = {"stream": 1 << 20}  # CPU time per MiB


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
    """samples: [{round, place, workload, system, rate, cpu_ns_per_op}]. What is compared is of the same round."""
    by = {}
    for s in samples:
        by.setdefault((s["place"], s["workload"]), {}).setdefault(s["system"], {})[s["round"]] = s
    rows = []
    for (place, workload), systems in by.items():
        for system, own in systems.items():
            row = {"place": place, "workload": workload, "system": system,
                   "rate": spread([s["rate"] for s in own.values()]),
                   "cpu_ns": spread([s["cpu_ns_per_op"] * SCALE.get(workload, 1) for s in own.values()])}
            for base in ("none", "empty"):
                pairs = [(own[r], systems[base][r]) for r in own if r in systems.get(base, {})]
                if pairs and base != system:
                    row[f"to_{base}"] = spread([a["rate"] / b["rate"] for a, b in pairs])
                    row[f"cpu_to_{base}"] = spread([b["cpu_ns_per_op"] / a["cpu_ns_per_op"] for a, b in pairs])
            rows.append(row)
    return rows


def ratio(row, key):
    if key not in row:
        return "", ""
    value = row[key]
    return f"{value['median']:.3f}", f"{value['min']:.3f}..{value['max']:.3f}"


def table(rows):
    """The last columns are the same comparison in CPU time instead of rate: what the machine does beside this is not in
    it."""
    head = ["place", "workload", "system", "median", "unit", "to none", "min..max", "to empty", "min..max",
            "CPU ns/op", "CPU to empty", "min..max"]
    body = []
    for row in rows:
        unit, scale = UNITS[row["workload"]]
        rate = row["rate"]["median"] * scale
        shown = f"{rate:.2f}" if rate < 1000 else f"{rate:.0f}"
        body.append([row["place"], row["workload"], row["system"], shown, unit, *ratio(row, "to_none"),
                     *ratio(row, "to_empty"), f"{row['cpu_ns']['median']:.0f}", *ratio(row, "cpu_to_empty")])
    return head, body


def text(head, body):
    widths = [max(len(str(r[i])) for r in [head, *body]) for i in range(len(head))]
    lines = ["  ".join(str(c).ljust(w) for c, w in zip(r, widths)).rstrip() for r in [head, *body]]
    return "\n".join(lines)


def markdown(head, body):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(c) for c in r) + " |" for r in body]
    return "\n".join(lines)

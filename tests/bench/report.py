# SPDX-License-Identifier: Apache-2.0
"""From samples to tables. A ratio is always between two samples of one round."""
import datetime
import os
import platform
import random
import statistics
import subprocess

UNITS = {"crr": ("connections/s", 1), "rr": ("transactions/s", 1), "stream": ("Gbit/s", 8e-9), "udp": ("packets/s", 1),
         "udpto": ("packets/s", 1)}
TITLES = {"crr": "new connections", "rr": "request/response", "stream": "stream", "udp": "UDP, 64 bytes",
          "udpto": "UDP, unconnected"}
SCALE = {"stream": 1 << 20}  # CPU time per MiB
RESAMPLES = 1000


def machine():
    model = "?"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"kernel": platform.release(), "cpu": model, "cpus": os.cpu_count(), "load": os.getloadavg(),
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "nft": tool_version("nft"), "iptables": tool_version("iptables")}


def tool_version(tool):
    try:
        done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def version(policyctl):
    done = subprocess.run([policyctl, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def git_revision(directory):
    """The commit that was measured; "+" where files were changed since."""
    def git(*args):
        done = subprocess.run(["git", "-C", directory, *args], capture_output=True, text=True, check=False)
        return done.stdout.strip()
    revision = git("rev-parse", "--short=12", "HEAD")
    return (revision + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")) or "unknown"


def quantile(values, q):
    values = sorted(values)
    at = q * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)


def uncertainty(values):
    """Half of the range in which the median lies with 95 %, by drawing from the values again."""
    rng = random.Random(1)
    medians = [statistics.median(rng.choices(values, k=len(values))) for _ in range(RESAMPLES)]
    return (quantile(medians, 0.975) - quantile(medians, 0.025)) / 2


def spread(values):
    return {"median": statistics.median(values), "p10": quantile(values, 0.1), "p90": quantile(values, 0.9),
            "min": min(values), "max": max(values), "n": len(values), "uncertainty": uncertainty(values)}


def by_place(samples):
    by = {}
    for s in samples:
        by.setdefault((s["place"], s["workload"]), {}).setdefault(s["system"], {})[s["round"]] = s
    return by


def ratios(over, under, key="rate"):
    """Of the rounds that have both."""
    return [over[r][key] / under[r][key] for r in over if r in under]


def summarize(samples):
    """samples: [{round, place, workload, system, rate, cpu_ns_per_op}]."""
    rows = []
    for (place, workload), systems in by_place(samples).items():
        for system, own in systems.items():
            row = {"place": place, "workload": workload, "system": system,
                   "rate": spread([s["rate"] for s in own.values()]),
                   "cpu_ns": spread([s["cpu_ns_per_op"] * SCALE.get(workload, 1) for s in own.values()])}
            for base in ("none", "empty"):
                if base == system or not ratios(own, systems.get(base, {})):
                    continue
                row[f"to_{base}"] = spread(ratios(own, systems[base]))
                row[f"cpu_to_{base}"] = spread(ratios(systems[base], own, "cpu_ns_per_op"))
            rows.append(row)
    return rows


def slopes(samples, small, large):
    """The most rules against the fewest."""
    rows = []
    for (place, workload), systems in by_place(samples).items():
        values = ratios(systems.get(large, {}), systems.get(small, {}))
        if values:
            rows.append({"place": place, "workload": workload, "what": f"{large} to {small}", **spread(values)})
    return rows


def ahead(samples, ours):
    """How far `ours` is ahead of every other system: above 1, it is."""
    rows = []
    for (place, workload), systems in by_place(samples).items():
        for system, own in systems.items():
            values = ratios(systems.get(ours, {}), own)
            if values and system != ours:
                rows.append({"place": place, "workload": workload, "system": system, **spread(values)})
    return rows


# ---- tables: a head and a body ----

def cell(row):
    return f"{row['median']:.3f} ({row['p10']:.3f}..{row['p90']:.3f})" if row else ""


def grid(rows, value):
    """Systems down, places and workloads across."""
    columns = list(dict.fromkeys((r["place"], r["workload"]) for r in rows))
    systems = list(dict.fromkeys(r["system"] for r in rows))
    at = {(r["system"], r["place"], r["workload"]): r for r in rows}
    head = ["system", *(f"{TITLES[w]}, {p}" for p, w in columns)]
    return head, [[s, *(value(at.get((s, p, w))) for p, w in columns)] for s in systems]


def traffic_table(rows):
    """The baseline in its units, all others as ratios to it."""
    def value(row):
        if not row:
            return ""
        if row["system"] != "none":
            return cell(row.get("to_none"))
        unit, scale = UNITS[row["workload"]]
        rate = row["rate"]["median"] * scale
        return f"{rate:,.2f} {unit}" if rate < 1000 else f"{rate:,.0f} {unit}"
    return grid(rows, value)


def cpu_table(rows):
    """Processor time of both ends per operation: what the machine does beside this is not in it."""
    def value(row):
        if not row:
            return ""
        to_none = f" ({row['cpu_to_none']['median']:.3f})" if "cpu_to_none" in row else ""
        return f"{row['cpu_ns']['median']:,.0f}{to_none}"
    return grid(rows, value)


def ahead_table(rows):
    return grid(rows, lambda row: f"{row['median']:.2f}" if row else "")


def slope_table(rows):
    """With how far the median can be trusted."""
    return (["place", "workload", "ratio", "median", "p10..p90", "median ±"],
            [[r["place"], TITLES[r["workload"]], r["what"], f"{r['median']:.3f}", f"{r['p10']:.3f}..{r['p90']:.3f}",
              f"{r['uncertainty']:.3f}"] for r in rows])


def resolution_table(rows):
    """What one against the other of two systems without a filter shows, and how exact the medians are."""
    body = []
    for row in rows:
        if row["system"] in ("none-again", "empty") and "to_none" in row:
            r = row["to_none"]
            body.append([row["system"], row["place"], TITLES[row["workload"]], f"{r['median']:.3f}",
                         f"{r['p10']:.3f}..{r['p90']:.3f}", f"{r['uncertainty']:.3f}"])
    return ["system", "place", "workload", "to none", "p10..p90", "median ±"], body


def text(head, body):
    widths = [max(len(str(r[i])) for r in [head, *body]) for i in range(len(head))]
    lines = ["  ".join(str(c).ljust(w) for c, w in zip(r, widths)).rstrip() for r in [head, *body]]
    return "\n".join(lines)


def markdown(head, body):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(c) for c in r) + " |" for r in body]
    return "\n".join(lines)

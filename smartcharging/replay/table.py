"""The table people read: one row for each policy, the mean over the seeds; and ours against each other, day by day."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

import numpy as np

from smartcharging.replay.kpis import Kpis
from smartcharging.replay.study import BASELINES, OFFLINE, OURS_NAME

Results = Mapping[int, Mapping[str, Kpis]]
HEAD = (
    "policy", "delivered", "full", "bill EUR", "unserved EUR", "peak kW", "total/offline", "peak/offline", "self-cons.",
    "over limit", "Jain", "switches", "plan ms", "cpu s",
)  # fmt: skip
WORSE_THAN_LLF = 0.01


def rows(results: Results) -> list[tuple[str, ...]]:
    """A line per policy, in the order they were asked for."""
    names = list(next(iter(results.values()), {}))
    return [_row(name, results) for name in names]


def _row(name: str, results: Results) -> tuple[str, ...]:
    mine = [found[name] for found in results.values()]

    def mean(what: str) -> float:
        return float(np.mean([getattr(k, what) for k in mine]))

    total, peak = _against(name, results, "total_eur"), _against(name, results, "peak_kw")
    return (
        name,
        f"{100 * mean('delivered'):.2f} %",
        f"{100 * mean('full'):.1f} %",
        f"{mean('bill_eur'):.0f}",
        f"{mean('unserved_eur'):.1f}",
        f"{mean('peak_kw'):.1f}",
        "-" if total is None else f"{total:.3f}",
        "-" if peak is None else f"{peak:.3f}",
        f"{100 * mean('self_consumption'):.1f} %",
        f"{sum(k.over_steps for k in mine):.0f}",
        f"{mean('fairness'):.3f}",
        f"{float(np.median([k.switches for k in mine])):.0f}",
        f"{1000 * mean('plan_s'):.0f}",
        f"{mean('cpu_s'):.1f}",
    )


def _against(name: str, results: Results, what: str) -> float | None:
    """The mean over seeds of the ratio to the optimum in hindsight."""
    pairs = [(getattr(f[name], what), getattr(f[OFFLINE], what)) for f in results.values() if OFFLINE in f]
    return float(np.mean([a / b for a, b in pairs])) if pairs else None


def paired(results: Results) -> list[str]:
    """Ours against each baseline on the same days: how often cheaper, and by how much it was worse at worst."""
    lines = []
    for name in BASELINES:
        pairs = [(f[OURS_NAME].total_eur, f[name].total_eur) for f in results.values() if OURS_NAME in f and name in f]
        if not pairs:
            continue
        better = sum(a < b for a, b in pairs) / len(pairs)
        regret = max(a / b - 1 for a, b in pairs)
        often, worst = f"{100 * better:5.1f} % of {len(pairs)} seeds", f"{100 * regret:+.1f} %"
        lines.append(f"ours is cheaper than {name:14} in {often}; at worst {worst}")
    return lines


def text(results: Results) -> str:
    """Markdown, columns aligned."""
    table = [HEAD, *rows(results)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join([*lines, "", *paired(results)])


def as_csv(results: Results, facts: Sequence[tuple[str, str]] = ()) -> str:
    """Every number of every seed; `facts` are columns that are the same in all lines."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f.name for f in fields(Kpis)]
    writer.writerow([*(k for k, _ in facts), "seed", "policy", *names, "total_eur"])
    for seed, found in results.items():
        for name, kpis in found.items():
            values = asdict(kpis)
            writer.writerow(
                [*(v for _, v in facts), seed, name, *(f"{values[n]:.6g}" for n in names), f"{kpis.total_eur:.6g}"]
            )
    return out.getvalue()

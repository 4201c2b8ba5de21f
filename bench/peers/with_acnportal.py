"""acnportal's sorted algorithm, the one in common use, for one step of the live layer.

Reads {"rows": cars per row, "limits", "most", "runs"} from standard input; writes {"seconds" of CPU per run, "used_a",
"versions"}. A run on the first few cars warms it up.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from acnportal import algorithms
from acnportal.acnsim.interface import InfrastructureInfo, SessionInfo

FEW = 10


class Interface:
    """What the algorithm asks of a site."""

    period, current_time = 5, 0

    def __init__(self, infrastructure: InfrastructureInfo) -> None:
        self._infrastructure = infrastructure

    def infrastructure_info(self) -> InfrastructureInfo:
        return self._infrastructure

    def remaining_amp_periods(self, session: Any) -> float:
        return session.remaining_demand * 1000 / 230 / (self.period / 60)


def step(task: dict[str, Any]) -> tuple[float, float]:
    """Seconds of CPU, and the amps given away."""
    most = np.array(task["most"])
    cars = len(most)
    rows = np.zeros((len(task["rows"]), cars))
    for number, members in enumerate(task["rows"]):
        rows[number, members] = 1.0
    names = [f"S{i}" for i in range(cars)]
    infrastructure = InfrastructureInfo(
        rows,
        np.array(task["limits"]),
        np.zeros(cars),
        np.full(cars, 230.0),
        [f"c{j}" for j in range(len(rows))],
        names,
        most,
        np.zeros(cars),
        [np.array([0.0, a]) for a in most],
        np.ones(cars, bool),
    )
    sessions = [
        SessionInfo(
            names[i], f"s{i}", 9.0, 0.0, 0, 24 + i % 50, current_time=0, min_rates=0.0, max_rates=float(most[i])
        )
        for i in range(cars)
    ]
    algorithm = algorithms.SortedSchedulingAlgo(algorithms.earliest_deadline_first)
    algorithm.register_interface(Interface(infrastructure))
    began = time.process_time()
    schedule = algorithm.schedule(sessions)
    return time.process_time() - began, float(sum(v[0] for v in schedule.values()))


def main() -> None:
    task = json.load(sys.stdin)
    few = [[car for car in row if car < FEW] for row in task["rows"]]
    step({"rows": few, "limits": task["limits"], "most": task["most"][:FEW]})
    answers = [step(task) for _ in range(task["runs"])]
    told = {
        "seconds": [s for s, _ in answers],
        "used_a": answers[-1][1],
        "versions": f"acnportal {version('acnportal')}",
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()

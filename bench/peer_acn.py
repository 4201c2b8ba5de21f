"""acnportal's sorted algorithm on a given matrix, run in an environment of its own by `bench/live.py`.

Reads {"rows": cars per row, "limits", "most"} from standard input, writes {"seconds", "used_a"}.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from acnportal import algorithms
from acnportal.acnsim.interface import InfrastructureInfo, SessionInfo


class Interface:
    """What the algorithm asks of a site."""

    period, current_time = 5, 0

    def __init__(self, infrastructure: InfrastructureInfo) -> None:
        self._infrastructure = infrastructure

    def infrastructure_info(self) -> InfrastructureInfo:
        return self._infrastructure

    def remaining_amp_periods(self, session: Any) -> float:
        return session.remaining_demand * 1000 / 230 / (self.period / 60)


def main() -> None:
    task = json.load(sys.stdin)
    cars = len(task["most"])
    rows = np.zeros((len(task["rows"]), cars))
    for number, members in enumerate(task["rows"]):
        rows[number, members] = 1.0
    names, most = [f"S{i}" for i in range(cars)], np.array(task["most"])
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
    seconds = time.process_time() - began
    json.dump({"seconds": seconds, "used_a": float(sum(v[0] for v in schedule.values()))}, sys.stdout)


if __name__ == "__main__":
    main()

"""The closed loop: days on the synthetic site under ours, nine other ways of sharing and the optimum in hindsight.

python -m bench replay           three seeds at each level; `manage.py replay` has all options
"""

from __future__ import annotations

import os
import time

from smartcharging.replay import table
from smartcharging.replay.site import Level
from smartcharging.replay.study import Question, study

SEEDS, SOCKETS = (1, 2, 3), 60


def run() -> None:
    for level in Level:
        print(f"### {level}, {SOCKETS} sockets, seeds {SEEDS[0]} to {SEEDS[-1]}\n", flush=True)
        jobs = min(os.cpu_count() or 1, len(SEEDS))
        results = dict(study(Question(level=level, sockets=SOCKETS), SEEDS, jobs, time.process_time))
        print(table.text(results) + "\n", flush=True)

"""How long the workers' tasks take, and how they end: told with the metrics of each worker process."""

from __future__ import annotations

import time
from typing import Any

from celery.signals import task_failure, task_postrun, task_prerun, task_revoked

from meters import metrics
from meters.metrics import Counter, Histogram

TASK_S = Histogram("task_seconds", "How long a task of a worker took.", "task")
TASKS = Counter("tasks_total", "Tasks of the workers, by how they ended: done, failed, expired.", "task", "outcome")
KEPT_S = 900
"""A worker's numbers are told after a task, so they live longer than the pause between two of them."""

_began: dict[str, float] = {}


def _short(task: Any) -> str:
    return str(getattr(task, "name", task)).rpartition(".")[2]


@task_prerun.connect
def begins(task_id: str = "", **_: Any) -> None:
    _began[task_id] = time.perf_counter()


@task_postrun.connect
def ends(task_id: str = "", task: Any = None, state: str | None = None, **_: Any) -> None:
    began = _began.pop(task_id, None)
    if began is None:
        return
    TASK_S.observe(time.perf_counter() - began, _short(task))
    if state != "FAILURE":
        TASKS.add(_short(task), "done")
    metrics.publish_now_and_then(metrics.process_name("worker"), KEPT_S)


@task_failure.connect
def failed(sender: Any = None, **_: Any) -> None:
    TASKS.add(_short(sender), "failed")


@task_revoked.connect
def thrown_away(sender: Any = None, expired: bool = False, **_: Any) -> None:
    TASKS.add(_short(sender), "expired" if expired else "revoked")
    metrics.publish_now_and_then(metrics.process_name("worker"), KEPT_S)

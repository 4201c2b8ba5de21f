"""The Celery application and its clock. Tasks live in `smartcharging/tasks.py` and `csms/tasks.py`.

Two queues, so that protection (`control`) never waits behind planning (`slow`). A tick that nobody took in time is
thrown away (`expires`): the next one does the same, and a worker that comes back does not work through a heap.
"""

from __future__ import annotations

import os

from celery import Celery
from celery.schedules import crontab
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")

app = Celery("laadplein")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["csms", "smartcharging"])

ROOMS = ("csms.tasks", "smartcharging.tasks")
CONTROL = ("balance", "balance_all")


def route(name: str, *_: object, **__: object) -> dict[str, str] | None:
    """Which queue a task waits in."""
    room, _dot, task = name.rpartition(".")
    if room not in ROOMS:
        return None
    return {"queue": "control" if task in CONTROL else "slow"}


def tick(task: str, schedule: object, expires_s: int, room: str = "smartcharging") -> dict[str, object]:
    name = f"{room}.tasks.{task}"
    return {"task": name, "schedule": schedule, "options": {"expires": expires_s, **(route(name) or {})}}


def clock(balance_s: int, plan_minutes: int) -> dict[str, dict[str, object]]:
    """What rings when."""
    return {
        "balance": tick("balance_all", float(balance_s), balance_s),
        "plan": tick("plan_all", plan_minutes * 60.0, plan_minutes * 60),
        "roll up": tick("roll_up", crontab(), 50),
        "prices": tick("fetch_prices", crontab(minute=5), 1800),
        "weather": tick("fetch_weather", crontab(minute=20), 1800),
        "learn": tick("learn", crontab(hour=1, minute=30), 6 * 3600),
        "tidy": tick("tidy", crontab(hour=2, minute=30), 6 * 3600),
        "local lists": tick("keep_local_lists", 60.0, 55, "csms"),
        "reservations": tick("keep_reservations", 20.0, 18, "csms"),
        "rollouts": tick("advance_rollouts", 30.0, 28, "csms"),
        "logs": tick("keep_logs", 600.0, 550, "csms"),
    }


@app.on_after_configure.connect
def set_clock(sender: Celery, **_: object) -> None:
    """Only now may the settings be read: this module is imported while they are being made."""
    sender.conf.task_routes = (route,)
    sender.conf.beat_schedule = clock(settings.BALANCE_S, settings.PLAN_MINUTES)

"""The Celery application and its clock. Tasks live in `smartcharging/tasks.py` and `meters/`-room doors."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")

app = Celery("laadplein")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["smartcharging"])

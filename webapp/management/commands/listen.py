"""`manage.py listen`: readings and transactions become balances and plans on the queue."""

from __future__ import annotations

import signal
from typing import Any

from django.core.management.base import BaseCommand

from smartcharging.listener import Listener


class Command(BaseCommand):
    help = "Listen to readings, transactions and statuses, and ask for balances and plans."

    def handle(self, *args: Any, **options: Any) -> None:
        listener = Listener()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: listener.stop())
        listener.run(ready=lambda: self.stdout.write("listening"))

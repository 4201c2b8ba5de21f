"""`manage.py demo`: create or update the demo site, its people and its past."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.translation import gettext as _

from smartcharging.sitefile import SiteFileError
from webapp.demo import loading


class Command(BaseCommand):
    help = "Creates or updates the demo site, with its own passwords and ports; safe to repeat."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            loaded = loading.load(settings.DATA_DIR, timezone.now())
        except (loading.NameTaken, SiteFileError) as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"DATA_DIR: {error}") from error
        made = ", ".join(f"{number} {what}" for what, number in loaded.counts.items() if number)
        self.stdout.write(
            _("Demo site “%(site)s”: %(made)s.") % {"site": loaded.site, "made": made or _("everything was there")}
        )
        self.stdout.write(_("Demo logins: %(file)s") % {"file": settings.DATA_DIR / "demo-logins.json"})
        for name, password in loaded.logins.items():
            self.stdout.write(f"  {name:<10} {password}")

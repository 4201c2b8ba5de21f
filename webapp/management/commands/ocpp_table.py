"""Make docs/ocpp.md, the table of OCPP messages, from the code."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import gettext as _

from webapp.ocpp_table import ROOT, markdown

PAGE = ROOT / "docs" / "ocpp.md"


class Command(BaseCommand):
    help = "Make docs/ocpp.md, the table of OCPP messages, from the code"
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="only say whether it is up to date")

    def handle(self, *args: Any, **options: Any) -> None:
        made = markdown()
        known = PAGE.read_text() if PAGE.exists() else ""
        if options["check"]:
            if made != known:
                raise CommandError(_("docs/ocpp.md is out of date; make it with manage.py ocpp_table"))
            return
        PAGE.write_text(made)
        self.stdout.write(_("docs/ocpp.md is made") if made != known else _("docs/ocpp.md was up to date"))

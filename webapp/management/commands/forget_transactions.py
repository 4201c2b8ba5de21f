"""Take old charges out of the ledger: the only way there is."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime, time
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_date

from csms import retention
from meters.models import Site


class Command(BaseCommand):
    help = "Forget charges that ended before a day, with their events, meter values and signed readings."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--before", required=True, help="a day, such as 2019-01-01; its midnight UTC")
        parser.add_argument("--site", help="only charges of this site, by name")
        parser.add_argument("--yes", action="store_true", help="do it; without, only say what would go")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            day = parse_date(options["before"])
        except ValueError:
            day = None
        if day is None:
            raise CommandError(f"--before {options['before']}: write a day as 2019-01-01.")
        before = datetime.combine(day, time(), UTC)
        if before > datetime.now(UTC):
            raise CommandError("--before lies in the future.")
        site_pk = None
        if options["site"]:
            site = Site.objects.filter(name=options["site"]).first()
            if site is None:
                raise CommandError(f"There is no site “{options['site']}”.")
            site_pk = site.pk
        if not options["yes"]:
            count = len(retention.old(before, site_pk))
            self.stdout.write(f"{count} charges ended before {day}. With --yes they are forgotten, for good.")
            return
        done = retention.forget(before, site_pk)
        self.stdout.write(
            f"Forgotten: {done.transactions} charges, {done.events} events, {done.samples} meter values, "
            f"{done.signed} signed readings, {done.unmatched} unmatched ends."
        )

"""`manage.py load_site site.toml [--check]`: create or update a site from its file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, ProgrammingError

from smartcharging.load import load
from smartcharging.sitefile import LARGEST_BYTES, SiteFileError, parse
from webapp.preflight import NO_TABLES


class Command(BaseCommand):
    help = "Create or update a site from its file. With --check nothing is changed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", help="the site file (TOML); - reads standard input")
        parser.add_argument("--check", action="store_true", help="say what would be done and change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = load(parse(_read(options["file"])), dry_run=options["check"])
        except OSError as error:
            raise CommandError(f"{options['file']}: {error.strerror or error}") from error
        except (OperationalError, ProgrammingError) as error:
            raise CommandError(NO_TABLES.format(error=error)) from error
        except SiteFileError as error:
            for problem in error.problems:
                self.stderr.write(str(problem))
            count = len(error.problems)
            raise CommandError(
                f"{options['file']}: {count} {'problem' if count == 1 else 'problems'}; nothing was changed"
            ) from error
        for line in report.lines():
            self.stdout.write(line)
        done = "is in order; nothing was changed" if options["check"] else "is loaded"
        self.stdout.write(self.style.SUCCESS(f"{report.site.name} {done}"))


def _read(name: str) -> bytes:
    """One byte more than is allowed, so that too large is seen without reading it all."""
    if name == "-":
        return sys.stdin.buffer.read(LARGEST_BYTES + 1)
    with Path(name).open("rb") as file:
        return file.read(LARGEST_BYTES + 1)

"""`manage.py replay`: live days on a site in virtual time, under our engine and under others, and compare."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from smartcharging.replay import table
from smartcharging.replay.days import Departures
from smartcharging.replay.outlook import Forecasts
from smartcharging.replay.recorded import NoData
from smartcharging.replay.site import Level
from smartcharging.replay.study import POLICIES, Question, study

STEPS = (5, 10, 15, 20, 30, 60, 180, 300)


class Command(BaseCommand):
    help = "Live days on a site in virtual time: ours, nine other ways of sharing, and the optimum in hindsight."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--site", choices=("synthetic", "recorded"), default="synthetic")
        parser.add_argument("--level", choices=[*Level], default=Level.NORMAL)
        parser.add_argument("--sockets", type=int, default=100, help="of the synthetic site")
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--seeds", type=int, default=3, help="how many, counted from 1")
        which.add_argument("--seed", type=int, help="only this one")
        parser.add_argument("--days", type=int, default=1, help="in one replay")
        parser.add_argument("--policies", default=",".join(POLICIES), help=f"of {', '.join(POLICIES)}")
        parser.add_argument("--departures", choices=[*Departures], default=Departures.MEASURED)
        parser.add_argument("--forecasts", choices=[*Forecasts], default=Forecasts.MEASURED)
        parser.add_argument("--faults", action="store_true", help="stations out of reach and silent meters")
        parser.add_argument("--step", type=int, choices=STEPS, default=60, help="of the live layer, in seconds")
        parser.add_argument("--data", type=Path, help="folder of the recorded series, for --site recorded")
        parser.add_argument("--jobs", type=int, default=1)
        parser.add_argument("--csv", type=Path, help="every number of every seed, into this file")

    def handle(self, *args: Any, **options: Any) -> None:
        question, seeds = _question(options), _seeds(options)
        results = {}
        try:
            for seed, found in study(question, seeds, options["jobs"], time.process_time):
                results[seed] = found
                self.stderr.write(f"seed {seed} is lived")
        except NoData as error:
            raise CommandError(str(error)) from error
        self.stdout.write(table.text(results))
        if options["csv"] is not None:
            facts = [(k, str(options[k])) for k in ("site", "level", "departures", "forecasts", "faults", "step")]
            try:
                options["csv"].write_text(table.as_csv(results, facts))
            except OSError as error:
                raise CommandError(f"{options['csv']}: {error.strerror or error}") from error


def _question(options: dict[str, Any]) -> Question:
    names = tuple(name.strip() for name in options["policies"].split(",") if name.strip())
    unknown = [name for name in names if name not in POLICIES]
    if unknown or not names:
        raise CommandError(f"no policy {', '.join(unknown) or 'was named'}; there are: {', '.join(POLICIES)}")
    for name, least, most in (("sockets", 1, 2000), ("days", 1, 7), ("jobs", 1, os.cpu_count() or 1)):
        if not least <= options[name] <= most:
            raise CommandError(f"--{name} must be from {least} to {most}, not {options[name]}")
    recorded = options["site"] == "recorded"
    if recorded and (options["data"] is None or not options["data"].is_dir()):
        raise CommandError("--site recorded needs --data, the folder of the recorded series")
    if recorded and options["days"] != 1:
        raise CommandError("--site recorded has one day in each replay")
    return Question(
        level=Level(options["level"]),
        sockets=options["sockets"],
        days=options["days"],
        departures=Departures(options["departures"]),
        forecasts=Forecasts(options["forecasts"]),
        faults=options["faults"],
        step_s=options["step"],
        policies=names,
        data=options["data"] if recorded else None,
    )


def _seeds(options: dict[str, Any]) -> range:
    if options["seed"] is not None:
        if options["seed"] < 0:
            raise CommandError("--seed must not be negative")
        return range(options["seed"], options["seed"] + 1)
    if not 1 <= options["seeds"] <= 1000:
        raise CommandError(f"--seeds must be from 1 to 1000, not {options['seeds']}")
    return range(1, options["seeds"] + 1)

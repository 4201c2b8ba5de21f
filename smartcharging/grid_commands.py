"""A limit the grid operator sets on the connection: taken in, applied by the live layer, ended.

The live layer reads the commands that are in force at each balance; here they begin and end, and the balance is
rung at once. A command without an end holds until somebody ends it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from smartcharging import wake
from smartcharging.models import GridCommand

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from meters.models import Site


class GridCommandError(ValueError):
    """A command that cannot be. `field` is what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


def receive(
    *,
    site: Site,
    reason: str,
    import_limit_w: float | None = None,
    export_limit_w: float | None = None,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    by: User | None = None,
) -> GridCommand:
    """Take in a command; from `starts_at` (now, unless said) it narrows everything below it."""
    now = timezone.now()
    if import_limit_w is None and export_limit_w is None:
        raise GridCommandError("import_limit_w", _("Give an import limit, an export limit, or both."))
    starts_at = starts_at or now
    if ends_at is not None and ends_at <= starts_at:
        raise GridCommandError("ends_at", _("The end is not after the start."))
    if ends_at is not None and ends_at <= now:
        raise GridCommandError("ends_at", _("The end has passed."))
    command = GridCommand.objects.create(
        site=site,
        reason=reason,
        import_limit_w=import_limit_w,
        export_limit_w=export_limit_w,
        starts_at=starts_at,
        ends_at=ends_at,
        by=by,
    )
    _ring(command, "grid command")
    return command


def set_end(command: GridCommand, ends_at: datetime) -> GridCommand:
    """Let a command end at another moment; one that has passed, or now, ends it at once."""
    now = timezone.now()
    with transaction.atomic():
        command = GridCommand.objects.select_for_update().get(pk=command.pk)
        if command.state == GridCommand.State.ENDED:
            raise GridCommandError("ends_at", _("The command has already ended."))
        if ends_at <= now:
            command.ends_at, command.ended_at, command.state = now, now, GridCommand.State.ENDED
        else:
            if ends_at <= command.starts_at:
                raise GridCommandError("ends_at", _("The end is not after the start."))
            command.ends_at = ends_at
        command.save()
    _ring(command, "grid command ended")
    return command


def end(command: GridCommand) -> GridCommand:
    """End a command now."""
    return set_end(command, timezone.now())


def _ring(command: GridCommand, trigger: str) -> None:
    site = command.site_id
    transaction.on_commit(lambda: wake.balance(site))
    transaction.on_commit(lambda: wake.plan(site, trigger))

"""What can be strange about a charge, in words. The names are what `flags` holds and REST tells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.utils.translation import gettext_lazy as _

WORDS: dict[str, Any] = {
    "clock_not_set": _("the station's clock was not set; the time of receipt counts"),
    "clock_ahead": _("the station's clock was ahead of ours; the time of receipt counts"),
    "clock_off": _("the station's clock was off by a steady amount; put right"),
    "clock_jumped_back": _("the station's clock jumped back; the time of receipt counts"),
    "zone_error": _("the station told its local time as UTC; put right by whole half hours"),
    "no_zone": _("a time without a zone, read as UTC"),
    "no_time": _("no time was told; the time of receipt counts"),
    "bad_time": _("a time nobody can read; the time of receipt counts"),
    "start_register_guessed": _("the register at the start was not told; the first reading stands in"),
    "start_register_rebased": _("the register was told as 0 at the start, and then showed its whole life"),
    "register_reset": _("the register began anew during the charge; its segments are added up"),
    "register_leaps": _("the register leapt during the charge; the leap is not counted"),
    "register_backwards": _("a register lower than the one before; not counted"),
    "register_jump": _("a register that rose by more than can be charged; not counted"),
    "negative_register": _("a negative register; not counted"),
    "register_in_kwh": _("a register in kWh that was said to be Wh; read as kWh"),
    "register_thousandfold": _("a register a thousandfold too high; divided"),
    "register_per_phase": _("the register came per phase; added up"),
    "register_phase_to_neutral": _("a register named L1-N and so on; read as L1"),
    "energy_unlike_power": _("the register and the measured power tell different stories"),
    "power_above_maximum": _("more power than this station can give"),
    "event_after_end": _("something was told after the end; kept, and without effect"),
    "sequence_number_twice": _("two different events with one sequence number"),
    "closed_by_next": _("its end was never told; the next charge on this EVSE began"),
}


def in_words(flags: Iterable[str]) -> list[str]:
    return [str(WORDS.get(flag, flag)) for flag in flags]

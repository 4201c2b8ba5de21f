"""How quantities are written for people: the right unit, few digits, and “unknown” for what is not known.

`static/js/format.js` writes the same forms in the browser, for values that arrive by the live stream.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django import template
from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

register = template.Library()


def _number(value: float, decimals: int) -> str:
    rounded = round(value, decimals) + 0.0  # no “-0”
    return formats.number_format(rounded, decimal_pos=decimals, use_l10n=True, force_grouping=True)


def _scaled(value: float | None, unit: str) -> str:
    """W or Wh below a thousand, then k, then M; three digits at most after rounding."""
    if value is None:
        return _("unknown")
    size = abs(value)
    if size < 995:
        return f"{_number(value, 0)} {unit}"
    scale, prefix = (1000, "k") if size < 995_000 else (1_000_000, "M")
    return f"{_number(value / scale, 1 if size / scale < 99.5 else 0)} {prefix}{unit}"


@register.filter
def power(value: float | None) -> str:
    """A power in W."""
    return _scaled(value, "W")


@register.filter
def magnitude(value: float | None) -> str:
    """A power in W without its sign, where a word or an arrow tells the direction."""
    return _scaled(None if value is None else abs(value), "W")


@register.filter
def energy(value: float | None) -> str:
    """An energy in Wh."""
    return _scaled(value, "Wh")


@register.filter
def amps(value: float | None) -> str:
    if value is None:
        return _("unknown")
    return f"{_number(value, 0 if float(value).is_integer() or abs(value) >= 100 else 1)} A"


@register.filter
def bare(value: float | None) -> str:
    """A number without its unit, for tables whose head names it."""
    if value is None:
        return "–"
    return _number(value, 0 if float(value).is_integer() or abs(value) >= 100 else 1)


@register.filter
def percent(value: float | None) -> str:
    """A share of 0..1."""
    return _("unknown") if value is None else f"{_number(value * 100, 0)} %"


@register.filter
def gap(value: float | None) -> str:
    """The certified gap of a plan: small, so with a decimal."""
    return _("unknown") if value is None else f"{_number(value * 100, 1)} %"


@register.filter
def euros(value: float | None) -> str:
    return _("unknown") if value is None else f"€ {_number(value, 2)}"


@register.filter
def cents_per_kwh(value: float | None) -> str:
    """A market price in EUR/MWh, as people know it."""
    return _("unknown") if value is None else f"{_number(value / 10, 1)} ct/kWh"


@register.filter
def kilometres(value: float | None) -> str:
    return _("unknown") if value is None else f"{_number(value, 0)} km"


@register.filter
def span(value: timedelta | None) -> str:
    """A length of time in its two largest units."""
    if value is None:
        return _("unknown")
    seconds = max(int(value.total_seconds()), 0)
    if seconds < 60:
        return _("%(n)d s") % {"n": seconds}
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if minutes < 60:
        return _("%(n)d min") % {"n": minutes}
    if hours < 24:
        return _("%(h)d h %(m)02d min") % {"h": hours, "m": minutes % 60}
    return ngettext("%(n)d day", "%(n)d days", days) % {"n": days}


@register.filter
def clock(value: datetime | None) -> str:
    """The time of day in the zone that is active: a page about a site shows that site's clock."""
    return _("unknown") if value is None else formats.date_format(_local(value), "H:i")


@register.filter
def moment(value: datetime | None) -> str:
    """Time of day, with the day when it is not today."""
    if value is None:
        return _("unknown")
    local, today = _local(value), timezone.localdate()
    if local.date() == today:
        return formats.date_format(local, "H:i")
    if local.date() == today + timedelta(days=1):
        return _("tomorrow %(time)s") % {"time": formats.date_format(local, "H:i")}
    return formats.date_format(local, "D j M H:i")


def _local(value: datetime) -> datetime:
    return timezone.localtime(value)


@register.filter
def rest(value: float) -> str:
    """What is left of a hundred: where a bar of this height begins, for a drawing."""
    return f"{100 - value:.1f}"

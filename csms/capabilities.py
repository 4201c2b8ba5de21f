"""What a charging station can do with limits, by name: the list of all that can be known of a model. Pure.

A capability comes from one of three sources, and a stronger one is never undone by a weaker: what a person *set*, what
was *learned* from what stations of the model did, what the station *told* of itself (some tell too much). Above all
of them stands what is set on one very station. Where nothing is known the default of each reader holds, and that is
what the standard says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Source(StrEnum):
    TOLD = "told"
    LEARNED = "learned"
    SET = "set"


STRENGTH = {Source.TOLD: 0, Source.LEARNED: 1, Source.SET: 2}


def gettext_noop(message: str) -> str:
    """Marks words for the translators; the faces translate them."""
    return message


class NotReadable(ValueError):
    """What a value should have been: `words` are still to be translated, and filled with `values`."""

    def __init__(self, words: str, **values: Any) -> None:
        super().__init__(words % values)
        self.words, self.values = words, values


def _reckoned(value: Any) -> float:
    """The number somebody wrote; none of them where it is no number."""
    try:
        return float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _whole(low: int, high: int) -> Callable[[Any], Any]:
    def read(value: Any) -> int:
        number = _reckoned(value)
        if not (low <= number <= high and number.is_integer()):
            raise NotReadable(gettext_noop("Give a whole number from %(low)s to %(high)s."), low=low, high=high)
        return int(number)

    return read


def _number(low: float, high: float) -> Callable[[Any], Any]:
    def read(value: Any) -> float:
        number = _reckoned(value)
        if not low <= number <= high:
            raise NotReadable(gettext_noop("Give a number from %(low)s to %(high)s."), low=f"{low:g}", high=f"{high:g}")
        return number

    return read


def _yes_or_no(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("true", "yes", "1"):
        return True
    if word in ("false", "no", "0"):
        return False
    raise NotReadable(gettext_noop("Say yes or no."))


def _names(value: Any) -> list[str]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise NotReadable(gettext_noop("Give names, with commas between them."))
    names = [str(item).strip() for item in items]
    return [name for name in names if name]


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing a model can or cannot do. `choices` are (value, words); `read` takes what a person wrote."""

    name: str
    label: str
    meaning: str
    quirk: str
    read: Callable[[Any], Any]
    choices: tuple[tuple[str, str], ...] = field(default=())

    @property
    def is_yes_or_no(self) -> bool:
        return self.read is _yes_or_no

    def shown(self, value: Any) -> str:
        """A value as people read it; words of `choices` are still to be translated."""
        if isinstance(value, bool):
            return gettext_noop("yes") if value else gettext_noop("no")
        if isinstance(value, list):
            return ", ".join(str(v) for v in value)
        return dict(self.choices).get(str(value), f"{value:g}" if isinstance(value, float) else str(value))


def _one_of(name: str, label: str, meaning: str, quirk: str, *choices: tuple[str, str]) -> Capability:
    words = {value for value, _ in choices}

    def read(value: Any) -> str:
        if str(value) not in words:
            raise NotReadable(gettext_noop("Give one of: %(known)s."), known=", ".join(sorted(words)))
        return str(value)

    return Capability(name, label, meaning, quirk, read, choices)


_ = gettext_noop

CATALOGUE: tuple[Capability, ...] = (
    _one_of(
        "purpose",
        _("profile while charging"),
        _("which charging profile it follows during a transaction"),
        "Q18",
        ("tx", _("transaction profile")),
        ("tx_default", _("default profile")),
        ("station_max", _("station maximum")),
    ),
    _one_of(
        "idle_purpose",
        _("profile while free"),
        _("which charging profile it follows without a transaction"),
        "Q18",
        ("tx_default", _("default profile")),
        ("station_max", _("station maximum")),
    ),
    Capability(
        "connector_zero",
        _("one profile for all EVSEs"),
        _("it takes a default profile for EVSE 0"),
        "Q18",
        _yes_or_no,
    ),
    _one_of(
        "kind",
        _("kind of profile"),
        _("where it counts the seconds of a schedule from"),
        "Q18",
        ("Absolute", _("absolute")),
        ("Relative", _("relative: from the start of charging")),
    ),
    Capability(
        "stepped",
        _("one profile that steps down by itself"),
        _("it takes no second level and no duration: its only profile steps down to the fail-safe"),
        "Q19",
        _yes_or_no,
    ),
    Capability(
        "max_stack_level", _("highest stack level"), _("profiles above it are refused"), "Q19", _whole(0, 1_000)
    ),
    Capability(
        "min_stack_level", _("lowest stack level"), _("profiles below it are refused or get lost"), "Q19", _whole(0, 10)
    ),
    _one_of(
        "rate_unit",
        _("unit of limits"),
        _("the one it takes, where it does not take both"),
        "Q20",
        ("A", _("amps")),
        ("W", _("watts")),
    ),
    Capability("decimals", _("decimals of a limit"), _("0: whole amps or watts, 1: tenths"), "Q20", _whole(0, 1)),
    Capability(
        "honours_phases",
        _("follows the number of phases"),
        _("a profile for one phase makes it charge on one phase"),
        "Q20",
        _yes_or_no,
    ),
    Capability("max_periods", _("periods in a schedule"), _("at most so many"), "Q20", _whole(1, 10_000)),
    Capability(
        "min_current_a",
        _("minimum current [A]"),
        _("below it the station pauses"),
        "Q21",
        _number(0, 80),
    ),
    _one_of(
        "zero_method",
        _("how it is paused"),
        _("what stands for 0 A where a limit of 0 is refused or not followed"),
        "Q21",
        ("limit", _("a limit of 0")),
        ("low", _("the smallest limit above 0")),
        ("availability", _("out of service")),
        ("stop", _("a remote stop: the charge ends")),
    ),
    _one_of(
        "resume",
        _("how it goes on after a pause"),
        _("what makes it charge again once the limit is up"),
        "Q21",
        ("limit", _("the limit alone")),
        ("resend", _("the limit, sent twice")),
        ("toggle", _("0 and the limit again")),
        ("availability", _("out of service and back")),
        ("remote_start", _("a remote stop and a remote start")),
        ("unplug", _("only the plug, out and in")),
    ),
    Capability(
        "honours_duration",
        _("ends its limits by itself"),
        _("its limit falls to the fail-safe when nobody renews it"),
        "Q21",
        _yes_or_no,
    ),
    _one_of(
        "composite",
        _("composite schedule"),
        _("what it answers when asked what it will allow"),
        "Q22",
        ("yes", _("the schedule")),
        ("empty", _("accepted, without a schedule")),
        ("no", _("not supported")),
    ),
    Capability(
        "meter_interval_floor_s",
        _("shortest meter interval [s]"),
        _("it sends meter values no more often, whatever it is asked"),
        "Q24",
        _whole(1, 3600),
    ),
    Capability("measurands", _("measurands"), _("the list it takes; a longer one was refused"), "Q24", _names),
    Capability(
        "remote_trigger",
        _("can be triggered"),
        _("no: no TriggerMessage is sent to it of our own accord"),
        "Q26",
        _yes_or_no,
    ),
)
BY_NAME: Mapping[str, Capability] = {c.name: c for c in CATALOGUE}


def stronger(new: Source | str, old: Source | str | None) -> bool:
    """May a value of this source take the place of the present one?"""
    if old is None:
        return True
    return STRENGTH[Source(new)] >= STRENGTH[Source(old)]


def read(name: str, value: Any) -> Any:
    """The value as it is kept. Raises `ValueError` with words that say what it may be."""
    capability = BY_NAME.get(name)
    if capability is None:
        raise ValueError(f"{name}: no capability has this name")
    try:
        return capability.read(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None

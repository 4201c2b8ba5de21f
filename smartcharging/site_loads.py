"""What a controllable load is, in the site file: a store of heat or cold, what may rest, what runs once.

Pure. Fields of another kind of load are refused by name. Times of day stay texts on the site's clock.
"""

from __future__ import annotations

from typing import Any

from smartcharging.tables import Table

LOADS = ("thermal", "switchable", "block")
DAY_MIN = 24 * 60
_HIGH_W = 100_000_000.0
_NUMBERS: dict[str, dict[str, tuple[float, float, str]]] = {
    "thermal": {
        "max_w": (1, _HIGH_W, "W"),
        "capacity_wh_per_k": (1, 10_000_000, "Wh/K"),
        "min_c": (-80, 150, "°C"),
        "max_c": (-80, 150, "°C"),
        "loss_w_per_k": (0, 1_000_000, "W/K"),
        "surroundings_c": (-50, 60, "°C"),
        "draw_w": (-1_000_000, 1_000_000, "W"),
        "cop": (0.1, 10, ""),
    },
    "switchable": {
        "power_w": (1, _HIGH_W, "W"),
        "longest_off_min": (15, DAY_MIN, "minutes"),
        "rest_min": (0, DAY_MIN, "minutes"),
        "most_off_min_per_day": (0, DAY_MIN, "minutes"),
        "not_served_eur_per_kwh": (0, 100, "EUR/kWh"),
    },
    "block": {"power_w": (1, _HIGH_W, "W"), "minutes": (1, 12 * 60, "minutes")},
}
_WORDS: dict[str, tuple[str, ...]] = {
    "thermal": ("cooling", "outside"),
    "switchable": (),
    "block": ("earliest", "latest"),
}
_NEEDED: dict[str, tuple[str, ...]] = {
    "thermal": ("max_w", "capacity_wh_per_k", "min_c", "max_c"),
    "switchable": ("power_w", "longest_off_min"),
    "block": ("power_w", "minutes"),
}


def read(t: Table) -> dict[str, Any]:
    """The options of a device of kind `load`."""
    options: dict[str, Any] = {}
    output = t.whole("output", 0, 63)
    if output is not None:
        options["output"] = output
    fail_safe = t.choice("fail_safe", ("on", "off"), "")
    load = t.choice("load", LOADS, "")
    if load:
        options |= {"load": load, **_numbers(t, load), **_words(t, load)}
        _check(t, options)
        if load == "block":  # nobody wants it started because nobody is there to say when
            options["fail_safe"] = "off"
    else:
        max_w = t.number("max_w", 0, _HIGH_W, unit="W")
        power_w = t.number("power_w", 0, _HIGH_W, unit="W")
        options |= {k: v for k, v in (("max_w", max_w), ("power_w", power_w)) if v is not None}
    if fail_safe:
        options["fail_safe"] = fail_safe
    _refuse_others(t, load)
    return options


def _numbers(t: Table, load: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, (low, high, unit) in _NUMBERS[load].items():
        value = t.number(name, low, high, unit=unit, required=name in _NEEDED[load])
        if value is not None:
            found[name] = value
    return found


def _words(t: Table, load: str) -> dict[str, Any]:
    if load == "thermal":
        return {name: True for name in ("cooling", "outside") if t.yes_no(name, False)}
    found: dict[str, Any] = {}
    for name in _WORDS[load]:
        if not t.has(name):
            t.wrong(name, "is missing", 'a load that runs once needs its window, such as "22:00"')
        moment = t.time_of_day(name)
        if moment is not None:
            found[name] = f"{moment:%H:%M}"
    return found


def _check(t: Table, options: dict[str, Any]) -> None:
    if "min_c" in options and "max_c" in options and options["min_c"] >= options["max_c"]:
        t.wrong("min_c", "is not below max_c", "give the band in which the temperature may move")
    if options.get("outside") and "surroundings_c" in options:
        t.wrong("surroundings_c", "and outside are both given", "either a fixed temperature or the weather's")
    if {"minutes", "earliest", "latest"} <= options.keys() and options["minutes"] > window_min(options):
        t.wrong("minutes", f"{options['minutes']:g} do not fit between earliest and latest", "make the window wider")


def window_min(options: dict[str, Any]) -> int:
    """How long the window of a block is; one that ends before it begins ends the next day."""
    first, last = (int(options[n][:2]) * 60 + int(options[n][3:]) for n in ("earliest", "latest"))
    return (last - first - 1) % DAY_MIN + 1


def _refuse_others(t: Table, load: str) -> None:
    """A field that belongs to another kind of load is told with the kind it belongs to."""
    mine = set(_NUMBERS.get(load, {"max_w": 0, "power_w": 0})) | set(_WORDS.get(load, ()))
    for other in LOADS:
        for name in (*_NUMBERS[other], *_WORDS[other]):
            if name not in mine and t.has(name):
                mine.add(name)
                t.known(name)
                here = f"a load of kind {load!r}" if load else "a load that does not say what it is"
                t.wrong(name, f"does not belong to {here}", f'it belongs to load = "{other}"')

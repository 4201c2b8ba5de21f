"""The site file: one TOML file that describes a site, read by the cloud, the demo, the tests and the site controller.

Pure. `parse` gives frozen tables or raises `SiteFileError` with *every* problem: section, entry, field, what is
wrong, the way out. A key nobody knows is refused, for a misspelt limit must never be a limit that is silently missing.
Units as in the rest of the product: A per phase, W, Wh (the file says kWh where people do).
"""

from __future__ import annotations

import re
import tomllib
import zoneinfo
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import time
from typing import Any, TypeVar

from meters.devices import connect, maps
from smartcharging import site_loads
from smartcharging.engine.grid import NOMINAL_V, Circuit, Grid, GridError, Supply, power_weight
from smartcharging.tables import PHASE_NAMES, PerPhaseLimit, Problem, Table, shown, suggest

LARGEST_BYTES = 1_000_000
MOST_EVSES = 64
KINDS = ("meter", "pv", "battery", "load", "alarm", "grid_unit")
SUPPLIES = tuple(str(s) for s in Supply)
MODES = ("plan", "fast", "surplus")
TOKEN_TYPES = (
    "Central",
    "eMAID",
    "ISO14443",
    "ISO15693",
    "KeyCode",
    "Local",
    "MacAddress",
    "NoAuthorization",
)
TOKEN_STATUSES = ("accepted", "blocked", "expired", "invalid")
_IDENTITY = re.compile(r"[^\s/:?#%\x00-\x1f\x7f]{1,255}")
_HIGH_A = 10_000.0
_HIGH_W = 100_000_000.0


class SiteFileError(ValueError):
    """The file cannot be used. `problems` holds everything that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


@dataclass(frozen=True, slots=True)
class SiteTable:
    name: str
    timezone: str = "Europe/Brussels"
    latitude: float | None = None
    longitude: float | None = None
    price_area: str = ""
    supply: str = "tn"
    demo: bool = False


@dataclass(frozen=True, slots=True)
class TariffTable:
    """Only what the file states; the rest keeps the value it has."""

    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CircuitTable:
    name: str
    parent: str | None
    limit_a: PerPhaseLimit
    limit_w: float | None = None
    export_limit_w: float | None = None
    margin_a: float = 0.0
    meter: str | None = None
    fallback_a: float | None = None
    worst_a: PerPhaseLimit | None = None
    imbalance_a: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceTable:
    """`options` holds what the kind needs, in the product's units (`capacity_kwh` has become `capacity_wh`)."""

    name: str
    kind: str
    map: str = ""
    connect: str = ""
    circuit: str | None = None
    wiring: tuple[str, ...] = ()
    invert: bool = False
    poll_s: float = 1.0
    max_age_s: float = 5.0
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StationTable:
    identity: str
    circuit: str
    name: str = ""
    current: str = "ac"
    wiring: tuple[str, ...] = ()
    evses: int = 1
    max_a: float = 32.0
    min_a: float = 6.0
    max_w: float | None = None
    station_max_a: float | None = None
    fail_safe_a: float = 6.0
    priority: int = 1
    quiet: bool = False
    password: str | None = field(default=None, repr=False)

    @property
    def phases(self) -> tuple[str, ...]:
        return self.wiring or PHASE_NAMES


@dataclass(frozen=True, slots=True)
class UserProfileTable:
    name: str
    priority: int = 1
    mode: str = "plan"
    departure: time | None = None
    energy_wh: float | None = None


@dataclass(frozen=True, slots=True)
class IdTokenTable:
    """`status` None: a new token is accepted, a known one keeps the status it has."""

    value: str
    type: str = "ISO14443"
    status: str | None = None
    profile: str | None = None
    label: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class VehicleTable:
    name: str
    id_token: str | None = None
    battery_wh: float | None = None
    consumption_wh_per_km: float = 190.0
    phases: int | None = None
    max_a: float | None = None
    min_a: float | None = None


@dataclass(frozen=True, slots=True)
class SiteFile:
    """The whole file, checked: every name that is referred to exists, and the circuits form one tree."""

    site: SiteTable
    circuits: tuple[CircuitTable, ...]
    grid: Grid
    tariff: TariffTable | None = None
    devices: tuple[DeviceTable, ...] = ()
    stations: tuple[StationTable, ...] = ()
    user_profiles: tuple[UserProfileTable, ...] = ()
    id_tokens: tuple[IdTokenTable, ...] = ()
    vehicles: tuple[VehicleTable, ...] = ()


def parse(text: str | bytes) -> SiteFile:
    """Read a site file. Raises `SiteFileError` with every problem at once."""
    document = _read_toml(text)
    problems: list[Problem] = []
    for key in document.keys() - {"site", "tariff", *_LISTS}:
        problems.append(
            Problem(f"[{key}]", "", "", "is not a section of a site file", suggest(key, ["site", "tariff", *_LISTS]))
        )
    tables = {section: _entries(document, section, name_field, problems) for section, name_field in _LISTS.items()}
    names = {
        section: [t.values[name] for t in tables[section] if isinstance(t.values.get(name), str)]
        for section, name in _LISTS.items()
    }
    site = _site(_single(document, "site", problems, required=True))
    supply = Supply(site.supply)
    tariff_table = _single(document, "tariff", problems, required=False) if "tariff" in document else None
    circuits = _each(tables["circuit"], lambda t: _circuit(t, names["circuit"], names["device"]))
    devices = _each(tables["device"], lambda t: _device(t, names["circuit"], supply))
    stations = _each(tables["station"], lambda t: _station(t, names["circuit"], supply))
    profiles = _each(tables["user_profile"], _user_profile)
    tokens = _each(tables["id_token"], lambda t: _id_token(t, names["user_profile"]))
    vehicles = _each(tables["vehicle"], lambda t: _vehicle(t, names["id_token"]))
    tariff = _tariff(tariff_table) if tariff_table is not None else None
    _names_once(tables, problems)
    _meters_are_meters(circuits, devices, problems)
    grid = _tree(circuits, supply, problems)
    if problems or grid is None:
        raise SiteFileError(problems)
    return SiteFile(site, circuits, grid, tariff, devices, stations, profiles, tokens, vehicles)


_LISTS = {
    "circuit": "name",
    "device": "name",
    "station": "identity",
    "user_profile": "name",
    "id_token": "value",
    "vehicle": "name",
}
"""The repeated sections, each with the field that names an entry."""


def _read_toml(text: str | bytes) -> dict[str, Any]:
    """TOML into dicts; what is no TOML, no UTF-8 or too large is one problem with its line."""

    def refuse(what: str, way_out: str) -> SiteFileError:
        return SiteFileError([Problem("site file", "", "", what, way_out)])

    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > LARGEST_BYTES:
        raise refuse(f"holds {len(raw)} bytes", f"at most {LARGEST_BYTES}")
    try:
        words = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise refuse(f"line {line} is not UTF-8", "save the file as UTF-8") from error
    try:
        return tomllib.loads(words)
    except tomllib.TOMLDecodeError as error:
        raise refuse(f"is not valid TOML: {error}", "see toml.io for the form") from error
    except RecursionError as error:
        raise refuse("nests too deeply", "a site file needs two levels") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise refuse(f"holds a value that cannot be read: {error}", "write it shorter") from error


def _single(document: dict[str, Any], section: str, problems: list[Problem], *, required: bool) -> Table:
    values = document.get(section)
    if values is None and required:
        problems.append(Problem(f"[{section}]", "", "", "is missing", f"start the file with [{section}] and a name"))
    elif values is not None and not isinstance(values, dict):
        problems.append(Problem(f"[{section}]", "", "", "must stand once", f"write [{section}], with single brackets"))
    good = isinstance(values, dict)
    # A section that is not there has been told of; its fields are not told again.
    return Table(f"[{section}]", "", dict(values) if good and values else {}, problems if good else [])


def _entries(document: dict[str, Any], section: str, name_field: str, problems: list[Problem]) -> list[Table]:
    values = document.get(section, [])
    if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
        problems.append(
            Problem(f"[{section}]", "", "", "must be a list of entries", f"write [[{section}]], with double brackets")
        )
        return []
    tables = []
    for number, entry in enumerate(values, 1):
        name = entry.get(name_field)
        label = f'"{name[:60]}"' if isinstance(name, str) and name.strip() else f"number {number}"
        tables.append(Table(f"[[{section}]]", label, entry, problems))
    return tables


T = TypeVar("T")


def _each(tables: list[Table], read: Callable[[Table], T]) -> tuple[T, ...]:
    return tuple(read(table) for table in tables)


def _site(t: Table) -> SiteTable:
    zone = t.text("timezone", "Europe/Brussels", longest=64)
    if zone not in zoneinfo.available_timezones():
        t.wrong("timezone", f"{shown(zone)} is no time zone", suggest_zone(zone))
    site = SiteTable(
        name=t.text("name", required=True),
        timezone=zone,
        latitude=t.number("latitude", -90, 90, unit="degrees"),
        longitude=t.number("longitude", -180, 180, unit="degrees"),
        price_area=t.text("price_area", longest=16),
        supply=t.choice("supply", SUPPLIES, "tn"),
        demo=t.yes_no("demo", False),
    )
    if ("latitude" in t.values) != ("longitude" in t.values):
        t.wrong("latitude" if "longitude" in t.values else "longitude", "is missing", "give both, or neither")
    t.finish()
    return site


def suggest_zone(zone: str) -> str:
    """A near time zone name; the whole list would be no help."""
    near = suggest(zone, zoneinfo.available_timezones())
    return near if near.startswith("did") else "use a name such as Europe/Brussels"


def _tariff(t: Table) -> TariffTable:
    ranges = {
        "import_factor": (0, 10, ""),
        "import_adder_eur_per_kwh": (-5, 5, "EUR/kWh"),
        "export_factor": (-10, 10, ""),
        "export_adder_eur_per_kwh": (-5, 5, "EUR/kWh"),
        "peak_eur_per_kw_month": (0, 1000, "EUR/kW/month"),
        "peak_floor_w": (0, _HIGH_W, "W"),
        "maximum_tariff_eur_per_kwh": (0, 10, "EUR/kWh"),
        "access_power_w": (0, _HIGH_W, "W"),
        "access_excess_eur_per_kw_month": (0, 10_000, "EUR/kW/month"),
        "fixed_price_eur_per_mwh": (-5000, 5000, "EUR/MWh"),
    }
    read = {name: t.number(name, low, high, unit=unit) for name, (low, high, unit) in ranges.items()}
    t.finish()
    return TariffTable({name: value for name, value in read.items() if value is not None})


def _circuit(t: Table, circuits: list[str], devices: list[str]) -> CircuitTable:
    worst_a = t.per_phase("worst_a", _HIGH_A, required=False)
    circuit = CircuitTable(
        name=t.text("name", required=True),
        parent=t.reference("parent", circuits, "circuit"),
        limit_a=t.per_phase("limit_a", _HIGH_A, required=True),
        limit_w=t.number("limit_w", 0, _HIGH_W, unit="W"),
        export_limit_w=t.number("export_limit_w", 0, _HIGH_W, unit="W"),
        margin_a=t.number("margin_a", 0, _HIGH_A, unit="A") or 0.0,
        meter=t.reference("meter", devices, "device"),
        fallback_a=t.number("fallback_a", 0, _HIGH_A, unit="A"),
        worst_a=worst_a if t.has("worst_a") else None,
        imbalance_a=t.number("imbalance_a", 0, _HIGH_A, unit="A"),
    )
    if max(circuit.limit_a) <= 0:
        t.finish()  # a limit that cannot be read has been told of; what is measured against it is not told again
        return circuit
    if circuit.margin_a and circuit.margin_a >= min(circuit.limit_a):
        t.wrong("margin_a", f"{circuit.margin_a:g} leaves nothing of the limit", "make it smaller than limit_a")
    if circuit.fallback_a is not None and circuit.fallback_a > min(circuit.limit_a):
        t.wrong("fallback_a", f"{circuit.fallback_a:g} is above the limit", "at most the smallest of limit_a")
    t.finish()
    return circuit


_OPTIONS: dict[str, dict[str, tuple[float, float, str]]] = {
    "pv": {"peak_w": (0, _HIGH_W, "W")},
    "battery": {
        "capacity_kwh": (0.1, 1_000_000, "kWh"),
        "max_charge_w": (0, _HIGH_W, "W"),
        "max_discharge_w": (0, _HIGH_W, "W"),
        "min_soc": (0, 1, ""),
        "max_soc": (0, 1, ""),
        "efficiency": (0.5, 1, ""),
        "wear_eur_per_kwh": (0, 5, "EUR/kWh"),
    },
}
_NEEDED = {"battery": ("capacity_kwh", "max_charge_w", "max_discharge_w")}


def _device(t: Table, circuits: list[str], supply: Supply) -> DeviceTable:
    kind = t.choice("kind", KINDS, "meter")
    device = DeviceTable(
        name=t.text("name", required=True),
        kind=kind,
        map=t.text("map", longest=64),
        connect=t.text("connect", longest=255),
        # Without a circuit a battery or a PV plant would stand outside every limit; an alarm then counts for all.
        circuit=t.reference("circuit", circuits, "circuit", required=kind in ("pv", "battery", "load")),
        wiring=t.wiring(),
        invert=t.yes_no("invert", False),
        poll_s=t.number("poll_s", 0.2, 3600, unit="s", default=1.0) or 1.0,
        max_age_s=t.number("max_age_s", 1, 3600, unit="s", default=5.0) or 5.0,
        options=_options(t, kind),
    )
    if device.max_age_s < device.poll_s:
        t.wrong("max_age_s", "is shorter than poll_s, so every reading would be too old", "make it at least twice that")
    _connection(t, device)
    _between_two(t, device.wiring, supply)
    t.finish()
    return device


def _options(t: Table, kind: str) -> dict[str, Any]:
    mine = _OPTIONS.get(kind, {})
    options: dict[str, Any] = site_loads.read(t) if kind == "load" else {}
    for name, (low, high, unit) in mine.items():
        value = t.number(name, low, high, unit=unit, required=name in _NEEDED.get(kind, ()))
        if value is not None:
            options[name] = value
    for other, names in _OPTIONS.items():
        for name in names.keys() - mine.keys():
            if t.has(name):
                t.number(name, -_HIGH_W, _HIGH_W, unit="")
                t.wrong(name, f"does not belong to a device of kind {kind!r}", f"it belongs to kind {other!r}")
    if "capacity_kwh" in options:
        options["capacity_wh"] = options.pop("capacity_kwh") * 1000
    if kind == "battery" and options.get("min_soc", 0.1) >= options.get("max_soc", 1.0):
        t.wrong("min_soc", "is not below max_soc", "both run from 0 to 1")
    return options


def _connection(t: Table, device: DeviceTable) -> None:
    """The connect string has a known form, and the register map exists."""
    if device.connect:
        try:
            reached = connect.parse(device.connect)
        except connect.ConnectError as error:
            t.wrong("connect", str(error).removeprefix("connect: "))
        else:
            if not device.map and reached.transport is not connect.Transport.P1:
                t.wrong("map", "is missing", "a device that is read over Modbus needs the name of its register map")
    if device.map and device.map != maps.P1_MAP and device.map not in maps.names():
        t.wrong("map", f"no register map is named {shown(device.map)}", suggest(device.map, maps.names()))


def _station(t: Table, circuits: list[str], supply: Supply) -> StationTable:
    identity = t.text("identity", required=True, longest=255)
    if identity and not _IDENTITY.fullmatch(identity):
        t.wrong(
            "identity",
            f"{shown(identity)} cannot stand in an address",
            "use letters, digits and - _ . only, no blank, slash or colon",
        )
    dc = t.choice("current", ("ac", "dc"), "ac") == "dc"
    max_w = t.number("max_w", 1, _HIGH_W, unit="W")
    max_a = t.number("max_a", 0.1, 1000, unit="A")
    if dc and max_w is None and max_a is None:
        t.wrong("max_w", "is missing", "a DC station needs max_w, or max_a at its AC input")
    if max_a is None:
        max_a = round(max_w / (power_weight(3, supply) * NOMINAL_V), 1) if dc and max_w is not None else 32.0
    station = StationTable(
        identity=identity,
        circuit=t.reference("circuit", circuits, "circuit", required=True) or "",
        name=t.text("name"),
        current="dc" if dc else "ac",
        wiring=t.wiring(),
        evses=_or_whole(t.whole("evses", 1, MOST_EVSES), 1),
        max_a=max_a,
        min_a=_or(t.number("min_a", 0 if dc else 6, 80, unit="A"), min(6.0, max_a) if dc else 6.0),
        max_w=max_w,
        station_max_a=t.number("station_max_a", 0, 1000, unit="A"),
        fail_safe_a=_or(t.number("fail_safe_a", 0, 1000, unit="A"), min(6.0, max_a)),
        priority=_or_whole(t.whole("priority", 0, 10), 1),
        quiet=t.yes_no("quiet", False),
        password=_password(t),
    )
    _station_sums(t, station)
    _between_two(t, station.wiring, supply)
    t.finish()
    return station


def _between_two(t: Table, wiring: tuple[str, ...], supply: Supply) -> None:
    if supply is Supply.IT and len(wiring) == 1:
        other = next(name for name in PHASE_NAMES if name != wiring[0])
        t.wrong(
            "wiring",
            f"names {wiring[0]} alone, and this site has no neutral",
            f'name the two lines it hangs between, such as ["{wiring[0]}", "{other}"]',
        )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _or_whole(value: int | None, default: int) -> int:
    return default if value is None else value


def _password(t: Table) -> str | None:
    """None when the file says nothing. The value itself never stands in a message."""
    value = t.secret("password", longest=128)
    if value is not None and not value:
        t.wrong("password", "is empty", "leave the line out for a station without one")
    return value


def _station_sums(t: Table, station: StationTable) -> None:
    if station.min_a > station.max_a:
        t.wrong("min_a", f"{station.min_a:g} is above max_a ({station.max_a:g})", "lower it")
    if station.fail_safe_a > station.max_a:
        t.wrong("fail_safe_a", f"{station.fail_safe_a:g} is above max_a ({station.max_a:g})", "lower it")
    elif station.current == "ac" and t.has("fail_safe_a") and 0 < station.fail_safe_a < 6:
        t.wrong("fail_safe_a", f"{station.fail_safe_a:g} A cannot be offered to a car", "use 0, or 6 and more")
    if station.current == "dc" and len(station.wiring) in (1, 2):
        t.wrong("wiring", "names too few phases", "a DC station is wired to all three")


def _user_profile(t: Table) -> UserProfileTable:
    energy_kwh = t.number("energy_kwh", 0, 1000, unit="kWh")
    profile = UserProfileTable(
        name=t.text("name", required=True),
        priority=_or_whole(t.whole("priority", 0, 10), 1),
        mode=t.choice("mode", MODES, "plan"),
        departure=t.time_of_day("departure"),
        energy_wh=None if energy_kwh is None else energy_kwh * 1000,
    )
    t.finish()
    return profile


def _id_token(t: Table, profiles: list[str]) -> IdTokenTable:
    value = t.text("value", required=True, longest=36)
    if value != value.strip():
        t.wrong("value", "begins or ends with a blank", "leave it out")
    token = IdTokenTable(
        value=value,
        type=t.choice("type", TOKEN_TYPES, "ISO14443"),
        status=t.choice("status", TOKEN_STATUSES, "") or None,
        profile=t.reference("profile", profiles, "user profile"),
        label=t.text("label"),
        group=t.text("group", longest=36),
    )
    t.finish()
    return token


def _vehicle(t: Table, tokens: list[str]) -> VehicleTable:
    battery_kwh = t.number("battery_kwh", 1, 2000, unit="kWh")
    vehicle = VehicleTable(
        name=t.text("name", required=True),
        id_token=t.reference("id_token", tokens, "id token"),
        battery_wh=None if battery_kwh is None else battery_kwh * 1000,
        consumption_wh_per_km=t.number("consumption_wh_per_km", 50, 2000, unit="Wh/km", default=190) or 190.0,
        phases=t.whole("phases", 1, 3),
        max_a=t.number("max_a", 0, 1000, unit="A"),
        min_a=t.number("min_a", 0, 80, unit="A"),
    )
    t.finish()
    return vehicle


def _names_once(tables: dict[str, list[Table]], problems: list[Problem]) -> None:
    for section, name_field in _LISTS.items():
        seen: dict[str, int] = {}
        for number, table in enumerate(tables[section], 1):
            name = table.values.get(name_field)
            if not isinstance(name, str) or not name:
                continue
            # Id tokens are compared without regard to case (OCPP 2.0.1 part 2, IdToken).
            key = name.upper() if section == "id_token" else name
            if key in seen:
                what = f"is used twice, in entries {seen[key]} and {number}"
                problems.append(Problem(f"[[{section}]]", table.name, name_field, what, "give each its own"))
            seen.setdefault(key, number)


def _meters_are_meters(
    circuits: tuple[CircuitTable, ...], devices: tuple[DeviceTable, ...], problems: list[Problem]
) -> None:
    kinds = {d.name: d.kind for d in devices}
    used: dict[str, str] = {}
    for circuit in circuits:
        if circuit.meter is None:
            continue
        kind = kinds.get(circuit.meter, "meter")
        if kind != "meter":
            what = f"{circuit.meter!r} is of kind {kind!r}"
            problems.append(Problem("[[circuit]]", f'"{circuit.name}"', "meter", what, "name a device of kind meter"))
        if circuit.meter in used:
            what = f"{circuit.meter!r} is already the meter of circuit {used[circuit.meter]!r}"
            problems.append(Problem("[[circuit]]", f'"{circuit.name}"', "meter", what, "a meter measures one circuit"))
        used.setdefault(circuit.meter, circuit.name)


def _tree(circuits: tuple[CircuitTable, ...], supply: Supply, problems: list[Problem]) -> Grid | None:
    """The circuits as a grid, parents first; what keeps them from being one tree is a problem."""
    if not circuits:
        way_out = "describe at least the grid connection: a [[circuit]] with name and limit_a, without a parent"
        problems.append(Problem("[[circuit]]", "", "", "is missing", way_out))
        return None
    if any(p.section == "[[circuit]]" and p.field in ("name", "parent") for p in problems):
        return None  # the tree cannot be judged before these are mended
    pairs = [
        (
            Circuit(
                name=c.name,
                parent=None,
                limit_a=c.limit_a,
                limit_w=c.limit_w,
                export_limit_w=c.export_limit_w,
                margin_a=c.margin_a,
                fallback_a=c.fallback_a,
                metered=c.meter is not None,
                worst_a=c.worst_a,
                imbalance_a=c.imbalance_a,
            ),
            c.parent,
        )
        for c in circuits
    ]
    try:
        return Grid.build(pairs, supply)
    except GridError as error:
        problems.append(
            Problem("[[circuit]]", "", "parent", str(error), "every circuit but the grid connection names its parent")
        )
        return None

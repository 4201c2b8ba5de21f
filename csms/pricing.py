"""What a charge costs: energy over time against a price that may change with the clock or the market, and fees. Pure.

The rules, in words. Energy is spread evenly between the readings it was counted from, and cut wherever the price
changes: at the hours of the tariff on the site's own clock, which repeats or skips an hour twice a year, or at the
market's intervals. Quantities are rounded to a watt-hour so that the parts add up to the whole; each line is rounded
half up to the currency's smallest coin; the total is the sum of the lines. VAT is on top of that sum, or in it. Idle
minutes are counted in full ones, after those that are free. A charge with energy costs at least the minimum, and none
ever costs less than nothing, whatever the market did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

ENERGY, START, IDLE, MINIMUM, VAT = "energy", "start", "idle", "minimum", "vat"
_WH = Decimal(1)
_NONE = Decimal(0)
_COINS = {"JPY": 0, "KRW": 0, "ISK": 0, "HUF": 0, "KWD": 3, "BHD": 3, "TND": 3}
_QUARTER = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Hours:
    """A price in some hours of some days (1 is Monday). `until` 00:00 is the day's end; past midnight it goes on."""

    days: str
    start: time
    until: time
    price: Decimal

    def hold(self, local: datetime) -> bool:
        clock, today = local.time(), str(local.isoweekday())
        if self.until == time() or self.start < self.until:
            return today in self.days and clock >= self.start and (self.until == time() or clock < self.until)
        yesterday = str((local - timedelta(days=1)).isoweekday())
        return (today in self.days and clock >= self.start) or (yesterday in self.days and clock < self.until)


@dataclass(frozen=True, slots=True)
class Terms:
    """A tariff, as it holds for one charge. Prices are per kWh and per minute, in `currency`."""

    currency: str = "EUR"
    vat_percent: Decimal = _NONE
    vat_included: bool = True
    zone: str = "UTC"
    by_market: bool = False
    price_per_kwh: Decimal = _NONE
    hours: tuple[Hours, ...] = ()
    market_factor: Decimal = Decimal(1)
    market_markup_per_kwh: Decimal = _NONE
    start_fee: Decimal = _NONE
    idle_fee_per_minute: Decimal = _NONE
    idle_grace_minutes: int = 0
    minimum: Decimal = _NONE

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            name: str(value) if isinstance(value, Decimal) else value
            for name in self.__slots__
            if (value := getattr(self, name)) is not None and name != "hours"
        }
        out["hours"] = [[h.days, h.start.isoformat(), h.until.isoformat(), str(h.price)] for h in self.hours]
        return out

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Terms:
        told = {name: kept[name] for name in cls.__slots__ if name in kept and name != "hours"}
        for name, value in told.items():
            if isinstance(getattr(_DEFAULT, name), Decimal):
                told[name] = Decimal(value)
        hours = tuple(
            Hours(days, time.fromisoformat(start), time.fromisoformat(until), Decimal(price))
            for days, start, until, price in kept.get("hours", ())
        )
        return cls(**told, hours=hours)


_DEFAULT = Terms()


@dataclass(frozen=True, slots=True)
class SpotPrice:
    """A market price: from `start` for so many minutes."""

    start: datetime
    minutes: int
    per_kwh: Decimal


@dataclass(frozen=True, slots=True)
class Charge:
    """What there is to pay for: when, the energy at a few moments (Wh since the start, rising), and idle time."""

    started_at: datetime
    until: datetime
    points: tuple[tuple[datetime, float], ...]
    idle_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Line:
    kind: str
    quantity: Decimal
    unit: str
    unit_price: Decimal
    amount: Decimal

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "quantity": float(self.quantity),
            "unit": self.unit,
            "unit_price": float(self.unit_price),
            "amount": float(self.amount),
        }


@dataclass(frozen=True, slots=True)
class Cost:
    """The price of a charge. `total` is what the driver pays; `vat` is the part of it that is tax."""

    total: Decimal
    vat: Decimal
    currency: str
    lines: tuple[Line, ...]


def price(terms: Terms, charge: Charge, market: Iterable[SpotPrice] = ()) -> Cost:
    """What a charge costs by these terms."""
    lines = list(_energy(terms, charge, tuple(market)))
    if terms.start_fee:
        lines.append(_line(terms, START, Decimal(1), "", terms.start_fee))
    idle = max(0, int(charge.idle_s // 60) - terms.idle_grace_minutes)
    if idle and terms.idle_fee_per_minute:
        lines.append(_line(terms, IDLE, Decimal(idle), "min", terms.idle_fee_per_minute))
    total = sum((line.amount for line in lines), _NONE)
    used = any(line.kind == ENERGY and line.quantity for line in lines)
    least = coins(terms.minimum if used else _NONE, terms.currency)
    if total < least:
        lines.append(Line(MINIMUM, Decimal(1), "", least - total, least - total))
        total = least
    rate = terms.vat_percent / 100
    if terms.vat_included:
        vat = total - coins(total / (1 + rate), terms.currency)
    else:
        vat = coins(total * rate, terms.currency)
        total += vat
        if vat:
            lines.append(Line(VAT, terms.vat_percent, "%", _NONE, vat))
    return Cost(total, vat, terms.currency, tuple(lines))


def price_at(terms: Terms, moment: datetime, market: Sequence[SpotPrice] = ()) -> Decimal:
    """What a kWh costs at this moment."""
    if terms.by_market:
        for spot in market:
            if spot.start <= moment < spot.start + timedelta(minutes=spot.minutes):
                return terms.market_factor * spot.per_kwh + terms.market_markup_per_kwh
        return terms.price_per_kwh
    local = moment.astimezone(ZoneInfo(terms.zone))
    return next((h.price for h in terms.hours if h.hold(local)), terms.price_per_kwh)


def coins(amount: Decimal, currency: str) -> Decimal:
    """Rounded half up to the smallest coin."""
    return amount.quantize(Decimal(1).scaleb(-_COINS.get(currency, 2)), ROUND_HALF_UP)


# ---------------------------------------------------------------------- energy over time


def _energy(terms: Terms, charge: Charge, market: tuple[SpotPrice, ...]) -> Iterable[Line]:
    """One line for each price of the clock; one for all of the market, at what it came to."""
    market = tuple(sorted(market, key=lambda s: (s.minutes, s.start)))  # the finer one counts
    by_price: dict[Decimal, Decimal] = {}
    for unit_price, wh in _pieces(terms, charge, market):
        by_price[unit_price] = by_price.get(unit_price, _NONE) + wh
    kwh = dict(zip(by_price, _whole(list(by_price.values())), strict=True))
    kwh = {p: q for p, q in kwh.items() if q}
    if terms.by_market and kwh:
        quantity = sum(kwh.values(), _NONE)
        amount = sum((p * q for p, q in kwh.items()), _NONE)
        mean = (amount / quantity).quantize(Decimal("0.0001"), ROUND_HALF_UP)
        return [Line(ENERGY, quantity, "kWh", mean, coins(amount, terms.currency))]
    return [_line(terms, ENERGY, quantity, "kWh", unit_price) for unit_price, quantity in kwh.items()]


def _pieces(terms: Terms, charge: Charge, market: tuple[SpotPrice, ...]) -> Iterable[tuple[Decimal, Decimal]]:
    if len(charge.points) < 2:
        return
    cuts = _cuts(terms, charge.points[0][0], charge.points[-1][0], market)
    known: dict[datetime, Decimal] = {}
    cut = 0
    for (since, before), (until, after) in pairwise(charge.points):
        risen = Decimal(repr(after)) - Decimal(repr(before))
        if not risen:
            continue
        while cut < len(cuts) and cuts[cut] <= since:
            cut += 1
        here = cut
        edges = [since]
        while here < len(cuts) and cuts[here] < until:
            edges.append(cuts[here])
            here += 1
        edges.append(until)
        span = Decimal(repr((until - since).total_seconds())) or Decimal(1)
        left = risen
        for first, last in pairwise(edges):
            part = left if last is until else risen * Decimal(repr((last - first).total_seconds())) / span
            left -= part
            stretch = cuts[cut - 1] if cut and first is since else first
            if stretch not in known:
                known[stretch] = price_at(terms, first, market)
            yield known[stretch], part


def _cuts(terms: Terms, since: datetime, until: datetime, market: tuple[SpotPrice, ...]) -> list[datetime]:
    """The moments within at which the price may change."""
    if terms.by_market:
        edges = {s.start for s in market} | {s.start + timedelta(minutes=s.minutes) for s in market}
        return sorted(e for e in edges if since < e < until)
    if not terms.hours:
        return []
    zone = ZoneInfo(terms.zone)
    clock = {time(), *(h.start for h in terms.hours), *(h.until for h in terms.hours)}
    edges = set()
    day, last = since.astimezone(zone).date(), until.astimezone(zone).date()
    while day <= last:
        edges |= {at for t in clock for at in _both(day, t, zone)}
        edges |= _changes(day, zone)
        day += timedelta(days=1)
    return sorted(e for e in edges if since < e < until)


def _both(day: date, clock: time, zone: ZoneInfo) -> set[datetime]:
    """When the site's clock shows this time on this day: once, or twice in the night that repeats an hour."""
    return {datetime.combine(day, clock.replace(fold=fold), tzinfo=zone).astimezone(UTC) for fold in (0, 1)}


def _changes(day: date, zone: ZoneInfo) -> set[datetime]:
    """The quarter hours of a day on which the clock is put forward or back: the price may change there too."""
    start = datetime.combine(day, time(), tzinfo=zone)
    end = datetime.combine(day + timedelta(days=1), time(), tzinfo=zone)
    if start.utcoffset() == end.utcoffset():
        return set()
    first = start.astimezone(UTC)
    return {first + n * _QUARTER for n in range(1, 101)}


def _whole(parts_wh: list[Decimal]) -> list[Decimal]:
    """The parts in kWh, each a whole number of Wh, together the rounded whole."""
    out, exact, given = [], _NONE, _NONE
    for part in parts_wh:
        exact += part
        upto = exact.quantize(_WH, ROUND_HALF_UP)
        out.append((upto - given) / 1000)
        given = upto
    return out


def _line(terms: Terms, kind: str, quantity: Decimal, unit: str, unit_price: Decimal) -> Line:
    return Line(kind, quantity, unit, unit_price, coins(quantity * unit_price, terms.currency))

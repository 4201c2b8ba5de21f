"""The price of a charge, from its site's tariff: kept with the charge when it ends, reckoned anew while it runs.

running_cost(transaction, now)   the cost so far with its lines, or the one that was kept at the end; None without a
                                 tariff. Reads the database.

Market prices belong to a room above: it offers them (`offer_market`). A charge keeps its tariff and the market prices
it was priced with, so that its cost can be followed after both have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from django.utils.translation import gettext as _

from csms import costs, ledger_store
from csms.billing_models import ChargingTariff
from csms.energy import Count
from csms.models import ChargingStation, Transaction
from csms.pricing import Charge, Cost, Hours, Line, SpotPrice, Terms, price, price_at
from csms.story import tell

Market = Callable[[int, datetime, datetime], Sequence[SpotPrice]]
"""The market prices of a site between two moments."""

_markets: list[Market] = []


def offer_market(market: Market) -> None:
    """The newest offered is asked."""
    _markets[:] = [market]


def terms_of(site_pk: int | None) -> Terms | None:
    """The site's tariff as it is now; None where there is none, or it is not active."""
    if site_pk is None:
        return None
    tariff = ChargingTariff.objects.select_related("site").filter(site=site_pk, active=True).first()
    if tariff is None:
        return None
    return Terms(
        currency=tariff.currency,
        vat_percent=tariff.vat_percent,
        vat_included=tariff.vat_included,
        zone=tariff.site.timezone,
        by_market=tariff.kind == ChargingTariff.Kind.BY_MARKET,
        price_per_kwh=tariff.price_per_kwh,
        hours=tuple(Hours(h.days, h.from_time, h.until_time, h.price_per_kwh) for h in tariff.hours.all()),
        market_factor=tariff.market_factor,
        market_markup_per_kwh=tariff.market_markup_per_kwh,
        start_fee=tariff.start_fee,
        idle_fee_per_minute=tariff.idle_fee_per_minute,
        idle_grace_minutes=tariff.idle_grace_minutes,
        minimum=tariff.minimum,
    )


class Prices:
    """What the charges of one batch cost: the tariff of each site is read once."""

    def __init__(self) -> None:
        self._terms: dict[int | None, Terms | None] = {}

    def price_ended(
        self, transaction: Transaction, station: ChargingStation, count: Count | None, *, again: bool = False
    ) -> None:
        """Price a charge that has ended, by the tariff it was priced with before if it was. The caller saves the row.

        `count` is how it was counted just now; without it that is read again. `again`: it had ended before.
        """
        if station.site_id not in self._terms:
            self._terms[station.site_id] = terms_of(station.site_id)
        if self._terms[station.site_id] is None and not again:
            return
        ledger_store.with_bill(transaction)
        terms = Terms.from_dict(transaction.tariff["terms"]) if transaction.tariff else self._terms[station.site_id]
        if terms is None or transaction.ended_at is None:
            return
        charge = _charge(transaction, count or _count(transaction, station), transaction.ended_at)
        market = _market(terms, station.site_id, charge)
        cost = price(terms, charge, market)
        transaction.cost, transaction.currency = cost.total, cost.currency
        transaction.cost_lines = [line.to_dict() for line in cost.lines]
        transaction.tariff = {"terms": terms.to_dict(), "vat": float(cost.vat)}
        if market:
            transaction.tariff["market"] = [[s.start.isoformat(), s.minutes, str(s.per_kwh)] for s in market]


def running_cost(transaction: Transaction, now: datetime | None = None) -> Cost | None:
    """What a charge costs up to `now`, or in the end; None where its site has no tariff."""
    if transaction.ended_at is not None:
        return _kept(transaction)
    terms = terms_of(transaction.station.site_id)
    if terms is None:
        return None
    now = now or datetime.now(UTC)
    count = _count(transaction, transaction.station)
    charge = _charge(transaction, count, max(now, transaction.started_at))
    return price(terms, charge, _market(terms, transaction.station.site_id, charge))


def _kept(transaction: Transaction) -> Cost | None:
    if transaction.cost is None:
        return None
    lines = tuple(
        Line(
            row["kind"],
            Decimal(repr(row["quantity"])),
            row["unit"],
            Decimal(repr(row["unit_price"])),
            Decimal(repr(row["amount"])),
        )
        for row in transaction.cost_lines
    )
    return Cost(transaction.cost, Decimal(repr(transaction.tariff.get("vat", 0))), transaction.currency, lines)


def _count(transaction: Transaction, station: ChargingStation) -> Count:
    count = Count(station.most_w)
    count.points = []
    pk = transaction.pk
    if facts := ledger_store.facts([pk])[pk]:
        tell(facts, ledger_store.readings([pk])[pk], count)
    return count


def _charge(transaction: Transaction, count: Count, until: datetime) -> Charge:
    """Its energy over time; where no readings are left, evenly from its start to its end."""
    points = [(datetime.fromtimestamp(at, UTC), wh) for at, wh in count.points or ()]
    if len(points) < 2 or abs(points[-1][1] - transaction.energy_wh) > 0.5:
        points = [(transaction.started_at, 0.0), (until, transaction.energy_wh)]
    idle_s = count.idle_s if count.begun_at is not None else transaction.idle_s
    if transaction.open and count.begun_at is not None and not count.paused:
        idle_s += max(0.0, until.timestamp() - count.upto) if idle_s else 0.0
    return Charge(transaction.started_at, until, tuple(points), idle_s)


def _market(terms: Terms, site_pk: int | None, charge: Charge) -> list[SpotPrice]:
    if not terms.by_market or not _markets or site_pk is None:
        return []
    first = min(charge.started_at, charge.points[0][0])
    last = max(charge.until, charge.points[-1][0])
    return list(_markets[0](site_pk, first, last))


class Pricer:
    """What the stations' displays are told (`costs.py`)."""

    def cost(self, transaction: Transaction, at: datetime) -> costs.Cost | None:
        found = running_cost(transaction, at)
        return costs.Cost(float(found.total), found.currency) if found is not None else None

    def tariff(self, station: ChargingStation, at: datetime) -> str:
        """In a few words, in any language: the price of a kWh now, and the fees there are."""
        terms = terms_of(station.site_id)
        if terms is None:
            return ""
        moment = Charge(at, at + timedelta(minutes=1), ((at, 0.0),))
        market = _market(terms, station.site_id, moment)
        tax = 1 + (0 if terms.vat_included else terms.vat_percent / 100)
        words = [f"{price_at(terms, at, market) * tax:.3f} {terms.currency}/kWh"]
        if terms.start_fee:
            words.append(_("start %(fee)s") % {"fee": f"{terms.start_fee * tax:.2f} {terms.currency}"})
        if terms.idle_fee_per_minute:
            words.append(
                _("%(fee)s/min when full, after %(minutes)d min")
                % {
                    "fee": f"{terms.idle_fee_per_minute * tax:.2f} {terms.currency}",
                    "minutes": terms.idle_grace_minutes,
                }
            )
        return " · ".join(words)

"""A charge explained: the four answers in the reader's language, each with the same as data."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from redis.exceptions import RedisError
from rest_framework import serializers

from csms import bus
from csms.models import Transaction
from meters import live
from meters.measurement import Measurement
from smartcharging.engine.explain.explain import Explanation
from smartcharging.engine.explain.told import Line
from smartcharging.explanations import explain
from webapp import spoken


class _Amount(serializers.FloatField):
    def __init__(self, help_text: Any = "") -> None:
        super().__init__(required=False, help_text=help_text)


class _Moment(serializers.DateTimeField):
    def __init__(self, help_text: Any = "") -> None:
        super().__init__(required=False, help_text=help_text)


class _Name(serializers.CharField):
    def __init__(self, help_text: Any = "") -> None:
        super().__init__(required=False, help_text=help_text)


class LineDataSerializer(serializers.Serializer[Any]):
    """Only what is known and belongs to the line is there. Times in UTC; units in the names."""

    taken_a = _Amount(_("measured, highest phase"))
    taken_w = _Amount(_("measured; at a DC place, or where no current is measured"))
    limit_a = _Amount(_("what it may take, per phase"))
    limit_w = _Amount(_("what it may take; at a DC place"))
    reason = _Name(_("the code as live layer or plan gave it"))
    cause = _Name(_("the plan's reason without place and time"))
    words = _Name(_("what somebody said with an order"))
    circuit = _Name()
    phase = _Name(_("L1, L2, L3, or W: by the power of all together"))
    starts_at = _Moment()
    ends_at = _Moment(_("until about then"))
    departure = _Moment()
    charged_kwh = _Amount()
    wanted_kwh = _Amount()
    promised_kwh = _Amount()
    missing_kwh = _Amount()
    planned_kwh = _Amount(_("still to come"))
    share = _Amount(_("promised of what is wanted, 0 to 1"))
    early_share = _Amount(_("chance that its driver is gone half an hour before his departure, 0 to 1"))
    full_at = _Moment()
    made_at = _Moment()
    ended_at = _Moment()
    stop_reason = _Name()
    cost_eur = _Amount(_("of the energy still to come, for the site"))
    minutes = _Amount()
    leave_at = _Moment()
    raise_a = _Amount(_("more on every phase"))
    raise_w = _Amount()
    room_w = _Amount()
    place = _Name()


class LineSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    words = serializers.CharField(help_text=_("in the language that was asked for, on the site's clock"))
    data = LineDataSerializer()  # type: ignore[assignment]


class ExplanationSerializer(serializers.Serializer[Any]):
    """The first line of each part counts most; a part may be empty."""

    at = serializers.DateTimeField()
    sentence = serializers.CharField(help_text=_("the most of it in a few words"))
    now = LineSerializer(many=True, help_text=_("why this current now"))
    promise = LineSerializer(many=True, help_text=_("what will be there by the departure"))
    limits = LineSerializer(many=True, help_text=_("what limits it, from when to when; after its end: what it lacked"))
    helps = LineSerializer(many=True, help_text=_("what would help; what is reckoned is enough by itself"))


def explanation_of(transaction: Transaction) -> dict[str, Any]:
    """One charge as `ExplanationSerializer` documents it."""
    now = timezone.now()
    measured, connected = _live(transaction, now)
    told = explain(transaction, now, measured, connected=connected)
    site = transaction.station.site
    with timezone.override(site.tz if site is not None else UTC):
        return {"at": _iso(now), "sentence": spoken.sentence(told), **_parts(told)}


def _live(transaction: Transaction, now: datetime) -> tuple[Measurement | None, bool | None]:
    """What its EVSE takes, when that is young enough, and whether its station is connected; None is unknown."""
    if transaction.ended_at is not None or transaction.evse_id is None:
        return None, None
    source, identity = live.evse_source(transaction.evse_id), transaction.station.identity
    try:
        found, held = live.fetch([source]).get(source), bus.holders([identity])
    except (RedisError, OSError):
        return None, None
    max_age_s = max(3 * settings.OCPP_METER_INTERVAL_S, 60)
    return (found if found is not None and found.is_fresh(now, max_age_s) else None), identity in held


def _parts(told: Explanation) -> dict[str, list[dict[str, Any]]]:
    return {part: [_line(line) for line in getattr(told, part)] for part in spoken.PARTS}


def _line(line: Line) -> dict[str, Any]:
    data = {name: _iso(v) if isinstance(v, datetime) else v for name, v in line.values.items()}
    if line.cause is not None:
        data["cause"] = line.cause.code
    return {"code": line.code, "words": spoken.line(line), "data": data}


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")

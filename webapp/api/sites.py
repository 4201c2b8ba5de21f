"""Sites: what flows now, what is planned, what a period used and cost."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from typing import Any

import redis
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    extend_schema,
    extend_schema_field,
    extend_schema_view,
    inline_serializer,
)
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from csms.models import EVSE
from meters.live import connection
from meters.models import Device, Site
from smartcharging.engine.live.allocate import allocate
from smartcharging.gather import SiteNotReady, look
from smartcharging.models import ChargingGoal, Plan
from smartcharging.picture import picture
from smartcharging.report import ReportRangeError, report
from webapp.api.permissions import SiteScoped

PICTURE_MAX_AGE_S = 15


class SiteSerializer(serializers.ModelSerializer[Site]):
    class Meta:
        model = Site
        fields = ("id", "name", "timezone", "latitude", "longitude", "price_area", "supply", "demo")
        read_only_fields = fields


class FlowsSerializer(serializers.Serializer[Any]):
    """Load-positive; null is unknown."""

    grid_w = serializers.FloatField(allow_null=True)
    pv_w = serializers.FloatField(allow_null=True)
    battery_w = serializers.FloatField(allow_null=True)
    battery_soc = serializers.FloatField(allow_null=True)
    charging_w = serializers.FloatField(allow_null=True)
    building_w = serializers.FloatField(allow_null=True)
    loads_w = serializers.FloatField(allow_null=True)


class PhasesField(serializers.ListField):
    child = serializers.FloatField(allow_null=True)


class CircuitNowSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    parent = serializers.CharField(allow_null=True)  # type: ignore[assignment]
    limit_a = PhasesField()
    load_a = PhasesField(allow_null=True)
    headroom_a = PhasesField()
    reason = serializers.CharField(allow_blank=True)
    metered = serializers.BooleanField()
    stale = serializers.BooleanField()


class PictureLimitSerializer(serializers.Serializer[Any]):
    wanted_a = serializers.FloatField(allow_null=True)
    accepted_a = serializers.FloatField(allow_null=True)
    measured_a = serializers.FloatField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)
    circuit = serializers.CharField(allow_blank=True, required=False, help_text=_("where it is held back"))
    phase = serializers.CharField(allow_blank=True, required=False, help_text=_("L1, L2, L3, or W"))
    state = serializers.CharField(allow_blank=True, required=False)
    isolated = serializers.BooleanField(required=False, help_text=_("it follows no limit and counts with its maximum"))


class PictureEVSESerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    station = serializers.CharField()
    name = serializers.CharField()
    number = serializers.IntegerField()
    circuit = serializers.CharField(allow_null=True)
    status = serializers.CharField()
    iec_state = serializers.CharField(allow_blank=True)
    connected = serializers.BooleanField()
    phases = serializers.IntegerField(required=False, help_text=_("how many the car can load"))
    max_w = serializers.FloatField(required=False, help_text=_("what car and place can take together"))
    power_w = serializers.FloatField(allow_null=True)
    current_a = PhasesField(allow_null=True)
    limit = PictureLimitSerializer()
    transaction = serializers.IntegerField(allow_null=True)


class PicturePlanSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    made_at = serializers.DateTimeField()
    valid_until = serializers.DateTimeField()
    status = serializers.CharField()


class PictureSerializer(serializers.Serializer[Any]):
    """The site at one moment: flows, headroom and reason per circuit, every EVSE."""

    at = serializers.DateTimeField()
    site = serializers.IntegerField()
    name = serializers.CharField()
    demo = serializers.BooleanField()
    flows = FlowsSerializer()
    circuits = CircuitNowSerializer(many=True)
    evses = PictureEVSESerializer(many=True)
    plan = PicturePlanSerializer(allow_null=True)
    price_eur_per_mwh = serializers.FloatField(allow_null=True)


class PlannedEVSESerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(help_text=_("key of the EVSE, as in now/"))
    station = serializers.CharField(allow_null=True)
    number = serializers.IntegerField(allow_null=True)
    power_w = serializers.ListField(child=serializers.FloatField(allow_null=True))


class LoadShortSerializer(serializers.Serializer[Any]):
    amount = serializers.FloatField()
    unit = serializers.CharField(help_text=_("runs, K·h outside its band, or h off against its rules"))
    reason = serializers.CharField()


class PlannedLoadSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(help_text=_("key of the device"))
    name = serializers.CharField(allow_null=True)
    power_w = serializers.ListField(child=serializers.FloatField(allow_null=True))
    temperature_c = serializers.ListField(
        child=serializers.FloatField(), allow_null=True, help_text=_("at the end of each slot")
    )
    short = LoadShortSerializer(allow_null=True)


class ShortfallSerializer(serializers.Serializer[Any]):
    goal = serializers.IntegerField()
    external_id = serializers.CharField(allow_blank=True)
    wh = serializers.FloatField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)


class _Series(serializers.ListField):
    child = serializers.FloatField(allow_null=True)


class PlanSerializer(serializers.ModelSerializer[Plan]):
    """One value per slot of `slot_s` seconds from `starts_at`. Load-positive, in W; prices in EUR/MWh."""

    valid = serializers.SerializerMethodField()
    evses = serializers.SerializerMethodField()
    battery_w = _Series(source="result.battery_w", default=list)
    loads = serializers.SerializerMethodField()
    grid_w = _Series(source="result.grid_w", default=list)
    pv_w = _Series(source="result.pv_w", default=list)
    building_w = _Series(source="result.building_w", default=list)
    price_eur_per_mwh = _Series(source="result.price", default=list)
    shortfalls = serializers.SerializerMethodField()

    class Meta:
        model = Plan
        fields = (
            "id",
            "site",
            "made_at",
            "starts_at",
            "valid_until",
            "valid",
            "slot_s",
            "status",
            "trigger",
            "objective_eur",
            "gap",
            "solve_s",
            "evses",
            "loads",
            "battery_w",
            "grid_w",
            "pv_w",
            "building_w",
            "price_eur_per_mwh",
            "shortfalls",
        )
        read_only_fields = fields

    @extend_schema_field(OpenApiTypes.BOOL)
    def get_valid(self, plan: Plan) -> bool:
        return plan.valid_until > timezone.now()

    @extend_schema_field(PlannedEVSESerializer(many=True))
    def get_evses(self, plan: Plan) -> list[dict[str, Any]]:
        series = plan.result.get("evse") or {}
        evses = EVSE.objects.filter(pk__in=_whole(series)).select_related("station").in_bulk()
        shown = []
        for key, power_w in series.items():
            evse = evses.get(int(key)) if str(key).isdigit() else None
            station, number = (evse.station.identity, evse.number) if evse else (None, None)
            shown.append({"id": int(key), "station": station, "number": number, "power_w": power_w})
        return shown

    @extend_schema_field(PlannedLoadSerializer(many=True))
    def get_loads(self, plan: Plan) -> list[dict[str, Any]]:
        series = plan.result.get("load_w") or {}
        courses = plan.result.get("temperature_c") or {}
        names = dict(Device.objects.filter(pk__in=_whole(series)).values_list("pk", "name"))
        short = {what.get("key"): what for what in plan.result.get("load_short") or []}
        return [
            {
                "id": int(key),
                "name": names.get(int(key)),
                "power_w": power_w,
                "temperature_c": courses.get(key),
                "short": short.get(key),
            }
            for key, power_w in series.items()
        ]

    @extend_schema_field(ShortfallSerializer(many=True))
    def get_shortfalls(self, plan: Plan) -> list[dict[str, Any]]:
        short = plan.result.get("shortfalls") or {}
        goals = ChargingGoal.objects.in_bulk(_whole(short))
        return [
            {
                "goal": int(key),
                "external_id": goals[int(key)].external_id if int(key) in goals else "",
                "wh": what.get("wh"),
                "reason": what.get("reason", ""),
            }
            for key, what in short.items()
            if str(key).isdigit()
        ]


def _whole(keys: Any) -> list[int]:
    return [int(k) for k in keys if str(k).isdigit()]


class _Energies(serializers.Serializer[Any]):
    grid_import = serializers.FloatField(allow_null=True)
    grid_export = serializers.FloatField(allow_null=True)
    pv = serializers.FloatField(allow_null=True)
    battery_charged = serializers.FloatField(allow_null=True)
    battery_discharged = serializers.FloatField(allow_null=True)
    charging = serializers.FloatField(allow_null=True)
    building = serializers.FloatField(allow_null=True)
    loads = serializers.FloatField(allow_null=True)


# “import” and “from” are words of Python's, so these two are written as tables.
_COSTS = inline_serializer(
    "ReportCosts",
    {name: serializers.FloatField(allow_null=True) for name in ("import", "export", "energy", "peak_per_month")},
)


class _Peak(serializers.Serializer[Any]):
    power_w = serializers.FloatField()
    at = serializers.DateTimeField()


class _Charged(serializers.Serializer[Any]):
    sessions = serializers.IntegerField()
    energy_wh = serializers.FloatField()


class _ChargedByStation(_Charged):
    station = serializers.CharField()
    name = serializers.CharField()


class _ChargedByUser(_Charged):
    id_token = serializers.CharField()
    label = serializers.CharField(allow_blank=True)  # type: ignore[assignment]
    driver = serializers.CharField(allow_blank=True)


class _ChargedByProfile(_Charged):
    profile = serializers.CharField(allow_null=True)


class _Day(_Energies):
    day = serializers.DateField()
    cost_eur = serializers.FloatField(allow_null=True)


REPORT = inline_serializer(
    "Report",
    {
        "site": serializers.IntegerField(),
        "name": serializers.CharField(),
        "demo": serializers.BooleanField(),
        "timezone": serializers.CharField(),
        "from": serializers.DateField(),
        "to": serializers.DateField(help_text=_("this day included")),
        "starts_at": serializers.DateTimeField(),
        "ends_at": serializers.DateTimeField(),
        "energy_wh": _Energies(),
        "self_consumption": serializers.FloatField(allow_null=True, help_text=_("share of the PV energy used on site")),
        "self_sufficiency": serializers.FloatField(allow_null=True, help_text=_("share of the use not from the grid")),
        "peak": _Peak(allow_null=True),
        "cost_eur": _COSTS,
        "coverage": serializers.FloatField(allow_null=True, help_text=_("share of the time the main meter is known")),
        "days": _Day(many=True),
        "stations": _ChargedByStation(many=True),
        "users": _ChargedByUser(many=True),
        "profiles": _ChargedByProfile(many=True),
        "sessions": serializers.IntegerField(),
    },
)
"""Energies in Wh, positive in the direction of their name; null is unknown. Days on the site's own clock."""


def fresh_picture(site: Site) -> dict[str, Any]:
    """The picture the live layer left for everyone to see; when it is old or absent, one of our own."""
    try:
        body = connection().get(f"now:{site.pk}")
        found: Any = json.loads(str(body)) if body else None
        if isinstance(found, dict):
            age = timezone.now() - datetime.fromisoformat(found["at"])
            if timedelta(seconds=-5) <= age <= timedelta(seconds=PICTURE_MAX_AGE_S):
                return found
    except (redis.RedisError, ValueError, KeyError, TypeError):
        pass  # nobody left one that can be read
    return _painted(site)


def _painted(site: Site) -> dict[str, Any]:
    now = timezone.now()
    try:
        view = look(site, now)
    except SiteNotReady:
        return _empty(site, now)
    return picture(view, allocate(view.snapshot))


def _empty(site: Site, now: datetime) -> dict[str, Any]:
    """A site whose circuits nobody has described yet: everything unknown, nothing in it."""
    return {
        "at": now.isoformat(),
        "site": site.pk,
        "name": site.name,
        "demo": site.demo,
        "flows": dict.fromkeys(FlowsSerializer().fields),
        "circuits": [],
        "evses": [],
        "plan": None,
        "price_eur_per_mwh": None,
    }


def day_of(request: Request, name: str, default: date) -> date:
    """A day from the address, as YYYY-MM-DD."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise serializers.ValidationError({name: [_("Give a day such as 2026-11-24.")]}) from error


@extend_schema_view(
    list=extend_schema(summary="Your sites"),
    retrieve=extend_schema(summary="One site"),
)
class Sites(SiteScoped, viewsets.ReadOnlyModelViewSet[Site]):
    queryset = Site.objects.order_by("name")
    serializer_class = SiteSerializer
    site_path = "pk"
    lookup_value_regex = r"\d{1,18}"
    filterset_fields = ("name",)

    @extend_schema(summary="What flows now: headroom and reasons per circuit", responses=PictureSerializer)
    @action(detail=True, filter_backends=[], pagination_class=None)
    def now(self, request: Request, pk: str) -> Response:
        return Response(fresh_picture(self.get_object()))

    @extend_schema(summary="The newest plan", responses=PlanSerializer)
    @action(detail=True, filter_backends=[], pagination_class=None)
    def plan(self, request: Request, pk: str) -> Response:
        newest = Plan.objects.filter(site=self.get_object()).order_by("-made_at").first()
        if newest is None:
            raise NotFound(_("This site has no plan yet."))
        return Response(PlanSerializer(newest).data)

    @extend_schema(
        summary="Energy, peak and cost of a period",
        description="Days begin and end on the site's clock; both are included. Unless said: this month until today.",
        parameters=[
            OpenApiParameter("from", OpenApiTypes.DATE, description="first day"),
            OpenApiParameter("to", OpenApiTypes.DATE, description="last day, included"),
        ],
        responses=REPORT,
    )
    @action(detail=True, filter_backends=[], pagination_class=None)
    def report(self, request: Request, pk: str) -> Response:
        site = self.get_object()
        today = timezone.now().astimezone(site.tz).date()
        end = day_of(request, "to", today)
        start = day_of(request, "from", end.replace(day=1))
        try:
            return Response(report(site, start, end))
        except ReportRangeError as error:
            raise serializers.ValidationError({"from": [str(error)]}) from error

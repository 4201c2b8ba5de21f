"""Charging stations: what they are, how they stand now, and how an operator sets them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from django.conf import settings
from django.db import transaction
from django.db.models import OuterRef, Prefetch, QuerySet, Subquery
from django.http import Http404
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from csms import bus, credentials, learning
from csms.changes import announce
from csms.models import EVSE, ChargingStation, Transaction, WantedLimit, validate_wiring, waiting_without_site
from meters import live
from meters.commissioning import names_one_line
from meters.measurement import Measurement
from smartcharging.engine.limits import place_of
from smartcharging.models import AllocationRecord
from webapp.api.fields import Number, PlainJSON, SiteField, Strict
from webapp.api.permissions import INSTALLER, OPERATOR, SiteScoped, require

OPERATORS_FIELDS = frozenset({"name", "quiet", "admission", "priority", "password"})
"""What an operator may set; everything else belongs to the installer."""


class Now:
    """What changes every second, fetched once for a whole page of stations: who is connected, what flows."""

    def __init__(self, stations: list[ChargingStation]) -> None:
        self.holders = bus.holders(s.identity for s in stations)
        evses = [e for s in stations for e in s.evses.all()]
        self._live = live.fetch(live.evse_source(e.pk) for e in evses)
        self._now = timezone.now()
        self.capabilities: dict[int, dict[str, Any]] = learning.of_stations(stations)

    def measurement(self, evse: EVSE) -> Measurement | None:
        """The newest measurement of an EVSE, absent when it is older than three intervals: unknown is not zero."""
        found = self._live.get(live.evse_source(evse.pk))
        max_age_s = max(3 * settings.OCPP_METER_INTERVAL_S, 60)
        return found if found is not None and found.is_fresh(self._now, max_age_s) else None


class LimitNowSerializer(serializers.Serializer[Any]):
    wanted_a = serializers.FloatField(allow_null=True)
    accepted_a = serializers.FloatField(allow_null=True)
    measured_a = serializers.FloatField(allow_null=True, help_text=_("highest phase, measured"))
    wanted_w = serializers.FloatField(allow_null=True)
    accepted_w = serializers.FloatField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)
    circuit = serializers.CharField(allow_blank=True, help_text=_("where it is held back; empty: nowhere in the tree"))
    phase = serializers.CharField(allow_blank=True, help_text=_("L1, L2, L3, or W: by the power of all together"))
    state = serializers.CharField(allow_blank=True)
    isolated_at = serializers.DateTimeField(
        allow_null=True, help_text=_("since then it follows no limit and counts with its maximum")
    )
    asked = serializers.ListField(child=serializers.DictField(), help_text=_("who wants what now; the lowest counts"))


class EVSENowSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(help_text=_("number on the station: evseId in 2.0.1, connectorId in 1.6"))
    key = serializers.IntegerField(help_text=_("number in this system, as `evses[].id` in sites/<id>/now/"))
    status = serializers.CharField()
    status_at = serializers.DateTimeField(allow_null=True)
    error_code = serializers.CharField(allow_blank=True)
    iec_state = serializers.CharField(allow_blank=True)
    power_w = serializers.FloatField(allow_null=True)
    current_a = serializers.ListField(
        child=serializers.FloatField(allow_null=True), allow_null=True, help_text=_("[L1, L2, L3] of the grid")
    )
    transaction = serializers.IntegerField(allow_null=True, help_text=_("id of the open transaction"))
    limit = LimitNowSerializer()


class StationSerializer(Strict, serializers.ModelSerializer[ChargingStation]):
    """A station as the API shows and takes it."""

    site = SiteField(allow_null=True, required=False)
    connected = serializers.SerializerMethodField()
    evses = serializers.SerializerMethodField()
    password = serializers.CharField(
        write_only=True,
        required=False,
        allow_blank=True,
        max_length=128,
        help_text=_("for basic authentication; empty: none is asked"),
    )
    wiring = PlainJSON(required=False)
    capabilities = serializers.SerializerMethodField(help_text=_("what counts: its own, else its model's"))
    max_a = Number(required=False, min_value=0, max_value=1000)
    min_a = Number(required=False, min_value=0, max_value=80)
    max_w = Number(required=False, min_value=0, max_value=10_000_000, allow_null=True)
    station_max_a = Number(required=False, min_value=0, max_value=10_000, allow_null=True)
    fail_safe_a = Number(required=False, min_value=0, max_value=1000)

    class Meta:
        model = ChargingStation
        fields: tuple[str, ...] = (
            "identity",
            "name",
            "site",
            "protocol",
            "connected",
            "last_seen",
            "quiet",
            "admission",
            "priority",
            "current",
            "wiring",
            "max_a",
            "min_a",
            "max_w",
            "station_max_a",
            "fail_safe_a",
            "vendor",
            "model",
            "serial_number",
            "firmware_version",
            "boot_at",
            "boot_reason",
            "capabilities",
            "password",
            "evses",
        )
        read_only_fields: tuple[str, ...] = (
            "identity",
            "protocol",
            "last_seen",
            "vendor",
            "model",
            "serial_number",
            "firmware_version",
            "boot_at",
            "boot_reason",
        )

    @property
    def now(self) -> Now:
        found: Now = self.context["now"]
        return found

    @extend_schema_field(OpenApiTypes.BOOL)
    def get_connected(self, station: ChargingStation) -> bool:
        return station.identity in self.now.holders

    @extend_schema_field(OpenApiTypes.OBJECT)
    def get_capabilities(self, station: ChargingStation) -> dict[str, Any]:
        return self.now.capabilities[station.pk]

    @extend_schema_field(EVSENowSerializer(many=True))
    def get_evses(self, station: ChargingStation) -> list[dict[str, Any]]:
        return [evse_now(evse, self.now.measurement(evse)) for evse in station.evses.all()]

    def validate_wiring(self, value: object) -> object:
        validate_wiring(value)
        return value or []

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        def value(name: str) -> Any:
            return attrs.get(name, getattr(self.instance or ChargingStation(), name))

        if value("min_a") > value("max_a"):
            raise serializers.ValidationError({"min_a": [_("The minimum is above the maximum.")]})
        if wrong := names_one_line(value("wiring"), value("site")):
            raise serializers.ValidationError({"wiring": [wrong]})
        return attrs

    def update(self, instance: ChargingStation, validated_data: dict[str, Any]) -> ChargingStation:
        password = validated_data.pop("password", None)
        station = super().update(instance, validated_data)
        if password is not None:
            credentials.set_by_hand(station, password)
        return station


class NewStationSerializer(StationSerializer):
    """The body that makes a station: its site, its identity, and how many EVSEs it has."""

    site = SiteField()
    evse_count = serializers.IntegerField(write_only=True, required=False, default=1, min_value=1, max_value=64)

    class Meta(StationSerializer.Meta):
        fields = (*StationSerializer.Meta.fields, "evse_count")
        read_only_fields = tuple(f for f in StationSerializer.Meta.read_only_fields if f != "identity")
        extra_kwargs = {
            "admission": {"default": ChargingStation.Admission.ACCEPTED},
            "identity": {"max_length": 255, "validators": []},  # `validate_identity` knows who may be taken over
        }

    def validate_identity(self, identity: str) -> str:
        taken = ChargingStation.objects.filter(identity=identity).exists()
        if taken and waiting_without_site(identity) is None:
            raise serializers.ValidationError(_("There is a station of this identity already."))
        return identity

    def create(self, validated_data: dict[str, Any]) -> ChargingStation:
        password = validated_data.pop("password", "")
        count = validated_data.pop("evse_count")
        with transaction.atomic():
            station = waiting_without_site(validated_data["identity"]) or ChargingStation()
            for name, value in validated_data.items():
                setattr(station, name, value)
            station.set_password(password)
            station.save()
            there = set(station.evses.values_list("number", flat=True))
            EVSE.objects.bulk_create(EVSE(station=station, number=n) for n in range(1, count + 1) if n not in there)
        return station


def evse_now(evse: EVSE, measured: Measurement | None) -> dict[str, Any]:
    """An EVSE at this moment: state, flow, and the limit with its reason."""
    currents = measured.phase_currents() if measured is not None else None
    known = [abs(a) for a in currents or () if a is not None]
    wanted: WantedLimit | None = getattr(evse, "wanted_limit", None)
    running = getattr(evse, "running", [])
    circuit, phase = _held_at(evse, wanted)
    return {
        "id": evse.number,
        "key": evse.pk,
        "status": evse.status,
        "status_at": _iso(evse.status_at),
        "error_code": evse.error_code,
        "iec_state": evse.iec_state,
        "power_w": measured.power_w if measured is not None else None,
        "current_a": list(currents) if currents is not None else None,
        "transaction": running[0].pk if running else None,
        "limit": {
            "wanted_a": wanted.wanted_a if wanted else None,
            "accepted_a": wanted.accepted_a if wanted else None,
            "measured_a": max(known) if known else None,
            "wanted_w": wanted.wanted_w if wanted else None,
            "accepted_w": wanted.accepted_w if wanted else None,
            "reason": wanted.reason if wanted else "",
            "circuit": circuit,
            "phase": phase,
            "state": wanted.state if wanted else "",
            "isolated_at": _iso(wanted.isolated_at) if wanted else None,
            "asked": wanted.asked if wanted else [],
        },
    }


def _held_at(evse: EVSE, wanted: WantedLimit | None) -> tuple[str, str]:
    """Circuit and phase of the limit: as the newest allocation knows them, else as far as the reason names them."""
    if wanted is None:
        return "", ""
    if getattr(evse, "held_reason", None) == wanted.reason and getattr(evse, "held_circuit", ""):
        return getattr(evse, "held_circuit", ""), getattr(evse, "held_phase", "")
    return place_of(wanted.reason)


def _iso(at: Any) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")


def with_evses(stations: QuerySet[ChargingStation]) -> QuerySet[ChargingStation]:
    """Stations with all that `evse_now` looks at, in a number of queries that does not grow."""
    running = Prefetch("transactions", Transaction.objects.filter(ended_at=None), to_attr="running")
    newest = AllocationRecord.objects.filter(evse=OuterRef("pk")).order_by("-at")
    evses = (
        EVSE.objects.select_related("wanted_limit", "station")
        .prefetch_related(running)
        .annotate(**{f"held_{name}": Subquery(newest.values(name)[:1]) for name in ("reason", "circuit", "phase")})
        .order_by("number")
    )
    return stations.select_related("site").prefetch_related(Prefetch("evses", evses))


class StationFilter(filters.FilterSet):
    site = filters.NumberFilter(field_name="site", min_value=0, max_value=2**62)

    class Meta:
        model = ChargingStation
        fields = ("site", "admission", "protocol", "quiet")


class StationAt(SiteScoped):
    """A view under `stations/<identity>/`."""

    site_path = "site"
    queryset = ChargingStation.objects.all()

    def get_object(self) -> ChargingStation:
        station = find_station(self.get_queryset(), self.kwargs["identity"])
        self.check_object_permissions(self.request, station)
        return station


def find_station(stations: QuerySet[ChargingStation], identity: str) -> ChargingStation:
    """The station named in an address. A name with slashes or percent signs may arrive encoded once more."""
    for name in dict.fromkeys((identity, unquote(identity))):
        station = stations.filter(identity=name).first() if "\x00" not in name else None
        if station is not None:
            return station
    raise Http404


class _Shown(SiteScoped):
    def show(self, stations: list[ChargingStation]) -> Any:
        context = {**self.get_serializer_context(), "now": Now(stations)}
        return StationSerializer(stations, many=True, context=context).data

    def show_one(self, station: ChargingStation) -> Any:
        fresh = with_evses(ChargingStation.objects.filter(pk=station.pk))
        return self.show(list(fresh))[0]


@extend_schema_view(
    get=extend_schema(summary="Stations, with their EVSEs as they stand now", responses=StationSerializer),
    post=extend_schema(summary="Make a station", request=NewStationSerializer, responses={201: StationSerializer}),
)
class StationList(_Shown, generics.ListCreateAPIView[ChargingStation]):
    queryset = ChargingStation.objects.order_by("identity")
    site_path = "site"
    filterset_class = StationFilter

    def get_serializer_class(self) -> type[StationSerializer]:
        return NewStationSerializer if self.request.method == "POST" else StationSerializer

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(with_evses(self.filter_queryset(self.get_queryset())))
        return self.get_paginated_response(self.show(list(page or [])))

    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        body = NewStationSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        require(request.user, body.validated_data["site"], INSTALLER)
        station = body.save()
        announce("station", [station.pk])
        return Response(self.show_one(station), status=201)


@extend_schema_view(
    get=extend_schema(summary="One station", responses=StationSerializer),
    patch=extend_schema(
        summary="Set a station",
        description="An operator sets name, quiet, admission, priority and password; the rest asks for the installer.",
        responses=StationSerializer,
    ),
)
class StationDetail(_Shown, StationAt, generics.GenericAPIView[ChargingStation]):
    serializer_class = StationSerializer

    def check_write(self, obj: ChargingStation) -> None:
        given = self.request.data.keys() if isinstance(self.request.data, Mapping) else ()
        role = OPERATOR if set(given) <= OPERATORS_FIELDS else INSTALLER
        require(self.request.user, obj.site_id, role)

    def get(self, request: Request, identity: str) -> Response:
        return Response(self.show_one(self.get_object()))

    def patch(self, request: Request, identity: str) -> Response:
        station = self.get_object()
        body = StationSerializer(station, data=request.data, partial=True, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        if "site" in body.validated_data:
            require(request.user, body.validated_data["site"], INSTALLER)
        body.save()
        announce("station", [station.pk])
        return Response(self.show_one(station))

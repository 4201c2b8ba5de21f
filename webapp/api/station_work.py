"""Longer work with stations: the lists they hold, their logs, and new firmware."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.http import FileResponse
from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from csms import bus, local_lists, logs, rollouts
from csms.asking import ERRORS, why
from csms.workflow_models import FirmwareImage, FirmwareRollout, FirmwareUpdate, LocalList, LogRequest
from meters.access import narrow
from webapp.api.fields import Number, SiteField, StationField, Strict
from webapp.api.permissions import INSTALLER, OPERATOR, SiteScoped, person, require


class NotDone(APIException):
    """The station was asked, or could not be, and it came to nothing."""

    def __init__(self, error: Exception) -> None:
        codes = {bus.StationUnreachable: 409, bus.NoAnswer: 504, bus.CallRefused: 502}
        self.status_code = next((code for kind, code in codes.items() if isinstance(error, kind)), 422)
        super().__init__(why(error))


class Conflict(APIException):
    status_code = 409


class OfStationFilter(filters.FilterSet):
    site = filters.NumberFilter(field_name="station__site", min_value=0, max_value=2**62)
    station = filters.CharFilter(field_name="station__identity")


# ---------------------------------------------------------------------- lists


class LocalListSerializer(serializers.ModelSerializer[LocalList]):
    """What a station holds, and what it should."""

    station = serializers.CharField(source="station.identity")
    entries = serializers.SerializerMethodField(help_text=_("how many tokens it should hold"))

    class Meta:
        model = LocalList
        fields = (
            "id",
            "station",
            "state",
            "wanted_version",
            "held_version",
            "entries",
            "left_out",
            "attempts",
            "next_try_at",
            "last_error",
            "checked_at",
            "sent_at",
        )
        read_only_fields = fields

    @extend_schema_field(OpenApiTypes.INT)
    def get_entries(self, row: LocalList) -> int:
        return len(row.wanted)


class LocalListFilter(OfStationFilter):
    class Meta:
        model = LocalList
        fields = ("site", "station", "state")


@extend_schema_view(
    list=extend_schema(summary="Lists of id tokens in stations"),
    retrieve=extend_schema(summary="The list of a station"),
)
class LocalLists(SiteScoped, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[LocalList]):
    queryset = LocalList.objects.select_related("station").defer("held").order_by("station__identity")
    serializer_class = LocalListSerializer
    filterset_class = LocalListFilter
    site_path = "station__site"
    lookup_value_regex = r"\d{1,18}"

    @extend_schema(summary="Send a station its whole list now", request=None, responses=LocalListSerializer)
    @action(detail=True, methods=["post"])
    def send(self, request: Request, pk: str) -> Response:
        row = self.get_object()
        sent = local_lists.send_now(row.station)
        if sent is None:
            raise Conflict(_("The site keeps no local lists."))
        return Response(LocalListSerializer(sent).data)


# ---------------------------------------------------------------------- logs


class LogSerializer(serializers.ModelSerializer[LogRequest]):
    """A log asked of a station."""

    station = serializers.CharField(source="station.identity")
    file = serializers.SerializerMethodField(help_text=_("is it here, and can be fetched?"))

    class Meta:
        model = LogRequest
        fields = (
            "id",
            "station",
            "kind",
            "oldest",
            "latest",
            "elsewhere",
            "state",
            "status",
            "detail",
            "file",
            "file_name",
            "size",
            "sha256",
            "asked_at",
            "heard_at",
            "uploaded_at",
        )
        read_only_fields = fields

    @extend_schema_field(OpenApiTypes.BOOL)
    def get_file(self, row: LogRequest) -> bool:
        return bool(row.file)


class NewLogSerializer(Strict):
    station = StationField(help_text=_("identity"))
    kind = serializers.ChoiceField(choices=LogRequest.Kind.choices, default=LogRequest.Kind.DIAGNOSTICS.value)
    oldest = serializers.DateTimeField(required=False)
    latest = serializers.DateTimeField(required=False)
    elsewhere = serializers.RegexField(
        r"^(https?|ftps?|sftp)://\S+$",
        required=False,
        max_length=255,
        help_text=_("your own server, for a station that cannot upload by HTTP"),
    )


class LogFilter(OfStationFilter):
    class Meta:
        model = LogRequest
        fields = ("site", "station", "state", "kind")


@extend_schema_view(
    list=extend_schema(summary="Logs asked of stations, newest first"), retrieve=extend_schema(summary="One log")
)
class StationLogs(SiteScoped, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[LogRequest]):
    queryset = LogRequest.objects.select_related("station").order_by("-asked_at", "-pk")
    serializer_class = LogSerializer
    filterset_class = LogFilter
    site_path = "station__site"
    lookup_value_regex = r"\d{1,18}"

    @extend_schema(
        summary="Ask a station for a log",
        description="409 not connected, 422 it cannot, 502 it answered with an error. The file comes later.",
        request=NewLogSerializer,
        responses={201: LogSerializer},
    )
    def create(self, request: Request) -> Response:
        body = NewLogSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        said = body.validated_data
        require(request.user, said["station"].site_id, OPERATOR)
        try:
            made = logs.fetch(**said, by=person(request))
        except ERRORS as error:
            raise NotDone(error) from error
        return Response(LogSerializer(LogRequest.objects.select_related("station").get(pk=made.pk)).data, status=201)

    @extend_schema(summary="The file of a log", responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    @action(detail=True, methods=["get"])
    def file(self, request: Request, pk: str) -> FileResponse:
        row = self.get_object()
        require(request.user, row.station.site_id, OPERATOR)
        path = logs.path_of(row)
        if path is None:
            raise NotFound(_("There is no file."))
        return FileResponse(
            path.open("rb"), as_attachment=True, filename=row.file_name, content_type="application/octet-stream"
        )


# ---------------------------------------------------------------------- firmware


class UpdateSerializer(serializers.ModelSerializer[FirmwareUpdate]):
    station = serializers.CharField(source="station.identity")
    runs_now = serializers.CharField(source="station.firmware_version")

    class Meta:
        model = FirmwareUpdate
        fields = (
            "station",
            "canary",
            "state",
            "status",
            "detail",
            "attempts",
            "from_version",
            "runs_now",
            "asked_at",
            "heard_at",
            "ended_at",
        )
        read_only_fields = fields


class RolloutSerializer(serializers.ModelSerializer[FirmwareRollout]):
    """A rollout and how far it is."""

    image = serializers.IntegerField(source="image_id")
    version = serializers.CharField(source="image.version")
    site = serializers.IntegerField(source="site_id", allow_null=True)
    counts = serializers.SerializerMethodField(help_text=_("stations by state"))

    class Meta:
        model = FirmwareRollout
        fields = (
            "id",
            "name",
            "image",
            "version",
            "site",
            "state",
            "reason",
            "counts",
            "from_versions",
            "canaries",
            "at_once",
            "only_idle",
            "window_from",
            "window_to",
            "attempts",
            "patience_minutes",
            "max_failures",
            "max_failure_share",
            "created_at",
            "started_at",
            "ended_at",
        )
        read_only_fields = fields

    @extend_schema_field(serializers.DictField(child=serializers.IntegerField()))
    def get_counts(self, row: Any) -> dict[str, int]:
        states = FirmwareUpdate.State.values
        return {state: getattr(row, f"in_{state}") for state in states if getattr(row, f"in_{state}", 0)}


class NewRolloutSerializer(Strict):
    image = serializers.IntegerField(min_value=1, max_value=2**62)
    site = SiteField()
    name = serializers.CharField(required=False, max_length=100)
    from_versions = serializers.CharField(required=False, max_length=255)
    stations = serializers.ListField(child=StationField(), required=False, max_length=2000)
    canaries = serializers.IntegerField(required=False, min_value=0, max_value=1000)
    at_once = serializers.IntegerField(required=False, min_value=1, max_value=200)
    only_idle = serializers.BooleanField(required=False)
    window_from = serializers.TimeField(required=False)
    window_to = serializers.TimeField(required=False)
    attempts = serializers.IntegerField(required=False, min_value=1, max_value=10)
    patience_minutes = serializers.IntegerField(required=False, min_value=1, max_value=7 * 24 * 60)
    max_failures = serializers.IntegerField(required=False, min_value=1, max_value=1000)
    max_failure_share = Number(required=False, min_value=0, max_value=1)

    def validate_image(self, key: int) -> FirmwareImage:
        user = self.context["request"].user
        images = narrow(FirmwareImage.objects.all(), user, "site") | FirmwareImage.objects.filter(site=None)
        found: FirmwareImage | None = images.filter(pk=key).first()
        if found is None:
            raise serializers.ValidationError(_("Your sites have no such one."))
        return found


class RolloutFilter(filters.FilterSet):
    site = filters.NumberFilter(field_name="site", min_value=0, max_value=2**62)

    class Meta:
        model = FirmwareRollout
        fields = ("site", "state")


@extend_schema_view(
    list=extend_schema(summary="Firmware rollouts, newest first"), retrieve=extend_schema(summary="One rollout")
)
class FirmwareRollouts(
    SiteScoped, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[FirmwareRollout]
):
    queryset = (
        FirmwareRollout.objects.select_related("image")
        .annotate(**{f"in_{s}": Count("updates", filter=Q(updates__state=s)) for s in FirmwareUpdate.State.values})
        .order_by("-created_at", "-pk")
    )
    serializer_class = RolloutSerializer
    filterset_class = RolloutFilter
    writes = INSTALLER
    lookup_value_regex = r"\d{1,18}"

    @extend_schema(
        summary="Describe a rollout; it begins with start/",
        request=NewRolloutSerializer,
        responses={201: RolloutSerializer},
    )
    def create(self, request: Request) -> Response:
        body = NewRolloutSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        said = dict(body.validated_data)
        require(request.user, said["site"], INSTALLER)
        stations = said.pop("stations", [])
        made = FirmwareRollout.objects.create(**said, by=person(request))
        made.stations.set(stations)
        return Response(self._shown(made), status=201)

    @extend_schema(summary="The stations of a rollout", responses=UpdateSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_class=None)
    def stations(self, request: Request, pk: str) -> Response:
        updates = self.get_object().updates.select_related("station")
        page = self.paginate_queryset(updates.order_by("-canary", "pk"))
        return self.get_paginated_response(UpdateSerializer(page or [], many=True).data)

    @extend_schema(summary="Begin", request=None, responses=RolloutSerializer)
    @action(detail=True, methods=["post"])
    def start(self, request: Request, pk: str) -> Response:
        return self._do(lambda rollout: rollouts.start(rollout, by=person(request)))

    @extend_schema(summary="Ask nobody new for now", request=None, responses=RolloutSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        return self._do(rollouts.pause)

    @extend_schema(
        summary="Go on after a pause or a stop; the failures so far count no more",
        request=None,
        responses=RolloutSerializer,
    )
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        return self._do(rollouts.resume)

    @extend_schema(summary="End it for good", request=None, responses=RolloutSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        return self._do(rollouts.cancel)

    def _do(self, verb: Callable[[FirmwareRollout], object]) -> Response:
        rollout = self.get_object()
        try:
            verb(rollout)
        except rollouts.RolloutError as error:
            raise Conflict(str(error)) from error
        return Response(self._shown(rollout))

    def _shown(self, rollout: FirmwareRollout) -> Any:
        rows: QuerySet[FirmwareRollout] = self.queryset
        return RolloutSerializer(rows.get(pk=rollout.pk)).data

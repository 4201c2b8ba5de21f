"""The conversation with one station: its log, and a message of one's own in the station's dialect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view, inline_serializer
from rest_framework import generics, pagination, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from csms import bus, calls
from csms.models import ChargingStation, OcppMessage
from csms.redaction import blank
from meters.access import narrow
from webapp.api.fields import PlainJSON, Strict
from webapp.api.permissions import INSTALLER, OPERATOR, SiteScoped, require
from webapp.api.stations import StationAt, find_station

INSTALLERS_ACTIONS = frozenset(
    {
        "CertificateSigned",
        "ChangeConfiguration",
        "DeleteCertificate",
        "InstallCertificate",
        "PublishFirmware",
        "SetMonitoringBase",
        "SetMonitoringLevel",
        "SetNetworkProfile",
        "SetVariableMonitoring",
        "SetVariables",
        "SignedUpdateFirmware",
        "UnpublishFirmware",
        "UpdateFirmware",
    }
)
"""What changes the station itself, and not only what it does now."""


class NewestFirst(pagination.CursorPagination):
    """By cursor, so that a page does not shift while new messages arrive, and nothing has to be counted."""

    ordering = ("-at", "-id")
    page_size = 100
    page_size_query_param = "limit"
    max_page_size = 1000


class MessageSerializer(serializers.ModelSerializer[OcppMessage]):
    class Meta:
        model = OcppMessage
        fields = ("id", "at", "direction", "kind", "message_id", "action", "payload", "raw", "repairs")
        read_only_fields = fields


class MessageFilter(filters.FilterSet):
    since = filters.IsoDateTimeFilter(field_name="at", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="at", lookup_expr="lt")

    class Meta:
        model = OcppMessage
        fields = ("action", "direction", "kind", "message_id")


@extend_schema_view(get=extend_schema(summary="What passed the station's socket, newest first"))
class StationMessages(SiteScoped, generics.ListAPIView[OcppMessage]):
    queryset = OcppMessage.objects.all()
    serializer_class = MessageSerializer
    pagination_class = NewestFirst
    filterset_class = MessageFilter
    site_path = "station__site"

    def get_queryset(self) -> QuerySet[OcppMessage]:
        narrowed = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return narrowed
        return narrowed.filter(station=self._station())

    def _station(self) -> ChargingStation:
        mine = narrow(ChargingStation.objects.all(), self.request.user, "site")
        return find_station(mine, self.kwargs["identity"])


class CallSerializer(Strict):
    action = serializers.RegexField(r"^[A-Za-z][A-Za-z0-9]{0,63}$", help_text=_("such as RemoteStartTransaction"))
    payload = PlainJSON(help_text=_("sent as compact JSON with its members in this order"))

    def validate_payload(self, value: object) -> object:
        if not isinstance(value, dict):
            raise serializers.ValidationError(_("Give an object."))
        return value


ResultSerializer = inline_serializer("CallResult", {"result": serializers.DictField()})
ErrorSerializer = inline_serializer(
    "CallError",
    {
        "error": inline_serializer(
            "CallErrorBody",
            {
                "code": serializers.CharField(),
                "description": serializers.CharField(allow_blank=True),
                "details": serializers.JSONField(allow_null=True),
            },
        )
    },
)


class StationCall(StationAt, generics.GenericAPIView[ChargingStation]):
    """Ask the station something once, in its own dialect, and wait for what it says."""

    serializer_class = CallSerializer

    def check_write(self, obj: ChargingStation) -> None:
        action = self.request.data.get("action") if isinstance(self.request.data, dict) else None
        role = INSTALLER if isinstance(action, str) and action in INSTALLERS_ACTIONS else OPERATOR
        require(self.request.user, obj.site_id, role)

    @extend_schema(
        summary="Send one OCPP call",
        responses={
            200: ResultSerializer,
            409: OpenApiResponse(ErrorSerializer, "the station is not connected"),
            422: OpenApiResponse(ErrorSerializer, "not valid in the station's dialect; nothing was sent"),
            502: OpenApiResponse(ErrorSerializer, "the station answered with an error"),
            504: OpenApiResponse(ErrorSerializer, "no answer; it may or may not have had its effect"),
        },
    )
    def post(self, request: Request, identity: str) -> Response:
        station = self.get_object()
        body = CallSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        said = body.validated_data
        return asked(lambda: calls.send(station, said["action"], said["payload"]))


def asked(question: Callable[[], Mapping[str, Any]]) -> Response:
    """What a station answered, or why it did not, with the status that says so. Some tell their own passwords."""
    try:
        result = blank(dict(question()))
    except bus.StationUnreachable:
        return _error(409, "NotConnected", str(_("The station is not connected.")))
    except bus.CallNotValid as error:
        return _error(422, "NotValid", str(error))
    except bus.CallRefused as error:
        return _error(502, error.code, error.description, blank(error.details))
    except bus.NoAnswer as error:
        return _error(504, "NoAnswer", str(error))
    return Response({"result": result})


def _error(status: int, code: str, description: str, details: Any = None) -> Response:
    return Response({"error": {"code": code, "description": description, "details": details}}, status=status)

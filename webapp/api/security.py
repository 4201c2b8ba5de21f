"""A station's password over REST: a new random one, sent to the station and told to nobody else."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from csms import credentials
from csms.models import ChargingStation
from webapp.api.fields import Strict
from webapp.api.messages import ErrorSerializer, ResultSerializer, asked
from webapp.api.permissions import OPERATOR, require
from webapp.api.stations import StationAt


class NothingSerializer(Strict):
    """An empty body."""


class StationPassword(StationAt, generics.GenericAPIView[ChargingStation]):
    """Give the station a new random password; the old one is valid until the new one is used, or the grace ends."""

    serializer_class: type[serializers.BaseSerializer[object]] = NothingSerializer

    def check_write(self, obj: ChargingStation) -> None:
        require(self.request.user, obj.site_id, OPERATOR)

    @extend_schema(
        summary="A new random password, sent to the station",
        request=None,
        responses={
            200: ResultSerializer,
            409: OpenApiResponse(ErrorSerializer, "the station is not connected; nothing changed"),
            502: OpenApiResponse(ErrorSerializer, "the station answered with an error; nothing changed"),
            504: OpenApiResponse(ErrorSerializer, "no answer; both passwords are valid for now"),
        },
    )
    def post(self, request: Request, identity: str) -> Response:
        station = self.get_object()
        return asked(lambda: credentials.rotate_password(station))

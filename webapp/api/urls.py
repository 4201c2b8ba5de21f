"""The addresses of the API, version 1. Every one ends with a slash."""

from __future__ import annotations

from django.urls import include, path, re_path
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.decorators import api_view, permission_classes
from rest_framework.exceptions import NotFound
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter

from webapp.api.alarms import Alarms
from webapp.api.devices import Devices
from webapp.api.goals import BulkGoals, Goals
from webapp.api.grid import GridCommands
from webapp.api.messages import StationCall, StationMessages
from webapp.api.prices import Prices
from webapp.api.reservations import Reservations
from webapp.api.security import StationPassword
from webapp.api.sites import Sites
from webapp.api.station_work import FirmwareRollouts, LocalLists, StationLogs
from webapp.api.stations import StationDetail, StationList
from webapp.api.tokens import IdTokens, UserProfiles
from webapp.api.transactions import Transactions


@extend_schema(exclude=True)
@api_view(["GET", "POST", "PUT", "PATCH", "DELETE"])
@permission_classes([AllowAny])
def nothing_here(request: Request, rest: str = "") -> Response:
    """An address that does not exist says so in JSON, and reminds of the slash."""
    hint = "" if request.path.endswith("/") else f" Addresses end with a slash: {request.path}/"
    raise NotFound(f"There is nothing here.{hint}")


router = SimpleRouter()
router.register("sites", Sites)
router.register("alarms", Alarms)
router.register("goals", Goals)
router.register("transactions", Transactions)
router.register("id-tokens", IdTokens)
router.register("user-profiles", UserProfiles)
router.register("devices", Devices)
router.register("grid-commands", GridCommands)
router.register("reservations", Reservations)
router.register("local-lists", LocalLists)
router.register("station-logs", StationLogs)
router.register("firmware-rollouts", FirmwareRollouts)

urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("docs/", SpectacularSwaggerView.as_view(url_name="api-schema"), name="api-docs"),
    path("goals/bulk/", BulkGoals.as_view(), name="goals-bulk"),
    path("prices/", Prices.as_view(), name="prices"),
    path("stations/", StationList.as_view(), name="stations"),
    # An identity may hold slashes; what follows it is therefore tried first.
    path("stations/<path:identity>/messages/", StationMessages.as_view(), name="station-messages"),
    path("stations/<path:identity>/ocpp/", StationCall.as_view(), name="station-ocpp"),
    path("stations/<path:identity>/password/", StationPassword.as_view(), name="station-password"),
    path("stations/<path:identity>/", StationDetail.as_view(), name="station"),
    path("", include(router.urls)),
    re_path(r"^(?P<rest>.*)$", nothing_here),
]

"""Grid commands: the grid operator's limits on a site's connection, and what became of them."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from smartcharging import grid_commands
from smartcharging.grid_commands import GridCommandError
from smartcharging.models import GridCommand
from webapp.api.fields import Number, OnlySite, SiteField, Strict
from webapp.api.permissions import OPERATOR, SiteScoped, person, require

MOST_W = 1_000_000_000


class GridCommandSerializer(Strict, serializers.ModelSerializer[GridCommand]):
    site = SiteField(default=OnlySite())
    import_limit_w = Number(required=False, allow_null=True, min_value=0, max_value=MOST_W)
    export_limit_w = Number(required=False, allow_null=True, min_value=0, max_value=MOST_W)
    starts_at = serializers.DateTimeField(required=False, help_text=_("now, unless said"))
    by = serializers.CharField(source="by.username", read_only=True, default=None)

    class Meta:
        model = GridCommand
        fields = (
            "id",
            "site",
            "import_limit_w",
            "export_limit_w",
            "starts_at",
            "ends_at",
            "reason",
            "state",
            "received_at",
            "applied_at",
            "measured_at",
            "ended_at",
            "by",
        )
        read_only_fields = ("state", "received_at", "applied_at", "measured_at", "ended_at")


class EndSerializer(Strict):
    """How a command is ended: by a moment, or at once by its state."""

    ends_at = serializers.DateTimeField(required=False)
    state = serializers.ChoiceField(choices=(GridCommand.State.ENDED.value,), required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError({"ends_at": [_("Give “ends_at”, or “state”: “ended” to end it now.")]})
        return attrs


class GridCommandFilter(filters.FilterSet):
    site = filters.NumberFilter(field_name="site", min_value=0, max_value=2**62)

    class Meta:
        model = GridCommand
        fields = ("site", "state")


@extend_schema_view(
    list=extend_schema(summary="Grid commands, newest first"),
    retrieve=extend_schema(summary="One grid command"),
)
class GridCommands(SiteScoped, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[GridCommand]):
    queryset = GridCommand.objects.select_related("by").order_by("-starts_at", "-pk")
    serializer_class = GridCommandSerializer
    filterset_class = GridCommandFilter
    lookup_value_regex = r"\d{1,18}"

    @extend_schema(
        summary="Limit the grid connection", request=GridCommandSerializer, responses={201: GridCommandSerializer}
    )
    def create(self, request: Request) -> Response:
        body = self.get_serializer(data=request.data)
        body.is_valid(raise_exception=True)
        require(request.user, body.validated_data["site"], OPERATOR)
        try:
            command = grid_commands.receive(**body.validated_data, by=person(request))
        except GridCommandError as error:
            raise serializers.ValidationError({error.field: [error.message]}) from error
        return Response(self.get_serializer(command).data, status=201)

    @extend_schema(summary="End a grid command", request=EndSerializer, responses=GridCommandSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        command = self.get_object()
        body = EndSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        try:
            command = grid_commands.set_end(command, body.validated_data.get("ends_at") or timezone.now())
        except GridCommandError as error:
            raise serializers.ValidationError({error.field: [error.message]}) from error
        return Response(self.get_serializer(command).data)

"""Reservations: a place kept for a card, now or later."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import mixins, serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from csms import reservations
from csms.models import EVSE, IdToken
from csms.workflow_models import OPEN_RESERVATIONS, Reservation
from meters.access import sites_of
from webapp.api.fields import SiteField, StationField, Strict
from webapp.api.permissions import OPERATOR, SiteScoped, person, require


class ReservationSerializer(serializers.ModelSerializer[Reservation]):
    """A reservation as the API shows it."""

    site = serializers.IntegerField(source="site_id")
    station = serializers.CharField(source="station.identity", default=None, allow_null=True)
    evse = serializers.IntegerField(
        source="evse.number", default=None, allow_null=True, help_text=_("number of the EVSE on its station")
    )
    id_token = serializers.CharField(source="id_token.value")
    transaction = serializers.IntegerField(
        source="transaction_id", allow_null=True, help_text=_("id of the charge that used it")
    )
    by = serializers.SerializerMethodField()

    class Meta:
        model = Reservation
        fields = (
            "id",
            "site",
            "station",
            "evse",
            "id_token",
            "connector_type",
            "starts_at",
            "ends_at",
            "state",
            "detail",
            "cancel_wanted",
            "transaction",
            "created_at",
            "answered_at",
            "closed_at",
            "by",
        )
        read_only_fields = fields

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_by(self, row: Reservation) -> str | None:
        return row.by.get_username() if row.by is not None else None


class NewReservationSerializer(Strict):
    """For which card, until when, and where: an EVSE of a station, any of a station, or any free place of the site."""

    site = SiteField(required=False, help_text=_("only needed when a token exists on several of your sites"))
    id_token = serializers.CharField(max_length=36)
    station = StationField(required=False, help_text=_("identity; left out: any free place of the site"))
    evse = serializers.IntegerField(
        required=False, min_value=1, max_value=1000, help_text=_("number on the station; left out: any of it")
    )
    connector_type = serializers.CharField(required=False, max_length=20)
    starts_at = serializers.DateTimeField(required=False, help_text=_("now, unless said"))
    ends_at = serializers.DateTimeField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        sites = sites_of(self.context["request"].user)
        if "site" in attrs:
            sites = sites.filter(pk=attrs["site"].pk)
        elif attrs.get("station") is not None:
            sites = sites.filter(pk=attrs["station"].site_id)
        tokens = list(
            IdToken.objects.select_related("site").filter(site__in=sites, value__iexact=attrs["id_token"])[:2]
        )
        if not tokens:
            raise serializers.ValidationError({"id_token": [_("Your sites have no such one.")]})
        if len(tokens) > 1:
            raise serializers.ValidationError({"site": [_("There is more than one; give the site too.")]})
        attrs["id_token"] = tokens[0]
        if "evse" in attrs:
            attrs["evse"] = self._evse(attrs)
        return attrs

    def _evse(self, attrs: dict[str, Any]) -> EVSE:
        if attrs.get("station") is None:
            raise serializers.ValidationError({"station": [_("Say of which station.")]})
        found = EVSE.objects.select_related("station").filter(station=attrs["station"], number=attrs["evse"]).first()
        if found is None:
            raise serializers.ValidationError({"evse": [_("The station has no such EVSE.")]})
        return found


class ReservationFilter(filters.FilterSet):
    site = filters.NumberFilter(field_name="site", min_value=0, max_value=2**62)
    station = filters.CharFilter(field_name="station__identity")
    id_token = filters.CharFilter(field_name="id_token__value", lookup_expr="iexact")
    open = filters.BooleanFilter(method="of_open", label="wanted or accepted")

    class Meta:
        model = Reservation
        fields = ("site", "station", "id_token", "state", "open")

    def of_open(self, rows: QuerySet[Reservation], name: str, value: bool) -> QuerySet[Reservation]:
        states = OPEN_RESERVATIONS
        return rows.filter(state__in=states) if value else rows.exclude(state__in=states)


@extend_schema_view(
    list=extend_schema(summary="Reservations of your sites, newest first"),
    retrieve=extend_schema(summary="One reservation"),
)
class Reservations(SiteScoped, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Reservation]):
    queryset = Reservation.objects.select_related("station", "evse", "id_token", "by").order_by("-starts_at", "-pk")
    serializer_class = ReservationSerializer
    filterset_class = ReservationFilter
    lookup_value_regex = r"\d{1,18}"

    @extend_schema(
        summary="Reserve a place",
        description=(
            "The station is asked at once, or at `starts_at`; what it said is the `state`: accepted, occupied, "
            "rejected, faulted or unavailable. A station that is away leaves it `wanted`, and is asked once it is back."
        ),
        request=NewReservationSerializer,
        responses={201: ReservationSerializer},
    )
    def create(self, request: Request) -> Response:
        body = NewReservationSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        wish = dict(body.validated_data)
        wish.pop("site", None)
        require(request.user, wish["id_token"].site_id, OPERATOR)
        try:
            made = reservations.reserve(**wish, by=person(request))
        except reservations.ReservationError as error:
            raise serializers.ValidationError({error.field: [error.message]}) from error
        return Response(self._shown(made), status=201)

    @extend_schema(
        summary="Cancel a reservation",
        description="Where the station is away it is told later: then `cancel_wanted` is true and the state stands.",
        responses={200: ReservationSerializer},
    )
    def destroy(self, request: Request, pk: str) -> Response:
        row = self.get_object()
        reservations.cancel(row)
        return Response(self._shown(row))

    def _shown(self, row: Reservation) -> Any:
        return ReservationSerializer(self.queryset.get(pk=row.pk)).data

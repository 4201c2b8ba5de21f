"""Day-ahead prices: read by everyone on a site of the area, written in bulk by its operators."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_view, inline_serializer
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from meters.access import sites_of
from smartcharging.models import Price
from webapp.api.fields import Number, Strict
from webapp.api.permissions import OPERATOR, SiteScoped, require_anywhere

MOST_PRICES = 5000


class _Bounded(serializers.ListSerializer[Any]):
    """No more rows than one transaction should hold."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "allow_empty": False, "max_length": MOST_PRICES})


class PriceSerializer(Strict, serializers.ModelSerializer[Price]):
    area = serializers.RegexField(r"^[A-Za-z0-9_-]{1,16}$", help_text=_("bidding zone, such as BE"))
    minutes = serializers.ChoiceField(choices=(15, 30, 60), default=15)
    eur_per_mwh = Number(min_value=-100_000, max_value=100_000)
    source = serializers.CharField(required=False, allow_blank=True, max_length=64, default="api")  # type: ignore[assignment]

    class Meta:
        model = Price
        fields = ("area", "start", "minutes", "eur_per_mwh", "source")
        validators: list[Any] = []
        list_serializer_class = _Bounded

    def validate_start(self, start: Any) -> Any:
        if start.second or start.microsecond or start.minute % 15:
            raise serializers.ValidationError(_("A price starts on a quarter hour."))
        return start


class PriceFilter(filters.FilterSet):
    class Meta:
        model = Price
        fields = ("area",)

    @classmethod
    def get_filters(cls) -> dict[str, Any]:
        """`from` is a word of Python's, so it cannot be declared above."""
        return {
            **super().get_filters(),
            "from": filters.IsoDateTimeFilter(field_name="start", lookup_expr="gte", label="starts at or after"),
            "to": filters.IsoDateTimeFilter(field_name="start", lookup_expr="lt", label="starts before"),
        }


@extend_schema_view(get=extend_schema(summary="Day-ahead prices of the areas of your sites"))
class Prices(SiteScoped, generics.ListAPIView[Price]):
    queryset = Price.objects.order_by("area", "start")
    serializer_class = PriceSerializer
    filterset_class = PriceFilter

    def get_queryset(self) -> QuerySet[Price]:
        user = self.request.user
        if user.is_superuser:
            return Price.objects.order_by("area", "start")
        areas = sites_of(user).exclude(price_area="").values("price_area")
        return Price.objects.filter(area__in=areas).order_by("area", "start")

    @extend_schema(
        summary="Set prices, all or none",
        description="One price of an area and start each; a price that exists is replaced.",
        request=PriceSerializer(many=True),
        responses={200: inline_serializer("PricesSet", {"set": serializers.IntegerField()})},
    )
    def post(self, request: Request) -> Response:
        require_anywhere(request.user, OPERATOR)
        body = PriceSerializer(
            data=request.data,
            many=True,
            context=self.get_serializer_context(),
        )
        body.is_valid(raise_exception=True)
        self._check(body.validated_data)
        prices = [Price(**row) for row in body.validated_data]
        with transaction.atomic():
            Price.objects.bulk_create(
                prices,
                update_conflicts=True,
                unique_fields=["area", "start"],
                update_fields=["minutes", "eur_per_mwh", "source"],
                batch_size=500,
            )
        return Response({"set": len(prices)})

    def _check(self, rows: list[dict[str, Any]]) -> None:
        """Each row in an area of the caller's own, and no moment priced twice. Errors stand at their row's index."""
        user = self.request.user
        areas = None if user.is_superuser else set(sites_of(user, OPERATOR).values_list("price_area", flat=True))
        seen: set[tuple[str, Any]] = set()
        errors: dict[str, dict[str, list[Any]]] = {}
        for index, row in enumerate(rows):
            if areas is not None and row["area"] not in areas:
                errors[str(index)] = {"area": [_("None of the sites you operate is in this area.")]}
            elif (row["area"], row["start"]) in seen:
                errors[str(index)] = {"start": [_("This moment is priced twice.")]}
            seen.add((row["area"], row["start"]))
        if errors:
            raise serializers.ValidationError(errors)

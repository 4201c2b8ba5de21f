"""Transactions: what was charged, by whom, and the story behind it."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from csms import billing
from csms.models import Transaction, TransactionEvent
from meters.access import sites_of
from smartcharging.models import AllocationRecord, ChargingGoal
from webapp.api.explanations import ExplanationSerializer, explanation_of
from webapp.api.fields import KilowattHours
from webapp.api.permissions import SiteScoped

MOST_POINTS = 500
MOST_LIMITS = 1000


class GoalOfTransaction(serializers.ModelSerializer[ChargingGoal]):
    energy_kwh = KilowattHours(source="energy_wh")
    promised_kwh = KilowattHours(source="promised_wh")

    class Meta:
        model = ChargingGoal
        fields = (
            "id",
            "departure",
            "energy_kwh",
            "range_km",
            "priority",
            "mode",
            "source",
            "external_id",
            "promised_kwh",
            "promise_reason",
        )
        read_only_fields = fields


class CostLine(serializers.Serializer[Any]):
    """One line of a bill; the amounts add up to the cost."""

    kind = serializers.ChoiceField(choices=["energy", "start", "idle", "minimum", "vat"])
    quantity = serializers.FloatField()
    unit = serializers.CharField(allow_blank=True, help_text="kWh, min, % …")
    unit_price = serializers.FloatField()
    amount = serializers.FloatField()


class TransactionSerializer(serializers.ModelSerializer[Transaction]):
    station = serializers.CharField(source="station.identity")
    site = serializers.IntegerField(source="station.site_id", allow_null=True)
    evse = serializers.IntegerField(source="evse.number", default=None, allow_null=True)
    id_token = serializers.SerializerMethodField()
    goal = serializers.SerializerMethodField()
    open = serializers.BooleanField()
    cost = serializers.SerializerMethodField(help_text=_("with VAT; null while it runs, and without a tariff"))
    cost_lines = serializers.SerializerMethodField()
    gaps = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField(), min_length=2, max_length=2),
        help_text=_("stretches of sequence numbers not received: first and last"),
    )
    flags = serializers.ListField(child=serializers.CharField(), help_text=_("what was strange about it"))

    class Meta:
        model = Transaction
        fields: tuple[str, ...] = (
            "id",
            "transaction_id",
            "station",
            "site",
            "evse",
            "connector",
            "id_token",
            "authorized",
            "open",
            "started_at",
            "ended_at",
            "stop_reason",
            "charging_state",
            "energy_wh",
            "soc",
            "last_event_at",
            "charging_s",
            "idle_s",
            "max_power_w",
            "cost",
            "currency",
            "cost_lines",
            "check_before_billing",
            "flags",
            "gaps",
            "goal",
        )
        read_only_fields = fields

    @extend_schema_field(serializers.CharField())
    def get_id_token(self, transaction: Transaction) -> str:
        """The token as the site knows it; when it is unknown or removed, as it was presented."""
        return transaction.id_token.value if transaction.id_token else transaction.id_token_value

    @extend_schema_field(serializers.FloatField(allow_null=True))
    def get_cost(self, transaction: Transaction) -> float | None:
        return None if transaction.cost is None else float(transaction.cost)

    @extend_schema_field(CostLine(many=True))
    def get_cost_lines(self, transaction: Transaction) -> list[dict[str, Any]]:
        return [dict(CostLine(line).data) for line in transaction.cost_lines]

    @extend_schema_field(GoalOfTransaction(allow_null=True))
    def get_goal(self, transaction: Transaction) -> Any:
        goal = getattr(transaction, "goal", None)
        if goal is None or goal.cancelled_at is not None:
            return None
        return GoalOfTransaction(goal).data


class EventSerializer(serializers.ModelSerializer[TransactionEvent]):
    class Meta:
        model = TransactionEvent
        fields = (
            *("kind", "at", "received_at", "told_at", "correction", "seq_no", "trigger", "offline"),
            *("register_wh", "payload"),
        )
        read_only_fields = fields


class EnergyPoint(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    energy_wh = serializers.FloatField(allow_null=True, help_text=_("since the start of the transaction"))
    power_w = serializers.FloatField(allow_null=True)


class GivenLimit(serializers.ModelSerializer[AllocationRecord]):
    class Meta:
        model = AllocationRecord
        fields = ("at", "limit_a", "limit_w", "reason", "circuit", "phase")
        read_only_fields = fields


class RunningCost(serializers.Serializer[Any]):
    cost = serializers.FloatField()
    vat = serializers.FloatField()
    currency = serializers.CharField()
    cost_lines = CostLine(many=True)


class TransactionDetailSerializer(TransactionSerializer):
    """With its story: energy over time, every event, every limit it was given and why."""

    events = EventSerializer(many=True)
    running_cost = serializers.SerializerMethodField(
        help_text=_("the cost up to now with its lines; null once it has ended, and without a tariff")
    )
    explanation = serializers.SerializerMethodField(help_text=_("why this current, what is promised, what would help"))
    energy = serializers.SerializerMethodField()
    limits = serializers.SerializerMethodField()

    class Meta(TransactionSerializer.Meta):
        fields = (*TransactionSerializer.Meta.fields, "meter_start_wh", "meter_last_wh", "energy", "events")
        fields = (*fields, "limits", "running_cost", "explanation")
        read_only_fields = fields

    @extend_schema_field(RunningCost(allow_null=True))
    def get_running_cost(self, transaction: Transaction) -> Any:
        cost = billing.running_cost(transaction, timezone.now()) if transaction.open else None
        if cost is None:
            return None
        lines = [line.to_dict() for line in cost.lines]
        return RunningCost(
            {"cost": float(cost.total), "vat": float(cost.vat), "currency": cost.currency, "cost_lines": lines}
        ).data

    @extend_schema_field(ExplanationSerializer())
    def get_explanation(self, transaction: Transaction) -> dict[str, Any]:
        return explanation_of(transaction)

    @extend_schema_field(EnergyPoint(many=True))
    def get_energy(self, transaction: Transaction) -> list[dict[str, Any]]:
        rows = list(transaction.samples.order_by("at").values_list("at", "energy_wh", "power_w"))
        stride = -(-len(rows) // MOST_POINTS) or 1
        kept = rows[::stride]
        if rows and kept[-1] != rows[-1]:
            kept.append(rows[-1])
        start = transaction.meter_start_wh
        points = [
            {"at": at, "energy_wh": None if wh is None or start is None else wh - start, "power_w": power}
            for at, wh, power in kept
        ]
        return [dict(EnergyPoint(p).data) for p in points]

    @extend_schema_field(GivenLimit(many=True))
    def get_limits(self, transaction: Transaction) -> Any:
        if transaction.evse_id is None:
            return []
        ended = transaction.ended_at or timezone.now()
        records = AllocationRecord.objects.filter(evse=transaction.evse_id, at__lte=ended)
        during = records.filter(at__gte=transaction.started_at).order_by("-at")[:MOST_LIMITS]
        # The limit that already held when the transaction began tells the beginning of the story.
        before = records.filter(at__lt=transaction.started_at).order_by("-at")[:1]
        return GivenLimit([*before, *reversed(list(during))], many=True).data


def own_or_of_sites(transactions: QuerySet[Transaction], user: Any) -> QuerySet[Transaction]:
    """The transactions of a person's sites, and those of his own cards wherever they are."""
    if user.is_superuser:
        return transactions
    if not user.is_authenticated:
        return transactions.none()
    return transactions.filter(Q(station__site__in=sites_of(user)) | Q(id_token__driver=user))


class TransactionFilter(filters.FilterSet):
    station = filters.CharFilter(field_name="station__identity")
    site = filters.NumberFilter(field_name="station__site", min_value=0, max_value=2**62)
    evse = filters.NumberFilter(field_name="evse__number", min_value=0, max_value=32767)
    id_token = filters.CharFilter(field_name="id_token_value", lookup_expr="iexact")
    transaction_id = filters.CharFilter(field_name="transaction_id")
    open = filters.BooleanFilter(field_name="ended_at", lookup_expr="isnull")

    class Meta:
        model = Transaction
        fields = ("station", "site", "evse", "id_token", "transaction_id", "open")

    @classmethod
    def get_filters(cls) -> dict[str, Any]:
        """`from` is a word of Python's, so it cannot be declared above."""
        return {
            **super().get_filters(),
            "check_before_billing": filters.BooleanFilter(field_name="check_before_billing"),
            "from": filters.IsoDateTimeFilter(field_name="started_at", lookup_expr="gte", label="started at or after"),
            "to": filters.IsoDateTimeFilter(field_name="started_at", lookup_expr="lt", label="started before"),
        }


@extend_schema_view(
    list=extend_schema(summary="Transactions, newest first"),
    retrieve=extend_schema(summary="One transaction with energy, events and limits"),
)
class Transactions(SiteScoped, viewsets.ReadOnlyModelViewSet[Transaction]):
    queryset = Transaction.objects.select_related("station", "evse", "id_token", "goal").order_by("-started_at", "-pk")
    filterset_class = TransactionFilter
    lookup_value_regex = r"\d{1,18}"

    def get_queryset(self) -> QuerySet[Transaction]:
        transactions = own_or_of_sites(self.queryset.all(), self.request.user)
        if self.action == "list":
            return transactions
        return transactions.select_related("station__site", "evse__station", "evse__wanted_limit")

    @extend_schema(
        summary="One transaction explained",
        description="Why this current now, what is promised, what limits it and what would help: in words and as data.",
        responses=ExplanationSerializer,
    )
    @action(detail=True, methods=["get"])
    def explanation(self, request: Request, pk: str) -> Response:
        return Response(explanation_of(self.get_object()))

    def get_serializer_class(self) -> type[TransactionSerializer]:
        return TransactionDetailSerializer if self.action == "retrieve" else TransactionSerializer

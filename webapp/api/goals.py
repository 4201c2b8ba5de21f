"""Charging goals: the door for scheduling software, one at a time or a fleet's whole day."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view, inline_serializer
from rest_framework import mixins, serializers, views, viewsets
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response

from csms.models import EVSE, IdToken, Transaction
from meters.access import may, sites_of
from meters.models import Site
from smartcharging.goals import GoalError, cancel_goal, change_goal, set_goal
from smartcharging.models import ChargingGoal, Mode
from webapp.api.fields import KilowattHours, Number, SiteField, StationField, Strict
from webapp.api.parsing import JSONOnly
from webapp.api.permissions import OPERATOR, SiteScoped, person, require, require_anywhere

MOST_GOALS = 2000
_FIELD_NAMES = {"energy_wh": "energy_kwh", "goal": "detail"}
"""Where the API's words differ from the records'."""
_Target: TypeAlias = IdToken | EVSE | Transaction


class GoalSerializer(serializers.ModelSerializer[ChargingGoal]):
    """A goal as the API shows it."""

    site = serializers.IntegerField(source="site_id")
    transaction = serializers.SerializerMethodField(help_text=_("id of the transaction it is for"))
    station = serializers.SerializerMethodField()
    evse = serializers.SerializerMethodField(help_text=_("number of the EVSE on its station"))
    id_token = serializers.CharField(source="id_token.value", default=None, allow_null=True)
    energy_kwh = KilowattHours(source="energy_wh", allow_null=True)
    promised_kwh = KilowattHours(source="promised_wh", allow_null=True, help_text=_("by the newest plan"))

    class Meta:
        model = ChargingGoal
        fields = (
            "id",
            "site",
            "transaction",
            "station",
            "evse",
            "id_token",
            "departure",
            "energy_kwh",
            "range_km",
            "priority",
            "mode",
            "source",
            "external_id",
            "promised_kwh",
            "promise_reason",
            "cancelled_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields

    @extend_schema_field(serializers.IntegerField(allow_null=True))
    def get_transaction(self, goal: ChargingGoal) -> int | None:
        return goal.transaction_id or goal.asked_for_id

    def _evse(self, goal: ChargingGoal) -> EVSE | None:
        if goal.evse is not None:
            return goal.evse
        charge = goal.transaction or goal.asked_for
        return charge.evse if charge is not None else None

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_station(self, goal: ChargingGoal) -> str | None:
        evse = self._evse(goal)
        return evse.station.identity if evse is not None else None

    @extend_schema_field(serializers.IntegerField(allow_null=True))
    def get_evse(self, goal: ChargingGoal) -> int | None:
        evse = self._evse(goal)
        return evse.number if evse is not None else None


@extend_schema_field(
    {
        "oneOf": [{"type": "integer"}, {"type": "string"}],
        "description": "number on `station` when that is given; else “identity/number”, or the key that `now/` shows",
    }
)
class _EVSEName(serializers.Field[Any, Any, Any, Any]):
    """An EVSE as people name it; found when the rest of the body is known."""

    default_error_messages = {"type": _("Give a number, or a text such as “CS-001/1”.")}

    def to_internal_value(self, data: Any) -> int | str:
        if isinstance(data, bool) or not isinstance(data, int | str) or "\x00" in str(data) or len(str(data)) > 300:
            self.fail("type")
        return data

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field(
    {"oneOf": [{"type": "integer"}, {"type": "string"}], "description": "number: our id; text: transaction_id"}
)
class _TransactionName(_EVSEName):
    default_error_messages = {"type": _("Give our id as a number, or the transaction id as a text.")}


class _Wish(Strict):
    """What may be wished, whoever wishes it."""

    departure = serializers.DateTimeField(required=False, allow_null=True)
    energy_kwh = KilowattHours(required=False, allow_null=True)
    range_km = Number(required=False, allow_null=True, min_value=0, max_value=3000)
    priority = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=10)
    mode = serializers.ChoiceField(choices=Mode.choices, required=False)

    def wish(self) -> dict[str, Any]:
        """The validated wish in the words of `smartcharging.goals`."""
        names = {"energy_kwh": "energy_wh"}
        wanted = ("departure", "energy_kwh", "range_km", "priority", "mode")
        return {names.get(n, n): self.validated_data[n] for n in wanted if n in self.validated_data}


class NewGoalSerializer(_Wish):
    """For whom (one of id_token, evse, transaction), and what."""

    site = SiteField(required=False, help_text=_("only needed when a token exists on several of your sites"))
    id_token = serializers.CharField(required=False, max_length=36)
    station = StationField(required=False, help_text=_("identity; makes `evse` the number on this station"))
    evse = _EVSEName(required=False)
    transaction = _TransactionName(required=False)
    external_id = serializers.CharField(
        required=False, max_length=100, help_text=_("your own id; sending it again changes the same goal")
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        targets = [name for name in ("id_token", "evse", "transaction") if name in attrs]
        if len(targets) != 1:
            text = _("Give exactly one of id_token, evse and transaction.")
            raise serializers.ValidationError({name: [text] for name in targets or ("id_token",)})
        if attrs.get("energy_kwh") is not None and attrs.get("range_km") is not None:
            raise serializers.ValidationError({"range_km": [_("Give energy_kwh or range_km, not both.")]})
        if all(attrs.get(name) is None for name in ("departure", "energy_kwh", "range_km", "priority", "mode")):
            raise serializers.ValidationError(
                {"departure": [_("Say what is wanted: departure, energy_kwh, range_km.")]}
            )
        attrs["target"] = self._target(attrs, targets[0])
        return attrs

    def _target(self, attrs: dict[str, Any], name: str) -> _Target:
        user = self.context["request"].user
        sites = sites_of(user)
        if "site" in attrs:
            sites = sites.filter(pk=attrs["site"].pk)
        station = attrs.get("station")
        if name == "id_token":
            tokens = IdToken.objects.select_related("site").filter(value__iexact=attrs["id_token"])
            # His own card is no secret to a driver: he is told that he may not, not that it does not exist.
            mine = Q(site__in=sites) if "site" in attrs else Q(site__in=sites) | Q(driver=user)
            return self._one(name, tokens.filter(mine))
        if name == "evse":
            return self._one(name, _evses_named(attrs["evse"], station).filter(station__site__in=sites))
        return self._one(name, _transactions_named(attrs["transaction"], station).filter(station__site__in=sites))

    def _one(self, name: str, found: QuerySet[Any]) -> _Target:
        candidates = list(found.distinct()[:2])
        if not candidates:
            raise serializers.ValidationError({name: [_("Your sites have no such one.")]})
        if len(candidates) > 1:
            raise serializers.ValidationError({name: [_("There is more than one; give the site or the station too.")]})
        chosen: _Target = candidates[0]
        return chosen


class ChangedGoalSerializer(_Wish):
    """The fields to change; those left out stay, null clears."""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise serializers.ValidationError({"detail": [_("Nothing to change.")]})
        return attrs


def _evses_named(name: int | str, station: Any) -> QuerySet[EVSE]:
    evses = EVSE.objects.select_related("station__site")
    number = int(name) if isinstance(name, int) or (name.isascii() and name.isdigit() and len(name) < 10) else None
    if station is not None:
        return evses.filter(station=station, number=number) if number is not None else evses.none()
    if isinstance(name, int):
        return evses.filter(pk=name) if 0 <= name < 2**63 else evses.none()
    identity, slash, last = name.rpartition("/")
    if not slash or not (last.isascii() and last.isdigit() and len(last) < 6):
        return evses.none()
    return evses.filter(station__identity=identity, number=int(last))


def _transactions_named(name: int | str, station: Any) -> QuerySet[Transaction]:
    charges = Transaction.objects.select_related("station__site")
    if station is not None:
        charges = charges.filter(station=station)
    if isinstance(name, int):
        return charges.filter(pk=name) if 0 <= name < 2**63 else charges.none()
    return charges.filter(transaction_id=name)


def _site_of(target: _Target) -> Site | None:
    return target.site if isinstance(target, IdToken) else target.station.site


def accept(data: Any, request: Request) -> tuple[ChargingGoal, bool]:
    """One wish from a body to a goal; whether it is a new one. Raises validation errors by the body's own names."""
    body = NewGoalSerializer(data=data, context={"request": request})
    body.is_valid(raise_exception=True)
    target = body.validated_data["target"]
    user = person(request)
    site = _site_of(target)
    require(user, site, OPERATOR)
    if site is None:
        raise serializers.ValidationError({"station": [_("The station stands on no site yet.")]})
    name = {IdToken: "id_token", EVSE: "evse", Transaction: "transaction"}[type(target)]
    asked_at = timezone.now()
    with _said_in_our_words():
        goal = set_goal(
            site=site,
            **{name: target},
            **body.wish(),
            source=ChargingGoal.Source.SCHEDULE,
            external_id=body.validated_data.get("external_id", ""),
            user=user,
        )
    return goal, goal.created_at >= asked_at


@contextmanager
def _said_in_our_words() -> Iterator[None]:
    """A refused wish becomes a validation error at the field of the body."""
    try:
        yield
    except GoalError as error:
        field = _FIELD_NAMES.get(error.field, error.field)
        raise serializers.ValidationError({field: [error.message]}) from error


class GoalFilter(filters.FilterSet):
    site = filters.NumberFilter(field_name="site", min_value=0, max_value=2**62)
    id_token = filters.CharFilter(field_name="id_token__value", lookup_expr="iexact")
    station = filters.CharFilter(method="of_station")
    open = filters.BooleanFilter(field_name="cancelled_at", lookup_expr="isnull", label="not cancelled")

    class Meta:
        model = ChargingGoal
        fields = ("site", "external_id", "source", "id_token", "station", "open")

    def of_station(self, goals: QuerySet[ChargingGoal], name: str, value: str) -> QuerySet[ChargingGoal]:
        return goals.filter(Q(evse__station__identity=value) | Q(asked_for__station__identity=value))


@extend_schema_view(
    list=extend_schema(summary="Goals of your sites and your own cards, newest first"),
    retrieve=extend_schema(summary="One goal, with what the newest plan promises"),
)
class Goals(SiteScoped, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[ChargingGoal]):
    queryset = ChargingGoal.objects.select_related(
        "evse__station", "id_token", "transaction__evse__station", "asked_for__evse__station", "asked_for__id_token"
    ).order_by("-created_at", "-pk")
    serializer_class = GoalSerializer
    filterset_class = GoalFilter
    lookup_value_regex = r"\d{1,18}"

    def get_queryset(self) -> QuerySet[ChargingGoal]:
        goals = self.queryset.all()
        user = self.request.user
        if user.is_superuser:
            return goals
        if not user.is_authenticated:
            return goals.none()
        own = Q(id_token__driver=user) | Q(asked_for__id_token__driver=user)
        return goals.filter(Q(site__in=sites_of(user)) | own)

    def check_write(self, obj: ChargingGoal) -> None:
        """Operators change every goal of the site; a driver changes his own, and cancels through an operator."""
        if may(self.request.user, obj.site_id, OPERATOR):
            return
        if self.request.method == "PATCH" and self._own(obj):
            return
        require(self.request.user, obj.site_id, OPERATOR)

    def _own(self, goal: ChargingGoal) -> bool:
        token = goal.id_token or (goal.asked_for.id_token if goal.asked_for is not None else None)
        return token is not None and token.driver_id == self.request.user.pk

    @extend_schema(
        summary="Set a goal",
        description="201 when it is new, 200 when the one of this `external_id`, or of the same charge, was changed.",
        request=NewGoalSerializer,
        responses={201: GoalSerializer, 200: GoalSerializer},
    )
    def create(self, request: Request) -> Response:
        goal, new = accept(request.data, request)
        return Response(self._shown(goal), status=201 if new else 200)

    @extend_schema(summary="Change a goal", request=ChangedGoalSerializer, responses=GoalSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        goal = self.get_object()
        body = ChangedGoalSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        wish = body.wish()
        if "priority" in wish and not may(request.user, goal.site_id, OPERATOR):
            raise serializers.ValidationError({"priority": [_("An operator sets the priority.")]})
        if wish.get("energy_wh") is not None and wish.get("range_km") is not None:
            raise serializers.ValidationError({"range_km": [_("Give energy_kwh or range_km, not both.")]})
        with _said_in_our_words():
            goal = change_goal(goal, user=person(request), **wish)
        return Response(self._shown(goal))

    @extend_schema(summary="Cancel a goal", responses={204: None})
    def destroy(self, request: Request, pk: str) -> Response:
        cancel_goal(self.get_object(), user=person(request))
        return Response(status=204)

    def _shown(self, goal: ChargingGoal) -> Any:
        return GoalSerializer(self.queryset.get(pk=goal.pk)).data


class BulkGoals(JSONOnly, views.APIView):
    """A whole day of a fleet in one body. Each item is taken or refused by itself: one bad item loses no other."""

    @extend_schema(
        summary="Set many goals",
        description="200 when every item was taken, 207 when some were refused: see each item of `results`.",
        request=NewGoalSerializer(many=True),
        responses={
            (200, "application/json"): inline_serializer(
                "BulkGoals",
                {
                    "created": serializers.IntegerField(),
                    "changed": serializers.IntegerField(),
                    "refused": serializers.IntegerField(),
                    "results": inline_serializer(
                        "BulkGoal",
                        {
                            "index": serializers.IntegerField(),
                            "status": serializers.IntegerField(),
                            "external_id": serializers.CharField(required=False),
                            "goal": GoalSerializer(required=False),
                            "errors": serializers.DictField(required=False),
                        },
                        many=True,
                    ),
                },
            ),
            207: OpenApiTypes.OBJECT,
        },
    )
    def post(self, request: Request) -> Response:
        require_anywhere(request.user, OPERATOR)
        items = request.data
        if not isinstance(items, list):
            raise serializers.ValidationError({"detail": [_("Give a list of goals.")]})
        if not items or len(items) > MOST_GOALS:
            raise serializers.ValidationError(
                {"detail": [_("Give 1 to %(most)d goals at a time.") % {"most": MOST_GOALS}]}
            )
        results = [self._one(index, item, request) for index, item in enumerate(items)]
        refused = sum(1 for r in results if r["status"] >= 400)
        body = {
            "created": sum(1 for r in results if r["status"] == 201),
            "changed": sum(1 for r in results if r["status"] == 200),
            "refused": refused,
            "results": results,
        }
        return Response(body, status=207 if refused else 200)

    def _one(self, index: int, item: Any, request: Request) -> dict[str, Any]:
        result: dict[str, Any] = {"index": index}
        if isinstance(item, dict) and isinstance(item.get("external_id"), str):
            result["external_id"] = item["external_id"]
        try:
            goal, new = accept(item, request)
        except serializers.ValidationError as error:
            return {**result, "status": 400, "errors": error.detail}
        except PermissionDenied as error:
            return {**result, "status": 403, "errors": {"detail": error.detail}}
        return {**result, "status": 201 if new else 200, "goal": GoalSerializer(goal).data}

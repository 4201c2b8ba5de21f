"""Alarms: what an operator must know of until it is over, and how he ends one."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from csms import alarms
from csms.obedience_models import Alarm
from webapp.api.fields import Strict
from webapp.api.permissions import SiteScoped, person


class AlarmSerializer(serializers.ModelSerializer[Alarm]):
    station = serializers.CharField(source="station.identity", default=None)
    evse = serializers.IntegerField(source="evse.number", default=None, help_text=_("number on the station"))

    class Meta:
        model = Alarm
        fields = ("id", "site", "station", "evse", "kind", "detail", "raised_at", "ended_at", "ended_by")
        read_only_fields = fields


class EndAlarmSerializer(Strict):
    """How an alarm is ended: by saying so."""

    ended = serializers.ChoiceField(choices=(True,), help_text=_("true ends it"))


class AlarmFilter(filters.FilterSet):
    open = filters.BooleanFilter(field_name="ended_at", lookup_expr="isnull")
    site = filters.NumberFilter(field_name="site", min_value=0, max_value=2**62)
    station = filters.CharFilter(field_name="station__identity")

    class Meta:
        model = Alarm
        fields = ("kind",)


@extend_schema_view(
    list=extend_schema(summary="Alarms, newest first; `?open=true` for those that are not over"),
    retrieve=extend_schema(summary="One alarm"),
)
class Alarms(SiteScoped, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[Alarm]):
    queryset = Alarm.objects.select_related("station", "evse").order_by("-raised_at", "-pk")
    serializer_class = AlarmSerializer
    filterset_class = AlarmFilter

    @extend_schema(
        summary="End an alarm; a place that was isolated is believed again",
        request=EndAlarmSerializer,
        responses=AlarmSerializer,
    )
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        alarm = self.get_object()
        body = EndAlarmSerializer(data=request.data, context=self.get_serializer_context())
        body.is_valid(raise_exception=True)
        alarms.dismiss(alarm, timezone.now(), person(request).get_username())
        return Response(AlarmSerializer(alarm, context=self.get_serializer_context()).data)

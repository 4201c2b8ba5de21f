"""Meters, PV, batteries and loads: how they are reached, and what they say now."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from meters import live
from meters.commissioning import problems
from meters.models import Device
from webapp.api.fields import Number, OnlySite, PlainJSON, SiteField, Strict
from webapp.api.permissions import INSTALLER, SiteScoped, require

CHECKED = frozenset({"connect", "map", "wiring", "options", "poll_s", "max_age_s"})


class DeviceSerializer(Strict, serializers.ModelSerializer[Device]):
    site = SiteField(default=OnlySite())
    wiring = PlainJSON(required=False)
    options = PlainJSON(required=False)
    poll_s = Number(required=False, min_value=0.2, max_value=3600)
    max_age_s = Number(required=False, min_value=1, max_value=86_400)
    measurement = serializers.SerializerMethodField()
    age_s = serializers.SerializerMethodField()
    stale = serializers.SerializerMethodField()

    class Meta:
        model = Device
        fields = (
            "id",
            "site",
            "name",
            "kind",
            "map",
            "connect",
            "wiring",
            "invert",
            "poll_s",
            "max_age_s",
            "options",
            "enabled",
            "last_seen",
            "last_error",
            "measurement",
            "age_s",
            "stale",
        )
        read_only_fields = ("last_seen", "last_error")
        validators: list[Any] = []

    def _newest(self, device: Device) -> Any:
        return self.context["live"].get(live.device_source(device.pk))

    @extend_schema_field(OpenApiTypes.OBJECT)
    def get_measurement(self, device: Device) -> dict[str, Any] | None:
        """The newest measurement, however old; `stale` says whether it still counts."""
        newest = self._newest(device)
        return None if newest is None else newest.to_dict()

    @extend_schema_field(serializers.FloatField(allow_null=True))
    def get_age_s(self, device: Device) -> float | None:
        newest = self._newest(device)
        return None if newest is None else round(newest.age(timezone.now()).total_seconds(), 3)

    @extend_schema_field(OpenApiTypes.BOOL)
    def get_stale(self, device: Device) -> bool:
        newest = self._newest(device)
        return newest is None or not newest.is_fresh(timezone.now(), device.max_age_s)

    def validate_site(self, site: Any) -> Any:
        if self.instance is not None and self.instance.site_id != site.pk:
            raise serializers.ValidationError(_("It stays on its site; make a new one on the other."))
        return site

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        site = attrs.get("site") or getattr(self.instance, "site", None)
        if "name" in attrs:
            same = Device.objects.filter(site=site, name=attrs["name"])
            if self.instance is not None:
                same = same.exclude(pk=self.instance.pk)
            if same.exists():
                raise serializers.ValidationError({"name": [_("The site already has a device of this name.")]})
        device = Device(**{name: getattr(self.instance, name) for name in CHECKED} if self.instance else {})
        for name in CHECKED & attrs.keys():
            setattr(device, name, attrs[name])
        if wrong := problems(device, site):
            raise serializers.ValidationError({name: [text] for name, text in wrong.items()})
        return attrs


class DeviceFilter(filters.FilterSet):
    site = filters.NumberFilter(field_name="site", min_value=0, max_value=2**62)

    class Meta:
        model = Device
        fields = ("site", "kind", "enabled", "name")


@extend_schema_view(
    list=extend_schema(summary="Devices, with their newest measurement"),
    create=extend_schema(summary="Add a device"),
    retrieve=extend_schema(summary="One device"),
    partial_update=extend_schema(summary="Change a device"),
    destroy=extend_schema(summary="Remove a device with its readings"),
)
class Devices(SiteScoped, viewsets.ModelViewSet[Device]):
    queryset = Device.objects.order_by("site", "name")
    serializer_class = DeviceSerializer
    filterset_class = DeviceFilter
    http_method_names = ["get", "post", "patch", "delete", "head", "options"]
    lookup_value_regex = r"\d{1,18}"
    writes = INSTALLER

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "live": {}}

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = list(self.paginate_queryset(self.filter_queryset(self.get_queryset())) or [])
        newest = live.fetch(live.device_source(d.pk) for d in page)
        context = {**self.get_serializer_context(), "live": newest}
        return self.get_paginated_response(DeviceSerializer(page, many=True, context=context).data)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        device = self.get_object()
        newest = live.fetch([live.device_source(device.pk)])
        context = {**self.get_serializer_context(), "live": newest}
        return Response(DeviceSerializer(device, context=context).data)

    def perform_create(self, serializer: Any) -> None:
        require(self.request.user, serializer.validated_data["site"], INSTALLER)
        super().perform_create(serializer)

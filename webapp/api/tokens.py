"""Id tokens and user profiles: who may charge, and what he wants unless he says otherwise."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers, viewsets

from csms.changes import announce
from csms.models import IdToken
from smartcharging.models import TokenProfile, UserProfile
from webapp.api.fields import DriverField, KilowattHours, OnlySite, ProfileField, SiteField, Strict
from webapp.api.permissions import OPERATOR, SiteScoped, require


class _OfSite(Strict):
    """A record that stays on the site it was made for."""

    def validate_site(self, site: Any) -> Any:
        if self.instance is not None and self.instance.site_id != site.pk:
            raise serializers.ValidationError(_("It stays on its site; make a new one on the other."))
        return site


class IdTokenSerializer(_OfSite, serializers.ModelSerializer[IdToken]):
    site = SiteField(default=OnlySite())
    profile = ProfileField(
        source="token_profile.profile", required=False, allow_null=True, help_text=_("user profile, by name or id")
    )
    driver = DriverField(required=False, allow_null=True, help_text=_("user name of the person behind the card"))

    class Meta:
        model = IdToken
        fields = (
            "id",
            "site",
            "value",
            "type",
            "status",
            "expires_at",
            "group",
            "profile",
            "driver",
            "label",
        )
        validators: list[Any] = []  # the database compares without regard to case: see `validate`

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        site = attrs.get("site") or getattr(self.instance, "site", None)
        value = attrs.get("value")
        if value is not None:
            same = IdToken.objects.filter(site=site, value__iexact=value)
            if self.instance is not None:
                same = same.exclude(pk=self.instance.pk)
            if same.exists():
                raise serializers.ValidationError({"value": [_("The site already has this token.")]}, code="unique")
        link = attrs.get("token_profile") or {}
        profile = link.get("profile")
        if profile is not None and site is not None and profile.site_id != site.pk:
            raise serializers.ValidationError({"profile": [_("The profile belongs to another site.")]})
        return attrs

    def create(self, validated_data: dict[str, Any]) -> IdToken:
        link = validated_data.pop("token_profile", None)
        with transaction.atomic():
            token: IdToken = IdToken.objects.create(**validated_data)
            _link(token, link)
        return token

    def update(self, instance: IdToken, validated_data: dict[str, Any]) -> IdToken:
        link = validated_data.pop("token_profile", None)
        with transaction.atomic():
            for name, value in validated_data.items():
                setattr(instance, name, value)
            instance.save()
            _link(instance, link)
        return IdToken.objects.select_related("token_profile__profile", "driver").get(pk=instance.pk)


def _link(token: IdToken, link: dict[str, Any] | None) -> None:
    """Put a profile behind a token; `None` for the link says nothing, for its profile says none."""
    if link is None:
        return
    if link["profile"] is None:
        TokenProfile.objects.filter(id_token=token).delete()
    else:
        TokenProfile.objects.update_or_create(id_token=token, defaults={"profile": link["profile"]})


class _OfSiteViews(SiteScoped, viewsets.ModelViewSet[Any]):
    http_method_names = ["get", "post", "patch", "delete", "head", "options"]

    def perform_create(self, serializer: Any) -> None:
        require(self.request.user, serializer.validated_data["site"], OPERATOR)
        super().perform_create(serializer)


class IdTokenFilter(filters.FilterSet):
    site = filters.NumberFilter(field_name="site", min_value=0, max_value=2**62)
    value = filters.CharFilter(field_name="value", lookup_expr="iexact")
    profile = filters.CharFilter(field_name="token_profile__profile__name")

    class Meta:
        model = IdToken
        fields = ("site", "value", "status", "type", "group", "profile")


@extend_schema_view(
    list=extend_schema(summary="Id tokens"),
    create=extend_schema(summary="Admit an id token"),
    retrieve=extend_schema(summary="One id token"),
    partial_update=extend_schema(summary="Change an id token"),
    destroy=extend_schema(summary="Remove an id token; its transactions keep its value"),
)
class IdTokens(_OfSiteViews):
    queryset = IdToken.objects.select_related("token_profile__profile", "driver").order_by("site", "value")
    serializer_class = IdTokenSerializer
    filterset_class = IdTokenFilter

    def perform_create(self, serializer: Any) -> None:
        super().perform_create(serializer)
        announce("token", [serializer.instance.pk])

    def perform_update(self, serializer: Any) -> None:
        super().perform_update(serializer)
        announce("token", [serializer.instance.pk])

    def perform_destroy(self, instance: IdToken) -> None:
        pk = instance.pk
        super().perform_destroy(instance)
        announce("token", [pk])


class UserProfileSerializer(_OfSite, serializers.ModelSerializer[UserProfile]):
    site = SiteField(default=OnlySite())
    energy_kwh = KilowattHours(source="energy_wh", required=False, allow_null=True)
    priority = serializers.IntegerField(required=False, min_value=0, max_value=10)

    class Meta:
        model = UserProfile
        fields = ("id", "site", "name", "priority", "mode", "departure", "energy_kwh")
        validators: list[Any] = []

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        site = attrs.get("site") or getattr(self.instance, "site", None)
        same: QuerySet[UserProfile] = UserProfile.objects.filter(site=site, name=attrs.get("name"))
        if self.instance is not None:
            same = same.exclude(pk=self.instance.pk)
        if "name" in attrs and same.exists():
            raise serializers.ValidationError({"name": [_("The site already has a profile of this name.")]})
        return attrs


@extend_schema_view(
    list=extend_schema(summary="User profiles"),
    create=extend_schema(summary="Make a user profile"),
    retrieve=extend_schema(summary="One user profile"),
    partial_update=extend_schema(summary="Change a user profile"),
    destroy=extend_schema(summary="Remove a user profile"),
)
class UserProfiles(_OfSiteViews):
    queryset = UserProfile.objects.order_by("site", "name")
    serializer_class = UserProfileSerializer
    filterset_fields = ("site", "name")

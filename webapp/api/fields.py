"""The fields shared by several subjects: references by the names people use, finite numbers, strict bodies."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.core.validators import ProhibitNullCharactersValidator
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from csms.drivers import drivers_for
from csms.models import ChargingStation
from meters.access import narrow, sites_of
from meters.models import Site
from smartcharging.models import UserProfile


class Strict(serializers.Serializer[Any]):
    """A body with members we do not know, or that only we may set, is refused by their names.

    A misspelt `departre` would otherwise be a car that leaves empty.
    """

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            self._refuse_unknown(data)
        return super().to_internal_value(data)

    def _refuse_unknown(self, data: Mapping[str, Any]) -> None:
        refused: dict[str, list[Any]] = {}
        for name in data:
            field = self.fields.get(name)
            if field is None:
                known = ", ".join(n for n, f in self.fields.items() if not f.read_only)
                refused[name] = [_("Unknown field. Known are: %(known)s.") % {"known": known}]
            elif field.read_only:
                refused[name] = [_("This field cannot be set.")]
        if refused:
            raise serializers.ValidationError(refused)


class Number(serializers.FloatField):
    """A finite number: no NaN, no infinity (which `1e999` would be), and true is no 1."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool):
            self.fail("invalid")
        value = super().to_internal_value(data)
        if not math.isfinite(value):
            self.fail("invalid")
        return value


class KilowattHours(Number):
    """Spoken in kWh, kept in Wh. Between nothing and the largest battery on wheels."""

    MOST_KWH = 2000
    default_error_messages = {"range": _("Give a number of kWh from 0 to {most}.")}

    def to_internal_value(self, data: Any) -> float:
        value = super().to_internal_value(data)
        if not 0 <= value <= self.MOST_KWH:
            self.fail("range", most=self.MOST_KWH)
        return value * 1000

    def to_representation(self, value: Any) -> Any:
        return round(float(value) / 1000, 4)


class PlainJSON(serializers.JSONField):
    """JSON that every database can keep: no NUL character, no lone surrogate, no NaN."""

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        try:
            text = json.dumps(value, allow_nan=False, ensure_ascii=False)
            text.encode()
        except ValueError:
            self.fail("invalid")
        if "\\u0000" in text:
            raise serializers.ValidationError(ProhibitNullCharactersValidator.message)
        return value


class OnlySite:
    """The default of a `site` field: the caller's site, when there is just one."""

    requires_context = True

    def __call__(self, field: serializers.Field[Any, Any, Any, Any]) -> Site:
        sites = list(sites_of(field.context["request"].user)[:2])
        if len(sites) == 1:
            return sites[0]
        raise serializers.ValidationError(_("Say which site: its id or its name."), code="required")


class _Reference(serializers.RelatedField[Any, Any, Any], ABC):
    """A record of the caller's sites. One he may not see is as absent as one that does not exist."""

    default_error_messages = {
        "missing": _("There is no “{value}” here."),
        "type": _("Give a text or a number."),
    }

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, bool) or not isinstance(data, str | int):
            self.fail("type")
        if isinstance(data, str) and (not data or "\x00" in data or len(data) > 300):
            self.fail("missing", value=data[:50].replace("\x00", ""))
        found = self.find(data)
        if found is None:
            self.fail("missing", value=str(data)[:50])
        return found

    @abstractmethod
    def find(self, data: str | int) -> Any:
        """The record, or None."""


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "string"}], "description": "id, or name"})
class SiteField(_Reference):
    """A site, by id or by name; shown as id."""

    def __init__(self, **options: Any) -> None:
        if not options.get("read_only"):
            options.setdefault("queryset", Site.objects.all())
        super().__init__(**options)

    def get_queryset(self) -> QuerySet[Site]:
        return sites_of(self.context["request"].user)

    def find(self, data: str | int) -> Site | None:
        found: Site | None = by_id_or_name(self.get_queryset(), data)
        return found

    def to_representation(self, value: Any) -> Any:
        return value.pk

    def use_pk_only_optimization(self) -> bool:
        return True


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "string"}], "description": "name, or id"})
class ProfileField(_Reference):
    """A user profile, by name or by id; shown by name. `site` of the record decides which of the same name."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("queryset", UserProfile.objects.all())
        super().__init__(**options)

    def get_queryset(self) -> QuerySet[UserProfile]:
        profiles: QuerySet[UserProfile] = narrow(
            UserProfile.objects.select_related("site"), self.context["request"].user, "site"
        )
        site = self._site()
        return profiles.filter(site=site) if site is not None else profiles

    def _site(self) -> Site | None:
        """The site that the rest of the body, or the record being changed, speaks of."""
        parent: Any = self.parent
        if isinstance(getattr(parent, "instance", None), object) and getattr(parent.instance, "site", None):
            site: Site = parent.instance.site
            return site
        given = getattr(parent, "initial_data", None)
        wanted = given.get("site") if isinstance(given, Mapping) else None
        if isinstance(wanted, str | int) and not isinstance(wanted, bool):
            found: Site | None = by_id_or_name(sites_of(self.context["request"].user), wanted)
            return found
        return None

    def find(self, data: str | int) -> UserProfile | None:
        found: UserProfile | None = by_id_or_name(self.get_queryset(), data)
        return found

    def to_representation(self, value: Any) -> Any:
        return value.name

    def use_pk_only_optimization(self) -> bool:
        return False


@extend_schema_field(OpenApiTypes.STR)
class StationField(_Reference):
    """A charging station, by identity."""

    def __init__(self, **options: Any) -> None:
        if not options.get("read_only"):
            options.setdefault("queryset", ChargingStation.objects.all())
        super().__init__(**options)

    def find(self, data: str | int) -> ChargingStation | None:
        stations = narrow(ChargingStation.objects.all(), self.context["request"].user, "site")
        return stations.filter(identity=str(data)).first()

    def to_representation(self, value: Any) -> Any:
        return value.identity

    def use_pk_only_optimization(self) -> bool:
        return False


@extend_schema_field(OpenApiTypes.STR)
class DriverField(_Reference):
    """A person, by user name, out of those the caller may link to a card."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("queryset", User.objects.all())
        super().__init__(**options)

    def find(self, data: str | int) -> User | None:
        return drivers_for(self.context["request"].user).filter(username=str(data)).first()

    def to_representation(self, value: Any) -> Any:
        return value.username

    def use_pk_only_optimization(self) -> bool:
        return False


def by_id_or_name(queryset: QuerySet[Any], wanted: str | int) -> Any:
    """The record with this number, or with this name; a name of digits only counts as a name first."""
    if isinstance(wanted, int):
        return queryset.filter(pk=wanted).first() if abs(wanted) < 2**63 else None
    named = queryset.filter(name=wanted).first()
    if named is None and wanted.isascii() and wanted.isdigit() and len(wanted) < 19:
        return queryset.filter(pk=int(wanted)).first()
    return named

"""What this room adds to the page and the CSV of id tokens: the user profile behind each."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from import_export import fields
from unfold.admin import TabularInline

from csms.models import IdToken
from csms.token_admin import IdTokenAdmin, IdTokenResource, SafeTextWidget
from meters.site_admin import OPERATOR, SiteNarrowedInline, column
from smartcharging.models import TokenProfile, UserProfile


class TokenProfileInline(SiteNarrowedInline, TabularInline):
    model = TokenProfile
    site_path = "profile__site"
    add_role = change_role = delete_role = OPERATOR
    max_num = 1

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        request._token = obj  # type: ignore[attr-defined]
        return super().get_formset(request, obj, **kwargs)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """The profiles of the token's own site."""
        token = getattr(request, "_token", None)
        if db_field.name == "profile" and token is not None:
            kwargs["queryset"] = UserProfile.objects.filter(site=token.site_id)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class ProfiledTokenResource(IdTokenResource):
    """With a column `profile`: the name of a user profile of the site; empty means none."""

    profile = fields.Field("token_profile__profile__name", "profile", widget=SafeTextWidget())

    class Meta(IdTokenResource.Meta):
        fields = (*IdTokenResource.Meta.fields, "profile")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._profiles: dict[str, UserProfile] = {}
        if self.site is not None:
            self._profiles = {p.name.casefold(): p for p in UserProfile.objects.filter(site=self.site)}

    def import_field(self, field: Any, instance: Any, row: Any, is_m2m: bool = False, **kwargs: Any) -> None:
        if field.column_name != "profile":
            super().import_field(field, instance, row, is_m2m, **kwargs)
        elif "profile" in row:
            instance.wanted_profile = self._profile(SafeTextWidget().clean(row["profile"]))

    def _profile(self, name: str) -> UserProfile | None:
        if not name:
            return None
        found = self._profiles.get(name.casefold())
        if found is None:
            known = ", ".join(p.name for p in self._profiles.values()) or gettext("none yet")
            words = {"name": name[:40], "known": known}
            raise ValueError(
                gettext("profile: there is no user profile “%(name)s” on this site; known: %(known)s.") % words
            )
        return found

    def skip_row(self, instance: Any, original: Any, row: Any, import_validation_errors: Any = None) -> bool:
        if hasattr(instance, "wanted_profile") and instance.wanted_profile != profile_of(instance):
            return False
        skip: bool = super().skip_row(instance, original, row, import_validation_errors)
        return skip

    def after_save_instance(self, instance: Any, row: Any, **kwargs: Any) -> None:
        super().after_save_instance(instance, row, **kwargs)
        if not hasattr(instance, "wanted_profile"):
            return
        if instance.wanted_profile is None:
            TokenProfile.objects.filter(id_token=instance).delete()
        else:
            TokenProfile.objects.update_or_create(id_token=instance, defaults={"profile": instance.wanted_profile})


def profile_of(token: IdToken) -> UserProfile | None:
    link: TokenProfile | None = getattr(token, "token_profile", None) if token.pk else None
    return link.profile if link is not None else None


class ProfiledTokenAdmin(IdTokenAdmin):
    """Id tokens with the user profile behind each."""

    resource_classes = [ProfiledTokenResource]
    inlines = (TokenProfileInline,)
    list_select_related = ("site", "driver", "token_profile__profile")
    list_display = ("value", "label", "profile", *IdTokenAdmin.list_display[2:])

    @column(_("user profile"))
    def profile(self, token: IdToken) -> str:
        found = profile_of(token)
        return found.name if found is not None else "–"

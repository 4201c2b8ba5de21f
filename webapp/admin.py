"""The operator's office: people, and the house style for the records of the libraries we use.

Only superusers make accounts and give roles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as BaseGroupAdmin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from meters.models import SiteRole
from meters.site_admin import column

if TYPE_CHECKING:
    _UserAdmin = BaseUserAdmin[User]
else:
    _UserAdmin = BaseUserAdmin

admin.site.unregister((User, Group))
admin.site.site_title = "Laadplein"


class RolesInline(TabularInline):
    """What this person may do on which site."""

    model = SiteRole
    extra = 0
    autocomplete_fields = ("site",)
    tab = True

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    has_add_permission = has_change_permission = has_delete_permission = has_view_permission


@admin.register(User)
class UserAdmin(_UserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = (
        "username",
        "first_name",
        "last_name",
        "roles",
        "is_staff",
        "is_superuser",
        "is_active",
        "last_login",
    )
    inlines = (RolesInline,)
    compressed_fields = True

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("site_roles__site")

    @column(_("roles"))
    def roles(self, user: User) -> str:
        return ", ".join(f"{r.site}: {r.get_role_display()}" for r in user.site_roles.all()) or "–"


@admin.register(Group)
class GroupAdmin(BaseGroupAdmin, ModelAdmin):
    pass


def _restyle() -> None:
    """Give the pages that libraries registered the same dress as ours."""
    for model, plain in list(admin.site._registry.items()):
        if isinstance(plain, ModelAdmin):
            continue
        dressed = type(type(plain).__name__, (type(plain), ModelAdmin), {})
        admin.site.unregister(model)
        admin.site.register(model, dressed)


_restyle()

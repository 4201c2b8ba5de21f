"""Who may do what through the API.

Reading: a caller sees the records of the sites on which he has a role; anything else does not exist for him (404).
Writing: what he can see but may not change is refused by name (403). A driver has no role: he sees his own
transactions and the goals of his own cards, and may change those goals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from meters.access import may, narrow, sites_of
from meters.models import Site, SiteRole
from webapp.api.parsing import JSONOnly

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser
    from rest_framework.generics import GenericAPIView

    class _View(JSONOnly, GenericAPIView[Any]):
        pass
else:
    _View = JSONOnly

VIEWER, OPERATOR, INSTALLER = SiteRole.Role.VIEWER, SiteRole.Role.OPERATOR, SiteRole.Role.INSTALLER


def require(user: User | AnonymousUser, site: Site | int | None, role: SiteRole.Role) -> None:
    """Refuse (403) unless `user` has at least `role` on `site`."""
    if not may(user, site, role):
        raise PermissionDenied(_("This needs the role “%(role)s” on the site.") % {"role": role.label})


def require_anywhere(user: User | AnonymousUser, role: SiteRole.Role) -> None:
    """Refuse (403) unless `user` has at least `role` on some site."""
    if not user.is_superuser and not sites_of(user, role).exists():
        raise PermissionDenied(_("This needs the role “%(role)s” on a site.") % {"role": role.label})


def person(request: Request) -> User:
    """Who calls. Nobody gets past the doors of this API without a name."""
    user = request.user
    if not isinstance(user, User):
        raise NotAuthenticated
    return user


def site_id_of(record: Any, site_path: str) -> int | None:
    """The key of the site a record stands on, by following `site_path` (`station__site`)."""
    *way, last = site_path.split("__")
    for step in way:
        record = getattr(record, step)
        if record is None:
            return None
    key: int | None = record.pk if last == "pk" else getattr(record, f"{last}_id")
    return key


class SiteScoped(_View):
    """A view whose records are narrowed to the caller's sites, and whose writes need a role there."""

    site_path: str = "site"
    writes: SiteRole.Role = OPERATOR

    def get_queryset(self) -> QuerySet[Any]:
        return narrow(super().get_queryset(), self.request.user, self.site_path)

    def check_object_permissions(self, request: Any, obj: Any) -> None:
        super().check_object_permissions(request, obj)
        if request.method not in SAFE_METHODS:
            self.check_write(obj)

    def check_write(self, obj: Any) -> None:
        """Refuse a write on a record the caller can see. Override where some fields ask for more."""
        require(self.request.user, site_id_of(obj, self.site_path), self.writes)

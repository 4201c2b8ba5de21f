"""Who may see and do what, per site. Every query a person makes passes through here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import QuerySet

from meters.models import Site, SiteRole

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

_RANK = {SiteRole.Role.VIEWER: 0, SiteRole.Role.OPERATOR: 1, SiteRole.Role.INSTALLER: 2}


def sites_of(user: User | AnonymousUser, at_least: str = SiteRole.Role.VIEWER) -> QuerySet[Site]:
    """The sites on which `user` has at least this role (viewer < operator < installer). Superusers: all.

    Fire reset is a right of its own: no other role implies it, and it implies no other.
    """
    if not user.is_authenticated or not user.is_active:
        return Site.objects.none()
    if user.is_superuser:
        return Site.objects.all()
    role = SiteRole.Role(at_least)
    roles = [r for r in _RANK if _RANK[r] >= _RANK[role]] if role in _RANK else [role]
    return Site.objects.filter(pk__in=SiteRole.objects.filter(user=user, role__in=roles).values("site_id"))


def may(user: User | AnonymousUser, site: Site | int | None, at_least: str) -> bool:
    """May `user` act on `site` with this role? A record without a site belongs to superusers only."""
    if site is None:
        return bool(user.is_authenticated and user.is_active and user.is_superuser)
    pk = site if isinstance(site, int) else site.pk
    return sites_of(user, at_least).filter(pk=pk).exists()


def narrow(
    queryset: QuerySet[Any], user: User | AnonymousUser, site_path: str, at_least: str = "viewer"
) -> QuerySet[Any]:
    """The records of `queryset` whose site (reached by `site_path`, for example `station__site`) is the user's."""
    if user.is_authenticated and user.is_active and user.is_superuser:
        return queryset
    return queryset.filter(**{f"{site_path}__in": sites_of(user, at_least)})


def grant(user: User, site: Site, role: str) -> SiteRole:
    """Give `user` this role on `site`. Staff with a role work in the admin too; a second grant changes nothing."""
    given, _ = SiteRole.objects.get_or_create(user=user, site=site, role=SiteRole.Role(role))
    return given

"""The cast: each has one role, and a name that begins with its letter."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from csms.models import IdToken
from meters.access import grant
from meters.models import Site, SiteRole

PASSWORD = "a-long-password"


def _person(name: str, **fields: Any) -> User:
    user = User.objects.filter(username=name).first() or User(username=name, **fields)
    user.set_password(PASSWORD)
    user.save()
    return user


def _with_role(name: str, site: Site, role: SiteRole.Role) -> User:
    user = _person(name, is_staff=True)
    grant(user, site, role)
    return user


def viewer_vera(site: Site) -> User:
    """Looks, and changes nothing."""
    return _with_role("vera", site, SiteRole.Role.VIEWER)


def operator_olivia(site: Site) -> User:
    """Does the daily work of a site."""
    return _with_role("olivia", site, SiteRole.Role.OPERATOR)


def installer_ivan(site: Site) -> User:
    """Builds the site: stations, circuits, devices."""
    return _with_role("ivan", site, SiteRole.Role.INSTALLER)


def stranger_sam(elsewhere: Site) -> User:
    """Installer of another site."""
    return _with_role("sam", elsewhere, SiteRole.Role.INSTALLER)


def driver_dries(token: IdToken) -> User:
    """Charges with a card of his own; no role anywhere."""
    user = _person("dries")
    IdToken.objects.filter(pk=token.pk).update(driver=user)
    return user


def superuser_sofie() -> User:
    return _person("sofie", is_staff=True, is_superuser=True)


def calling(user: User | None) -> APIClient:
    """An API client with the token of this person; of nobody when `None`."""
    client = APIClient()
    if user is not None:
        token, _ = Token.objects.get_or_create(user=user)
        client.credentials(HTTP_AUTHORIZATION=f"Token {token.key}")
    return client

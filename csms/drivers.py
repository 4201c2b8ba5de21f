"""The people an operator may link to a card.

Those who already have a card or a role on his sites, and accounts that belong to nobody yet. Who charges
elsewhere is none of his business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, Q, QuerySet

from csms.models import IdToken
from meters.access import sites_of
from meters.models import SiteRole

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser


def drivers_for(user: User | AnonymousUser) -> QuerySet[User]:
    """The accounts `user` may link to the tokens of his sites."""
    people = User.objects.filter(is_active=True)
    if user.is_superuser:
        return people
    sites = sites_of(user)
    tokens = IdToken.objects.filter(driver=OuterRef("pk"))
    roles = SiteRole.objects.filter(user=OuterRef("pk"))
    near = Exists(tokens.filter(site__in=sites)) | Exists(roles.filter(site__in=sites))
    free = Q(is_staff=False) & ~Exists(tokens) & ~Exists(roles)
    return people.filter(Q(near) | free)

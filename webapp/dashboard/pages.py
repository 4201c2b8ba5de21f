"""What all our own pages share: whose they are, whose clock they show, how strictly the browser guards them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from csp.decorators import csp_replace
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.cache import never_cache

from meters.access import sites_of

View = Callable[..., HttpResponseBase]

# The admin needs inline scripts; our pages do not: no script and no style that is not a file of ours.
STRICT = {"script-src": ["'self'"], "style-src": ["'self'"]}
guarded: Callable[[View], View] = csp_replace(STRICT)


def private(view: View) -> View:
    """A page for somebody who is logged in, kept by no cache."""
    return login_required(never_cache(guarded(view)))


def of_site(view: View) -> View:
    """A private page about a site the person may see (else there is no such page), on that site's clock."""

    @private
    @wraps(view)
    def inner(request: HttpRequest, site_id: int, **rest: Any) -> HttpResponseBase:
        site = get_object_or_404(sites_of(request.user), pk=site_id)
        with timezone.override(site.tz):
            return view(request, site, **rest)

    return inner

"""The clock an operator reads in the admin: that of their sites. Everywhere else the page's own site sets it."""

from __future__ import annotations

from collections.abc import Callable
from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from meters.access import sites_of


class SiteClock:
    """Middleware: admin pages show times in the zone of the person's first site; without one, in UTC."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        zone = None
        if request.path.startswith("/admin/") and request.user.is_authenticated:
            zone = sites_of(request.user).order_by("name").values_list("timezone", flat=True).first()
        if zone is None:
            return self._get_response(request)
        with timezone.override(ZoneInfo(zone)):
            return self._get_response(request)

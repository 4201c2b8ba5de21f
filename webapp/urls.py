"""Every address of the web process. The live stream is answered in `webapp/asgi.py`, outside Django."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponseRedirect
from django.templatetags.static import static
from django.urls import include, path

from webapp.health import all_metrics, healthz, readyz


def favicon(_: HttpRequest) -> HttpResponseRedirect:
    """Browsers ask for it on pages that name no icon: admin, API reference."""
    return HttpResponseRedirect(static("icons/icon.svg"))


urlpatterns = [
    path("favicon.ico", favicon),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", all_metrics, name="metrics"),
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("api/v1/", include("webapp.api.urls")),
    path("driver/", include("webapp.driver.urls")),
    path("", include("webapp.dashboard.urls")),
]

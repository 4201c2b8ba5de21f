"""Every address of the web process. The live stream is answered in `webapp/asgi.py`, outside Django."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from webapp.health import healthz

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("admin/", admin.site.urls),
    path("accounts/", include("allauth.urls")),
    path("api/v1/", include("webapp.api.urls")),
    path("driver/", include("webapp.driver.urls")),
    path("", include("webapp.dashboard.urls")),
]

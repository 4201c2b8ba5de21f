"""What makes the driver's page an app on a phone: a manifest, and a worker with one page for when there is no net.

The worker keeps nothing private: only the style sheet, the icons and a page that says that the phone is offline.
"""

from __future__ import annotations

import json

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from webapp.dashboard.pages import guarded


@require_safe
def manifest(request: HttpRequest) -> JsonResponse:
    icons = [
        {"src": static("icons/icon.svg"), "sizes": "any", "type": "image/svg+xml", "purpose": "any"},
        {"src": static("icons/icon-192.png"), "sizes": "192x192", "type": "image/png", "purpose": "any maskable"},
        {"src": static("icons/icon-512.png"), "sizes": "512x512", "type": "image/png", "purpose": "any maskable"},
    ]
    body = {
        "name": _("Laadplein: my charging"),
        "short_name": "Laadplein",
        "start_url": reverse("driver"),
        "scope": reverse("driver"),
        "display": "standalone",
        "background_color": "#f5f4ef",
        "theme_color": "#0b6e63",
        "icons": icons,
    }
    return JsonResponse(body, content_type="application/manifest+json")


@require_safe
def worker(request: HttpRequest) -> HttpResponse:
    """The service worker, from inside the scope it serves. A new release brings new names, and so a new worker."""
    keep = [
        reverse("driver-offline"),
        static("css/laadplein.css"),
        static("icons/icon.svg"),
        static("icons/sprite.svg"),
    ]
    source = render(request, "driver/worker.js", {"keep": json.dumps(keep)}, content_type="text/javascript")
    source["Cache-Control"] = "no-cache"
    return source


@require_safe
@guarded
def offline(request: HttpRequest) -> HttpResponse:
    return render(request, "driver/offline.html")

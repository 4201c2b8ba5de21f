"""The operator's pages: which sites there are, and one site live."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from csms.models import ChargingStation
from meters.access import may, sites_of
from meters.models import Site
from smartcharging.explanations import newest_picture
from webapp.dashboard import charts
from webapp.dashboard.pages import of_site, private
from webapp.dashboard.scene import flows_of, scene


def person(request: HttpRequest) -> User:
    """Who asks. Only for private pages."""
    user = request.user
    if not isinstance(user, User):
        raise TypeError("a private page without a user")
    return user


@require_safe
@private
def home(request: HttpRequest) -> HttpResponse:
    """To the page of one's trade: the only site, the list of sites, or the driver's page."""
    user = person(request)
    sites = list(sites_of(user)[:2])
    if len(sites) == 1:
        return redirect("site", site_id=sites[0].pk)
    if sites or user.is_superuser:
        return redirect("sites")
    return redirect("driver")


@require_safe
@private
def site_list(request: HttpRequest) -> HttpResponse:
    rows = []
    for site in sites_of(person(request)):
        picture, away = newest_picture(site.pk)
        stations = ChargingStation.objects.filter(site=site, admission=ChargingStation.Admission.ACCEPTED)
        rows.append(
            {
                "site": site,
                "flows": flows_of(picture),
                "away": away,
                "stations": stations.count(),
                "sessions": stations.filter(transactions__ended_at=None, transactions__isnull=False).count(),
            }
        )
    return render(request, "dashboard/sites.html", {"rows": rows})


@require_safe
@of_site
def site(request: HttpRequest, site: Site) -> HttpResponse:
    user = person(request)
    return render(
        request,
        "dashboard/site.html",
        {
            "site": site,
            "scene": scene(site, user),
            "sites": sites_of(user),
            "may_operate": may(user, site, "operator"),
        },
    )


@require_safe
@of_site
def parts(request: HttpRequest, site: Site) -> HttpResponse:
    """The living parts of the page, written anew: fetched after a picture arrived."""
    user = person(request)
    return render(
        request,
        "dashboard/parts.html",
        {"site": site, "scene": scene(site, user), "may_operate": may(user, site, "operator"), "fragment": True},
    )


@require_safe
@of_site
def chart(request: HttpRequest, site: Site) -> JsonResponse:
    return JsonResponse(charts.day(site))

"""The driver's page: my session, what I want, what is promised, start and stop, what was.

Every form works without JavaScript. A driver sees and changes only what is his own; for everything else there is no
such page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe
from redis.exceptions import RedisError

from csms import bus, calls
from smartcharging import goals
from smartcharging.models import ChargingGoal
from webapp.dashboard.pages import private
from webapp.dashboard.views import person
from webapp.driver import sessions
from webapp.driver.forms import GoalForm, StartForm

log = logging.getLogger(__name__)
PAGE = 20
STARTED = "started_at_evse"
"""Where the login keeps the start that waits for its car."""


@require_safe
@private
def home(request: HttpRequest) -> HttpResponse:
    return _page(request)


def _page(request: HttpRequest, wrong: GoalForm | None = None, wrong_pk: int | None = None) -> HttpResponse:
    """The whole page; with a form that was not right, that one in place of its session's own."""
    user = person(request)
    running = sessions.running(user)
    now = timezone.now()
    cards = []
    for session in running:
        own = GoalForm(zone=session.site.tz, now=now, goal=session.goal, auto_id=f"goal-{session.transaction.pk}-%s")
        cards.append({"session": session, "form": wrong if wrong and session.transaction.pk == wrong_pk else own})
    tokens = sessions.my_tokens(user)
    return render(
        request,
        "driver/home.html",
        {
            "cards": cards,
            "awaited": sessions.awaited(user, request.session.get(STARTED)),
            "tokens": tokens,
            "places": sessions.free_places(tokens),
            "recent": sessions.mine(user).exclude(ended_at=None)[:3],
        },
        status=422 if wrong else 200,
    )


@require_safe
@private
def state(request: HttpRequest, pk: int) -> HttpResponse:
    """The living part of one session, written anew."""
    transaction = get_object_or_404(sessions.mine(person(request)), pk=pk)
    if transaction.ended_at is not None:
        return HttpResponse(headers={"HX-Refresh": "true"})
    return render(request, "driver/state.html", {"session": sessions.one(transaction)})


@require_POST
@private
def change_goal(request: HttpRequest, pk: int) -> HttpResponse:
    user = person(request)
    transaction = get_object_or_404(sessions.mine(user), pk=pk)
    site = transaction.station.site
    if transaction.ended_at is not None or site is None:
        messages.warning(request, _("This session has ended, so nothing was changed."))
        return redirect("driver")
    goal = goals.goal_for(transaction)
    form = GoalForm(request.POST, zone=site.tz, now=timezone.now(), goal=goal, auto_id=f"goal-{pk}-%s")
    if form.is_valid():
        try:
            goals.set_goal(
                site=site, transaction=transaction, source=ChargingGoal.Source.DRIVER, user=user, **form.wish()
            )
        except goals.GoalError as error:
            form.blame(error)
        else:
            messages.success(request, _("Noted. The plan is being made anew."))
            return redirect("driver")
    return _page(request, form, pk)


@require_POST
@private
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    transaction = get_object_or_404(sessions.mine(person(request)), pk=pk)
    if transaction.ended_at is not None:
        messages.info(request, _("This session has ended already."))
        return redirect("driver")
    _ask(request, lambda: calls.remote_stop(transaction), _("The station is stopping your session."))
    return redirect("driver")


@require_POST
@private
def start(request: HttpRequest) -> HttpResponse:
    user = person(request)
    form = StartForm(request.POST)
    if not form.is_valid():
        messages.error(request, _("Choose a place first."))
        return redirect("driver")
    tokens = sessions.my_tokens(user)
    place = next((p for p in sessions.free_places(tokens) if p.evse.pk == form.cleaned_data["evse"]), None)
    if place is None:
        messages.error(request, _("That place is not free any more, or its station is not connected."))
        return redirect("driver")
    usable = [t for t in tokens if t.site_id == place.evse.station.site_id]
    wanted = form.cleaned_data.get("id_token")
    token = next((t for t in usable if t.pk == wanted), None) if wanted else usable[0]
    if token is None:
        messages.error(request, _("That card may not charge at this place."))
        return redirect("driver")
    said = _("The station starts. Plug in your car now.") if not place.plugged else _("The station starts.")
    if _ask(request, lambda: calls.remote_start(place.evse, token), said):
        request.session[STARTED] = sessions.note_start(place.evse)
    return redirect("driver")


@require_safe
@private
def awaited(request: HttpRequest) -> HttpResponse:
    """The start that waits for its car, written anew; when it waits no longer, the page loads anew."""
    waiting = sessions.awaited(person(request), request.session.get(STARTED))
    if waiting is None:
        return HttpResponse(headers={"HX-Refresh": "true"})
    return render(request, "driver/awaited.html", {"awaited": waiting})


def _ask(request: HttpRequest, call: Callable[[], dict[str, Any]], done: str) -> bool:
    """Ask a station something once, and tell the driver how it went. True when the station does it."""
    try:
        answer = call()
    except bus.StationUnreachable:
        messages.error(
            request, _("The station is not connected now. Use your card at the station, or try again later.")
        )
    except bus.NoAnswer:
        messages.warning(
            request, _("The station did not answer in time. Look in a moment whether it did what you asked.")
        )
    except bus.CallRefused as error:
        messages.error(request, _("The station refused: %(why)s") % {"why": error.description or error.code})
    except bus.CallNotValid:
        log.exception("a driver's call does not fit the station's schema")
        messages.error(request, _("This cannot be asked of this station."))
    except (RedisError, OSError):
        messages.error(request, _("The stations cannot be reached now. Try again in a minute."))
    else:
        if str(answer.get("status", "Accepted")) == "Accepted":
            messages.success(request, done)
            return True
        messages.error(request, _("The station said no (%(why)s).") % {"why": answer.get("status")})
    return False


@require_safe
@private
def history(request: HttpRequest) -> HttpResponse:
    ended = sessions.mine(person(request)).exclude(ended_at=None)
    page = Paginator(ended, PAGE).get_page(request.GET.get("page"))
    return render(request, "driver/history.html", {"page": page})

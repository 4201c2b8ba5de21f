"""The first page of the admin and its side bar: what an operator wants to know on arriving, and where to go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from django.contrib import admin
from django.db.models import Count, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from csms import bus
from csms.models import EVSE, ChargingStation, Transaction
from csms.obedience_models import Alarm
from meters.access import narrow

_GROUPS: tuple[tuple[Any, tuple[tuple[str, str], ...]], ...] = (
    (
        _("Today"),
        (
            ("csms.chargingstation", "ev_station"),
            ("csms.evse", "outlet"),
            ("csms.alarm", "notification_important"),
            ("csms.transaction", "bolt"),
            ("csms.unmatchedend", "link_off"),
            ("csms.reservation", "event_seat"),
            ("smartcharging.charginggoal", "flag"),
            ("smartcharging.plan", "calendar_clock"),
            ("smartcharging.gridcommand", "electric_meter"),
        ),
    ),
    (
        _("Drivers"),
        (
            ("csms.idtoken", "nfc"),
            ("smartcharging.userprofile", "group"),
            ("smartcharging.vehicle", "directions_car"),
        ),
    ),
    (
        _("Installation"),
        (
            ("meters.site", "location_on"),
            ("smartcharging.circuit", "account_tree"),
            ("smartcharging.feed", "cable"),
            ("meters.device", "speed"),
            ("csms.chargingtariff", "payments"),
            ("smartcharging.tariff", "euro"),
            ("smartcharging.price", "show_chart"),
            ("smartcharging.monthpeak", "trending_up"),
        ),
    ),
    (
        _("Care of stations"),
        (
            ("csms.firmwarerollout", "system_update"),
            ("csms.firmwareupdate", "sync"),
            ("csms.firmwareimage", "memory"),
            ("csms.logrequest", "description"),
            ("csms.locallistpolicy", "list_alt"),
            ("csms.locallist", "checklist"),
        ),
    ),
    (
        _("Behind it"),
        (
            ("csms.ocppmessage", "forum"),
            ("csms.transactionevent", "receipt_long"),
            ("csms.metersample", "monitoring"),
            ("csms.signedmetervalue", "verified"),
            ("csms.wantedlimit", "tune"),
            ("csms.toldlimit", "history"),
            ("csms.stationmodel", "category"),
            ("smartcharging.allocationrecord", "help"),
            ("csms.securityevent", "shield"),
            ("csms.stationcertificate", "workspace_premium"),
            ("csms.installedcertificate", "add_moderator"),
            ("csms.stationvariable", "settings"),
            ("csms.monitoringevent", "monitor_heart"),
            ("csms.variablemonitor", "visibility"),
            ("csms.stationreport", "summarize"),
            ("csms.externallimit", "vertical_align_top"),
            ("csms.chargingneeds", "electric_car"),
            ("smartcharging.forecast", "partly_cloudy_day"),
            ("smartcharging.sitequarter", "bar_chart"),
            ("meters.reading", "sensors"),
            ("meters.quarterhour", "schedule"),
        ),
    ),
    (
        _("People"),
        (
            ("auth.user", "person"),
            ("auth.group", "groups"),
            ("authtoken.tokenproxy", "vpn_key"),
            ("axes.accessattempt", "gpp_maybe"),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Card:
    """A number on the first page, and the list behind it."""

    title: Any
    value: str
    link: str
    alarming: bool = False


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The side bar: what this person may see, in the order of the day."""
    pages = {m._meta.label_lower: a for m, a in admin.site._registry.items()}
    groups = []
    for title, items in _GROUPS:
        shown = [
            {
                "title": capfirst(str(pages[label].opts.verbose_name_plural)),
                "icon": icon,
                "link": reverse(f"admin:{label.replace('.', '_')}_changelist"),
            }
            for label, icon in items
            if label in pages and pages[label].has_view_permission(request)
        ]
        if shown:
            groups.append({"title": title, "separator": True, "collapsible": False, "items": shown})
    return groups


def account_links(request: HttpRequest) -> list[dict[str, Any]]:
    return [{"title": _("Two-step login"), "link": reverse("mfa_index")}]


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The counts of the person's own sites: online, charging, in quarantine, faulted."""
    return {**context, "office_cards": cards(request)}


def cards(request: HttpRequest) -> list[Card]:
    stations = narrow(ChargingStation.objects.all(), request.user, "site")
    identities = list(stations.values_list("identity", flat=True))
    admitted = Q(admission=ChargingStation.Admission.QUARANTINED)
    counted = stations.aggregate(quarantined=Count("pk", filter=admitted))
    charges = narrow(Transaction.objects.filter(ended_at=None), request.user, "station__site").count()
    alarms = narrow(Alarm.objects.filter(ended_at=None), request.user, "site").count()
    faulted = narrow(EVSE.objects.filter(status=EVSE.Status.FAULTED), request.user, "station__site").count()
    try:
        online: str = str(len(bus.holders(identities)))
    except redis.RedisError:
        online = "?"
    page = "admin:csms_{}_changelist".format
    return [
        Card(_("Stations online"), f"{online} / {len(identities)}", reverse(page("chargingstation"))),
        Card(_("Charging"), str(charges), reverse(page("transaction")) + "?open=yes"),
        Card(
            _("In quarantine"),
            str(counted["quarantined"]),
            reverse(page("chargingstation")) + "?admission__exact=quarantined",
            alarming=counted["quarantined"] > 0,
        ),
        Card(
            _("Alarms"),
            str(alarms),
            reverse(page("alarm")) + "?open=yes",
            alarming=alarms > 0,
        ),
        Card(_("Faults"), str(faulted), reverse(page("evse")) + "?status__exact=Faulted", alarming=faulted > 0),
    ]

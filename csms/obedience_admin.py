"""The operator's office for obedience: what a model can do and what was mended of it, alarms, and every limit told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import dateparse, timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from simple_history.admin import SimpleHistoryAdmin
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from csms import alarms, changes, learning, quirks
from csms.capabilities import BY_NAME, CATALOGUE, Capability, NotReadable, Source
from csms.models import EVSE, ChargingStation, Transaction, WantedLimit
from csms.obedience_models import Alarm, StationModel, ToldLimit
from csms.reported_models import ExternalLimit
from meters.access import sites_of
from meters.site_admin import LedgerAdmin, OfMySites, column, daily, listed

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[StationModel]
else:
    _ModelForm = forms.ModelForm

FLAGS_OF_DAYS = 30
HISTORY = 8


def shown(capability: Capability, value: Any) -> str:
    """A value in the words of the page's language."""
    text = capability.shown(value)
    return gettext(text) if isinstance(value, bool) or capability.choices else text


def moment(text: object) -> str:
    at = dateparse.parse_datetime(str(text)) if text else None
    return date_format(timezone.localtime(at), "DATETIME_FORMAT") if at is not None else "–"


def table(heads: list[Any], rows: list[tuple[Any, ...]]) -> SafeString:
    """A small table on a record's page."""
    head = format_html_join("", '<th class="px-2 py-1 text-left">{}</th>', ((h,) for h in heads))
    body = format_html_join(
        "",
        "<tr>{}</tr>",
        ((format_html_join("", '<td class="px-2 py-1 align-top">{}</td>', ((c,) for c in row)),) for row in rows),
    )
    return format_html('<table class="text-sm"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>', head, body)


# ---------------------------------------------------------------------- on the page of a station


def capabilities_of(station: ChargingStation) -> SafeString | str:
    """What is known of a station, and from where."""
    said = {
        "own": gettext("set on this station"),
        "taught": gettext("learnt of this station, unlike its model"),
        Source.SET: gettext("set for the model"),
        Source.LEARNED: gettext("learnt"),
        Source.TOLD: gettext("told by the station"),
    }
    rows = []
    for name, (value, source, entry) in learning.sources(station, learning.model_of(station)).items():
        capability = BY_NAME[name]
        rows.append(
            (gettext(capability.label), shown(capability, value), said.get(source, source), moment(entry.get("at")))
        )
    if not rows:
        return "–"
    return table([gettext("capability"), gettext("value"), gettext("source"), gettext("since")], rows)


def repairs_of(station: ChargingStation) -> SafeString | str:
    """What was mended of what a station says, and what was refused: in words, with the newest of each."""
    counters = station.counters if isinstance(station.counters, dict) else {}
    newest = station.counted_at if isinstance(station.counted_at, dict) else {}
    rows = [
        (
            repair.quirk or "–" if (repair := quirks.known(name)) is not None else "–",
            gettext(repair.seen) if repair is not None else name,
            gettext(repair.done) if repair is not None else "–",
            f"{count:,}",
            moment(newest.get(name)),
            format_html("<code>{}</code>", name),
        )
        for name, count in sorted(counters.items(), key=lambda item: -int(item[1]))
    ]
    since = timezone.now() - timedelta(days=FLAGS_OF_DAYS)
    marks: Counter[str] = Counter()
    for flags in Transaction.objects.filter(station=station, started_at__gte=since).values_list("flags", flat=True):
        marks.update(str(f).partition(":")[0] for f in flags or ())
    for name, count in marks.most_common():
        mark = quirks.flag(name)
        rows.append(
            (
                mark.quirk,
                gettext(mark.seen),
                gettext(mark.done),
                f"{count:,}",
                "–",
                format_html("<code>{}</code>", name),
            )
        )
    if not rows:
        return "–"
    heads = [gettext("quirk"), gettext("seen"), gettext("done"), gettext("times"), gettext("newest"), gettext("name")]
    return table(heads, rows)


def limits_of(station: ChargingStation) -> SafeString | str:
    """How each EVSE follows its limit now, and the last limits it was told."""
    parts = []
    for evse in EVSE.objects.filter(station=station).select_related("wanted_limit").order_by("number"):
        limit: WantedLimit | None = getattr(evse, "wanted_limit", None)
        if limit is None:
            continue
        words = [str(limit.get_state_display()), limit.detail, limit.means]
        if limit.isolated_at is not None:
            words.append(gettext("isolated since %(at)s") % {"at": moment(limit.isolated_at.isoformat())})
        if limit.resume:
            words.append(str(limit.get_resume_display()))
        told = ToldLimit.objects.filter(evse=evse).order_by("-at", "-pk")[:HISTORY]
        rows = [
            (
                moment(t.at.isoformat()),
                _amount(t),
                ", ".join(str(a.get("by") or gettext("the plan")) for a in t.asked or ()) or "–",
                t.means or "–",
                state_of(t),
                _lag(t.at, t.accepted_at),
                _lag(t.at, t.measured_at),
            )
            for t in told
        ]
        heads = [gettext("wanted at"), gettext("limit"), gettext("asked by"), gettext("told by"), gettext("state")]
        heads += [gettext("accepted after"), gettext("measured after")]
        parts.append(
            format_html(
                '<p class="font-semibold">{}: {}</p>{}', evse, " · ".join(w for w in words if w), table(heads, rows)
            )
        )
    parts += [
        format_html(
            "<p>{}: {} {}</p>", gettext("limit of others"), x.get_source_display(), moment(x.told_at.isoformat())
        )
        for x in ExternalLimit.objects.filter(station=station)
    ]
    return format_html_join("", "{}", ((p,) for p in parts)) if parts else "–"


def state_of(told: ToldLimit) -> str:
    if told.state == "asked":
        return gettext("asked")
    return str(dict(WantedLimit.State.choices).get(told.state, told.state))


def _amount(told: ToldLimit) -> str:
    if told.wanted_w is not None:
        return f"{told.wanted_w:,.0f} W"
    return f"{told.wanted_a:g} A" if told.wanted_a is not None else "–"


def _lag(start: datetime, end: datetime | None) -> str:
    return "–" if end is None else f"{max((end - start).total_seconds(), 0):.1f} s"


# ---------------------------------------------------------------------- station models


class StationModelForm(_ModelForm):
    """One field per capability, empty for what is learnt; one per repair that may be forced."""

    class Meta:
        model = StationModel
        fields: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for capability in CATALOGUE:
            self.fields[f"can_{capability.name}"] = self._field(capability)
        for repair in quirks.FORCED:
            modes = [("auto", gettext("when it is seen"))]
            modes += [("on", gettext("always"))] if repair.on else []
            modes += [("off", gettext("never"))] if repair.off else []
            self.fields[f"mend_{repair.name}"] = forms.ChoiceField(
                label=f"{repair.quirk} {gettext(repair.seen)}",
                help_text=gettext(repair.done),
                choices=modes,
                initial=(self.instance.repairs or {}).get(repair.name, "auto"),
                widget=UnfoldAdminSelectWidget(),
            )

    def _field(self, capability: Capability) -> forms.Field:
        entry = (self.instance.capabilities or {}).get(capability.name) or {}
        is_set = entry.get("source") == Source.SET
        value = entry.get("value") if is_set else None
        if entry and not is_set:
            known = gettext("%(source)s: %(value)s") % {
                "source": gettext("learnt") if entry.get("source") == Source.LEARNED else gettext("told"),
                "value": shown(capability, entry.get("value")),
            }
        else:
            known = ""
        common: dict[str, Any] = {
            "label": gettext(capability.label),
            "required": False,
            "help_text": " · ".join(w for w in (gettext(capability.meaning), known) if w),
        }
        if capability.choices or capability.is_yes_or_no:
            words = capability.choices or (("true", "yes"), ("false", "no"))
            choices = [("", gettext("as learnt")), *((v, gettext(w)) for v, w in words)]
            initial = str(value).lower() if isinstance(value, bool) else value
            return forms.ChoiceField(choices=choices, initial=initial or "", widget=UnfoldAdminSelectWidget(), **common)
        text = ", ".join(value) if isinstance(value, list) else "" if value is None else f"{value:g}"
        return forms.CharField(initial=text, widget=UnfoldAdminTextInputWidget(), **common)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        for capability in CATALOGUE:
            name = f"can_{capability.name}"
            if data.get(name) not in (None, ""):
                try:
                    data[name] = capability.read(data[name])
                except NotReadable as error:
                    self.add_error(name, gettext(error.words) % error.values)
        return data

    def save(self, commit: bool = True) -> StationModel:
        model, said = self.instance, self.cleaned_data
        entries = dict(model.capabilities or {})
        for capability in CATALOGUE:
            value, present = said.get(f"can_{capability.name}"), entries.get(capability.name) or {}
            if value not in (None, ""):
                if present.get("source") != Source.SET or present.get("value") != value:
                    at = timezone.now().isoformat(timespec="seconds")
                    entries[capability.name] = {"value": value, "source": str(Source.SET), "at": at, "station": ""}
            elif present.get("source") == Source.SET:
                del entries[capability.name]
        model.capabilities = entries
        repairs = {r.name: said.get(f"mend_{r.name}", "auto") for r in quirks.FORCED}
        model.repairs = {name: mode for name, mode in repairs.items() if mode in ("on", "off")}
        return super().save(commit)


@admin.register(StationModel)
class StationModelAdmin(SimpleHistoryAdmin, ModelAdmin):
    """Models belong to the whole installation: whoever has such a station may look, a superuser may set."""

    form = StationModelForm
    list_display = ("vendor", "model", "firmware", "stations", "known", "first_seen_at")
    list_display_links = ("vendor", "model", "firmware")
    search_fields = ("vendor", "model", "firmware")
    list_filter = ("vendor",)
    readonly_fields = ("vendor", "model", "firmware", "first_seen_at", "learnt", "teachers", "questions")
    actions_detail = ("ask_again", "forget")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        shown_first: tuple[Any, dict[str, Any]] = (
            None,
            {"fields": ("vendor", "model", "firmware", "first_seen_at", "learnt", "questions")},
        )
        if not self.has_change_permission(request, obj):
            return (shown_first,)
        shown_first[1]["fields"] = (*shown_first[1]["fields"], "teachers")
        return (
            shown_first,
            (_("set for all its stations"), {"fields": tuple(f"can_{c.name}" for c in CATALOGUE)}),
            (_("repairs"), {"fields": tuple(f"mend_{r.name}" for r in quirks.FORCED), "classes": ("collapse",)}),
        )

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        kwargs["fields"] = ()
        return super().get_form(request, obj, change=change, **kwargs)

    def get_queryset(self, request: HttpRequest) -> QuerySet[StationModel]:
        models: QuerySet[StationModel] = super().get_queryset(request)
        if request.user.is_superuser:
            return models
        mine = ChargingStation.objects.filter(
            site__in=sites_of(_person(request)),
            vendor=OuterRef("vendor"),
            model=OuterRef("model"),
            firmware_version=OuterRef("firmware"),
        )
        return models.filter(Exists(mine))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        user = request.user
        return bool(user.is_active and user.is_staff and (user.is_superuser or sites_of(_person(request)).exists()))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_set_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_change_permission(request)

    def save_model(self, request: HttpRequest, obj: StationModel, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        changes.announce("station", stations_of(obj).values_list("pk", flat=True))

    @column(_("stations"))
    def stations(self, model: StationModel) -> int:
        return stations_of(model).count()

    @column(_("known"))
    def known(self, model: StationModel) -> str:
        found = [(n, e) for n, e in (model.capabilities or {}).items() if n in BY_NAME]
        return (
            "; ".join(f"{gettext(BY_NAME[n].label)}: {shown(BY_NAME[n], e.get('value'))}" for n, e in found[:4]) or "–"
        )

    @column(_("learnt from"))
    def teachers(self, model: StationModel) -> str:
        """Only for who may see every station."""
        names = {str(e.get("station")) for e in (model.capabilities or {}).values() if e.get("station")}
        return ", ".join(sorted(names)) or "–"

    @column(_("what is known"))
    def learnt(self, model: StationModel) -> SafeString | str:
        said = {
            Source.SET: gettext("set by a person"),
            Source.LEARNED: gettext("learnt"),
            Source.TOLD: gettext("told by a station"),
        }
        rows = [
            (
                gettext(BY_NAME[name].label),
                shown(BY_NAME[name], entry.get("value")),
                said.get(entry.get("source"), str(entry.get("source"))),
                moment(entry.get("at")),
            )
            for name, entry in (model.capabilities or {}).items()
            if name in BY_NAME
        ]
        heads = [gettext("capability"), gettext("value"), gettext("source"), gettext("since")]
        return table(heads, rows) if rows else "–"

    @column(_("asked once"))
    def questions(self, model: StationModel) -> SafeString | str:
        said = {
            learning.OK: gettext("answered"),
            learning.REFUSED: gettext("refused"),
            learning.REBOOTED: gettext("followed by a boot; never asked again"),
            learning.SILENT: gettext("not answered; not asked again"),
            "": gettext("being asked"),
        }
        rows = [
            (name, said.get(str(e.get("answer", "")), str(e.get("answer"))), moment(e.get("at")))
            for name, e in (model.asked or {}).items()
        ]
        heads = [gettext("question"), gettext("answer"), gettext("asked")]
        return table(heads, rows) if rows else "–"

    @daily(_("Ask again"), icon="refresh", permission="set", explained=_("Each question once more, at the next boot."))
    def ask_again(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        model = get_object_or_404(self.get_queryset(request), pk=object_id)
        learning.ask_again(model)
        return self._done(request, model, gettext("%(model)s is asked again."))

    @daily(
        _("Forget what was learnt"),
        icon="restart_alt",
        permission="set",
        explained=_("What a person set stays; the rest is learnt anew."),
    )
    def forget(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        model = get_object_or_404(self.get_queryset(request), pk=object_id)
        model.capabilities = {n: e for n, e in model.capabilities.items() if e.get("source") == Source.SET}
        model.save(update_fields=["capabilities"])
        changes.announce("station", stations_of(model).values_list("pk", flat=True))
        return self._done(request, model, gettext("What was learnt of %(model)s is forgotten."))

    def _done(self, request: HttpRequest, model: StationModel, text: str) -> HttpResponse:
        self.log_change(request, model, text % {"model": model})
        self.message_user(request, text % {"model": model})
        to = reverse("admin:csms_stationmodel_change", args=[model.pk])
        if request.headers.get("HX-Request"):
            return HttpResponse(headers={"HX-Redirect": to})
        return HttpResponseRedirect(to)


def stations_of(model: StationModel) -> QuerySet[ChargingStation]:
    return ChargingStation.objects.filter(vendor=model.vendor, model=model.model, firmware_version=model.firmware)


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


# ---------------------------------------------------------------------- alarms and told limits


class StillOpen(admin.SimpleListFilter):
    """Open, or over."""

    title = _("open")
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("open")), ("no", _("over"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in ("yes", "no"):
            return queryset.filter(ended_at__isnull=self.value() == "yes")
        return queryset


@admin.register(Alarm)
class AlarmAdmin(LedgerAdmin):
    site_path = "site"
    list_display = ("matter", "station", "evse", "detail", "raised_at", "ended_at", "ended_by")
    list_filter = (StillOpen, ("site", OfMySites), "kind")
    list_select_related = ("station", "evse__station", "site")
    search_fields = ("station__identity", "station__name", "detail")
    ordering = ("-raised_at", "-pk")
    actions = ("dismiss_ticked",)  # type: ignore[assignment]
    actions_detail = ("dismiss",)

    @column(_("kind"), label={"open": "danger", "over": "info"})
    def matter(self, alarm: Alarm) -> tuple[str, Any]:
        return ("open" if alarm.open else "over"), alarm.get_kind_display()

    def idle_actions(self, record: Alarm) -> set[str]:
        return set() if record.open else {"dismiss"}

    @listed(_("End the alarms"))
    def dismiss_ticked(self, request: HttpRequest, queryset: QuerySet[Alarm]) -> None:
        done = 0
        for alarm in queryset.filter(ended_at=None):
            if self.has_operate_permission(request, alarm):
                alarms.dismiss(alarm, timezone.now(), request.user.get_username())
                done += 1
        self.message_user(request, gettext("%(count)d alarms ended.") % {"count": done})

    @daily(
        _("End the alarm"),
        icon="done",
        explained=_("A place that was isolated is believed again, until it is seen not to follow anew."),
    )
    def dismiss(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        alarm = get_object_or_404(self.get_queryset(request), pk=object_id)
        alarms.dismiss(alarm, timezone.now(), request.user.get_username())
        self.message_user(request, gettext("The alarm is ended."))
        return self.message_and_return(request, reverse("admin:csms_alarm_changelist") + "?open=yes")


class HowFar(admin.SimpleListFilter):
    """How far a limit was followed."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("asked", _("asked")), *WantedLimit.State.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() else queryset


@admin.register(ToldLimit)
class ToldLimitAdmin(LedgerAdmin):
    site_path = "evse__station__site"
    list_display = ("evse", "limit", "reason", "who", "means", "how_far", "at", "sent_at", "accepted_at", "measured_at")
    list_filter = (("evse__station__site", OfMySites), HowFar)
    list_select_related = ("evse__station",)
    search_fields = ("evse__station__identity", "reason")
    exclude = ("state",)
    ordering = ("-at", "-pk")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        shown = super().get_readonly_fields(request, obj)
        return ["how_far" if name == "state" else name for name in shown]

    @column(_("limit"))
    def limit(self, told: ToldLimit) -> str:
        return _amount(told)

    @column(_("state"))
    def how_far(self, told: ToldLimit) -> str:
        return state_of(told)

    @column(_("asked by"))
    def who(self, told: ToldLimit) -> str:
        def one(ask: Mapping[str, Any]) -> str:
            value = f"{ask['w']:g} W" if ask.get("w") is not None else f"{ask.get('a') or 0:g} A"
            return f"{ask.get('by') or gettext('the plan')}: {value}"

        return "; ".join(one(a) for a in told.asked or ()) or "–"

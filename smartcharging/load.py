"""Bring a site file into the database: create or update, all or nothing, and say what was done.

Names and identities are the keys. What has vanished from the file is never deleted where it has a history: a device
is disabled, a station stays and is said. Id tokens, user profiles and vehicles may also come from elsewhere (the
admin, a CSV file), so those that the file does not name are left alone. Gateways
hear of changed stations and tokens after the commit, and a plan is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db import models, transaction

from csms import changes
from csms.models import EVSE, ChargingStation, IdToken
from meters.models import Device, Site
from smartcharging import wake
from smartcharging.feeds.prices import AREAS
from smartcharging.models import Circuit, Feed, Tariff, TokenProfile, UserProfile, Vehicle
from smartcharging.sitefile import (
    CircuitTable,
    DeviceTable,
    IdTokenTable,
    SiteFile,
    SiteFileError,
    StationTable,
    UserProfileTable,
    VehicleTable,
)
from smartcharging.tables import PHASE_NAMES, Problem


@dataclass
class LoadReport:
    """What a load did (or, on a dry run, would do)."""

    site: Site
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (record, created | updated | unchanged)
    vanished: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    stations: set[int] = field(default_factory=set)  # changed, to be announced
    tokens: set[int] = field(default_factory=set)

    def lines(self) -> list[str]:
        records = sorted({record for record, _ in self.counts})
        out = []
        for record in records:
            done = [
                f"{self.counts[record, what]} {what}"
                for what in ("created", "updated", "unchanged")
                if self.counts[record, what]
            ]
            out.append(f"{record}: {', '.join(done)}")
        return out + [f"gone: {line}" for line in self.vanished] + [f"warning: {line}" for line in self.warnings]


def load_site(sitefile: SiteFile) -> Site:
    """Create or update the site. Raises `SiteFileError` when the file contradicts what other sites hold."""
    return load(sitefile).site


def load(sitefile: SiteFile, *, dry_run: bool = False) -> LoadReport:
    """Like `load_site`, and says what was done. A dry run does everything and takes it all back."""
    with transaction.atomic():
        supplied = Site.objects.filter(name=sitefile.site.name).values_list("supply", flat=True).first()
        site, how = _put(Site, {"name": sitefile.site.name}, _site_values(sitefile))
        report = LoadReport(site)
        report.counts["site", how] += 1
        _refuse_foreign_stations(sitefile, site)
        if sitefile.tariff is not None:
            _, how = _put(Tariff, {"site": site}, sitefile.tariff.values)
            report.counts["tariff", how] += 1
        devices = _devices(sitefile.devices, site, report)
        circuits = _circuits(sitefile, site, devices, report)
        _feed_devices(sitefile.devices, devices, circuits)
        _stations(sitefile, site, circuits, report)
        if supplied not in (None, site.supply):  # their limits in watts mean other amps now
            report.stations.update(site.stations.values_list("pk", flat=True))
        profiles = _user_profiles(sitefile.user_profiles, site, report)
        tokens = _id_tokens(sitefile.id_tokens, site, profiles, report)
        _vehicles(sitefile.vehicles, site, tokens, report)
        report.warnings += commissioning_warnings(sitefile)
        if dry_run:
            transaction.set_rollback(True)
        else:
            changes.announce("station", sorted(report.stations))
            changes.announce("token", sorted(report.tokens))
            transaction.on_commit(lambda: wake.plan(site.pk, "site file loaded"))
    return report


def _put(model: type[models.Model], key: dict[str, Any], values: dict[str, Any]) -> tuple[Any, str]:
    """Create the record or change what differs; an unchanged record is not saved, so its history stays quiet."""
    record = model._default_manager.filter(**key).first()
    if record is None:
        return model._default_manager.create(**key, **values), "created"
    return record, _change(record, values)


def _change(record: Any, values: dict[str, Any]) -> str:
    different = [name for name, value in values.items() if getattr(record, name) != value]
    for name in different:
        setattr(record, name, values[name])
    if different:
        record.save(update_fields=different)
    return "updated" if different else "unchanged"


def _site_values(sitefile: SiteFile) -> dict[str, Any]:
    s = sitefile.site
    return {
        "timezone": s.timezone,
        "latitude": s.latitude,
        "longitude": s.longitude,
        "price_area": s.price_area,
        "supply": s.supply,
        "demo": s.demo,
    }


def _refuse_foreign_stations(sitefile: SiteFile, site: Site) -> None:
    identities = [s.identity for s in sitefile.stations]
    foreign = ChargingStation.objects.filter(identity__in=identities, site__isnull=False).exclude(site=site)
    problems = [
        Problem(
            "[[station]]",
            f'"{station.identity}"',
            "identity",
            f"belongs to the site {station.site}",
            "remove it there first, or give this station another identity",
        )
        for station in foreign.select_related("site")
    ]
    if problems:
        raise SiteFileError(problems)


def _devices(tables: Iterable[DeviceTable], site: Site, report: LoadReport) -> dict[str, Device]:
    known = {d.name: d for d in site.devices.all()}
    devices = {}
    for table in tables:
        values = {
            "kind": table.kind,
            "map": table.map,
            "connect": table.connect,
            "wiring": list(table.wiring),
            "invert": table.invert,
            "poll_s": table.poll_s,
            "max_age_s": table.max_age_s,
            "options": table.options,
            "enabled": True,
        }
        device = known.pop(table.name, None)
        if device is None:
            device, how = Device.objects.create(site=site, name=table.name, **values), "created"
        else:
            how = _change(device, values)
        devices[table.name] = device
        report.counts["device", how] += 1
    for device in known.values():
        Feed.objects.filter(device=device).delete()
        if device.enabled:
            _change(device, {"enabled": False})
            report.vanished.append(f"device {device.name}: disabled; its readings are kept")
    return devices


def _circuits(sitefile: SiteFile, site: Site, devices: dict[str, Device], report: LoadReport) -> dict[str, Circuit]:
    """The tree, parents first. A renamed grid connection keeps its record, for there is always exactly one."""
    tables = {table.name: table for table in sitefile.circuits}
    order = [tables[c.name] for c in sitefile.grid.circuits]
    known = {c.name: c for c in site.circuits.all()}
    _settle_root(order[0], tables, known, site)
    circuits: dict[str, Circuit] = {}
    for table in order:
        values = {
            "parent": circuits[table.parent] if table.parent else None,
            "limit_a": list(table.limit_a),
            "limit_w": table.limit_w,
            "export_limit_w": table.export_limit_w,
            "margin_a": table.margin_a,
            "meter": devices[table.meter] if table.meter else None,
            "fallback_a": table.fallback_a,
            "worst_a": None if table.worst_a is None else list(table.worst_a),
            "imbalance_a": table.imbalance_a,
        }
        circuit = known.pop(table.name, None)
        if circuit is None:
            circuit, how = Circuit.objects.create(site=site, name=table.name, **values), "created"
        else:
            how = _change(circuit, values)
        circuits[table.name] = circuit
        report.counts["circuit", how] += 1
    _drop_circuits(list(known.values()), circuits[order[0].name], report)
    return circuits


def _settle_root(wanted: CircuitTable, tables: dict[str, CircuitTable], known: dict[str, Circuit], site: Site) -> None:
    """Make the record named like the file's grid connection the one without a parent, whoever it was before."""
    root = next((c for c in known.values() if c.parent_id is None), None)
    if root is None or root.name == wanted.name:
        return
    if wanted.name not in known and root.name not in tables:
        known[wanted.name] = known.pop(root.name)
        _change(root, {"name": wanted.name})
        return
    heir = known.get(wanted.name)
    if heir is None:
        heir = Circuit.objects.create(site=site, name=wanted.name, parent=root, limit_a=list(wanted.limit_a))
        known[wanted.name] = heir
    # At no moment may two circuits be without a parent: first the old one steps down.
    _change(root, {"parent": heir})
    _change(heir, {"parent": None})


def _drop_circuits(gone: list[Circuit], root: Circuit, report: LoadReport) -> None:
    """Circuits that are no longer there. What they fed hangs on the grid connection until the file says better."""
    for circuit in gone:
        moved = Feed.objects.filter(circuit=circuit).update(circuit=root)
        kept = f"; what it fed ({moved}) now hangs on {root.name}" if moved else ""
        report.vanished.append(f"circuit {circuit.name}: removed{kept}")
    Circuit.objects.filter(pk__in=[c.pk for c in gone]).delete()


def _feed_devices(tables: Iterable[DeviceTable], devices: dict[str, Device], circuits: dict[str, Circuit]) -> None:
    feeds = {f.device_id: f for f in Feed.objects.filter(device__in=devices.values())}
    for table in tables:
        device = devices[table.name]
        feed = feeds.get(device.pk)
        if table.circuit is None:
            if feed is not None:
                feed.delete()
        elif feed is None:
            Feed.objects.create(circuit=circuits[table.circuit], device=device)
        else:
            _change(feed, {"circuit": circuits[table.circuit]})


def _stations(sitefile: SiteFile, site: Site, circuits: dict[str, Circuit], report: LoadReport) -> None:
    identities = [s.identity for s in sitefile.stations]
    known = {s.identity: s for s in ChargingStation.objects.filter(identity__in=identities)}
    for table in sitefile.stations:
        station = known.get(table.identity)
        values = _station_values(table, site)
        if station is None:
            station = ChargingStation(identity=table.identity, **values)
            if table.password:
                station.set_password(table.password)
            station.save()
            how = "created"
        else:
            how = _change(station, values)
            # Hashing is slow by design; and a new hash of the same password would be a change that is none.
            if table.password and not (station.password_hash and station.password_is(table.password)):
                station.set_password(table.password)
                station.save(update_fields=["password_hash"])
                how = "updated"
        if how != "unchanged":
            report.stations.add(station.pk)
        report.counts["station", how] += 1
        if not station.password_hash:
            report.warnings.append(f"station {table.identity} has no password: anyone who knows its name may be it")
        _feed_station(table, station, circuits[table.circuit], report)
    for station in site.stations.exclude(identity__in=identities):
        report.vanished.append(f"station {station.identity}: not in the file; it is kept as it was")


def _station_values(table: StationTable, site: Site) -> dict[str, Any]:
    return {
        "site": site,
        "name": table.name,
        "admission": ChargingStation.Admission.ACCEPTED,
        "current": table.current,
        "wiring": list(table.wiring),
        "max_a": table.max_a,
        "min_a": table.min_a,
        "max_w": table.max_w,
        "station_max_a": table.station_max_a,
        "fail_safe_a": table.fail_safe_a,
        "priority": table.priority,
        "quiet": table.quiet,
    }


def _feed_station(table: StationTable, station: ChargingStation, circuit: Circuit, report: LoadReport) -> None:
    """Every EVSE of the station hangs on its circuit, those it reported by itself too: none may stand outside."""
    evses = {e.number: e for e in station.evses.all()}
    for number in range(1, table.evses + 1):
        if number not in evses:
            evses[number] = EVSE.objects.create(station=station, number=number)
            report.stations.add(station.pk)
    more = sorted(n for n in evses if n > table.evses)
    if more:
        report.warnings.append(
            f"station {table.identity} has EVSE {', '.join(map(str, more))} besides the {table.evses} of the file"
        )
    feeds = {f.evse_id: f for f in Feed.objects.filter(evse__station=station)}
    for evse in evses.values():
        feed = feeds.get(evse.pk)
        if feed is None:
            Feed.objects.create(circuit=circuit, evse=evse)
        else:
            _change(feed, {"circuit": circuit})


def _user_profiles(tables: Iterable[UserProfileTable], site: Site, report: LoadReport) -> dict[str, UserProfile]:
    profiles = {}
    for table in tables:
        values = {
            "priority": table.priority,
            "mode": table.mode,
            "departure": table.departure,
            "energy_wh": table.energy_wh,
        }
        profiles[table.name], how = _put(UserProfile, {"site": site, "name": table.name}, values)
        report.counts["user profile", how] += 1
    return profiles


def _id_tokens(
    tables: Iterable[IdTokenTable], site: Site, profiles: dict[str, UserProfile], report: LoadReport
) -> dict[str, IdToken]:
    known = {t.value.upper(): t for t in site.id_tokens.all()}
    linked = {link.id_token_id: link for link in TokenProfile.objects.filter(id_token__site=site)}
    tokens = {}
    for table in tables:
        values: dict[str, Any] = {"type": table.type, "label": table.label, "group": table.group}
        if table.status is not None:
            values["status"] = table.status
        token = known.get(table.value.upper())
        if token is None:
            token, how = IdToken.objects.create(site=site, value=table.value, **values), "created"
        else:
            how = _change(token, values)
        if table.profile is not None:
            link = linked.get(token.pk)
            if link is None:
                TokenProfile.objects.create(id_token=token, profile=profiles[table.profile])
            else:
                _change(link, {"profile": profiles[table.profile]})
        if how != "unchanged":
            report.tokens.add(token.pk)
        tokens[table.value] = token
        report.counts["id token", how] += 1
    return tokens


def _vehicles(tables: Iterable[VehicleTable], site: Site, tokens: dict[str, IdToken], report: LoadReport) -> None:
    for table in tables:
        values: dict[str, Any] = {
            "battery_wh": table.battery_wh,
            "consumption_wh_per_km": table.consumption_wh_per_km,
            "phases": table.phases,
            "max_a": table.max_a,
            "min_a": table.min_a,
        }
        if table.id_token is not None:
            values["id_token"] = tokens[table.id_token]
        _, how = _put(Vehicle, {"site": site, "name": table.name}, values)
        report.counts["vehicle", how] += 1


def commissioning_warnings(sitefile: SiteFile) -> list[str]:
    """What is legal but not wise: fail-safe currents that together exceed a circuit, a connection without a meter.

    The rule: when every station falls back on itself at once, no circuit may be above its limit.
    """
    grid = sitefile.grid
    sums = [[0.0, 0.0, 0.0] for _ in grid.circuits]
    for station in sitefile.stations:
        total = station.evses * station.fail_safe_a
        if station.station_max_a is not None:
            total = min(total, station.station_max_a)
        for node in grid.path(grid.index(station.circuit)):
            for phase in station.phases:
                sums[node][PHASE_NAMES.index(phase)] += total
    warnings = []
    for node, circuit in enumerate(grid.circuits):
        for phase, total, limit in zip(PHASE_NAMES, sums[node], circuit.limit_a, strict=True):
            if total > limit - circuit.margin_a + 1e-9:
                warnings.append(
                    f"circuit {circuit.name}: the fail-safe currents below it come to {total:g} A on {phase}, "
                    f"above its {limit - circuit.margin_a:g} A; lower fail_safe_a of its stations"
                )
                break
    area = sitefile.site.price_area
    if area and area not in AREAS:
        warnings.append(
            f"site: price_area {area} is none of {', '.join(sorted(AREAS))}; its days are taken as central European, "
            "and without prices for it the plan counts with a flat price"
        )
    if not grid.circuits[0].metered:
        warnings.append(
            f"circuit {grid.circuits[0].name}: the grid connection has no meter, so the building's load is not seen"
        )
    return warnings

"""Brings the demo into the database: the site, its people, its past. Doing it again changes nothing that is right."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from django.contrib.auth.models import Permission, User
from django.db import transaction

from csms.models import IdToken
from meters.models import Site, SiteRole
from smartcharging.load import load_site
from smartcharging.models import Vehicle
from smartcharging.sitefile import SiteFile
from webapp.demo import care, cars, installation, past
from webapp.demo.replay import Replay

ADMIN, OPERATOR, DRIVER = "admin", "operator", "driver"
PEOPLE = (ADMIN, OPERATOR, DRIVER)
ROOMS = ("meters", "csms", "smartcharging")


class NameTaken(Exception):
    """A real site bears the demo's name, or a person who is not of the demo one of its user names."""


@dataclass
class Loaded:
    """What a load did."""

    site: Site
    logins: dict[str, str]
    counts: dict[str, int] = field(default_factory=dict)


def load(data_dir: Path, now: datetime) -> Loaded:
    """Create or update everything of the demo."""
    sitefile = installation.site_file(data_dir)
    _refuse_taken_names(sitefile)
    logins = installation.logins(data_dir, PEOPLE)
    with transaction.atomic():
        site = _as_loaded(sitefile, logins, data_dir) or _bring(sitefile, logins, data_dir)
    replay = replay_of(sitefile)
    counts = {
        "prices": past.fill_prices(site, replay, now),
        "quarter hours": past.fill_quarters(site, replay, now),
        "charges": past.fill_charges(site, replay, now),
    }
    return Loaded(site, logins, counts)


def replay_of(sitefile: SiteFile) -> Replay:
    peak = next((d.options.get("peak_w", 0.0) for d in sitefile.devices if d.kind == "pv"), 0.0)
    return Replay(ZoneInfo(sitefile.site.timezone), peak)


def _refuse_taken_names(sitefile: SiteFile) -> None:
    if Site.objects.filter(name=sitefile.site.name, demo=False).exists():
        raise NameTaken(f"a site named {sitefile.site.name!r} is here already, and it is not the demo")
    if Site.objects.filter(demo=True).exists():
        return
    taken = User.objects.filter(username__in=PEOPLE).values_list("username", flat=True).first()
    if taken is not None:
        raise NameTaken(f"a user named {taken!r} is here already; the demo would take it over")


def _mark(sitefile: SiteFile, logins: dict[str, str]) -> str:
    secrets = [s.password for s in sitefile.stations]
    return hashlib.sha256(repr((sitefile, secrets, sorted(logins.items()))).encode()).hexdigest()


def _as_loaded(sitefile: SiteFile, logins: dict[str, str], data_dir: Path) -> Site | None:
    """The site, when this very file was loaded with these ports and passwords: what people changed since then stays."""
    kept = data_dir / "demo-loaded"
    if not kept.exists() or kept.read_text() != _mark(sitefile, logins):
        return None
    if User.objects.filter(username__in=PEOPLE).count() < len(PEOPLE):
        return None
    return Site.objects.filter(name=sitefile.site.name, demo=True).first()


def _bring(sitefile: SiteFile, logins: dict[str, str], data_dir: Path) -> Site:
    site = load_site(sitefile)
    _people(site, logins)
    care.fill(site)
    mark = _mark(sitefile, logins)
    transaction.on_commit(lambda: installation.write_private(data_dir / "demo-loaded", mark))
    return site


def _people(site: Site, logins: dict[str, str]) -> None:
    admin = _person(ADMIN, logins, is_staff=True, is_superuser=True)
    operator = _person(OPERATOR, logins, is_staff=True, is_superuser=False)
    driver = _person(DRIVER, logins, is_staff=False, is_superuser=False)
    operator.user_permissions.set(Permission.objects.filter(content_type__app_label__in=ROOMS))
    for user in (admin, operator):
        for role in (SiteRole.Role.OPERATOR, SiteRole.Role.INSTALLER):
            SiteRole.objects.get_or_create(user=user, site=site, role=role)
    IdToken.objects.filter(site=site, value=cars.DRIVER_TOKEN).exclude(driver=driver).update(driver=driver)
    Vehicle.objects.filter(site=site, id_token__value=cars.DRIVER_TOKEN).exclude(driver=driver).update(driver=driver)


def _person(name: str, logins: dict[str, str], **is_what: bool) -> User:
    user, _ = User.objects.get_or_create(username=name, defaults=is_what)
    if not user.check_password(logins[name]):
        user.set_password(logins[name])
        user.save(update_fields=["password"])
    return user

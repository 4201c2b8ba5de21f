"""The docs say what is true: every setting, every register map, every link."""

from __future__ import annotations

import re
from pathlib import Path

from django.conf import settings

ROOT: Path = settings.BASE_DIR
DOCS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def test_every_setting_from_the_environment_is_described():
    source = "".join((ROOT / path).read_text() for path in ("webapp/settings.py", "webapp/management/commands/up.py"))
    names = set(re.findall(r'(?:flag|number|environ\.get)\(\s*"([A-Z_]+)"', source))
    rows = [line.split("|")[1] for line in (ROOT / "docs/settings.md").read_text().splitlines() if line.startswith("|")]
    described = {name for row in rows for name in re.findall(r"`([A-Z][A-Z_]+)`", row)}

    assert len(names) > 20
    assert names - described == set()
    assert described - names == set()


def test_every_register_map_is_described():
    from meters.devices import maps

    text = (ROOT / "docs/devices.md").read_text()

    assert [name for name in maps.names() if f"`{name}`" not in text] == []


def test_every_link_between_documents_leads_somewhere():
    broken = [
        f"{doc.relative_to(ROOT)}: {target}"
        for doc in DOCS
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", doc.read_text())
        if not (doc.parent / target).exists()
    ]

    assert broken == []


def test_the_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 45

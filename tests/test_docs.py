"""The docs say what is true: every setting, every register map, every link."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands

from smartcharging import sitefile
from smartcharging.engine.limits import SENTENCES
from smartcharging.tables import Table

ROOT: Path = settings.BASE_DIR
DOCS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
OPERATOR = ROOT / "docs/operator.md"


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


def site_file_in_the_docs() -> str:
    """The full example of the operator's page."""
    examples = re.findall(r"```toml\n(.*?)```", OPERATOR.read_text(), re.DOTALL)
    return next(example for example in examples if "[site]" in example)


def fields_in_the_docs() -> set[tuple[str, str]]:
    """(section, field) of each row of the operator's tables below a heading such as `[[circuit]]`."""
    described = set()
    for part in re.split(r"^#+ ", OPERATOR.read_text(), flags=re.MULTILINE):
        section = re.match(r"`(\[+\w+\]+)`", part)
        if section is not None:
            described |= {(section[1], name) for name in re.findall(r"^\| `(\w+)`", part, re.MULTILINE)}
    return described


def test_the_site_file_of_the_docs_can_be_loaded():
    site = sitefile.parse(site_file_in_the_docs())

    assert site.tariff is not None
    assert all((site.circuits, site.devices, site.stations, site.user_profiles, site.id_tokens, site.vehicles))


def test_every_field_of_the_site_file_is_described(monkeypatch: pytest.MonkeyPatch):
    asked: set[tuple[str, str]] = set()
    finish = Table.finish

    def listening(table: Table) -> None:
        asked.update((table.section, name) for name in table._asked)
        finish(table)

    monkeypatch.setattr(Table, "finish", listening)
    sitefile.parse(site_file_in_the_docs())

    assert len(asked) > 60
    assert asked - fields_in_the_docs() == set()
    assert fields_in_the_docs() - asked == set()


def test_every_command_in_the_docs_exists():
    named = {name for doc in DOCS for name in re.findall(r"manage\.py ([a-z_]+)", doc.read_text())}

    assert {"up", "load_site", "create_token"} <= named
    assert named - set(get_commands()) == set()


def test_every_file_and_function_named_in_the_docs_is_there():
    lost = []
    for doc in DOCS:
        for path, name in re.findall(r"`([\w/]+/\w+\.py)(?::\s+([\w.]+))?`", doc.read_text()):
            file = ROOT / path
            last = name.rpartition(".")[2]
            if not file.exists() or (
                last and not re.search(rf"^ *(?:async )?(?:def|class) {last}\b", file.read_text(), re.M)
            ):
                lost.append(f"{doc.relative_to(ROOT)}: {path}: {name}")

    assert lost == []


def test_every_reason_of_a_limit_is_explained_to_the_operator():
    text = OPERATOR.read_text()
    said = [part.strip() for sentence in SENTENCES.values() for part in re.split(r"%\(\w+\)s", sentence)]

    assert [part for part in said if part not in text] == []

"""The quirk list is whole, in words, and held to the code; a repair may be forbidden for a model."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections

from csms import quirks
from csms.capabilities import CATALOGUE, read
from csms.learning import where
from csms.models import ChargingStation
from csms.obedience_models import StationModel
from meters.models import Site
from tests.csms.charge_point import V16, running, station
from tests.csms.obeying import until
from tests.csms.test_gateway import BOOT_16

ROOT: Path = settings.BASE_DIR


def test_every_quirk_of_the_list_has_its_row() -> None:
    named = {r.quirk for r in (*quirks.REPAIRS, *quirks.FLAGS, *quirks.OTHERS)} | {c.quirk for c in CATALOGUE}

    assert {f"Q{n}" for n in range(1, 18)} - named == set()
    assert {f"Q{n}" for n in range(18, 23)} - named == set()


def test_every_counter_of_the_code_is_put_into_words() -> None:
    source = "".join(p.read_text() for p in (ROOT / "csms").glob("**/*.py") if "simulator" not in p.parts)
    counted = set(re.findall(r'[._]count\(\s*"([a-z_]+)"', source))

    assert len(counted) > 20
    assert sorted(name for name in counted if quirks.known(name) is None) == []


def test_the_page_of_quirks_says_what_the_code_does() -> None:
    page = (ROOT / "docs/quirks.md").read_text()

    assert quirks.table() in page
    assert quirks.capability_table() in page


@pytest.mark.parametrize(
    ("entry", "value", "source", "place"),
    [
        (None, "W", "told", "model"),
        ({"value": "W", "source": "told", "station": "A"}, "A", "learned", "model"),
        ({"value": "W", "source": "learned", "station": "A"}, "A", "told", "drop"),
        ({"value": "W", "source": "learned", "station": "A"}, "A", "learned", "own"),
        ({"value": "W", "source": "learned", "station": "B"}, "A", "learned", "model"),
        ({"value": "W", "source": "set", "station": ""}, "A", "learned", "drop"),
        ({"value": "W", "source": "set", "station": ""}, "A", "set", "model"),
        ({"value": "W", "source": "learned", "station": "A"}, None, "learned", "model"),
        ({"value": "W", "source": "told", "station": "A"}, None, "learned", "drop"),
    ],
)
def test_a_stronger_word_is_never_undone_by_a_weaker(entry: Any, value: Any, source: str, place: str) -> None:
    assert where(entry, value, source, "B") == place


@pytest.mark.parametrize(
    ("name", "value"), [("rate_unit", "VA"), ("max_stack_level", -1), ("decimals", "x"), ("no", 1)]
)
def test_a_capability_that_cannot_be_names_itself(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        read(name, value)


@pytest.fixture
async def connections_given_back() -> AsyncIterator[None]:
    """The thread in which a test asks the database keeps its connection; PostgreSQL cannot drop one in use."""
    yield
    await sync_to_async(connections.close_all)()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("connections_given_back")
async def test_a_repair_that_is_forbidden_for_a_model_is_refused_in_the_standards_way() -> None:
    site = await Site.objects.acreate(name="Campus")
    row = await ChargingStation.objects.acreate(identity="CS-1", site=site, admission="accepted")
    key = {"vendor": BOOT_16["chargePointVendor"], "model": BOOT_16["chargePointModel"]}
    await StationModel.objects.acreate(**key, firmware=BOOT_16["firmwareVersion"], repairs={"extra_field": "off"})
    async with running() as gateway, station(gateway, version=V16) as bare:
        assert (await bare.call("Heartbeat", {"vendor": 1}))[0] == 3  # its model is not known yet
        await bare.ask("BootNotification", BOOT_16)
        await until(lambda: gateway.memory.by_pk[row.pk].model_record)

        refused = await bare.call("Heartbeat", {"vendor": 1})

        assert refused[:3] == [4, refused[1], "FormationViolation"]
        assert (await bare.call("Heartbeat", {}))[0] == 3
        gateway.sessions["CS-1"].flush_counters()
        kept = await until(lambda: ChargingStation.objects.filter(counters__has_key="extra_field").first())
        assert kept.counted_at["extra_field"]

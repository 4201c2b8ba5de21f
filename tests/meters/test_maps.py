"""Every product's table, proved by registers as they travel on the wire."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meters.devices import maps
from meters.devices.quantities import Door, assemble, doubts, parse_wiring
from meters.devices.registers import HOLDING, RegisterMap, decode_points, plan_blocks
from meters.devices.sunspec import SunSpecMap

RECORDED = Path(__file__).parent / "recorded"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
METERS = sorted(p.stem for p in RECORDED.glob("*.json"))


def recorded(name):
    data = json.loads((RECORDED / f"{name}.json").read_text())
    image = {}
    for address, words in data["registers"].items():
        for i, word in enumerate(words.split()):
            image[data["function"], int(address) + i] = int(word, 16)
    return image


def test_the_three_products_of_the_tender_are_known():
    assert {"eastron_sdm630", "carlo_gavazzi_em340", "siemens_pac2200", "sunspec_inverter", "sunspec_storage"} <= set(
        maps.names()
    )


def test_an_unknown_map_is_refused_with_the_names_that_are_known():
    with pytest.raises(maps.UnknownMap, match=r"'eastron_sdm631' is not known \(did you mean eastron_sdm630\?\)"):
        maps.get("eastron_sdm631")


def test_every_map_carries_its_own_name_and_every_meter_has_recorded_registers():
    for name in maps.names():
        map_ = maps.get(name)
        assert map_.name == name
        assert map_.title
    full = {n for n in maps.names() if isinstance(maps.get(n), RegisterMap) and len(maps.get(n).points) > 12}
    assert {n for n in full if not maps.get(n).contacts} - {"huawei_grid"} <= set(METERS)


@pytest.mark.parametrize("name", METERS)
def test_a_meter_is_read_right(name):
    map_ = maps.get(name)

    measured = assemble(decode_points(map_.points, recorded(name), map_.sentinels), AT, Door())

    step = 0.06 if "carlo" in name or name == "abb_b23" else 0.02
    assert measured.voltage_v == pytest.approx((230.1, 231.4, 229.8), abs=step)
    assert measured.current_a == pytest.approx((12.34, -5.6, 20.01), abs=step)
    assert measured.power_phase_w == pytest.approx((2800, -1260, 4590))
    assert measured.power_w == pytest.approx(6130)
    if name != "socomec_diris_b30":
        assert measured.frequency_hz == pytest.approx(49.98, abs=0.03)
    coarse = 600 if name == "socomec_diris_b30" else 1
    assert measured.energy_import_wh == pytest.approx(12_345_600, abs=coarse)
    assert measured.energy_export_wh == pytest.approx(789_000, abs=1)
    assert doubts(measured) == []
    if name not in ("carlo_gavazzi_em24", "phoenix_eem_ma370"):
        assert measured.reactive_var == pytest.approx(460)
        assert measured.apparent_va is not None
        assert measured.power_factor is not None and 0 < measured.power_factor <= 1


@pytest.mark.parametrize("name", METERS)
def test_no_meter_is_read_outside_its_table_without_leave(name):
    map_ = maps.get(name)
    known = recorded(name)

    for block in plan_blocks(map_.points, max_words=map_.max_words, bridge=0, boundaries=map_.boundaries):
        assert all((block.function, a) in known for a in range(block.address, block.end)), block


def test_points_to_write_never_have_an_unproved_address():
    for name in maps.names():
        map_ = maps.get(name)
        if isinstance(map_, SunSpecMap):
            continue
        assert all(p.confidence in "AB" and p.function == HOLDING for p in map_.writes)
        if map_.commands is not None:
            for steps in (map_.commands.charge, map_.commands.discharge, map_.commands.hold, map_.commands.release):
                assert steps and all(map_.point(s.point) for s in steps)


def test_all_ones_of_an_abb_meter_are_no_values():
    map_ = maps.get("abb_b23")
    image = dict.fromkeys(recorded("abb_b23"), 65535)
    for address in (23324, 23316):  # signed: 7FFF FFFF
        image[3, address] = 0x7FFF

    values = decode_points(map_.points, image, map_.sentinels)

    assert values["voltage_1"] is None
    assert values["power"] is None
    assert values["energy_import"] is None


def test_a_rotated_meter_is_put_back_on_the_grid_phases():
    map_ = maps.get("eastron_sdm630")
    values = decode_points(map_.points, recorded("eastron_sdm630"), map_.sentinels)

    measured = assemble(values, AT, Door(wiring=parse_wiring(["L2", "L3", "L1"])))

    assert measured.power_phase_w == pytest.approx((4590, 2800, -1260))
    assert measured.current_a == pytest.approx((20.01, 12.34, -5.6))
    assert measured.power_w == pytest.approx(6130)


def test_turned_transformers_turn_everything_energies_too():
    map_ = maps.get("eastron_sdm630")
    values = decode_points(map_.points, recorded("eastron_sdm630"), map_.sentinels)

    measured = assemble(values, AT, Door(invert=True))

    assert measured.power_phase_w == pytest.approx((-2800, 1260, -4590))
    assert measured.current_a == pytest.approx((-12.34, 5.6, -20.01))
    assert measured.power_w == pytest.approx(-6130)
    assert measured.reactive_var == pytest.approx(-460)
    assert measured.energy_export_wh == pytest.approx(12_345_600)

"""The site file: what is right is read, and everything that is wrong is said at once."""

from __future__ import annotations

from datetime import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartcharging.sitefile import LARGEST_BYTES, SiteFileError, parse

GOOD = """
[site]
name = "Campus Noord"
timezone = "Europe/Brussels"
latitude = 51.05
longitude = 3.72
price_area = "BE"

[tariff]
import_adder_eur_per_kwh = 0.12
peak_eur_per_kw_month = 4.2

[[circuit]]
name = "grid"
limit_a = [250, 250, 240]
limit_w = 160000
margin_a = 5
meter = "main"
fallback_a = 60

[[circuit]]
name = "row 1"
parent = "grid"
limit_a = 63
worst_a = [10, 8, 0]
imbalance_a = 20

[[device]]
name = "main"
kind = "meter"
map = "eastron_sdm630"
connect = "tcp://192.168.1.20:502?unit=1"
circuit = "grid"

[[device]]
name = "store"
kind = "battery"
circuit = "grid"
capacity_kwh = 100
max_charge_w = 50000
max_discharge_w = 50000
min_soc = 0.1

[[station]]
identity = "CS-001"
circuit = "row 1"
wiring = ["L2", "L3", "L1"]
evses = 2
priority = 2
password = "not-so-secret-here"

[[station]]
identity = "HPC-1"
circuit = "grid"
current = "dc"
max_w = 150000
max_a = 220
evses = 2

[[user_profile]]
name = "fleet"
priority = 3
departure = "17:00"
energy_kwh = 25

[[id_token]]
value = "04A1B2C3D4"
profile = "fleet"

[[vehicle]]
name = "van 1"
id_token = "04A1B2C3D4"
battery_kwh = 60
"""


def problems_of(text: str | bytes) -> str:
    with pytest.raises(SiteFileError) as caught:
        parse(text)
    return str(caught.value)


def test_a_good_file_becomes_tables():
    file = parse(GOOD)

    assert file.site.name == "Campus Noord"
    assert file.tariff.values == {"import_adder_eur_per_kwh": 0.12, "peak_eur_per_kw_month": 4.2}
    assert [c.name for c in file.grid.circuits] == ["grid", "row 1"]
    assert file.circuits[0].limit_a == (250, 250, 240)
    assert file.circuits[1].limit_a == (63, 63, 63)
    assert (file.circuits[1].worst_a, file.circuits[1].imbalance_a) == ((10, 8, 0), 20)
    assert (file.circuits[0].worst_a, file.circuits[0].imbalance_a) == (None, None)
    assert (file.grid.circuits[1].worst_a, file.grid.circuits[1].imbalance_a) == ((10, 8, 0), 20)
    assert file.devices[1].options == {
        "capacity_wh": 100_000,
        "max_charge_w": 50_000,
        "max_discharge_w": 50_000,
        "min_soc": 0.1,
    }
    assert file.stations[0].phases == ("L2", "L3", "L1")
    assert (file.stations[0].max_a, file.stations[0].min_a, file.stations[0].fail_safe_a) == (32, 6, 6)
    assert file.stations[1].max_w == 150_000
    assert file.user_profiles[0].departure == time(17, 0)
    assert file.user_profiles[0].energy_wh == 25_000
    assert file.vehicles[0].battery_wh == 60_000


def test_a_password_never_shows():
    file = parse(GOOD)

    assert "not-so-secret" not in repr(file)
    assert "12345" not in problems_of(GOOD.replace('password = "not-so-secret-here"', "password = 12345"))


def test_every_problem_is_told_at_once():
    said = problems_of(
        GOOD.replace('timezone = "Europe/Brussels"', 'timezone = "Europe/Brussel"')
        .replace("priority = 2", "prioriteit = 2")
        .replace('circuit = "row 1"', 'circuit = "row1"')
    )

    assert "[site], timezone: 'Europe/Brussel' is no time zone; did you mean 'Europe/Brussels'?" in said
    assert "[[station]] \"CS-001\", prioriteit: is not a field of this section; did you mean 'priority'?" in said
    assert "[[station]] \"CS-001\", circuit: no circuit is named 'row1'; did you mean 'row 1'?" in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "Campus Noord"\n', "", "[site], name: is missing"),
        ('name = "Campus Noord"', "name = 5", "[site], name: 5 is not a text"),
        ("latitude = 51.05", "latitude = 151", "[site], latitude: 151 is outside its range"),
        ("latitude = 51.05\n", "", "[site], latitude: is missing; give both"),
        ("limit_a = 63", "limit_a = [63, 63]", '[[circuit]] "row 1", limit_a'),
        ("limit_a = 63", "limit_a = nan", '[[circuit]] "row 1", limit_a: nan'),
        ("limit_a = 63", "limit_a = true", '[[circuit]] "row 1", limit_a: True'),
        ("limit_a = 63", "", '[[circuit]] "row 1", limit_a: is missing'),
        ("limit_w = 160000", "limit_w = inf", '[[circuit]] "grid", limit_w: inf is not a number'),
        ("fallback_a = 60", "fallback_a = 600", "fallback_a: 600 is above the limit"),
        ("margin_a = 5", "margin_a = 250", "margin_a: 250 leaves nothing"),
        ('meter = "main"', 'meter = "store"', "is of kind 'battery'"),
        ('name = "row 1"', 'name = "grid"', '[[circuit]] "grid", name: is used twice, in entries 1 and 2'),
        ('parent = "grid"', 'parent = "row 1"', "[[circuit]], parent: these circuits hang on no known parent"),
        ('parent = "grid"', "", "exactly one circuit has no parent, found 2"),
        ('kind = "meter"', 'kind = "metre"', "did you mean 'meter'?"),
        ('map = "eastron_sdm630"', 'map = "eastron_sdm603"', "did you mean 'eastron_sdm630'?"),
        ('map = "eastron_sdm630"\n', "", '[[device]] "main", map: is missing'),
        ("tcp://192.168.1.20:502?unit=1", "http://192.168.1.20", '[[device]] "main", connect'),
        ("tcp://192.168.1.20:502?unit=1", "tcp://192.168.1.20:99999?unit=1", '[[device]] "main", connect'),
        ("tcp://192.168.1.20:502?unit=1", "tcp://192.168.1.20:502?unit=900", '[[device]] "main", connect'),
        ("capacity_kwh = 100\n", "", '[[device]] "store", capacity_kwh: is missing'),
        ("capacity_kwh = 100\n", "capacity_kwh = 100\npeak_w = 1\n", "it belongs to kind 'pv'"),
        ("min_soc = 0.1", "min_soc = 1", "min_soc: is not below max_soc"),
        ('wiring = ["L2", "L3", "L1"]', 'wiring = ["L2", "L2"]', '[[station]] "CS-001", wiring'),
        ("evses = 2\npriority", "evses = 0\npriority", '[[station]] "CS-001", evses: 0 is outside its range'),
        ('identity = "CS-001"', 'identity = "CS/001"', "cannot stand in an address"),
        ('identity = "HPC-1"', 'identity = "CS-001"', "identity: is used twice"),
        ("priority = 2", "fail_safe_a = 3", "fail_safe_a: 3 A cannot be offered to a car"),
        ("priority = 2", "min_a = 40", "min_a: 40 is above max_a (32)"),
        ("max_w = 150000\nmax_a = 220\n", "", '[[station]] "HPC-1", max_w: is missing'),
        ('departure = "17:00"', 'departure = "25:00"', '[[user_profile]] "fleet", departure'),
        ("energy_kwh = 25", "energy_kwh = -1", '[[user_profile]] "fleet", energy_kwh'),
        ('profile = "fleet"', 'profile = "fleets"', "did you mean 'fleet'?"),
        ('[[id_token]]\nvalue = "04A1B2C3D4"', '[[id_token]]\nvalue = "' + "9" * 37 + '"', "at most 36"),
        ("[[vehicle]]", "[[vehicles]]", "[vehicles]: is not a section of a site file; did you mean 'vehicle'?"),
        ("[[vehicle]]", "[vehicle]", "write [[vehicle]], with double brackets"),
        ("[site]", "[[site]]", "write [site], with single brackets"),
        ("[site]", "[site", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(old, new, said):
    assert old in GOOD

    assert said in problems_of(GOOD.replace(old, new, 1))


def test_a_syntax_error_names_its_line():
    assert "line 3" in problems_of('[site]\nname = "x"\nlatitude = = 3\n')


def test_bytes_that_are_not_utf8_name_their_line():
    assert "line 2 is not UTF-8" in problems_of(b'[site]\nname = "caf\xe9"\n')


def test_a_file_from_windows_with_a_byte_order_mark_is_read():
    assert parse(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()).site.name == "Campus Noord"


def test_too_large_too_deep_and_endless_numbers_are_refused_in_words():
    assert "at most" in problems_of("#" * (LARGEST_BYTES + 1))
    assert "nests too deeply" in problems_of("a = " + "[" * 20_000)
    assert "site file" in problems_of("a = " + "9" * 10_000)


def test_an_empty_file_says_what_to_begin_with():
    said = problems_of("")

    assert "start the file with [site]" in said
    assert "describe at least the grid connection" in said


def test_tokens_differing_only_in_case_are_the_same_token():
    twice = GOOD + '\n[[id_token]]\nvalue = "04a1b2c3d4"\n'

    assert "value: is used twice" in problems_of(twice)


def test_a_dc_station_without_amps_reckons_them_from_its_watts():
    file = parse(GOOD.replace("max_a = 220\n", ""))

    assert file.stations[1].max_a == pytest.approx(217.4)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=3)
)


def as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(value), repr(value))
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08X}" for c in value if not 0xD800 <= ord(c) <= 0xDFFF) + '"'
    return str(value)


@settings(max_examples=150, deadline=None)
@given(line=st.integers(0, len(GOOD.splitlines()) - 1), value=VALUES)
def test_any_value_anywhere_is_read_or_refused_never_a_crash(line, value):
    lines = GOOD.splitlines()
    key, equals, _ = lines[line].partition(" = ")
    if not equals or value is None:
        del lines[line]
    else:
        lines[line] = f"{key} = {as_toml(value)}"
    try:
        parse("\n".join(lines))
    except SiteFileError as error:
        assert error.problems


def test_what_cannot_be_read_is_told_once():
    limit = problems_of(GOOD.replace("limit_a = [250, 250, 240]", "limit_a = -250"))
    place = problems_of(GOOD.replace("latitude = 51.05", "latitude = 151.05"))

    assert "limit_a" in limit and "margin_a" not in limit and "fallback_a: 60" not in limit
    assert "outside its range" in place and "is missing" not in place

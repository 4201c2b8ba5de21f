"""From sampled values to grid phases, whatever a station leaves out; and what the codecs make of both dialects."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.metering import measurement
from csms.ocpp16 import codec as v16
from csms.ocpp201 import codec as v201
from csms.profiles import ChargingProfile, Kind, Period, Purpose, Schedule, Unit
from csms.redaction import BLANK, blank, may_hold_a_secret
from csms.schemas import V16, V201, dialect
from csms.vocabulary import MeterValue, Moment, Verdict, moment
from meters.measurement import Measurement, Quality
from meters.supply import Supply

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
L123 = ("L1", "L2", "L3")


def value(*quantities: tuple[str, str, float] | tuple[str, str, float, str]) -> MeterValue:
    return MeterValue(Moment(NOW), tuple((*q, "")[:4] for q in quantities))  # type: ignore[arg-type]


def measured(*quantities: Any, phases: tuple[str, ...] = L123, dc: bool = False, **more: Any) -> Measurement:
    return measurement(value(*quantities), phases=phases, dc=dc, max_a=32, **more)


AMPS = "Current.Import"
WATTS = "Power.Active.Import"

# sampled, wiring, dc → current on L1 L2 L3, power, quality
ROWS: dict[str, tuple[Any, tuple[str, ...], bool, Any, Any, Quality]] = {
    "three phases, straight": (
        [(AMPS, "L1", 10), (AMPS, "L2", 11), (AMPS, "L3", 12)], L123, False, (10, 11, 12), 33 * 230, Quality.GOOD),
    "three phases, turned": (
        [(AMPS, "L1", 10), (AMPS, "L2", 11), (AMPS, "L3", 12)], ("L2", "L3", "L1"), False, (12, 10, 11), 33 * 230,
        Quality.GOOD),
    "one phase, wired to L3": ([(AMPS, "L1", 10)], ("L3",), False, (0, 0, 10), 2300, Quality.GOOD),
    "one phase, told without its name": ([(AMPS, "", 10)], ("L3",), False, (0, 0, 10), 2300, Quality.GOOD),
    "told as L1-N": ([(AMPS, "L1-N", 10)], ("L2",), False, (0, 10, 0), 2300, Quality.GOOD),
    "no phase named: the worst": ([(AMPS, "", 10)], L123, False, (10, 10, 10), 6900, Quality.ESTIMATED),
    "a phase not told is not zero": ([(AMPS, "L1", 10)], L123, False, (10, None, None), None, Quality.GOOD),
    "a phase and a sum: the phases": (
        [(AMPS, "", 99), (AMPS, "L1", 1), (AMPS, "L2", 2), (AMPS, "L3", 3)], L123, False, (1, 2, 3), 6 * 230,
        Quality.GOOD),
    "power by phase": (
        [(WATTS, "L1", 2300), (WATTS, "L2", 0), (WATTS, "L3", 230)], L123, False, (10, 0, 1), 2530, Quality.ESTIMATED),
    "power by phase and voltage": (
        [(WATTS, "L1", 2400), ("Voltage", "L1-N", 240)], ("L1",), False, (10, 0, 0), 2400, Quality.ESTIMATED),
    "total power on one phase": ([(WATTS, "", 2300)], ("L2",), False, (0, 10, 0), 2300, Quality.ESTIMATED),
    "total power, three phases: the worst": ([(WATTS, "", 2300)], L123, False, (10, 10, 10), 2300, Quality.ESTIMATED),
    "more than one phase can carry": (
        [(WATTS, "", 22080), ("Current.Offered", "", 32)], L123, False, (32, 32, 32), 22080, Quality.ESTIMATED),
    "power to the grid is negative": ([(WATTS, "", 0), ("Power.Active.Export", "", 2300)], ("L1",), False,
        (-10, 0, 0), -2300, Quality.ESTIMATED),
    "DC amps at the outlet do not count": (
        [(AMPS, "", 200), (WATTS, "", 65_550)], L123, True, (100, 100, 100), 65_550, Quality.ESTIMATED),
    "DC amps at the inlet do": (
        [(AMPS, "L1", 50, "Inlet"), (AMPS, "L2", 50, "Inlet"), (AMPS, "L3", 50, "Inlet"), (AMPS, "", 200)],
        L123, True, (50, 50, 50), 34_500, Quality.GOOD),
    "nothing told": ([("Temperature", "", 30)], L123, False, None, None, Quality.GOOD),
    "in the body, not on the line": ([(AMPS, "L1", 3, "Body")], L123, False, None, None, Quality.GOOD),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_what_is_told_becomes_what_the_grid_feels(case: str) -> None:
    sampled, phases, dc, current, power, quality = ROWS[case]
    got = measured(*sampled, phases=phases, dc=dc)
    if current is None:
        assert got.current_a is None
    else:
        assert got.current_a == pytest.approx(current)
    assert got.power_w == (None if power is None else pytest.approx(power))
    assert got.quality is quality


# the same without a neutral: sampled, wiring, dc → current, power
LINES: dict[str, tuple[Any, tuple[str, ...], bool, Any, Any]] = {
    "a car on one line returns by the station's next": (
        [(AMPS, "L1", 16), (AMPS, "L2", 0), (AMPS, "L3", 0)], ("L2", "L3", "L1"), False, (0, 16, 16), 16 * 230),
    "told on both": ([(AMPS, "L1", 16), (AMPS, "L2", 16), (AMPS, "L3", 0)], L123, False, (16, 16, 0), 16 * 230),
    "three lines": (
        [(AMPS, "L1", 10), (AMPS, "L2", 10), (AMPS, "L3", 10)], L123, False, (10, 10, 10), 10 * 230 * 3**0.5),
    "a station between two lines": ([(AMPS, "L1", 10)], ("L3", "L1"), False, (10, 0, 10), 2300),
    "such a one, told without its name": ([(AMPS, "", 10)], ("L2", "L3"), False, (0, 10, 10), 2300),
    "such a one, by its power": ([(WATTS, "", 2300)], ("L1", "L2"), False, (10, 10, 0), 2300),
    "power by line is none of a line": (
        [(WATTS, "L1", 1150), (WATTS, "L2", 1150), (WATTS, "L3", 0)], L123, False, (10, 10, 10), 2300),
    "more than one pair of lines can carry": (
        [(WATTS, "", 32 * 230 * 3**0.5), ("Current.Offered", "", 20)], L123, False, (32, 32, 32), 32 * 230 * 3**0.5),
    "dc, by its power": ([(WATTS, "", 3800)], L123, True, (4000 / 230 / 3**0.5,) * 3, 3800),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES)
def test_without_a_neutral_what_is_told_becomes_what_the_lines_feel(case: str) -> None:
    sampled, wiring, dc, current, power = LINES[case]

    found = measured(*sampled, phases=wiring, dc=dc, supply=Supply.IT)

    assert found.current_a == pytest.approx(current)
    assert found.power_w == pytest.approx(power)
    assert found.power_phase_w is None


def test_without_a_neutral_an_offer_in_watts_is_one_of_its_lines() -> None:
    offer = ("Power.Offered", "", 2300)

    assert measured(offer, phases=("L1", "L2"), supply=Supply.IT).offered_a == 10
    assert measured(offer, supply=Supply.IT).offered_a == pytest.approx(10 / 3**0.5)


def test_the_other_quantities_come_along() -> None:
    got = measured(
        ("Energy.Active.Import.Register", "", 5000),
        ("SoC", "", 80, "EV"),
        ("Current.Offered", "", 16),
        ("Frequency", "", 50),
        ("Voltage", "L1", 231),
        ("Voltage", "L1-L2", 400),
    )
    assert (got.energy_import_wh, got.soc, got.offered_a, got.frequency_hz) == (5000, 0.8, 16, 50)
    assert got.voltage_v == (231, None, None)


def test_a_shorter_message_keeps_the_last_current_at_its_own_age() -> None:
    before = replace(measured((AMPS, "L1", 10), phases=("L1",)), at=NOW - timedelta(seconds=30))
    got = measured(("Energy.Active.Import.Register", "", 5000), phases=("L1",), previous=before)
    assert (got.at, got.current_a, got.energy_import_wh) == (before.at, before.current_a, 5000)
    later = measured((AMPS, "L1", 8), phases=("L1",), previous=got)
    assert (later.at, later.energy_import_wh) == (NOW, 5000)
    old = replace(before, at=NOW - timedelta(hours=1))
    assert measured(("SoC", "", 50), phases=("L1",), previous=old).current_a is None


_quantities = st.lists(
    st.tuples(
        st.sampled_from([AMPS, WATTS, "Voltage", "SoC", "Energy.Active.Import.Register", "Current.Offered", "Joy"]),
        st.sampled_from(["", "L1", "L2", "L3", "L1-N", "N", "L1-L2", "X"]),
        st.floats(-1e6, 1e6),
        st.sampled_from(["", "Outlet", "Inlet", "Body", "Moon"]),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(_quantities, st.permutations(L123), st.integers(1, 3), st.booleans())
def test_any_values_make_a_measurement_that_can_be_told(sampled: Any, order: Any, n: int, dc: bool) -> None:
    phases = tuple(order[:n])
    got = measurement(MeterValue(Moment(NOW), tuple(sampled)), phases=phases, dc=dc, max_a=32)
    assert Measurement.from_dict(orjson.loads(orjson.dumps(got.to_dict()))) == got
    if not dc and got.current_a is not None:
        for i, phase in enumerate(L123):
            assert phase in phases or got.current_a[i] == 0


# ---------------------------------------------------------------------- codecs


@pytest.mark.parametrize(
    ("unit", "told", "wh"), [("Wh", "1500", 1500), ("kWh", "1.5", 1500), (None, "1500", 1500), ("KWH", "2", 2000)]
)
def test_registers_are_in_wh_in_both_dialects(unit: str | None, told: str, wh: float) -> None:
    sampled = {"value": told} | ({"unit": unit} if unit else {})
    old = v16.meter_values([{"timestamp": "2026-11-24T12:00:00Z", "sampledValue": [sampled]}], NOW)
    sampled2: dict[str, Any] = {"value": float(told)} | ({"unitOfMeasure": {"unit": unit}} if unit else {})
    new = v201.meter_values([{"timestamp": "2026-11-24T12:00:00Z", "sampledValue": [sampled2]}], NOW)
    assert old[0].register_wh() == new[0].register_wh() == wh


def test_a_multiplier_counts() -> None:
    sampled = {"value": 15, "unitOfMeasure": {"unit": "Wh", "multiplier": 2}}
    assert v201.meter_values([{"timestamp": "", "sampledValue": [sampled]}], NOW)[0].register_wh() == 1500


@pytest.mark.parametrize("broken", [None, 5, "x", [None], [{}], [{"sampledValue": None}], [{"sampledValue": [5, {}]}]])
def test_broken_meter_values_are_no_values(broken: object) -> None:
    for codec in (v16, v201):
        assert not any(v.quantities for v in codec.meter_values(broken, NOW))


def test_a_register_by_phase_is_added_up() -> None:
    got = value(*(("Energy.Active.Import.Register", p, 100) for p in L123))
    assert got.register_wh() == 300
    assert value(("SoC", "", 5)).register_wh() is None


@pytest.mark.parametrize(
    ("told", "unit"),
    [("Current", "A"), ("Power", "W"), ("Current,Power", ""), ("W", "W"), ("power", "W"), ('"A"', "A"), ("", "")],
)
def test_the_unit_a_station_takes_is_read_in_every_spelling(told: str, unit: str) -> None:
    assert v16.rate_unit(told) == v201.rate_unit(told) == unit


def test_an_offer_of_both_units_is_no_preference() -> None:
    assert v201.rate_unit("A,W") == ""


_profiles = st.builds(
    lambda purpose, level, unit, limits, duration, start, phases: ChargingProfile(
        id=7,
        purpose=purpose,
        stack_level=level,
        kind=Kind.ABSOLUTE,
        schedule=Schedule(unit, tuple(Period(i * 60, x, phases) for i, x in enumerate(limits)), duration, start),
        evse=0 if purpose is Purpose.STATION_MAX else 2,
        transaction_id="42" if purpose is Purpose.TX else None,
    ),
    st.sampled_from([Purpose.STATION_MAX, Purpose.TX_DEFAULT, Purpose.TX]),
    st.integers(0, 9),
    st.sampled_from(list(Unit)),
    st.lists(st.floats(0, 400_000), min_size=1, max_size=4),
    st.none() | st.integers(1, 86_400),
    st.none() | st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.none() | st.integers(1, 3),
)


@settings(max_examples=100, deadline=None)
@given(_profiles)
def test_every_profile_we_write_fits_both_schemas_and_is_never_above_what_was_meant(profile: ChargingProfile) -> None:
    for version, codec in ((V16, v16), (V201, v201)):
        action, payload = codec.set_profile(profile)
        assert dialect(version).refusal(action, orjson.loads(orjson.dumps(payload))) is None
        body = payload.get("csChargingProfiles") or payload["chargingProfile"]
        schedule = body["chargingSchedule"] if version == V16 else body["chargingSchedule"][0]
        for period, told in zip(profile.schedule.periods, schedule["chargingSchedulePeriod"], strict=True):
            assert period.limit - 0.1 - 1e-6 <= told["limit"] <= period.limit + 1e-6
            assert round(told["limit"], 1) == told["limit"]


def test_verdicts_say_what_the_standard_says() -> None:
    said = Verdict("expired", "G", NOW)
    assert v16.verdict(said) == {"status": "Expired", "parentIdTag": "G", "expiryDate": "2026-11-24T12:00:00.000Z"}
    assert v201.verdict(said)["groupIdToken"] == {"idToken": "G", "type": "Central"}
    assert v16.verdict(Verdict("who knows"))["status"] == "Invalid"


@pytest.mark.parametrize(
    ("told", "flag"),
    [
        ("2026-11-24T11:00:00Z", ""),
        ("2026-11-24T13:00:00+02:00", ""),
        ("2026-11-24T11:00:00", "no_zone"),
        (1_795_000_000, ""),
        (1_795_000_000_000, ""),
        ("1970-01-01T00:00:00Z", "clock_not_set"),
        ("2026-11-24T12:10:00Z", "clock_ahead"),
        ("soon", "bad_time"),
        (True, "bad_time"),
        (1e300, "bad_time"),
        ("9999-12-31T23:59:59-12:00", "clock_ahead"),
        (None, "no_time"),
    ],
)
def test_times_are_read_as_they_come(told: object, flag: str) -> None:
    got = moment(told, datetime(2026, 11, 24, 12, tzinfo=UTC))
    assert got.flag == flag or (flag == "" and got.flag == "clock_ahead" and isinstance(told, int))
    assert got.at.tzinfo is not None


@pytest.mark.parametrize("told", ["clock_ahead", "2026-11-24T11:00:00Z"])
def test_a_time_in_the_past_is_believed(told: str) -> None:
    assert moment(told, NOW).at <= NOW


# ---------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    "payload",
    [
        {"key": "AuthorizationKey", "value": "hush"},
        {"configurationKey": [{"key": "authorizationkey", "readonly": False, "value": "hush"}]},
        {"setVariableData": [{"attributeValue": "hush", "variable": {"name": "BasicAuthPassword"}, "component": {}}]},
        {"getVariableResult": [{"attributeValue": "hush", "variable": {"name": "BasicAuthPassword"}}]},
        {"reportData": [{"variable": {"name": "BasicAuthPassword"}, "variableAttribute": [{"value": "hush"}]}]},
        {"connectionData": {"apn": {"apnPassword": "hush"}, "vpn": {"password": "hush"}}},
        {"location": "ftp://user:hush@example.org/log"},
        {"vendorId": "x", "messageId": "SetPassword", "data": "hush"},
    ],
)
def test_no_secret_is_kept(payload: Any) -> None:
    assert may_hold_a_secret(orjson.dumps([2, "x", "Y", payload]))
    kept = orjson.dumps(blank(payload)).decode()
    assert "hush" not in kept and BLANK in kept


def test_what_is_no_secret_is_kept_whole() -> None:
    payload = {"key": "HeartbeatInterval", "value": "60", "url": "https://example.org/a@b"}
    assert blank(payload) == payload
    assert not may_hold_a_secret(orjson.dumps(payload))

"""Whatever the codecs can be asked to say fits the schemas, ours and those of the independent station.

Every function of a codec that makes a call is found here by its return type; a new one takes part by itself, and one
with a parameter of a new name asks for a line in `WORDS`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import typing
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import ModuleType, UnionType
from typing import Any

import pytest
from hypothesis import strategies as st

import csms.ocpp16
import csms.ocpp201
from csms.profiles import ChargingProfile, Purpose
from csms.reported import Monitor, Place
from csms.schemas import V16, V201, dialect
from csms.vocabulary import CertificateHash, ListEntry, ShownToken, Verdict
from tests.csms.payloads import examples
from tests.csms.test_profiles import some_profile
from tests.independent.client import needed, node

EXAMPLES = 12
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
NUMBER = st.integers(1, 2**31 - 1)
MOMENT = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
ADDRESS = st.sampled_from(["https://files.example/a", "ftp://user:secret@files.example/up/"])
HEX = st.text("0123456789abcdef", min_size=1, max_size=32)
PLACE = st.builds(Place, TEXT, TEXT, st.just("") | TEXT, st.integers(0, 3), st.integers(0, 2), st.just("") | TEXT)
TOKEN_TYPE = st.sampled_from(["Central", "eMAID", "ISO14443", "ISO15693", "KeyCode", "Local", "MacAddress"])

BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: NUMBER,
    bool: st.booleans(),
    float: st.floats(0, 1e6),
    str: TEXT,
    datetime: MOMENT,
    CertificateHash: st.builds(CertificateHash, st.sampled_from(["SHA256", "SHA384", "SHA512"]), HEX, HEX, HEX),
    ListEntry: st.builds(
        ListEntry,
        st.builds(ShownToken, TEXT, TOKEN_TYPE),
        st.builds(Verdict, st.sampled_from(["accepted", "blocked", "expired", "invalid"]), st.just("") | TEXT),
    ),
    Place: PLACE,
    Monitor: st.builds(
        Monitor,
        PLACE,
        st.sampled_from(["UpperThreshold", "LowerThreshold", "Delta", "Periodic", "PeriodicClockAligned"]),
        st.floats(0, 1000),
        st.integers(0, 9),
        st.none() | NUMBER,
        st.booleans(),
    ),
}

# Parameters whose words are not any: those of a list of the standard, or of this product.
WORDS: dict[str, Sequence[Any]] = {
    "base": ("ConfigurationInventory", "FullInventory", "SummaryInventory"),
    "checksum": ("0123456789abcdef0123456789abcdef",),
    "connector": (1, 2),
    "connector_type": ("cType2", "cCCS2"),
    "evse": (1, 2, 64),
    "interface": ("Wired0", "Wireless1"),
    "kind": ("diagnostics", "security"),
    "language": ("nl", "fr"),
    "location": ("https://files.example/a", "ftp://user:secret@files.example/up/"),
    "message": ("BootNotification", "Heartbeat", "MeterValues", "StatusNotification", "LogStatusNotification"),
    "password": ("0123456789abcdef0123",),
    "priority": ("AlwaysFront", "InFront", "NormalCycle"),
    "purpose": (str(Purpose.TX), str(Purpose.TX_DEFAULT), str(Purpose.STATION_MAX)),
    "security_profile": (1, 2, 3),
    "severity": range(10),
    "slot": (1, 2),
    "stack_level": range(9),
    "state": ("Charging", "Faulted", "Idle", "Unavailable"),
    "text_format": ("UTF8", "ASCII", "HTML", "URI"),
    "token_type": ("Central", "eMAID", "ISO14443", "ISO15693", "KeyCode", "Local", "MacAddress"),
    "unit": ("A", "W", ""),
    "url": ("wss://csms.example/ocpp",),
    "use": ("CSMSRootCertificate", "ManufacturerRootCertificate"),
}
OF_ONE: dict[str, st.SearchStrategy[Any]] = {
    "certificate_signed.use": st.sampled_from(["ChargingStationCertificate", "V2GCertificate"]),
    "clear_profiles.purpose": st.sampled_from(["ChargingStationMaxProfile", "TxDefaultProfile", "TxProfile"]),
    "get_profiles.purpose": st.sampled_from(["ChargingStationMaxProfile", "TxDefaultProfile", "TxProfile"]),
    "get_profiles.sources": st.lists(st.sampled_from(["EMS", "CSO"]), max_size=2, unique=True),
    "monitoring_report.criteria": st.lists(st.sampled_from(["ThresholdMonitoring", "DeltaMonitoring"]), unique=True),
    "report.criteria": st.lists(st.sampled_from(["Active", "Available", "Enabled", "Problem"]), unique=True),
    "remote_start.profile": st.none(),
    "set_profile.profile": some_profile().filter(lambda p: p.purpose is not Purpose.STATION_EXTERNAL),
    "set_base.base": st.sampled_from(["All", "FactoryDefault", "HardWiredOnly"]),
    "set_security_profile.profile": st.sampled_from([1, 2, 3]),
    "get_variables.names": st.none() | st.lists(TEXT, min_size=1, max_size=5),
    "customer_information.token": st.none() | st.tuples(TEXT, TOKEN_TYPE),
}
"""`function.parameter`, where its words are others than elsewhere."""


def speakers(version: str) -> list[tuple[str, Callable[..., Any]]]:
    """The functions of a dialect that make a call."""
    package: ModuleType = csms.ocpp16 if version == V16 else csms.ocpp201
    found = []
    for module in pkgutil.iter_modules(package.__path__):
        if module.name == "station":
            continue
        code = importlib.import_module(f"{package.__name__}.{module.name}")
        for name, verb in inspect.getmembers(code, inspect.isfunction):
            if name.startswith("_") or verb.__module__ != code.__name__:
                continue
            if "tuple[str, dict" in str(typing.get_type_hints(verb).get("return")):
                found.append((f"{module.name}.{name}", verb))
    return found


def arguments(verb: Callable[..., Any]) -> st.SearchStrategy[dict[str, Any]]:
    hints = {name: hint for name, hint in typing.get_type_hints(verb).items() if name != "return"}
    return st.fixed_dictionaries({name: _argument(verb.__name__, name, hint) for name, hint in hints.items()})


def _argument(verb: str, name: str, hint: Any) -> st.SearchStrategy[Any]:
    if f"{verb}.{name}" in OF_ONE:
        return OF_ONE[f"{verb}.{name}"]
    if name == "transaction_id":
        ids = st.integers(1, 2**31 - 1).map(str)
        return st.none() | ids if isinstance(hint, UnionType) else ids
    if isinstance(hint, UnionType):
        inner = next(h for h in typing.get_args(hint) if h is not type(None))
        return st.none() | _argument(verb, name, inner)
    if name in WORDS:
        return st.sampled_from(list(WORDS[name]))
    if typing.get_origin(hint) is not None and issubclass(typing.get_origin(hint), Sequence):
        return st.lists(_argument(verb, "", typing.get_args(hint)[0]), min_size=1, max_size=3)
    return BY_TYPE[hint]


SPEAKERS = [(version, name) for version in (V16, V201) for name, _ in speakers(version)]


def said(version: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    """What this function says to made-up arguments."""
    verb = dict(speakers(version))[name]
    found = []
    for given in examples(arguments(verb), EXAMPLES):
        profile = given.get("profile")
        if isinstance(profile, ChargingProfile) and profile.transaction_id is not None:
            continue
        calls = verb(**given)
        found += calls if isinstance(calls, list) else [calls]
    return found


@pytest.mark.parametrize(("version", "name"), SPEAKERS)
def test_whatever_a_codec_says_fits_its_schema(version: str, name: str) -> None:
    made = said(version, name)

    assert made
    for action, payload in made:
        assert dialect(version).refusal(action, payload) is None, (action, payload)


async def test_the_independent_station_finds_it_right_too() -> None:
    needed()
    payloads = [
        (version, f"{action}.req", json.loads(json.dumps(payload)))
        for version, name in SPEAKERS
        for action, payload in said(version, name)
    ]
    async with node() as playing:
        verdicts = await playing.judge(payloads)
    assert [(p, v) for p, v in zip(payloads, verdicts, strict=True) if v is not None] == []


def test_nearly_every_message_we_may_send_has_a_voice() -> None:
    for version, least in ((V16, 25), (V201, 38)):
        actions = {action for v, name in SPEAKERS if v == version for action, _ in said(v, name)}
        assert len(actions) >= least, sorted(actions)

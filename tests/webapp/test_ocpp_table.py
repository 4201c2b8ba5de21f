"""The table of OCPP messages is made from the code, and says what is true."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from csms.schemas import V16, V201, dialect
from webapp import ocpp_table
from webapp.management.commands import ocpp_table as command

pytestmark = pytest.mark.xdist_group("ocpp table")  # the code is read once for all of them


def test_the_page_is_up_to_date():
    assert command.PAGE.read_text() == ocpp_table.markdown(), "make it anew: manage.py ocpp_table"


@pytest.mark.parametrize("version", [V16, V201])
def test_every_message_of_the_standard_is_answered_or_can_be_asked(version):
    answered = {action for action, _ in ocpp_table.answered(version)}
    asked = dict(ocpp_table.asked(version))

    assert answered | set(asked) == set(dialect(version).requests)
    assert answered & set(asked) == {"DataTransfer"}  # the one that goes both ways
    assert [action for action, places in asked.items() if not places] == PLAIN[version]


PLAIN = {V16: [], V201: ["PublishFirmware", "UnpublishFirmware"]}
"""What no page asks for: a local controller publishes firmware, and who has one asks for it as it is written."""


@pytest.mark.parametrize(
    ("version", "action", "place"),
    [
        (V201, "RequestStartTransaction", "“Start a charge”"),
        (V16, "RemoteStartTransaction", "“Start a charge”"),
        (V201, "RequestStartTransaction", "driver's page"),
        (V201, "SetChargingProfile", "the gateway by itself"),
        (V201, "CostUpdated", "the gateway by itself"),
        (V16, "GetDiagnostics", "“Fetch a log”"),
        (V201, "SendLocalList", "the clock"),
    ],
)
def test_what_is_asked_is_followed_back_to_who_asks(version, action, place):
    assert place in dict(ocpp_table.asked(version))[action]


def test_the_other_dialect_is_no_way_to_a_message():
    assert not [p for p in dict(ocpp_table.asked(V16)).values() if "Show a message" in str(p)]


def test_a_page_that_is_out_of_date_is_told_and_made_anew(tmp_path, monkeypatch, capsys):
    page = tmp_path / "ocpp.md"
    monkeypatch.setattr(command, "PAGE", page)
    with pytest.raises(CommandError, match="out of date"):
        call_command("ocpp_table", "--check")

    call_command("ocpp_table")
    call_command("ocpp_table", "--check")

    assert page.read_text() == ocpp_table.markdown()
    assert "is made" in capsys.readouterr().out

"""Firmware rollouts: a few first, some at a time, only where nobody charges, and stopped by failures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from django.utils import timezone

from csms import firmware, rollouts
from csms.models import EVSE, ChargingStation
from csms.rollouts import RolloutError
from csms.vocabulary import Notice, Subject
from csms.workflow_models import FirmwareImage, FirmwareRollout, FirmwareUpdate
from meters import live
from meters.models import Site
from tests.csms.longer_work import Yard, yard

pytestmark = pytest.mark.django_db
Of = FirmwareUpdate.State


class Round:
    """Stations that are there, hear the question and say nothing yet; `names` in the order they were asked."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, made: FirmwareRollout, now: datetime | None = None) -> None:
        for identity in ChargingStation.objects.values_list("identity", flat=True):
            body = {"gateway": "g1", "epoch": 1, "protocol": "ocpp2.0.1", "since": timezone.now().isoformat()}
            live.connection().set(f"at:{identity}", json.dumps(body), ex=30)
        rollouts.advance(made.pk, now, self._ask)

    def _ask(self, updates: Sequence[FirmwareUpdate], now: datetime) -> None:
        for update in updates:
            self.names.append(update.station.identity)
            update.state, update.asked_at, update.heard_at = Of.ASKED, now, now
            update.attempts, update.request_id = update.attempts + 1, update.pk
            update.save()


@pytest.fixture
def turn() -> Round:
    return Round()


def rollout(world: Yard, **more: Any) -> FirmwareRollout:
    image = FirmwareImage.objects.create(site=world.site, vendor="simulated", fits_models="AC, DC", version="2.0")
    return FirmwareRollout.objects.create(image=image, site=world.site, **{"canaries": 1, "at_once": 2, **more})


def running(count: int = 4, **more: Any) -> FirmwareRollout:
    made = rollout(yard(count, firmware_version="1.0"), **more)
    rollouts.start(made)
    return made


def say(identity: str, status: str, *, at: datetime | None = None, named: bool = True) -> None:
    update = FirmwareUpdate.objects.get(station__identity=identity)
    number = update.request_id if named else None
    firmware.told(update.station_id, Notice(Subject.FIRMWARE, status, at or timezone.now(), number))


def boot(identity: str, version: str) -> None:
    station = ChargingStation.objects.get(identity=identity)
    ChargingStation.objects.filter(pk=station.pk).update(firmware_version=version)
    firmware.booted(station.pk, version, timezone.now())


def states() -> dict[str, str]:
    return dict(FirmwareUpdate.objects.order_by("station__identity").values_list("station__identity", "state"))


def state_of(made: FirmwareRollout) -> tuple[str, str]:
    made.refresh_from_db()
    return made.state, made.reason


def test_it_is_for_the_stations_of_the_maker_the_model_the_version_and_the_site():
    world = yard(5, firmware_version="1.0")
    stations = world.stations
    ChargingStation.objects.filter(pk=stations[0].pk).update(vendor="SIMULATED", model="ac")
    ChargingStation.objects.filter(pk=stations[1].pk).update(vendor="Other")
    ChargingStation.objects.filter(pk=stations[2].pk).update(model="HPC")
    ChargingStation.objects.filter(pk=stations[3].pk).update(firmware_version="0.9")
    ChargingStation.objects.filter(pk=stations[4].pk).update(site=Site.objects.create(name="Far"))
    made = rollout(world, from_versions="1.0, 1.1")

    assert [s.identity for s in rollouts.fitting(made)] == ["SIM-1"]
    made.from_versions = ""
    assert [s.identity for s in rollouts.fitting(made)] == ["SIM-1", "SIM-4"]
    made.stations.set([stations[3]])
    assert [s.identity for s in rollouts.fitting(made)] == ["SIM-4"]


def test_a_station_that_has_it_is_passed_over_and_nobody_left_is_said():
    world = yard(2, firmware_version="1.0")
    ChargingStation.objects.filter(identity="SIM-1").update(firmware_version="2.0")
    made = rollout(world)
    assert rollouts.start(made) == 1
    assert states() == {"SIM-1": "skipped", "SIM-2": "waiting"}
    with pytest.raises(RolloutError, match="started before"):
        rollouts.start(made)

    other = FirmwareRollout.objects.create(image=made.image, site=world.site, from_versions="0.1")
    with pytest.raises(RolloutError, match="No station fits"):
        rollouts.start(other)


def test_a_few_go_first_then_so_many_at_once(turn: Round):
    made = running(5)
    turn(made)
    assert turn.names == ["SIM-1"]
    turn(made)
    assert turn.names == ["SIM-1"]

    boot("SIM-1", "2.0")
    turn(made)
    assert turn.names == ["SIM-1", "SIM-2", "SIM-3"]
    turn(made)
    assert len(turn.names) == 3
    boot("SIM-2", "2.0")
    turn(made)
    assert turn.names == ["SIM-1", "SIM-2", "SIM-3", "SIM-4"]
    for name in ("SIM-3", "SIM-4"):
        boot(name, "2.0")
    turn(made)
    boot("SIM-5", "2.0")
    turn(made)
    assert state_of(made) == ("done", "")
    assert set(states().values()) == {"done"}


def test_nobody_is_asked_while_somebody_charges(turn: Round):
    made = running(1)
    first = EVSE.objects.get(station__identity="SIM-1")
    charge = first.station.transactions.create(transaction_id="1", evse=first, started_at=timezone.now())
    turn(made)
    assert turn.names == []
    charge.ended_at = timezone.now()
    charge.save()
    EVSE.objects.filter(pk=first.pk).update(status="Charging")
    turn(made)
    assert turn.names == []
    EVSE.objects.filter(pk=first.pk).update(status="Finishing")
    turn(made)
    assert turn.names == ["SIM-1"]


def test_one_that_charges_all_day_holds_nobody_up(turn: Round):
    made = running(3)
    first = EVSE.objects.get(station__identity="SIM-1")
    first.station.transactions.create(transaction_id="1", evse=first, started_at=timezone.now())
    turn(made)
    assert turn.names == ["SIM-2"]
    turn(made)
    assert turn.names == ["SIM-2"]
    boot("SIM-2", "2.0")
    turn(made)
    assert turn.names == ["SIM-2", "SIM-3"]
    assert list(FirmwareUpdate.objects.filter(canary=True).values_list("station__identity", flat=True)) == ["SIM-2"]


def test_hours_are_the_stations_own(turn: Round):
    made = running(1, window_from=time(22), window_to=time(5))
    turn(made, datetime(2026, 7, 1, 12, 0, tzinfo=UTC))
    assert turn.names == []
    turn(made, datetime(2026, 7, 1, 20, 30, tzinfo=UTC))  # 22:30 in Brussels
    assert turn.names == ["SIM-1"]


@pytest.mark.parametrize(
    ("at", "begin", "end", "inside"),
    [
        ((23, 0), (22, 0), (5, 0), True),
        ((4, 59), (22, 0), (5, 0), True),
        ((5, 0), (22, 0), (5, 0), False),
        ((12, 0), (9, 0), (17, 0), True),
        ((17, 0), (9, 0), (17, 0), False),
        ((3, 0), (6, 0), (6, 0), True),
    ],
)
def test_hours_may_go_over_midnight(at: Any, begin: Any, end: Any, inside: bool):
    assert rollouts.within(time(*at), time(*begin), time(*end)) is inside


def test_a_first_one_that_fails_stops_it_and_a_person_lets_it_go_on(turn: Round):
    made = running(4, attempts=1)
    turn(made)
    say("SIM-1", "InstallationFailed")
    turn(made)
    assert state_of(made)[0] == "stopped"
    assert "first" in made.reason
    turn(made)
    assert turn.names == ["SIM-1"]

    rollouts.resume(made)
    turn(made)
    assert turn.names == ["SIM-1", "SIM-2", "SIM-3"]
    assert state_of(made) == ("running", "")


@pytest.mark.parametrize(
    ("done", "failed", "stops"),
    [(0, 0, False), (2, 1, False), (3, 1, False), (2, 2, True), (6, 2, False), (20, 3, True), (0, 1, False)],
)
def test_failures_stop_it_by_number_and_by_share(done: int, failed: int, stops: bool):
    made = FirmwareRollout(max_failures=3, max_failure_share=0.25)
    told = [(Of.DONE, False)] * done + [(Of.FAILED, False)] * failed + [(Of.WAITING, False)]

    assert bool(rollouts.why_stop(made, told)) is stops


def test_a_failed_attempt_is_made_again_after_a_pause(turn: Round):
    made = running(1, attempts=2)
    now = timezone.now()
    turn(made, now)
    say("SIM-1", "DownloadFailed", at=now)
    update = FirmwareUpdate.objects.get()
    assert (update.state, update.attempts) == ("waiting", 1)
    assert "DownloadFailed" in update.detail
    turn(made, now + timedelta(minutes=9))
    assert len(turn.names) == 1
    turn(made, now + timedelta(minutes=11))
    assert len(turn.names) == 2
    say("SIM-1", "DownloadFailed", at=now)
    assert states() == {"SIM-1": "failed"}


def test_a_bad_signature_is_not_tried_twice(turn: Round):
    made = running(1, attempts=5)
    turn(made)
    say("SIM-1", "InvalidSignature")
    assert states() == {"SIM-1": "failed"}


def test_the_stations_words_are_followed(turn: Round):
    made = running(1)
    turn(made)
    for word, state in (
        ("Idle", "asked"),
        ("DownloadScheduled", "downloading"),
        ("Downloading", "downloading"),
        ("Downloaded", "downloaded"),
        ("SignatureVerified", "downloaded"),
        ("Installing", "installing"),
        ("InstallRebooting", "rebooting"),
        ("Installed", "rebooting"),
    ):
        say("SIM-1", word)
        assert states() == {"SIM-1": state}, word
    boot("SIM-1", "2.0")
    assert states() == {"SIM-1": "done"}
    say("SIM-1", "InstallationFailed")  # the end is the end
    assert states() == {"SIM-1": "done"}


def test_words_of_another_request_do_not_count_and_plain_1_6_names_none(turn: Round):
    made = running(1)
    turn(made)
    station = ChargingStation.objects.get()
    firmware.told(station.pk, Notice(Subject.FIRMWARE, "InstallationFailed", timezone.now(), 99_999))
    assert states() == {"SIM-1": "asked"}
    say("SIM-1", "Downloading", named=False)
    assert states() == {"SIM-1": "downloading"}


def test_installed_without_a_boot_is_believed_after_a_while(turn: Round):
    made = running(1)
    now = timezone.now()
    turn(made, now)
    say("SIM-1", "Installed", at=now)
    turn(made, now + timedelta(minutes=5))
    assert states() == {"SIM-1": "rebooting"}
    turn(made, now + timedelta(minutes=11))
    assert states() == {"SIM-1": "done"}
    assert "1.0" in FirmwareUpdate.objects.get().detail


def test_installed_and_started_with_the_old_version_has_failed(turn: Round):
    made = running(1, attempts=1)
    turn(made)
    say("SIM-1", "Installed")
    boot("SIM-1", "1.0")
    assert states() == {"SIM-1": "failed"}


def test_a_silent_station_has_failed_after_its_patience_and_still_counts_when_it_comes_back_new(turn: Round):
    made = running(1, attempts=1, patience_minutes=30)
    now = timezone.now()
    turn(made, now)
    turn(made, now + timedelta(minutes=29))
    assert states() == {"SIM-1": "asked"}
    turn(made, now + timedelta(minutes=31))
    assert states() == {"SIM-1": "failed"}
    boot("SIM-1", "2.0")
    assert states() == {"SIM-1": "done"}


def test_pause_resume_retry_and_cancel(turn: Round):
    made = running(3, attempts=1, at_once=1)
    rollouts.pause(made)
    turn(made)
    assert turn.names == []
    with pytest.raises(RolloutError):
        rollouts.pause(made)
    rollouts.resume(made)
    turn(made)
    say("SIM-1", "DownloadFailed")
    turn(made)
    assert rollouts.retry_failed(made) == 1
    assert state_of(made)[0] == "running"
    turn(made)
    assert turn.names == ["SIM-1", "SIM-1"]

    rollouts.cancel(made)
    assert states() == {"SIM-1": "asked", "SIM-2": "cancelled", "SIM-3": "cancelled"}
    boot("SIM-1", "2.0")  # who was under way is still followed
    assert states()["SIM-1"] == "done"
    with pytest.raises(RolloutError):
        rollouts.cancel(made)


def test_a_station_is_in_one_running_rollout_at_a_time(turn: Round):
    made = running(2)
    other = FirmwareRollout.objects.create(image=made.image, site=made.site)
    with pytest.raises(RolloutError, match="No station fits"):
        rollouts.start(other)

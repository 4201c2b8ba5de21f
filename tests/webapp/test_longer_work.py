"""Firmware and logs from end to end: tasks, gateway, simulated stations and the web process, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.files.base import ContentFile
from django.db import connections
from django.utils import timezone

from csms import bus, logs, rollouts
from csms.models import ChargingStation, OcppMessage, StationVariable
from csms.station_files import FilesNotPossible
from csms.tasks import advance_rollouts
from csms.vocabulary import Notice, Subject
from csms.workflow_models import FirmwareImage, FirmwareRollout, FirmwareUpdate, LogRequest
from tests.csms.charge_point import V16, V201, basic, running, station, written
from tests.csms.longer_work import PASSWORD, Yard, living, until, yard
from tests.webapp.serving import served

pytestmark = pytest.mark.django_db(transaction=True)
BOTH = pytest.mark.parametrize("protocol", [V16, V201])
IMAGE = b"simulated firmware 2.0\n" + bytes(300_000)


@pytest.fixture(autouse=True)
async def give_connections_back() -> AsyncIterator[None]:
    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture(autouse=True)
def web(settings: Any) -> Iterator[str]:
    with served() as url:
        settings.STATION_FILES_URL = url
        yield url


@sync_to_async
def started(world: Yard, **more: Any) -> FirmwareRollout:
    image = FirmwareImage.objects.create(vendor="Simulated", version="2.0")
    image.file.save("ac-2.0.bin", ContentFile(IMAGE))
    image.signature, image.certificate = more.pop("signature", ""), more.pop("certificate", "")
    image.save()
    rollout = FirmwareRollout.objects.create(image=image, site=world.site, canaries=0, **more)
    rollouts.start(rollout)
    return rollout


def states() -> list[str]:
    return list(FirmwareUpdate.objects.order_by("station__identity").values_list("state", flat=True))


def known() -> bool:
    """Have all booted?"""
    return not ChargingStation.objects.exclude(firmware_version="1.0").exists()


@BOTH
async def test_stations_fetch_install_restart_and_are_done(protocol: str):
    world = await sync_to_async(yard)(2)
    async with running(meter_interval_s=1) as gateway, living(gateway, protocol, "SIM-1", "SIM-2") as sims:
        await until(known)
        rollout = await started(world)
        await sync_to_async(advance_rollouts)()
        await until(lambda: states() == ["done", "done"])
        assert [s.firmware for s in sims] == ["2.0", "2.0"]
        assert [s.chores.fetched for s in sims] == [len(IMAGE)] * 2
        await sync_to_async(advance_rollouts)()
        await sync_to_async(rollout.refresh_from_db)()
        assert rollout.state == "done"
        await written(gateway)
        frames = await sync_to_async(
            lambda: list(OcppMessage.objects.filter(action="UpdateFirmware", direction="out"))
        )()
        assert frames
        assert all("/station-files/firmware/••••••" in f.raw for f in frames)


async def test_a_signed_image_goes_out_as_signed_firmware_in_1_6():
    world = await sync_to_async(yard)()
    async with running(meter_interval_s=1) as gateway, living(gateway, V16) as [sim]:
        await until(known)
        await started(world, signature="c2ln", certificate="-----BEGIN CERTIFICATE-----")
        await sync_to_async(advance_rollouts)()
        await until(lambda: states() == ["done"])
        [told] = sim.calls("SignedUpdateFirmware")
        update = await FirmwareUpdate.objects.aget()
        assert (told["firmware"]["signature"], told["requestId"]) == ("c2ln", update.request_id)


async def test_a_station_that_knows_no_signed_firmware_gets_the_plain_message():
    world = await sync_to_async(yard)(firmware_version="1.0")
    async with running() as gateway, station(gateway, "SIM-1", headers=basic("SIM-1", PASSWORD)) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["SignedUpdateFirmware"] = ["NotImplemented", "", {}]
        bare.answers["UpdateFirmware"] = {}
        await started(world, signature="c2ln", certificate="pem")
        await sync_to_async(advance_rollouts)()
        assert [a for a, _ in bare.asked if "Firmware" in a] == ["SignedUpdateFirmware", "UpdateFirmware"]
        assert await sync_to_async(states)() == ["asked"]
        await bare.ask("FirmwareStatusNotification", {"status": "Downloading"})
        await until(lambda: states() == ["downloading"])


@BOTH
async def test_words_that_were_lost_do_not_matter_when_it_starts_with_the_new_version(protocol: str):
    world = await sync_to_async(yard)()
    async with running(meter_interval_s=1) as gateway, living(gateway, protocol) as [sim]:
        sim.chores.silent = True
        await until(known)
        await started(world)
        await sync_to_async(advance_rollouts)()
        await until(lambda: states() == ["done"])


@BOTH
async def test_failures_stop_the_rollout(protocol: str):
    world = await sync_to_async(yard)(2)
    async with running(meter_interval_s=1) as gateway, living(gateway, protocol, "SIM-1", "SIM-2") as sims:
        for sim in sims:
            sim.chores.fails_with = "InstallationFailed"
        await until(known)
        rollout = await started(world, attempts=1, max_failures=2)
        await sync_to_async(advance_rollouts)()
        await until(lambda: states() == ["failed", "failed"])
        await sync_to_async(advance_rollouts)()
        await sync_to_async(rollout.refresh_from_db)()
        assert rollout.state == "stopped"
        assert "2" in rollout.reason
        assert [s.firmware for s in sims] == ["1.0", "1.0"]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"status": "Rejected"}, "waiting"),
        ({"status": "InvalidCertificate"}, "failed"),
        (["NotSupported", "", {}], "failed"),
        (["GenericError", "", {}], "waiting"),
    ],
)
async def test_what_a_station_answers_against_it(answer: Any, state: str):
    world = await sync_to_async(yard)(firmware_version="1.0")
    async with running() as gateway, station(gateway, "SIM-1", version=V201, headers=basic("SIM-1", PASSWORD)) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["UpdateFirmware"] = answer
        await started(world)
        await sync_to_async(advance_rollouts)()
    update = await FirmwareUpdate.objects.aget()
    assert update.state == state
    assert update.detail


async def test_a_station_that_moves_files_by_ftp_only_is_told_to_the_operator():
    world = await sync_to_async(yard)(firmware_version="1.0")
    said = {"variable": "SupportedFileTransferProtocols", "value": "FTP, FTPS", "reported_at": "2026-11-24T10:00:00Z"}
    await StationVariable.objects.acreate(station=world.station, **said)
    async with running() as gateway, station(gateway, "SIM-1", headers=basic("SIM-1", PASSWORD)) as bare:
        await bare.ask("Heartbeat", {})
        await started(world)
        await sync_to_async(advance_rollouts)()
        update = await FirmwareUpdate.objects.aget()
        assert update.state == "failed"
        assert "FTP" in update.detail
        with pytest.raises(FilesNotPossible, match="FTP"):
            await sync_to_async(logs.fetch)(world.station)
        assert not [a for a, _ in bare.asked if a in ("UpdateFirmware", "GetDiagnostics")]

        bare.answers["GetDiagnostics"] = {"fileName": "d.zip"}
        made = await sync_to_async(logs.fetch)(world.station, elsewhere="ftp://me:secret@logs.example/in")
        told = await bare.was_asked("GetDiagnostics")
        assert told["location"] == "ftp://me:secret@logs.example/in"
        assert "secret" not in made.elsewhere
        await bare.ask("DiagnosticsStatusNotification", {"status": "Uploaded"})
        await until(lambda: LogRequest.objects.get().state == "elsewhere")


# ---------------------------------------------------------------------- logs


@BOTH
@pytest.mark.parametrize("kind", ["diagnostics", "security"])
async def test_a_log_is_asked_for_and_brought(protocol: str, kind: str):
    world = await sync_to_async(yard)()
    async with running(meter_interval_s=1) as gateway, living(gateway, protocol):
        await until(known)
        made = await sync_to_async(logs.fetch)(world.station, kind)
        row = await until(lambda: LogRequest.objects.filter(state="uploaded", status="Uploaded").first())
        assert row.pk == made.pk
        path = logs.path_of(row)
        assert path.read_bytes().startswith(b"log of SIM-1, firmware 1.0")
        assert row.file_name.startswith("SIM-1-")
        assert (row.size, row.detail) == (path.stat().st_size, "")


async def test_what_the_station_says_of_its_log():
    world = await sync_to_async(yard)()
    async with running() as gateway, station(gateway, "SIM-1", version=V201, headers=basic("SIM-1", PASSWORD)) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["GetLog"] = {"status": "Accepted", "filename": "../x.log"}
        made = await sync_to_async(logs.fetch)(world.station)
        assert made.file_name == "x.log"
        for status, state in (("Uploading", "uploading"), ("Uploaded", "uploading"), ("UploadFailure", "failed")):
            await bare.ask("LogStatusNotification", {"status": status, "requestId": made.request_id})
            await until(
                lambda state=state, status=status: LogRequest.objects.filter(state=state, status=status).exists()
            )

        bare.answers["GetLog"] = {"status": "Rejected"}
        assert (await sync_to_async(logs.fetch)(world.station)).state == "refused"
        bare.answers["GetLog"] = ["NotImplemented", "", {}]
        with pytest.raises(bus.CallRefused):
            await sync_to_async(logs.fetch)(world.station)
        assert await LogRequest.objects.acount() == 2


@pytest.mark.parametrize("status", ["Uploading", "Uploaded", "UploadFailure"])
def test_a_word_that_the_file_overtakes_does_not_undo_it(status: str, monkeypatch: pytest.MonkeyPatch):
    """The web process stores the file between the writer's look and its stroke."""
    world, now = yard(), timezone.now()
    made = LogRequest.objects.create(
        station=world.station, request_id=7, asked_at=now, upload_until=now + logs.UPLOAD_WITHIN
    )
    part = logs.folder() / "race.part"
    part.write_bytes(b"log of SIM-1")
    judge = logs._progress

    def slow(request: LogRequest, said: str) -> dict[str, object]:
        assert logs.arrived(made.pk, part, "0" * 64, "x.log", now)
        return judge(request, said)

    monkeypatch.setattr(logs, "_progress", slow)
    logs.told(world.station.pk, Notice(Subject.LOG, status, now, 7))
    made.refresh_from_db()
    assert (made.state, made.status, made.detail) == ("uploaded", status, "")


async def test_a_station_that_is_away_leaves_no_request_behind():
    world = await sync_to_async(yard)()
    with pytest.raises(bus.StationUnreachable):
        await sync_to_async(logs.fetch)(world.station)
    assert await LogRequest.objects.acount() == 0

"""Where stations fetch firmware and bring logs: over real sockets, with the manners and the malice of the field."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.files.base import ContentFile
from django.utils import timezone

from csms import firmware, logs, station_files
from csms.models import ChargingStation
from csms.redaction import blank, may_hold_a_secret
from csms.workflow_models import FirmwareImage, FirmwareRollout, FirmwareUpdate, LogRequest
from meters.models import Site
from tests.webapp.serving import served
from webapp.station_files import StationFiles

pytestmark = pytest.mark.django_db(transaction=True)
IMAGE = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def web(settings: Any) -> Iterator[str]:
    with served() as url:
        settings.STATION_FILES_URL = url
        yield url


@pytest.fixture(autouse=True)
def clean_folder() -> Iterator[None]:
    yield
    for path in logs.folder().iterdir():
        path.unlink()


def a_station() -> ChargingStation:
    return ChargingStation.objects.create(
        identity="CS 1/é", site=Site.objects.create(name="Yard"), admission="accepted"
    )


def wanted_log(**more: Any) -> tuple[LogRequest, str]:
    now = timezone.now()
    fields = {"asked_at": now, "upload_until": now + timedelta(hours=1), **more}
    row = LogRequest.objects.create(station=a_station(), **fields)
    return row, station_files.address(station_files.LOG, row.pk, row.upload_until)


def an_update(state: str = "asked") -> tuple[FirmwareUpdate, str]:
    station = a_station()
    image = FirmwareImage.objects.create(vendor="Acme", version="2.0")
    image.file.save("acme 2.0.bin", ContentFile(IMAGE))
    update = FirmwareUpdate.objects.create(
        rollout=FirmwareRollout.objects.create(image=image), station=station, state=state, heard_at=timezone.now()
    )
    return update, station_files.address(
        station_files.FIRMWARE, update.pk, timezone.now() + timedelta(hours=1), "acme 2.0.bin"
    )


def ask(method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any, bytes]:
    at = urlsplit(url)
    line = http.client.HTTPConnection(at.hostname or "", at.port or 0, timeout=20)
    try:
        line.request(method, at.path, body=body, headers=headers or {}, encode_chunked=not isinstance(body, bytes))
        answer = line.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        line.close()


def kept(row: LogRequest) -> bytes:
    row.refresh_from_db()
    path = logs.path_of(row)
    assert path is not None
    return path.read_bytes()


# ---------------------------------------------------------------------- logs, in


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_log_is_brought_raw(web: str, method: str):
    row, url = wanted_log()

    status, _, _ = ask(method, f"{url}/log%20of%20CS.zip", b"PK\x03\x04" * 50_000)

    assert status == 200
    assert kept(row) == b"PK\x03\x04" * 50_000
    assert (row.state, row.size, row.file_name) == ("uploaded", 200_000, "log_of_CS.zip")
    assert len(row.sha256) == 64
    assert oct(logs.path_of(row).stat().st_mode)[-3:] == "600"


def test_a_log_is_brought_in_chunks_without_a_length(web: str):
    row, url = wanted_log()

    status, _, _ = ask("PUT", url, iter([b"one ", b"two ", b"three"]), {"Transfer-Encoding": "chunked"})

    assert status == 200
    assert kept(row) == b"one two three"
    assert row.file_name == "e-diagnostics.log"


def multipart(*parts: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    lines = b""
    for disposition, content in parts:
        lines += b"--XX\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"
    return lines + b"--XX--\r\n", {"Content-Type": "multipart/form-data; boundary=XX"}


def test_a_log_is_brought_in_a_form(web: str):
    row, url = wanted_log()
    body, headers = multipart(
        ('name="comment"', b"from the field"),
        ('name="file"; filename="C:\\\\logs\\\\..\\\\diag <1>.tar.gz"', b"\x1f\x8b" * 100_000),
        ('name="second"; filename="other.txt"', b"passed over"),
    )

    status, _, _ = ask("POST", url, body, headers)

    assert status == 200
    assert kept(row) == b"\x1f\x8b" * 100_000
    assert row.file_name == "diag_1_.tar.gz"
    assert list(logs.folder().glob("*.part")) == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"nothing like it", {"Content-Type": "multipart/form-data; boundary=XX"}, 400),
        (multipart(('name="a"', b"x"))[0], {"Content-Type": "multipart/form-data; boundary=XX"}, 400),
        (b"x", {"Content-Type": "multipart/form-data"}, 400),
    ],
)
def test_a_form_without_a_file_is_refused_and_may_be_sent_again(web: str, body: bytes, headers: Any, status: int):
    row, url = wanted_log()

    assert ask("POST", url, body, headers)[0] == status
    assert list(logs.folder().iterdir()) == []
    assert ask("POST", url, b"well then")[0] == 200
    assert kept(row) == b"well then"


def test_an_address_takes_one_file_once(web: str):
    row, url = wanted_log()

    assert ask("PUT", url, b"first")[0] == 200
    assert ask("PUT", url, b"second")[0] == 404
    assert kept(row) == b"first"


@pytest.mark.parametrize("declared", [True, False])
def test_a_log_that_is_too_large_is_refused_and_leaves_nothing(web: str, settings: Any, declared: bool):
    settings.LOG_UPLOAD_MAX_MB = 1
    row, url = wanted_log()
    block = b"x" * 100_000

    try:
        if declared:
            status = ask("PUT", url, block * 11)[0]
        else:
            status = ask("PUT", url, iter([block] * 11), {"Transfer-Encoding": "chunked"})[0]
    except OSError:  # it hung up on us in the middle, as announced
        status = 413

    assert status == 413
    row.refresh_from_db()
    assert row.uploaded_at is None
    assert list(logs.folder().iterdir()) == []


def test_who_hangs_up_in_the_middle_leaves_nothing_and_may_come_back(web: str):
    row, url = wanted_log()
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port)) as line:
        line.sendall(f"PUT {at.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode() + b"x" * 300_000)

    assert ask("PUT", url, b"again")[0] == 200
    assert kept(row) == b"again"
    for _ in range(200):
        if not list(logs.folder().glob("*.part")):
            break
        time.sleep(0.02)
    assert list(logs.folder().glob("*.part")) == []


def test_addresses_end_and_cannot_be_guessed_or_turned(web: str):
    row, url = wanted_log()
    late = station_files.address(station_files.LOG, row.pk, timezone.now() - timedelta(seconds=1))
    as_firmware = url.replace("/log/", "/firmware/")
    parts = url.rsplit(".", 1)
    head, _, token = url.rpartition("/")
    longer = f"{head}/{token.replace('.', '.f', 1)}"

    assert ask("PUT", late, b"x")[0] == 404
    assert ask("GET", as_firmware)[0] == 404
    assert ask("PUT", f"{parts[0]}.{'A' * 43}", b"x")[0] == 404
    assert ask("PUT", longer, b"x")[0] == 404
    assert ask("PUT", f"{web}/station-files/log/nonsense", b"x")[0] == 404
    assert ask("PUT", f"{web}/station-files/", b"x")[0] == 404
    assert ask("GET", url)[0] == 405  # what was brought is never given back here
    assert ask("DELETE", url)[0] == 405


def test_a_log_for_elsewhere_takes_nothing_here(web: str):
    _, url = wanted_log(elsewhere="ftp://logs.example/x")

    assert ask("PUT", url, b"x")[0] == 404


# ---------------------------------------------------------------------- firmware, out


def test_firmware_is_fetched_whole(web: str):
    update, url = an_update()

    status, headers, body = ask("GET", url)

    assert (status, body) == (200, IMAGE)
    assert headers["Content-Disposition"].startswith("attachment")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask("HEAD", url)[1]["Content-Length"] == str(len(IMAGE))
    for _ in range(100):
        update.refresh_from_db()
        if update.fetched_bytes:
            break
        time.sleep(0.02)
    assert update.fetched_bytes == len(IMAGE)


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-99", 0, 99), ("bytes=1048000-", 1_048_000, 1_048_575), ("bytes=-10", 1_048_566, 1_048_575)],
)
def test_a_broken_download_goes_on_where_it_stopped(web: str, asked: str, first: int, last: int):
    _, url = an_update()

    status, headers, body = ask("GET", url, headers={"Range": asked})

    assert status == 206
    assert headers["Content-Range"] == f"bytes {first}-{last}/{len(IMAGE)}"
    assert body == IMAGE[first : last + 1]


def test_odd_ranges(web: str):
    _, url = an_update()
    tag = ask("HEAD", url)[1]["ETag"]

    assert ask("GET", url, headers={"Range": f"bytes={len(IMAGE)}-"})[0] == 416
    assert ask("GET", url, headers={"Range": "bytes=0-1,5-6"})[0] == 200
    assert ask("GET", url, headers={"Range": "lines=1"})[0] == 200
    assert ask("GET", url, headers={"Range": "bytes=0-1", "If-Range": '"another"'})[0] == 200
    assert ask("GET", url, headers={"Range": "bytes=0-1", "If-Range": tag})[0] == 206


@pytest.mark.parametrize("state", ["done", "failed", "waiting", "cancelled"])
def test_firmware_is_given_only_while_it_is_wanted(web: str, state: str):
    _, url = an_update(state)

    assert ask("GET", url)[0] == 404


# ---------------------------------------------------------------------- many at once


@contextmanager
def bare(**knobs: Any) -> Iterator[Any]:
    """The application alone, asked without a server."""
    app = StationFiles(**knobs)

    def say(method: str, path: str, address: str = "10.0.0.1") -> int:
        said: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {"type": "http", "method": method, "path": path, "headers": [], "client": (address, 1)}
        asyncio.run(app(scope, receive, send))
        return int(said[0]["status"])

    yield app, say


def test_who_guesses_is_slowed_down_and_nobody_else():
    with bare(wrong_a_minute=3) as (_, say):
        assert [say("GET", "/station-files/firmware/x/y") for _ in range(5)] == [404, 404, 404, 429, 429]
        assert say("GET", "/station-files/firmware/x/y", "10.0.0.2") == 404


def test_more_transfers_than_fit_are_asked_to_wait():
    with bare(max_transfers=0) as (_, say):
        assert say("GET", "/station-files/firmware/x/y") == 503


async def test_who_sends_nothing_is_let_go():
    app = StationFiles(idle_s=0.05)
    part = logs.folder() / "1-test.part"

    async def silence() -> dict[str, Any]:
        await asyncio.sleep(10)
        return {}

    with pytest.raises(Exception, match="Nothing came"):
        await app._write(part, 1000, silence)
    part.unlink()


# ---------------------------------------------------------------------- names and secrets


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("log.txt", "log.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a b.zip", "a_b.zip"),
        ("..", "other"),
        (".htaccess", "htaccess"),
        ("<script>.html", "script_.html"),
        ("naïve\x00.log", "naive.log"),
        ("x" * 300 + ".tar", "x" * 68 + ".tar"),
        ("", "other"),
    ],
)
def test_names_are_made_harmless(told: str, name: str):
    assert station_files.safe_name(told, "other") == name


def test_the_message_log_keeps_no_address_a_file_can_be_brought_to(settings: Any):
    url = station_files.address(station_files.LOG, 7, timezone.now() + timedelta(hours=1))
    frame = f'[2,"m","GetLog",{{"log":{{"remoteLocation":"{url}"}}}}]'.encode()

    assert may_hold_a_secret(frame)
    shown = blank({"log": {"remoteLocation": url}})["log"]["remoteLocation"]
    assert station_files.key_of("log", shown.rpartition("/")[2], timezone.now()) is None
    assert url.rpartition(".")[2] not in shown


def test_old_files_are_deleted_and_their_record_stays(settings: Any):
    settings.LOG_KEEP_DAYS = 90
    row, _ = wanted_log(file="old.log", uploaded_at=timezone.now() - timedelta(days=91))
    (logs.folder() / "old.log").write_bytes(b"x")
    stale = logs.folder() / "1-x.part"
    stale.write_bytes(b"x")

    assert logs.tidy(timezone.now() + timedelta(hours=7)) == 1
    assert list(logs.folder().iterdir()) == []
    row.refresh_from_db()
    assert (row.state, row.file) == ("deleted", "")


def test_a_request_nobody_answers_has_failed_after_an_hour():
    row, _ = wanted_log(asked_at=timezone.now() - timedelta(minutes=61))
    ChargingStation.objects.update(protocol="ocpp1.6")

    assert logs.give_up() == 1
    row.refresh_from_db()
    assert row.state == "failed"
    assert "FTP" in row.detail
    assert logs.give_up() == 0


def test_firmware_addresses_of_one_update_do_not_open_another():
    update, _ = an_update()
    token = station_files.address(station_files.FIRMWARE, update.pk + 1, timezone.now() + timedelta(hours=1))

    assert firmware.wanted_file(token.rpartition("/")[2], timezone.now()) is None
    own = station_files.address(station_files.FIRMWARE, update.pk, timezone.now() + timedelta(hours=1))
    found = firmware.wanted_file(own.rpartition("/")[2], timezone.now())
    assert found is not None
    assert Path(found[1]).read_bytes() == IMAGE

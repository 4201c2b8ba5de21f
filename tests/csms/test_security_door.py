"""Who is let in, by which door: the ids of the security sheet that concern the handshake, over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from websockets.exceptions import InvalidMessage, InvalidStatus

from csms import admission, authority, bus, certificates, credentials, listeners, porch
from csms.admission import Patience, place_of
from csms.authority import Signed
from csms.models import ChargingStation
from csms.security_models import SecurityEvent, StationCertificate, StationSecurity
from csms.tls import context_of
from tests.csms.charge_point import basic, running, station
from tests.csms.doors import accepted, doors, kinds, now, over_tls, pki
from tests.csms.test_gateway import eventually

pytestmark = pytest.mark.django_db(transaction=True)

PASSWORD = "correct horse battery"
LOGIN = basic("CS-1", PASSWORD)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authority")


@pytest.fixture
def ca(settings: Any, folder: Path) -> Any:
    """One authority for all tests of this file: making keys takes its time."""
    if not hasattr(ca, "made"):
        ca.made = pki(settings, folder)  # type: ignore[attr-defined]
    settings.OCPP_CA_DIR = folder
    return ca.made  # type: ignore[attr-defined]


async def refused(attempt: Any, status: int = 401) -> Any:
    with pytest.raises(InvalidStatus) as caught:
        async with attempt:
            pass
    assert caught.value.response.status_code == status
    return caught.value.response


async def shut_out(attempt: Any) -> None:
    """TLS itself says no: at the handshake, or with the first byte after it (TLS 1.3)."""
    with pytest.raises((ssl.SSLError, ConnectionError, InvalidMessage, EOFError)):
        async with attempt as bare:
            await bare.ask("Heartbeat", {})


async def heartbeat(attempt: Any) -> None:
    async with attempt as bare:
        assert "currentTime" in await bare.ask("Heartbeat", {})


# ---------------------------------------------------------------------- A1: profiles


async def test_A1_without_credentials_nobody_comes_in_outside_the_laboratory() -> None:
    await accepted()
    async with doors("plain://127.0.0.1:0 lab://127.0.0.2:0") as gateway:
        await refused(station(gateway))
        async with running() as lab:
            await heartbeat(station(lab))
        await refused(station(gateway, headers=basic("CS-1", "anything")))
    assert "LowerSecurityProfile" in await sync_to_async(kinds)()


async def test_A1_a_lower_profile_is_let_in_only_where_allowed_and_only_until_its_date(settings: Any) -> None:
    settings.OCPP_LEAST_PROFILE = 2
    row = await accepted(password=PASSWORD)
    security = await StationSecurity.objects.acreate(station=row)
    async with doors("plain://127.0.0.1:0") as gateway:
        await refused(station(gateway, headers=LOGIN))

        await sync_to_async(credentials.set_least_profile)(
            row, None, "in a VPN until the modem is replaced", lower=1, lower_until=now() + timedelta(days=7)
        )
        await eventually(lambda: gateway.memory.stations["CS-1"].security.lower_profile == 1)
        await heartbeat(station(gateway, headers=LOGIN))

        await StationSecurity.objects.filter(pk=security.pk).aupdate(lower_until=now() - timedelta(seconds=1))
        await sync_to_async(bus.announce_change)("station", row.pk)
        await eventually(lambda: gateway.memory.stations["CS-1"].security.lower_until < now())
        await refused(station(gateway, headers=LOGIN))
    lowered = await SecurityEvent.objects.aget(kind="SecurityProfileLowered")
    assert "until the modem is replaced" in lowered.detail and lowered.source == "person"


async def test_A1_profile_0_may_be_allowed_to_one_station_for_a_while() -> None:
    row = await accepted()
    await accepted("CS-2")
    await sync_to_async(credentials.set_least_profile)(
        row, None, "old gear", lower=0, lower_until=now() + timedelta(days=1)
    )
    async with doors("plain://127.0.0.1:0") as gateway:
        await heartbeat(station(gateway))
        await refused(station(gateway, "CS-2"))


async def test_A1_a_station_that_must_use_tls_is_refused_without_and_let_in_with(ca: Any) -> None:
    row = await accepted(password=PASSWORD)
    await sync_to_async(credentials.set_least_profile)(row, 2)
    async with doors(["plain://127.0.0.1:0", "tls://127.0.0.1:0"][0], "tls://127.0.0.1:0") as gateway:
        await refused(station(gateway, headers=LOGIN))
        await heartbeat(over_tls(gateway, door=1, headers=LOGIN))
        await eventually(lambda: StationSecurity.objects.get().seen_profile == 2)


async def test_a_laboratory_that_a_proxy_forwards_to_is_none() -> None:
    await accepted()
    async with running() as gateway:
        await refused(station(gateway, headers={"X-Forwarded-For": "203.0.113.9"}))


# ---------------------------------------------------------------------- A2: one name


async def test_A2_the_certificate_must_be_the_stations_own(ca: Any) -> None:
    await accepted(password=PASSWORD)
    await accepted("CS-2", password=PASSWORD)
    _, mine = ca.certificate("CS-1")
    async with doors("mutual://127.0.0.1:0", "tls://127.0.0.1:0") as gateway:
        await heartbeat(over_tls(gateway, certificate=mine))
        await refused(over_tls(gateway, "CS-2", certificate=mine))
        await refused(over_tls(gateway, "CS-2", door=1, certificate=mine, headers=basic("CS-2", PASSWORD)))
        await heartbeat(over_tls(gateway, door=1, certificate=mine))
    event = await SecurityEvent.objects.filter(kind="CertificateOfAnother").afirst()
    assert event is not None and (event.identity, event.criticality) == ("CS-2", "critical")
    await eventually(lambda: StationSecurity.objects.get(station__identity="CS-1").seen_profile == 3)


async def test_A2_the_user_must_be_the_identity_of_the_path() -> None:
    await accepted(password=PASSWORD)
    await accepted("CS-2", password=PASSWORD)
    async with doors("plain://127.0.0.1:0") as gateway:
        await refused(station(gateway, "CS-2", headers=LOGIN))
        await refused(station(gateway, headers=basic("CS-2", PASSWORD)))
        await heartbeat(station(gateway, headers=LOGIN))


async def test_R19_expired_foreign_and_missing_certificates_are_shut_out_and_the_right_one_is_not(ca: Any) -> None:
    await accepted()
    _, good = ca.certificate("CS-1")
    async with doors("mutual://127.0.0.1:0") as gateway:
        await shut_out(over_tls(gateway, certificate=ca.expired("CS-1")))
        await shut_out(over_tls(gateway, certificate=ca.self_signed("CS-1")))
        await shut_out(over_tls(gateway))
        await heartbeat(over_tls(gateway, certificate=good))
        await eventually(lambda: SecurityEvent.objects.filter(kind="CertificateRefused").exists())


async def test_a_revoked_certificate_is_shown_out_and_not_let_in_again(ca: Any) -> None:
    row = await accepted()
    signed, path = ca.certificate("CS-1")
    kept = await sync_to_async(keep)(row, signed)
    async with doors("mutual://127.0.0.1:0", "tls://127.0.0.1:0") as gateway:
        async with over_tls(gateway, certificate=path) as bare:
            await bare.ask("Heartbeat", {})
            await sync_to_async(certificates.revoke)(kept, "stolen", now())
            assert await bare.closed() == 1008
        await refused(over_tls(gateway, certificate=path))
        await eventually(lambda: "CertificateRevoked" in kinds())
        # The list reaches the handshake too: without us asking anybody.
        gateway.door.certificates_changed()
        await shut_out(over_tls(gateway, certificate=path))
        _, renewed = ca.certificate("CS-1")
        await heartbeat(over_tls(gateway, certificate=renewed))
    again = await StationCertificate.objects.aget(pk=kept.pk)
    assert again.revoked and again.reason == "stolen"


async def test_a_revoked_certificate_is_not_forgotten_with_its_station(ca: Any) -> None:
    row = await accepted()
    signed, path = ca.certificate("CS-1")
    kept = await sync_to_async(keep)(row, signed)
    await sync_to_async(certificates.revoke)(kept, "stolen", now())
    await row.adelete()
    await accepted()
    async with doors("tls://127.0.0.1:0?ca=" + str(authority.folder() / "ca.pem") + "&cert=" + pem("ecdsa")) as gateway:
        await refused(over_tls(gateway, certificate=path))


def pem(kind: str) -> str:
    here = authority.folder()
    return f"{here / f'server-{kind}.pem'}&key={here / f'server-{kind}.key'}"


def keep(row: ChargingStation, signed: Signed) -> StationCertificate:
    certificates.keep_signed(row.pk, row.identity, signed, now())
    return StationCertificate.objects.get(fingerprint=signed.fingerprint)


# ---------------------------------------------------------------------- A3: patience


async def test_A3_a_hundred_wrong_tries_lock_nobody_out_and_fill_nothing(monkeypatch: Any) -> None:
    monkeypatch.setattr(admission, "LONGEST_WAIT_S", 0.2)
    await accepted(password=PASSWORD)
    async with doors("plain://127.0.0.1:0") as gateway:
        keeper = gateway.door.doorkeeper

        async def guess(n: int) -> None:
            await refused(station(gateway, headers=basic("CS-1", f"wrong {n}")))

        for first in range(0, 100, 20):
            await asyncio.gather(*(guess(first + n) for n in range(20)))
        assert keeper.wait_s("CS-1", "127.0.0.1") > 0
        await heartbeat(station(gateway, headers=LOGIN))
        assert keeper.wait_s("CS-1", "127.0.0.1") == 0
    rows = SecurityEvent.objects.filter(kind="LoginFailed")
    assert await rows.acount() <= 2  # the first, and the count of the others
    assert sum([row.count async for row in rows]) == 100
    assert all([row.received_at <= now() async for row in rows])


async def test_A3_a_proven_station_does_not_wait_for_the_guesses_of_others(monkeypatch: Any) -> None:
    await accepted(password=PASSWORD)
    async with doors("plain://127.0.0.1:0") as gateway:
        await heartbeat(station(gateway, headers=LOGIN))
        keeper = gateway.door.doorkeeper
        for _ in range(20):
            keeper._identities.failed("CS-1", asyncio.get_running_loop().time())
        assert keeper.wait_s("CS-1", "203.0.113.7") == admission.LONGEST_WAIT_S
        assert keeper.wait_s("CS-1", "127.0.0.1") == 0
        monkeypatch.setattr(keeper, "wait_s", None)  # whoever waits, fails
        await heartbeat(station(gateway, headers=LOGIN))


async def test_A3_unknown_and_wrong_get_the_same_answer_after_the_same_work(settings: Any) -> None:
    settings.OCPP_ALLOW_UNKNOWN = False
    await accepted(password=PASSWORD)
    row = await accepted("CS-3", password=PASSWORD)
    await sync_to_async(credentials._begin)(row, "next one", now(), now() + timedelta(days=1))
    await accepted("CS-4")
    hashed: list[str] = []
    seen = []
    async with doors("plain://127.0.0.1:0") as gateway:
        for identity in ("CS-1", "CS-2", "CS-3", "CS-4"):
            hashed.clear()
            with pytest.MonkeyPatch.context() as patch:
                for name in ("check_password", "make_password"):
                    patch.setattr(admission, name, lambda *a, n=name: hashed.append(n) or None)
                response = await refused(station(gateway, identity, headers=basic(identity, "wrong one here")))
            seen.append((response.status_code, response.body, response.headers["WWW-Authenticate"], len(hashed)))
    assert seen[0] == seen[1] == seen[2] == seen[3]


def test_A3_what_is_remembered_of_failures_is_bounded_and_forgiven() -> None:
    patience = Patience(most=10)
    for n in range(1000):
        patience.failed(f"10.0.0.{n}", now=0.0)
    assert len(patience) == 10
    for _ in range(60):
        patience.failed("known", now=1.0)
    assert patience.wait_s("known", now=2.0) == admission.LONGEST_WAIT_S
    assert patience.wait_s("known", now=2.0 + admission.FORGIVEN_AFTER_S) == 0


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
    ],
)
def test_an_ipv6_host_is_one_however_many_addresses_it_has(address: str, place: str) -> None:
    assert place_of(address) == place


# ---------------------------------------------------------------------- A4: the newest, after it proved itself


async def test_A4_a_second_socket_takes_over_only_after_it_is_authenticated() -> None:
    await accepted(password=PASSWORD)
    async with doors("plain://127.0.0.1:0") as gateway, station(gateway, headers=LOGIN) as old:
        await old.ask("Heartbeat", {})
        for headers in (None, basic("CS-1", "wrong"), basic("CS-2", PASSWORD)):
            await refused(station(gateway, headers=headers))
        await old.ask("Heartbeat", {})
        async with station(gateway, headers=LOGIN) as new:
            assert await old.closed() == 1008
            await new.ask("Heartbeat", {})


# ---------------------------------------------------------------------- H3: proxies


async def test_H3_headers_are_believed_from_the_named_proxy_alone() -> None:
    row = await accepted(password=PASSWORD)
    told = {"X-Forwarded-For": "198.51.100.4, 203.0.113.9", **LOGIN}
    async with doors("proxy://127.0.0.1:0?from=127.0.0.0/8", "proxy://127.0.0.1:0?from=192.0.2.1") as gateway:
        async with station(gateway, headers=told) as bare:
            await bare.ask("Heartbeat", {})
            await eventually(lambda: ChargingStation.objects.get(pk=row.pk).address == "203.0.113.9")
            await eventually(lambda: StationSecurity.objects.get().seen_profile == 2)
        with pytest.raises(InvalidStatus, match="401"):
            async with over_plain(gateway, 1, told):
                pass
        await eventually(lambda: "HeaderSpoofed" in kinds())
    async with doors("plain://127.0.0.1:0") as gateway, station(gateway, headers=told) as bare:
        await bare.ask("Heartbeat", {})
        await eventually(lambda: ChargingStation.objects.get(pk=row.pk).address == "127.0.0.1")


async def test_H3_a_certificate_header_counts_only_behind_the_proxy(ca: Any) -> None:
    await accepted(password=PASSWORD)
    await accepted("CS-2", password=PASSWORD)
    name = {"X-Client-Certificate-Subject": "CN=CS-1,O=Test CPO"}
    signed, _ = ca.certificate("CS-1")
    whole = {"X-Client-Certificate-Subject": signed.pem.replace("\n", "%0A").replace(" ", "%20")}
    async with doors("proxy://127.0.0.1:0?from=127.0.0.1", "plain://127.0.0.1:0") as gateway:
        await heartbeat(station(gateway, headers=name))
        await heartbeat(station(gateway, headers=whole))
        await refused(station(gateway, "CS-2", headers=name))
        await refused(station(gateway, headers={"X-Client-Certificate-Subject": "CN=CS-2,O=x,CN=CS-1"}))
        with pytest.raises(InvalidStatus, match="401"):
            async with over_plain(gateway, 1, name):
                pass
        async with over_plain(gateway, 1, {**name, **LOGIN}) as bare:
            await bare.ask("Heartbeat", {})
    await eventually(lambda: StationSecurity.objects.get(station__identity="CS-1").seen_profile == 1)


async def test_H3_a_revoked_certificate_is_known_behind_a_proxy_that_passes_it_whole(ca: Any) -> None:
    row = await accepted()
    signed, _ = ca.certificate("CS-1")
    await sync_to_async(certificates.revoke)(await sync_to_async(keep)(row, signed), "lost", now())
    headers = {"X-Client-Certificate-Subject": signed.pem.replace("\n", " ")}
    async with doors("proxy://127.0.0.1:0?from=127.0.0.1") as gateway:
        await refused(station(gateway, headers=headers))


def over_plain(gateway: Any, door: int, headers: dict[str, str]) -> Any:
    class At:
        port = gateway.ports[door]

    return station(At(), headers=headers)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- TLS itself


async def test_both_kinds_of_server_certificate_and_only_good_suites_are_offered(ca: Any) -> None:
    await accepted(password=PASSWORD)
    async with doors("tls://127.0.0.1:0", "tls://127.0.0.1:0?old_suites=yes") as gateway:
        for suite in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"):
            async with over_tls(gateway, headers=LOGIN, suites=suite) as bare:
                tls = bare.socket.transport.get_extra_info("ssl_object")
                assert tls.cipher()[0] == suite and tls.compression() is None
        await shut_out(over_tls(gateway, headers=LOGIN, suites="AES128-GCM-SHA256"))
        await heartbeat(over_tls(gateway, door=1, headers=LOGIN, suites="AES128-GCM-SHA256"))
        await heartbeat(over_tls(gateway, headers=LOGIN))
    context = context_of(listeners.read("tls://127.0.0.1:0", authority.files())[0])
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_a_new_certificate_is_taken_without_a_restart_and_a_bad_one_changes_nothing(ca: Any) -> None:
    await accepted(password=PASSWORD)

    def serial(bare: Any) -> str:
        return str(bare.socket.transport.get_extra_info("ssl_object").getpeercert()["serialNumber"])

    async with doors("tls://127.0.0.1:0") as gateway:
        async with over_tls(gateway, headers=LOGIN) as before:
            first = serial(before)
            authority.make_server(["localhost"], now())
            assert gateway.door._wardrobes[0].look()
            await before.ask("Heartbeat", {})
        async with over_tls(gateway, headers=LOGIN) as after:
            second = serial(after)
            assert second != first
            (authority.folder() / "server-ecdsa.pem").write_text("no certificate")
            assert not gateway.door._wardrobes[0].look()
        async with over_tls(gateway, headers=LOGIN) as still:
            assert serial(still) == second
    authority.make_server(["localhost", "127.0.0.1"], now())


async def test_tls_works_on_the_loop_that_production_runs_on(ca: Any) -> None:
    """The gateway's command prefers uvloop; its TLS is another implementation."""
    uvloop = pytest.importorskip("uvloop")
    await accepted(password=PASSWORD)
    _, mine = ca.certificate("CS-1")

    async def come_and_go() -> None:
        async with doors("tls://127.0.0.1:0", "mutual://127.0.0.1:0") as gateway:
            await heartbeat(over_tls(gateway, headers=LOGIN))
            await heartbeat(over_tls(gateway, door=1, certificate=mine))
            await shut_out(over_tls(gateway, door=1))
        await sync_to_async(connections.close_all)()

    await asyncio.to_thread(uvloop.run, come_and_go())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ftp://127.0.0.1:1", "begin with one of"),
        ("plain://127.0.0.1", "a port"),
        ("plain://127.0.0.1:99999", "ut of range"),
        ("plain://user@127.0.0.1:1", "only an address"),
        ("plain://127.0.0.1:1?cert=x", "no option cert"),
        ("proxy://127.0.0.1:1", "from="),
        ("proxy://127.0.0.1:1?from=everywhere", "everywhere"),
        ("tls://127.0.0.1:1", "make_certificates"),
        ("tls://127.0.0.1:1?cert=a&cert=b&key=a", "a key for each"),
        ("tls://127.0.0.1:1?cert=a&old_suites=maybe", "yes or no"),
        ("mutual://127.0.0.1:1?cert=a", "ca="),
        ("plain://127.0.0.1:1 lab://127.0.0.1:1", "twice"),
    ],
)
def test_a_listener_that_cannot_be_says_why(text: str, why: str) -> None:
    with pytest.raises(listeners.ListenerNotValid, match=why):
        listeners.read(text, listeners.Files())


def test_the_older_settings_still_mean_what_they_meant(settings: Any) -> None:
    from csms.door import configured

    assert configured("127.0.0.1", 9000)[0].kind == "lab"
    assert configured("0.0.0.0", 9000)[0].kind == "plain"
    settings.OCPP_TLS_CERT, settings.OCPP_TLS_CLIENT_CA = "a.pem", "ca.pem"
    found = configured("0.0.0.0", 9000)[0]
    assert (found.kind, found.client_ca) == ("tls", Path("ca.pem"))
    settings.OCPP_LISTENERS = "plain://10.0.0.1:9000, proxy://10.0.0.1:9001?from=10.0.0.7|fd00::/8"
    assert [str(one) for one in configured("0.0.0.0", 1)] == ["plain://10.0.0.1:9000", "proxy://10.0.0.1:9001"]


# ---------------------------------------------------------------------- A5, R20: before the request is there


async def test_A5_who_says_nothing_is_shown_out_and_the_next_station_comes_in(monkeypatch: Any, ca: Any) -> None:
    """Slow loris: headers byte by byte, and a TLS handshake that never begins."""
    monkeypatch.setattr(porch, "REQUEST_S", 0.4)
    await accepted(password=PASSWORD)
    async with doors("plain://127.0.0.1:0", "tls://127.0.0.1:0") as gateway:
        idle = [await asyncio.open_connection("127.0.0.1", port) for port in gateway.ports for _ in range(5)]
        _, pen = idle[0]
        for byte in b"GET /ocpp/CS-1 HT":
            pen.write(bytes([byte]))
            await asyncio.sleep(0.005)
        await heartbeat(station(gateway, headers=LOGIN))
        for reader, _ in idle:
            async with asyncio.timeout(10):
                with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                    await reader.readexactly(1)
        assert len(gateway.door.porch) == 0
        await heartbeat(over_tls(gateway, door=1, headers=LOGIN))
        for _, writer in idle:
            writer.close()


async def test_A5_of_a_crowd_from_one_address_the_one_that_dawdles_longest_makes_room(monkeypatch: Any) -> None:
    await accepted(password=PASSWORD)
    async with doors("plain://127.0.0.1:0") as gateway:
        gateway.door.porch._most_from_one, gateway.door.porch._dawdles_after_s = 3, 0.0
        idle = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(6)]
        await eventually(lambda: gateway.door.porch.turned_away == 3)
        await heartbeat(station(gateway, headers=LOGIN))
        assert gateway.door.porch.turned_away == 4
        for reader, _ in idle[:4]:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1), 10)
        for _, writer in idle:
            writer.close()


async def test_a_gateway_that_stops_leaves_nobody_on_its_porch() -> None:
    async with doors("plain://127.0.0.1:0") as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        await eventually(lambda: len(gateway.door.porch) == 1)
        await asyncio.wait_for(gateway.stop(), 10)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        gateway.stop = _nothing  # type: ignore[method-assign]


async def _nothing() -> None:
    """It has stopped already."""


async def test_a_header_without_end_is_refused() -> None:
    async with doors("plain://127.0.0.1:0") as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /ocpp/CS-1 HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(10):
                await reader.readexactly(10_000)
        writer.close()

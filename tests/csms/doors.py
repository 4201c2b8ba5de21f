"""A gateway with several doors for the tests of security: an authority, certificates good and bad, and TLS clients."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from asgiref.sync import sync_to_async
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import connect

from csms import authority, listeners
from csms.authority import Signed
from csms.gateway import Gateway
from csms.models import ChargingStation
from csms.security_models import SecurityEvent
from csms.session import Knobs
from meters.models import Site
from tests.csms.charge_point import V16, Bare


def now() -> datetime:
    return datetime.now(UTC)


class Pki:
    """An authority in a folder, with the gateway's own certificates, and keys for stations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority.make_authority("Test CPO", now())
        authority.make_server(["localhost", "127.0.0.1"], now())

    def request(self, common: str, key: Any = None, organisation: str = "") -> tuple[str, Any]:
        """A certificate signing request (PEM), and its key."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
        if organisation:
            names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
        made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode(), key

    def certificate(self, identity: str, *, at: datetime | None = None, days: int = 365) -> tuple[Signed, Path]:
        """A station's certificate, and a file of it with its key."""
        request, key = self.request(identity)
        signed = authority.sign_station(request, identity, "", (), "", at or now(), days)
        return signed, self.file(f"{identity}-{signed.serial[:8]}", signed.pem, key)

    def expired(self, identity: str) -> Path:
        """One that was good until a month ago, made by an authority that was there at the time."""
        key = ec.generate_private_key(ec.SECP256R1())
        root, root_key = authority._load()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity)])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(root.subject).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now() - timedelta(days=90)).not_valid_after(now() - timedelta(days=30))
        made = builder.sign(root_key, hashes.SHA256())
        pem = made.public_bytes(serialization.Encoding.PEM).decode()
        return self.file(f"{identity}-expired", pem, key)

    def self_signed(self, identity: str) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity)])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now() - timedelta(days=1)).not_valid_after(now() + timedelta(days=30))
        made = builder.sign(key, hashes.SHA256())
        return self.file(f"{identity}-self", made.public_bytes(serialization.Encoding.PEM).decode(), key)

    def file(self, name: str, pem: str, key: Any) -> Path:
        path = self.folder / f"{name}.pem"
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(pem.encode() + encoded)
        return path


def pki(settings: Any, folder: Path) -> Pki:
    settings.OCPP_CA_DIR = folder
    return Pki(folder)


@asynccontextmanager
async def doors(*text: str, **knobs: Any) -> AsyncIterator[Gateway]:
    """A real gateway with these listeners, each on a port of its own."""
    found: list[listeners.Listener] = []
    for one in text:
        found += listeners.read(one, authority.files())
    gateway = Gateway(knobs=Knobs(**{"call_timeout_s": 5.0, **knobs}), listeners=found)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


@asynccontextmanager
async def over_tls(
    gateway: Gateway,
    identity: str = "CS-1",
    *,
    door: int = 0,
    certificate: Path | None = None,
    headers: dict[str, str] | None = None,
    version: str = V16,
    suites: str = "",
) -> AsyncIterator[Bare]:
    """A station at a TLS door; it trusts the authority and shows its certificate, if it has one."""
    context = ssl.create_default_context(cafile=str(authority.folder() / "ca.pem"))
    if certificate is not None:
        context.load_cert_chain(certificate)
    if suites:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(suites)
    url = f"wss://localhost:{gateway.ports[door]}/ocpp/{quote(identity, safe='')}"
    async with connect(
        url,
        ssl=context,
        subprotocols=[version],  # type: ignore[list-item]
        additional_headers=headers,
        proxy=None,
        ping_interval=None,
    ) as socket:
        bare = Bare(socket)
        try:
            yield bare
        finally:
            bare.reader.cancel()


@sync_to_async
def accepted(identity: str = "CS-1", password: str = "", **more: Any) -> ChargingStation:
    site, _ = Site.objects.get_or_create(name=more.pop("site", "Campus"))
    row = ChargingStation(**{"identity": identity, "site": site, "admission": "accepted", "quiet": True, **more})
    row.set_password(password)
    row.save()
    return row


def kinds(which: Sequence[SecurityEvent] | None = None) -> set[str]:
    return {event.kind for event in (SecurityEvent.objects.all() if which is None else which)}

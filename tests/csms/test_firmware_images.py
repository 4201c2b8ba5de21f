"""Firmware images are what they say they are, or no station hears of them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from csms.firmware_images import digest_of, problems

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
IMAGE = b"simulated firmware 2.0\n" * 100
DIGEST = digest_of([IMAGE[:50], IMAGE[50:]])


def certificate(key: Any, begin: datetime = NOW - timedelta(days=1)) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "maker")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def signed(scheme: str, data: bytes = IMAGE) -> tuple[str, str]:
    if scheme == "ecdsa":
        return base64.b64encode(EC.sign(data, ec.ECDSA(hashes.SHA256()))).decode(), certificate(EC)
    pad: Any = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if scheme == "pss" else padding.PKCS1v15()
    return base64.b64encode(RSA.sign(data, pad, hashes.SHA256())).decode(), certificate(RSA)


def found(**said: Any) -> dict[str, str]:
    image = {"file": DIGEST, "url": "", "sha256": "", "signature": "", "certificate": "", "now": NOW}
    return problems(**{**image, **said})


def test_a_file_with_its_digest_is_good():
    assert found(sha256=DIGEST.hex.upper()) == {}
    assert DIGEST.size == len(IMAGE)


@pytest.mark.parametrize("scheme", ["ecdsa", "pss", "pkcs1"])
def test_a_signature_of_the_maker_is_good_in_each_scheme(scheme: str):
    signature, pem = signed(scheme)
    assert found(signature=signature, certificate=pem) == {}
    assert found(signature=signature, certificate=pem, file=digest_of([b"other"])).keys() == {"signature"}


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"file": None}, "file"),
        ({"url": "https://x/y"}, "file"),
        ({"file": digest_of([])}, "file"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"signature": "AAAA"}, "certificate"),
        ({"certificate": "x"}, "signature"),
        ({"signature": "not base64!", "certificate": "x"}, "signature"),
        ({"signature": "AAAA", "certificate": "x"}, "certificate"),
        ({"signature": "AAAA", "certificate": certificate(EC, NOW - timedelta(days=90))}, "certificate"),
        ({"signature": "AAAA", "certificate": certificate(EC)}, "signature"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(said: dict[str, Any], field: str):
    assert field in found(**said)


def test_an_address_alone_is_good_and_its_file_is_not_ours_to_check():
    signature, pem = signed("ecdsa")
    assert found(file=None, url="ftp://maker.example/2.0", sha256="0" * 64, signature=signature, certificate=pem) == {}

"""Where a gateway listens, and what each place asks of a station: `OCPP_LISTENERS`, read into facts.

    lab://127.0.0.1:9000                          no TLS; a station without a password is let in (laboratory)
    plain://10.8.0.1:9000                         no TLS, inside a VPN: security profile 1
    tls://0.0.0.0:9443?cert=a.pem&key=a.key       TLS: profile 2, and 3 for who shows a certificate
    mutual://0.0.0.0:9444?cert=…&key=…&ca=ca.pem  only with a client certificate: profile 3
    proxy://10.0.0.5:9001?from=10.0.0.0/24        behind a proxy that ends the TLS; only its headers are believed

Several are separated by spaces or commas. `cert` and `key` may be given twice, for an RSA and an ECDSA certificate
(2.0.1 A00.FR.318); without them, those of `manage.py make_certificates` are used.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Kind(StrEnum):
    LAB = "lab"
    PLAIN = "plain"
    TLS = "tls"
    MUTUAL = "mutual"
    PROXY = "proxy"


class ListenerNotValid(ValueError):
    """A listener that cannot be; the text says why."""


_OPTIONS: Mapping[Kind, frozenset[str]] = {
    Kind.LAB: frozenset(),
    Kind.PLAIN: frozenset(),
    Kind.TLS: frozenset({"cert", "key", "ca", "crl", "old_suites"}),
    Kind.MUTUAL: frozenset({"cert", "key", "ca", "crl", "old_suites"}),
    Kind.PROXY: frozenset({"from", "address_header", "certificate_header", "scheme_header"}),
}
_LIST = re.compile(r"[\s,]+(?=[a-z]+://)")


@dataclass(frozen=True)
class Listener:
    """One place to listen."""

    kind: Kind
    host: str
    port: int
    certificates: tuple[tuple[Path, Path], ...] = ()  # certificate chain and key, one pair of each key type
    client_ca: Path | None = None
    crl: Path | None = None
    old_suites: bool = False
    proxies: tuple[Network, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def speaks_tls(self) -> bool:
        return self.kind in (Kind.TLS, Kind.MUTUAL)

    def trusts(self, peer: str) -> bool:
        """May this peer tell us who the client is? Only a proxy that was named."""
        if self.kind is not Kind.PROXY:
            return False
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.proxies)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{host}:{self.port}"


@dataclass(frozen=True)
class Files:
    """The certificates this installation made for itself (`authority.py`), for listeners that name none."""

    certificates: tuple[tuple[Path, Path], ...] = ()
    client_ca: Path | None = None
    crl: Path | None = None


def read(text: str, own: Files) -> list[Listener]:
    """All listeners of a setting. Raises `ListenerNotValid`."""
    found = [_read_one(part.strip(" ,\t\n"), own) for part in _LIST.split(text.strip(" ,\t\n")) if part.strip(" ,")]
    places = [(listener.host, listener.port) for listener in found if listener.port]
    for place in places:
        if places.count(place) > 1:
            raise ListenerNotValid(f"{place[0]}:{place[1]} is named twice")
    return found


def _read_one(text: str, own: Files) -> Listener:
    try:
        address = urlsplit(text)
        port = address.port
    except ValueError as error:
        raise ListenerNotValid(f"{text}: {error}") from None
    try:
        kind = Kind(address.scheme.lower())
    except ValueError:
        raise ListenerNotValid(f"{text}: begin with one of {', '.join(k + '://' for k in Kind)}") from None
    if port is None or not address.hostname:
        raise ListenerNotValid(f"{text}: name an address and a port, such as {kind}://0.0.0.0:9000")
    if address.username is not None or address.path not in ("", "/"):
        raise ListenerNotValid(f"{text}: only an address, a port and options after a ?")
    options = parse_qs(address.query, keep_blank_values=True)
    unknown = sorted(set(options) - _OPTIONS[kind])
    if unknown:
        raise ListenerNotValid(f"{text}: {kind} has no option {', '.join(unknown)}")
    if kind is Kind.PROXY:
        return Listener(kind, address.hostname, port, proxies=_proxies(text, options), headers=_headers(options))
    if kind in (Kind.TLS, Kind.MUTUAL):
        return _with_tls(text, Listener(kind, address.hostname, port), options, own)
    return Listener(kind, address.hostname, port)


def _with_tls(text: str, bare: Listener, options: Mapping[str, list[str]], own: Files) -> Listener:
    certificates, keys = options.get("cert", []), options.get("key", [])
    if len(keys) not in (0, len(certificates)):
        raise ListenerNotValid(f"{text}: a key for each certificate, in the same order")
    pairs = tuple((Path(c), Path(k)) for c, k in zip(certificates, keys or certificates, strict=True))
    if not pairs and not own.certificates:
        raise ListenerNotValid(f"{text}: name cert= and key=, or run `manage.py make_certificates` first")
    ca = Path(options["ca"][0]) if "ca" in options else own.client_ca
    crl = Path(options["crl"][0]) if "crl" in options else None if "ca" in options else own.crl
    if bare.kind is Kind.MUTUAL and ca is None:
        raise ListenerNotValid(f"{text}: name ca=, whose certificates stations show")
    return Listener(
        bare.kind, bare.host, bare.port, pairs or own.certificates, ca, crl, _yes(text, options.get("old_suites"))
    )


def _yes(text: str, values: Sequence[str] | None) -> bool:
    if not values:
        return False
    word = values[-1].lower()
    if word not in ("yes", "no"):
        raise ListenerNotValid(f"{text}: old_suites is yes or no")
    return word == "yes"


def _proxies(text: str, options: Mapping[str, list[str]]) -> tuple[Network, ...]:
    named = [part for value in options.get("from", []) for part in value.split("|") if part]
    if not named:
        raise ListenerNotValid(f"{text}: name the proxy's address or network with from=")
    try:
        return tuple(ipaddress.ip_network(part, strict=False) for part in named)
    except ValueError as error:
        raise ListenerNotValid(f"{text}: {error}") from None


def _headers(options: Mapping[str, list[str]]) -> dict[str, str]:
    return {
        "address": options.get("address_header", ["X-Forwarded-For"])[-1],
        "certificate": options.get("certificate_header", ["X-Client-Certificate-Subject"])[-1],
        "scheme": options.get("scheme_header", ["X-Forwarded-Proto"])[-1],
    }


def is_loopback(host: str) -> bool:
    """Can nobody outside this machine reach it?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

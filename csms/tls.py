"""TLS as the OCPP security white paper asks it, from files that may change under a running gateway."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from csms.listeners import Kind, Listener

log = logging.getLogger(__name__)

SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
"""For TLS 1.2; those of TLS 1.3 are all good. An RSA certificate gets forward secrecy too, which the paper allows."""

OLD_SUITES = ("AES128-GCM-SHA256", "AES256-GCM-SHA384")
"""TLS_RSA_WITH_AES_*: in the paper for old gear, without forward secrecy. Only by `old_suites=yes`."""


def context_of(listener: Listener) -> ssl.SSLContext:
    """A context for this listener, from its files as they are now. Raises `ssl.SSLError` or `OSError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_SINGLE_ECDH_USE
    context.set_ciphers(":".join((*SUITES, *(OLD_SUITES if listener.old_suites else ()))))
    context.num_tickets = 0  # a resumed session would not look at the certificate again
    context.options |= ssl.OP_NO_TICKET
    for certificate, key in listener.certificates:
        context.load_cert_chain(certificate, key)
    if listener.client_ca is not None:
        context.load_verify_locations(listener.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if listener.kind is Kind.MUTUAL else ssl.CERT_OPTIONAL
        if listener.crl is not None and crl_is_valid_until(listener.crl) is not None:
            context.load_verify_locations(listener.crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def crl_is_valid_until(path: Path) -> datetime | None:
    """The end of a list of revoked certificates; None when it is absent or has ended.

    A list that has ended would refuse every station. What our own authority revoked is refused at the door besides.
    """
    try:
        crl = x509.load_pem_x509_crl(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.error("the list of revoked certificates %s cannot be read: %s", path.name, error)
        return None
    until = crl.next_update_utc
    if until is not None and until <= datetime.now(UTC):
        log.error("the list of revoked certificates %s ended at %s and is not used", path.name, until.isoformat())
        return None
    return until or datetime.max.replace(tzinfo=UTC)


class Wardrobe:
    """The present context of one listener; made anew when one of its files has changed.

    A bad new file is told and changes nothing: who is connected stays, who comes is served with the last good one.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._seen = self._stamps()
        self._until: datetime | None = None
        self.context = self._made()

    def look(self, *, anyway: bool = False) -> bool:
        """Take changed files (`anyway`: whatever the stamps say); True when the context is a new one."""
        stamps = self._stamps()
        ended = self._until is not None and datetime.now(UTC) >= self._until
        if stamps == self._seen and not anyway and not ended:
            return False
        self._seen = stamps
        try:
            self.context = self._made()
        except (ssl.SSLError, OSError) as error:
            log.error("%s: the new certificates cannot be used, the old ones stay: %s", self._listener, error)
            return False
        log.info("%s: certificates read again", self._listener)
        return True

    def _made(self) -> ssl.SSLContext:
        crl = self._listener.crl
        self._until = crl_is_valid_until(crl) if crl is not None else None
        return context_of(self._listener)

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        files: list[Path] = [path for pair in self._listener.certificates for path in pair]
        files += [path for path in (self._listener.client_ca, self._listener.crl) if path is not None]
        return tuple(_stamp(path) for path in files)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)

"""A call that carries a secret is sealed on its way through Redis, which may write what passes to a disk.

The key is made from `SECRET_KEY`, which all processes share. Any other call passes as it is.
"""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings

from csms.redaction import may_hold_a_secret

_MARK = "sealed:"


def seal(body: str) -> str:
    """The body, unreadable where it may hold a secret."""
    return _MARK + _box().encrypt(body.encode()).decode() if may_hold_a_secret(body.encode()) else body


def opened(body: str) -> str:
    """Raises `ValueError` for what was sealed with another key."""
    if not body.startswith(_MARK):
        return body
    try:
        return _box().decrypt(body.removeprefix(_MARK)).decode()
    except InvalidToken:
        raise ValueError("sealed with another SECRET_KEY") from None


def _box() -> Fernet:
    key = hashlib.sha256(b"calls of stations\0" + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))

"""What every test of a face starts with: English, quick passwords, and a rate limit nobody has used yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.cache import cache
from django.utils import translation

from tests.webapp import office as scenery
from tests.webapp.office import Office


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    """Whatever language the test before was read in."""
    with translation.override("en"):
        yield


@pytest.fixture(autouse=True)
def no_throttle_from_before() -> None:
    """The rate limits count in the cache; each test starts its own minute."""
    cache.clear()


@pytest.fixture(autouse=True)
def quick_passwords(settings) -> None:
    """A slow hash protects a real password; here it would only take the time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def office(db) -> Office:
    """Campus Noord with everything an office looks at, and the whole cast."""
    return scenery.office()

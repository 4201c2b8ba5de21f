"""What every test of a face starts with."""

from __future__ import annotations

import pytest
from django.core.cache import cache

from tests.webapp import office as scenery


@pytest.fixture(autouse=True)
def no_throttle_from_before():
    """The rate limits count in the cache; each test starts its own minute."""
    cache.clear()


@pytest.fixture(autouse=True)
def quick_passwords(settings):
    """A slow hash protects a real password; here it would only take the time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def office(db):
    return scenery.office()

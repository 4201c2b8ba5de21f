"""The house stands: the rooms import, the records match their migrations."""

import io

import pytest
from django.core.management import call_command


@pytest.mark.django_db
def test_migrations_match_the_models():
    call_command("makemigrations", check=True, dry_run=True, stdout=io.StringIO())


def test_valkey_is_real(valkey):
    from meters.live import connection

    assert connection().ping()
    assert "valkey_version" in connection().info("server")

"""Filters of lists: what is misspelt is told, not ignored."""

from __future__ import annotations

import pytest

from tests.webapp import campus as world

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("transactions/?sation=CS-001", "did you mean “station”"),
        ("stations/?colour=red", "There is no such filter; there are:"),
        ("sites/?page=2", "There is no such filter"),
    ],
)
def test_a_filter_nobody_knows_is_refused_by_name(client, path, said):
    client.force_login(world.campus().operator)
    response = client.get(f"/api/v1/{path}")
    name = path.split("?")[1].split("=")[0]
    assert response.status_code == 400
    assert said in response.json()[name][0]


def test_known_filters_and_pages_still_work(client):
    client.force_login(world.campus().operator)
    assert client.get("/api/v1/transactions/?station=CS-001&open=true&limit=5&offset=0").status_code == 200

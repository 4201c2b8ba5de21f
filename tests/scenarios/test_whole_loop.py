"""The whole loop, seen from outside: real processes, real sockets, a simulated site, one life of some minutes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.scenarios.installation import Installation, until
from tests.scenarios.world import POSTS, World

pytestmark = [
    pytest.mark.scenario,
    pytest.mark.django_db,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("scenario"),
]
FLEET, VISITOR = "04A1B2C3D4", "04FFFFFFFF"


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("i")) as running:
        yield running


@pytest.fixture(scope="module")
def world(installation: Installation, tmp_path_factory) -> Iterator[World]:
    world = World()
    file = tmp_path_factory.mktemp("site") / "site.toml"
    file.write_text(world.site_file())
    installation.manage("load_site", str(file))
    world.connect(installation.station_url())
    yield world
    world.stop()


@pytest.fixture(autouse=True)
def _say_what_happened(request, installation: Installation) -> Iterator[None]:
    yield
    # pytest shows it only when the test failed
    print(installation.last_words())
    now = installation.get(f"sites/{site_id(installation)}/now/") if installation.get("sites/")["count"] else None
    print(json.dumps(now, indent=1))


def site_id(installation: Installation) -> int:
    return int(installation.get("sites/")["results"][0]["id"])


def evse(installation: Installation, identity: str) -> dict:
    return installation.get(f"stations/{identity}/")["evses"][0]


def open_transactions(installation: Installation, identity: str) -> list[dict]:
    return installation.get(f"transactions/?station={identity}&open=true")["results"]


def charging(world: World, installation: Installation, identity: str) -> dict:
    """The car of this place charges, in whatever order the tests run; its transaction."""
    if world.stations[identity].outlets[1].car is None:
        world.charge(identity, FLEET if identity == "R1-A" else VISITOR, phases=1 if identity == "R2-A" else 3)
    until(lambda: sum(world.stations[identity].current_a(1)) > 5, 45, f"{identity} charges")
    return until(lambda: open_transactions(installation, identity), 5, f"{identity} has a transaction")[0]


def lowest_limit(world: World, identity: str, since: int) -> float | None:
    """The lowest limit in the profiles a station received after its first `since` ones."""
    station = world.stations[identity]
    found = []
    for payload in station.calls("SetChargingProfile")[since:]:
        profile = payload.get("csChargingProfiles") or payload.get("chargingProfile")
        schedules = profile["chargingSchedule"]
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            found.append(schedule["chargingSchedulePeriod"][0]["limit"])
    return min(found, default=None)


def test_every_station_is_connected_in_its_own_dialect(world, installation):
    stations = installation.get("stations/")["results"]

    assert {s["identity"]: (s["connected"], s["protocol"]) for s in stations} == {
        post.identity: (True, post.protocol) for post in POSTS
    }


def test_an_unknown_card_is_refused(world, installation):
    async def try_it() -> str:
        from csms.simulator import Car

        station = world.stations["R2-B"]
        station.plug(1, Car(battery_wh=50_000, soc=0.5))
        answer = await station.tap(1, "DEADBEEF00")
        station.unplug(1)
        return answer

    assert world.do(try_it()) != "Accepted"
    assert open_transactions(installation, "R2-B") == []


def test_a_tap_brings_the_goal_of_its_profile(world, installation):
    transaction = charging(world, installation, "R1-A")

    goal = until(
        lambda: [g for g in installation.get("goals/")["results"] if g["transaction"] == transaction["id"]],
        10,
        "the transaction has a goal",
    )[0]

    assert goal["energy_kwh"] == 25
    assert goal["priority"] == 3
    departure = datetime.fromisoformat(goal["departure"])
    assert timedelta(hours=5) < departure - datetime.now(UTC) <= timedelta(hours=6)
    assert evse(installation, "R1-A")["iec_state"] == "C2"


def test_no_circuit_is_ever_above_its_limit_while_cars_come_and_go(world, installation):
    world.building_a = (12.0, 18.0, 9.0)
    time.sleep(6)
    began = time.monotonic()

    charging(world, installation, "R1-A")
    charging(world, installation, "R1-B")
    charging(world, installation, "R2-A")
    charging(world, installation, "R2-B")
    charging(world, installation, "DC-1")
    time.sleep(10)
    world.leave("R2-B")
    time.sleep(5)

    assert world.above_limit(began, time.monotonic()) == []
    assert max(world.loads()["row 1"]) >= 12  # … and it is not safe for being idle


def test_an_over_limit_reading_lowers_the_profile_at_the_station_within_two_seconds(world, installation):
    if world.stations["R2-A"].outlets[1].car is not None:
        world.leave("R2-A")  # with a fourth car the minimum would not fit, and be borne for ten seconds
    for identity in ("R1-A", "R1-B", "DC-1"):
        charging(world, installation, identity)
    seconds = []
    # From the change itself: half a second of polling included. A noisy neighbour may spoil two of three.
    while len(seconds) < 3 and min(seconds, default=9.0) >= 2.0:
        world.building_a = (25.0, 25.0, 25.0)
        until(lambda: max(world.loads()["grid"]) > 50, 90, "the cars use what there is")
        time.sleep(2)
        before = {name: len(s.calls("SetChargingProfile")) for name, s in world.stations.items()}
        limits = {name: s.limit_a(1) for name, s in world.stations.items()}
        began = time.monotonic()
        world.building_a = (40.0, 40.0, 40.0)  # too much for the cars as they are, enough for their minimum

        def lowered(before=before, limits=limits):
            return any(
                (low := lowest_limit(world, name, before[name])) is not None
                and (low / 690 if name == "DC-1" else low) < limits[name] - 0.3
                for name in world.stations
            )

        until(lowered, 15, "a lowered profile at some station")
        seconds.append(time.monotonic() - began)
        time.sleep(6)
        settled = time.monotonic()
        time.sleep(4)
        assert world.above_limit(settled, time.monotonic()) == []
    world.building_a = (10.0, 10.0, 10.0)

    assert min(seconds) < 2.0, seconds


def test_a_changed_departure_brings_a_new_plan_within_five_seconds(world, installation):
    transaction = charging(world, installation, "R1-A")
    goal = until(
        lambda: [g for g in installation.get("goals/")["results"] if g["transaction"] == transaction["id"]],
        10,
        "a goal",
    )[0]
    before = installation.get(f"sites/{site_id(installation)}/plan/")
    departure = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
    began = time.monotonic()

    status, answer = installation.request("PATCH", f"goals/{goal['id']}/", {"departure": departure})

    assert status == 200, answer
    until(
        lambda: installation.get(f"sites/{site_id(installation)}/plan/")["made_at"] > before["made_at"],
        30,
        "a new plan",
    )
    assert time.monotonic() - began < 5.0


def test_the_energy_balance_of_the_site_closes(world, installation):
    world.pv_w = -6_000.0
    charging(world, installation, "R1-A")

    def closes():
        flows = installation.get(f"sites/{site_id(installation)}/now/")["flows"]
        if any(flows[name] is None for name in ("grid_w", "pv_w", "battery_w", "charging_w", "building_w")):
            return None
        true_grid_w = sum(world.site.grid_w())
        true_building_w = sum(world.building_a) * 230
        balance = flows["building_w"] + flows["charging_w"] + flows["battery_w"] + flows["pv_w"] - flows["grid_w"]
        near = abs(flows["grid_w"] - true_grid_w) < 1500 and abs(flows["building_w"] - true_building_w) < 1500
        return abs(balance) < 1 and abs(flows["pv_w"] + 6000) < 300 and near

    until(closes, 30, "measured flows add up to the grid's and agree with the world's")
    world.pv_w = 0.0


def test_a_gateway_killed_in_mid_session_loses_and_doubles_nothing(world, installation):
    transaction = charging(world, installation, "R1-B")
    count = installation.get("transactions/")["count"]
    energy = installation.get(f"transactions/{transaction['id']}/")["energy_wh"]

    os.kill(installation.pid_of("gateway"), signal.SIGKILL)
    until(lambda: not any(s.online for s in world.stations.values()), 20, "the stations notice")
    for station in world.stations.values():
        world.do(station.wait_online(90), 100)

    after = until(lambda: open_transactions(installation, "R1-B"), 20, "the transaction is still open")
    assert [t["id"] for t in after] == [transaction["id"]]
    assert installation.get("transactions/")["count"] == count
    until(
        lambda: installation.get(f"transactions/{transaction['id']}/")["energy_wh"] > energy, 40, "its energy goes on"
    )
    register = world.stations["R1-B"].outlets[1].energy_wh
    world.leave("R1-B")
    ended = until(
        lambda: (t := installation.get(f"transactions/{transaction['id']}/"))["ended_at"] and t, 15, "it ends"
    )
    assert ended["energy_wh"] <= register + 1
    kinds = [event["kind"] for event in ended["events"]]
    assert kinds.count("started") == 1
    assert kinds.count("ended") == 1


def test_remote_stop_and_raw_calls_reach_the_station(world, installation):
    transaction = charging(world, installation, "R2-A")
    answer = installation.post(
        "stations/R2-A/ocpp/", {"action": "GetConfiguration", "payload": {"key": ["HeartbeatInterval"]}}
    )
    assert answer["result"]["configurationKey"][0]["key"] == "HeartbeatInterval"

    status, refused = installation.request(
        "POST", "stations/R2-A/ocpp/", {"action": "Reset", "payload": {"type": "Odd"}}
    )
    assert status == 422, refused

    stopped = installation.post(
        "stations/R2-A/ocpp/",
        {"action": "RemoteStopTransaction", "payload": {"transactionId": int(transaction["transaction_id"])}},
    )
    assert stopped["result"]["status"] == "Accepted"
    until(lambda: not open_transactions(installation, "R2-A"), 15, "the transaction ended")

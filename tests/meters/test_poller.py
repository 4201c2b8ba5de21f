"""The poller: every device at its interval, fresh in Redis, and nothing outside ever ends the loop."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connections

from meters import live, poller, setpoints
from meters.measurement import Quality
from meters.models import Device, Reading, Site
from meters.poller import Poller
from meters.simulator import SimulatedBattery, SimulatedSite
from tests.meters.servers import RegisterServer
from tests.meters.test_maps import recorded

pytestmark = pytest.mark.django_db(transaction=True)
SDM = {address: word for (_, address), word in recorded("eastron_sdm630").items()}


@pytest.fixture
def campus(db):
    return Site.objects.create(name="Campus Noord")


def add(campus, name, connect, **more):
    values = {"kind": "meter", "map": "eastron_sdm630", "poll_s": 0.2, "max_age_s": 1, **more}
    return Device.objects.create(site=campus, name=name, connect=connect, **values)


@contextlib.asynccontextmanager
async def polling(**more):
    running, stop = Poller(refresh_s=0.1, **more), asyncio.Event()
    task = asyncio.create_task(running.run(stop))
    try:
        yield running
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)
        connections.close_all()  # those of this test's own task


async def until(what, within_s=10.0):
    """Wait until `what()` is true (and give it back)."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        found = what()
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, "it did not happen"
        await asyncio.sleep(0.03)


def newest(device):
    source = live.device_source(device.pk)
    return live.fetch([source]).get(source)


def refreshed(device):
    device.refresh_from_db()
    return device


async def test_every_device_of_a_site_is_fresh_in_redis_and_remembered(campus):
    site = SimulatedSite(
        building_w=(1000, 2000, 500), pv_w=-3000, battery=SimulatedBattery(), sub={"row 1": (10, 0, 0)}
    )
    await site.start()
    devices = [
        add(campus, "main", site.connect("main")),
        add(campus, "row 1", site.connect("row 1")),
        add(campus, "roof", site.connect("pv"), kind="pv", map="sunspec_inverter"),
        add(campus, "store", site.connect("battery"), kind="battery", map="sunspec_storage"),
    ]
    listener = live.connection().pubsub()
    listener.subscribe("fresh")

    async with polling():
        measured = [await until(lambda d=d: newest(d)) for d in devices]
        await until(lambda: refreshed(devices[0]).last_seen)
        await until(lambda: {r.device_id for r in Reading.objects.all()} == {d.pk for d in devices})

    assert [m.power_w for m in measured] == pytest.approx([500, 10, -3000, 0])
    assert measured[3].soc == pytest.approx(0.5)
    assert measured[0].is_fresh(datetime.now(UTC), 20)
    assert listener.get_message(timeout=1)["type"] == "subscribe"
    assert f'"site": {campus.pk}' in listener.get_message(timeout=1)["data"]
    listener.close()
    await site.stop()


async def test_a_device_that_goes_away_ages_says_why_and_is_found_again(campus):
    server = RegisterServer(SDM)
    await server.start()
    meter = add(campus, "main", f"tcp://127.0.0.1:{server.port}?timeout=0.2")

    async with polling():
        first = await until(lambda: newest(meter))
        await server.stop()
        await until(lambda: refreshed(meter).last_error)
        assert "main" in meter.last_error and str(server.port) in meter.last_error
        await until(lambda: not newest(meter).is_fresh(datetime.now(UTC), meter.max_age_s))

        await server.start()
        again = await until(lambda: newest(meter).at > first.at + timedelta(seconds=1) and newest(meter))
        await until(lambda: not refreshed(meter).last_error)

    assert again.power_w == pytest.approx(6130)
    await server.stop()


async def test_a_silent_device_does_not_hold_up_the_others(campus):
    async def hang(reader, writer):
        await asyncio.sleep(60)

    silent = await asyncio.start_server(hang, "127.0.0.1", 0)
    server = RegisterServer(SDM)
    await server.start()
    add(campus, "silent", f"tcp://127.0.0.1:{silent.sockets[0].getsockname()[1]}?timeout=0.3")
    good = add(campus, "main", f"tcp://127.0.0.1:{server.port}")

    async with polling() as running:
        await until(lambda: newest(good))
        reads = len(server.reads)
        await until(lambda: running.devices and any(t.error for t in running.devices.values()))
        await until(lambda: len(server.reads) > reads + 12)
        assert refreshed(good).last_error == ""

    silent.close()
    await server.stop()


async def test_changes_in_the_records_are_taken_up_while_it_runs(campus):
    one, two = RegisterServer(SDM), RegisterServer(SDM)
    await one.start()
    await two.start()
    meter = add(campus, "main", f"tcp://127.0.0.1:{one.port}")

    async with polling() as running:
        await until(lambda: newest(meter))
        Device.objects.filter(pk=meter.pk).update(connect=f"tcp://127.0.0.1:{two.port}", invert=True)
        await until(lambda: two.reads and newest(meter).power_w == pytest.approx(-6130))

        late = add(campus, "late", f"tcp://127.0.0.1:{one.port}")
        await until(lambda: newest(late))

        Device.objects.filter(pk=meter.pk).update(enabled=False)
        late.delete()
        await until(lambda: not running.devices)

    await one.stop()
    await two.stop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"connect": "tcp://meter:abc"}, "connect: port"),
        ({"map": "eastron_sdm"}, "map: 'eastron_sdm' is not known"),
        ({"wiring": ["L1", "L9"]}, "wiring: 'L9'"),
        ({"options": {"max_a": "many"}}, "option max_a is 'many'; give a number"),
    ],
)
async def test_a_record_that_cannot_be_used_is_said_on_the_device_and_nothing_else_suffers(campus, change, words):
    server = RegisterServer(SDM)
    await server.start()
    good = add(campus, "good", f"tcp://127.0.0.1:{server.port}")
    bad = add(campus, "bad", **{"connect": f"tcp://127.0.0.1:{server.port}", **change})

    async with polling():
        await until(lambda: words in refreshed(bad).last_error)
        await until(lambda: newest(good))

    assert "bad" in bad.last_error
    await server.stop()


async def test_the_database_being_away_does_not_stop_the_meters(campus, monkeypatch):
    server = RegisterServer(SDM)
    await server.start()
    meter = add(campus, "main", f"tcp://127.0.0.1:{server.port}")

    def broken():
        raise DatabaseError("gone")

    async with polling():
        await until(lambda: newest(meter))
        monkeypatch.setattr(poller, "wanted_devices", broken)
        monkeypatch.setattr(Poller, "_report", lambda self: broken())
        await asyncio.sleep(0.3)
        before = newest(meter).at
        await until(lambda: newest(meter).at > before)
        monkeypatch.undo()
        await until(lambda: refreshed(meter).last_seen)

    await server.stop()


async def test_redis_being_away_does_not_stop_the_meters_and_the_newest_comes_after(campus, monkeypatch):
    import redis

    server = RegisterServer(SDM)
    await server.start()
    meter = add(campus, "main", f"tcp://127.0.0.1:{server.port}")

    def broken(*args):
        raise redis.ConnectionError("gone")

    async with polling() as running:
        await until(lambda: newest(meter))
        with monkeypatch.context() as away:
            away.setattr(live, "store", broken)
            stale = newest(meter).at
            await asyncio.sleep(0.5)
            seen = running.devices[meter.pk].seen_at
            assert seen is not None and seen > stale
            assert newest(meter).at <= seen
        await until(lambda: newest(meter).at > seen)

    await server.stop()


async def test_a_measurement_that_cannot_be_true_does_not_displace_a_good_one_at_once(campus):
    server = RegisterServer(SDM)
    await server.start()
    meter = add(campus, "main", f"tcp://127.0.0.1:{server.port}", max_age_s=1)

    async with polling():
        await until(lambda: newest(meter))
        server.registers[0], server.registers[1] = 0x447A, 0x0000  # L1 at 1000 V
        await until(lambda: "voltage L1 is 1000.0 V" in refreshed(meter).last_error)
        assert newest(meter).quality is Quality.GOOD

        suspect = await until(lambda: newest(meter).quality is Quality.SUSPECT and newest(meter))
        assert suspect.voltage_v[0] == 1000

        server.registers[0], server.registers[1] = SDM[0], SDM[1]
        await until(lambda: newest(meter).quality is Quality.GOOD)
        await until(lambda: refreshed(meter).last_error == "")

    await server.stop()


async def test_a_meter_that_is_stuck_is_found_out_when_asked_for(campus):
    server = RegisterServer(SDM)
    await server.start()
    meter = add(campus, "main", f"tcp://127.0.0.1:{server.port}", options={"frozen_s": 0.5})

    async with polling():
        await until(lambda: "frozen" in refreshed(meter).last_error)

    await server.stop()


async def test_a_battery_obeys_within_its_bounds_and_is_released_when_its_time_is_up(campus):
    site = SimulatedSite(battery=SimulatedBattery(capacity_wh=50_000))
    await site.start()
    battery = add(
        campus,
        "store",
        site.connect("battery"),
        kind="battery",
        map="sunspec_storage",
        options={"max_charge_w": 4000, "max_discharge_w": 4000, "min_soc": 0.1, "max_soc": 0.95},
    )

    async with polling():
        await until(lambda: newest(battery))
        setpoints.want(battery.pk, power_w=9000, until=datetime.now(UTC) + timedelta(seconds=30))
        await until(lambda: newest(battery).power_w == 4000)

        setpoints.want(battery.pk, power_w=-1500, until=datetime.now(UTC) + timedelta(seconds=2))
        await until(lambda: newest(battery).power_w == -1500)
        await until(lambda: newest(battery).power_w == 0)
        assert not site.battery.commanded

    await site.stop()


async def test_stopping_the_poller_releases_what_it_commands(campus):
    site = SimulatedSite(battery=SimulatedBattery())
    await site.start()
    battery = add(campus, "store", site.connect("battery"), kind="battery", map="sunspec_storage")

    async with polling():
        setpoints.want(battery.pk, power_w=2000, until=datetime.now(UTC) + timedelta(seconds=60))
        await until(lambda: site.battery.commanded and site.battery.power_w() == 2000)

    assert not site.battery.commanded
    await site.stop()


async def test_a_battery_without_a_timer_is_put_right_when_the_poller_starts(campus):
    server = RegisterServer({13021: 0, 13022: 500, 13049: 2, 13050: 0xAA, 13051: 3000})
    await server.start()
    add(campus, "store", f"tcp://127.0.0.1:{server.port}", kind="battery", map="sungrow_sh")

    async with polling():
        await until(lambda: (13049, [0]) in server.writes)
        await asyncio.sleep(0.7)

    assert server.writes == [(13050, [0xCC]), (13049, [0])]
    await server.stop()


async def test_a_load_is_switched_and_left_running_in_the_end(campus):
    server = RegisterServer({}, coils=[False] * 16, inputs=[False] * 16)
    await server.start()
    load = add(campus, "boiler", f"tcp://127.0.0.1:{server.port}", kind="load", map="moxa_e1214")

    async with polling():
        setpoints.want(load.pk, on=True, until=datetime.now(UTC) + timedelta(seconds=60))
        await until(lambda: newest(load) and newest(load).state == "on")
        setpoints.want(load.pk, on=False, until=datetime.now(UTC) + timedelta(seconds=2))
        await until(lambda: newest(load).state == "off")
        await until(lambda: newest(load).state == "on")

    await server.stop()


async def test_a_heater_gets_no_more_than_it_may_and_is_let_go_in_the_end(campus):
    server = RegisterServer({1000: 0, 1001: 553})
    await server.start()
    rod = add(campus, "rod", f"tcp://127.0.0.1:{server.port}", kind="load", map="mypv_elwa_2", options={"max_w": 3000})

    async with polling():
        setpoints.want(rod.pk, power_w=3500, until=datetime.now(UTC) + timedelta(seconds=60))
        await until(lambda: (1000, [3000]) in server.writes)
        await until(lambda: newest(rod) and newest(rod).temperature_c is not None)
        setpoints.withdraw(rod.pk)
        await until(lambda: server.writes[-1] == (1000, [0]))

    assert newest(rod).temperature_c == pytest.approx(55.3)
    await server.stop()


def test_the_command_starts_and_ends_on_a_signal(campus, capsys):
    import os
    import signal
    import threading

    threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGTERM)).start()

    call_command("poller")

    assert "stopped" in capsys.readouterr().out

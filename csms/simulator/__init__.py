"""Simulated charging stations and cars, in both OCPP versions, over real websockets.

For the demo, and for every test that needs a station. They are built on the `ocpp` package's `ChargePoint` on purpose:
that shares no frame code with our gateway, so what both agree on is the standard and not a common mistake. Physics is
kept apart from talk: `car.py` and `outlet.py` know current and energy, `station.py` what a station does, and
`station16.py` and `station201.py` how it says so.
"""

from csms.simulator.car import Car
from csms.simulator.outlet import Outlet
from csms.simulator.station import Received, SimulatedStation

__all__ = ["Car", "Outlet", "Received", "SimulatedStation"]

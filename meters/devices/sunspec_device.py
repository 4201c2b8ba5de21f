"""A SunSpec device on a line: walked once, then read and written by model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from meters.devices.connect import Connect
from meters.devices.errors import AnswerNotValid, DeviceError, DeviceRefused, NotAllowed
from meters.devices.meter import DeviceSettings, Now, utc_now
from meters.devices.modbus import Lines
from meters.devices.quantities import Door, assemble
from meters.devices.registers import (
    HOLDING,
    MAX_WORDS,
    SUNSPEC_SENTINELS,
    Point,
    RegisterError,
    Type,
    Value,
    decode,
    decode_points,
)
from meters.devices.sunspec import (
    BASES,
    CHARGE_STATES,
    CONTROL_CHARGE,
    CONTROL_DISCHARGE,
    END,
    MARK,
    OPERATING_STATES,
    SunSpecMap,
)
from meters.measurement import Measurement

MAX_MODELS = 100
_DC_KEYS = {"battery_power", "string_charge", "string_discharge"}
_AC_PREFIXES = ("power", "current", "voltage", "reactive", "apparent", "energy")


@dataclass(frozen=True, slots=True)
class Found:
    """Where a model stands."""

    model: int
    address: int
    length: int


class SunSpecDevice:
    """A SunSpec inverter or meter. Keeps `Meter`."""

    def __init__(
        self, settings: DeviceSettings, connect: Connect, lines: Lines, map_: SunSpecMap, door: Door, now: Now = utc_now
    ) -> None:
        self.settings, self.map, self.door = settings, map_, door
        self._connect, self._lines, self._now = connect, lines, now
        self.line = lines.take(connect)
        self._found: dict[int, Found] = {}

    async def walk(self) -> Mapping[int, Found]:
        """Find every model of the device. Raises `AnswerNotValid` when it does not speak SunSpec."""
        for base in BASES:
            try:
                mark = await self._words(base, 2, "SunSpec mark")
            except DeviceRefused:
                continue
            if tuple(mark) == MARK:
                break
        else:
            places = ", ".join(map(str, BASES))
            raise AnswerNotValid(f"{self.settings.name}: no SunSpec mark at {places}: is SunSpec switched on there?")
        found: dict[int, Found] = {}
        at = base + 2
        for _ in range(MAX_MODELS):
            model, length = await self._words(at, 2, "SunSpec model header")
            if model == END:
                break
            found.setdefault(model, Found(model, at, length))
            at += 2 + length
            if at > 0xFFFF:
                raise AnswerNotValid(f"{self.settings.name}: SunSpec model {model} runs over the end of all registers")
        else:
            raise AnswerNotValid(f"{self.settings.name}: more than {MAX_MODELS} SunSpec models; the chain has no end")
        self._found = found
        return found

    async def models(self) -> Mapping[int, Found]:
        return self._found or await self.walk()

    async def model_values(self, model: int) -> dict[str, Value]:
        """The values of one model, scale factors read anew. Walks again when the model has moved."""
        place = (await self.models())[model]
        points = [p for p in self.map.models[model] if max(p.end, (p.scale_at or 0) + 1) <= place.length + 2]
        words: list[int] = []
        total = place.length + 2
        while len(words) < total:
            count = min(MAX_WORDS, total - len(words))
            words += await self._words(place.address + len(words), count, f"SunSpec model {model}")
        if words[0] != model:
            self._found = {}
            raise AnswerNotValid(f"{self.settings.name}: model {model} is no longer where it was; walking again")
        image = {(HOLDING, offset): word for offset, word in enumerate(words)}
        return decode_points(points, image, SUNSPEC_SENTINELS)

    async def values(self) -> dict[str, Value]:
        """The first model of each group that the device has; what an earlier group said stays."""
        models = await self.models()
        out: dict[str, Value] = {}
        for group in self.map.measures:
            model = next((m for m in group if m in models), None)
            if model is None:
                continue
            for name, value in (await self.model_values(model)).items():
                if out.get(name) is None:
                    out[name] = value
        if not out:
            wanted = ", ".join(str(m) for group in self.map.measures for m in group)
            raise AnswerNotValid(
                f"{self.settings.name}: has SunSpec models {', '.join(map(str, sorted(models)))}, but none of {wanted}"
            )
        return out

    async def read(self) -> Measurement:
        at = self._now()
        values = await self.values()
        state = values.get("operating_state")
        if isinstance(state, (int, float)):
            values["state"] = OPERATING_STATES.get(int(state), f"state {state:g}")
        return assemble(values, at, self.door)

    async def write_model(self, model: int, writes: list[tuple[str, float]]) -> None:
        """Write points of one model in this order, with its scale factors of this moment; neighbours in one request."""
        place = (await self.models()).get(model)
        if place is None:
            raise NotAllowed(f"{self.settings.name}: it has no SunSpec model {model}")
        by_name = {p.name: p for p in self.map.models[model]}
        requests: list[tuple[int, list[int], list[str]]] = []
        for name, value in writes:
            point = by_name[name]
            exponent = await self._exponent(point, place)
            try:
                words = point.to_words(value, exponent)
            except RegisterError as error:
                raise DeviceError(f"{self.settings.name}: {error}") from error
            at, text = place.address + point.address, f"{name} := {value:g}"
            if requests and requests[-1][0] + len(requests[-1][1]) == at:
                requests[-1][1].extend(words)
                requests[-1][2].append(text)
            else:
                requests.append((at, list(words), [text]))
        for at, all_words, texts in requests:
            what = f"{self.settings.name}: model {model} {', '.join(texts)}"
            await self.line.write(self._connect.unit, at, all_words, what)

    async def _exponent(self, point: Point, place: Found) -> int:
        if point.scale_at is None:
            return 0
        word = await self._words(place.address + point.scale_at, 1, f"scale factor of {point.name}")
        exponent = int(decode(word, Type.S16))
        if not -10 <= exponent <= 10:
            raise AnswerNotValid(f"{self.settings.name}: {point.name} has no scale factor")
        return exponent

    async def _words(self, address: int, count: int, what: str) -> list[int]:
        return await self.line.read(self._connect.unit, HOLDING, address, count, f"{self.settings.name}: {what}")

    async def close(self) -> None:
        self._lines.give_back(self._connect)


class SunSpecInverter(SunSpecDevice):
    """A PV inverter whose production can be limited through model 123. Keeps `Meter` and `Battery`'s two verbs."""

    lease_s: float | None = 120.0

    async def set_power(self, power_w: float, lease_s: float) -> None:
        """Produce at most −`power_w` (load-positive: give a negative number or 0)."""
        rated = self.settings.number("peak_w")
        if 120 in await self.models():
            value = (await self.model_values(120)).get("rated_power")
            rated = float(value) if isinstance(value, (int, float)) and value > 0 else rated
        if not rated:
            raise NotAllowed(f"{self.settings.name}: its rated power is unknown; set the option peak_w")
        share = max(0.0, min(1.0, -power_w / rated))
        await self.write_model(
            123, [("limit_lease_s", math.ceil(lease_s)), ("limit_pct", math.floor(share * 1000) / 10), ("limit_on", 1)]
        )

    async def release(self) -> None:
        await self.write_model(123, [("limit_on", 0)])


class SunSpecBattery(SunSpecDevice):
    """A battery behind models 124 and friends. Keeps `Meter` and `Battery`.

    `hybrid` in the options says that the inverter's AC power also holds PV, so that the battery's own DC power
    (model 802, else strings 3 and 4 of model 160) counts instead.
    """

    lease_s: float | None = 60.0

    async def values(self) -> dict[str, Value]:
        values = await super().values()
        models = await self.models()
        hybrid = bool(self.settings.options.get("hybrid"))
        has_ac = values.get("power") is not None
        if hybrid or not has_ac:
            power = values.get("battery_power")
            if power is None and 160 in models:
                strings = await self.model_values(160)
                into, out = strings.get("string_charge"), strings.get("string_discharge")
                if isinstance(into, (int, float)) and isinstance(out, (int, float)):
                    power = out - into
            if power is None:
                raise AnswerNotValid(f"{self.settings.name}: neither model 802 nor 160 gives the battery's power")
            values = {n: v for n, v in values.items() if not n.startswith(_AC_PREFIXES)}
            values["power"] = power
        return {n: v for n, v in values.items() if n not in _DC_KEYS}

    async def read(self) -> Measurement:
        at = self._now()
        values = await self.values()
        state = values.get("charge_state")
        if isinstance(state, (int, float)):
            values["state"] = CHARGE_STATES.get(int(state), f"state {state:g}")
        if values.get("capacity") is None:
            values["capacity"] = self.settings.number("capacity_wh")
        return assemble(values, at, self.door)

    async def set_power(self, power_w: float, lease_s: float) -> None:
        """Close the window between the charge and the discharge limit on one point, so that the battery must obey.

        Rates are shares of `WChaMax`; a negative discharge rate forces charging. The lease is written first and the
        mode last, so that no half-written set-point ever counts.
        """
        storage = await self.model_values(124) if 124 in await self.models() else {}
        most = storage.get("max_power")
        if not isinstance(most, (int, float)) or most <= 0:
            most = self.settings.number("max_charge_w")
        if not most:
            raise NotAllowed(f"{self.settings.name}: its highest power is unknown; set the option max_charge_w")
        share = max(-100.0, min(100.0, 100.0 * power_w / float(most)))
        writes: list[tuple[str, float]] = [
            ("discharge_pct", -share),
            ("charge_pct", share),
        ]
        if storage.get("lease_s") is not None:
            writes.insert(0, ("lease_s", math.ceil(lease_s)))
        else:
            self.lease_s = None  # it has no timer: whoever sets must release
        if storage.get("grid_charging") is not None and share > 0:
            writes.append(("grid_charging", 1))
        writes.append(("control", CONTROL_CHARGE | CONTROL_DISCHARGE))
        await self.write_model(124, writes)
        taken = await self.model_values(124)
        control, rate = taken.get("control"), taken.get("charge_pct")
        if control != CONTROL_CHARGE | CONTROL_DISCHARGE or not isinstance(rate, (int, float)) or abs(rate - share) > 1:
            raise AnswerNotValid(f"{self.settings.name}: it accepted the set-point {power_w:.0f} W but did not keep it")

    async def release(self) -> None:
        """Both limits off and fully open: the battery's own mode."""
        await self.write_model(124, [("control", 0), ("discharge_pct", 100.0), ("charge_pct", 100.0)])

"""How the three lines of a site carry power, and what follows for currents where there is no neutral.

Pure. With a neutral (3×400 V) a single-phase load hangs on one line. Without one (3×230 V, older Belgian streets) it
hangs between two: its current goes out by one and comes back by the other, and the currents of the three lines add up
to nothing, each with its angle. So no line carries more than the two others together (Kirchhoff), and a line has no
power of its own: what a meter calls so must never be made into a current.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from meters.measurement import Measurement, PerPhase, Quality

LINES = ("L1", "L2", "L3")
SAME_A, SAME = 1.0, 0.1  # what meters and currents of leakage make of two equal currents


class Supply(StrEnum):
    TN = "tn"  # 230 V from line to neutral
    IT = "it"  # 230 V from line to line


def power_weight(lines: int, supply: Supply | str = Supply.TN) -> float:
    """Watts per amp, in units of 230 V, of a load with the same current in so many lines."""
    if supply == Supply.IT:
        return 3**0.5 if lines == 3 else 1.0
    return float(max(lines, 1))


def lines_only(measurement: Measurement, wiring: Sequence[str], *, meter: bool, zero_is_silence: bool) -> Measurement:
    """What a device without a neutral says of its lines: no power by line, and of a meter every line, none too small.

    `wiring` names the lines it hangs on; two of them make it a single-phase one. Of a `meter` of three lines the one
    that it does not give (or gives as nothing, where `zero_is_silence`: some digital meters have no current of L2) is
    taken to carry what the two others carry together. While the whole is taken from the grid no line counts as feeding
    it: the sign of a line's current is that of a power it does not have.
    """
    amps, quality = measurement.current_a, measurement.quality
    if amps is not None:
        known = [None if a is None else float(a) for a in amps]
        if meter and measurement.power_w is not None and measurement.power_w >= 0:
            known = [None if a is None else abs(a) for a in known]
        found = _between(known, wiring, meter=meter) if len(wiring) == 2 else known
        if meter:
            found = _completed(found, zero_is_silence=zero_is_silence and len(wiring) != 2)
        if found != known:
            quality = Quality.ESTIMATED if quality == Quality.GOOD else quality
        amps = (found[0], found[1], found[2])
    return replace(measurement, current_a=amps, power_phase_w=None, quality=quality)


def between(amps: PerPhase, wiring: Sequence[str]) -> PerPhase:
    """The currents of a charging station: of a car that shows on one line only, also on the one it returns by.

    The lines are the station's own in their order, and such a car hangs between the first two.
    """
    if len(wiring) == 2:
        a, b, c = _between(list(amps), wiring, meter=False)
        return (a, b, c)
    places = [LINES.index(name) for name in (*wiring, *(n for n in LINES if n not in wiring))]
    own = [amps[i] for i in places]
    shown = [i for i, a in enumerate(own) if a is not None and abs(a) > SAME_A]
    if len(shown) != 1 or any(a is None for a in own):
        return amps
    own[(shown[0] + 1) % 3] = own[shown[0]]
    back = sorted(zip(places, own, strict=True))
    return (back[0][1], back[1][1], back[2][1])


def _between(amps: list[float | None], wiring: Sequence[str], *, meter: bool) -> list[float | None]:
    """Of a single-phase device: what goes out by one line comes back by the other.

    A meter whose two lines differ measures no single-phase circuit: what its third line carries is not said.
    """
    one, other = (LINES.index(name) for name in wiring)
    told = [a for a in (amps[one], amps[other]) if a is not None]
    if not told or (meter and len(told) == 2 and not _alike(told[0], told[1])):
        return amps
    out = list(amps)
    if len(told) == 1 or not _alike(told[0], told[1]):
        out[one] = out[other] = max(told, key=abs)
    out[3 - one - other] = 0.0
    return out


def _completed(amps: list[float | None], *, zero_is_silence: bool) -> list[float | None]:
    """All three lines, where two are known: what is missing, or cannot be, is what the others carry together."""
    silent = [i for i, a in enumerate(amps) if a is None]
    if not silent:
        sizes = [abs(a or 0.0) for a in amps]
        least = min(range(3), key=sizes.__getitem__)
        most = max(sizes)
        rest = sum(sizes) - most
        cannot_be = most > rest + SAME_A + SAME * most
        if cannot_be and rest <= SAME_A:
            return [a if abs(a or 0.0) == most else None for a in amps]  # of one line alone nothing follows
        if cannot_be or (zero_is_silence and sizes[least] == 0.0 and rest > 0.0):
            silent = [least]
    if len(silent) != 1:
        return amps
    out = list(amps)
    out[silent[0]] = sum(abs(a) for i, a in enumerate(amps) if i != silent[0] and a is not None)
    return out


def _alike(a: float, b: float) -> bool:
    return abs(abs(a) - abs(b)) <= SAME_A + SAME * max(abs(a), abs(b))

"""The live layer's few numbers, with what they are for. A site may have its own; nothing here loosens a limit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Times in seconds, currents in A."""

    min_on_s: float = 300.0  # a car that was started is not paused for mere economy before this
    min_off_s: float = 120.0  # … and one that was paused not started again
    squeezed_s: float = 10.0  # a running car's minimum must not fit for this long before it is paused …
    squeezed_over: float = 1.1  # … unless that brings a circuit above this multiple of its limit
    restart_a: float = 1.0  # room beyond its minimum for a car that was paused, lest it be paused again
    restart_s: float = 600.0  # … for so long; then it starts where its minimum fits
    lead_s: float = 900.0  # by so much less slack another must have to take the place of one that runs; more each time
    switch_budget: int = 6  # so often a charge is paused for economy's sake, then it keeps its minimum
    ramp_a: float = 8.0  # how much one limit may rise in one cycle …
    ramp_share: float = 0.25  # … or by this share of what the car may have, where that is more
    ripple_a: float = 0.5  # smaller rises are not worth a message
    react_s: float = 5.0  # a car takes no more than its new limit after this (IEC 61851-1)
    follow_s: float = 10.0  # until then it may still draw by its former limit, all told: the way there included
    unsure_s: float = 60.0  # how long after a rise the car's next measurement may be awaited
    ignore_s: float = 30.0  # a car that draws more than its limit for longer than this does not follow it
    ignore_dc_s: float = 60.0
    ignore_a: float = 1.0  # … by more than this
    settle_s: float = 30.0  # a car that uses less than it has for this long has shown the most it takes
    lend_a: float = 1.5  # what it keeps beyond that, by which it shows that it wants more
    wake_a: float = 1.0  # a car that takes this much more than it was known to take is hungry again
    calm_s: float = 8.0  # time constant with which the peak of other load is forgotten
    ev_max_age_s: float = 90.0  # an EVSE's measurement older than this is absent (some report once a minute)
    lost_max_age_s: float = 30.0  # … and of one out of reach, which will not correct it
    must_within_s: float = 900.0  # a car with less slack than this must charge now: one slot of the plan
    tight_within_s: float = 3600.0  # … and one with less than this gets what the plan gave it before all others do
    dc_doubt: float = 0.05  # share of a DC station's input current that is guessed: its converter's losses
    doubt: float = 0.02  # … and of an AC station's measured current
    sun_trust: float = 0.25  # share of a limit that may lean on PV, which can be gone in an instant
    start_surplus: float = 1.1  # a car is started on surplus only with this much more than its minimum


DEFAULT = Rules()

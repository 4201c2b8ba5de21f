"""What the running quarter hour should stay below, when the month's highest quarter costs money.

Pure. The plan weighs a new peak against everything else; the live layer holds the quarter to what it found.
"""

from __future__ import annotations


def peak_target_w(month_peak_w: float, planned_peak_w: float | None) -> float:
    """The month's peak so far, or a higher one that the plan found worth its price, and nothing above it: whatever is
    reached is paid for, so the next plan would begin from it."""
    if planned_peak_w is None:
        return month_peak_w
    return max(month_peak_w, planned_peak_w)

"""What a charge that is over lacked, for lists of charges."""

from __future__ import annotations

from django import template

from csms.models import Transaction
from smartcharging.explanations import explain
from webapp import spoken

register = template.Library()


@register.filter
def lacked(transaction: Transaction) -> str:
    """What it fell short of its wish, and why; empty when it did not, when nobody knows why, or while it runs."""
    if transaction.ended_at is None:
        return ""
    told = explain(transaction, transaction.ended_at)
    return " ".join(spoken.line(line) for line in told.limits)

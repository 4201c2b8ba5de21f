"""Asking a station from the admin: the person is told what it said, or why it said nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import redis
from django.contrib import messages
from django.http import HttpRequest
from django.utils.translation import gettext

from csms import bus
from csms.models import ChargingStation

GOOD_ANSWERS = frozenset({"Accepted", "Unlocked", "Scheduled", "RebootRequired", "RebootNeeded"})


def ask(request: HttpRequest, station: ChargingStation, question: Callable[[], Mapping[str, Any]]) -> None:
    """Ask a station something and tell the person what it said, or why it said nothing. Never raises."""
    name = str(station)
    try:
        answer = question()
    except bus.StationUnreachable:
        messages.warning(request, gettext("%(station)s is not connected; nothing was sent.") % {"station": name})
    except bus.NoAnswer:
        text = gettext("%(station)s did not answer in time. It may or may not have done it.")
        messages.warning(request, text % {"station": name})
    except bus.CallRefused as error:
        text = gettext("%(station)s refused: %(error)s")
        messages.error(request, text % {"station": name, "error": error})
    except bus.CallNotValid as error:
        text = gettext("This cannot be asked of %(station)s: %(error)s")
        messages.error(request, text % {"station": name, "error": error})
    except redis.RedisError:
        messages.error(request, gettext("Redis is away, so no station can be reached."))
    else:
        _show_answer(request, name, answer)


def _show_answer(request: HttpRequest, name: str, answer: Mapping[str, Any]) -> None:
    status = str(answer.get("status", ""))
    more = "; ".join(
        f"{k}: {len(v) if isinstance(v, list) else v}"
        for k, v in answer.items()
        if k != "status" and v not in (None, "", [], {})
    )
    said = f"{status} ({more})" if more and status else status or more or gettext("nothing")
    level = messages.SUCCESS if status in GOOD_ANSWERS else messages.WARNING
    messages.add_message(
        request, level, gettext("%(station)s answered: %(said)s") % {"station": name, "said": said[:500]}
    )

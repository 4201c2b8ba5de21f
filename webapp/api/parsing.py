"""What comes in: JSON only, of bounded size and depth, with finite numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.utils.translation import gettext_lazy as _
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import JSONParser

if TYPE_CHECKING:
    from rest_framework.response import Response
    from rest_framework.views import APIView as _View
else:
    _View = object


class BodyTooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"

    def __init__(self) -> None:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        super().__init__(_("The body is larger than %(limit)d bytes; send it in parts.") % {"limit": limit})


class FiniteJSONParser(JSONParser):
    """JSON no deeper than the interpreter can follow, whose numbers a database can keep (`1e999` is infinite)."""

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            parsed: dict[str, Any] = json.loads(
                stream.read().decode("utf-8"), parse_float=_finite, parse_constant=_no_constant
            )
        except RecursionError as error:
            raise ParseError(_("JSON parse error - nested too deeply.")) from error
        except ValueError as error:
            raise ParseError(_("JSON parse error - %(error)s") % {"error": error}) from error
        return parsed


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


class JSONOnly(_View):
    """A view that takes such bodies and no others, and says so in JSON when one is too large."""

    parser_classes = [FiniteJSONParser]

    def handle_exception(self, exc: Exception) -> Response:
        return super().handle_exception(BodyTooLarge() if isinstance(exc, RequestDataTooBig) else exc)

"""Filters of lists. A filter nobody knows is refused: misspelt, it would quietly show everything."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request


class KnownFilters(DjangoFilterBackend):
    """The filters a view declares, and no others (400, by name, with the nearest one there is)."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        filterset = self.get_filterset_class(view, queryset)
        known = set(filterset.base_filters) if filterset is not None else set()
        unknown = sorted(set(request.query_params) - known - _of_pages(view))
        if unknown:
            raise ValidationError({name: [_refusal(name, known)] for name in unknown})
        filtered: QuerySet[Any] = super().filter_queryset(request, queryset, view)
        return filtered


def _of_pages(view: Any) -> set[str]:
    """What every list takes besides: where in it one is, by the view's own way of paging."""
    pager = getattr(view, "paginator", None)
    return {"format"} | ({p["name"] for p in pager.get_schema_operation_parameters(view)} if pager else set())


def _refusal(name: str, known: set[str]) -> str:
    near = get_close_matches(name, known, 1)
    if near:
        return _("There is no such filter; did you mean “%(near)s”?") % {"near": near[0]}
    if not known:
        return _("This list has no filters.")
    return _("There is no such filter; there are: %(known)s.") % {"known": ", ".join(sorted(known))}

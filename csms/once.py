"""A reading that is made when it is first asked for, and only then. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Call it as often as you like: `read` is called once, by whoever is first.

    What a station measures is wanted twice, where it is shown and where it is written, in two threads. Both may come
    at the same moment: then it is read twice, to the same end, which is cheaper than a lock for every message.
    """

    __slots__ = ("_read", "_told")

    def __init__(self, read: Callable[[], T]) -> None:
        self._read: Callable[[], T] | None = read
        self._told: T

    def __call__(self) -> T:
        read = self._read
        if read is not None:
            self._told = read()
            self._read = None
        return self._told

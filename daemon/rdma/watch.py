"""The watchdog over operations: what was begun has to end."""

from __future__ import annotations

import time
from collections.abc import Iterable


class Operation:
    """What one thread does now. That thread begins and ends it, any thread may look."""

    __slots__ = ("_began", "_what")

    def __init__(self) -> None:
        self._began = 0.0
        self._what = ""

    def begin(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()

    def end(self) -> None:
        self._began = 0.0

    def overdue(self, now: float, most: float) -> str:
        """What it is when it was begun more than `most` seconds ago; "" when all is well."""
        began = self._began
        return f"{self._what}, for {now - began:.1f} s" if began and now - began > most else ""


def first_overdue(operations: Iterable[Operation], now: float, most: float) -> str:
    return next((late for one in operations if (late := one.overdue(now, most))), "")

"""What calls took."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from benchmarks.rounds import percentile

T = TypeVar("T")


class Timed:
    """Of one kind of event; in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def of(self, call: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = call()
        self.seconds.append(time.perf_counter() - start)
        return result

    def clear(self) -> None:
        self.seconds.clear()

    def at(self, share: float) -> float:
        """Milliseconds that so many of the calls took at most; 0 without any."""
        return percentile(self.seconds, share) * 1e3 if self.seconds else 0.0

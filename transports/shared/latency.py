"""How long things took of late."""

from __future__ import annotations

from collections import deque

KEPT = 1024


class Latency:
    """The last ones, in seconds. One thread adds; any may read."""

    def __init__(self) -> None:
        self.count = 0
        self._last: deque[float] = deque(maxlen=KEPT)

    def add(self, seconds: float) -> None:
        self.count += 1
        self._last.append(seconds)

    def percentile(self, share: float) -> float:
        """0.0 while there are none."""
        ordered = sorted(self._last.copy())
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

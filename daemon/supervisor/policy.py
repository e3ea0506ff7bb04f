"""When a child that ended is started again: back-off, and a breaker for crash loops."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartRules:
    """More than `burst` ends within `window` seconds open the breaker: no further start."""

    first_delay: float = 0.1
    factor: float = 2.0
    longest_delay: float = 30.0
    burst: int = 8
    window: float = 120.0


class RestartPolicy:
    """Counts the ends of one child. An end that was asked for (a kill for lack of progress) counts
    too: a stage that
    hangs again and again must not be started for ever."""

    def __init__(self, rules: RestartRules) -> None:
        self.rules = rules
        self.restarts = 0
        self._ends: deque[float] = deque()

    def ended(self, now: float) -> float | None:
        """Seconds to wait before the next start, or None when the breaker has opened."""
        rules = self.rules
        self._ends.append(now)
        while self._ends and now - self._ends[0] > rules.window:
            self._ends.popleft()
        if len(self._ends) > rules.burst:
            return None
        self.restarts += 1
        delay = rules.first_delay * rules.factor ** (len(self._ends) - 1)
        return min(delay, rules.longest_delay)

    def check_integrity(self) -> None:
        assert list(self._ends) == sorted(self._ends), "ends are out of order"

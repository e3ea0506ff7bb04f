"""Whether a better layout is worth a move, from measurements that are never exact.

The best layout by one look at noisy measurements seems better than it is: it is the one that the
noise favours. So the look that finds a candidate does not count for it; it is looked at again, with
fresh measurements, and moved to when it is better beyond doubt: when the mean of its gains, less
three standard errors, is enough. With little noise that takes a few looks, with much more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from daemon.cluster.events import Slot

Layout = tuple[Slot, ...]

LEAST_GAIN = 0.10
LEAST_LOOKS, MOST_LOOKS = 6, 60
STANDARD_ERRORS = 3.0
HORIZON = 600.0  # seconds in which a move must have saved what it costs
FIRST_PAUSE, LONGEST_PAUSE = 300.0, 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Decision:
    """`layout` is to be moved to, None: stay. `why` is for people."""

    layout: Layout | None
    why: str


class Autopilot:
    def __init__(self) -> None:
        self._present: Layout = ()
        self._candidate: Layout | None = None
        self._gains: deque[float] = deque(maxlen=MOST_LOOKS)
        self._pause = 0.0
        self._moved_at = float("-inf")

    def look(
        self,
        present: Layout,
        best: Layout,
        gain: Callable[[Layout], float],
        cost: Callable[[Layout], float],
        now: float,
    ) -> Decision:
        """`best` by the measurements of now. `gain` of a layout by these, 0.1: a tenth more tokens;
        `cost` in seconds.
        """
        if present != self._present:
            self._present, self._candidate = present, None
        if (left := self._moved_at + self._pause - now) > 0:
            return Decision(None, f"the layout stays for {left:.0f} s more after the last move")
        if self._candidate is None:
            return self._begin(best, gain)
        self._gains.append(gain(self._candidate))
        looks, mean = len(self._gains), fmean(self._gains)
        what = f"another layout promises {mean:.0%} over {looks} looks"
        if looks < LEAST_LOOKS:
            return Decision(None, what)
        if mean < LEAST_GAIN:
            self._candidate = None
            return Decision(None, f"{what}, less than {LEAST_GAIN:.0%}: not moved")
        if mean - STANDARD_ERRORS * stdev(self._gains) / sqrt(looks) < LEAST_GAIN:
            return Decision(None, f"{what}, which may be noise")
        costs, saved = cost(self._candidate), HORIZON * mean / (1 + mean)
        if costs > saved:
            return Decision(
                None, f"{what}, but takes {costs:.0f} s, and saves {saved:.0f} in ten min"
            )
        return Decision(self._candidate, what)

    def moved(self, now: float) -> None:
        """A move has ended, well or not: the next may come after a pause, a longer one if it comes
        soon.
        """
        soon = now - self._moved_at < 4 * self._pause
        self._pause = min(LONGEST_PAUSE, 2 * self._pause) if soon else FIRST_PAUSE
        self._moved_at, self._candidate = now, None

    def check_integrity(self) -> None:
        assert self._candidate != self._present or not self._present, "autopilot: to where it is"
        assert 0.0 <= self._pause <= LONGEST_PAUSE, "autopilot: pause"

    def _begin(self, best: Layout, gain: Callable[[Layout], float]) -> Decision:
        promised = gain(best) if best != self._present else 0.0
        if promised < LEAST_GAIN:
            return Decision(None, f"the best layout promises {promised:.0%}: not moved")
        self._candidate = best
        self._gains.clear()
        return Decision(None, f"another layout promises {promised:.0%}: looked at again")

"""How long a pass over n tokens takes on one stage: measured points, straight lines between, and
what each position that the tokens attend to adds.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Collection, Mapping

WEIGHT = 0.125  # of a new measurement


class CostCurve:
    """Starts from what the stage measured of itself with empty caches, `per_token` beyond that. It
    learns at `sizes` only, so that odd lengths do not crowd it. A line for all sizes would not do:
    a small chunk costs much more per token than a large one.

    Passes of one size differ by what they attend to: the slope of their times over that, all sizes
    together (a regression within groups), is what a position costs.
    """

    def __init__(
        self, sizes: Collection[int], first: Mapping[int, float], per_token: float
    ) -> None:
        self._sizes = frozenset(sizes)
        self._points = {n: (max(seconds, 0.0), 0.0) for n, seconds in first.items()}
        self._known = sorted(self._points)
        low, high = self._known[-1], max(self._sizes)
        if high > low:
            self._points[high] = (self._points[low][0] + (high - low) * max(per_token, 0.0), 0.0)
            self._known.append(high)
        self._covariance = self._variance = 0.0

    @property
    def position_seconds(self) -> float:
        """What one attended position adds."""
        return max(0.0, self._covariance / self._variance) if self._variance else 0.0

    def learn(self, tokens: int, attended: int, seconds: float) -> None:
        if tokens not in self._sizes:
            return
        before = self._points.get(tokens)
        if before is None:
            self._points[tokens] = (seconds, float(attended))
            insort(self._known, tokens)
            return
        usual, place = before
        # One pass that was held up by something else must not pass for what passes cost.
        more, further = min(seconds - usual, usual), attended - place
        self._covariance += further * more
        self._variance += further * further
        self._points[tokens] = usual + WEIGHT * more, place + WEIGHT * further

    def seconds(self, tokens: int, attended: int) -> float:
        slope, known = self.position_seconds, self._known
        right = min(max(bisect_left(known, tokens), 1), len(known) - 1)
        at_right = self._empty(known[right], slope)
        if known[right] == tokens or len(known) == 1:
            return max(0.0, at_right * tokens / known[right] + slope * attended)
        low = known[right - 1]
        at_low = self._empty(low, slope)
        rise = (at_right - at_low) / (known[right] - low)
        return max(0.0, at_low + rise * (tokens - low) + slope * attended)

    def as_dict(self) -> dict[str, float]:
        """Seconds by number of tokens, with empty caches."""
        slope = self.position_seconds
        return {str(tokens): self._empty(tokens, slope) for tokens in self._known}

    def check_integrity(self) -> None:
        assert self._known == sorted(self._points), "curve: points"
        values = [*self._points.values(), (self._variance, self._variance)]
        assert all(math.isfinite(v) and v >= 0.0 for pair in values for v in pair), "curve: numbers"
        assert math.isfinite(self._covariance), "curve: slope"

    def _empty(self, tokens: int, slope: float) -> float:
        seconds, attended = self._points[tokens]
        return max(0.0, seconds - slope * attended)

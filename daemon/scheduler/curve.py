"""How long a pass over n tokens takes on one stage: measured points, straight lines between."""

from __future__ import annotations

import math
from bisect import bisect_left

WEIGHT = 0.125  # of a new measurement


class CostCurve:
    """Learns at `sizes` only, so that odd lengths do not crowd it; starts from a line. A line for
    all sizes would not do: a small chunk costs much more per token than a large one.
    """

    def __init__(self, sizes: tuple[int, ...], first: float, per_token: float) -> None:
        self._sizes = frozenset(sizes)
        low, high = min(sizes), max(sizes)
        self._points = {low: first, high: first + (high - low) * per_token}
        self._known = sorted(self._points)

    def learn(self, tokens: int, seconds: float) -> None:
        if tokens not in self._sizes:
            return
        before = self._points.get(tokens)
        if before is None:
            self._points[tokens] = seconds
            self._known = sorted(self._points)
        else:
            self._points[tokens] = before + WEIGHT * (seconds - before)

    def seconds(self, tokens: int) -> float:
        known, points = self._known, self._points
        if tokens in points:
            return points[tokens]
        if len(known) == 1:
            return points[known[0]] * tokens / known[0]
        right = min(max(bisect_left(known, tokens), 1), len(known) - 1)
        low, high = known[right - 1], known[right]
        slope = (points[high] - points[low]) / (high - low)
        return max(0.0, points[low] + slope * (tokens - low))

    def as_dict(self) -> dict[str, float]:
        return {str(tokens): self._points[tokens] for tokens in self._known}

    def check_integrity(self) -> None:
        assert self._known == sorted(self._points), "curve: points"
        values = self._points.values()
        assert all(math.isfinite(v) and v >= 0.0 for v in values), "curve: not a time"

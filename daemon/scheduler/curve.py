"""How long a pass over n tokens takes on each stage: measured points, straight lines between, and
what each position that the tokens attend to adds.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

WEIGHT = 0.125  # of a new measurement


@dataclass(slots=True)
class _Point:
    """Usual seconds of a pass of one size on each stage, attending to `attended` positions."""

    seconds: list[float]
    attended: float = 0.0


class CostCurves:
    """One curve for each stage, and one size after the other for all of them: every frame passes
    every stage, so what is looked up for one is looked up for all.

    They start from what the stages measured of themselves with empty caches (`first`: seconds by
    tokens, at least at one size), `per_token` beyond that. They learn at `sizes` only, so that odd
    lengths do not crowd them. A line for all sizes would not do: a small chunk costs much more per
    token than a large one.

    Passes of one size differ by what they attend to: the slope of their times over that, all sizes
    together (a regression within groups), is what a position costs.
    """

    def __init__(
        self,
        sizes: Collection[int],
        first: Sequence[Mapping[int, float]],
        per_token: Sequence[float],
    ) -> None:
        self._sizes = frozenset(sizes)
        self._known = sorted({n for points in first for n in points})
        if (largest := max(self._sizes)) > self._known[-1]:
            self._known.append(largest)
        starts = [_start(*pair, self._known) for pair in zip(first, per_token, strict=True)]
        self._points = {
            n: _Point(list(seconds))
            for n, seconds in zip(self._known, zip(*starts, strict=True), strict=True)
        }
        self._covariance = [0.0] * len(first)
        self._variance = 0.0
        # What follows from points and slopes, until something is learnt.
        self._slopes: list[float] | None = None
        self._bare: dict[int, list[float]] = {}

    @property
    def position_seconds(self) -> list[float]:
        """What one attended position adds."""
        if self._slopes is None:
            variance = self._variance
            self._slopes = [c / variance if c > 0.0 else 0.0 for c in self._covariance]
        return self._slopes

    def learn(self, tokens: int, attended: int, seconds: Sequence[float]) -> None:
        """A pass over so many tokens took so long on each stage."""
        if tokens not in self._sizes:
            return
        self._slopes = None
        self._bare.clear()
        point = self._points.get(tokens)
        if point is None:
            self._points[tokens] = _Point(list(seconds), float(attended))
            insort(self._known, tokens)
            return
        further = attended - point.attended
        for stage, took in enumerate(seconds):
            usual = point.seconds[stage]
            # One pass that was held up by something else must not pass for what passes cost.
            more = min(took - usual, usual)
            self._covariance[stage] += further * more
            point.seconds[stage] = usual + WEIGHT * more
        self._variance += further * further
        point.attended += WEIGHT * further

    def seconds(self, tokens: int, attended: int) -> list[float]:
        """Of a pass on each stage."""
        slopes, known = self.position_seconds, self._known
        right = min(max(bisect_left(known, tokens), 1), len(known) - 1)
        high = known[right]
        at_high = self._empty(high)
        if high == tokens or len(known) == 1:
            part = tokens / high
            return [e * part + s * attended for e, s in zip(at_high, slopes, strict=True)]
        low = known[right - 1]
        part = (tokens - low) / (high - low)
        return [
            took if (took := a + (b - a) * part + s * attended) > 0.0 else 0.0
            for a, b, s in zip(self._empty(low), at_high, slopes, strict=True)
        ]

    def as_dict(self, stage: int) -> dict[str, float]:
        """Seconds by number of tokens, with empty caches."""
        return {str(tokens): self._empty(tokens)[stage] for tokens in self._known}

    def check_integrity(self) -> None:
        assert self._known == sorted(self._points), "curve: points"
        values = [self._variance]
        for point in self._points.values():
            assert len(point.seconds) == len(self._covariance), "curve: stages"
            values += [*point.seconds, point.attended]
        assert all(math.isfinite(v) and v >= 0.0 for v in values), "curve: numbers"
        assert all(map(math.isfinite, self._covariance)), "curve: slope"

    def _empty(self, tokens: int) -> list[float]:
        """Of a pass of a known size that attends to nothing before it."""
        found = self._bare.get(tokens)
        if found is None:
            point, slopes = self._points[tokens], self.position_seconds
            found = self._bare[tokens] = [
                bare if (bare := usual - slope * point.attended) > 0.0 else 0.0
                for usual, slope in zip(point.seconds, slopes, strict=True)
            ]
        return found


def _start(points: Mapping[int, float], per_token: float, sizes: Sequence[int]) -> list[float]:
    """At all of these sizes, as far as one stage has measured: a line between two points, the
    nearest point's time per token before the first, `per_token` more for each after the last.
    """
    known = sorted(points)
    measured = {n: max(points[n], 0.0) for n in known}
    found = []
    for n in sizes:
        right = bisect_left(known, n)
        if n in measured:
            found.append(measured[n])
        elif right == len(known):
            found.append(measured[known[-1]] + (n - known[-1]) * max(per_token, 0.0))
        elif right == 0:
            found.append(measured[known[0]] * n / known[0])
        else:
            low, high = known[right - 1], known[right]
            part = (n - low) / (high - low)
            found.append(measured[low] + (measured[high] - measured[low]) * part)
    return found

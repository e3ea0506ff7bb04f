"""Interleaved rounds and what is computed from them.

Other work on a machine changes its speed by tens of per cent within minutes. So all contestants run
in every round, in an order that rotates, and what is compared are the ratios within a round; beside
their median stands best against best.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Measure = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Rounds:
    """One value per contestant and round; more is better."""

    values: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])

    def best(self, name: str) -> float:
        return max(self.values[name])

    def ratios(self, name: str, *others: str) -> list[float]:
        """Per round, `name` against the best of `others` in that round."""
        against = zip(*(self.values[other] for other in others), strict=True)
        return [a / max(b) for a, b in zip(self.values[name], against, strict=True)]

    def ratio(self, name: str, *others: str) -> float:
        """The median of the rounds' ratios, against the other with the highest median.

        Against the best other of each round would compare with noise: the maximum of several equals
        is above each.
        """
        strongest = max(others, key=self.median)
        return statistics.median(self.ratios(name, strongest))

    def best_ratio(self, name: str, *others: str) -> float:
        return self.best(name) / max(self.best(other) for other in others)


def interleave(
    contestants: Mapping[str, Measure],
    rounds: int,
    *,
    warm: int = 1,
    turn: Callable[[Measure], float] = lambda measure: measure(),
) -> Rounds:
    """Measure all contestants `rounds` times after `warm` unrecorded rounds, each round starting
    with another one. `turn` runs one measurement.
    """
    values: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(-warm, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if number < 0:
                contestants[name]()
            else:
                values[name].append(turn(contestants[name]))
        if number >= 0:
            last = "  ".join(f"{name} {values[name][-1]:.4g}" for name in names)
            print(f"round {number + 1}/{rounds}: {last}", file=sys.stderr, flush=True)
    return Rounds(values)


def rate(times: Sequence[float]) -> float:
    """Tokens per second of one stream from the times its tokens arrived; the first one ends prefill
    and is not counted.
    """
    if len(times) < 2:
        raise ValueError("a rate needs at least two tokens")
    return (len(times) - 1) / (times[-1] - times[0])


def window_rate(streams: Sequence[Sequence[float]]) -> float:
    """Tokens per second of several streams together, while all of them were decoding."""
    start, end = max(s[0] for s in streams), min(s[-1] for s in streams)
    if end <= start:
        raise ValueError("the streams never decoded at the same time: ask for more tokens")
    return sum(sum(start < t <= end for t in s) for s in streams) / (end - start)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

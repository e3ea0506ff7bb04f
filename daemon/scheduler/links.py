"""What a frame spends beside queues and passes, links and encoding together, by its positions."""

from __future__ import annotations

import math

WEIGHT = 0.125  # of a new measurement


class LinkCost:
    """A line through what was measured lately: a constant, and what every position adds. It is
    exponentially weighted least squares.
    """

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0  # means
        self._variance = self._covariance = 0.0
        self._largest = 0
        self._known = False

    @property
    def per_token(self) -> float:
        if self._variance < 1e-9:
            return 0.0
        return max(0.0, self._covariance / self._variance)

    def learn(self, tokens: int, seconds: float) -> None:
        weight = WEIGHT if self._known else 1.0
        self._known = True
        more, longer = tokens - self._tokens, seconds - self._seconds
        if weight < 1.0:  # what was held up by something else must not pass for what links cost
            longer = min(longer, 2 * self._seconds + abs(more) * self.per_token)
        self._largest = max(self._largest, tokens)
        self._tokens += weight * more
        self._seconds += weight * longer
        self._variance = (1 - weight) * (self._variance + weight * more * more)
        self._covariance = (1 - weight) * (self._covariance + weight * more * longer)

    def seconds(self, tokens: int) -> float:
        tokens = min(tokens, 2 * self._largest)  # a line through small frames says little of large
        return max(0.0, self._seconds + self.per_token * (tokens - self._tokens))

    def check_integrity(self) -> None:
        values = (self._tokens, self._seconds, self._variance, self._covariance)
        assert all(map(math.isfinite, values)), "links: numbers"

"""How often guesses were right, lately."""

from __future__ import annotations

import math

PRIOR = 0.6  # before anything is known: some guesses cost little
PRIOR_WEIGHT = 1.0  # guesses of a sequence's own that count as much as those of others
FORGET = 0.985  # of what was seen before, per guess: about the last 70 count
STEP = 1.25  # runs of right guesses whose lengths differ by less than this factor are alike


class Acceptance:
    """Of one sequence, which begins like others did lately: `usual` is what is known of all of
    them, and learns from each.
    """

    def __init__(self, usual: Acceptance | None = None) -> None:
        self._usual = usual
        self._right = self._weight = 0.0

    @property
    def share(self) -> float:
        """The chance that the next guess is right when all before it were."""
        prior = self._usual.share if self._usual else PRIOR
        return (self._right + PRIOR_WEIGHT * prior) / (self._weight + PRIOR_WEIGHT)

    @property
    def level(self) -> int:
        """The share in steps that make a difference: 0.1 more changes little at 0.3, and doubles
        the runs of right guesses at 0.8. From 0 upwards.
        """
        return round(-math.log(max(1.0 - self.share, 1e-3), STEP))

    def judge(self, right: bool) -> None:
        self._right = FORGET * self._right + right
        self._weight = FORGET * self._weight + 1.0
        if self._usual:
            self._usual.judge(right)


def share_of(level: int) -> float:
    """What acceptances of this level are about."""
    return 1.0 - STEP**-level

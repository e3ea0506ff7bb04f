"""How often guesses were right, lately."""

from __future__ import annotations

PRIOR = 0.6  # before anything is known: some guesses cost little
PRIOR_WEIGHT = 2.0
FORGET = 0.97  # of what was seen before, per guess: about the last 30 count


class Acceptance:
    """Of one sequence."""

    def __init__(self) -> None:
        self._right = PRIOR * PRIOR_WEIGHT
        self._weight = PRIOR_WEIGHT

    @property
    def share(self) -> float:
        """The chance that the next guess is right when all before it were."""
        return self._right / self._weight

    def judge(self, right: bool) -> None:
        self._right = FORGET * self._right + right
        self._weight = FORGET * self._weight + 1.0

"""Where guesses come from that are there at once."""

from __future__ import annotations

from typing import Protocol

from daemon.scheduler.sequence import Sequence

FREE = 0.1  # acceptance that n-grams may lack, against what is guessed at all: they take no time


class Guesser(Protocol):
    def guess(self, sequence: Sequence, most: int) -> list[int]:
        """Up to `most` tokens that may follow what is known and assumed of the sequence."""


class FromItself:
    """The sequence's own n-grams."""

    def guess(self, sequence: Sequence, most: int) -> list[int]:
        return sequence.lookup.guess(sequence.history.tokens, [*sequence.guesses.tokens], most)


def repeats_itself(sequence: Sequence) -> bool:
    """Its n-grams would have been right about as often as what is guessed is."""
    return sequence.lookup.acceptance.share >= sequence.acceptance.share - FREE


def obstacle(reach: int | None) -> str | None:
    """Why nothing can ever be guessed, if so, where caches can always be cut by `reach` tokens."""
    lost = reach is not None and reach < 2
    return "this model's caches cannot give up again what they have taken in" if lost else None

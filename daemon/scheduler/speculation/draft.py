"""The draft model, as the scheduler sees it: what it was told of each sequence, what it was asked,
and how long it takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from daemon.scheduler.actions import Propose
from daemon.scheduler.sequence import Sequence

WEIGHT = 0.125  # of a new measurement


@dataclass(slots=True)
class _Talk:
    """`told`: tokens of the history that the draft has; `until`: the length up to which it was
    asked to guess; `since`: when that was, until the first guess is here. `vain`: it was waited for
    in vain since it last answered.
    """

    told: int = 0
    until: int = 0
    since: float | None = None
    vain: bool = False


class Draft:
    """`each` are seconds a guess; `wait` what passes besides before the first one is here."""

    def __init__(self) -> None:
        self.each = 0.0
        self.wait = 0.0
        self.here = False
        self._talks: dict[bytes, _Talk] = {}

    def ready(self, seconds: float | None) -> None:
        """A draft model is there, which measured so many seconds a token; None: it is gone."""
        self.here = seconds is not None
        self.each, self.wait = seconds or 0.0, 0.0
        self._talks.clear()

    def propose(self, sequence: Sequence, until: int, now: float) -> Propose | None:
        """What to ask so that guesses come up to the length `until`; None when all is said."""
        talk = self._talks.setdefault(sequence.id, _Talk())
        known = len(sequence.history)
        until = max(until, known)
        if talk.told == known and until <= talk.until:
            return None
        position = min(talk.told, known)
        if until > max(talk.until, known + len(sequence.guesses)):
            talk.since = now
        talk.told, talk.until = known, until
        return Propose(
            sequence.id,
            position,
            sequence.history.hash_at(position),
            tuple(sequence.history.tokens[position:]),
            until,
            sequence.constants,
        )

    def behind(self, sequence: Sequence) -> int:
        """How many tokens of the history it was not told of."""
        talk = self._talks.get(sequence.id)
        return len(sequence.history) - talk.told if talk else len(sequence.history)

    def refuted(self, sequence: Sequence) -> None:
        """What it goes on guessing from did not happen: it is to be told the last token."""
        talk = self._talks.get(sequence.id)
        if talk:
            talk.told = min(talk.told, len(sequence.history) - 1)
            talk.until = 0

    def lags(self, sequence: bytes, held: int) -> bool:
        """It has only so many tokens of it. False when it was never told of it."""
        talk = self._talks.get(sequence)
        if talk:
            talk.told, talk.until = min(talk.told, held), 0
        return talk is not None

    def brings(self, sequence: bytes) -> bool:
        """Whether guesses are to be expected of it. One that hangs, or has no room for a sequence,
        is not waited for again before it has answered.
        """
        talk = self._talks.get(sequence)
        return self.here and not (talk and talk.vain)

    def in_vain(self, sequence: bytes) -> None:
        """It was waited for, and has brought nothing."""
        if talk := self._talks.get(sequence):
            talk.vain = True

    def heard(self, sequence: bytes, guesses: int, now: float) -> None:
        """So many guesses came at once, the first since something was asked, perhaps."""
        talk = self._talks.get(sequence)
        if talk:
            talk.vain = False
        if talk and talk.since is not None:
            waited = max(0.0, now - talk.since - guesses * self.each)
            self.wait += WEIGHT * (waited - self.wait) if self.wait else waited
            talk.since = None

    def forget(self, sequence: bytes) -> None:
        self._talks.pop(sequence, None)

"""What is guessed of which sequence, and how much of it goes with the next frame."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from daemon.scheduler.cost import CostModel, Groups, Pass
from daemon.scheduler.pipeline import Pipeline
from daemon.scheduler.sequence import Sequence
from daemon.scheduler.speculation.tempo import NONE, Course, Tempo, choose

MOST = 15  # guesses in a frame
STEP = 0.05  # acceptances that differ by less share a tempo
USES = 256  # of a tempo, before it is chosen anew: costs change


class Guesser(Protocol):
    """Where guesses come from."""

    def guess(self, sequence: Sequence, most: int) -> list[int]:
        """Up to `most` tokens that may follow what is known and assumed of the sequence."""


class FromItself:
    """The sequence's own n-grams."""

    def guess(self, sequence: Sequence, most: int) -> list[int]:
        return sequence.lookup.guess(sequence.history.tokens, [*sequence.guesses.tokens], most)


class Speculator:
    def __init__(self, enabled: bool, guesser: Guesser | None = None) -> None:
        self._guesser = guesser or FromItself()
        self.counts: Counter[str] = Counter()
        self._enabled = enabled
        self._context_length = 0
        self._reach: int | None = None
        self._cost: CostModel | None = None
        self._tempi: dict[tuple[int, Groups], tuple[Tempo, int]] = {}

    def configure(self, pipeline: Pipeline | None, cost: CostModel | None) -> None:
        self._tempi.clear()
        self._cost = cost
        if pipeline:
            self._context_length = pipeline.context_length
            reaches = [stage.reach for stage in pipeline.memory if stage.reach is not None]
            self._reach = min(reaches, default=None)

    def beside(self, sequence: Sequence, groups: Groups) -> int:
        """How many guesses go with the known tokens of a sequence that decodes."""
        tempo = self._tempo(sequence, groups)
        self._fill(sequence, max(1, tempo.first))  # one is watched also if none is sent
        return self._counted(min(tempo.first, len(sequence.guesses)))

    def ahead(self, sequence: Sequence, groups: Groups) -> int:
        """How many guesses go on their own, after everything that was sent."""
        tempo = self._tempo(sequence, groups)
        if not tempo.after:
            return 0
        wanted = sequence.assumed + tempo.after
        self._fill(sequence, wanted)
        return self._counted(min(tempo.after, len(sequence.guesses) - sequence.assumed))

    def _counted(self, guesses: int) -> int:
        self.counts["sent"] += guesses
        return guesses

    def _fill(self, sequence: Sequence, wanted: int) -> None:
        """Have so many guesses, if there are any."""
        room = min(wanted, sequence.guess_room(self._context_length), self._most(sequence))
        if (lacking := room - len(sequence.guesses)) > 0 and self._enabled:
            sequence.guess(self._guesser.guess(sequence, lacking))

    def _most(self, sequence: Sequence) -> int:
        """A cache must be able to give up everything that is not known to be right."""
        if self._reach is None:
            return len(sequence.guesses) + MOST
        return max(0, self._reach - 1)

    def _tempo(self, sequence: Sequence, groups: Groups) -> Tempo:
        if not self._enabled or self._cost is None or sequence.alone:
            return NONE
        key = round(sequence.acceptance.share / STEP), groups
        tempo, uses = self._tempi.get(key, (NONE, 0))
        if not uses:
            positions = len(sequence.history)
            course = _course(self._cost, groups, positions)
            idle = groups.count < self._cost.stages or groups.size == 1 == groups.count
            tempo, uses = choose(course, min(1.0, key[0] * STEP), MOST, idle), USES
        self._tempi[key] = tempo, uses - 1
        return tempo

    def judged(self, right: int, wrong: int, cancelled: int) -> None:
        """So many guesses were right, and wrong; frames are under way in vain."""
        self.counts["right"] += right
        self.counts["wrong"] += wrong
        self.counts["cancelled"] += cancelled

    def as_dict(self) -> dict[str, Any]:
        """Guesses sent, right and wrong; what was sent after a wrong one is neither. Frames that
        were cancelled.
        """
        return {name: self.counts[name] for name in ("sent", "right", "wrong", "cancelled")}


def _course(cost: CostModel, groups: Groups, positions: int) -> Course:
    """Of a group of sequences that all guess as much, each of so many positions."""

    def asked(n: int) -> Pass:
        return Pass(groups.size * n, groups.size * n * positions)

    return Course(
        lambda n: [cost.stage_seconds(i, asked(n)) for i in range(cost.stages)],
        lambda n: cost.between_seconds(groups.size * n),
        groups=groups.count,
    )

"""What is guessed of which sequence, and how much of it goes with the next frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from typing import Any

from daemon.scheduler.actions import Propose
from daemon.scheduler.cost import CostModel, Groups, Pass
from daemon.scheduler.memory import Memory
from daemon.scheduler.pipeline import Pipeline
from daemon.scheduler.sequence import Sequence, SequenceStatus
from daemon.scheduler.speculation.acceptance import Acceptance, share_of
from daemon.scheduler.speculation.draft import Draft
from daemon.scheduler.speculation.guesser import FromItself, Guesser, obstacle, repeats_itself
from daemon.scheduler.speculation.tempo import MOST, NONE, Course, Tempo, choose
from daemon.scheduler.speculation.trial import Trial

ANEW_SECONDS = 2.0  # after which a tempo is chosen again: costs change
PATIENCE = 2.0  # times as long as guesses take, they are waited for
FOLLOW = 16  # tokens by which the draft may lag behind while it is not needed
PROBE = 8  # where nothing is guessed, the guess of every so many tokens is looked at


class Speculator:
    """Guesses come from the sequences themselves where these have been right about as often as
    guesses are, else from the draft model, where there is one that answers and is worth it.
    """

    def __init__(self, enabled: bool, guesser: Guesser | None = None) -> None:
        self._guesser = guesser or FromItself()
        self.counts: Counter[str] = Counter()
        self.draft = Draft()
        self.acceptance = Acceptance()  # of all sequences
        self._enabled = enabled
        self._context_length = 0
        self._reach: int | None = None
        self._cost: CostModel | None = None
        self._groups = Groups(1, 1)
        self._trials: dict[Groups, Trial] = {}
        self._trial = Trial()
        self._last = NONE
        self._tempi: dict[Groups, dict[tuple[int, bool], tuple[Tempo, float]]] = {}
        # Of these groups: by acceptance, and whether a draft is needed.
        self._these: dict[tuple[int, bool], tuple[Tempo, float]] = {}
        self._now = 0.0
        self.runs_ahead = False  # whether any of them may have frames of guesses alone
        self._changed: dict[bytes, Sequence] = {}
        self._holds: dict[bytes, tuple[int, float]] = {}  # at which length, and until when

    def configure(self, pipeline: Pipeline | None, cost: CostModel | None) -> None:
        self._tempi.clear()
        self._these, self.runs_ahead = {}, False
        self._holds.clear()
        self._cost = cost
        if pipeline:
            self._context_length = pipeline.context_length
            self._reach = Memory(pipeline.memory).reach

    # --- what goes with the next frame ----------------------------------------------------------

    def among(self, groups: Groups, now: float) -> None:
        """What is asked from now on is of sequences that ride in such groups."""
        self._now = now
        if groups != self._groups or not self._these:
            self._groups = groups
            self._these = self._tempi.setdefault(groups, {})
            self._trial = self._trials.setdefault(groups, Trial())
            self._trial.interrupt()
            self.runs_ahead = any(tempo.after for tempo, _ in self._these.values())

    def holds(self, sequence: Sequence, now: float) -> bool:
        """Whether the known tokens of a sequence wait for guesses that the draft is to bring; not
        for much longer than these take as a rule.
        """
        if not self._drafting(sequence):
            return False
        tempo = self._tempo(sequence)
        wanted = min(tempo.first, self._room(sequence))
        self._fill(sequence, wanted)
        if len(sequence.guesses) >= wanted:
            self._holds.pop(sequence.id, None)
            return False
        length = len(sequence.history)
        since, until = self._holds.get(sequence.id, (-1, 0.0))
        if since != length:
            until = now + PATIENCE * (self.draft.wait + wanted * self.draft.each)
            self._holds[sequence.id] = length, until
        return now < until

    def next_wake(self, now: float) -> float | None:
        """When somebody has waited long enough for guesses."""
        return min((until for _, until in self._holds.values() if until > now), default=None)

    def beside(self, sequence: Sequence) -> int:
        """How many guesses go with the known tokens of a sequence that decodes."""
        tempo = self._tempo(sequence)
        if self._holds.pop(sequence.id, None) and not sequence.guesses:
            self.draft.in_vain(sequence.id)
        if not tempo.first:
            if not sequence.generated % PROBE:
                self._fill(sequence, 1)  # it is watched, and not sent
            return 0
        self._fill(sequence, tempo.first)
        return self._counted(min(tempo.first, len(sequence.guesses)))

    def ahead(self, sequence: Sequence, under_way: int) -> int:
        """How many guesses go on their own, after so many frames that are under way."""
        tempo = self._tempo(sequence)
        if not tempo.after or under_way >= tempo.depth:
            return 0
        wanted = sequence.assumed + tempo.after
        self._fill(sequence, wanted)
        there = len(sequence.guesses) - sequence.assumed
        whole = min(tempo.after, self._room(sequence) - sequence.assumed)
        if there < whole and self._drafting(sequence):
            return 0  # more are on their way
        self.counts["frames_ahead"] += there > 0
        return self._counted(min(tempo.after, there))

    # --- the draft model ------------------------------------------------------------------------

    def changed(self, sequence: Sequence) -> None:
        """It has other tokens than before, or the draft has."""
        if self.draft.here and self._enabled:
            self._changed[sequence.id] = sequence

    def refuted(self, sequence: Sequence) -> None:
        """Its guesses came to nothing."""
        self.draft.refuted(sequence)
        self.changed(sequence)

    def proposals(self, now: float) -> list[Propose]:
        """What to ask the draft model after what has changed."""
        if not self._changed or self._cost is None or not self.draft.here:
            return []
        asked = [
            self.draft.propose(sequence, self._until(sequence), now)
            for sequence in self._changed.values()
            if self._needs_draft(sequence) or self.draft.behind(sequence) >= FOLLOW
        ]
        self._changed.clear()
        return [one for one in asked if one]

    def drafted(
        self,
        sequence: Sequence,
        position: int,
        prefix_hash: int,
        tokens: tuple[int, ...],
        now: float,
    ) -> None:
        """The draft guesses `tokens` from `position` on, after tokens of this hash."""
        known = len(sequence.history) + len(sequence.guesses)
        if sequence.status is not SequenceStatus.DECODE or not 0 <= position <= known:
            return
        if sequence.hash_at(position) != prefix_hash:
            self.counts["late"] += 1  # guessed from what did not happen
            return
        line = [*sequence.history.tokens[position:]]
        line += islice(sequence.guesses.tokens, max(0, position - len(sequence.history)), None)
        if [*tokens[: len(line)]] != line[: len(tokens)]:
            self.counts["late"] += 1  # something else is assumed by now, but it answers
            self.draft.heard(sequence.id, len(tokens), now)
            return
        new = tokens[len(line) : len(line) + max(0, self._room(sequence) - len(sequence.guesses))]
        if new:
            self.draft.heard(sequence.id, len(new), now)
            sequence.guess(new)

    def draft_ready(self, seconds: float | None, running: Iterable[Sequence]) -> None:
        """A draft model is there, or gone. What others have guessed and is not sent goes."""
        self.draft.ready(seconds)
        self._trials.clear()
        self._trial = Trial()
        self._tempi.clear()
        self._these = {}
        self._holds.clear()
        for sequence in running:
            if not sequence.assumed:
                sequence.guesses.clear()
            self.changed(sequence)

    def delivered(self, sequence: Sequence, tokens: int, now: float) -> None:
        """So many of its tokens go to their client."""
        if self.draft.here:
            # Asked each time: so n-grams keep up with the sequence, and are judged by it.
            otherwise = bool(self._guesser.guess(sequence, 1))
            self._trial.delivered(tokens, now, otherwise)

    def forget(self, sequence: bytes) -> None:
        self._trial.interrupt()
        self.draft.forget(sequence)
        self._changed.pop(sequence, None)
        self._holds.pop(sequence, None)

    def _until(self, sequence: Sequence) -> int:
        """How far the draft may run ahead: to what frames can take that are under way and, when one
        of these has come back right, the next. Where nothing is guessed it follows, and is asked
        now and then.
        """
        length = len(sequence.history)
        if sequence.status is not SequenceStatus.DECODE or not self._needs_draft(sequence):
            return length
        tempo = self._tempo(sequence)
        if tempo == NONE:
            return length + (sequence.generated % PROBE == 0)
        ahead = tempo.first + 1 + (tempo.after * (tempo.depth + 1) or tempo.first + 1)
        return length + min(ahead, self._room(sequence))

    # --- rules ----------------------------------------------------------------------------------

    def _counted(self, guesses: int) -> int:
        self.counts["sent"] += guesses
        return guesses

    def _fill(self, sequence: Sequence, wanted: int) -> None:
        """Have so many guesses, if there are any to be had at once."""
        lacking = min(wanted, self._room(sequence)) - len(sequence.guesses)
        own = repeats_itself(sequence) or not self._drafting(sequence)
        if lacking > 0 and self._enabled and own:
            sequence.guess(self._guesser.guess(sequence, lacking))

    def _drafting(self, sequence: Sequence) -> bool:
        """Whether the draft is to be relied on."""
        return self._trial.drafting and self.draft.brings(sequence.id)

    def _needs_draft(self, sequence: Sequence) -> bool:
        """Whether there is one, and nothing else says what comes after its guesses."""
        if not self._drafting(sequence):
            return False
        return not (repeats_itself(sequence) and self._guesser.guess(sequence, 1))

    def _room(self, sequence: Sequence) -> int:
        """How many guesses it may have. A cache must be able to give up everything that is not
        known to be right.
        """
        room = sequence.guess_room(self._context_length)
        return room if self._reach is None else max(0, min(room, self._reach - 1))

    def _tempo(self, sequence: Sequence) -> Tempo:
        cost, groups = self._cost, self._groups
        if not self._enabled or cost is None or sequence.alone:
            return NONE
        if sequence.request.params.logprobs is not None:
            return NONE  # they would not fit into the answer of a large step
        if groups.size > 1 and not cost.mixed:
            return NONE  # rows of several positions are computed one by one there
        level, drafted = sequence.acceptance.level, self._needs_draft(sequence)
        tempo, until = self._these.get((level, drafted), (NONE, self._now))
        if until <= self._now:
            course = self._course(cost, len(sequence.history), drafted)
            tempo = choose(course, share_of(level), MOST, ahead=groups == Groups(1, 1))
            self._these[level, drafted] = tempo, self._now + ANEW_SECONDS
            self.runs_ahead = any(t.after for t, _ in self._these.values())
        self._last = tempo
        return tempo

    def _course(self, cost: CostModel, positions: int, drafted: bool) -> Course:
        """Of a group of sequences that all guess as much, each of so many positions; `drafted`: the
        draft has to make the guesses.
        """
        size = self._groups.size
        single = size == 1

        def asked(n: int) -> Pass:
            attended = size * n * positions
            return Pass(size * n, attended, n == 1 or not single, n > 1 and single)

        return Course.of(
            lambda n: cost.stage_seconds(asked(n)),
            lambda n: cost.between_seconds(size * n),
            wait=self.draft.wait if drafted else 0.0,
            each=self.draft.each if drafted else 0.0,
            groups=self._groups.count,
        )

    def judged(self, right: int, wrong: int, cancelled: int) -> None:
        """So many guesses that were sent were right, and wrong; frames are under way in vain."""
        self.counts["right"] += right
        self.counts["wrong"] += wrong
        self.counts["cancelled"] += cancelled

    def as_dict(self) -> dict[str, Any]:
        """Guesses sent, right and wrong; what was sent after a wrong one is neither. Frames with
        guesses alone, and those of them that were cancelled; guesses of the draft that came too
        late. `tempo` is the last that was chosen; `why` nothing is ever guessed, if so.
        """
        names = ("sent", "right", "wrong", "frames_ahead", "cancelled", "late")
        judged = self.counts["right"] + self.counts["wrong"]
        return {
            "source": ("draft" if self.draft.here else "n-grams") if self._enabled else "off",
            "why": obstacle(self._reach),
            **{name: self.counts[name] for name in names},
            "acceptance": self.counts["right"] / judged if judged else None,
            "tempo": asdict(self._last),
        }

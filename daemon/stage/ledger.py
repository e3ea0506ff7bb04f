"""What one stage knows of its sequences, and what it therefore does with each span of a frame.

The rules are DESIGN.md §3. The ledger holds tokens and hashes, never KV: the stage trims its caches
to `Compute.trim_to` and computes, or lets the span leave the frame with the departure of `Skip`.
`admit` enters the span's tokens before they are computed; when computing fails, or a cache could be
trimmed only to less, `forget` takes them out again.

    state of the sequence                              span                        answer
    released up to attempt a                           attempt <= a                Skip CANCELLED
    attempt a                                          attempt < a                 Skip STALE
    attempt a, refused before                          attempt a                   Skip STALE
    attempt a, reached r                               attempt a, position < r     Skip DUPLICATE
    holds fewer than position, or another hash there   attempt >= a                Skip MISSING
    otherwise                                                                      Compute
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.history import History
from transports.frame import FINAL_ATTEMPT, Departure, Fork, Reason, Span

Constants = Mapping[str, Any]

NOT_STARTED = -1
TOMBSTONES = 4096  # far more than the releases that can overtake one frame on its way


@dataclass(frozen=True, slots=True)
class Compute:
    """Trim the caches to `trim_to` tokens, then compute the span."""

    trim_to: int


@dataclass(frozen=True, slots=True)
class Skip:
    """The span leaves the frame here."""

    departure: Departure


@dataclass(slots=True)
class _Entry:
    """`reached`: end of the last span admitted in `attempt`, NOT_STARTED before the first.
    `doubted`: since the last span that was admitted, one came that follows other tokens.
    """

    attempt: int
    history: History = field(default_factory=History)
    constants: Constants | None = None
    reached: int = NOT_STARTED
    refused: bool = False
    doubted: bool = False

    def begin(self, attempt: int) -> None:
        self.attempt = attempt
        self.reached = NOT_STARTED
        self.refused = False


class SpanLedger:
    """Not thread-safe: it belongs to the compute thread."""

    def __init__(self, stage: int, tombstones: int = TOMBSTONES) -> None:
        self.stage = stage
        self.counts: dict[Reason, int] = dict.fromkeys(Reason, 0)
        self._entries: dict[bytes, _Entry] = {}
        self._released: dict[bytes, int] = {}  # up to which attempt, in the order of release
        self._tombstones = tombstones
        self._term = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, sequence: bytes) -> bool:
        return sequence in self._entries

    def obey(self, term: int) -> None:
        """A coordinator of this term counts attempts from now on, and one that is new counts them
        from the beginning. What is held stays; no frame of the terms before is let in any more.
        """
        if term > self._term:
            self._term = term
            self._released.clear()
            for entry in self._entries.values():
                entry.begin(0)

    def admit(
        self, span: Span, tokens: Sequence[int], constants: Constants | None
    ) -> Compute | Skip:
        """Decide on one span; `constants` are those its frame carries for it, if any."""
        if span.attempt <= self._released.get(span.sequence, NOT_STARTED):
            return self._skip(span, Reason.CANCELLED, 0)
        entry = self._entries.get(span.sequence)
        if entry is None:
            entry = self._entries[span.sequence] = _Entry(span.attempt)
        if span.attempt < entry.attempt:
            return self._skip(span, Reason.STALE, len(entry.history))
        if span.attempt > entry.attempt:
            entry.begin(span.attempt)
        if entry.refused:
            return self._skip(span, Reason.STALE, len(entry.history))
        if span.position < entry.reached:
            return self._skip(span, Reason.DUPLICATE, entry.reached)
        if constants is not None:
            entry.constants = constants
        if span.position > len(entry.history):
            return Skip(self._refuse(entry, span, Reason.MISSING, len(entry.history)))
        if entry.history.hash_at(span.position) != span.prefix_hash:
            # As a rule these are guesses of a dead attempt, and the span is one of guesses whose
            # forerunner is lost: all that the coordinator knows is right. When even that is not,
            # which of them are is not known.
            held = 0 if entry.doubted else span.position - 1
            entry.doubted = True
            return Skip(self._refuse(entry, span, Reason.MISSING, held))
        if entry.constants is None:  # the span that had them is lost
            return Skip(self._refuse(entry, span, Reason.MISSING, span.position))
        entry.doubted = False
        entry.history.trim(span.position)
        entry.history.extend(tokens)
        entry.reached = len(entry.history)
        return Compute(trim_to=span.position)

    def lend(self, span: Span, tokens: Sequence[int]) -> Departure | None:
        """Another stage is to compute this span, from what this one made of the same tokens: why it
        cannot, if so. Nothing is entered, and no attempt begins.
        """
        if span.attempt <= self._released.get(span.sequence, NOT_STARTED):
            return self._skip(span, Reason.CANCELLED, 0).departure
        entry = self._entries.get(span.sequence)
        if entry is None:
            return self._skip(span, Reason.MISSING, 0).departure
        if span.attempt < entry.attempt:
            return self._skip(span, Reason.STALE, len(entry.history)).departure
        history, position = entry.history, span.position
        if len(history) < position or history.hash_at(position) != span.prefix_hash:
            return self._skip(span, Reason.MISSING, 0).departure
        if history.tokens[position : position + span.length] != list(tokens):
            return self.lacks(span)
        return None

    def lacks(self, span: Span) -> Departure:
        """What the tokens before `span` led to may be lent, but not what those in it did."""
        return self._skip(span, Reason.MISSING, span.position).departure

    def forget(self, span: Span, held: int, reason: Reason) -> Departure:
        """`span` was admitted but is not in the caches, which now hold `held` valid tokens: FAILED
        when computing raised, MISSING when a cache could be trimmed only to less than asked for.
        """
        entry = self._entries[span.sequence]
        entry.history.trim(held)
        return self._refuse(entry, span, reason, len(entry.history))

    def adopt(self, sequence: bytes, history: History) -> bool:
        """The caches of `sequence` were restored, with these tokens in them: the first attempt that
        comes may start where they end. False when it was released meanwhile, or is held already.
        """
        if not self.awaits(sequence):
            return False
        self._entries[sequence] = _Entry(0, history)
        return True

    def awaits(self, sequence: bytes) -> bool:
        """Whether it could be adopted now."""
        return sequence not in self._released and sequence not in self._entries

    def revoke(self, sequence: bytes, attempt: int) -> None:
        """Attempts of `sequence` below `attempt` are dead. An unknown sequence is left unknown, so
        that nothing stays behind when its release came first.
        """
        entry = self._entries.get(sequence)
        if entry is not None and attempt > entry.attempt:
            entry.begin(attempt)

    def release(self, sequence: bytes, attempt: int = FINAL_ATTEMPT) -> bool:
        """Forget the sequence and refuse late frames of `attempt` and before; a later attempt that
        has begun stays. True when there was something to forget.
        """
        before = self._released.pop(sequence, NOT_STARTED)
        self._released[sequence] = max(before, attempt)
        if len(self._released) > self._tombstones:
            del self._released[next(iter(self._released))]
        entry = self._entries.get(sequence)
        if entry is None or entry.attempt > attempt:
            return False
        del self._entries[sequence]
        return True

    def can_fork(self, fork: Fork) -> bool:
        """Whether the source is held, and the target waits for tokens."""
        source, target = self._entries.get(fork.source), self._entries.get(fork.target)
        if source is None or fork.attempt <= self._released.get(fork.target, NOT_STARTED):
            return False
        return target is None or (not len(target.history) and target.attempt <= fork.attempt)

    def fork(self, fork: Fork, length: int) -> None:
        """The target's caches now hold the first `length` tokens of the source."""
        entry = self._entries.setdefault(fork.target, _Entry(fork.attempt))
        if fork.attempt > entry.attempt:
            entry.begin(fork.attempt)
        entry.history = self._entries[fork.source].history.head(length)

    def of(self, sequences: Container[bytes]) -> SpanLedger:
        """Another one, which knows only of these that anything is held of them. This one is not to
        be asked again after the other was.
        """
        other = SpanLedger(self.stage, self._tombstones)
        other.counts = self.counts
        other._released, other._term = self._released, self._term
        other._entries = {s: entry for s, entry in self._entries.items() if s in sequences}
        return other

    def clear(self) -> None:
        """The caches are gone, or hold other layers. Releases stay in force."""
        self._entries.clear()

    def constants(self, sequence: bytes) -> Constants:
        """Of a sequence with an admitted span; KeyError for another."""
        constants = self._entries[sequence].constants
        if constants is None:
            raise KeyError(sequence)
        return constants

    def tokens(self, sequence: bytes) -> Sequence[int]:
        """The tokens that the caches of `sequence` hold: not to be changed or kept."""
        return self._entries[sequence].history.tokens

    def hash_at(self, sequence: bytes, length: int) -> int:
        """Hash of the first `length` of these tokens."""
        return self._entries[sequence].history.hash_at(length)

    def held(self) -> dict[bytes, int]:
        """Tokens held per sequence: what a stage tells a coordinator it says hello to."""
        return {sequence: len(entry.history) for sequence, entry in self._entries.items()}

    def check_integrity(self) -> None:
        assert len(self._released) <= self._tombstones, "ledger: too many tombstones"
        for sequence, entry in self._entries.items():
            released = self._released.get(sequence, NOT_STARTED)
            assert entry.attempt > released, "ledger: released sequence still held"
            entry.history.check_integrity()
            if entry.reached != NOT_STARTED and not entry.refused:
                assert entry.reached == len(entry.history), "ledger: tokens beyond the attempt"
            assert entry.constants is not None or entry.reached == NOT_STARTED, (
                "ledger: computed without constants"
            )

    def _refuse(self, entry: _Entry, span: Span, reason: Reason, held: int) -> Departure:
        entry.refused = True  # one Nack an attempt; what follows it in the attempt is only skipped
        return self._skip(span, reason, held).departure

    def _skip(self, span: Span, reason: Reason, held: int) -> Skip:
        self.counts[reason] += 1
        return Skip(Departure(span.sequence, span.attempt, self.stage, reason, held))

"""The microbatches that are in the pipe, and until when each is expected back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from transports.frame import Span

MAX_DOUBLINGS = 6


@dataclass(frozen=True, slots=True)
class Microbatch:
    """What one frame asks for, as it was sent. `seconds` is its predicted time through the pipe,
    what is queued ahead of it included; `cost` its predicted time on the slowest stage; `step`:
    some of its sequences decode, `ahead`: it has nothing but guesses; `tries` how often it was in
    vain before; `alone`: nothing else may be in flight beside it. Without spans it only carries
    commands.
    """

    id: int
    spans: tuple[Span, ...]
    sent: float
    seconds: float
    cost: float
    step: bool
    ahead: bool = False
    tries: int = 0
    alone: bool = False


class Window:
    """In the order of sending. Ids grow, and are never used twice."""

    def __init__(self, grace_seconds: float, patience: float) -> None:
        self._grace = grace_seconds
        self._patience = patience
        self._flying: dict[int, Microbatch] = {}
        self._awaited: dict[int, dict[bytes, Span]] = {}  # spans that are not settled
        self._by_sequence: dict[bytes, dict[int, None]] = {}  # where such a span is, in order
        self._deadlines: dict[int, float] = {}
        self._seen: dict[int, set[int]] = {}  # stages that showed progress on a microbatch

    def __len__(self) -> int:
        """Microbatches that compute something."""
        return sum(1 for m in self._flying.values() if m.spans)

    def __iter__(self) -> Iterator[Microbatch]:
        return iter(list(self._flying.values()))

    def __contains__(self, microbatch: int) -> bool:
        return microbatch in self._flying

    def get(self, microbatch: int) -> Microbatch | None:
        return self._flying.get(microbatch)

    @property
    def steps(self) -> int:
        """Decode steps among them."""
        return sum(1 for m in self._flying.values() if m.spans and m.step)

    @property
    def ahead(self) -> int:
        """Frames of guesses alone among them."""
        return sum(1 for m in self._flying.values() if m.spans and m.ahead)

    @property
    def alone(self) -> bool:
        return any(m.alone for m in self._flying.values() if m.spans)

    @property
    def carriers(self) -> int:
        """Frames that carry only commands."""
        return sum(1 for m in self._flying.values() if not m.spans)

    def awaited(self, microbatch: int) -> tuple[Span, ...]:
        """Its spans that are not settled."""
        return tuple(self._awaited.get(microbatch, {}).values())

    def spans_of(self, sequence: bytes) -> list[tuple[int, Span]]:
        """Which microbatches have a span of it that is not settled, in order."""
        return [(i, self._awaited[i][sequence]) for i in self._by_sequence.get(sequence, ())]

    def queued_seconds(self) -> float:
        """What a new frame may find ahead of it at the slowest stage."""
        return sum(m.cost for m in self._flying.values())

    def add(self, microbatch: Microbatch) -> None:
        self._flying[microbatch.id] = microbatch
        self._awaited[microbatch.id] = {span.sequence: span for span in microbatch.spans}
        for span in microbatch.spans:
            self._by_sequence.setdefault(span.sequence, {})[microbatch.id] = None
        self._seen[microbatch.id] = set()
        self._deadlines[microbatch.id] = microbatch.sent + self._allowed(microbatch)

    def remove(self, microbatch: int) -> Microbatch | None:
        """It came back, or is given up."""
        self._deadlines.pop(microbatch, None)
        self._seen.pop(microbatch, None)
        for sequence in self._awaited.pop(microbatch, ()):
            self._forget(microbatch, sequence)
        return self._flying.pop(microbatch, None)

    def drop_sequence(self, sequence: bytes) -> list[int]:
        """Nothing that is in flight for the sequence counts any more. Returns the microbatches that
        are given up because they had no other span.
        """
        return [i for i, _ in self.spans_of(sequence) if self.drop_span(i, sequence)]

    def drop_span(self, microbatch: int, sequence: bytes) -> bool:
        """One span is settled. True when it was the microbatch's last."""
        awaited = self._awaited.get(microbatch, {})
        if awaited.pop(sequence, None) is None:
            return False
        self._forget(microbatch, sequence)
        if not awaited:
            self.remove(microbatch)
        return not awaited

    def progress(self, microbatch: int, stage: int, now: float) -> None:
        """`stage` has taken up the microbatch: it and all behind it have their whole time again.

        Each stage counts once, so that a stage that spins is found, and a frame that was lost is
        put off only by those sent before it.
        """
        seen = self._seen.get(microbatch)
        if seen is None or stage in seen:
            return
        seen.add(stage)
        self.restart(microbatch, now)

    def restart(self, microbatch: int, now: float) -> None:
        """The pipe moves: this microbatch, and what was sent after it, may take its time anew."""
        for other in self._flying.values():
            if other.id >= microbatch:
                self._deadlines[other.id] = now + self._allowed(other)

    def expired(self, now: float) -> list[Microbatch]:
        return [self._flying[i] for i, deadline in self._deadlines.items() if deadline <= now]

    def next_deadline(self) -> float | None:
        return min(self._deadlines.values(), default=None)

    def clear(self) -> None:
        self._flying.clear()
        self._awaited.clear()
        self._by_sequence.clear()
        self._deadlines.clear()
        self._seen.clear()

    def check_integrity(self) -> None:
        for others in (self._awaited, self._deadlines, self._seen):
            assert self._flying.keys() == others.keys(), "window: keys"
        assert list(self._flying) == sorted(self._flying), "window: order"
        for key, microbatch in self._flying.items():
            assert key == microbatch.id, "window: id"
            assert bool(microbatch.spans) == bool(self._awaited[key]), "window: nothing is awaited"
            sequences = [s.sequence for s in microbatch.spans]
            assert len(set(sequences)) == len(sequences), "window: a sequence twice in a frame"
        listed = {(i, s) for s, places in self._by_sequence.items() for i in places}
        assert listed == {(i, s) for i, spans in self._awaited.items() for s in spans}, "window: by"
        assert all(self._by_sequence.values()), "window: nowhere"

    def _forget(self, microbatch: int, sequence: bytes) -> None:
        places = self._by_sequence[sequence]
        del places[microbatch]
        if not places:
            del self._by_sequence[sequence]

    def _allowed(self, microbatch: Microbatch) -> float:
        longer: float = 2.0 ** min(microbatch.tries, MAX_DOUBLINGS)
        return (self._grace + self._patience * microbatch.seconds) * longer

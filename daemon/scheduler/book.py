"""Which sequences wait and which run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from daemon.scheduler.sequence import Sequence, SequenceStatus


class Book:
    """First come, first admitted. A sequence leaves it when it ends."""

    def __init__(self, max_running: int) -> None:
        self._max_running = max_running
        self._entered = 0
        self.waiting: dict[bytes, Sequence] = {}
        self.running: dict[bytes, Sequence] = {}
        self._lengths: dict[bytes, int] = {}  # of those that decode
        self._positions = 0  # the sum of them

    def __iter__(self) -> Iterator[Sequence]:
        """Running ones, then those that wait, in order."""
        yield from list(self.running.values())
        yield from list(self.waiting.values())

    def __contains__(self, sequence: bytes) -> bool:
        return sequence in self.running or sequence in self.waiting

    def get(self, sequence: bytes) -> Sequence | None:
        return self.running.get(sequence) or self.waiting.get(sequence)

    def reported(self, held: Mapping[bytes, int]) -> None:
        """A stage holds so many tokens of these, and nothing of others."""
        for sequence in self.waiting.values():
            if sequence.inherited is not None:
                sequence.inherited = min(sequence.inherited, held.get(sequence.id, 0))

    def decoding(self) -> tuple[int, int]:
        """How many sequences decode, and how many positions they have."""
        return len(self._lengths), self._positions

    def changed(self, sequence: Sequence) -> None:
        """Its status or its length; to be said each time, so that nobody has to ask all."""
        self._positions -= self._lengths.pop(sequence.id, 0)
        if sequence.status is SequenceStatus.DECODE and sequence.id in self.running:
            self._lengths[sequence.id] = len(sequence.history)
            self._positions += len(sequence.history)

    @property
    def full(self) -> bool:
        """As many run as may."""
        return len(self.running) >= self._max_running

    @property
    def youngest(self) -> Sequence:
        """Of those that run, who came last."""
        return max(self.running.values(), key=lambda sequence: sequence.number)

    def enter(self, sequence: Sequence) -> None:
        self._entered += 1
        sequence.number = self._entered
        self.waiting[sequence.id] = sequence

    def run(self, sequence: Sequence) -> None:
        del self.waiting[sequence.id]
        self.running[sequence.id] = sequence
        self.changed(sequence)

    def wait(self, sequence: Sequence) -> None:
        """It ran, and is the next to run again."""
        del self.running[sequence.id]
        self.changed(sequence)
        self.waiting = {sequence.id: sequence, **self.waiting}

    def remove(self, sequence: Sequence) -> None:
        self.running.pop(sequence.id, None)
        self.waiting.pop(sequence.id, None)
        self.changed(sequence)

    def check_integrity(self) -> None:
        assert not self.running.keys() & self.waiting.keys(), "book: runs and waits"
        assert len(self.running) <= self._max_running, "book: too many running"
        for sequence in self:
            sequence.check_integrity()
            waits = sequence.status is SequenceStatus.WAITING
            assert waits == (sequence.id in self.waiting), "book: status"
        decode = [s for s in self.running.values() if s.status is SequenceStatus.DECODE]
        lengths = {s.id: len(s.history) for s in decode}
        assert self._lengths == lengths, "book: lengths"
        assert self._positions == sum(lengths.values()), "book: positions"

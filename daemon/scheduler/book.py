"""Which sequences wait and which run."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.scheduler.sequence import Sequence, SequenceStatus


class Book:
    """First come, first admitted. A sequence leaves it when it ends."""

    def __init__(self, max_running: int) -> None:
        self._max_running = max_running
        self.waiting: dict[bytes, Sequence] = {}
        self.running: dict[bytes, Sequence] = {}

    def __iter__(self) -> Iterator[Sequence]:
        """Running ones, then those that wait, in order."""
        yield from list(self.running.values())
        yield from list(self.waiting.values())

    def __contains__(self, sequence: bytes) -> bool:
        return sequence in self.running or sequence in self.waiting

    def get(self, sequence: bytes) -> Sequence | None:
        return self.running.get(sequence) or self.waiting.get(sequence)

    def decoding(self) -> tuple[int, int]:
        """How many sequences decode, and how many positions they have."""
        lengths = [
            len(s.history) for s in self.running.values() if s.status is SequenceStatus.DECODE
        ]
        return len(lengths), sum(lengths)

    def admit(self, now: float) -> Iterator[Sequence]:
        """Move whom there is room for from waiting to running."""
        while self.waiting and len(self.running) < self._max_running:
            sequence = self.waiting.pop(next(iter(self.waiting)))
            sequence.admitted = now
            sequence.begin_attempt(0)
            self.running[sequence.id] = sequence
            yield sequence

    def remove(self, sequence: bytes) -> None:
        self.running.pop(sequence, None)
        self.waiting.pop(sequence, None)

    def check_integrity(self) -> None:
        assert not self.running.keys() & self.waiting.keys(), "book: runs and waits"
        assert len(self.running) <= self._max_running, "book: too many running"
        for sequence in self:
            sequence.check_integrity()
            waits = sequence.status is SequenceStatus.WAITING
            assert waits == (sequence.id in self.waiting), "book: status"

"""Which running sequences have something to send, in the order of their turns."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from daemon.scheduler.sequence import Sequence, SequenceStatus


class ReadyQueue:
    """Round robins: sequences that decode, those that prefill, and those that are computed alone. A
    sequence that must wait before it is issued again is parked. One of which everything known is
    sent is not ready, but may go on with guesses.
    """

    def __init__(self) -> None:
        self._decode: dict[bytes, Sequence] = {}
        self._prefill: dict[bytes, Sequence] = {}
        self._alone: dict[bytes, Sequence] = {}
        self._parked: dict[bytes, tuple[float, Sequence]] = {}
        self._awaited: dict[bytes, Sequence] = {}

    def __contains__(self, sequence: bytes) -> bool:
        queues = (self._decode, self._prefill, self._alone, self._parked)
        return any(sequence in queue for queue in queues)

    def decode(self, most: int) -> tuple[Sequence, ...]:
        """Whose turn it is to decode."""
        return tuple(islice(self._decode.values(), most))

    @property
    def prefill(self) -> Sequence | None:
        """Whose turn it is to prefill."""
        return next(iter(self._prefill.values()), None)

    @property
    def alone(self) -> Sequence | None:
        """Whose turn it is to be computed with nothing beside it."""
        return next(iter(self._alone.values()), None)

    @property
    def awaited(self) -> Iterable[Sequence]:
        """Which decode, and have nothing to send but guesses, in the order of their turns."""
        return self._awaited.values()

    def push(self, sequence: Sequence) -> None:
        """To the end of its round."""
        if not sequence.remaining:
            if sequence.status is SequenceStatus.DECODE and not sequence.alone:
                self._awaited[sequence.id] = sequence
            return
        self._awaited.pop(sequence.id, None)
        if sequence.alone:
            self._alone[sequence.id] = sequence
            return
        decodes = sequence.status is SequenceStatus.DECODE
        (self._decode if decodes else self._prefill)[sequence.id] = sequence

    def park(self, sequence: Sequence, until: float) -> None:
        self._parked[sequence.id] = (until, sequence)

    def wake(self, now: float) -> None:
        """Push those whose time has come."""
        for key, (until, sequence) in list(self._parked.items()):
            if until <= now:
                del self._parked[key]
                self.push(sequence)

    def next_wake(self) -> float | None:
        return min((until for until, _ in self._parked.values()), default=None)

    def discard(self, sequence: bytes) -> None:
        self._decode.pop(sequence, None)
        self._prefill.pop(sequence, None)
        self._alone.pop(sequence, None)
        self._parked.pop(sequence, None)
        self._awaited.pop(sequence, None)

    def clear(self) -> None:
        self._decode.clear()
        self._prefill.clear()
        self._alone.clear()
        self._parked.clear()
        self._awaited.clear()

    def check_integrity(self) -> None:
        listed = [*self._decode, *self._prefill, *self._alone, *self._parked]
        assert len(set(listed)) == len(listed), "ready: listed twice"
        for sequence in (*self._decode.values(), *self._prefill.values(), *self._alone.values()):
            assert sequence.remaining > 0, "ready: nothing to send"
            assert sequence.id not in self._awaited, "ready: has something to send, and has not"

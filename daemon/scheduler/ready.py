"""Which running sequences have something to send, in the order of their turns."""

from __future__ import annotations

from itertools import islice

from daemon.scheduler.sequence import Sequence, SequenceStatus


class ReadyQueue:
    """Two round robins: sequences that decode, and those that prefill; a third for those that are
    computed alone. A sequence that must wait before it is issued again is parked.
    """

    def __init__(self) -> None:
        self._decode: dict[bytes, Sequence] = {}
        self._prefill: dict[bytes, Sequence] = {}
        self._alone: dict[bytes, Sequence] = {}
        self._parked: dict[bytes, tuple[float, Sequence]] = {}

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

    def push(self, sequence: Sequence) -> None:
        """To the end of its round."""
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

    def clear(self) -> None:
        self._decode.clear()
        self._prefill.clear()
        self._alone.clear()
        self._parked.clear()

    def check_integrity(self) -> None:
        listed = [*self._decode, *self._prefill, *self._alone, *self._parked]
        assert len(set(listed)) == len(listed), "ready: listed twice"
        for sequence in (*self._decode.values(), *self._prefill.values(), *self._alone.values()):
            assert sequence.remaining > 0, "ready: nothing to send"

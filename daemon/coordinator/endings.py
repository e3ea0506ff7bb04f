"""What has ended a little while ago: whoever lost the coordinator in the last moment still gets the
end of the stream.
"""

from __future__ import annotations

from collections.abc import Iterator

from daemon.coordinator.answer import Answer
from daemon.coordinator.journal import Journal
from daemon.coordinator.stream import Stream

MOST = 256


class Endings:
    """Each stays for `seconds`, the oldest less when there are too many."""

    def __init__(self, journal: Journal, seconds: float) -> None:
        self._journal = journal
        self._seconds = seconds
        self._ended: dict[bytes, tuple[Stream, float]] = {}  # until when, in that order

    def __contains__(self, sequence: bytes) -> bool:
        return sequence in self._ended

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._ended)

    def add(self, stream: Stream, now: float) -> None:
        """Its record says how it ended."""
        self._ended[stream.sequence] = stream, now + self._seconds
        if len(self._ended) > MOST:
            self._drop(next(iter(self._ended)))

    def tell(self, sequence: bytes, answer: Answer, tokens: int) -> None:
        """All of it to a client that has so many tokens."""
        stream, _ = self._ended[sequence]
        stream.told = tokens
        answer.chunk(stream.head(None))
        if news := stream.news():
            answer.chunk(news)
        if stream.record.end:
            stream.record.end.say(answer)

    def tick(self, now: float) -> None:
        for sequence in [s for s, (_, until) in self._ended.items() if now >= until]:
            self._drop(sequence)

    def _drop(self, sequence: bytes) -> None:
        del self._ended[sequence]
        self._journal.forget(sequence)

    def check_integrity(self) -> None:
        assert len(self._ended) <= MOST, "endings: too many"
        for stream, _ in self._ended.values():
            assert stream.record.end is not None, "endings: it has not ended"

"""The journal of running requests: what a coordinator that is killed leaves to the next one.

A token is in it before its client is told. A disk that refuses, or damage, costs the use of the
journal until it can be written anew; a request goes on without. The file is bounded: what has ended
leaves it when it is written anew, which it is when it has grown to twice its size. Where what runs
is too much, a request that comes is not taken, and of those that grow the largest leaves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack

from daemon.coordinator.journal_file import RecordFile, read_records
from daemon.coordinator.journalled import End, Journalled, packed, sequence_id, unpacked

BEGIN, TOKENS, ENDED, SAVED, FORGOTTEN = range(5)  # kinds of records
LEAST_BYTES = 1 << 20  # a smaller file is not written anew
MOST_BYTES = 16 << 20  # of what is to be kept
MOST_READ = 4 * MOST_BYTES  # twice that, and what comes between two looks at its size, is less
_HEAD_BYTES = 16  # about, of a record beside its body
RETRY_SECONDS = 10.0
MOST_TRIES = 5  # coordinators that ended before a request came to another token: it ends them

Delivery = tuple[Journalled, Sequence[int], Sequence[Any]]


class Journal:
    """What is told of a request that is not in the journal changes nothing."""

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self._path = path
        self._note = note
        self._entries: dict[bytes, Journalled] = {}
        self._file: RecordFile | None = None
        self._base = 0  # bytes that the file had when it was written anew
        self._kept: dict[bytes, int] = {}  # bytes of each request, if it is written anew
        self._retry_at = 0.0
        self._full = self._refused = False

    def open(self) -> list[Journalled]:
        """Read what the coordinator before left, in the order in which it began, and write it anew:
        before anything else is called.
        """
        self._read()
        self._write_anew(0.0)
        return list(self._entries.values())

    # --- what happens to a request ---

    def begin(self, entry: Journalled) -> None:
        size = _size(entry)
        if self._bytes + size > MOST_BYTES:
            if not self._full:
                self._note(f"{self._path} is full: a restart would lose the requests that come now")
            self._full = True
            return
        self._full = False
        self._kept[entry.sequence] = size
        self._entries[entry.sequence] = entry
        self._append(BEGIN, entry.to_wire())

    def given(self, deliveries: Iterable[Delivery]) -> None:
        """What clients are about to be told, in one write: tokens, and their log-probabilities if
        asked for. They are in the entries already.
        """
        rows = []
        for entry, tokens, logprobs in deliveries:
            if entry.sequence in self._entries:
                row = (entry.sequence, packed(tokens), list(logprobs), entry.ttft)
                more = len(row[1]) + (len(msgpack.packb(row[2])) if row[2] else 0)
                self._kept[entry.sequence] += more
                rows.append(row)
        if rows:
            self._append(TOKENS, rows)
            self._bound()

    def ended(self, entry: Journalled) -> None:
        """Its `end` is known. It stays, for a client that has not heard it."""
        if entry.sequence in self._entries and entry.end:
            end = entry.end.to_wire()
            self._kept[entry.sequence] += len(msgpack.packb(end))
            self._append(ENDED, (entry.sequence, end, entry.unsaved))
            self._bound()

    def saved(self, sequence: bytes) -> None:
        """Its turn is on disk with its conversation."""
        if (entry := self._entries.get(sequence)) and entry.unsaved:
            entry.unsaved = False
            self._append(SAVED, sequence)

    def forget(self, sequence: bytes) -> None:
        """Nobody is going to ask for it any more."""
        if self._entries.pop(sequence, None):
            del self._kept[sequence]
            self._append(FORGOTTEN, sequence)

    def tick(self, now: float) -> None:
        grown = self._file is not None and self._file.size > max(LEAST_BYTES, 2 * self._base)
        if grown or (self._file is None and now >= self._retry_at):
            self._write_anew(now)

    def check_integrity(self) -> None:
        assert self._entries.keys() == self._kept.keys(), "journal: sizes"
        assert self._bytes <= MOST_BYTES, "journal: too large"
        for sequence, entry in self._entries.items():
            assert entry.sequence == sequence, "journal: another request"
            asked = entry.request.params.logprobs is not None
            assert len(entry.logprobs) == len(entry.tokens) * asked, "journal: logprobs"

    # --- the file ---

    @property
    def _bytes(self) -> int:
        """That the file has when it is written anew."""
        return sum(self._kept.values())

    def _bound(self) -> None:
        """Answers and their log-probabilities grow."""
        while self._bytes > MOST_BYTES:
            largest = max(self._kept, key=lambda sequence: self._kept[sequence])
            name = largest.hex()[:8]
            self._note(f"{self._path} is full: a restart would lose {name}, the largest in it")
            self.forget(largest)

    def _append(self, kind: int, body: Any) -> None:
        if self._file is None:
            return
        try:
            self._file.append(msgpack.packb((kind, body)))
        except OSError as error:
            self._unusable(error)

    def _write_anew(self, now: float) -> None:
        self._retry_at = now + RETRY_SECONDS
        self._kept = {sequence: _size(entry) for sequence, entry in self._entries.items()}
        before, self._file = self._file, None
        if before:
            before.close()
        records = (msgpack.packb((BEGIN, entry.to_wire())) for entry in self._entries.values())
        try:
            self._file = RecordFile(self._path, records)
        except OSError as error:
            self._unusable(error)
        else:
            self._base, self._refused = self._file.size, False

    def _unusable(self, error: OSError) -> None:
        """What is in it says less than clients have been told: nobody is to go on from it."""
        if not self._refused:
            self._note(f"{self._path} cannot be written ({error}): a restart would lose what runs")
        self._refused = True
        if self._file:
            self._file.close()
            self._file = None
        try:
            self._path.unlink(missing_ok=True)
        except OSError as refused:
            self._note(f"{self._path} cannot be removed either ({refused}): remove it")

    def _read(self) -> None:
        try:
            records, damage = read_records(self._path, MOST_READ)
        except OSError as error:
            records, damage = [], f"it cannot be read ({error})"
        for record in records:
            try:
                self._replay(*msgpack.unpackb(record))
            except (KeyError, TypeError, ValueError) as error:
                damage = f"a record is wrong ({error!r:.200})"
                break
        if damage:
            self._note(f"{self._path}: {damage}; requests go on from what stands before that")
        for entry in list(self._running()):
            entry.tries += 1
            if entry.tries > MOST_TRIES:
                del self._entries[entry.sequence]
                name = entry.sequence.hex()[:8]
                self._note(f"{name} is not resumed: {MOST_TRIES} coordinators ended while it ran")

    def _running(self) -> Iterator[Journalled]:
        return (entry for entry in self._entries.values() if entry.end is None)

    def _replay(self, kind: int, body: Any) -> None:
        if kind == BEGIN:
            fresh = Journalled.from_wire(body)
            self._entries[fresh.sequence] = fresh
        elif kind == TOKENS:
            for sequence, tokens, logprobs, ttft in body:
                if entry := self._entries.get(sequence_id(sequence)):
                    entry.tokens += unpacked(tokens)
                    entry.logprobs += logprobs
                    entry.ttft, entry.tries = ttft, 0
        elif kind == ENDED:
            sequence, end, unsaved = body
            if entry := self._entries.get(sequence_id(sequence)):
                entry.end, entry.unsaved = End.from_wire(end), unsaved
        elif kind == SAVED:
            if entry := self._entries.get(sequence_id(body)):
                entry.unsaved = False
        elif kind == FORGOTTEN:
            self._entries.pop(sequence_id(body), None)
        else:
            raise ValueError(f"kind {kind!r:.40}")


def _size(entry: Journalled) -> int:
    """Bytes of its record."""
    return len(msgpack.packb(entry.to_wire())) + _HEAD_BYTES

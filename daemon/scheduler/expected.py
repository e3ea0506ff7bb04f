"""Sequences that the stages are reading from their disks: they have a place in memory from the
start, and are kept like others once every stage holds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.fidelity import Fidelity
from daemon.scheduler.outbox import Outbox
from daemon.scheduler.prefix import Entry
from daemon.scheduler.trie import Tokens

if TYPE_CHECKING:
    from daemon.scheduler.residency import Residency


class Expected:
    """A part of Residency."""

    def __init__(self, residency: Residency, outbox: Outbox, max_kept: int) -> None:
        self._residency = residency
        self._outbox = outbox
        self._max_kept = max_kept
        self._sequences: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def __contains__(self, sequence: bytes) -> bool:
        return sequence in self._sequences

    def begin(self, sequence: bytes, fidelity: Fidelity, tokens: int) -> bool:
        """Give it its place. False when there is none, or nothing is kept."""
        if not self._max_kept or self._residency.place((sequence, fidelity.kv_bits, tokens), ()):
            return False
        self._sequences[sequence] = None
        return True

    def came(self, sequence: bytes, fidelity: Fidelity, tokens: Tokens, now: float) -> None:
        """Every stage holds it: it is kept from now on, unless it is not expected any more."""
        if sequence not in self._sequences:
            self.failed(sequence)
            return
        del self._sequences[sequence]
        self._residency.keep(Entry(sequence, fidelity, tokens, 0, now, now))

    def failed(self, sequence: bytes) -> None:
        """Some stage does not have it: the others are to forget it."""
        self._sequences.pop(sequence, None)
        self._residency.memory.free(sequence)
        self._outbox.release(sequence)

    def give_up(self) -> bool:
        """The last one that was begun is not to be held after all: its place is needed for tokens
        that nobody else has. False when there is none.
        """
        if not self._sequences:
            return False
        self.failed(next(reversed(self._sequences)))
        return True

    def forget(self) -> None:
        """Another layout, or another model: nobody is going to hold them."""
        for sequence in self._sequences:
            self._residency.memory.free(sequence)
        self._sequences.clear()

    def check_integrity(self) -> None:
        for sequence in self._sequences:
            assert sequence in self._residency.memory, "expected: without a place"
            assert sequence not in self._residency.index, "expected: is kept already"

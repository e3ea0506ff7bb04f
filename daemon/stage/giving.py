"""A stage's KV on its way to those that are to have its layers, while it goes on computing.

Each cache is followed: what it has beyond what was sent is sent, a piece at a time, between two
frames; where it was cut back, from there on again. When the barrier has come nothing changes any
more, and what is left goes at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from daemon.engine.caches import SequenceCache
from daemon.engine.snapshot import take_layer
from daemon.engine.transfer import cut, only_grows, position_bytes
from daemon.layers import LayerRange
from daemon.stage.pieces import PIECE_BYTES, Grown, Last, PieceSender, Whole
from daemon.stage.worker import Worker
from daemon.storage.form import LayerForm

TOKEN_BYTES = 4
MOST_POSITIONS = 4096  # of a piece: their hashes are computed where it is taken
LITTLE = 16  # positions that are left until there are more of them, or the barrier comes


@dataclass(slots=True)
class _Copy:
    """What a taker has of a sequence: the first positions of this cache."""

    cache: SequenceCache
    length: int = 0


@dataclass(slots=True)
class Taker:
    """A stage that is to have `layers`, and what it was sent."""

    sender: PieceSender
    layers: LayerRange
    copies: dict[bytes, _Copy] = field(default_factory=dict)

    def behind(self, sequence: bytes, cache: SequenceCache) -> int:
        """Positions that it lacks."""
        copy = self.copies.get(sequence)
        if copy is None or copy.cache is not cache:
            copy = self.copies[sequence] = _Copy(cache)
        return cache.length - copy.length


class Giving:
    """`step` and `finish` raise PieceError when a taker cannot be reached any more."""

    def __init__(self, worker: Worker, takers: Sequence[Taker]) -> None:
        self.sent_bytes = 0
        self.finished = False
        self._worker = worker
        self._takers = takers
        self._forms: dict[int, tuple[LayerForm, ...]] = {}

    @property
    def left_bytes(self) -> int:
        """That could be sent now."""
        self._follow_cuts()
        return sum(
            behind * self._position_bytes(taker, cache)
            for taker in self._takers
            for sequence, cache in self._worker.caches.items()
            if (behind := taker.behind(sequence, cache)) >= LITTLE
        )

    def step(self) -> bool | None:
        """Send a piece to each taker. False: one has no room for it now. None: nothing is to be
        sent now.
        """
        self._follow_cuts()
        caches, done = self._worker.caches, None
        for taker in self._takers:
            for sequence in [s for s in taker.copies if s not in caches]:
                del taker.copies[sequence]
            behind, sequence = max(
                ((taker.behind(s, cache), s) for s, cache in caches.items()), default=(0, b"")
            )
            if behind >= LITTLE:
                sent = self._send(taker, sequence, caches[sequence])
                done = sent if done is None else done and sent
        return done

    def finish(self) -> None:
        """Nothing is computed any more: send all that is left, and say that it was all."""
        self._follow_cuts()
        caches, ledger = self._worker.caches, self._worker.ledger
        for taker in self._takers:
            for sequence, cache in caches.items():
                while taker.behind(sequence, cache):
                    self._send(taker, sequence, cache, wait=True)
                self._send_wholes(taker, sequence, cache)
            held = [(s, c.length, ledger.hash_at(s, c.length)) for s, c in caches.items()]
            taker.sender.send(Last(tuple(held)), b"", wait=True)
        self.finished = True

    def close(self) -> None:
        for taker in self._takers:
            taker.sender.close()

    def _follow_cuts(self) -> None:
        for sequence, cache in self._worker.caches.items():
            if cache.lowest == sys.maxsize:
                continue
            for taker in self._takers:
                if copy := taker.copies.get(sequence):
                    copy.length = min(copy.length, cache.lowest)
            cache.lowest = sys.maxsize

    def _send(
        self, taker: Taker, sequence: bytes, cache: SequenceCache, wait: bool = False
    ) -> bool:
        copy = taker.copies[sequence]
        start = copy.length
        most = max(1, PIECE_BYTES // self._position_bytes(taker, cache))
        stop = min(cache.length, start + min(most, MOST_POSITIONS))
        tokens = np.asarray(self._worker.ledger.tokens(sequence)[start:stop], "<i4").tobytes()
        forms, first = self._forms_of(cache), self._worker.stage.layers.start
        parts = [
            cut(cache.own[n - first], start, stop)
            for n in range(taker.layers.start, taker.layers.end)
            if only_grows(forms[n - first])
        ]
        data = b"".join([tokens, *parts])
        piece = Grown(sequence, cache.kv_bits, start, stop, cache.length, taker.layers)
        if not taker.sender.send(piece, data, wait):
            return False
        copy.length = stop
        self.sent_bytes += len(data)
        return True

    def _send_wholes(self, taker: Taker, sequence: bytes, cache: SequenceCache) -> None:
        forms, first = self._forms_of(cache), self._worker.stage.layers.start
        for n in range(taker.layers.start, taker.layers.end):
            if not cache.length or only_grows(forms[n - first]):
                continue
            saved = take_layer(cache.own[n - first], cache.length)
            arrays = tuple((a.array.name, a.array.dtype, a.array.shape) for a in saved.arrays)
            piece = Whole(sequence, cache.kv_bits, n, cache.length, saved.first, arrays)
            data = b"".join(part for array in saved.arrays for part in array.parts)
            taker.sender.send(piece, data, wait=True)
            self.sent_bytes += len(data)

    def _forms_of(self, cache: SequenceCache) -> tuple[LayerForm, ...]:
        if cache.kv_bits not in self._forms:
            self._forms[cache.kv_bits] = self._worker.stage.kv_forms(cache.kv_bits)
        return self._forms[cache.kv_bits]

    def _position_bytes(self, taker: Taker, cache: SequenceCache) -> int:
        forms, first = self._forms_of(cache), self._worker.stage.layers.start
        given = forms[taker.layers.start - first : taker.layers.end - first]
        return TOKEN_BYTES + sum(position_bytes(form) for form in given if only_grows(form))

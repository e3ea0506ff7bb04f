"""A stage's KV on its way to those that are to have its layers, while it goes on computing.

Each cache is followed: what it has beyond what was sent is sent, a piece at a time, between two
frames; where it was cut back, from there on again. When the barrier has come nothing changes any
more, and what is left goes, also a piece at a time: who waited for a taker that has no room would
take nothing meanwhile, and two stages that give to each other would wait for each other.
"""

from __future__ import annotations

import sys
from collections import deque
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
    """A stage that is to have `layers`, and what it was sent. `rest` is what it is to be sent
    behind the barrier, when it has all that grows: None before that. It ends with Last.
    """

    sender: PieceSender
    layers: LayerRange
    copies: dict[bytes, _Copy] = field(default_factory=dict)
    rest: deque[tuple[bytes, int] | Last] | None = None

    def behind(self, sequence: bytes, cache: SequenceCache) -> int:
        """Positions that it lacks."""
        copy = self.copies.get(sequence)
        if copy is None or copy.cache is not cache:
            copy = self.copies[sequence] = _Copy(cache)
        return cache.length - copy.length


class Giving:
    """`step` raises PieceError when a taker cannot be reached any more."""

    def __init__(self, worker: Worker, takers: Sequence[Taker]) -> None:
        self.sent_bytes = 0
        self._worker = worker
        self._takers = takers
        self._forms: dict[int, tuple[LayerForm, ...]] = {}

    @property
    def finished(self) -> bool:
        """Whether all was sent that there is, and nothing more will be."""
        return all(taker.rest is not None and not taker.rest for taker in self._takers)

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
        done = None
        for taker in self._takers:
            sent = self._give(taker)
            if sent is not None:
                done = sent if done is None else done and sent
        return done

    def end(self) -> None:
        """Nothing is computed any more: `step` sends all that is left, and says that it was all. A
        second time, as when the barrier came twice, changes nothing.
        """
        if any(taker.rest is not None for taker in self._takers):
            return
        caches, ledger = self._worker.caches, self._worker.ledger
        held = [(s, c.length, ledger.hash_at(s, c.length)) for s, c in caches.items()]
        for taker in self._takers:
            taker.rest = deque([*self._wholes(taker), Last(tuple(held))])

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

    def _give(self, taker: Taker) -> bool | None:
        """One piece: of the cache of which most is lacking, or of the rest."""
        caches, rest = self._worker.caches, taker.rest
        for sequence in [s for s in taker.copies if s not in caches]:
            del taker.copies[sequence]
        behind, sequence = max(
            ((taker.behind(s, cache), s) for s, cache in caches.items()), default=(0, b"")
        )
        grows = behind >= (LITTLE if rest is None else 1)
        while rest and not isinstance(rest[0], Last) and rest[0][0] not in caches:
            rest.popleft()  # the move was given up, and it has ended since
        if not grows and not rest:
            return None
        if not taker.sender.room:
            return False
        if grows:
            return self._send_grown(taker, sequence, caches[sequence])
        assert rest
        what = rest[0]
        sent = taker.sender.send(what) if isinstance(what, Last) else self._send_whole(taker, *what)
        if sent:
            rest.popleft()
        return sent

    def _send_grown(self, taker: Taker, sequence: bytes, cache: SequenceCache) -> bool:
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
        if not taker.sender.send(piece, data):
            return False
        copy.length = stop
        self.sent_bytes += len(data)
        return True

    def _wholes(self, taker: Taker) -> list[tuple[bytes, int]]:
        """Sequences and layers of which the whole cache is sent, behind the barrier."""
        first = self._worker.stage.layers.start
        return [
            (sequence, n)
            for sequence, cache in self._worker.caches.items()
            for n in range(taker.layers.start, taker.layers.end)
            if cache.length and not only_grows(self._forms_of(cache)[n - first])
        ]

    def _send_whole(self, taker: Taker, sequence: bytes, layer: int) -> bool:
        cache = self._worker.caches[sequence]
        saved = take_layer(cache.own[layer - self._worker.stage.layers.start], cache.length)
        arrays = tuple((a.array.name, a.array.dtype, a.array.shape) for a in saved.arrays)
        piece = Whole(sequence, cache.kv_bits, layer, cache.length, saved.first, arrays)
        data = b"".join(part for array in saved.arrays for part in array.parts)
        if not taker.sender.send(piece, data):
            return False
        self.sent_bytes += len(data)
        return True

    def _forms_of(self, cache: SequenceCache) -> tuple[LayerForm, ...]:
        if cache.kv_bits not in self._forms:
            self._forms[cache.kv_bits] = self._worker.stage.kv_forms(cache.kv_bits)
        return self._forms[cache.kv_bits]

    def _position_bytes(self, taker: Taker, cache: SequenceCache) -> int:
        forms, first = self._forms_of(cache), self._worker.stage.layers.start
        given = forms[taker.layers.start - first : taker.layers.end - first]
        return TOKEN_BYTES + sum(position_bytes(form) for form in given if only_grows(form))

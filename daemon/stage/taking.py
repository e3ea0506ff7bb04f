"""KV that other stages send to one that is to have their layers: put together until it is whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from daemon.engine.caches import SequenceCache
from daemon.engine.errors import CacheError
from daemon.engine.kv import LayerCache
from daemon.engine.snapshot import put
from daemon.engine.stage import Stage
from daemon.engine.transfer import only_grows, paste, position_bytes
from daemon.history import History
from daemon.layers import LayerRange
from daemon.stage.pieces import Grown, Last, Piece, PieceError, PieceReceiver, Whole
from daemon.storage.content import LayerBytes
from daemon.storage.form import ITEM_BYTES, LayerForm
from daemon.storage.manifest import SavedArray

TOKEN_BYTES = 4


@dataclass(slots=True)
class _Coming:
    """A sequence: its caches, and the tokens that each giver has sent the KV of. `nbytes` that it
    takes or is about to, by giver for what grows and by layer for what comes whole.
    """

    cache: SequenceCache
    nbytes: dict[str | int, int] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)


class Taking:
    """`stage` is the one that will compute with it, `gained` those of its layers that are sent, and
    `room` the bytes that there are for that.
    """

    def __init__(
        self, stage: Stage, gained: Sequence[int], receiver: PieceReceiver, room: int
    ) -> None:
        self.received_bytes = 0
        self._room = room
        self._taken = 0
        self._stage = stage
        self._gained = frozenset(gained)
        self._receiver = receiver
        self._coming: dict[bytes, _Coming] = {}
        self._last: dict[str, dict[bytes, tuple[int, int]]] = {}
        self._forms: dict[int, tuple[LayerForm, ...]] = {}

    @property
    def pollable(self) -> object:
        return self._receiver.socket

    @property
    def address(self) -> str:
        return self._receiver.address

    def take(self) -> None:
        """One piece, if there is one. PieceError when what has come is of no use."""
        found = self._receiver.take()
        if found is None:
            return
        giver, piece, data = found
        self.received_bytes += len(data)
        try:
            self._take(giver, piece, data)
        except (CacheError, ValueError, KeyError) as error:
            raise PieceError(f"KV from {giver} does not fit: {error}") from error

    def complete(self, givers: int) -> bool:
        """Whether so many have said that they sent everything."""
        return len(self._last) >= givers

    def caches(self) -> Iterable[tuple[bytes, History, SequenceCache]]:
        """What is whole: sequences of which every giver has sent the same tokens, and the KV of
        these. The gained layers are filled, the others empty.
        """
        told = list(self._last.values())
        for sequence, coming in self._coming.items():
            ends = {last.get(sequence) for last in told}
            end = ends.pop() if len(ends) == 1 else None
            if end is None:
                continue
            length, token_hash = end
            histories = list(coming.histories.values())
            whole = len(histories) == len(told) and all(
                len(h) == length and h.hash_at(length) == token_hash for h in histories
            )
            if whole and all(self._layer(coming, n).offset == length for n in self._gained):
                yield sequence, histories[0], coming.cache

    def close(self) -> None:
        self._receiver.close()

    def _take(self, giver: str, piece: Piece, data: memoryview) -> None:
        match piece:
            case Grown():
                self._grow(giver, piece, data)
            case Whole():
                self._put(piece, data)
            case Last():
                self._last[giver] = {s: (n, h) for s, n, h in piece.sequences}

    def _grow(self, giver: str, piece: Grown, data: memoryview) -> None:
        coming = self._coming_of(piece.sequence, piece.kv_bits)
        history = coming.histories.setdefault(giver, History())
        if piece.start > len(history):
            raise ValueError(f"positions from {piece.start} on, after {len(history)}")
        count = piece.stop - piece.start
        tokens = np.frombuffer(data[: count * TOKEN_BYTES], "<i4")
        at = count * TOKEN_BYTES
        forms = self._forms_of(piece.kv_bits)
        given = [(layer, forms[self._place(layer)]) for layer in _each(piece.layers)]
        each = sum(position_bytes(form) for _, form in given if only_grows(form))
        self._make_room(coming, giver, each * max(piece.stop, piece.room))
        for layer, form in given:
            if only_grows(form):
                end = at + count * position_bytes(form)
                paste(
                    self._layer(coming, layer),
                    form,
                    piece.start,
                    piece.stop,
                    data[at:end],
                    piece.room,
                )
                at = end
        if at != len(data):
            raise ValueError(f"{len(data)} bytes instead of {at}")
        history.trim(piece.start)
        history.extend(tokens.tolist())

    def _put(self, piece: Whole, data: memoryview) -> None:
        coming = self._coming_of(piece.sequence, piece.kv_bits)
        form = self._forms_of(piece.kv_bits)[self._place(piece.layer)]
        wanted = tuple((a.name, a.dtype, a.at(piece.length - piece.first)) for a in form.arrays)
        if only_grows(form) or piece.arrays != wanted:
            raise ValueError(f"layer {piece.layer} is not {form.kind}")
        if not form.first_fits(piece.first, piece.length):
            raise ValueError(f"layer {piece.layer} begins at {piece.first} of {piece.length}")
        arrays, at = [], 0
        for name, dtype, shape in piece.arrays:
            end = at + prod(shape) * ITEM_BYTES[dtype]
            arrays.append((SavedArray(name, dtype, shape), data[at:end]))
            at = end
        if at != len(data):
            raise ValueError(f"{len(data)} bytes instead of {at}")
        self._make_room(coming, piece.layer, len(data))
        layer = self._layer(coming, piece.layer)
        put(layer, LayerBytes(piece.first, tuple(arrays)), piece.length)

    def _coming_of(self, sequence: bytes, kv_bits: int) -> _Coming:
        coming = self._coming.get(sequence)
        if coming is None or coming.cache.kv_bits != kv_bits:
            self._taken -= sum(coming.nbytes.values()) if coming else 0
            coming = self._coming[sequence] = _Coming(self._stage.new_cache(kv_bits))
        return coming

    def _make_room(self, coming: _Coming, what: str | int, nbytes: int) -> None:
        """Before anything is allocated: what a giver says is not believed beyond what there is."""
        before = coming.nbytes.get(what, 0)
        if nbytes <= before:
            return
        if self._taken + nbytes - before > self._room:
            wanted = self._taken + nbytes - before
            raise ValueError(f"it takes {wanted:,} bytes, and there are {max(0, self._room):,}")
        coming.nbytes[what] = nbytes
        self._taken += nbytes - before

    def _layer(self, coming: _Coming, layer: int) -> LayerCache:
        return coming.cache.own[layer - self._stage.layers.start]

    def _place(self, layer: int) -> int:
        if layer not in self._gained:
            raise ValueError(f"layer {layer} is not awaited")
        return layer - self._stage.layers.start

    def _forms_of(self, kv_bits: int) -> tuple[LayerForm, ...]:
        if kv_bits not in self._forms:
            self._forms[kv_bits] = self._stage.kv_forms(kv_bits)
        return self._forms[kv_bits]


def _each(layers: LayerRange) -> range:
    return range(layers.start, layers.end)

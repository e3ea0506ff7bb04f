"""KV on its way from a stage to those that are to have its layers, while it goes on computing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from daemon.fidelity import Fidelity
from daemon.history import History
from daemon.layers import LayerRange
from tests.simulator.model import Layers
from tests.simulator.stage import SimulatedStage

MOST = 24  # positions in a piece


@dataclass(frozen=True, slots=True)
class Piece:
    """Positions from `start` on of a sequence: tokens, and what each layer has of them."""

    sequence: bytes
    fidelity: Fidelity
    start: int
    tokens: tuple[int, ...]
    states: Mapping[int, list[int]]


@dataclass(frozen=True, slots=True)
class Last:
    """That was all: length and hash of everything that the giver holds."""

    held: Mapping[bytes, tuple[int, int]]


@dataclass(slots=True)
class Taker:
    """`copies`: of which cache so many first positions were sent."""

    send: Callable[[Piece | Last], None]
    layers: LayerRange
    copies: dict[bytes, tuple[Layers, int]] = field(default_factory=dict)


class Giving:
    """Follows what the stage holds; where that was cut back, from there on again."""

    def __init__(self, stage: SimulatedStage, takers: list[Taker]) -> None:
        self.sent = 0
        self.finished = False
        self._stage = stage
        self._takers = takers

    @property
    def left(self) -> int:
        """Positions of layers."""
        self._follow_cuts()
        return sum(
            (len(kv) - self._sent(taker, sequence)) * len(taker.layers)
            for taker in self._takers
            for sequence, kv in self._stage.kv.items()
        )

    def step(self) -> None:
        """One piece for each taker."""
        self._follow_cuts()
        for taker in self._takers:
            behind = {s: len(kv) - self._sent(taker, s) for s, kv in self._stage.kv.items()}
            sequence = max(behind, key=lambda s: behind[s], default=b"")
            if behind.get(sequence, 0):
                self._send(taker, sequence)

    def finish(self) -> None:
        while self.left:
            self.step()
        ledger = self._stage.ledger
        held = {s: (len(kv), ledger.hash_at(s, len(kv))) for s, kv in self._stage.kv.items()}
        for taker in self._takers:
            taker.send(Last(held))
        self.finished = True

    def _follow_cuts(self) -> None:
        for sequence, kv in self._stage.kv.items():
            for taker in self._takers:
                if sequence in taker.copies:
                    copied, length = taker.copies[sequence]
                    taker.copies[sequence] = copied, min(length, kv.lowest)
            kv.lowest = len(kv)

    def _sent(self, taker: Taker, sequence: bytes) -> int:
        kv = self._stage.kv[sequence]
        copied, length = taker.copies.get(sequence, (kv, 0))
        if copied is not kv:
            length = 0
        taker.copies[sequence] = kv, length
        return length

    def _send(self, taker: Taker, sequence: bytes) -> None:
        kv, start = taker.copies[sequence]
        stop = min(len(kv), start + MOST)
        tokens = tuple(self._stage.ledger.tokens(sequence)[start:stop])
        layers = range(taker.layers.start, taker.layers.end)
        states = {layer: kv.cut(layer, start, stop) for layer in layers}
        taker.send(Piece(sequence, kv.fidelity, start, tokens, states))
        taker.copies[sequence] = kv, stop
        self.sent += (stop - start) * len(layers)


class Taking:
    """What has come of the layers [start, end) that are gained."""

    def __init__(self, start: int, end: int) -> None:
        self._range = start, end
        self._last: dict[str, Last] = {}
        self._caches: dict[bytes, Layers] = {}
        self._histories: dict[bytes, dict[str, History]] = {}

    def take(self, giver: str, piece: Piece | Last) -> None:
        if isinstance(piece, Last):
            self._last[giver] = piece
            return
        cache = self._caches.get(piece.sequence)
        if cache is None or cache.fidelity != piece.fidelity:
            cache = self._caches[piece.sequence] = Layers(*self._range, piece.fidelity)
        history = self._histories.setdefault(piece.sequence, {}).setdefault(giver, History())
        assert piece.start <= len(history), "a gap in what is given"
        history.trim(piece.start)
        history.extend(piece.tokens)
        for layer, states in piece.states.items():
            cache.paste(layer, piece.start, states)

    def complete(self, givers: int) -> bool:
        return len(self._last) >= givers

    def whole(self, sequence: bytes) -> tuple[History, Layers] | None:
        """Where every giver has sent the same tokens, and that it had no others."""
        histories = list(self._histories.get(sequence, {}).values())
        ends = {last.held.get(sequence) for last in self._last.values()}
        end = ends.pop() if len(ends) == 1 else None
        if end is None or len(histories) < len(self._last):
            return None
        same = all(len(h) == end[0] and h.hash_at(end[0]) == end[1] for h in histories)
        return (histories[0], self._caches[sequence]) if same else None

    @property
    def sequences(self) -> list[bytes]:
        return list(self._caches)


def become(old: SimulatedStage | None, new: SimulatedStage, taking: Taking | None) -> None:
    """`new` takes the place of `old`, with what both have and what was taken; a sequence of which
    that is not whole is lost.
    """
    whole = {s: found for s in (taking.sequences if taking else ()) if (found := taking.whole(s))}
    if old is None:
        for sequence, (history, cache) in whole.items():
            if new.ledger.adopt(sequence, history):
                new.kv[sequence] = cache
        return
    gains = [n for n in range(new.start, new.end) if not old.start <= n < old.end]
    for sequence, kv in old.kv.items():
        length = len(kv)
        cache = Layers(new.start, new.end, kv.fidelity)
        if gains:
            history, given = whole.get(sequence, (History(), cache))
            same = len(history) == length and given.fidelity == kv.fidelity
            if not same or history.hash_at(length) != old.ledger.hash_at(sequence, length):
                continue
            for layer in gains:
                cache.paste(layer, 0, given.cut(layer, 0, length))
        for layer in range(max(old.start, new.start), min(old.end, new.end)):
            cache.paste(layer, 0, kv.cut(layer, 0, length))
        cache.lowest = length
        new.kv[sequence] = cache
    if new.end == old.end:
        new.log = old.log
    old.log.retain(new.kv if new.end == old.end else ())
    new.ledger = old.ledger.of(new.kv)

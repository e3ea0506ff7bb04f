"""Who rides in the next microbatch: the one place that decides it."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.scheduler.cost import CostModel
from daemon.scheduler.ready import ReadyQueue
from daemon.scheduler.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Load:
    """How full the pipe is. `decoding` counts the running sequences that decode, whether in flight
    or not. `alone`: nothing may join what is in flight.
    """

    limit: int
    in_flight: int
    decode_in_flight: int
    decoding: int
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """The next `length` tokens of a sequence."""

    sequence: Sequence
    length: int


def compose(ready: ReadyQueue, load: Load, cost: CostModel) -> tuple[Piece, ...]:
    """The pieces of the next microbatch; empty when none is to be sent now.

    Decoding goes first, but leaves a place to prefill; prefill leaves as many places as there are
    sequences that decode, and takes at least one. So neither starves the other. Who is computed
    alone goes before both, when the pipe is empty.
    """
    if load.in_flight >= load.limit or load.alone:
        return ()
    if (alone := ready.alone) is not None:
        return () if load.in_flight else (Piece(alone, cost.chunk(alone.remaining, False)),)
    decode, prefill = ready.decode, ready.prefill
    if decode is not None and (prefill is None or load.decode_in_flight < max(1, load.limit - 1)):
        return (Piece(decode, decode.remaining),)
    places = max(1, load.limit - load.decoding)
    if prefill is not None and load.in_flight - load.decode_in_flight < places:
        return (Piece(prefill, cost.chunk(prefill.remaining, load.decoding > 0)),)
    return ()

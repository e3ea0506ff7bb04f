"""Who rides in the next microbatch: the one place that decides it."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.scheduler.cost import CostModel, Pass
from daemon.scheduler.ready import ReadyQueue
from daemon.scheduler.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Load:
    """How full the pipe is: microbatches in flight that are decode steps, and that are not.
    `decoding` counts the running sequences that decode, whether in flight or not, `attended` their
    positions. `alone`: nothing may join what is in flight.
    """

    steps: int = 0
    chunks: int = 0
    decoding: int = 0
    attended: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """The next `length` tokens of a sequence."""

    sequence: Sequence
    length: int


def compose(ready: ReadyQueue, load: Load, cost: CostModel) -> tuple[Piece, ...]:
    """The pieces of the next microbatch; empty when none is to be sent now.

    The sequences that decode go in as many groups as the cost model finds best. A piece of a prompt
    rides in each of their steps, and chunks of its own fill the stages that the groups leave idle;
    so neither starves the other. A model that cannot mix the two has one chunk beside the steps at
    least. Who is computed alone goes before both, when the pipe is empty.
    """
    if load.alone:
        return ()
    if (alone := ready.alone) is not None:
        if load.steps or load.chunks:
            return ()
        return (Piece(alone, cost.chunk(alone.remaining, alone.issued, None)),)
    groups = cost.groups(load.decoding, load.attended)
    prefill = ready.prefill
    if load.steps < groups.count and (turn := ready.decode(groups.size)):
        step = [Piece(sequence, sequence.remaining) for sequence in turn]
        if prefill is not None and cost.mixed:
            asked = Pass(len(turn), sum(s.issued for s in turn))
            step.append(Piece(prefill, cost.rider(prefill.remaining, prefill.issued, asked)))
        return tuple(step)
    if prefill is None:
        return ()
    if not load.decoding:
        places, beside = cost.useful_in_flight(), None
    else:
        places = max(0 if cost.mixed else 1, cost.stages - groups.count)
        beside = Pass(groups.size, load.attended * groups.size // load.decoding)
    if load.chunks >= places:
        return ()
    return (Piece(prefill, cost.chunk(prefill.remaining, prefill.issued, beside)),)

"""Who rides in the next microbatch: the one place that decides it."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.scheduler.cost import CostModel, Pass
from daemon.scheduler.ready import ReadyQueue
from daemon.scheduler.sequence import Sequence
from daemon.scheduler.speculation.speculator import Speculator


@dataclass(frozen=True, slots=True)
class Load:
    """How full the pipe is: microbatches in flight that are decode steps, and that are not.
    `decoding` counts the running sequences that decode, whether in flight or not, `attended` their
    positions. `alone`: nothing may join what is in flight. `ahead`: frames of guesses alone.
    """

    steps: int = 0
    chunks: int = 0
    decoding: int = 0
    attended: int = 0
    alone: bool = False
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """The next `length` tokens of a sequence."""

    sequence: Sequence
    length: int


def compose(
    ready: ReadyQueue, load: Load, cost: CostModel, speculator: Speculator, now: float
) -> tuple[Piece, ...]:
    """The pieces of the next microbatch; empty when none is to be sent now.

    The sequences that decode go in as many groups as the cost model finds best. Chunks of prompts
    fill the stages that these leave idle; where none is idle, pieces of a prompt ride in the steps,
    or one chunk goes beside them where the model cannot mix the two, or only some stages are to
    compute it. So neither starves the other.
    Guesses ride with the tokens that they follow, and more of them fill what places are left.
    Who is computed alone goes before both, when the pipe is empty.
    """
    if load.alone:
        return ()
    if (alone := ready.alone) is not None:
        if load.steps or load.chunks or load.ahead:
            return ()
        return (Piece(alone, cost.chunk(alone.due, alone.issued, None, alone.refill)),)
    prefill = ready.prefill
    reading = prefill is not None or load.chunks > 0
    groups = cost.groups(load.decoding, load.attended, reading)
    full = groups.count >= cost.stages
    rides = cost.mixed and prefill is not None and prefill.refill is None
    turn = ready.decode(groups.size) if load.steps < groups.count else ()
    speculator.among(groups, now)
    if turn and not any([speculator.holds(s, now) for s in turn]):
        step = [Piece(s, s.remaining + speculator.beside(s)) for s in turn]
        if prefill is not None and rides and full:
            attended = sum(p.length * p.sequence.issued for p in step)
            asked = Pass(sum(p.length for p in step), attended)
            step.append(Piece(prefill, cost.rider(prefill.remaining, prefill.issued, asked)))
        return tuple(step)
    if prefill is None:
        return _ahead(ready, load, speculator)
    if not load.decoding:
        places, patience = cost.useful_in_flight(), None
    else:
        places = (0 if rides else 1) if full else cost.stages - groups.count
        usual = Pass(groups.size, load.attended * groups.size // load.decoding)
        patience = cost.patience(groups, usual)
    if load.chunks >= places:
        return ()
    length = cost.chunk(prefill.due, prefill.issued, patience, prefill.refill)
    return (Piece(prefill, length),)


def _ahead(ready: ReadyQueue, load: Load, speculator: Speculator) -> tuple[Piece, ...]:
    """Guesses of the only sequence that decodes, when all its known tokens are under way."""
    if load.decoding != 1 or not speculator.runs_ahead:
        return ()
    for sequence in ready.awaited:
        if length := speculator.ahead(sequence, load.steps + load.ahead):
            return (Piece(sequence, length),)
    return ()

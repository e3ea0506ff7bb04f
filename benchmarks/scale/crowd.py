"""Many sequences on a pipeline whose stages compute nothing: what the scheduler sends comes back
when a clock says so, which stands still while the scheduler is timed.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice

from benchmarks.scale.timing import Timed
from daemon.fidelity import Fidelity
from daemon.footprint import Footprint, StageMemory
from daemon.scheduler.actions import Action, Finished, Send
from daemon.scheduler.pipeline import Hop, Limits, Pipeline, StageCost
from daemon.scheduler.request import Request
from daemon.scheduler.scheduler import Scheduler
from daemon.scheduler.sequence import SequenceStatus
from transports.frame import DType, Frame, FrameKind, Span, StageTrace

MS = 1e-3
STEPS = ((1, 5 * MS), (8, 6 * MS), (64, 12 * MS))  # of each stage, by sequences
PREFILL_TOKEN = 0.2 * MS
HOP = 0.3 * MS
CONTEXT, CHUNK, VOCABULARY = 1 << 15, 256, 1 << 15
WARM_UP, DECODING = 12000, 0.95  # frames at most, until so many of those that run decode
HEADS, HEAD = 32, 192  # beginnings that prompts share, and their tokens
OWN = 8  # tokens of a prompt that no other has
ANSWER = 1000
PERIOD, SURPRISE = 11, 10  # an answer repeats itself, but for one token in so many
ROOM = 1.05  # memory for what runs, and so much of that for what is kept


@dataclass(frozen=True, slots=True)
class Case:
    """`sequences` are there at every moment, of which `running` may run; the others wait. `tight`:
    memory is what bounds how many are kept after their end, not their number.
    """

    stages: int
    sequences: int
    running: int
    guessing: bool
    tight: bool = False

    def pipeline(self, epoch: int) -> Pipeline:
        cost, footprint = StageCost(STEPS, PREFILL_TOKEN), Footprint(1024, 0)
        longest = footprint.bytes_for(HEAD + OWN + ANSWER + Limits().headroom)
        budget = int(ROOM * self.running * longest) if self.tight else 1 << 50
        return Pipeline(
            1,
            epoch,
            (cost,) * self.stages,
            CONTEXT,
            CHUNK,
            memory=(StageMemory(budget, {0: footprint}),) * self.stages,
            hops=tuple(Hop(i, 4096, DType.BFLOAT16, {}) for i in range(1, self.stages)),
        )


class Crowd:
    """Whoever ends is replaced. `results` is what the scheduler took for each frame."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        limits = Limits(max_running=case.running, speculate=case.guessing)
        self.scheduler = Scheduler(limits)
        self.results = Timed()
        self._now = 0.0
        self._rng = random.Random(seed)
        self._case = case
        self._heads = [self._tokens(HEAD) for _ in range(HEADS)]
        self._ids = count(1)
        self._free = [0.0] * case.stages
        self._flying: deque[tuple[float, Frame]] = deque()
        self._do(self.scheduler.configure(case.pipeline(1), 0.0))
        self._fill_index(limits.max_kept)
        for _ in range(case.sequences):
            self._submit(self._rng.randint(1, ANSWER))
        for turn in range(WARM_UP):  # most wait for their turn to be read at first
            if turn % 100 == 0 and self.decoding > DECODING * case.running:
                break
            self.turn()

    @property
    def oldest(self) -> int:
        """The microbatch that comes back next."""
        return self._flying[0][1].microbatch

    @property
    def decoding(self) -> int:
        """How many run whose prompt has been read."""
        running = islice(self.scheduler.sequences(), self._case.running)
        return sum(sequence.status is SequenceStatus.DECODE for sequence in running)

    def turn(self) -> None:
        """The next frame comes back."""
        due, frame = self._flying.popleft()
        wake = self.scheduler.next_wake()
        if wake is not None and wake <= due:
            self._now = max(self._now, wake)
            self._do(self.scheduler.tick(self._now))
        self._now = due
        answer = replace(
            frame,
            kind=FrameKind.RESULT if frame.spans else FrameKind.WORK,
            tokens=tuple(t for span in frame.spans for t in _said(span)),
            constants={},
        )
        self._do(self.results.of(lambda: self.scheduler.result(answer, self._now)))

    def new_layout(self) -> float:
        """Seconds that it takes to stop, and to issue everything again in another epoch."""
        timed = Timed()
        self._flying.clear()
        for pipeline in (None, self._case.pipeline(2)):
            self._do(timed.of(partial(self.scheduler.configure, pipeline, self._now)))
        return sum(timed.seconds)

    def _fill_index(self, most: int) -> None:
        """As if so many had ended before."""
        expected, fidelity = self.scheduler.residency.expected, Fidelity()
        for _ in range(most):
            sequence, tokens = self._new_id(), (*self._prompt(), *self._tokens(ANSWER))
            if expected.begin(sequence, fidelity, len(tokens)):
                expected.came(sequence, fidelity, tokens, 0.0)

    def _prompt(self) -> tuple[int, ...]:
        return (*self._rng.choice(self._heads), *self._tokens(OWN))

    def _tokens(self, number: int) -> list[int]:
        return self._rng.choices(range(VOCABULARY), k=number)

    def _new_id(self) -> bytes:
        return next(self._ids).to_bytes(16, "big")

    def _submit(self, answer: int = ANSWER) -> None:
        request = Request(self._new_id(), self._prompt(), answer)
        self._do(self.scheduler.submit(request, self._now))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(frame):
                    self._fly(frame)
                case Finished():
                    self._submit()

    def _fly(self, frame: Frame) -> None:
        """Stages take frames in turn, so that it is known at once when it will be where."""
        tokens, at = sum(span.length for span in frame.spans), self._now
        took = STEPS[0][1] + PREFILL_TOKEN * max(0, tokens - 1) if tokens else 0.0
        traces = []
        for stage, free in enumerate(self._free):
            received = at + HOP
            started = max(received, free)
            at = self._free[stage] = started + took
            traces.append(StageTrace(stage, received, started, at, at))
        self._flying.append((at + HOP, replace(frame, traces=tuple(traces))))


def _said(span: Span) -> list[int]:
    """The tokens after the last positions of a span."""
    end = span.position + span.length + 1
    number = int.from_bytes(span.sequence, "big")
    return [_token(number, place) for place in range(end - span.outputs, end)]


def _token(number: int, place: int) -> int:
    if (number + place) % SURPRISE == 0:
        return (number * 7919 + place * 104729) % VOCABULARY
    return (number + place % PERIOD) % VOCABULARY

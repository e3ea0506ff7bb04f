"""The scheduler, played against a pace under a fake clock: what a paced run would give if nothing
but the passes and hops took time. A minute of it takes about a second.

So it can be seen what is lost to what the scheduler decides, and what to the processes and sockets
of a real run. Stages, links and the draft serve in the order of arrival, as in `benchmarks.limit`;
revocations arrive at once, and a frame of which nothing is left travels on as a header.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.paced.oracle import Oracle, OracleDrafter, Script
from benchmarks.paced.pace import Pace
from daemon.draft.drafter import Guess, Lag
from daemon.scheduler.actions import Action, Deliver, Propose, Revoke, Send
from daemon.scheduler.pipeline import Limits, Pipeline, StageCost
from daemon.scheduler.request import Request
from daemon.scheduler.scheduler import Scheduler
from transports.frame import Frame, FrameKind, Span, StageTrace

CONTEXT, CHUNK = 4096, 128
MEASURED = (1, 2, 4, 8)  # rows of the steps that a stage tries when it warms up


class Rehearsal:
    """A cluster that keeps what it has learnt from one stream to the next. The guesses of `scripts`
    come from a draft that takes `guess_seconds` for each, or, where that is 0, are there at once.
    """

    def __init__(self, pace: Pace, scripts: Sequence[Script], guess_seconds: float = 0.0) -> None:
        self.now = 0.0
        self._pace = pace
        self._ids = itertools.count(1)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        stages = len(pace.passes)
        self._free = [0.0] * stages  # each stage
        self._links = [0.0] * stages  # and the hop after it
        self._lowest: dict[bytes, int] = {}  # live attempt of each sequence
        self._by_sequence: dict[bytes, Script] = {}
        self.times: dict[bytes, list[float]] = {}
        costs = tuple(
            StageCost(
                tuple((n, pace.pass_seconds(stage, n)) for n in MEASURED),
                pace.pass_seconds(stage, CHUNK) / CHUNK,
            )
            for stage in range(stages)
        )
        self._guess_seconds = guess_seconds
        self._drafter = OracleDrafter(scripts)
        self._drafting = False
        self.scheduler = Scheduler(Limits(), None if guess_seconds else Oracle(scripts))
        self._do(self.scheduler.configure(Pipeline(1, 1, costs, CONTEXT, CHUNK), 0.0))
        if guess_seconds:
            self._do(self.scheduler.draft_ready(guess_seconds, 0.0))

    def streams(self, scripts: Sequence[Script]) -> list[list[float]]:
        """When each token of each answer came; all are asked for at once."""
        for script in scripts:
            sequence = next(self._ids).to_bytes(16, "big")
            self._by_sequence[sequence] = script
            self.times[sequence] = []
            request = Request(sequence, script.prompt, len(script.answer))
            self._do(self.scheduler.submit(request, self.now))
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()
        return [*self.times.values()][-len(scripts) :]

    def rate(self, script: Script) -> float:
        """Tokens per second of one stream, after its first token."""
        (times,) = self.streams([script])
        return (len(times) - 1) / (times[-1] - times[0])

    def _later(self, at: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._ids), event))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(frame):
                    self._arrive(0, frame)
                case Revoke(sequence, attempt):
                    self._lowest[sequence] = attempt
                case Deliver(sequence, _, tokens):
                    self._deliver(sequence, tokens)
                case Propose():
                    self._propose(action)
        self._wake()

    def _wake(self) -> None:
        wake = self.scheduler.next_wake()
        if wake is not None and wake < self.now + 1.0:  # later ones are for frames that are lost
            self._later(max(wake, self.now), self._tick)

    def _tick(self) -> None:
        wake = self.scheduler.next_wake()
        if wake is not None and wake <= self.now:
            self._do(self.scheduler.tick(self.now))

    # --- the pipeline ---

    def _arrive(self, stage: int, frame: Frame) -> None:
        begin = max(self.now, self._free[stage])
        received = self.now
        self._free[stage] = begin  # who comes later waits behind it
        self._later(begin, lambda: self._begin(stage, frame, received))

    def _begin(self, stage: int, frame: Frame, received: float) -> None:
        if self._free[stage] > self.now:
            self._later(self._free[stage], lambda: self._begin(stage, frame, received))
            return
        spans = tuple(s for s in frame.spans if s.attempt >= self._lowest.get(s.sequence, 0))
        tokens = sum(s.length for s in spans)
        took = self._pace.pass_seconds(stage, tokens) if tokens else 0.0
        done = self._free[stage] = self.now + took
        trace = StageTrace(stage, received, self.now, done, done)
        onward = replace(frame, spans=spans, traces=(*frame.traces, trace))
        self._later(done, lambda: self._hop(stage, onward))

    def _hop(self, stage: int, frame: Frame) -> None:
        last = stage == len(self._free) - 1
        tokens = sum(s.length for s in frame.spans)
        there = max(self.now, self._links[stage]) + self._pace.hops(tokens)[stage]
        self._links[stage] = there
        arrive = (lambda: self._return(frame)) if last else (lambda: self._arrive(stage + 1, frame))
        self._later(there, arrive)

    def _return(self, frame: Frame) -> None:
        answer = replace(
            frame,
            kind=FrameKind.RESULT if frame.spans else FrameKind.WORK,
            tokens=tuple(t for span in frame.spans for t in self._said(span)),
            constants={},
        )
        self._do(self.scheduler.result(answer, self.now))

    def _said(self, span: Span) -> tuple[int, ...]:
        script = self._by_sequence[span.sequence]
        end = span.position + span.length + 1 - len(script.prompt)
        return script.answer[end - span.outputs : end]

    def _deliver(self, sequence: bytes, tokens: tuple[int, ...]) -> None:
        times = self.times[sequence]
        expected = self._by_sequence[sequence].answer[len(times) : len(times) + len(tokens)]
        assert tokens == expected, "a wrong token was delivered"
        times += [self.now] * len(tokens)

    # --- the draft ---

    def _propose(self, asked: Propose) -> None:
        answer = self._drafter.propose(
            asked.sequence,
            asked.position,
            asked.prefix_hash,
            asked.tokens,
            asked.until,
            asked.constants,
            self.now,
        )
        if answer:
            self._later(self.now, lambda: self._heard([answer]))
        self._go_on()

    def _go_on(self) -> None:
        if self._drafter.busy and not self._drafting:
            self._drafting = True
            self._later(self.now + self._guess_seconds, self._step)

    def _step(self) -> None:
        self._drafting = False
        guesses = self._drafter.step()
        self._go_on()
        self._heard(guesses)

    def _heard(self, answers: Sequence[Guess | Lag]) -> None:
        for answer in answers:
            if isinstance(answer, Lag):
                self._do(self.scheduler.lags(answer.sequence, answer.held, self.now))
            else:
                said = answer.position, answer.prefix_hash, answer.tokens
                self._do(self.scheduler.drafted(answer.sequence, *said, self.now))

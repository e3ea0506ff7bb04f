"""A scheduler, a clock that stands still, and answers as stages would give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from daemon.footprint import Footprint, StageMemory
from daemon.sampling import SamplingParams
from daemon.scheduler.actions import Action, Deliver, Finished, Revoke, Send, Suspect
from daemon.scheduler.pipeline import Limits, Pipeline, StageCost
from daemon.scheduler.request import Request
from daemon.scheduler.scheduler import Scheduler
from transports.frame import (
    FINAL_ATTEMPT,
    Command,
    Departure,
    Fork,
    Frame,
    FrameKind,
    Reason,
    Span,
)

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
NAMES = {A: "A", B: "B", C: "C"}
PROMPT = tuple(range(100, 140))


def pipeline(
    epoch: int = 1,
    term: int = 1,
    stages: int = 2,
    context: int = 1000,
    chunk: int = 16,
    budget: int = 1 << 40,
    token_millis: int = 10,
    reach: int | None = None,
) -> Pipeline:
    """A token takes one byte of the budget, and a cache has room for 128 more."""
    costs = (StageCost(((1, 0.1),), token_millis / 1000),) * stages
    memory = (StageMemory(budget, {0: Footprint(1, 0)}, reach),) * stages
    return Pipeline(term, epoch, costs, context, chunk, memory=memory)


def request(
    sequence: bytes = A,
    prompt: int | Sequence[int] = 4,
    max_tokens: int = 8,
    stop: Sequence[int] = (),
    logprobs: int | None = None,
) -> Request:
    tokens = PROMPT[:prompt] if isinstance(prompt, int) else tuple(prompt)
    params = SamplingParams(logprobs=logprobs)
    return Request(sequence, tokens, max_tokens, params, frozenset(stop))


class Harness:
    """Every call checks the scheduler's integrity, and keeps the frames that were sent. Answers are
    often the same token again and again, which `guessing` finds out.
    """

    def __init__(self, limits: Limits | None = None, guessing: bool = False, **layout: int) -> None:
        self.now = 0.0
        self.scheduler = Scheduler(replace(limits or Limits(), speculate=guessing))
        self.frames: list[Frame] = []
        self.keep(self.scheduler.configure(pipeline(**layout), 0.0))

    def keep(self, actions: list[Action]) -> list[Action]:
        self.frames += [a.frame for a in actions if isinstance(a, Send)]
        self.scheduler.check_integrity()
        return actions

    def submit(self, *requests: Request) -> list[Action]:
        actions: list[Action] = []
        for r in requests:
            actions += self.keep(self.scheduler.submit(r, self.now))
        return actions

    def computed(self, frame: Frame, *tokens: int, logprobs: Any = None) -> list[Action]:
        """All stages did what the frame asks for."""
        answer = replace(
            frame, kind=FrameKind.RESULT, tokens=tokens, constants={}, logprobs=logprobs or {}
        )
        return self.keep(self.scheduler.result(answer, self.now))

    def departed(self, frame: Frame, reason: Reason, held: int, stage: int = 1) -> list[Action]:
        """Every span of the frame left it at `stage`."""
        departures = tuple(
            Departure(s.sequence, s.attempt, stage, reason, held) for s in frame.spans
        )
        answer = replace(frame, spans=(), tokens=(), constants={}, departures=departures)
        return self.keep(self.scheduler.result(answer, self.now))

    def tick(self, now: float) -> list[Action]:
        self.now = now
        return self.keep(self.scheduler.tick(now))

    def decode(self, sequence: bytes = A, prompt: int = 4, token: int = 1) -> Frame:
        """Submit and prefill; returns the first decode frame."""
        self.submit(request(sequence, prompt))
        self.computed(self.frames[-1], token)
        return self.frames[-1]


def decoding() -> Harness:
    """A decodes: tokens [0, 4) are confirmed, [4, 5) is in flight."""
    h = Harness()
    h.decode(A)
    return h


def show_span(span: Span) -> str:
    """`A1[0:4)` is attempt 1 of A, tokens 0 to 3; `!` when a token is wanted."""
    name = NAMES[span.sequence]
    want = "!" * span.outputs
    return f"{name}{span.attempt}[{span.position}:{span.position + span.length}){want}"


def show_command(command: Command) -> str:
    """`-A` forgets A, `-A<=2` its attempts up to 2; `+B<A:20` starts B from 20 tokens of A."""
    if isinstance(command, Fork):
        return f"+{NAMES[command.target]}<{NAMES[command.source]}:{command.length}"
    until = "" if command.attempt == FINAL_ATTEMPT else f"<={command.attempt}"
    return f"-{NAMES[command.sequence]}{until}"


def show(actions: list[Action]) -> list[str]:
    """Actions in words, short enough for a table."""
    words = []
    for action in actions:
        match action:
            case Send(frame):
                parts = [show_span(s) for s in frame.spans]
                parts += [show_command(c) for c in frame.commands]
                if refill := frame.refill:
                    parts.append(f"for {refill.first}-{refill.end - 1}")
                words.append("send " + " ".join(parts))
            case Deliver(sequence, position, tokens):
                words.append(f"deliver {NAMES[sequence]}@{position} {list(tokens)}")
            case Finished(sequence, reason):
                words.append(f"end {NAMES[sequence]} {reason.value}")
            case Revoke(sequence, attempt):
                words.append(f"revoke {NAMES[sequence]}<{attempt}")
            case Suspect():
                words.append("suspect")

    return words

"""What the coordinator itself does per microbatch: scheduling, and the frame codec. No sockets, no
model: an answer to every frame is at hand at once.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import deque
from dataclasses import replace

from daemon.scheduler.actions import Action, Finished, Send
from daemon.scheduler.pipeline import Limits, Pipeline, StageCost
from daemon.scheduler.request import Request
from daemon.scheduler.scheduler import Scheduler
from transports.frame import Frame, FrameKind, StageTrace
from transports.limits import FrameLimits
from transports.wire import decode, encode

STAGES = 2
PROMPT = 512
WARM_UP = 500
MEASURED = 4000
TURNOVER_TOKENS = 20_000
LIMITS = FrameLimits(max_tensor_bytes=1 << 20)


def measure() -> dict[str, float]:
    """Median microseconds per microbatch, at 1 and at 64 sequences: one event in, the next frame
    out. `codec_us_p50` is writing and reading that frame, which the coordinator's links add.
    """
    scheduler_1, codec = _decode(1)
    scheduler_64, _ = _decode(64)
    return {
        "us_p50_1": scheduler_1 * 1e6,
        "us_p50_64": scheduler_64 * 1e6,
        "codec_us_p50": codec * 1e6,
    }


def turnover_seconds(sequences: int, tokens: int, limits: Limits) -> float:
    """Mean seconds that the scheduler takes per token when so many run at once, each with a prompt
    of its own that nobody else begins with, `tokens` long as is its answer; whoever ends is
    replaced.
    """
    scheduler, rng = Scheduler(limits), random.Random(0)
    pending: deque[Frame] = deque()
    spent, now, generated = 0.0, 0.0, 0

    def act(actions: list[Action]) -> int:
        pending.extend(action.frame for action in actions if isinstance(action, Send))
        return sum(isinstance(action, Finished) for action in actions)

    def submit() -> None:
        prompt = tuple(rng.randrange(1 << 15) for _ in range(tokens))
        act(scheduler.submit(Request(rng.randbytes(16), prompt, tokens), now))

    pipeline = Pipeline(1, 1, (StageCost(((1, 0.01),), 0.001),) * STAGES, 1 << 20, 128)
    act(scheduler.configure(pipeline, 0.0))
    for _ in range(sequences):
        submit()
    while generated < TURNOVER_TOKENS:
        answer = _answer(pending.popleft(), generated, now := now + 0.01)
        start = time.perf_counter()
        ended = act(scheduler.result(answer, now))
        for _ in range(ended):
            submit()
        spent += time.perf_counter() - start
        generated += len(answer.tokens)
    return spent / generated


def _decode(sequences: int) -> tuple[float, float]:
    scheduler = Scheduler()
    pipeline = Pipeline(1, 1, (StageCost(((1, 0.01),), 0.001),) * STAGES, 1 << 20, 128)
    pending: deque[Frame] = deque()
    _keep(scheduler.configure(pipeline, 0.0), pending)
    for number in range(sequences):
        sequence = number.to_bytes(16, "big")
        prompt = tuple(range(1, PROMPT + 1))
        _keep(scheduler.submit(Request(sequence, prompt, 1 << 19), 0.0), pending)
    prefill = sequences * (PROMPT // 16 + 1)
    times: list[float] = []
    codec: list[float] = []
    now = 0.0
    for step in range(prefill + WARM_UP + MEASURED):
        frame = pending.popleft()
        now += 0.01
        start = time.perf_counter()
        decode([bytes(part) for part in encode(frame, LIMITS)], LIMITS)
        between = time.perf_counter()
        answer = _answer(frame, step, now)
        asked = time.perf_counter()
        actions = scheduler.result(answer, now)
        end = time.perf_counter()
        _keep(actions, pending)
        if step >= prefill + WARM_UP:
            times.append(end - asked)
            codec.append(between - start)
    return statistics.median(times), statistics.median(codec)


def _answer(frame: Frame, token: int, now: float) -> Frame:
    times = (now - 0.009, now - 0.008, now - 0.002, now - 0.001)
    return replace(
        frame,
        kind=FrameKind.RESULT,
        tokens=tuple(token % 1000 for s in frame.spans for _ in range(s.outputs)),
        constants={},
        traces=tuple(StageTrace(i, *times) for i in range(STAGES)),
    )


def _keep(actions: list[Action], pending: deque[Frame]) -> None:
    for action in actions:
        assert not isinstance(action, Finished), "the benchmark's sequences do not end"
        if isinstance(action, Send):
            pending.append(action.frame)

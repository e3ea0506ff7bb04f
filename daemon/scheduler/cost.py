"""What a pass costs on each stage, learnt from the traces that frames bring back, and what follows
from it: how much to have in flight, and how long a prefill chunk may be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from daemon.scheduler.curve import WEIGHT, CostCurve
from daemon.scheduler.pipeline import StageCost
from transports.frame import StageTrace

MIN_CHUNK = 16
CHUNK_SHARE = 1.5  # a chunk beside running streams costs this many mean decode passes at most


class CostModel:
    """Starts from what the stages measured when they warmed up. `chunk_tokens` bounds every prefill
    chunk.
    """

    def __init__(self, stages: Sequence[StageCost], chunk_tokens: int) -> None:
        self._chunks = _candidates(chunk_tokens)
        sizes = (1, *self._chunks)
        self._curves = [
            CostCurve(sizes, max(s.decode_seconds, 0.0), max(s.prefill_token_seconds, 0.0))
            for s in stages
        ]
        self._between = 0.0  # links, and encoding: what a frame spends beside queues and passes

    @property
    def stages(self) -> int:
        return len(self._curves)

    def observe(self, tokens: int, traces: Sequence[StageTrace], sent: float, now: float) -> None:
        """A frame whose spans have `tokens` in all came back complete."""
        if not tokens or [t.stage for t in traces] != list(range(self.stages)):
            return
        between, before = 0.0, sent
        for trace in traces:
            self._curves[trace.stage].learn(tokens, max(0.0, trace.computed - trace.started))
            between += max(0.0, trace.received - before) + max(0.0, trace.sent - trace.computed)
            before = trace.sent
        between += max(0.0, now - before)
        self._between += WEIGHT * (between - self._between)

    def stage_seconds(self, stage: int, tokens: int) -> float:
        """Predicted time of one pass over `tokens` on one stage."""
        return self._curves[stage].seconds(tokens) if tokens else 0.0

    def slowest_seconds(self, tokens: int) -> float:
        return max(self.stage_seconds(i, tokens) for i in range(self.stages))

    def pass_seconds(self, tokens: int) -> float:
        """Predicted time through the whole pipe, with nothing queued ahead."""
        return self._between + sum(self.stage_seconds(i, tokens) for i in range(self.stages))

    def useful_in_flight(self) -> int:
        """As many microbatches as keep the slowest stage busy, and one that waits before it."""
        slowest = self.slowest_seconds(1)
        if slowest <= 0.0:
            return self.stages + 1
        return min(self.stages + 1, math.ceil(self.pass_seconds(1) / slowest - 0.1) + 1)

    def chunk(self, remaining: int, decoding: bool) -> int:
        """Tokens of the next prefill chunk of a prompt of which `remaining` are to be sent.

        Alone, the chunk size with the least predicted time through the pipe: small chunks cost
        passes, large ones leave the other stages waiting at the start and at the end. Beside
        running streams, no more than they are to wait.
        """
        best, least = self._chunks[0], math.inf
        wait = CHUNK_SHARE * sum(c.seconds(1) for c in self._curves) / self.stages
        for size in self._chunks:
            one_pass = self.slowest_seconds(min(size, remaining))
            if decoding and size > self._chunks[0] and one_pass > wait:
                break
            total = one_pass * (math.ceil(remaining / size) + self.stages - 1)
            if decoding or total < least:
                best, least = size, total
            if size >= remaining:
                break
        return min(best, remaining)

    def as_dict(self) -> dict[str, object]:
        """For `pipeline`: predicted seconds by number of tokens, and between the stages."""
        return {
            "stages": [curve.as_dict() for curve in self._curves],
            "between_seconds": self._between,
        }

    def check_integrity(self) -> None:
        assert math.isfinite(self._between), "cost: not a time"
        assert self._between >= 0.0, "cost: negative"
        for curve in self._curves:
            curve.check_integrity()


def _candidates(most: int) -> tuple[int, ...]:
    """Powers of two up to `most`, and `most`: few lengths, so that few signatures are compiled."""
    sizes = []
    size = MIN_CHUNK
    while size < most:
        sizes.append(size)
        size *= 2
    return (*sizes, most)

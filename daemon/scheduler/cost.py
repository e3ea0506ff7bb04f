"""What a pass costs on each stage, learnt from the traces that frames bring back.

A stage's pass over n tokens is predicted as decode + (n - 1) * per_token: passes of one token teach
the first, longer ones the second. Both start from what the stage measured when it warmed up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from daemon.scheduler.pipeline import StageCost
from transports.frame import StageTrace

WEIGHT = 0.125  # of a new observation
MIN_CHUNK = 16
CHUNK_SHARE = 1.5  # a chunk beside running streams costs this many mean decode passes at most


class CostModel:
    """`chunk_tokens` bounds every prefill chunk."""

    def __init__(self, stages: Sequence[StageCost], chunk_tokens: int) -> None:
        self._decode = [max(s.decode_seconds, 0.0) for s in stages]
        self._per_token = [max(s.prefill_token_seconds, 0.0) for s in stages]
        self._between = 0.0  # links, and encoding: what a frame spends beside queues and passes
        self._chunks = _candidates(chunk_tokens)

    @property
    def stages(self) -> int:
        return len(self._decode)

    def observe(self, tokens: int, traces: Sequence[StageTrace], sent: float, now: float) -> None:
        """A frame whose spans have `tokens` in all came back complete."""
        if not tokens or [t.stage for t in traces] != list(range(self.stages)):
            return
        between, before = 0.0, sent
        for trace in traces:
            self._learn(trace.stage, tokens, max(0.0, trace.computed - trace.started))
            between += max(0.0, trace.received - before) + max(0.0, trace.sent - trace.computed)
            before = trace.sent
        between += max(0.0, now - before)
        self._between += WEIGHT * (between - self._between)

    def stage_seconds(self, stage: int, tokens: int) -> float:
        """Predicted time of one pass over `tokens` on one stage."""
        if not tokens:
            return 0.0
        return self._decode[stage] + (tokens - 1) * self._per_token[stage]

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
        wait = CHUNK_SHARE * sum(self._decode) / self.stages
        for size in self._chunks:
            one_pass = self.slowest_seconds(size)
            if decoding and size > self._chunks[0] and one_pass > wait:
                break
            total = one_pass * (math.ceil(remaining / size) + self.stages - 1)
            if decoding or total < least:
                best, least = size, total
        return min(best, remaining)

    def as_dict(self) -> dict[str, object]:
        """For `pipeline`: the present predictions, in seconds."""
        return {
            "decode_seconds": list(self._decode),
            "prefill_token_seconds": list(self._per_token),
            "between_seconds": self._between,
        }

    def check_integrity(self) -> None:
        assert len(self._decode) == len(self._per_token), "cost: stages"
        values = [*self._decode, *self._per_token, self._between]
        assert all(math.isfinite(v) and v >= 0.0 for v in values), "cost: not a time"

    def _learn(self, stage: int, tokens: int, seconds: float) -> None:
        if tokens == 1:
            self._decode[stage] += WEIGHT * (seconds - self._decode[stage])
        else:
            each = max(0.0, seconds - self._decode[stage]) / (tokens - 1)
            self._per_token[stage] += WEIGHT * (each - self._per_token[stage])


def _candidates(most: int) -> tuple[int, ...]:
    """Powers of two up to `most`, and `most`: few lengths, so that few signatures are compiled."""
    sizes = []
    size = MIN_CHUNK
    while size < most:
        sizes.append(size)
        size *= 2
    return (*sizes, most)

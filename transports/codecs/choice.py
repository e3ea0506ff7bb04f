"""Which codec a hop should use: the wish `auto`, answered when a sequence is admitted.

The time of a frame of n rows on a hop is

    latency + bytes(n) / bandwidth + cost of encoding and decoding n rows

and what counts is its sum over the frames a sequence is expected to send: the chunks of its prompt,
and a step per token. Raw is exact, so another codec has to save at least LEAST_SAVING of raw's
time. Where int8 and fp8 both do, int8 loses less, and fp8 is taken only if int8 takes longer by
more than WORTH_ACCURACY of its time. A link that was not measured yet stays raw.

Whether int8 may come into question at all is the caller's knowledge of the model. Up to 8 massive
channels cost neither codec anything; with more of them int8 loses whatever shares a group with one
(12 channels x20,000: perplexity x24), while fp8, whose codes are floats, hardly notices
(`python -m benchmarks codec`). So for a model of which nothing is known, offer fp8 only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from transports.codecs.layout import Codec, encoded_bytes, obstacle
from transports.frame import DType

LEAST_SAVING = 0.2
WORTH_ACCURACY = 0.1


@dataclass(frozen=True, slots=True)
class Speed:
    """Of a hop as measured; 0 bytes per second: not measured yet."""

    bytes_per_second: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds to encode n rows at one end and decode them at the other: `frame_s` + n × `row_s`."""

    frame_s: float
    row_s: float

    def seconds(self, rows: int) -> float:
        return self.frame_s + rows * self.row_s


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a sequence will send over each hop: `prompt_tokens` in chunks, `output_tokens` steps of
    one row. `together` sequences share a step's frame: each pays its part of it.
    """

    prompt_tokens: int
    chunk_tokens: int
    output_tokens: int
    together: int = 1

    def frames(self) -> list[tuple[int, float]]:
        """Rows of a frame, and how many such frames."""
        whole, rest = divmod(self.prompt_tokens, self.chunk_tokens)
        steps = (self.together, self.output_tokens / self.together)
        return [(self.chunk_tokens, whole), (rest, 1 if rest else 0), steps]


def hop_seconds(
    codec: Codec, speed: Speed, width: int, dtype: DType, traffic: Traffic, cost: Cost | None
) -> float:
    """The sum over the traffic's frames; `cost` is None for RAW."""
    total = 0.0
    for rows, times in traffic.frames():
        wire = encoded_bytes(codec, width, rows, dtype) / speed.bytes_per_second
        coding = cost.seconds(rows) if cost else 0.0
        total += times * (speed.latency_s + wire + coding)
    return total


def choose(
    speed: Speed, width: int, dtype: DType, traffic: Traffic, costs: Mapping[Codec, Cost]
) -> Codec:
    """The codec of one hop for one sequence. Only those in `costs` come into question, and only
    with rows of a width they can write: leave INT8 out unless the model is known to suit it.
    """
    if not (math.isfinite(speed.bytes_per_second) and speed.bytes_per_second > 0):
        return Codec.RAW
    raw = hop_seconds(Codec.RAW, speed, width, dtype, traffic, None)
    seconds = {
        codec: hop_seconds(codec, speed, width, dtype, traffic, costs[codec])
        for codec in (Codec.INT8, Codec.FP8)
        if codec in costs and not obstacle(codec, width)
    }
    worth = {codec: s for codec, s in seconds.items() if s <= (1 - LEAST_SAVING) * raw}
    if not worth:
        return Codec.RAW
    fastest = min(worth.values())
    return next(codec for codec, s in worth.items() if s <= (1 + WORTH_ACCURACY) * fastest)

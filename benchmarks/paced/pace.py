"""How long everything takes in a paced run, in seconds of virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any, Self

from transports.codecs.layout import Codec, encoded_bytes
from transports.frame import DType

MS = 1e-3
WIDTH = 2048  # values in a virtual row
FULL_ROW = 4 * WIDTH  # bytes of one in fp32
FURTHER = 0.05  # of a pass, for every token in it after the first
VARIABLE = "BENCHMARK_PACE"  # names the file that a paced process reads its plan from


@dataclass(frozen=True, slots=True)
class Link:
    """A hop: `fixed` and `full_row` for every 8,192 bytes of hidden states, or `ids` for tokens."""

    fixed: float = 1 * MS
    full_row: float = 2 * MS
    ids: float = 3 * MS

    def hidden(self, nbytes: float) -> float:
        return self.fixed + self.full_row * nbytes / FULL_ROW

    def quicker(self, times: float) -> Link:
        return Link(self.fixed / times, self.full_row / times, self.ids / times)


@dataclass(frozen=True, slots=True)
class Pace:
    """`layers` of the real model and the seconds of a one-token pass, for each stage. Between two
    stages is a hop of hidden states; one of token ids leads from the last stage to the
    coordinator, which sits beside the first. Hidden states are written in `codec`.
    """

    layers: tuple[int, ...]
    passes: tuple[float, ...]
    link: Link = Link()
    codec: Codec = Codec.RAW

    @property
    def row_bytes(self) -> int:
        """Of a virtual row as it travels."""
        return encoded_bytes(self.codec, WIDTH, 1, DType.FLOAT32)

    def pass_seconds(self, stage: int, tokens: int) -> float:
        return self.passes[stage] * (1 + FURTHER * (tokens - 1))

    def hops(self, tokens: int) -> tuple[float, ...]:
        """What follows each stage, for a frame of so many positions."""
        hidden = self.link.hidden(tokens * self.row_bytes)
        return (*(hidden for _ in self.passes[1:]), self.link.ids)

    def round_seconds(self, tokens: int) -> float:
        """From the coordinator through all stages and back, nothing in the way."""
        passes = sum(self.pass_seconds(stage, tokens) for stage in range(len(self.passes)))
        return passes + sum(self.hops(tokens))

    def slowest_seconds(self, tokens: int) -> float:
        return max(self.pass_seconds(stage, tokens) for stage in range(len(self.passes)))

    def stage_from(self, first_layer: int) -> int:
        """The stage whose layers begin there."""
        return [0, *accumulate(self.layers)].index(first_layer)

    def with_link(self, link: Link) -> Pace:
        return replace(self, link=link)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        link = Link(**data["link"])
        return cls(tuple(data["layers"]), tuple(data["passes"]), link, Codec(data["codec"]))

"""What all comparisons of the benchmark `speculation` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.calm import Calm
from benchmarks.options import Multiplier, Options
from benchmarks.paced.reference import Answer, Reference
from benchmarks.report import Check, Fact
from benchmarks.requests import Stream
from benchmarks.rounds import Rounds
from benchmarks.worker import Worker

ROUNDS = 2


@dataclass(slots=True)
class Findings:
    """Of all comparisons together; `compared` tokens were mlx-lm's, but for `ties` and those that
    are `different`.
    """

    options: Options
    multiplier: Multiplier
    calm: Calm
    checks: list[Check] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    compared: int = 0
    ties: int = 0
    different: list[str] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        return min(self.options.counted, ROUNDS)

    def tokens(self, count: int) -> int:
        return 24 if self.options.quick else count

    def single(self, folder: Path, *arguments: str) -> Worker:
        """mlx-lm on one core."""
        environment = self.multiplier.environment
        command = ["--folder", str(folder), *arguments]
        return Worker("benchmarks.baseline_mlx", command, core=0, environment=environment)

    def rates(self, measured: Rounds) -> None:
        self.facts += [Fact(f"{n}, median", measured.median(n), "tok/s") for n in measured.values]

    def agreed(self, reference: Reference, who: str) -> None:
        """All that was compared with this reference."""
        self.compared += reference.compared
        self.ties += reference.ties
        self.different += [f"{who}: {text}." for text in reference.different]


def total_rate(streams: Sequence[Sequence[float]]) -> float:
    """Tokens per second of streams that ran one after the other, first tokens left out."""
    return sum(len(s) - 1 for s in streams) / sum(s[-1] - s[0] for s in streams)


def checked(reference: Reference, streams: Sequence[Stream], answers: Sequence[Answer]) -> None:
    for stream, answer in zip(streams, answers, strict=True):
        reference.compare(stream, answer)

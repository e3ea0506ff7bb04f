"""Who takes part in a comparison: mlx-lm on each core, the two ring pipelines, and our cluster, all
with one BLAS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.baseline_ring import STYLES, RingPair
from benchmarks.checkpoint import random_prompt
from benchmarks.cluster import PinnedCluster
from benchmarks.models import STATE, RandomLlama
from benchmarks.options import Multiplier
from benchmarks.worker import Worker, ask_all

# The head weighs as much as 1.4 of this model's layers: with an even cut the second stage would be
# 18 % heavier.
SPLIT = (9, 7)


@dataclass(frozen=True, slots=True)
class Lineup:
    """All processes are up and idle; whoever is not measured blocks on its input."""

    folder: Path
    singles: Sequence[Worker]
    rings: dict[str, RingPair]
    cluster: PinnedCluster

    def prompts(self, count: int, tokens: int) -> tuple[list[str], list[list[int]]]:
        """Different prompts of equal length, as text and as ids."""
        pairs = [random_prompt(self.folder, tokens, seed) for seed in range(count)]
        return [text for text, _ in pairs], [ids for _, ids in pairs]


@contextmanager
def lineup(
    model: RandomLlama, multiplier: Multiplier, split: tuple[int, int] = SPLIT
) -> Iterator[Lineup]:
    """Start everybody, end everybody. `split` is that of all two-stage contestants."""
    folder = model.folder()
    with ExitStack() as stack:
        arguments = ["--folder", str(folder)]
        singles = [
            stack.enter_context(
                Worker(
                    "benchmarks.baseline_mlx",
                    arguments,
                    core=core,
                    environment=multiplier.environment,
                )
            )
            for core in range(2)
        ]
        ask_all(singles, op="ready")
        rings = {
            style: stack.enter_context(
                RingPair(style, folder, split, STATE, multiplier.environment)
            )
            for style in STYLES
        }
        cluster = stack.enter_context(PinnedCluster(folder, split, multiplier.kind))
        yield Lineup(folder, singles, rings, cluster)

"""How long a benchmark may take, and with which BLAS its contestants multiply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.models import STATE, RandomLlama

STOCK, OPTIMISED = "stock", "openblas"


@dataclass(frozen=True, slots=True)
class Options:
    """`quick` only shows that everything runs: few rounds, few tokens; its numbers mean nothing and
    are not kept.
    """

    quick: bool = False
    rounds: int = 9
    blas: tuple[str, ...] = (OPTIMISED, STOCK)

    @property
    def counted(self) -> int:
        """Rounds."""
        return 2 if self.quick else self.rounds

    def tokens(self, blas: str) -> int:
        """Tokens to decode in one turn: long against the noise of waking up, short against a whole
        round.
        """
        return 24 if self.quick else 48 if blas == OPTIMISED else 24

    @property
    def patience(self) -> float:
        """Seconds that a benchmark may spend on waiting for a calm machine."""
        return 0.0 if self.quick else 600.0

    def model(self) -> RandomLlama:
        return RandomLlama()


@dataclass(frozen=True, slots=True)
class Multiplier:
    """A BLAS for every contestant of a run: its name, and what a process needs to use it."""

    kind: str
    name: str
    environment: Mapping[str, str]


def multipliers(options: Options) -> tuple[list[Multiplier], list[str]]:
    """The wanted ones that can be had here, and a note for each that cannot."""
    from daemon.engine.blas import environment, find_blas

    found = find_blas(STATE / "blas")
    have: list[Multiplier] = []
    notes: list[str] = []
    for kind in options.blas:
        if kind == STOCK:
            name = found.name if found.name == "accelerate" else "the wheel's own BLAS"
            have.append(Multiplier(STOCK, name, {}))
        elif found.preload is not None:
            have.append(Multiplier(OPTIMISED, found.name, environment(found)))
        else:
            why = found.reason or f"{found.name} is what MLX uses here"
            notes.append(f"Not run with a preloaded OpenBLAS: {why}.")
    return have, notes

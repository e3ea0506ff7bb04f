"""How long clients waited between two deliveries of tokens, while something went on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Gap:
    """Seconds that one client was given nothing, and the median of its other gaps; None: it had no
    other.
    """

    sequence: bytes
    seconds: float
    usual: float | None

    def to_wire(self) -> dict[str, Any]:
        return {
            "sequence": self.sequence.hex(),
            "seconds": self.seconds,
            "median_seconds": self.usual,
        }


@dataclass(slots=True)
class GapWatch:
    """Tokens that were delivered, and the longest gap that ended, since it was made."""

    tokens: int = 0
    longest: Gap | None = None

    def delivered(self, sequence: bytes, gaps: Sequence[float], tokens: int) -> None:
        """`gaps` are this client's latest, the one that has just ended last; none for its first
        tokens.
        """
        self.tokens += tokens
        if gaps:
            self.waited(sequence, gaps[-1], list(gaps)[:-1])

    def waited(self, sequence: bytes, seconds: float, others: Iterable[float]) -> None:
        """One that has ended, or is as long already."""
        if self.longest is None or seconds > self.longest.seconds:
            others = list(others)
            self.longest = Gap(sequence, seconds, median(others) if others else None)

"""Which stages compute again what they alone have lost of a sequence (DESIGN.md §9)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from transports.frame import MAX_REFILLED, Refill

MIN_REFILL = 16  # tokens: fewer are computed again by all stages sooner than looked up


@dataclass(frozen=True, slots=True)
class Refilling:
    """`stages` are given the tokens before `until` again; the others have them."""

    stages: Refill
    until: int


def refill_of(lost: Collection[int], stages: int) -> Refill | None:
    """The stages to refill, of so many, when these have lost what they held: those between them
    too. None when that would be no less than all.
    """
    if not lost:
        return None
    first, end = min(lost), max(lost) + 1
    possible = end - first < stages and end <= min(stages, MAX_REFILLED)
    return Refill(first, end) if possible else None

"""A draft process in which an oracle guesses, a token in the time of a paced one. Its socket, its
messages and its turns are those of every draft.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.paced.oracle import OracleDrafter
from benchmarks.paced.plan import Kept, PacedPlan
from daemon.draft.__main__ import main
from daemon.draft.drafter import Guess
from daemon.draft.model import DraftModel


class PacedDrafter(OracleDrafter):
    """Every step takes `seconds`, of real time."""

    def __init__(self, plan: PacedPlan, seconds: float, kept: Kept) -> None:
        super().__init__(plan.scripts)
        self._seconds, self._kept = seconds, kept

    def step(self) -> list[Guess]:
        began = time.monotonic()
        guesses = super().step()
        self._kept.keep(began + self._seconds)
        return guesses


def run() -> None:
    plan, steps = PacedPlan.of_environment(), Kept()
    seconds = plan.slow * plan.guess_seconds

    def load(*_: Any) -> tuple[PacedDrafter, float]:
        return PacedDrafter(plan, seconds, steps), seconds

    DraftModel.load = load  # type: ignore[assignment,method-assign]
    main()
    steps.tell(plan.folder, "passes")


if __name__ == "__main__":
    run()

"""Other work on the machine: noticed, waited for, and the turns it disturbed repeated.

A pipeline suffers more from a neighbour than one process does: the scheduler puts the neighbour on
the core of the stage that waits, and it is in the way when that stage's turn comes. Comparing them
under load would measure that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

LIMIT = 0.1  # of one core: what the kernel and the daemons of an idle machine stay below
WAIT_SECONDS = 0.5


@dataclass(slots=True)
class Usage:
    """CPU seconds up to a moment: of the whole machine, and of this process and its descendants."""

    at: float
    machine: float
    own: float


class Calm:
    """Runs turns; those that other work disturbed again, until `budget` seconds are used up."""

    def __init__(self, budget: float, look: Callable[[], Usage] | None = None) -> None:
        self.budget = budget
        self.turns = 0
        self.disturbed = 0
        self._look = look or usage

    def turn(self, measure: Callable[[], float]) -> float:
        """The value of a calm turn; without one, that of the least disturbed."""
        self.turns += 1
        tries: list[tuple[float, float]] = []
        while True:
            before = self._look()
            value = measure()
            after = self._look()
            foreign = foreign_share(before, after)
            tries.append((foreign, value))
            if foreign <= LIMIT:
                return value
            self.budget -= after.at - before.at
            self._wait()
            if self.budget <= 0:
                self.disturbed += 1
                return min(tries)[1]

    def note(self) -> str:
        """How calm it was, for the report."""
        limit = f"{LIMIT:.0%} of one core"
        if not self.disturbed:
            return f"Other work stayed below {limit} during every turn."
        return f"In {self.disturbed} of {self.turns} turns other work took more than {limit}."

    def _wait(self) -> None:
        """Until nobody else works, as long as the budget lasts."""
        while self.budget > 0:
            before = self._look()
            time.sleep(WAIT_SECONDS)
            after = self._look()
            if foreign_share(before, after) <= LIMIT:
                return
            self.budget -= after.at - before.at


def foreign_share(before: Usage, after: Usage) -> float:
    """Of one core, what others took in between."""
    seconds = max(after.at - before.at, 1e-9)
    return (after.machine - before.machine - (after.own - before.own)) / seconds


def usage() -> Usage:
    """Of now. Processes that end in between are missing from `own`: contestants live on."""
    times = psutil.cpu_times()
    own = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            spent = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        own += spent.user + spent.system
    idle = times.idle + getattr(times, "iowait", 0.0)
    return Usage(time.monotonic(), sum(times) - idle, own)

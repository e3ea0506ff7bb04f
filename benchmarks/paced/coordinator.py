"""A coordinator that asks an oracle for guesses, and nobody where there is none or a draft process
has it. It sits beside the first stage: what it sends goes there at once.
"""

from __future__ import annotations

from functools import partial

from benchmarks.paced.ends import pace_links
from benchmarks.paced.oracle import Oracle
from benchmarks.paced.plan import Kept, PacedPlan
from daemon.coordinator import process
from daemon.coordinator.__main__ import main
from daemon.scheduler.scheduler import Scheduler
from daemon.scheduler.speculation import tempo


def run() -> None:
    plan, hops = PacedPlan.of_environment(), Kept()
    oracle = Oracle(() if plan.guess_seconds else plan.scripts)
    guessing = partial(Scheduler, guesser=oracle)
    process.Scheduler = guessing  # type: ignore[attr-defined,assignment]
    if not plan.ahead:
        tempo.AFTER = (0,)  # type: ignore[assignment]
    pace_links(plan, hops, onward=False)
    main()
    hops.tell(plan.folder, "hops")


if __name__ == "__main__":
    run()

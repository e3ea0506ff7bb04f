"""A stage process that computes as it always does, and then waits until the pass has taken as long
as it should.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.paced.ends import pace_links
from benchmarks.paced.plan import Kept, PacedPlan
from daemon.engine.stage import Row, Stage
from daemon.stage.__main__ import main

Run = Callable[..., Any]


def paced(run: Run, plan: PacedPlan, kept: Kept) -> Run:
    """`Stage.run`, drawn out. Warming up is, too: so a stage says of itself what it will take."""

    def drawn_out(stage: Stage, rows: Sequence[Row], hidden: Any = None) -> Any:
        began = time.monotonic()
        output = run(stage, rows, hidden)
        tokens = sum(len(row.tokens) for row in rows)
        kept.keep(began + plan.pass_seconds(stage.layers.start, tokens))
        return output

    return drawn_out


def run() -> None:
    plan, passes, hops = PacedPlan.of_environment(), Kept(), Kept()
    Stage.run = paced(Stage.run, plan, passes)  # type: ignore[method-assign]
    pace_links(plan, hops, onward=True)
    main()
    passes.tell(plan.folder, "passes")
    hops.tell(plan.folder, "hops")


if __name__ == "__main__":
    run()

"""A stage process that computes as it always does, and then waits until the pass has taken as long
as it should on its node. Warming up is drawn out, too: so it measures of itself what it will take.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.paced.plan import Kept
from benchmarks.placement.nodes import VARIABLE, Node, of_environment
from daemon.engine.stage import Row, Stage
from daemon.stage.__main__ import main

Run = Callable[..., Any]


def paced(run: Run, node: Node, kept: Kept) -> Run:
    """`Stage.run`, drawn out."""

    def drawn_out(stage: Stage, rows: Sequence[Row], hidden: Any = None) -> Any:
        began = time.monotonic()
        output = run(stage, rows, hidden)
        tokens = sum(len(row.tokens) for row in rows)
        kept.keep(began + node.pass_seconds(len(stage.layers), stage.is_last, tokens))
        return output

    return drawn_out


def run() -> None:
    name = yaml.safe_load(Path(sys.argv[1]).read_text())["node"]["name"]
    node, kept = of_environment(name), Kept()
    Stage.run = paced(Stage.run, node, kept)  # type: ignore[method-assign]

    def head_seconds(self: Stage) -> float:
        return node.head if self.is_last else 0.0

    Stage.head_seconds = head_seconds  # type: ignore[method-assign]
    main()
    kept.tell(Path(os.environ[VARIABLE]).parent, "passes")


if __name__ == "__main__":
    run()

"""A coordinator that asks an oracle for guesses, and nobody for what it has no script of."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

from benchmarks.paced.oracle import Oracle, Script
from daemon.coordinator import process
from daemon.coordinator.__main__ import main
from daemon.scheduler.scheduler import Scheduler

VARIABLE = "BENCHMARK_SCRIPTS"  # names the file that the scripts are read from


def run() -> None:
    scripts = map(Script.from_json, json.loads(Path(os.environ[VARIABLE]).read_text()))
    guessing = partial(Scheduler, guesser=Oracle(scripts))
    process.Scheduler = guessing  # type: ignore[attr-defined,assignment]
    main()


if __name__ == "__main__":
    run()

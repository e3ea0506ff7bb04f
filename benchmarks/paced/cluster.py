"""A paced cluster of the embedded model: one relay, and a local cluster whose processes are
paced.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.cluster import BenchCluster
from benchmarks.models import STATE
from benchmarks.paced.oracle import Script
from benchmarks.paced.pace import VARIABLE, Pace
from benchmarks.paced.plan import Kept, PacedPlan
from benchmarks.worker import ROOT, free_ports
from daemon.embedded import TARGET

MODULE = "benchmarks.paced.shardd"


@dataclass(slots=True)
class Paced:
    """A cluster that runs. How well times were kept is known when it has ended."""

    cluster: BenchCluster
    passes: Kept = field(default_factory=Kept)
    hops: Kept = field(default_factory=Kept)


@contextmanager
def paced_cluster(
    pace: Pace,
    slow: float,
    scripts: tuple[Script, ...] = (),
    ahead: bool = True,
    guess_seconds: float = 0.0,
) -> Iterator[Paced]:
    """Nothing of an earlier one is known to it."""
    state = STATE / "cluster-paced"
    for folder in state.glob("*/"):
        shutil.rmtree(folder)
    (state / "told").mkdir(parents=True)
    relay = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    hidden_size = json.loads((TARGET / "config.json").read_text())["hidden_size"]
    told = state / "told"
    plan = PacedPlan(pace, slow, hidden_size, relay, told, scripts, ahead, guess_seconds)
    draft = str(TARGET) if guess_seconds else ""  # whose tokenizer, and not weights, are of use
    plan.write(state / "plan.json")
    os.environ[VARIABLE] = str(state / "plan.json")
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.paced.relay"], cwd=ROOT)
    try:
        with BenchCluster(
            state, TARGET, pace.layers, MODULE, guessing=True, draft=draft, codec=pace.codec.value
        ) as cluster:
            paced = Paced(cluster)
            if draft:
                cluster.await_draft()
            yield paced
        paced.passes = Kept.told(plan.folder, "passes")
        paced.hops = Kept.told(plan.folder, "hops")
    finally:
        del os.environ[VARIABLE]
        process.terminate()
        process.wait()

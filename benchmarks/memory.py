"""What a stage takes at its highest: own weights, KV, and how much else; and what it opened while
it loaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import random_prompt
from benchmarks.cluster import PinnedCluster
from benchmarks.lineup import SPLIT
from benchmarks.models import RandomLlama
from benchmarks.options import Options
from benchmarks.report import Check, Fact, at_most
from benchmarks.worker import Worker, serve

PROMPT, TOKENS = 2000, 16
OVERHEAD_MB = 200.0
READ_SHARE = (
    1.05  # beside its tensors a loading stage reads headers, configuration and a few modules
)


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    model = options.model()
    checks, facts, notes = _peaks(model, 200 if options.quick else PROMPT)
    more_checks, more_facts = _loading(model)
    return checks + more_checks, facts + more_facts, notes


def _peaks(model: RandomLlama, prompt: int) -> tuple[list[Check], list[Fact], list[str]]:
    folder = model.folder()
    text = random_prompt(folder, prompt, 0)[0]
    with PinnedCluster(folder, SPLIT) as cluster:
        cluster.generate([text], TOKENS)
        nodes = sorted(cluster.status()["nodes"], key=lambda n: int(n["stage"]))
        peaks = [peak_bytes(int(node["stage_pid"])) for node in nodes]
    checks: list[Check] = []
    facts: list[Fact] = []
    start = 0
    for stage, (layers, peak, node) in enumerate(zip(SPLIT, peaks, nodes, strict=True)):
        weights = model.stage_bytes(start, start + layers)
        kv = model.kv_bytes(start, start + layers, prompt + TOKENS)
        start += layers
        rest = None if peak is None else (peak - weights - kv) / 1e6
        checks.append(at_most(f"mb_beside_weights_and_kv.stage{stage}", rest, OVERHEAD_MB))
        facts.append(Fact(f"stage {stage}: own weights, as counted", weights / 1e6, "MB"))
        facts.append(Fact(f"stage {stage}: weights, as it says", node["weights_bytes"] / 1e6, "MB"))
        facts.append(Fact(f"stage {stage}: KV of {prompt + TOKENS} tokens", kv / 1e6, "MB"))
        if peak is not None:
            facts.append(Fact(f"stage {stage}: highest resident size", peak / 1e6, "MB"))
    notes = [
        f"Highest resident size of the process (Python and MLX included); BLAS: {nodes[0]['blas']}."
    ]
    if None in peaks:
        notes.append("This system does not say what a process's highest resident size was.")
    return checks, facts, notes


def _loading(model: RandomLlama) -> tuple[list[Check], list[Fact]]:
    folder = model.folder()
    checks: list[Check] = []
    facts: list[Fact] = []
    start = 0
    for stage, layers in enumerate(SPLIT):
        with Worker(__name__) as worker:
            got = worker.ask(op="load", folder=str(folder), start=start, end=start + layers)
        own = model.tensors(start, start + layers)
        foreign = sorted(set(got["tensors"]) - own)
        checks.append(at_most(f"foreign_tensors_opened.stage{stage}", len(foreign), 0))
        weights = model.stage_bytes(start, start + layers)
        if got["read"] is not None:
            share = got["read"] / weights
            checks.append(at_most(f"bytes_read_vs_own_weights.stage{stage}", share, READ_SHARE))
        facts.append(Fact(f"stage {stage}: tensors opened of {len(own)} own", len(got["tensors"])))
        start += layers
    return checks, facts


def peak_bytes(pid: int) -> int | None:
    """The highest resident size since the process began; None where the system does not keep it."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def bytes_read() -> int | None:
    """What this process has asked the system to read so far, cached or not."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        return None
    lines = counters.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def main() -> None:
    """A process that loads one stage and says what it opened."""
    argparse.ArgumentParser().parse_args()
    import mlx_lm.models.llama  # noqa: F401 -- modules read now are not counted as weights

    from daemon.engine.stage import Stage
    from daemon.layers import LayerRange

    def load(folder: str, start: int, end: int) -> dict[str, Any]:
        before = bytes_read()
        stage = Stage.load(Path(folder), LayerRange(start, end))
        after = bytes_read()
        read = None if before is None or after is None else after - before
        return {"tensors": sorted(stage.tensor_names), "read": read}

    serve({"load": load})


if __name__ == "__main__":
    main()

"""`python -m tests.soak [--seed N] [--fresh]`: the tests too long for `make test`, one JSON result
a run.

A run that was broken off goes on where it was: what has passed under the same seed and commit is
not run again. The result is soak/SEED.json; docs/soak.md says what each part proves, and is written
with the summary of the last run. What a test prints in lines that begin with "seed" is counted
there; lines that begin with "sum" are added up.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "soak.md"
PARTS = {
    "engine/test_parity.py": "every split of every supported model gives mlx-lm's tokens",
    "engine/test_batches.py": "sequences that come, go and are trimmed between steps",
    "engine/test_warm.py": "no model compiles anything after its first seconds",
    "stage/test_reuse.py": "forks, evictions and faults with real models",
    "simulator/test_histories.py": (
        "thousands of simulated histories of loss, death and hanging, with crowds, restarts and "
        "prompts that begin alike: no token is wrong, lost or doubled"
    ),
    "simulator/test_moves.py": (
        "4,000 simulated histories with several rebalances each, calm and among all faults"
    ),
    "cluster/test_moves.py": (
        "225 rebalances of real processes, of every kind, while up to four clients read: no token "
        "is wrong, lost or doubled, and none is computed twice"
    ),
    "cluster/test_chaos.py": (
        "400 misfortunes of real processes (kill -9, SIGSTOP, cut and slow links, frames lost and "
        "doubled, garbage, rebalances, machines and coordinators that die): every request ends, "
        "exact"
    ),
    "cluster/test_rebalance.py": "each kind of rebalance by itself; stages killed in the middle",
    "cluster/test_kill.py": "kill -9 and SIGSTOP of any stage",
    "cluster/test_refill.py": "kill -9 of the first stage: it alone computes what it lost",
    "cluster/test_hang.py": "stages that hang are found, slow ones are left alone",
    "cluster/test_frame_faults.py": "frames that are lost or doubled at any hop",
    "cluster/test_coordinator.py": "coordinators that are killed at any moment",
    "cluster/test_fencing.py": "coordinators that are stopped, replaced and continued",
    "cluster/test_members.py": "clusters of two to eight nodes",
    "cluster/test_drain.py": "nodes that are drained while people read",
    "cluster/test_misfits.py": "a node whose weights differ in one byte",
    "cluster/test_rdma.py": (
        "rdma processes that are killed, stopped or crash while tokens come, a hundred times each: "
        "no token is lost or doubled, and the stages stay as they were; a thousand switches of "
        "hops leave nothing over"
    ),
    "machine/test_rdma_histories.py": "hundreds of histories of groups of RDMA, in any trouble",
    "simulator/test_paths.py": (
        "4,000 simulated histories in which hops turn between their paths and lose them, also in "
        "the middle of moves"
    ),
}
HOW = """\
# The soak

What takes too long for `make test`. `make soak` runs all of it, one test after the other;
`ARGS="-k chaos"` chooses, `ARGS="--seed 3"` keeps another result. A run that was broken off goes on
where it was, and `--fresh` forgets what has passed. Clusters of real processes want the machine for
themselves. Each seed of `cluster/test_moves.py` and `cluster/test_chaos.py` is a cluster of its own
and takes one to three minutes on two cores.

| tests | what they prove |
|---|---|
"""


class Recorder:
    """A pytest plugin that leaves out what has passed and writes every outcome down at once."""

    def __init__(self, path: Path, result: dict[str, Any]) -> None:
        self._path = path
        self._result = result
        self._tests: dict[str, dict[str, Any]] = result["tests"]

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        done = {name for name, test in self._tests.items() if test["outcome"] == "passed"}
        left = [item for item in items if item.nodeid not in done]
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in done])
        items[:] = left

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and not report.passed):
            said = [x for x in report.capstdout.splitlines() if x.startswith(("seed", "sum"))]
            entry: dict[str, Any] = {
                "outcome": report.outcome,
                "seconds": round(report.duration, 2),
                "counted": said,
            }
            self._tests[report.nodeid] = entry
            self.write()

    def write(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self._result, indent=1))
        fresh.replace(self._path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="forget what has passed")
    arguments, rest = parser.parse_known_args()
    path = ROOT / "soak" / f"{arguments.seed}.json"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    result: dict[str, Any] = {"seed": arguments.seed, "commit": commit, "tests": {}}
    if path.exists() and not arguments.fresh:
        before = json.loads(path.read_text())
        result = before if before["commit"] == commit else result
    result["machine"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    os.environ["SOAK_SEED"] = str(arguments.seed)
    recorder = Recorder(path, result)
    flags = ["-q", "-m", "soak", "--timeout=0", f"--rootdir={ROOT}", *rest]
    status = int(pytest.main(flags, plugins=[recorder]))
    recorder.write()
    PAGE.write_text(summary(result, rest))
    return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED and result["tests"] else status


def summary(result: dict[str, Any], rest: list[str]) -> str:
    """The page: what there is, and the last run; `rest` are the arguments that chose its tests."""
    tests = result["tests"]
    chosen = shlex.join(["--seed", str(result["seed"]), *rest])
    files: dict[str, list[dict[str, Any]]] = {}
    for name, test in tests.items():
        files.setdefault(name.partition("::")[0], []).append(test)
    rows = [
        f"| {file} | {sum(t['outcome'] == 'passed' for t in group)} of {len(group)} "
        f"| {sum(t['seconds'] for t in group):.0f} |"
        for file, group in sorted(files.items())
    ]
    said = [line for test in tests.values() for line in test.get("counted", ())]
    counted = [f"- {line}" for line in (*_added(said), *(x for x in said if x[:4] == "seed"))]
    failed = [f"- {name}" for name, test in tests.items() if test["outcome"] == "failed"]
    lines = [
        "## The last run",
        "",
        f"`python -m tests.soak {chosen}`, commit {result['commit']}, "
        f"{result['machine']}, {time.strftime('%Y-%m-%d', time.gmtime())}.",
        "",
        "| tests | passed | seconds |",
        "|---|---|---|",
        *rows,
        *(["", "Counted:", "", *counted] if counted else []),
        *(["", "Failed:", "", *failed] if failed else []),
    ]
    parts = "".join(f"| {file} | {what} |\n" for file, what in PARTS.items())
    return HOW + parts + "\n" + "\n".join(lines) + "\n"


def _added(lines: list[str]) -> list[str]:
    """Those that are sums, added up where they differ in nothing but numbers."""
    sums: dict[str, list[int]] = {}
    for line in lines:
        if line.startswith("sum"):
            shape, numbers = re.sub(r"\d+", "{}", line), map(int, re.findall(r"\d+", line))
            sums[shape] = [a + b for a, b in zip_longest(sums.get(shape, ()), numbers, fillvalue=0)]
    return [shape.format(*numbers) for shape, numbers in sums.items()]


if __name__ == "__main__":
    sys.exit(main())

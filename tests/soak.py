"""`python -m tests.soak [--seed N] [--fresh]`: the tests too long for `make test`, one JSON result
a run.

A run that was broken off goes on where it was: what has passed under the same seed and commit is
not run again. The result is soak/SEED.json; docs/soak.md is a summary of the last run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SUMMARY = ROOT / "docs" / "soak.md"


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
            entry = {"outcome": report.outcome, "seconds": round(report.duration, 2)}
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
    SUMMARY.write_text(summary(result, rest))
    return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED and result["tests"] else status


def summary(result: dict[str, Any], rest: list[str]) -> str:
    """The last run in words; `rest` are the arguments that chose among the tests."""
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
    failed = [f"- {name}" for name, test in tests.items() if test["outcome"] == "failed"]
    lines = [
        "# The last soak run",
        "",
        f"`python -m tests.soak {chosen}`, commit {result['commit']}, "
        f"{result['machine']}, {time.strftime('%Y-%m-%d', time.gmtime())}.",
        "",
        "| tests | passed | seconds |",
        "|---|---|---|",
        *rows,
    ]
    return "\n".join(lines + (["", "Failed:", "", *failed] if failed else [])) + "\n"


if __name__ == "__main__":
    sys.exit(main())

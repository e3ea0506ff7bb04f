"""Are the tokens of every split those of mlx-lm in one process? Runs the soak tests of the engine,
and counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks.options import Options
from benchmarks.report import Check, Fact, at_least
from benchmarks.worker import ROOT

TESTS = "tests/engine/test_parity.py"
SAMPLE = "test_some_splits"
ALL = "test_every_split"


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", TESTS, "-q", f"--junitxml={report}"]
        command += ["-k", SAMPLE] if options.quick else ["-m", "soak", "-k", ALL]
        subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)
        passed, failed = count(report.read_text()) if report.exists() else ([], [])
    total = len(passed) + len(failed)
    share = 100 * len(passed) / total if total else None
    facts = [
        Fact("model forms compared", total),
        Fact("seconds", time.monotonic() - start, "s"),
    ]
    notes = [f"A form is an architecture with its weights as they are or in 4 bits; see {TESTS}."]
    notes += [f"Not equal: {name}." for name in failed]
    return [at_least("parity_percent", share, 100)], facts, notes


def count(report: str) -> tuple[list[str], list[str]]:
    """Names of the cases that passed, and of those that did not; a skipped one did not."""
    passed: list[str] = []
    failed: list[str] = []
    for case in ElementTree.fromstring(report).iter("testcase"):
        bad = any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
        (failed if bad else passed).append(case.get("name", "?"))
    return passed, failed

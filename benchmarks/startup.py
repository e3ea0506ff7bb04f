"""How long an operator waits: for help, for status, and from `make demo` to the first token."""

from __future__ import annotations

import os
import select
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.cluster import PinnedCluster
from benchmarks.options import Options
from benchmarks.report import Check, Fact, at_most
from benchmarks.worker import ROOT
from daemon import embedded

HELP, STATUS, DEMO = 0.3, 0.5, 15.0
DEMO_LIMIT = 120.0


def run(options: Options) -> tuple[list[Check], list[Fact], list[str]]:
    times = 3 if options.quick else 2 * options.rounds + 1
    shardctl = _shardctl()
    seconds = {"help": [_timed([*shardctl, "--help"]) for _ in range(times)]}
    with PinnedCluster(embedded.TARGET, None) as cluster:
        command = [*shardctl, "--endpoint", cluster.endpoint, "status"]
        seconds["status"] = [_timed(command) for _ in range(times)]
    # "From an installed checkout": whatever `make demo` must install is not its time.
    subprocess.run(["make", "-s", ".venv/.runtime"], cwd=ROOT, stdout=sys.stderr, check=True)
    demos = [_first_token() for _ in range(1 if options.quick else 3)]
    checks = [
        at_most("shardctl_help_s", statistics.median(seconds["help"]), HELP),
        at_most("shardctl_status_s", statistics.median(seconds["status"]), STATUS),
    ]
    notes = ["Medians, on unpinned processes; everything was started before, so files are cached."]
    measured = [demo for demo in demos if demo is not None]
    whole = len(measured) == len(demos)
    checks.append(
        at_most("make_demo_first_token_s", statistics.median(measured) if whole else None, DEMO)
    )
    if not whole:
        notes.append("`make demo` ended without printing anything in at least one run.")
    facts = [
        Fact(f"shardctl {name}, slowest of {times}", max(v), "s") for name, v in seconds.items()
    ]
    return checks, facts + [Fact("make demo, each run", demo, "s") for demo in measured], notes


def _shardctl() -> list[str]:
    """The installed command, else the module that it runs."""
    script = Path(sys.executable).with_name("shardctl")
    return [str(script)] if script.exists() else [sys.executable, "-m", "ctl.main"]


def _timed(command: list[str]) -> float:
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.monotonic() - start


def _first_token() -> float | None:
    """Seconds until `make demo` writes its first byte of text; None when it ends without."""
    start = time.monotonic()
    process = subprocess.Popen(
        ["make", "-s", "demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], DEMO_LIMIT)
        came = bool(ready) and bool(os.read(process.stdout.fileno(), 1))
        taken = time.monotonic() - start
        while came and os.read(process.stdout.fileno(), 1 << 16):
            pass  # it ends its cluster itself when its text is done
        return taken if came else None
    finally:
        try:
            process.wait(DEMO_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()
        process.stdout.close()

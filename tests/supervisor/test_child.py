"""A supervised child, with real processes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from daemon.supervisor.child import Child, Exit
from daemon.supervisor.policy import RestartRules

QUICK = RestartRules(first_delay=0.0, factor=1.0, burst=2, window=100.0)


def make(script: str, folder: Path, on_exit: Callable[[Exit], None]) -> Child:
    command = [sys.executable, "-u", "-c", script]
    return Child("child", command, dict(os.environ), folder / "log", on_exit, QUICK)


async def run_all(script: str, folder: Path) -> tuple[Child, list[Exit]]:
    exits: list[Exit] = []
    child = make(script, folder, exits.append)
    await child.run()
    return child, exits


def test_a_crash_loop_is_broken_and_the_reason_kept(tmp_path: Path) -> None:
    script = "import sys; print('no such model', file=sys.stderr); sys.exit(4)"
    child, exits = asyncio.run(run_all(script, tmp_path))
    assert [e.retry_seconds for e in exits] == [0.0, 0.0, None]
    assert exits[-1].detail == "exit code 4: no such model"
    assert list(child.lines) == ["no such model"] * 3
    assert (tmp_path / "log").read_text().count("no such model") == 3


def test_a_command_that_cannot_start_is_an_exit_too(tmp_path: Path) -> None:
    async def run() -> list[Exit]:
        exits: list[Exit] = []
        child = Child("c", ["/no/such/program"], {}, tmp_path / "log", exits.append, QUICK)
        await child.run()
        return exits

    exits = asyncio.run(run())
    assert exits[0].reason == "start"


async def said_something(child: Child) -> None:
    """The child says when its signal handler is set."""
    while not child.lines:  # noqa: ASYNC110 - the child is another process
        await asyncio.sleep(0.01)


def test_stop_asks_first_and_insists_later(tmp_path: Path) -> None:
    async def run(script: str) -> Exit:
        exits: list[Exit] = []
        child = make(script, tmp_path, exits.append)
        task = asyncio.create_task(child.run())
        await asyncio.wait_for(said_something(child), 30)
        await child.stop(grace=0.3)
        await task
        return exits[0]

    polite = (
        "import signal,sys,time; signal.signal(15, lambda *a: sys.exit(0));"
        "print('up', file=sys.stderr); time.sleep(60)"
    )
    deaf = polite.replace("lambda *a: sys.exit(0)", "signal.SIG_IGN")
    assert asyncio.run(run(polite)).detail == "exit code 0"
    assert asyncio.run(run(deaf)).detail == "signal SIGKILL"


def test_a_very_long_line_does_not_stop_the_child(tmp_path: Path) -> None:
    script = "import sys; sys.stderr.write('x' * 300000 + '\\n'); print('after', file=sys.stderr)"
    child, exits = asyncio.run(run_all(script, tmp_path))
    assert child.lines[-1] == "after"
    assert exits[0].detail == "exit code 0"

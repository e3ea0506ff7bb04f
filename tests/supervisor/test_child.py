"""A supervised child, with real processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from daemon.supervisor import output
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


def test_a_child_that_cannot_be_configured_is_not_started_again(tmp_path: Path) -> None:
    _, exits = asyncio.run(run_all("import sys; sys.exit(78)", tmp_path))
    assert [e.retry_seconds for e in exits] == [None]


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


def test_stop_while_it_is_being_started_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(end: Callable[[Child], Any]) -> Exit:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slowly(*command: str, **options: Any) -> asyncio.subprocess.Process:
            begun.set()
            await go_on.wait()
            return await start(*command, **options)

        monkeypatch.setattr(asyncio, "create_subprocess_exec", slowly)
        exits: list[Exit] = []
        child = make("import time; time.sleep(60)", tmp_path, exits.append)
        task = asyncio.create_task(child.run())
        await begun.wait()
        ending = asyncio.create_task(end(child))
        await asyncio.sleep(0)
        go_on.set()
        await ending
        await asyncio.wait_for(task, 30)
        return exits[0]

    async def at_once(child: Child) -> None:
        child.kill_for_good()

    start = asyncio.create_subprocess_exec
    for end in (lambda child: child.stop(30.0), lambda child: child.stop(0.0), at_once):
        ended = asyncio.run(run(end))
        assert (ended.detail, ended.retry_seconds) == ("signal SIGKILL", None)
        assert not psutil.pid_exists(ended.pid)


def test_stop_ends_the_wait_for_the_next_start(tmp_path: Path) -> None:
    async def run() -> list[Exit]:
        exits: list[Exit] = []
        rules = RestartRules(first_delay=60.0, longest_delay=60.0)
        child = Child("c", ["/no/such/program"], {}, tmp_path / "log", exits.append, rules)
        task = asyncio.create_task(child.run())
        while not exits:  # noqa: ASYNC110 - a callback fills it
            await asyncio.sleep(0.01)
        await child.stop(30.0)
        await asyncio.wait_for(task, 1)
        return exits

    assert len(asyncio.run(run())) == 1


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # whom nobody has waited for
    except psutil.NoSuchProcess:
        return False


def test_what_the_child_has_started_ends_with_it(tmp_path: Path) -> None:
    """It has the same stderr: the child's end must be seen all the same."""
    script = (
        "import subprocess, sys; started = subprocess.Popen(['sleep', '60']);"
        "print(started.pid, file=sys.stderr)"
    )
    began = time.monotonic()
    child, exits = asyncio.run(run_all(script, tmp_path))
    assert [e.detail for e in exits] == ["exit code 0"] * 3
    assert time.monotonic() - began < 30.0
    while any(runs(int(line)) for line in child.lines):
        assert time.monotonic() - began < 50.0
        time.sleep(0.01)


def test_a_full_log_file_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "LOG_FILE_BYTES", 50)
    script = "import sys; [print(f'line {i:04}', file=sys.stderr) for i in range(33)]"
    asyncio.run(run_all(script, tmp_path))
    assert (tmp_path / "log").read_text().endswith("line 0032\n")
    assert (tmp_path / "log.1").stat().st_size == 50


@pytest.mark.parametrize("kind", ["full", "no folder"])
def test_a_log_file_that_cannot_be_written_costs_the_file_only(tmp_path: Path, kind: str) -> None:
    if kind == "full":
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full on this system")
        (tmp_path / "log").symlink_to("/dev/full")
    else:
        (tmp_path / "file").write_text("")
        tmp_path /= "file"
    child, exits = asyncio.run(run_all("import sys; sys.exit('why')", tmp_path))
    assert [e.detail for e in exits] == ["exit code 1: why"] * 3
    assert list(child.lines) == ["why"] * 3

"""sd_notify, the watchdog's interval, and signals that only enqueue."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.service import (
    Demand,
    Notifier,
    config_exit_code,
    handle_signals,
    watchdog_interval,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def _signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def addresses(tmp_path: Path) -> list[str]:
    abstract = [f"@shardbus-test-{os.getpid()}"] if sys.platform == "linux" else []
    return [str(tmp_path / "n.sock"), *abstract]


def test_notifications_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in addresses(tmp_path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(5)
            manager.bind("\0" + address[1:] if address[0] == "@" else address)
            monkeypatch.setenv("NOTIFY_SOCKET", address)
            notifier = Notifier.from_environment()
            assert "NOTIFY_SOCKET" not in os.environ
            assert notifier.ready("layers 0-35\nREADY=0")
            assert manager.recv(1000) == b"READY=1\nSTATUS=layers 0-35 READY=0"
            assert notifier.extend_timeout(2.5)
            assert manager.recv(1000) == b"EXTEND_TIMEOUT_USEC=2500000"
            assert notifier.watchdog()
            assert manager.recv(1000) == b"WATCHDOG=1"
            assert notifier.stopping("é")
            assert manager.recv(1000).decode() == "STOPPING=1\nSTATUS=é"


def test_without_a_manager_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not Notifier.from_environment().ready("")
    assert not Notifier(str(tmp_path / "gone")).ready("")


@pytest.mark.parametrize(
    ("microseconds", "process", "interval"),
    [
        ("30000000", "", 15.0),
        ("30000000", "own", 15.0),
        ("30000000", "1", None),
        ("0", "", None),
        ("x", "", None),
        (None, "", None),
    ],
)
def test_watchdog_interval(
    monkeypatch: pytest.MonkeyPatch, microseconds: str | None, process: str, interval: float | None
) -> None:
    if microseconds is None:
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if process == "own" else process)
    assert watchdog_interval() == interval
    assert "WATCHDOG_USEC" not in os.environ


def test_launchd_is_not_made_to_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPC_SERVICE_NAME", "0")  # what a macOS terminal has
    assert config_exit_code() == 78
    monkeypatch.setenv("XPC_SERVICE_NAME", "io.shardbus.shardd")
    assert config_exit_code() == 0


@pytest.mark.usefixtures("_signals")
def test_signals_only_enqueue() -> None:
    demands: queue.SimpleQueue[Demand] = queue.SimpleQueue()
    handle_signals(demands.put)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.raise_signal(number)
    assert [demands.get(timeout=5) for _ in range(3)] == [Demand.RELOAD, Demand.STOP, Demand.NOW]


@pytest.mark.usefixtures("_signals")
def test_signals_reach_a_loop() -> None:
    async def scenario() -> list[Demand]:
        demands: asyncio.Queue[Demand] = asyncio.Queue()
        handle_signals(demands.put_nowait, asyncio.get_running_loop())
        found = []
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            found.append(await asyncio.wait_for(demands.get(), 5))
        return found

    assert asyncio.run(scenario()) == [Demand.STOP, Demand.NOW]


def test_sigusr1_prints_the_stacks_of_a_hanging_process() -> None:
    code = (
        "import time\nfrom daemon.service import dump_stacks_on_request\n"
        "def hangs():\n  print('here', flush=True)\n  while True: time.sleep(0.01)\n"
        "dump_stacks_on_request()\nhangs()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.send_signal(signal.SIGUSR1)
        printed = [child.stderr.readline() for _ in range(2)]
        child.kill()
    assert "hangs" in printed[1]

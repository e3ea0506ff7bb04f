"""shardd's part in RDMA: what it offers, which groups it starts, and how their processes end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon import messages as msg
from daemon.config import load
from daemon.supervisor.child import Child, Exit
from daemon.supervisor.rdma import machine, part
from daemon.supervisor.rdma.machine import Found
from daemon.supervisor.rdma.offer import bad_host
from daemon.supervisor.rdma.part import RdmaPart
from daemon.supervisor.rdma.starts import Starts
from daemon.thunderbolt import run
from daemon.thunderbolt.look import Looker
from tests.thunderbolt.recordings import write_tools

PATIENCE = 30.0
LINUX = Found("boot-1", (), "mlx has JACCL on macOS alone")
MAC = Found("boot-1", ("rdma_en2", "rdma_en5"), "")
MATRIX = [[[], ["rdma_en5"]], [["rdma_en2"], []]]


@dataclass
class World:
    """The processes are real, and run `script`."""

    folder: Path
    settings: dict[str, Any]
    found: Found = LINUX
    built: tuple[str, ...] = ("ring",)
    said: list[msg.Message] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    script: str = "import time; time.sleep(100)"

    def open(self) -> RdmaPart:
        file = self.folder / "c.yaml"
        node = {"name": "n", "state_dir": str(self.folder / "state")}
        file.write_text(yaml.safe_dump({"node": node, "rdma": self.settings}))
        (self.folder / "state").mkdir(exist_ok=True)
        self.tasks: list[asyncio.Task[None]] = []
        self.stirred = asyncio.Event()
        self.part = RdmaPart(
            load(file),
            "s1",
            self._say,
            self.exits.append,
            lambda work: self.tasks.append(asyncio.create_task(work)),
            self.children.append,
            self._find,
            self._built,
        )
        self.tasks.append(asyncio.create_task(self.part.look()))
        return self.part

    def _say(self, message: msg.Message) -> bool:
        self.said.append(message)
        self.stirred.set()
        return True

    async def _find(self) -> Found:
        return self.found

    async def _built(self) -> tuple[str, ...]:
        return self.built

    @property
    def offer(self) -> msg.RdmaOffer:
        last = self.said[-1]
        assert isinstance(last, msg.RdmaOffer)
        return last

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not true():
                self.stirred.clear()
                await self.stirred.wait()

    async def looked(self) -> None:
        await self.until(lambda: bool(self.said))

    def start(self, group: int, backend: str = "ring", **other: Any) -> None:
        fields = {"rank": 0, "hosts": ["127.0.0.1:7000", "127.0.0.1:7001"], "devices": []}
        self.part.hear(msg.RdmaStart(1, group, backend, **{**fields, **other}))

    async def close(self) -> None:
        for child in self.children:
            await child.stop(0.1)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("SHARDBUS_")]:
        monkeypatch.delenv(name)


def play(
    monkeypatch: pytest.MonkeyPatch, world: World, scenario: Callable[[World], Awaitable[None]]
) -> None:
    class Scripted(Child):
        def __init__(self, name: str, command: list[str], *rest: Any) -> None:
            world.command = command  # type: ignore[attr-defined]
            world.nice = rest[-1]  # type: ignore[attr-defined]
            super().__init__(name, [sys.executable, "-c", world.script], *rest)

    monkeypatch.setattr(part, "Child", Scripted)

    async def whole() -> None:
        world.open()
        try:
            await world.looked()
            await scenario(world)
        finally:
            await world.close()

    asyncio.run(whole())


RING = {"backend": "ring"}


@pytest.mark.parametrize(
    ("settings", "found", "built", "backends", "words"),
    [
        ({}, LINUX, ("ring",), [], "JACCL on macOS alone"),
        ({}, MAC, ("jaccl", "ring"), ["jaccl"], ""),
        ({}, MAC, ("ring",), [], "its mlx has no jaccl"),
        ({}, MAC, (), [], "could not be asked"),
        ({}, Found("b", (), "it has Thunderbolt 4"), ("jaccl",), [], "it has Thunderbolt 4"),
        ({"backend": "off"}, MAC, ("jaccl",), [], "rdma.backend is off"),
        ({"backend": "nccl"}, LINUX, ("nccl",), [], "NCCL groups cannot send"),
        (RING, LINUX, ("ring",), ["ring"], ""),
        (RING, LINUX, (), [], "could not be asked"),
    ],
)
def test_what_is_offered(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    found: Found,
    built: tuple[str, ...],
    backends: list[str],
    words: str,
) -> None:
    async def scenario(world: World) -> None:
        assert world.offer.backends == backends
        assert words in world.offer.why_not
        assert bool(world.offer.why_not) is not bool(backends)
        assert bool(world.offer.address) is bool(backends)
        assert (world.offer.boot, world.offer.group) == (found.boot, 0)

    play(monkeypatch, World(tmp_path, settings, found, built), scenario)


def test_one_process_for_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        first = world.offer.address
        world.start(3, rank=1)
        await world.until(lambda: world.offer.pid != 0)
        assert (world.offer.group, world.offer.rank, world.offer.size) == (3, 1, 2)
        assert world.offer.starts_left == 999
        command = world.command  # type: ignore[attr-defined]
        assert command[1:3] == ["-m", "daemon.rdma"]
        assert command[4:6] == ["s1", str(os.getpid())]
        assert world.nice == part.NICE  # type: ignore[attr-defined]
        start = msg.decode(bytes.fromhex(command[6]))
        assert isinstance(start, msg.RdmaStart)
        assert start.group == 3
        world.start(3, rank=1)  # it was asked for twice
        world.start(2)  # of a group before
        assert len(world.children) == 1
        world.part.hear(msg.RdmaStop(1, 3, "b is lost"))
        await world.until(lambda: world.offer.group == 0)
        assert (world.offer.ended, world.offer.reason) == (3, "asked")
        assert world.offer.detail == "b is lost"
        assert world.offer.address != first
        world.start(3)
        assert len(world.children) == 1, "a group that is over is not started again"
        (end,) = world.exits
        assert (end.reason, end.retry_seconds) == ("asked", None)

    world = World(tmp_path, RING)

    async def pid(world: World) -> None:
        # The pid is said with the next offer.
        task = asyncio.create_task(scenario(world))
        while not task.done():
            world.part.beat(float("inf"))
            await asyncio.wait([task], timeout=0.02)
        await task

    play(monkeypatch, world, pid)


@pytest.mark.parametrize(
    ("script", "reason", "detail"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal", "signal SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal", "signal SIGKILL"),
        (
            "import sys; sys.exit('rdma start: [jaccl] Changing queue pair to RTR failed with "
            "errno 22')",
            "start",
            "RTR failed with errno 22",
        ),
        (
            "import sys, os; print('rdma peer: rank 1 is gone', file=sys.stderr, flush=True); "
            "print('[libc++abi] terminating', file=sys.stderr, flush=True); os._exit(1)",
            "peer",
            "rank 1 is gone",
        ),
        ("raise MemoryError", "out-of-memory", "MemoryError"),
        ("import sys; sys.exit(7)", "exit", "exit code 7"),
    ],
)
def test_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str, detail: str
) -> None:
    async def scenario(world: World) -> None:
        world.start(1)
        await world.until(lambda: world.offer.ended == 1)
        assert world.offer.reason == reason
        assert detail in world.offer.detail
        assert world.exits[0].reason == reason
        assert len(world.children) == 1, "it is not started again by itself"

    play(monkeypatch, World(tmp_path, RING, script=script), scenario)


@pytest.mark.parametrize(
    "script",
    [
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass",
        "import os, signal, time; os.kill(os.getpid(), signal.SIGSTOP); time.sleep(100)",
    ],
    ids=["spins", "stopped"],
)
def test_what_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(part, "STOP_SECONDS", 0.05)

    async def scenario(world: World) -> None:
        world.start(1)
        while not world.children[0].pid:  # noqa: ASYNC110 - it is being started
            await asyncio.sleep(0.01)
        pid = world.children[0].pid
        world.start(2)  # the one before is ended first
        await world.until(lambda: world.offer.group == 2)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        assert world.offer.ended == 1
        assert len(world.children) == 2

    play(monkeypatch, World(tmp_path, RING, script=script), scenario)


def refusals() -> list[tuple[str, dict[str, Any], str]]:
    good = {"backend": "jaccl", "devices": MATRIX}
    return [
        ("back end", {**good, "backend": "ring"}, "not what this node offers"),
        ("rank", {**good, "rank": 2}, "rank 2 of 2"),
        ("public", {**good, "hosts": ["127.0.0.1:1", "8.8.8.8:1"]}, "8.8.8.8 is neither"),
        ("private", {**good, "hosts": ["10.0.0.1:1", "127.0.0.1:1"]}, "10.0.0.1 is neither"),
        ("name", {**good, "hosts": ["studio:1", "127.0.0.1:1"]}, "not an IPv4 address"),
        ("port", {**good, "hosts": ["127.0.0.1:0", "127.0.0.1:1"]}, "no port"),
        ("matrix", {**good, "devices": [[[]]]}, "the matrix of devices"),
        ("device", {**good, "devices": [[[], ["rdma_en9"]], [[], []]]}, "has no rdma_en9"),
    ]


@pytest.mark.parametrize(("name", "fields", "words"), refusals())
def test_what_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fields: dict[str, Any], words: str
) -> None:
    async def scenario(world: World) -> None:
        world.start(1, **fields)
        assert not world.children
        assert (world.offer.ended, world.offer.reason) == (1, "refused")
        assert words in world.offer.detail
        assert world.offer.starts_left == 3, "nothing was started"

    play(monkeypatch, World(tmp_path, {}, MAC, ("jaccl",)), scenario)


def test_three_starts_per_boot_with_jaccl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        for group in (1, 2, 3):
            assert not world.offer.why_not
            world.start(group, "jaccl", devices=MATRIX)
            await world.until(lambda group=group: world.offer.ended == group)  # type: ignore[misc]
        assert world.offer.starts_left == 0
        assert "3 groups were started since" in world.offer.why_not
        world.start(4, "jaccl", devices=MATRIX)
        assert (world.offer.ended, world.offer.reason) == (4, "refused")
        assert len(world.children) == 3

    world = World(tmp_path, {}, MAC, ("jaccl",), script="")
    play(monkeypatch, world, scenario)

    async def after_a_restart(world: World) -> None:
        assert world.offer.starts_left == 0

    play(monkeypatch, World(tmp_path, {}, MAC, ("jaccl",)), after_a_restart)

    async def after_a_reboot(world: World) -> None:
        assert (world.offer.starts_left, world.offer.why_not) == (3, "")

    rebooted = Found("boot-2", MAC.devices, "")
    play(monkeypatch, World(tmp_path, {}, rebooted, ("jaccl",)), after_a_reboot)


def test_a_start_that_cannot_be_counted_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        (tmp_path / "state" / "rdma-starts.new").mkdir()  # stands for a disk that is full
        world.start(1)
        assert not world.children
        assert "cannot be written down" in world.offer.detail

    play(monkeypatch, World(tmp_path, RING), scenario)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '{"boot": 1, "starts": {}}',
        '{"boot": "b", "starts": {"jaccl": -1}}',
        "\xff",
    ],
)
def test_a_damaged_file_leaves_no_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "starts.json"
    file.write_bytes(text.encode("latin-1"))
    starts = Starts(file, None)
    assert starts.left("b", "jaccl") == 0
    assert "delete the file" in starts.obstacle("b", "jaccl")
    file.unlink()
    starts = Starts(file, None)
    assert (starts.left("b", "jaccl"), starts.left("b", "ring")) == (3, 1000)
    starts.count("b", "ring")
    starts.count("b", "jaccl")
    again = Starts(file, 5)
    assert (again.left("b", "jaccl"), again.left("b", "ring"), again.left("c", "ring")) == (4, 4, 5)
    assert json.loads(file.read_text()) == {"boot": "b", "starts": {"ring": 1, "jaccl": 1}}
    again.count("c", "ring")
    assert (again.left("c", "ring"), again.left("c", "jaccl")) == (4, 5), "another boot begins anew"
    again.check_integrity()


def test_a_boot_that_is_not_known_has_no_start(tmp_path: Path) -> None:
    starts = Starts(tmp_path / "starts.json", None)
    starts.count("b", "jaccl")
    assert starts.left("", "jaccl") == starts.left("", "ring") == 0
    assert "nobody can tell" in starts.obstacle("", "jaccl")
    assert starts.left("b", "jaccl") == 2


def test_addresses_that_a_group_may_have(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("security: {plain_networks: [169.254.0.0/16]}")
    config = load(file)
    assert bad_host(config, "127.0.0.1:7000") == ""
    assert bad_host(config, "169.254.3.4:7000") == ""
    assert "10.0.0.1 is neither" in bad_host(config, "10.0.0.1:7000")


def found(seconds: float = PATIENCE) -> Found:
    return asyncio.run(machine.find(Looker(seconds)))


def test_what_a_mac_says_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "FOLDERS", ())
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:/usr/bin:/bin")
    write_tools(tmp_path / "tools", "mini-a")
    boot = "11111111-AAAA-4AAA-8AAA-111111111111"
    empty = ("rdma_en2", "rdma_en4")  # those without a cable are of no use
    assert found() == Found(boot, ("rdma_en3",), "", empty)
    write_tools(tmp_path / "tools", "mini-tb4")
    assert "no Thunderbolt 5" in found().why_not
    write_tools(tmp_path / "tools", "mini-a", ibv_devinfo="sleep 100")
    assert "wedged" in found(0.3).why_not


def test_the_boot_of_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found() == found()
    assert len(found().boot) == 36


def test_an_mlx_that_aborts_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BUILT", "import os; print('ring', flush=True); os.abort()")
    assert asyncio.run(machine.built_backends()) == ()
    monkeypatch.setattr(machine, "BUILT", "print('jaccl', 'ring')")
    assert asyncio.run(machine.built_backends()) == ("jaccl", "ring")

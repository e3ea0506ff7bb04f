"""A shardd whose children are stand-ins, and a coordinator that the test plays."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
import zmq
import zmq.asyncio

from daemon import messages as msg
from daemon.config import load
from daemon.engine.blas import Blas
from daemon.supervisor import node, reports
from daemon.supervisor.child import Exit
from daemon.supervisor.standstill import Standstill

PATIENCE = 30.0


class StandIn:
    """A child that does nothing until it is ended."""

    made: dict[str, StandIn]

    def __init__(
        self, name: str, command: list[str], environment: Any, file: Path, on_exit: Any
    ) -> None:
        self.name, self.command, self.exits = name, command, on_exit
        self.environment = environment
        self.pid = 4711
        self.lines = ["one", "two", "three"]
        self.killed = 0
        self.why = ""
        self.stopped: list[float] = []
        self.failure: Exception | None = None
        self._end = asyncio.Event()
        self.made[name] = self

    async def run(self) -> None:
        await self._end.wait()
        if self.failure:
            raise self.failure

    def fail(self, error: Exception) -> None:
        self.failure = error
        self._end.set()

    def kill(self, why: str = "") -> None:
        self.killed += 1
        self.why = why

    def kill_for_good(self) -> None:
        self._end.set()

    async def stop(self, grace: float) -> None:
        self.stopped.append(grace)
        self._end.set()


class Coordinator:
    """The other end of the control socket."""

    def __init__(self, context: zmq.asyncio.Context) -> None:
        self._context = context
        self.port = 0
        self.open()

    def open(self) -> None:
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(f"tcp://127.0.0.1:{self.port or '*'}")
        self.port = int(self.socket.last_endpoint.rpartition(b":")[2])

    async def next(self, kind: type) -> Any:
        """The next message of that kind; others are let pass."""
        while True:
            peer, data = await asyncio.wait_for(self.socket.recv_multipart(), PATIENCE)
            self.peer, message = peer, msg.decode(data)
            if isinstance(message, kind):
                return message

    async def say(self, message: msg.Message) -> None:
        await self.socket.send_multipart([self.peer, msg.encode(message)])

    async def heard(self) -> None:
        """All that was said before was taken in: its answers come in order."""
        await self.say(msg.LogsQuery(77, "stage", 1))
        while (await self.next(msg.LogsReport)).query != 77:
            pass


class World:
    def __init__(self, folder: Path, coordinator: Coordinator, runs: bool, **own: str) -> None:
        file = folder / "node.yaml"
        settings = {
            "node": {"name": "n", "state_dir": str(folder / "state"), **own},
            "coordinator": {"address": f"tcp://127.0.0.1:{coordinator.port}", "run": runs},
            "timeouts": {"heartbeat_s": 0.05, "drain_s": 7, "stop_s": 3, "dead_after_s": 1},
        }
        file.write_text(yaml.safe_dump(settings))
        self.coordinator = coordinator
        self.shardd = node.Shardd(load(file))
        self.running = asyncio.create_task(self.shardd.run())

    async def welcome(self, term: int = 5) -> msg.NodeHello:
        hello: msg.NodeHello = await self.coordinator.next(msg.NodeHello)
        await self.coordinator.say(msg.Welcome(term, "c"))
        await self.coordinator.heard()
        return hello

    async def end(self) -> int:
        return await asyncio.wait_for(self.running, PATIENCE)


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("SHARDBUS_")]:
        monkeypatch.delenv(name)
    StandIn.made = {}
    monkeypatch.setattr(node, "Child", StandIn)
    monkeypatch.setattr(node.blas, "find_blas", lambda folder: Blas("reference", reason="test"))


@asynccontextmanager
async def living(folder: Path, runs: bool, **own: str) -> AsyncIterator[World]:
    context = zmq.asyncio.Context()
    world = World(folder, Coordinator(context), runs, **own)
    try:
        yield world
    finally:
        world.shardd._stop.set()
        world.shardd._drained.set()
        await asyncio.wait([world.running], timeout=PATIENCE)
        context.destroy(linger=0)


def play(
    folder: Path, scenario: Callable[[World], Awaitable[None]], *, runs: bool = False, **own: str
) -> None:
    async def whole() -> None:
        async with living(folder, runs, **own) as world:
            await scenario(world)

    asyncio.run(whole())


def test_children_are_told_whose_they_are(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        hello = await world.welcome()
        stage, coordinator = StandIn.made["stage"].command, StandIn.made["coordinator"].command
        assert stage[-2:] == [hello.incarnation, str(os.getpid())]
        assert coordinator[-1] == str(os.getpid())
        beat = await world.coordinator.next(msg.NodeHeartbeat)
        assert (beat.incarnation, beat.stage_pid) == (hello.incarnation, 4711)

    play(tmp_path, scenario, runs=True)


def test_a_draft_is_kept_like_a_stage(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        hello = await world.welcome()
        stage, draft = StandIn.made["stage"], StandIn.made["draft"]
        assert draft.command == [
            word.replace("daemon.stage", "daemon.draft") for word in stage.command
        ]
        assert draft.environment == stage.environment
        draft.pid = 4712
        await world.coordinator.say(msg.KillStage(5, 4712, "it hangs"))
        await world.coordinator.heard()
        assert (stage.killed, draft.killed) == (0, 1)
        draft.exits(Exit(9, "exit", "exit code 78: no such model", 0, None))
        told = await world.coordinator.next(msg.ChildExited)
        assert (told.child, told.incarnation) == ("draft", hello.incarnation)
        assert not world.running.done()

    play(tmp_path, scenario, draft="embedded-draft")


def test_there_is_no_draft_unless_one_is_configured(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.welcome()
        assert set(StandIn.made) == {"stage"}

    play(tmp_path, scenario)


def test_stopping_when_asked_is_no_failure(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.welcome()
        os.kill(os.getpid(), signal.SIGTERM)
        await world.coordinator.next(msg.Goodbye)
        await world.coordinator.say(msg.Drained("n"))
        assert await world.end() == 0
        assert StandIn.made["stage"].stopped == [3.0]

    play(tmp_path, scenario)


def test_the_coordinator_has_the_time_to_drain_and_a_stage_the_time_to_stop(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.welcome()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await world.end() == 0
        assert StandIn.made["coordinator"].stopped[0] == 7.0
        assert StandIn.made["stage"].stopped == [3.0]

    play(tmp_path, scenario, runs=True)


def test_systemd_is_asked_for_the_time_that_draining_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)

        async def scenario(world: World) -> None:
            await world.welcome()
            os.kill(os.getpid(), signal.SIGTERM)
            assert await world.end() == 0

        play(tmp_path, scenario, runs=True)
        said = []
        with suppress(BlockingIOError):
            while True:
                said.append(manager.recv(1000))
    assert said[0] == b"READY=1\nSTATUS=node n is up"
    at = said.index(b"STOPPING=1\nSTATUS=draining")
    seconds = 7 + 3 + node.STOP_MARGIN_S
    assert said[at + 1] == b"EXTEND_TIMEOUT_USEC=%d" % (seconds * 1e6)


def refused(world: World) -> Awaitable[None]:
    return world.coordinator.say(msg.Refused("what", "why", "todo"))


async def gives_up(world: World) -> None:
    StandIn.made["coordinator"].exits(Exit(9, "exit", "exit code 1", 8, None))


async def fails(world: World) -> None:
    StandIn.made["stage"].fail(RuntimeError("a fault of shardd"))


@pytest.mark.parametrize("end", [refused, gives_up, fails])
def test_whatever_ends_it_unasked_is_a_failure(
    tmp_path: Path, end: Callable[[World], Awaitable[None]]
) -> None:
    async def scenario(world: World) -> None:
        await world.welcome()
        await end(world)
        assert await world.end() == 1

    play(tmp_path, scenario, runs=True)


def test_a_stage_that_is_given_up_does_not_end_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        hello = await world.welcome()
        StandIn.made["stage"].exits(Exit(9, "exit", "exit code 1", 8, None))
        told = await world.coordinator.next(msg.ChildExited)
        assert told == msg.ChildExited(
            "n", hello.incarnation, "stage", 9, "exit", "exit code 1", 8, -1.0
        )
        assert not world.running.done()

    play(tmp_path, scenario)


def test_a_coordinator_that_was_stopped_is_ended(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.welcome()
        coordinator, stopped = StandIn.made["coordinator"], False
        coordinator.pid = 9
        world.shardd._standstill = Standstill(0.0, lambda pid: stopped and pid == 9)
        for _ in range(2):  # what a heartbeat leads to is done before the next one
            await world.coordinator.next(msg.NodeHeartbeat)
        assert coordinator.killed == 0
        stopped = True
        for _ in range(3):
            await world.coordinator.next(msg.NodeHeartbeat)
        assert coordinator.killed > 0
        assert coordinator.why.startswith("it was stopped for")
        assert StandIn.made["stage"].killed == 0

    play(tmp_path, scenario, runs=True)


def test_a_state_folder_that_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file")

    async def scenario(world: World) -> None:
        assert await world.end() == 1

    play(tmp_path, scenario)
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "cannot write to node.state_dir" in record.getMessage()
    assert str(tmp_path / "state") in record.getMessage()
    assert record.exc_info is None
    assert not StandIn.made


def test_only_the_highest_term_is_obeyed(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        say, heard = world.coordinator.say, world.coordinator.heard
        await world.welcome(term=5)
        stage = StandIn.made["stage"]
        await say(msg.KillStage(4, stage.pid, "an old coordinator says so"))
        await heard()
        assert stage.killed == 0
        await say(msg.KillStage(5, stage.pid + 1, "another process"))
        await heard()
        assert stage.killed == 0
        await say(msg.KillStage(5, stage.pid, "it hangs"))
        await heard()
        assert stage.killed == 1
        await say(msg.Identify(6))
        await world.coordinator.next(msg.NodeHello)
        await say(msg.Welcome(5, "the old one"))
        await say(msg.KillStage(5, stage.pid, "the old one"))
        await heard()
        assert stage.killed == 1
        await world.coordinator.next(msg.NodeHello)  # it is not welcome yet
        await say(msg.Welcome(6, "c"))
        await heard()

    play(tmp_path, scenario)


def test_exits_that_nobody_heard_are_told_to_the_next_coordinator(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        coordinator = world.coordinator
        await world.welcome()
        coordinator.socket.close()
        while world.shardd._welcomed:  # noqa: ASYNC110 - until a heartbeat cannot be sent
            await asyncio.sleep(0.01)
        for pid in (1, 2):
            StandIn.made["stage"].exits(Exit(pid, "signal", "signal SIGKILL", pid, 0.1))
        coordinator.open()
        await world.coordinator.next(msg.NodeHello)
        await coordinator.say(msg.Welcome(6, "c"))
        assert [(await coordinator.next(msg.ChildExited)).pid for _ in range(2)] == [1, 2]
        await coordinator.say(msg.Welcome(6, "c"))
        StandIn.made["stage"].exits(Exit(3, "signal", "signal SIGKILL", 3, 0.1))
        assert (await coordinator.next(msg.ChildExited)).pid == 3  # the others are not told again

    play(tmp_path, scenario)


def test_log_lines_fit_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        await world.welcome()
        for count, lines in ((2, ["two", "three"]), (0, []), (9, ["one", "two", "three"])):
            await world.coordinator.say(msg.LogsQuery(count, "stage", count))
            assert (await world.coordinator.next(msg.LogsReport)).lines == lines
        monkeypatch.setattr(reports, "LOG_BYTES", 25)
        await world.coordinator.say(msg.LogsQuery(1, "stage", 9))
        assert (await world.coordinator.next(msg.LogsReport)).lines == ["two", "three"]

    play(tmp_path, scenario)

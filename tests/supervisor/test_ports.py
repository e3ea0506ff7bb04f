"""A shardd tells of its ports, and goes on while tools hang."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from daemon import messages as msg
from daemon.supervisor import ports
from daemon.thunderbolt import run
from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.look import Looker
from tests.supervisor.test_node import World, play
from tests.thunderbolt.recordings import HANG, recorded, write_tools


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(run, "FOLDERS", ())
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:/usr/bin:/bin")
    return tmp_path / "tools"


def test_it_tells_what_its_tools_say(tmp_path: Path, tools: Path) -> None:
    write_tools(tools, "mini-a")

    async def scenario(world: World) -> None:
        await world.welcome()
        await world.coordinator.say(msg.PortsQuery(3, False, ""))
        report = await world.coordinator.next(msg.PortsReport)
        assert (report.query, report.node, report.outputs) == (3, "n", {})
        assert Machine.from_wire(report.facts) == recorded("mini-a")
        await world.coordinator.say(msg.PortsQuery(4, True, "salt"))
        report = await world.coordinator.next(msg.PortsReport)
        assert report.outputs["rdma_ctl"] == "enabled\n"
        assert "A0000002" not in report.outputs["system_profiler"]

    play(tmp_path, scenario)


def test_it_answers_others_while_a_tool_hangs(tmp_path: Path, tools: Path) -> None:
    write_tools(tools, "mini-a", ibv_devinfo=HANG.format(pids=tmp_path / "pids"))

    async def scenario(world: World) -> None:
        await world.welcome()
        await world.coordinator.say(msg.PortsQuery(3, False, ""))
        await world.coordinator.heard()  # answered before the tool's time is up

    play(tmp_path, scenario)


def test_a_wedged_driver_is_told(tmp_path: Path, tools: Path) -> None:
    write_tools(tools, "mini-a", ibv_devinfo=HANG.format(pids=tmp_path / "pids"))
    told: list[msg.Message] = []

    async def ask() -> None:
        of = ports.Ports("n", lambda message: bool(told.append(message)) or True)
        of.looker = Looker(0.3)
        of.ask(msg.PortsQuery(1, False, ""))
        await asyncio.gather(*of._asked)

    asyncio.run(ask())
    (report,) = told
    assert isinstance(report, msg.PortsReport)
    assert report.facts["tools"]["ibv_devinfo"].startswith("hangs")


def test_too_many_questions_are_not_piled_up(tmp_path: Path, tools: Path) -> None:
    write_tools(tools, "mini-a")
    told: list[msg.Message] = []

    async def ask() -> None:
        of = ports.Ports("n", lambda message: bool(told.append(message)) or True)
        for number in range(3 * ports.MOST_ASKED):
            of.ask(msg.PortsQuery(number, False, ""))
        await asyncio.gather(*of._asked)
        await of.close()

    asyncio.run(ask())
    assert len(told) == ports.MOST_ASKED

"""Fake tools on PATH: they replay, hang, crash, lie, print nothing, or never stop."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from daemon.thunderbolt import run
from daemon.thunderbolt.facts import Machine
from daemon.thunderbolt.look import Look, Looker
from daemon.thunderbolt.run import Output, Runner
from daemon.thunderbolt.verdicts import Word, of_machine
from tests.thunderbolt.recordings import ENDLESS, HANG, SEGV, recorded, write_tools

SECONDS = 0.3  # that the tools have here


@pytest.fixture(autouse=True)
def only_these(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fakes first; `sleep` and `cat` are found, tools of this machine itself are not."""
    monkeypatch.setattr(run, "FOLDERS", ())
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:/usr/bin:/bin")


def look(tmp_path: Path, name: str = "mini-a", seconds: float = 30.0, **bodies: str) -> Machine:
    write_tools(tmp_path / "tools", name, **bodies)
    return asyncio.run(Looker(seconds).look()).machine


def alive(pid: int) -> bool:
    """Also a zombie is dead."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.mark.parametrize("name", ["mini-a", "macbook-off", "mini-tb4", "studio"])
def test_replayed(tmp_path: Path, name: str) -> None:
    assert look(tmp_path, name) == recorded(name)


def test_one_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    machine = look(tmp_path, seconds=SECONDS, ibv_devinfo=HANG.format(pids=pids))
    assert machine.tools["ibv_devinfo"].startswith("hangs")
    verdict = of_machine(machine)
    assert verdict is not None
    assert verdict.word is Word.WEDGED
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_one_that_is_stopped_is_ended(tmp_path: Path) -> None:
    machine = look(tmp_path, seconds=SECONDS, rdma_ctl="kill -STOP $$")
    assert machine.tools["rdma_ctl"].startswith("hangs")


@pytest.mark.parametrize(
    ("body", "how"),
    [
        (SEGV, "crashed: signal SIGSEGV"),
        ("echo no such thing >&2; exit 3", "failed: exit code 3, no such thing"),
        ("true", "unreadable: it printed nothing"),
        ("echo maybe", "unreadable: not its usual output"),
        ("printf '\\377\\376'", "unreadable: not its usual output"),
    ],
)
def test_one_that_fails_or_lies_says_nothing(tmp_path: Path, body: str, how: str) -> None:
    machine = look(tmp_path, "mini-tb4", rdma_ctl=body)
    assert machine.tools["rdma_ctl"] == how
    assert machine.rdma == ""


def test_all_of_them_fail(tmp_path: Path) -> None:
    names = ("rdma_ctl", "ibv_devices", "ibv_devinfo", "system_profiler", "networksetup")
    machine = look(tmp_path, **dict.fromkeys((*names, "ifconfig", "sysctl"), SEGV))
    verdict = of_machine(machine)
    assert verdict is not None
    assert verdict.word is Word.UNKNOWN


def test_one_that_never_stops_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MOST_BYTES", 1 << 20)
    machine = look(tmp_path, seconds=SECONDS, ibv_devices=ENDLESS)
    assert machine.tools["ibv_devices"].startswith("endless")


def test_no_more_is_read_than_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MOST_BYTES", 1000)
    out, end = os.pipe()
    os.write(end, b"x" * 5000)
    tail = run.Tail(out)
    asyncio.run(tail.read())  # to an end, though the other one stays open
    os.close(end)
    assert tail.full


def test_one_that_cannot_be_started(tmp_path: Path) -> None:
    write_tools(tmp_path / "tools", "mini-a")
    (tmp_path / "tools" / "rdma_ctl").write_bytes(b"\x7fELF garbage")
    machine = asyncio.run(Looker().look()).machine
    assert machine.tools["rdma_ctl"].startswith(("refused", "failed"))


def test_one_that_is_missing(tmp_path: Path) -> None:
    write_tools(tmp_path / "tools", "mini-a")
    (tmp_path / "tools" / "rdma_ctl").unlink()
    assert asyncio.run(Looker().look()).machine.tools["rdma_ctl"] == "missing"


def test_a_machine_without_any_of_them(tmp_path: Path) -> None:
    machine = asyncio.run(Looker().look()).machine
    assert machine.system == os.uname().sysname
    verdict = of_machine(machine)
    assert verdict is not None
    assert machine.boot


def test_many_that_ask_at_once_start_the_tools_once(tmp_path: Path) -> None:
    count = tmp_path / "count"
    write_tools(tmp_path / "tools", "mini-a", rdma_ctl=f"echo x >> {count}; echo enabled")

    async def ask() -> list[Look]:
        looker = Looker()
        first = await asyncio.gather(*(looker.look() for _ in range(5)))
        return [*first, await looker.look()]

    looks = asyncio.run(ask())
    assert len({id(one) for one in looks}) == 1
    assert count.read_text().split() == ["x"]


def test_fresh_means_asked_again(tmp_path: Path) -> None:
    count = tmp_path / "count"
    write_tools(tmp_path / "tools", "mini-a", rdma_ctl=f"echo x >> {count}; echo enabled")

    async def ask() -> None:
        looker = Looker()
        await looker.look()
        await looker.look()
        await looker.look(age=0.0)

    asyncio.run(ask())
    assert count.read_text().split() == ["x", "x"]


def test_fresh_is_not_what_a_look_under_way_may_have_seen(tmp_path: Path) -> None:
    """Many that ask for it meanwhile share the one that follows."""
    count, gate = tmp_path / "count", tmp_path / "gate"
    os.mkfifo(gate)
    tool = f"echo x >> {count}; [ -e {gate} ] && cat {gate}; echo enabled"
    write_tools(tmp_path / "tools", "mini-a", rdma_ctl=tool)

    async def ask() -> list[Look]:
        looker = Looker()
        first = asyncio.create_task(looker.look())
        with await asyncio.to_thread(gate.open, "w"):  # the tool is there now
            others = [asyncio.create_task(looker.look(age=0.0)) for _ in range(3)]
            await asyncio.sleep(0)
            gate.unlink()
        return list(await asyncio.gather(first, *others))

    looks = asyncio.run(ask())
    assert len({id(one) for one in looks}) == 2
    assert looks[1] is looks[2] is looks[3]
    assert count.read_text().split() == ["x", "x"]


def test_one_that_cannot_be_killed_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As inside of a wedged driver: it outlives SIGKILL, until it does not."""
    pids = tmp_path / "pids"
    write_tools(tmp_path / "tools", "mini-a", rdma_ctl=f"echo $$ >> {pids}; exec sleep 600")
    kill = run._kill_group
    monkeypatch.setattr(run, "LAST_SECONDS", 0.05)

    async def ask() -> list[Output]:
        runner = Runner(SECONDS)
        monkeypatch.setattr(run, "_kill_group", lambda process: None)
        outputs = [await runner.run(["rdma_ctl"]), await runner.run(["rdma_ctl"])]
        process = runner._stuck["rdma_ctl"]
        monkeypatch.setattr(run, "_kill_group", kill)
        kill(process)
        await process.wait()
        write_tools(tmp_path / "tools", "mini-a")
        return [*outputs, await runner.run(["rdma_ctl"])]

    first, second, third = asyncio.run(ask())
    assert "cannot be killed" in first.detail
    assert second.how == "hangs"
    assert third == Output("ok", "enabled\n")
    assert len(pids.read_text().split()) == 1


def test_closing_ends_what_still_runs(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    os.mkfifo(pids)  # so that who reads it waits for the tool to be there
    write_tools(tmp_path / "tools", "mini-a", rdma_ctl=f"echo $$ > {pids}; exec sleep 600")

    async def ask() -> int:
        looker = Looker()
        asking = asyncio.create_task(looker.look())
        pid = int(await asyncio.to_thread(pids.read_text))
        await looker.close()
        await asyncio.gather(asking, return_exceptions=True)
        return pid

    assert not alive(asyncio.run(ask()))

"""A hop over real rdma processes, on the ring back end: switches, kill -9 and SIGSTOP."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from daemon.hop_path import HopPath
from tests.holding import Holding, holding
from tests.rdma.rig import Rig as Processes
from tests.ring.rig import Hop

WARM, TURNS = 100, 1000
GROWTH = 2 << 20  # bytes


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.close()


@pytest.fixture
def hop(group: Processes) -> Iterator[Hop]:
    group.up()
    made = Hop(group.context, group.ports[0], group.ports[1])
    made.joined()
    yield made
    made.a.ring.close(0.0)  # the ports are the processes' rig's
    made.b.ring.close(0.0)


def test_a_thousand_turns_lose_reorder_and_leak_nothing(group: Processes, hop: Hop) -> None:
    rng = random.Random(2)
    mine = psutil.Process()
    processes = [mine, *(psutil.Process(one.pid) for one in group.processes)]
    before: list[Holding] = []
    for turn in range(TURNS):
        if turn == WARM:
            hop.all_came()
            before = [holding(process) for process in processes]
        hop.send(rng.randrange(3))
        assert hop.switch() == ""
        hop.send(rng.randrange(3))
        hop.until(lambda: len(hop.b.got) >= hop.sent - 2)
    hop.all_came()
    assert not hop.a.lost + hop.b.lost
    after = [holding(process) for process in processes]
    assert [one.counts for one in after] == [one.counts for one in before]
    assert all(b.memory - a.memory < GROWTH for a, b in zip(before, after, strict=True))
    assert {child.pid for child in mine.children(recursive=True)} == {
        one.pid for one in group.processes
    }


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_whatever_ends_a_process_frames_go_on_by_zmq(
    group: Processes, hop: Hop, victim: int, how: signal.Signals
) -> None:
    hop.switch()
    hop.send()
    hop.all_came()
    group.processes[victim].send_signal(how)
    end = (hop.a, hop.b)[victim]
    hop.until(lambda: end.lost)
    reason = "stalled" if how is signal.SIGSTOP else "gone"
    assert {one.reason for one in end.lost} == {reason}
    assert [one.sending for one in end.lost] == ([True, False] if victim == 0 else [False])
    hop.a.ring.leave_rdma()  # as it is told when the other end has lost it
    assert hop.a.ring.path is HopPath.ZMQ
    hop.send(3)
    hop.all_came()

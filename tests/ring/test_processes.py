"""A hop over real rdma processes, on the ring back end: switches, kill -9 and SIGSTOP."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.hop_path import HopPath
from tests.rdma.rig import Rig as Processes
from tests.ring.rig import Hop

CLOSE_S = 0.05


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


def test_turns_under_load_lose_and_reorder_nothing(hop: Hop) -> None:
    rng = random.Random(2)
    for _ in range(100):
        hop.send(rng.randrange(3))
        assert hop.switch() == ""
        hop.send(rng.randrange(3))
        hop.until(lambda: len(hop.b.got) >= hop.sent - 2)
    hop.all_came()
    assert not hop.a.lost + hop.b.lost


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

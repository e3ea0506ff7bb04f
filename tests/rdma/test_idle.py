"""MLX spins while a receive is pending: none is, when nothing passes."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from daemon import messages as msg
from tests.rdma.rig import REAL, Rig
from tests.transports.contract import work

AWAKE = "tests.rdma.awake_child"
LOOK_S = 0.4


def up(rig: Rig, module: str) -> None:
    for rank in (0, 1):
        rig.listen(rank)
        rig.start(rank, module)
    rig.until(lambda: all(port.peer for port in rig.ports.values()))
    for _ in (0, 1):
        rig.hear(msg.RdmaJoined)


def spins(rig: Rig, rank: int) -> bool:
    """Whether that process takes most of a core for a while."""
    process = psutil.Process(rig.processes[rank].pid)
    before = sum(process.cpu_times()[:2])
    began = time.process_time()
    until = time.monotonic() + LOOK_S
    while time.monotonic() < until:
        rig.look()
        time.sleep(0.01)
    return sum(process.cpu_times()[:2]) - before > LOOK_S / 4 + (time.process_time() - began)


@pytest.mark.parametrize("module", [REAL, AWAKE])
def test_an_idle_group_takes_no_core(rig: Rig, module: str) -> None:
    up(rig, module)
    sender = rig.ports[0].sender(1)
    for life in range(2):
        for number in range(20):
            sender.send(work(number, bytes(3000 if life else 300_000)))
            assert rig.take(1).microbatch == number
        rig.until(lambda: not spins(rig, 1))  # lines that stay awake do so for a second
    assert not spins(rig, 0)
    assert not spins(rig, 1)
    assert not rig.losses  # it has lasted longer than the watchdog would wait for a sign of life


def test_a_probe_waits_for_a_line_that_is_awake(rig: Rig) -> None:
    up(rig, AWAKE)
    rig.ports[0].sender(1).send(work(1))
    rig.take(1)
    rig.say(0, msg.RdmaProbe(1, 1, 3, 1))
    assert rig.hear(msg.RdmaProbed).why == "frames pass"
    rig.until(lambda: not spins(rig, 1))
    rig.until(lambda: not spins(rig, 1))
    probed = None
    while probed is None or probed.why == "frames pass":
        rig.say(0, msg.RdmaProbe(1, 1, 4, 1))
        probed = rig.hear(msg.RdmaProbed)
    assert probed.why == ""
    rig.ports[0].sender(1).send(work(2))
    assert rig.take(1).microbatch == 2


def test_the_end_of_a_neighbour_is_seen_while_a_receive_spins(rig: Rig) -> None:
    up(rig, AWAKE)
    rig.ports[0].sender(1).send(work(1))
    rig.take(1)
    os.kill(rig.processes[0].pid, signal.SIGKILL)
    rig.until(lambda: len(rig.losses) == 2)
    assert "rdma peer" in rig.last_line(rig.processes[1])

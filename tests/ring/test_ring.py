"""A hop of two paths over real links: ZeroMQ, and shared memory to what stands for the rdma
processes.
"""

from __future__ import annotations

import random

import psutil

from daemon.hop_path import HopPath
from daemon.ring.outgoing import Outgoing
from tests.ring.rig import LAYOUT, WATCHDOG_S, Rig
from transports.factory import open_sender
from transports.limits import FrameLimits
from transports.options import LinkOptions

WARM, MANY = 200, 1000


def test_frames_go_by_the_path_in_force(rig: Rig) -> None:
    rig.joined()
    rig.send(2)
    rig.all_came()
    assert rig.switch() == ""
    assert rig.a.ring.path is HopPath.RDMA
    rig.send(2)
    rig.all_came()
    assert rig.a.port.stats.errors == rig.b.port.stats.errors == {}
    assert rig.b.port.stats.frames == 3, "a turn and two frames"
    assert rig.switch() == ""
    rig.send(2)
    rig.all_came()
    assert rig.b.port.stats.frames == 4, "and that nothing more comes"
    assert not rig.a.lost + rig.b.lost


def test_a_thousand_switches_lose_reorder_and_leak_nothing(rig: Rig) -> None:
    rig.joined()
    rng, me = random.Random(1), psutil.Process()
    descriptors = memory = threads = 0
    for n in range(MANY):
        if n == WARM:
            descriptors, memory, threads = me.num_fds(), me.memory_info().rss, me.num_threads()
        rig.send(rng.randrange(3))
        assert rig.switch() == ""
        rig.send(rng.randrange(3))
        if rng.random() < 0.5:
            rig.all_came()
        else:
            rig.until(lambda: len(rig.b.got) >= rig.sent - 2)
    rig.all_came()
    assert me.num_fds() == descriptors
    assert me.num_threads() == threads
    assert me.memory_info().rss - memory < 2 << 20
    assert not rig.a.lost + rig.b.lost


def test_rdma_that_ends_is_left_at_once(rig: Rig) -> None:
    """Both ends say so, and the next frame goes by ZeroMQ."""
    rig.joined()
    rig.switch()
    rig.send()
    rig.all_came()
    rig.pump.cut()
    rig.until(lambda: rig.a.lost and rig.b.lost)
    assert [(one.group, one.sending, one.reason) for one in rig.a.lost] == [
        (1, True, "gone"),
        (1, False, "gone"),
    ]
    assert [(one.group, one.sending, one.reason) for one in rig.b.lost] == [(1, False, "gone")]
    assert rig.a.ring.path is HopPath.ZMQ
    rig.send(3)
    rig.all_came()


def test_a_frame_that_rdma_does_not_take_goes_by_zmq(rig: Rig) -> None:
    """Found when it is sent, before anybody has looked."""
    rig.joined()
    rig.switch()
    rig.send()
    rig.all_came()
    rig.pump.stop()
    rig.send(2)
    assert rig.a.ring.path is HopPath.ZMQ
    rig.all_came()
    rig.until(lambda: rig.a.lost)
    assert [one.sending for one in rig.a.lost].count(True) == 1, "said once"
    assert rig.a.lost[0].sending


def test_rdma_that_stands_still_is_found_by_the_watchdog(rig: Rig) -> None:
    rig.joined()
    rig.switch()
    rig.send()
    rig.all_came()
    rig.pump.stall()
    assert rig.b.ring.wait_ms(10_000) <= WATCHDOG_S * 1000, "the poll wakes for it"
    rig.until(lambda: rig.a.lost and rig.b.lost)
    assert "stalled" in {one.reason for one in rig.a.lost + rig.b.lost}, "the pump leaves both then"
    rig.send()
    rig.all_came()
    rig.pump.stall(False)


def test_rdma_can_come_back_with_another_turn(rig: Rig) -> None:
    rig.joined()
    rig.switch()
    rig.pump.cut()
    rig.until(lambda: rig.a.lost and rig.b.lost)
    assert rig.switch() == "no rdma process is connected to the stage"
    assert rig.a.ring.path is HopPath.ZMQ
    rig.pump.restore()
    rig.joined()
    assert rig.switch() == ""
    rig.send(2)
    rig.all_came()


def test_a_path_that_cannot_be_taken_is_not(rig: Rig) -> None:
    rig.joined()
    assert rig.a.ring.take_rdma(2, 1, LAYOUT, 1) == "the rdma process is of group 1"
    assert rig.a.ring.take_rdma(1, 7, LAYOUT, 2) == "the rdma process does not reach rank 7"
    assert rig.a.ring.take_rdma(1, 1, LAYOUT, 3) == ""
    assert rig.a.ring.take_rdma(1, 1, LAYOUT, 4) == "", "it is taken already"


def test_without_a_connection_over_zmq_rdma_stays(rig: Rig) -> None:
    rig.joined()
    limits, options = FrameLimits(max_tensor_bytes=1), LinkOptions(send_timeout_s=0.01)
    dead = open_sender("tcp://127.0.0.1:9", limits, options, context=rig.context)
    outgoing = Outgoing(dead, rig.a.port)
    assert outgoing.take_rdma(1, 1, LAYOUT, 1) == "", "that it is left cannot be said"
    assert "no connection" in outgoing.take_zmq(LAYOUT, 2)
    assert outgoing.path is HopPath.RDMA
    outgoing.close(0.0)

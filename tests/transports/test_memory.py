"""Faults on demand: each does what it says, and the same seed does it again."""

from __future__ import annotations

import random

import pytest

from tests.transports.contract import LIMITS, work
from transports.base import LinkReceiver, LinkSender, LinkState
from transports.errors import LinkDown, LinkStalled
from transports.factory import open_receiver, open_sender
from transports.network import MemoryNetwork
from transports.options import LinkOptions

NOW = LinkOptions(send_timeout_s=0.0, queue=1000)


def link(network: MemoryNetwork) -> tuple[LinkSender, LinkReceiver]:
    receiver = open_receiver("memory://a", LIMITS, network=network)
    return open_sender("memory://a", LIMITS, NOW, network=network), receiver


def arrivals(
    sender: LinkSender, receiver: LinkReceiver, frames: int, misses: int = 20
) -> list[int]:
    """What arrives of so many frames, with a few more tries at the end."""
    got = []
    for number in range(frames):
        sender.send(work(number))
    for _ in range(2 * frames + 20):
        frame = receiver.receive()
        if frame is not None:
            got.append(frame.microbatch)
    return got


def test_without_faults_nothing_happens() -> None:
    assert arrivals(*link(MemoryNetwork()), 50) == list(range(50))


def test_drop() -> None:
    network = MemoryNetwork(random.Random(3))
    network.faults("a").drop = 0.3
    got = arrivals(*link(network), 200)
    assert got == sorted(got)
    assert 110 < len(got) < 170


def test_drop_next() -> None:
    network = MemoryNetwork()
    network.faults("a").drop_next = 2
    assert arrivals(*link(network), 5) == [2, 3, 4]


def test_duplicate() -> None:
    network = MemoryNetwork()
    network.faults("a").duplicate = 1.0
    assert arrivals(*link(network), 3) == [0, 0, 1, 1, 2, 2]


def test_reorder_loses_nothing() -> None:
    network = MemoryNetwork()
    network.faults("a").reorder = 0.5
    got = arrivals(*link(network), 50)
    assert got != list(range(50))
    assert sorted(got) == list(range(50))


def test_hold_lets_others_pass_and_ends() -> None:
    network = MemoryNetwork()
    faults = network.faults("a")
    sender, receiver = link(network)
    faults.hold, faults.hold_most = 1.0, 1
    sender.send(work(9))
    faults.hold = 0.0
    assert arrivals(sender, receiver, 3) == [0, 9, 1, 2]
    faults.hold = 1.0
    sender.send(work(8))
    assert receiver.receive() is None, "a miss counts as one delivery"
    frame = receiver.receive()
    assert frame is not None
    assert frame.microbatch == 8


def test_latency_follows_the_clock() -> None:
    now = [10.0]
    network = MemoryNetwork(clock=lambda: now[0])
    network.faults("a").latency_s = 0.5
    sender, receiver = link(network)
    sender.send(work(1))
    now[0] = 10.49
    assert receiver.receive() is None
    now[0] = 10.5
    assert receiver.receive() is not None


def test_sever_loses_what_is_under_way_and_restore_mends() -> None:
    network = MemoryNetwork()
    sender, receiver = link(network)
    sender.send(work(1))
    network.sever("a")
    assert sender.state is receiver.state is LinkState.DOWN
    with pytest.raises(LinkDown):
        sender.send(work(2))
    assert receiver.receive() is None
    network.check_integrity()
    network.restore("a")
    assert sender.state is receiver.state is LinkState.UP
    assert arrivals(sender, receiver, 2) == [0, 1]


def test_stall_holds_everything_until_resume() -> None:
    network = MemoryNetwork()
    receiver = open_receiver("memory://a", LIMITS, network=network)
    few = LinkOptions(send_timeout_s=0.0, queue=2)
    sender = open_sender("memory://a", LIMITS, few, network=network)
    network.stall("a")
    sender.send(work(0))
    sender.send(work(1))
    with pytest.raises(LinkStalled):
        sender.send(work(2))
    assert receiver.receive() is None
    network.resume("a")
    assert [f.microbatch for f in (receiver.receive(), receiver.receive()) if f] == [0, 1]


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> list[int]:
        network = MemoryNetwork(random.Random(seed))
        faults = network.faults("a")
        faults.drop = faults.duplicate = faults.reorder = faults.hold = 0.2
        got = arrivals(*link(network), 100)
        network.check_integrity()
        return got

    assert run(5) == run(5) != run(6)


def test_without_codec_the_frame_itself_travels() -> None:
    sender, receiver = link(MemoryNetwork(codec=False))
    frame = work(1)
    sender.send(frame)
    assert receiver.receive() is frame


def test_networks_share_nothing() -> None:
    _, receiver = link(MemoryNetwork())
    stranger = open_sender("memory://a", LIMITS, NOW, network=MemoryNetwork())
    with pytest.raises(LinkDown):
        stranger.send(work(1))
    assert receiver.receive() is None

"""Real rdma processes over the ring back end: what passes, and what happens when one goes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from daemon import messages as msg
from tests.rdma.rig import WATCHDOG_S, Rig
from tests.transports.contract import full_frame, plain, raised, work
from transports.base import LinkState
from transports.errors import LinkDown, LinkError
from transports.shared.layout import EAGER_BYTES

SIZES = (1, EAGER_BYTES - 600, EAGER_BYTES, EAGER_BYTES + 1, 1 << 20, (3 << 20) + 17, 16 << 20)


def test_frames_pass_whole_both_ways(rig: Rig) -> None:
    rig.up()
    there, back = rig.ports[0].sender(1), rig.ports[1].sender(0)
    there.send(full_frame())
    assert plain(rig.take(1)) == plain(full_frame())
    random = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        payload = random.integers(0, 256, size, dtype=np.uint8)
        there.send(work(number, payload))
        back.send(work(number, payload[::-1].copy()))
        for rank, expected in ((1, payload), (0, payload[::-1])):
            frame = rig.take(rank)
            assert frame.microbatch == number
            assert np.array_equal(np.frombuffer(frame.tensors[0].data, np.uint8), expected)
    for number in range(200):
        there.send(work(number, bytes(3000)))
    assert [rig.take(1).microbatch for _ in range(200)] == list(range(200))
    beat = rig.hear(msg.RdmaBeat)
    while beat.rank or beat.frames_out < 208:
        beat = rig.hear(msg.RdmaBeat)
    assert beat.stage
    assert beat.bytes_out > sum(SIZES)
    assert 0 < beat.handover_p50 <= beat.handover_p99
    assert not beat.dropped
    assert rig.ports[1].handover.count == 203  # of one piece each


def test_a_probe_tells_of_the_way_and_disturbs_no_frame(rig: Rig) -> None:
    rig.up()
    sender = rig.ports[0].sender(1)
    for number in range(50):
        sender.send(work(number, bytes(2000)))
    rig.say(0, msg.RdmaProbe(1, 1, 7, 1))
    rig.say(1, msg.RdmaProbe(1, 1, 8, 0))
    for number in range(50, 100):
        sender.send(work(number, bytes(2000)))
    found = {}
    for _ in range(2):
        probed = rig.hear(msg.RdmaProbed)
        found[probed.probe] = probed
    assert [rig.take(1).microbatch for _ in range(100)] == list(range(100))
    assert (found[7].node, found[7].incarnation, found[7].group) == ("n0", "shardd", 1)
    assert found[7].why == found[8].why == ""
    assert found[7].round_trip_seconds > 0
    assert found[8].bytes_per_second > 0
    rig.say(0, msg.RdmaProbe(1, 1, 9, 5))
    assert "no neighbour" in rig.hear(msg.RdmaProbed).why


def test_it_says_again_that_it_has_joined(rig: Rig) -> None:
    rig.up()
    rig.say(1, msg.Identify(2))
    joined = rig.hear(msg.RdmaJoined)
    assert (joined.node, joined.rank, joined.group, joined.reach) == ("n1", 1, 1, [0])
    assert joined.pid == rig.processes[1].pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
@pytest.mark.parametrize("victim", [0, 1])
def test_the_end_of_one_is_the_end_of_the_group(rig: Rig, number: int, victim: int) -> None:
    rig.up()
    senders = [rig.ports[0].sender(1), rig.ports[1].sender(0)]
    senders[0].send(work(1, bytes(2000)))
    rig.take(1)
    os.kill(rig.processes[victim].pid, number)
    rig.until(lambda: len(rig.losses) == 2)
    assert {loss.reason for loss in rig.losses.values()} == {"gone"}
    for sender in senders:
        assert sender.state is not LinkState.UP
        raised(LinkDown, lambda sender=sender: sender.send(work(2)))  # type: ignore[misc]
    other = rig.processes[1 - victim]
    assert rig.last_line(other).startswith(f"rdma peer: rank {victim} is gone")
    assert other.returncode == 1


def test_a_stopped_process_is_given_up_by_its_stage(rig: Rig) -> None:
    rig.up()
    os.kill(rig.processes[1].pid, signal.SIGSTOP)
    rig.until(lambda: 1 in rig.losses)
    assert rig.losses[1].reason == "stalled"
    assert f"{WATCHDOG_S:.1f}"[:2] in rig.losses[1].why


def test_an_operation_that_does_not_end_ends_the_process(rig: Rig) -> None:
    """More than the system's buffers hold is sent to one that is stopped."""
    rig.up()
    os.kill(rig.processes[1].pid, signal.SIGSTOP)
    sender = rig.ports[0].sender(1)

    def send_many() -> None:
        for number in range(50):
            sender.send(work(number, bytes(16 << 20)))
            rig.look()

    raised(LinkError, send_many)
    rig.until(lambda: 0 in rig.losses)
    assert "rdma stalled: sending to rank 1" in rig.last_line(rig.processes[0])


def test_a_stage_that_starts_again_is_found(rig: Rig) -> None:
    rig.up()
    sender = rig.ports[0].sender(1)
    for life in range(3):
        rig.ports.pop(1).close()
        sender.send(work(99))  # for nobody
        rig.listen(1)
        rig.until(lambda: rig.ports[1].peer)
        sender.send(work(life))
        while (frame := rig.take(1)).microbatch == 99:
            pass
        assert frame.microbatch == life
    assert all(process.poll() is None for process in rig.processes)


def test_a_stage_that_ends_within_a_frame_harms_nobody(rig: Rig) -> None:
    rig.up()
    connection = rig.ports[0].connection
    assert connection
    assert connection.writer.begin(1, 1, 0, 5 << 20, 0)
    connection.writer.payload[:4] = b"\1\0\0\0"
    connection.writer.publish()
    rig.ports.pop(0).close()
    rig.until(lambda: rig.ports[1].receive(0) or rig.ports[1].stats.errors)
    assert rig.ports[1].stats.frames == 0
    rig.listen(0)
    rig.until(lambda: rig.ports[0].peer)
    rig.ports[0].sender(1).send(work(5, bytes(2 << 20)))
    assert rig.take(1).microbatch == 5


def test_of_three_only_neighbours_are_reached(tmp_path: Path) -> None:
    rig = Rig(tmp_path, size=4)
    try:
        rig.up()
        assert [sorted(port.peer.reach) for port in rig.ports.values() if port.peer] == [
            [1, 3],
            [0, 2],
            [1, 3],
            [0, 2],
        ]
        for rank in range(4):
            rig.ports[rank].sender((rank + 1) % 4).send(work(rank, bytes(20000)))
        for rank in range(4):
            assert rig.take((rank + 1) % 4).microbatch == rank
        raised(LinkDown, lambda: rig.ports[0].sender(2).send(work()))
    finally:
        rig.close()


def test_it_ends_when_it_is_told_to(rig: Rig) -> None:
    rig.up()
    rig.processes[0].terminate()
    assert rig.processes[0].wait(10) == 0
    rig.until(lambda: 0 in rig.losses)


def test_it_ends_with_its_shardd(rig: Rig) -> None:
    rig.listen(0)
    rig.start(0, parent=1)
    rig.listen(1)
    rig.start(1)
    assert rig.last_line(rig.processes[0]) == "rdma orphan: shardd is gone"


@pytest.mark.parametrize(
    ("backend", "why", "code"),
    [
        ("nccl", "rdma backend: MLX's back end 'nccl' cannot send", 78),
        ("jaccl", "rdma backend: MLX has no back end 'jaccl' on this machine", 78),
        ("ring", "rdma start: [ring]", 1),
    ],
)
def test_a_group_that_cannot_be(rig: Rig, backend: str, why: str, code: int) -> None:
    rig.hosts[0] = "203.0.113.7:9"  # no address of this machine
    process = rig.start(0, backend=backend)
    assert why in rig.last_line(process)
    assert process.returncode == code


def test_nothing_of_a_group_is_left_in_this_process(rig: Rig) -> None:
    rig.up()

    def left() -> tuple[int, int]:
        regions = Path("/proc/self/maps").read_text().count("shardbus-rdma")
        return len(os.listdir("/proc/self/fd")), regions

    before = left()
    for _ in range(20):
        rig.ports[0].lose("gone", "the test cuts it")
        _ = rig.ports[0].receive(0)
        rig.until(lambda: rig.ports[0].peer)
    assert left() == before

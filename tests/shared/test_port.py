"""The stage's end: who comes, who goes, who stands still, and who lies."""

from __future__ import annotations

import gc
import os
import socket
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from tests.shared.pair import CAPACITY, WATCHDOG_S, Pair
from tests.transports.contract import LIMITS, OPTIONS, eventually, raised, work
from transports.base import LinkState
from transports.errors import EncodeError, LinkDown, LinkStalled
from transports.limits import FrameLimits
from transports.shared.greeting import GreetingError, Peer, pack_hello, read_hello
from transports.shared.lanes import Hangup
from transports.shared.layout import ALIVE, EAGER_BYTES, SLOTS, further_pieces, up
from transports.shared.message import plan, unpack
from transports.shared.port import Loss
from transports.wire import encode


def carry(pair: Pair, number: int, size: int, pieces: int | None = None) -> None:
    """What a neighbour sent: that many pieces of it, or all."""
    total, buffers = plan(encode(work(number, bytes(size))))
    writer = pair.end.writer
    assert writer.begin(1, 1, 2, total, 0)
    writer.payload[:] = b"".join(buffers)
    for _ in [0, *further_pieces(total)][:pieces]:
        writer.publish()


def test_frames_come_as_they_are_carried(pair: Pair) -> None:
    pair.connect()
    assert pair.port.peer == Peer(7, 1, 3, frozenset({2}), os.getpid())
    for number, size in enumerate((1, 5000, EAGER_BYTES, 1 << 20)):
        carry(pair, number, size)
    for number, size in enumerate((1, 5000, EAGER_BYTES, 1 << 20)):
        frame = pair.port.receive(1.0)
        assert frame
        assert frame.microbatch == number
        assert frame.tensors[0].nbytes == size
    assert pair.port.receive(0) is None
    assert pair.port.handover.count == 2  # of one piece each


def test_a_frame_that_is_not_whole_is_waited_for(pair: Pair) -> None:
    pair.connect()
    carry(pair, 1, 1 << 20, pieces=1)
    assert pair.port.receive(0) is None
    pair.end.writer.publish()
    frame = pair.port.receive(0)
    assert frame
    assert frame.microbatch == 1


def test_what_came_before_the_end_is_received(pair: Pair) -> None:
    pair.connect()
    carry(pair, 1, 100)
    carry(pair, 2, 1 << 20, pieces=1)
    pair.end.close()
    assert pair.look() == Loss(7, "gone", "the rdma process has ended")
    assert pair.look() is None
    frame = pair.port.receive(0)
    assert frame
    assert frame.microbatch == 1
    assert pair.port.receive(0) is None
    assert pair.port.state is LinkState.DOWN
    assert pair.port.peer is None


def test_every_frame_waits_while_nobody_receives(pair: Pair) -> None:
    pair.connect()
    for number in range(20):
        carry(pair, number, 1000)
        pair.look()
    assert [frame.microbatch for _ in range(20) if (frame := pair.port.receive(0))] == [*range(20)]


def test_a_frame_that_was_taken_leaves_its_place(pair: Pair) -> None:
    """One after the other, more than a lane can hold; also behind one that is still looked at."""
    pair.connect()
    for number in range(2 * SLOTS):
        carry(pair, number, 1000)
        assert pair.port.receive(0)
    carry(pair, 0, 1 << 20)
    held = pair.port.receive(0)
    assert held
    carry(pair, 1, 1000)
    assert pair.port.receive(0)
    del held
    gc.collect()
    for number in range(2 * SLOTS):
        carry(pair, number, 1000)
        assert pair.port.receive(0)


def test_a_loop_that_stands_still_is_given_up(pair: Pair) -> None:
    end, port = pair.connect(), pair.port
    now = 100.0
    for _ in range(40):
        assert port.look(now) is None
        now += WATCHDOG_S / 4
        end.beat()
    loss = None
    for _ in range(5):
        assert loss is None
        loss = port.look(now)
        now += WATCHDOG_S / 4
    assert loss
    assert (loss.group, loss.reason) == (7, "stalled")
    with pytest.raises(Hangup):
        end.reader.take()


def test_a_stage_that_was_away_itself_gives_nobody_up(pair: Pair) -> None:
    pair.connect()
    assert pair.port.look(0.0) is None
    assert pair.port.look(1000.0) is None
    pair.end.beat()
    assert pair.port.look(2000.0) is None


def test_the_next_process_takes_the_place(pair: Pair) -> None:
    first = pair.connect(group=7)
    carry(pair, 1, 100)
    pair.connect(group=8)
    assert pair.port.peer
    assert pair.port.peer.group == 8
    loss = pair.look()
    assert isinstance(loss, Loss)
    assert (loss.group, loss.reason) == (7, "gone")
    with pytest.raises(Hangup):
        first.reader.take()
    carry(pair, 2, 100)
    frame = pair.port.receive(0)
    assert frame
    assert frame.microbatch == 2


def test_an_older_group_does_not_come_back(pair: Pair) -> None:
    pair.connect(group=8)
    with socket.socket(socket.AF_UNIX) as older:
        older.connect(str(pair.path))
        older.sendall(pack_hello(Peer(7, 1, 3, frozenset({2}), 1)))
        eventually(lambda: pair.port.receive(0) or pair.port.stats.errors["handshake"])
    assert pair.port.peer
    assert pair.port.peer.group == 8


def test_a_sender_reaches_only_whom_the_process_does(pair: Pair) -> None:
    sender = pair.port.sender(2)
    assert sender.state is LinkState.CONNECTING
    end = pair.connect()
    assert sender.state is LinkState.UP
    sender.send(work(3, bytes(10)))
    piece = end.reader.take()
    assert piece
    assert (piece.head.dest, piece.head.source, piece.head.kind) == (2, 1, 1)
    parts = unpack(piece.payload, LIMITS)
    assert [bytes(part) for part in parts] == [bytes(part) for part in encode(work(3, bytes(10)))]
    other = pair.port.sender(0)
    quick = replace(OPTIONS, send_timeout_s=0.01)
    pair.port.options = quick
    raised(LinkDown, lambda: other.send(work()))


def test_a_process_that_takes_nothing(tmp_path: Path) -> None:
    pair = Pair(tmp_path, replace(OPTIONS, send_timeout_s=0.02))
    try:
        pair.connect()
        sender = pair.port.sender(2)
        for number in range(2):
            sender.send(work(number, bytes(900_000)))
        raised(LinkStalled, lambda: sender.send(work(2, bytes(900_000))))
        assert sender.state is LinkState.UP
        assert pair.look() is None
        for _ in [0, *further_pieces(900_000)]:
            assert pair.end.reader.take()
        pair.end.reader.free()
        sender.send(work(3, bytes(900_000)))
        raised(EncodeError, lambda: sender.send(work(4, bytes(CAPACITY))))
    finally:
        pair.close()


def test_who_stops_within_a_frame_is_given_up(tmp_path: Path) -> None:
    pair = Pair(tmp_path, replace(OPTIONS, send_timeout_s=0.02))
    try:
        pair.connect()
        sender = pair.port.sender(2)
        connection = pair.port.connection
        assert connection
        connection.writer._rung = 191  # no room for the byte of another piece
        raised(LinkStalled, lambda: sender.send(work(2, bytes(900_000))))
        assert sender.state is LinkState.DOWN
        loss = pair.look()
        assert isinstance(loss, Loss)
        assert loss.reason == "stalled"
    finally:
        pair.close()


@pytest.mark.parametrize("where", ["slot", "head", "freed"])
def test_a_damaged_region_ends_the_connection(pair: Pair, where: str) -> None:
    end, port = pair.connect(), pair.port
    words = end.region.words
    lane = up(CAPACITY)
    carry(pair, 1, 100)
    if where == "slot":
        words[lane.slots] = 77
    elif where == "head":
        end.region.memory[lane.area : lane.area + 4] = b"junk"
    else:
        words[16] = 1 << 50
        raised(LinkDown, lambda: port.sender(2).send(work()))
    assert port.receive(0) is None
    loss = pair.look()
    assert isinstance(loss, Loss)
    assert loss.reason == "damaged"
    pair.connect()
    carry(pair, 5, 100)
    frame = port.receive(0)
    assert frame
    assert frame.microbatch == 5


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(36),
        pack_hello(Peer(1, 1, 3, frozenset({2}), 1))[:-1],
        struct.pack("<6sHIIIQQ", b"SBRDMA", 2, 0, 2, 1, 1, 2),
        struct.pack("<6sHIIIQQ", b"SBRDMA", 1, 2, 2, 1, 1, 2),
        struct.pack("<6sHIIIQQ", b"SBRDMA", 1, 0, 2, 1, 1, 1),
        struct.pack("<6sHIIIQQ", b"SBRDMA", 1, 0, 2, 1, 1, 4),
        struct.pack("<6sHIIIQQ", b"SBRDMA", 1, 0, 65, 1, 1, 2),
    ],
)
def test_a_stranger_does_not_disturb(pair: Pair, hello: bytes) -> None:
    pair.connect()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(pair.path))
        stranger.sendall(hello)
        stranger.shutdown(socket.SHUT_WR)
        eventually(lambda: pair.port.receive(0) or pair.port.stats.errors["handshake"])
    carry(pair, 1, 100)
    frame = pair.port.receive(0)
    assert frame
    assert pair.look() is None
    assert pair.port.stats.disconnects == 0


def test_a_hello_reads_as_it_was_written() -> None:
    peer = Peer((1 << 62) - 1, 63, 64, frozenset({0, 62}), 1 << 22)
    assert read_hello(pack_hello(peer)) == peer
    with pytest.raises(GreetingError):
        read_hello(pack_hello(peer) + b"x")


def test_limits_of_another_model_hold_from_then_on(pair: Pair) -> None:
    pair.connect()
    pair.port.limits = FrameLimits(max_tensor_bytes=1000)
    carry(pair, 1, 1001)
    assert pair.port.receive(0) is None
    assert pair.port.stats.errors["limit"] == 1
    pair.port.limits = FrameLimits(max_tensor_bytes=1 << 20)
    carry(pair, 2, 1 << 20)
    assert pair.port.receive(0)


def test_nothing_is_left_of_many_connections(pair: Pair) -> None:
    def left() -> tuple[int, int]:
        gc.collect()  # what other tests left
        maps = Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else ""
        return len(os.listdir("/dev/fd")), maps.count("shardbus-rdma")

    def once() -> None:
        pair.connect()
        carry(pair, 1, 1 << 20, pieces=1)
        pair.port.receive(0)
        pair.ends.pop().close()
        assert pair.look()
        assert pair.port.receive(0) is None

    once()
    before = left()
    for _ in range(200):
        once()
    assert left() == before


def test_the_beat_is_a_word_of_the_region(pair: Pair) -> None:
    end = pair.connect()
    end.beat()
    end.beat()
    assert end.region.words[ALIVE] == 2


def test_a_large_frame_stays_as_it_is_while_somebody_has_it(pair: Pair) -> None:
    """It lies in the region; its place is used again only afterwards."""
    pair.connect()
    held = []
    for number in range(40):
        payload = bytes([number]) * 400_000
        total, buffers = plan(encode(work(number, payload)))
        writer = pair.end.writer
        while not writer.begin(1, 1, 2, total, 0):
            held.pop(0)  # no room: whoever has the oldest lets go of it
            assert pair.port.receive(0) is None
        writer.payload[:] = b"".join(buffers)
        for _ in [0, *further_pieces(total)]:
            writer.publish()
        writer.check_integrity()
        frame = pair.port.receive(0)
        assert frame
        held.append(frame)
        for one in held:
            assert bytes(one.tensors[0].data) == bytes([one.microbatch]) * 400_000
    assert len(held) > 2
    pair.end.close()
    pair.look()
    assert bytes(held[0].tensors[0].data) == bytes([held[0].microbatch]) * 400_000

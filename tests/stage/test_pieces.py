"""Pieces of KV on their socket: what is none is refused, and what is lost is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import zmq

from daemon.layers import LayerRange
from daemon.stage.pieces import Grown, Last, Piece, PieceError, PieceReceiver, PieceSender, Whole

HERE = "tcp://127.0.0.1:0"
A = b"a" * 16
GROWN = Grown(A, 0, 4, 6, 20, LayerRange(1, 3))
PIECES = [
    GROWN,
    Whole(A, 8, 2, 40, 30, (("keys", "F32", (1, 2, 10, 4)),)),
    Last(((A, 7, (1 << 61) - 2),)),
]


class Link:
    """A receiver of move 3 of term 1, and a socket that says anything to it."""

    def __init__(self) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.receiver = PieceReceiver(self.context, HERE, (), (1, 3))
        self.socket = self.context.socket(zmq.PUSH)
        self.socket.connect(self.receiver.address)

    def say(self, *parts: bytes) -> None:
        self.socket.send_multipart(parts)

    def take(self) -> tuple[str, Piece, memoryview] | None:
        assert self.receiver.socket.poll(5000), "nothing has come"
        return self.receiver.take()

    def close(self) -> None:
        self.socket.close(linger=0)
        self.receiver.close()
        self.context.term()


def until_room(sender: PieceSender) -> None:
    """Its connection is made."""
    assert sender._socket.poll(5000, zmq.POLLOUT), "no connection"


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link()
    yield link
    link.close()


def test_pieces_come_as_they_were_sent(link: Link) -> None:
    sender = PieceSender(link.context, link.receiver.address, (), (1, 3), "b")
    for piece in PIECES:
        until_room(sender)
        assert sender.send(piece, b"bytes")
        assert link.take() == ("b", piece, b"bytes")
    sender.close()


def test_a_taker_without_room_is_not_waited_for(link: Link) -> None:
    sender = PieceSender(link.context, link.receiver.address, (), (1, 3), "b")
    until_room(sender)
    assert sender.send(GROWN)
    large = bytes(4 << 20)
    sent = sum(sender.send(GROWN, large) for _ in range(100))
    assert sent < 100
    for _ in range(sent + 1):
        link.take()
    sender.close()


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xc1",
        msgpack.packb({"move": 3}),
        msgpack.packb([1, 3, "b", 1]),
        msgpack.packb([1, 3, "b", 1, "other"]),
        msgpack.packb([1, 3, b"b", 1, "last", []]),
        msgpack.packb([1, 3, "b", 1, "grown", A, 0, 4, 6, 20, 1]),
        msgpack.packb([1, 3, "b", 1, "grown", A[1:], 0, 4, 6, 20, 1, 3]),
        msgpack.packb([1, 3, "b", 1, "grown", A, 0, 6, 6, 20, 1, 3]),
        msgpack.packb([1, 3, "b", 1, "grown", A, 0, -1, 6, 20, 1, 3]),
        msgpack.packb([1, 3, "b", 1, "grown", A, 0, 4.0, 6, 20, 1, 3]),
        msgpack.packb([1, 3, "b", 1, "grown", A, 0, 4, 6, 20, 3, 3]),
        msgpack.packb([1, 3, "b", 1, "whole", A, 0, 2, 40, 30, [["keys", "F32", [1, -2]]]]),
        msgpack.packb([1, 3, "b", 1, "whole", A, 0, 2, 40, 30, [["keys", "F32"]]]),
        msgpack.packb([1, 3, "b", 1, "last", [[A, 7]]]),
        msgpack.packb([1, 3, "b", 1, "last", 7]),
    ],
)
def test_what_is_no_piece_is_refused(link: Link, head: bytes) -> None:
    link.say(head, b"")
    with pytest.raises(PieceError, match="none"):
        link.take()


def test_a_piece_has_two_parts(link: Link) -> None:
    link.say(msgpack.packb([1, 3, "b", 1, "last", []]))
    with pytest.raises(PieceError, match="none"):
        link.take()


def test_a_lost_piece_is_noticed(link: Link) -> None:
    link.say(msgpack.packb([1, 3, "b", 1, "last", []]), b"")
    link.say(msgpack.packb([1, 3, "c", 1, "last", []]), b"")
    link.say(msgpack.packb([1, 3, "b", 3, "last", []]), b"")
    assert link.take() == ("b", Last(()), b"")
    assert link.take() == ("c", Last(()), b"")
    with pytest.raises(PieceError, match="from b are lost before number 3"):
        link.take()


def test_another_move_s_pieces_are_left_out(link: Link) -> None:
    for term, move in ((1, 2), (2, 3)):
        link.say(msgpack.packb([term, move, "b", 1, "last", []]), b"")
        assert link.take() is None

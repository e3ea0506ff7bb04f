"""KV on its way from one stage to another: pieces, over a socket of their own.

    part 0    msgpack [term, move, giver, number, kind, ...]
    part 1    bytes

The queue is short: a giver that is faster than its taker sees that it cannot send. Pieces of one
giver are numbered, so that a connection that was lost, and pieces with it, is noticed. Nothing of a
socket is believed: what a piece says is checked here, what its bytes must be where they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import zmq

from daemon.layers import LayerRange
from daemon.ring import Network, kv_address
from transports.address import Address
from transports.errors import AddressError
from transports.frame import SEQUENCE_ID_BYTES
from transports.limits import FrameLimits
from transports.options import LinkOptions
from transports.sockets import bind, configure

PIECE_BYTES = 1 << 19  # of a piece that is sent while the stage computes: some 0.2 ms of copying
MOST_BYTES = 1 << 28  # of any piece: a window's whole cache
_OPTIONS = LinkOptions(queue=4)
_LIMITS = FrameLimits(max_tensor_bytes=MOST_BYTES)
_LONGEST = 1 << 20  # of a list in a header


@dataclass(frozen=True, slots=True)
class Grown:
    """Positions [start, stop) of a sequence: its tokens, int32, then those of `layers`, one after
    another, that only grow. It will need room for `room` positions soon.
    """

    sequence: bytes
    kv_bits: int
    start: int
    stop: int
    room: int
    layers: LayerRange


@dataclass(frozen=True, slots=True)
class Whole:
    """All that one layer keeps of a sequence's `length` positions, from position `first` on; of its
    arrays names, types and shapes.
    """

    sequence: bytes
    kv_bits: int
    layer: int
    length: int
    first: int
    arrays: tuple[tuple[str, str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Last:
    """The giver has sent everything. `sequences` are those that it holds: id, tokens, their hash.
    Others that pieces came of are gone.
    """

    sequences: tuple[tuple[bytes, int, int], ...]


Piece = Grown | Whole | Last


class PieceError(Exception):
    """Pieces that cannot be used, or cannot be sent. The text says why."""


class PieceSender:
    """For one thread; `move` is a term and a number. AddressError for an address that may not be
    sent to.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        networks: Sequence[Network],
        move: tuple[int, int],
        giver: str,
    ) -> None:
        where = kv_address(address, networks)
        self.address = address
        self._head = (*move, giver)
        self._number = 0
        self._socket = context.socket(zmq.PUSH)
        configure(self._socket, where, _LIMITS, _OPTIONS)
        self._socket.connect(str(where))

    @property
    def room(self) -> bool:
        """Whether the taker has room for a piece, as far as is known: what is made of a cache in
        vain takes time.
        """
        return bool(self._socket.get(zmq.EVENTS) & zmq.POLLOUT)

    def send(self, piece: Piece, data: bytes = b"") -> bool:
        """False when the taker has no room for it now."""
        head = msgpack.packb([*self._head, self._number + 1, *_fields(piece)])
        try:
            self._socket.send_multipart([head, data], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            raise PieceError(f"{self.address}: {str(error).lower()}") from error
        self._number += 1
        return True

    def close(self) -> None:
        self._socket.close(linger=0)


class PieceReceiver:
    """Bound at a node's data address, whose port is not used. AddressError."""

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        networks: Sequence[Network],
        move: tuple[int, int],
    ) -> None:
        where = kv_address(address, networks)
        self._move = move
        self._numbers: dict[str, int] = {}
        self.socket = context.socket(zmq.PULL)
        configure(self.socket, where, _LIMITS, _OPTIONS)
        try:
            self.address = bind(self.socket, Address(where.scheme, where.host, 0))
        except AddressError:
            self.socket.close(linger=0)
            raise

    def take(self) -> tuple[str, Piece, memoryview] | None:
        """The next piece and its giver; None when there is none, or it is of another move.
        PieceError when one is missing, or is none.
        """
        try:
            parts = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            return None
        try:
            head = msgpack.unpackb(
                parts[0].buffer, max_array_len=_LONGEST, max_map_len=0, max_ext_len=0
            )
            term, move, giver, number, kind, *fields = head
            if type(giver) is not str or len(parts) != 2:
                raise ValueError("no giver")
            piece: Piece = _READ[kind](*fields)
        except (ValueError, TypeError, KeyError, msgpack.exceptions.UnpackException) as error:
            raise PieceError(f"a piece of KV is none: {error!r:.120}") from error
        if (term, move) != self._move:
            return None
        if number != self._numbers.get(giver, 0) + 1:
            raise PieceError(f"pieces of KV from {giver} are lost before number {number}")
        self._numbers[giver] = number
        return giver, piece, parts[1].buffer

    def close(self) -> None:
        self.socket.close(linger=0)


def _fields(piece: Piece) -> list[Any]:
    match piece:
        case Grown(sequence, kv_bits, start, stop, room, layers):
            return ["grown", sequence, kv_bits, start, stop, room, layers.start, layers.end]
        case Whole(sequence, kv_bits, layer, length, first, arrays):
            return ["whole", sequence, kv_bits, layer, length, first, arrays]
        case Last(sequences):
            return ["last", sequences]


def _grown(
    sequence: Any, kv_bits: Any, start: Any, stop: Any, room: Any, first: Any, end: Any
) -> Grown:
    _check_numbers(kv_bits, start, stop, room, first, end)
    if not start < stop:
        raise ValueError("no positions")
    return Grown(_id(sequence), kv_bits, start, stop, room, LayerRange(first, end))


def _whole(sequence: Any, kv_bits: Any, layer: Any, length: Any, first: Any, arrays: Any) -> Whole:
    _check_numbers(kv_bits, layer, length, first)
    named = tuple((str(name), str(dtype), tuple(shape)) for name, dtype, shape in arrays)
    _check_numbers(*(n for _, _, shape in named for n in shape))
    return Whole(_id(sequence), kv_bits, layer, length, first, named)


def _last(sequences: Any) -> Last:
    told = tuple((_id(one), length, token_hash) for one, length, token_hash in sequences)
    _check_numbers(*(n for _, *numbers in told for n in numbers))
    return Last(told)


def _id(value: Any) -> bytes:
    if type(value) is not bytes or len(value) != SEQUENCE_ID_BYTES:
        raise ValueError("no sequence id")
    return value


def _check_numbers(*values: Any) -> None:
    if any(type(value) is not int or value < 0 for value in values):
        raise ValueError("no number")


_READ: dict[str, Callable[..., Piece]] = {"grown": _grown, "whole": _whole, "last": _last}

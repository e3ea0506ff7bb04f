"""The way to and from one neighbour: what MLX carries, and the TCP connection beside it.

On the wire a message is a first block of fixed length, its head and the beginning of its payload,
then the other pieces (transports/shared/layout.py), each an operation of MLX of its own; both ends
know their lengths from the head. The block is what lies in the sending stage's region, so that
behind a short payload there is something meaningless.

A byte on the TCP connection says that a message comes. Between two neighbours that are `awake`
none is needed: there the receive is posted already, and spins. On `jaccl` a frame leaves its line
awake, and one of kind REST, sent after a second without frames, lets the other side sleep.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from enum import IntEnum

import mlx.core as mx

from daemon.rdma.ending import DAMAGED, PEER, Ending
from daemon.rdma.strand import Strand, content
from transports.shared.layout import BLOCK_BYTES, CAPACITY, Head, further_pieces, read_head

MOST_BYTES = CAPACITY - BLOCK_BYTES  # of a payload
DEPTH = 2  # operations under way at once, far below the 32 that JACCL's drivers can take
_BELL = b"\1"


class Kind(IntEnum):
    FRAME = 1
    PING = 2  # to be sent back as it is
    PONG = 3
    BULK = 4  # to be answered by a PONG of its checksum
    REST = 5


class Line:
    """One of each neighbour. Sending belongs to who holds `lock`, receiving to one thread."""

    def __init__(self, me: int, rank: int, beside: socket.socket, stays_awake: bool) -> None:
        self.me = me
        self.rank = rank
        self.lock = threading.Lock()
        self.sending = f"sending to rank {rank}"  # what it is called when it hangs
        self.receiving = f"receiving from rank {rank}"
        self.last_frame = 0.0  # when one was sent or received
        self._beside = beside
        self._stays_awake = stays_awake
        self._sending_awake = self.receiving_awake = False

    def announce(self, kind: Kind) -> None:
        """Say that a message comes, if it has to be said. With the lock held."""
        if not self._sending_awake:
            try:
                self._beside.send(_BELL)
            except OSError as error:
                raise self._gone(str(error)) from error
        self._sending_awake = self._stays_awake and kind is Kind.FRAME
        if kind is Kind.FRAME:
            self.last_frame = time.monotonic()

    def await_announcement(self) -> None:
        """Wait until a message comes: for ever, if need be, and at no cost."""
        if self.receiving_awake:
            return
        try:
            came = self._beside.recv(1)
        except OSError as error:
            raise self._gone(str(error)) from error
        if not came:
            raise self._gone("it has ended")

    def check(self, block: memoryview) -> Head:
        """The head of what was received, if it can be one."""
        head = read_head(block)
        if head is None or (head.source, head.dest) != (self.rank, self.me):
            raise Ending(DAMAGED, f"rank {self.rank} sent what is no message for rank {self.me}")
        if head.kind not in _KINDS or head.total > MOST_BYTES:
            raise Ending(DAMAGED, f"rank {self.rank} sent {head.total} bytes of kind {head.kind}")
        self.receiving_awake = self._stays_awake and head.kind == Kind.FRAME
        if head.kind == Kind.FRAME:
            self.last_frame = time.monotonic()
        return head

    def rests_due(self, now: float, idle_s: float) -> bool:
        """Whether the other side spins for nothing."""
        return self._sending_awake and now - self.last_frame > idle_s

    def one_way(self, now: float, idle_s: float) -> bool:
        """Whether nothing else may be sent, because frames pass and the back end cannot do both."""
        return self._stays_awake and now - self.last_frame <= 2 * idle_s

    def check_alive(self) -> None:
        """Also while MLX spins in a receive, of which it would never tell."""
        try:
            gone = not self._beside.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._gone(str(error)) from error
        if gone:
            raise self._gone("it has ended")

    def _gone(self, why: str) -> Ending:
        return Ending(PEER, f"rank {self.rank} is gone: {why}")


class Sending:
    """One message on its way; the line is its own until `close`."""

    def __init__(self, line: Line, strand: Strand, kind: Kind) -> None:
        self._line = line
        self._strand = strand
        self._pending: deque[mx.array] = deque()
        line.lock.acquire()
        line.announce(kind)

    def put(self, data: memoryview, last: bool) -> None:
        """The block, or the next piece; it may change afterwards."""
        strand, pending = self._strand, self._pending
        array = strand.sending(data, self._line.rank)
        if len(pending) >= DEPTH:
            strand.finish(pending.popleft(), self._line.sending)
        if not last or pending:
            strand.begin(array)
        pending.append(array)

    def close(self) -> None:
        """Wait until all is sent."""
        for one in self._pending:
            self._strand.finish(one, self._line.sending)
        self._line.lock.release()


def receive_block(line: Line, strand: Strand) -> memoryview:
    """The first block of the next message; waits for one as long as it takes."""
    line.await_announcement()
    array = strand.receiving(BLOCK_BYTES, line.rank)
    if line.receiving_awake:
        strand.wait(array, line.receiving)
    else:
        strand.finish(array, line.receiving)
    return content(array)


def receive_rest(line: Line, strand: Strand, total: int) -> Iterator[tuple[int, memoryview]]:
    """The other pieces of a payload, each with where it belongs; the next one is under way while
    one is looked at.
    """
    coming: deque[tuple[int, mx.array]] = deque()
    for start, stop in further_pieces(total):
        array = strand.receiving(stop - start, line.rank)
        strand.begin(array)
        coming.append((start, array))
        if len(coming) >= DEPTH:
            yield _finished(line, strand, *coming.popleft())
    for start, array in coming:
        yield _finished(line, strand, start, array)


def _finished(line: Line, strand: Strand, start: int, array: mx.array) -> tuple[int, memoryview]:
    strand.finish(array, line.receiving)
    return start, content(array)


_KINDS = frozenset(int(kind) for kind in Kind)

"""The stage's way to one rank of the group, as a link."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from transports.base import LinkState, LinkStats
from transports.errors import EncodeError, LinkClosed, LinkDown, LinkError, LinkStalled
from transports.frame import Frame
from transports.records import Buffer
from transports.shared.connection import Connection
from transports.shared.lanes import Hangup
from transports.shared.layout import EAGER_BYTES, further_pieces, room
from transports.shared.message import plan
from transports.shared.region import RegionDamaged
from transports.wire import encode

if TYPE_CHECKING:
    from transports.shared.port import SharedPort

FRAME = 1  # the only kind of message between a stage and the rdma process
_SLICE_S = 0.0005  # between two looks for room: the reader does not say when it frees some


class SharedSender:
    """A LinkSender; it belongs to the port's thread. Frames are copied into the region: what they
    lie in may change after `send`.
    """

    def __init__(self, port: SharedPort, rank: int) -> None:
        self.rank = rank
        self._port = port
        self._stats = LinkStats()
        self._known = LinkState.CONNECTING
        self._follow()

    @property
    def address(self) -> str:
        return f"{self._port.address}#{self.rank}"

    @property
    def state(self) -> LinkState:
        if self._known is not LinkState.CLOSED:
            self._port.attend()
            self._follow()
        return self._known

    @property
    def stats(self) -> LinkStats:
        return self._stats

    @property
    def pollable(self) -> int:
        return self._port.pollable

    def _follow(self) -> Connection | None:
        """The connection that this rank can be reached by, if there is one."""
        connection = self._port.connection
        reached = connection is not None and self.rank in connection.peer.reach
        if reached and self._known is not LinkState.UP:
            self._known = LinkState.UP
            self._stats.connects += 1
        elif not reached and self._known is LinkState.UP:
            self._known = LinkState.DOWN
            self._stats.disconnects += 1
        return connection if reached else None

    def send(self, frame: Frame) -> None:
        stamp = time.monotonic_ns()
        if self._known is LinkState.CLOSED:
            raise LinkClosed(f"{self.address}: this end is closed")
        try:
            parts = encode(frame, self._port.limits)
        except EncodeError as e:
            self._stats.count_error("encode", str(e))
            raise
        total, buffers = plan(parts)
        connection = self._follow() or self._connected()
        writer = connection.writer
        if room(total) > writer.capacity:
            error = EncodeError(f"{total} bytes, the lane has {writer.capacity}")
            self._stats.count_error("encode", str(error))
            raise error
        try:
            if not writer.begin(FRAME, self.rank, connection.peer.rank, total, stamp):
                self._wait_to_begin(connection, total, stamp)
            if total <= EAGER_BYTES:
                writer.payload[:] = b"".join(buffers)
                self._publish(connection)
            else:
                self._send_pieces(connection, total, buffers)
        except Hangup as e:
            self._port.lose("gone", "the rdma process has ended")
            raise self._failed("down", LinkDown(f"{self.address}: the rdma process ended")) from e
        except RegionDamaged as e:
            self._port.lose("damaged", f"the rdma process wrote what cannot be: {e}")
            raise self._failed("down", LinkDown(f"{self.address}: {e}")) from e
        self._stats.frames += 1
        self._stats.bytes += sum(map(len, parts))
        # Where the rdma process shares a core with this one, it takes the frame when it is let: the
        # caller goes on to compute, for milliseconds.
        os.sched_yield()

    def _send_pieces(self, connection: Connection, total: int, buffers: list[Buffer]) -> None:
        """Each is announced when it is written: the rdma process sends it meanwhile."""
        payload = connection.writer.payload
        first, begin = 0, 0  # the first buffer that is not whole yet, and where it begins
        for start, stop in chain([(0, EAGER_BYTES)], further_pieces(total)):
            while first < len(buffers) and begin < stop:
                buffer = buffers[first]
                end = begin + len(buffer)
                since, until = max(begin, start), min(end, stop)
                payload[since:until] = buffer[since - begin : until - begin]
                if end > stop:
                    break
                first, begin = first + 1, end
            self._publish(connection)

    def _publish(self, connection: Connection) -> None:
        if not connection.writer.can_publish():
            self._wait_to_publish(connection)
        connection.writer.publish()

    def _connected(self) -> Connection:
        """Waits for one only if there never was any."""
        deadline = time.monotonic() + self._port.options.send_timeout_s
        while (connection := self._follow()) is None:
            left = deadline - time.monotonic()
            if self._known is LinkState.DOWN or left <= 0:
                raise self._failed("down", LinkDown(f"{self.address}: there is no rdma process"))
            select.select([self._port.pollable], [], [], left)
            self._port.attend()
        return connection

    def _wait_to_begin(self, connection: Connection, total: int, stamp: int) -> None:
        writer, rank = connection.writer, connection.peer.rank
        waited = self._waited(connection)
        while not writer.begin(FRAME, self.rank, rank, total, stamp):
            if not next(waited):
                text = f"{self.address}: the rdma process took nothing"
                raise self._failed("stalled", LinkStalled(text))

    def _wait_to_publish(self, connection: Connection) -> None:
        """In the middle of a frame there is no way back: who takes nothing more is given up."""
        waited = self._waited(connection)
        while not connection.writer.can_publish():
            if not next(waited):
                why = "the rdma process stopped in the middle of a frame"
                self._port.lose("stalled", why)
                raise self._failed("stalled", LinkStalled(f"{self.address}: {why}"))

    def _waited(self, connection: Connection) -> Iterator[bool]:
        """Waits a moment each time; False when the send timeout is over. Hangup."""
        deadline = time.monotonic() + self._port.options.send_timeout_s
        while True:
            select.select([connection.writer.bell], [], [], _SLICE_S)
            if connection.hangs_up():
                raise Hangup("while a frame waited for room")
            yield time.monotonic() < deadline

    def _failed(self, cause: str, error: LinkError) -> LinkError:
        self._stats.count_error(cause, str(error))
        self._follow()
        return error

    def close(self, linger_s: float = 1.0) -> None:
        """What was handed over lies in the region, for as long as the port has it."""
        self._known = LinkState.CLOSED

    def abort(self) -> None:
        """Drops what other senders of this port have handed over as well."""
        if self._known is not LinkState.CLOSED and (connection := self._follow()):
            connection.writer.drop()
            self._port.lose("gone", "a sender was aborted")
        self._known = LinkState.CLOSED

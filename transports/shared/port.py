"""The stage's end: it listens, and takes frames from the rdma process that comes."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from transports.base import LinkState, LinkStats
from transports.errors import FrameError, LinkClosed
from transports.frame import Frame
from transports.limits import FrameLimits
from transports.options import LinkOptions
from transports.shared.connection import Connection
from transports.shared.greeting import HELLO_BYTES, GreetingError, Peer, read_hello
from transports.shared.lanes import Hangup
from transports.shared.latency import Latency
from transports.shared.layout import CAPACITY, EAGER_BYTES
from transports.shared.listening import listen
from transports.shared.message import unpack
from transports.shared.region import RegionDamaged
from transports.shared.sender import SharedSender
from transports.wire import decode

GONE, STALLED, DAMAGED = "gone", "stalled", "damaged"
_DROPS_PER_CALL = 64


@dataclass(frozen=True, slots=True)
class Loss:
    """A connection ended: of which group, a reason for programs (gone, stalled, damaged), and one
    for people.
    """

    group: int
    reason: str
    why: str


class SharedPort:
    """A LinkReceiver for one thread, and the place that senders are had from. One rdma process at a
    time: who says hello takes the place of the one before, unless its group is older.
    """

    def __init__(
        self,
        path: Path,
        limits: FrameLimits,
        watchdog_s: float,
        options: LinkOptions | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        """Listens at `path`; see folder.socket_path. AddressError says why it cannot. A process
        whose loop does not turn for `watchdog_s` is given up. `limits` may be changed at any time.
        """
        self.limits = limits
        self.options = options or LinkOptions()
        self.handover = Latency()
        self._address = f"shared://{path}"
        self._path = path
        self.watchdog_s = watchdog_s
        self._capacity = capacity
        self._stats = LinkStats()
        self._state = LinkState.CONNECTING
        self._losses: deque[Loss] = deque()
        self._greeting: socket.socket | None = None
        self._connection: Connection | None = None
        self._ended: Connection | None = None  # hung up, but what came before is not all taken
        self._listener = listen(path)
        self._poll = selectors.DefaultSelector()
        self._poll.register(self._listener, selectors.EVENT_READ)

    # --- what it is ---

    @property
    def address(self) -> str:
        return self._address

    @property
    def state(self) -> LinkState:
        if self._state is not LinkState.CLOSED:
            self._attend()
        return self._state

    @property
    def stats(self) -> LinkStats:
        return self._stats

    @property
    def pollable(self) -> int:
        """Readable while `receive(0)`, `look` or `state` have something to do; always the same."""
        return self._poll.fileno()

    @property
    def peer(self) -> Peer | None:
        """Who is connected, as of the last look."""
        return self._connection.peer if self._connection else None

    @property
    def connection(self) -> Connection | None:
        """For senders."""
        return self._connection

    def sender(self, rank: int) -> SharedSender:
        """A link to a rank of whatever group is connected."""
        return SharedSender(self, rank)

    # --- what happens ---

    def look(self, now: float) -> Loss | None:
        """Take in what happened, and judge whether the other side still turns: to be called at
        least every quarter of `watchdog_s`. Each loss is told once.
        """
        self.attend()
        if connection := self._connection:
            silent = connection.silent(now, self.watchdog_s / 4)
            if silent >= self.watchdog_s:
                self.lose(STALLED, f"the rdma process did nothing for {silent:.1f} s")
        return self._losses.popleft() if self._losses else None

    def attend(self) -> None:
        """Take in connections, hellos and ends; LinkClosed after close."""
        if self._state is LinkState.CLOSED:
            raise LinkClosed(f"{self._address}: this end is closed")
        self._attend()

    def _attend(self) -> None:
        for key, _ in self._poll.select(0):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._greeting:
                self._hear()
            elif (
                self._connection
                and key.fileobj is self._connection.writer.bell
                and self._connection.hangs_up()
            ):
                self.lose(GONE, "the rdma process has ended")

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it has gone again
        connection.setblocking(False)
        self._end_greeting()
        self._greeting = connection
        self._poll.register(connection, selectors.EVENT_READ)

    def _hear(self) -> None:
        assert self._greeting
        try:
            peer = read_hello(self._greeting.recv(HELLO_BYTES))
            if self._connection and peer.group < self._connection.peer.group:
                raise GreetingError(f"a process of group {peer.group}, which is over")
            fresh = Connection(self._greeting, peer, self._capacity)
        except (OSError, GreetingError) as error:
            self._stats.count_error("handshake", str(error))
        else:
            if self._connection:
                self.lose(GONE, f"process {peer.pid} took the place of the rdma process")
            self._forget()
            self._connection = fresh
            self._state = LinkState.UP
            self._stats.connects += 1
            self._poll.register(fresh.reader.bell, selectors.EVENT_READ)
            self._poll.register(fresh.writer.bell, selectors.EVENT_READ)
        self._end_greeting()

    def _end_greeting(self) -> None:
        if self._greeting:
            self._poll.unregister(self._greeting)
            self._greeting.close()
            self._greeting = None

    def lose(self, reason: str, why: str) -> None:
        """Give the connection up. Of one that is gone, what it had sent is still received."""
        connection, self._connection = self._connection, None
        if not connection:
            return
        self._losses.append(Loss(connection.peer.group, reason, why))
        self._state = LinkState.DOWN
        self._stats.disconnects += 1
        self._poll.unregister(connection.writer.bell)
        connection.writer.bell.close()  # if it is only stopped, it is to know later
        self._ended = connection
        if reason != GONE:
            self._forget()

    def _forget(self) -> None:
        """Nothing more is taken of who has ended."""
        if self._ended:
            self._poll.unregister(self._ended.reader.bell)
            self._ended.close()
            self._ended = None

    # --- frames ---

    def receive(self, timeout_s: float = 0.0) -> Frame | None:
        deadline = time.monotonic() + timeout_s if timeout_s > 0 else 0.0
        while True:
            frame = self._take()
            if frame is not None or not deadline:
                return frame
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._poll.select(left)

    def _take(self) -> Frame | None:
        """The next frame that is whole; None when there is none, or too much that is none."""
        attended = False
        for _ in range(_DROPS_PER_CALL):
            connection = self._connection or self._ended
            whole = self._whole(connection) if connection else None
            if whole is not None:
                frame = self._decode(whole)
                if frame is not None:
                    return frame
            elif attended:
                return None
            else:
                self.attend()
                attended = True
        return None

    def _whole(self, connection: Connection) -> memoryview | None:
        """The next payload that is all there; None when there is none."""
        try:
            whole = connection.next_whole()
        except Hangup:
            self.lose(GONE, "the rdma process has ended")
            self._forget()
            return None
        except RegionDamaged as damage:
            self.lose(DAMAGED, f"the rdma process wrote what cannot be: {damage}")
            self._forget()
            return None
        if whole is None:
            return None
        payload, stamp = whole
        if len(payload) <= EAGER_BYTES:  # what has more pieces was still coming meanwhile
            self.handover.add((time.monotonic_ns() - stamp) / 1e9)
        return payload

    def _decode(self, payload: memoryview) -> Frame | None:
        """The frame, counted; or None for what is dropped, counted too."""
        try:
            parts = unpack(payload, self.limits)
            frame = decode(parts, self.limits)
        except FrameError as error:
            self._stats.count_error(error.cause, str(error))
            return None
        self._stats.frames += 1
        self._stats.bytes += sum(map(len, parts))
        return frame

    # --- the end ---

    def close(self) -> None:
        if self._state is LinkState.CLOSED:
            return
        self.lose(GONE, "this end was closed")
        self._forget()
        self._end_greeting()
        self._state = LinkState.CLOSED
        self._poll.close()
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def abort(self) -> None:
        self.close()

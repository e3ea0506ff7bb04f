"""The stage's end of one connection: a writer down, a reader up, and whether the other is alive."""

from __future__ import annotations

import os
import socket
import weakref
from collections import deque

import numpy as np

from transports.shared.greeting import Peer, send_welcome
from transports.shared.lanes import LaneReader, LaneWriter
from transports.shared.layout import ALIVE, down, up
from transports.shared.region import Region, create

AHEAD = 16 << 20  # bytes that may wait for the rdma process: what a processor keeps in its cache


class _Loan:
    """A message that lies in the region; any thread may end the loan."""

    __slots__ = ("over",)

    def __init__(self, over: bool) -> None:
        self.over = over

    def end(self) -> None:
        self.over = True


class Connection:
    """Made for who has said hello on `greeted`."""

    def __init__(self, greeted: socket.socket, peer: Peer, capacity: int) -> None:
        """OSError when the other is gone."""
        self.peer = peer
        fd = create(capacity)
        down_here, down_there = socket.socketpair()
        up_here, up_there = socket.socketpair()
        try:
            region = Region(fd, capacity)
            send_welcome(greeted, capacity, [fd, down_there.fileno(), up_there.fileno()])
        except OSError:
            down_here.close()
            up_here.close()
            raise
        finally:
            os.close(fd)
            down_there.close()
            up_there.close()
        self.writer = LaneWriter(region, down(capacity), down_here, AHEAD)
        self.reader = LaneReader(region, up(capacity), up_here)
        self._region = region
        self._lent: deque[_Loan] = deque()
        self._alive = region.words[ALIVE]
        self._silent = 0.0
        self._looked: float | None = None

    def next_whole(self) -> tuple[memoryview, int] | None:
        """The next payload that is all there, and when it was handed over; None when there is none.
        A small one is a copy. A large one lies where it is in the region, and frees its place when
        nothing refers to it any more. Hangup, RegionDamaged.
        """
        self._free_lent()
        while piece := self.reader.take():
            head, start, stop, _, memory = piece
            if stop < head.total:
                continue
            if start:
                payload = self._lend(memory)
            else:
                payload = memoryview(bytes(memory))
                if self._lent:
                    self._lent.append(_Loan(over=True))
                else:
                    self.reader.free()
            return payload, head.stamp
        return None

    def _lend(self, memory: memoryview) -> memoryview:
        loan = _Loan(over=False)
        self._lent.append(loan)
        lent = np.frombuffer(memory, np.uint8)
        weakref.finalize(lent, loan.end).atexit = False
        return lent.data

    def _free_lent(self) -> None:
        """In the order in which they came; by this thread, whichever let go of them."""
        lent = self._lent
        while lent and lent[0].over:
            lent.popleft()
            self.reader.free()

    def silent(self, now: float, step: float) -> float:
        """Seconds that the other side's loop has not turned. Between two looks at most `step` of
        them count: this process may have been stopped as well, or busy.
        """
        alive = self._region.words[ALIVE]
        if alive != self._alive or self._looked is None:
            self._silent = 0.0
        else:
            self._silent += min(now - self._looked, step)
        self._alive, self._looked = alive, now
        return self._silent

    def hangs_up(self) -> bool:
        """Whether the lane down was closed at the other end; nothing else ever comes from there."""
        try:
            return not self.writer.bell.recv(1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """What was sent can still be read by the other side, unless it was dropped before."""
        self.writer.bell.close()
        self.reader.bell.close()

"""Trying the way to a neighbour and back, and answering who tries it from there.

Small messages for the round trip, then large ones, of which the first is checked by its checksum
and the others tell the bandwidth. Each is sent alone, waits for its answer, and a large one is
followed by a pause: a frame never waits behind more than one of them, nor does who computes here.
"""

from __future__ import annotations

import os
import queue
import statistics
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mlx.core as mx

from daemon.rdma.line import Kind, Line, Sending
from daemon.rdma.strand import Strand
from daemon.rdma.watch import Operation
from transports.shared.layout import BLOCK_BYTES, HEAD, HEAD_BYTES, MAGIC, Head, further_pieces

LIMIT_SECONDS = 10.0  # of a whole probe
PINGS = 32
PING_BYTES = 4096
BULKS = 5
BULK_BYTES = 4 << 20
PAUSE_SECONDS = 0.04  # before each of these
IDLE_SECONDS = 1.0  # without frames, until the other side may sleep

_NUMBER = 8  # bytes
_WINDOW = 1 << 16


@dataclass(frozen=True, slots=True)
class Finding:
    """`why` is "" when it went well."""

    probe: int
    peer: int
    round_trip_seconds: float
    bytes_per_second: float
    why: str


@dataclass(frozen=True, slots=True)
class _Came:
    rank: int
    head: Head
    payload: bytearray


@dataclass(frozen=True, slots=True)
class _Asked:
    probe: int
    rank: int


class _NoGood(Exception):
    """What a probe found."""


class Prober(threading.Thread):
    def __init__(
        self,
        group: mx.distributed.Group,
        lines: Mapping[int, Line],
        operation: Operation,
        found: Callable[[Finding], None],
    ) -> None:
        """`found` is called in this thread."""
        super().__init__(name="prober", daemon=True)
        self._group = group
        self._lines = lines
        self._operation = operation
        self._found = found
        self._work: queue.SimpleQueue[_Came | _Asked | Line] = queue.SimpleQueue()
        self._later: deque[_Asked] = deque()

    # --- by other threads ---

    def probe(self, number: int, rank: int) -> None:
        self._work.put(_Asked(number, rank))

    def rest(self, line: Line) -> None:
        """Let the other side sleep."""
        self._work.put(line)

    def came(self, rank: int, head: Head, payload: bytearray) -> None:
        """From a neighbour."""
        self._work.put(_Came(rank, head, payload))

    # --- in this one ---

    def run(self) -> None:
        self._strand = Strand(self._group, self._operation)
        while True:
            asked = self._later.popleft() if self._later else self._take(self._work.get())
            if isinstance(asked, _Asked):
                self._found(self._try(asked))

    def _take(self, item: _Came | _Asked | Line) -> _Came | _Asked | None:
        """Do what can be done between two steps of a probe; what is for the probe, or another one,
        is given back.
        """
        if isinstance(item, Line):
            self._say(item, Kind.REST, b"")
        elif isinstance(item, _Asked) or item.head.kind == Kind.PONG:
            return item
        else:
            self._answer(item)
        return None

    def _answer(self, came: _Came) -> None:
        line = self._lines[came.rank]
        if came.head.kind == Kind.PING:
            self._say(line, Kind.PONG, bytes(came.payload))
            return
        number, checksum = bytes(came.payload[:_NUMBER]), 0
        if number == bytes(_NUMBER):  # the one that is checked
            checksum = zlib.crc32(came.payload)
        self._say(line, Kind.PONG, number + checksum.to_bytes(_NUMBER, "little"))

    def _say(self, line: Line, kind: Kind, payload: bytes) -> None:
        self._send(line, kind, _message(line, kind, payload), len(payload))

    def _send(self, line: Line, kind: Kind, message: bytearray, total: int) -> None:
        """`total` is of its payload."""
        view = memoryview(message)
        sending = Sending(line, self._strand, kind)
        rest = list(further_pieces(total))
        sending.put(view[:BLOCK_BYTES], not rest)
        for start, end in rest:
            sending.put(view[HEAD_BYTES + start : HEAD_BYTES + end], end == total)
        sending.close()

    def _try(self, asked: _Asked) -> Finding:
        number, rank = asked.probe, asked.rank
        line = self._lines.get(rank)
        if line is None:
            return Finding(number, rank, 0.0, 0.0, f"rank {rank} is no neighbour in this group")
        if line.one_way(time.monotonic(), IDLE_SECONDS):
            return Finding(number, rank, 0.0, 0.0, "frames pass")
        deadline = time.monotonic() + LIMIT_SECONDS
        try:
            trip = self._ping(line, deadline)
            return Finding(number, rank, trip, self._bulk(line, trip, deadline), "")
        except _NoGood as why:
            return Finding(number, rank, 0.0, 0.0, str(why))

    def _ping(self, line: Line, deadline: float) -> float:
        """Seconds there and back, the median."""
        trips = []
        for _ in range(PINGS):
            payload = os.urandom(PING_BYTES)
            began = time.monotonic()
            self._say(line, Kind.PING, payload)
            if self._answer_of(line, deadline) != payload:
                raise _NoGood(f"what rank {line.rank} sent back is not what it was sent")
            trips.append(time.monotonic() - began)
        return statistics.median(trips)

    def _bulk(self, line: Line, trip: float, deadline: float) -> float:
        """Bytes per second, the median."""
        message = _message(line, Kind.BULK, bytes(_NUMBER) + _noise())
        payload = memoryview(message)[HEAD_BYTES:]
        checksum = zlib.crc32(payload)  # of the first; of the others nothing is computed
        rates = []
        for number in range(BULKS):
            self._let_pass()
            name = number.to_bytes(_NUMBER, "little")
            payload[:_NUMBER] = name
            expected = name + (0 if number else checksum).to_bytes(_NUMBER, "little")
            began = time.monotonic()
            self._send(line, Kind.BULK, message, BULK_BYTES)
            if self._answer_of(line, deadline) != expected:
                raise _NoGood(f"rank {line.rank} has another checksum of {BULK_BYTES} bytes")
            if number:
                rates.append(BULK_BYTES / max(time.monotonic() - began - trip, 1e-9))
        return statistics.median(rates)

    def _answer_of(self, line: Line, deadline: float) -> bytes:
        while pong := self._next_pong(deadline):
            if pong.rank == line.rank:
                return bytes(pong.payload)
        raise _NoGood(f"rank {line.rank} did not answer in {LIMIT_SECONDS:g} s")

    def _let_pass(self) -> None:
        """What waits for the line, or for the core."""
        until = time.monotonic() + PAUSE_SECONDS
        while self._next_pong(until):
            pass  # late ones

    def _next_pong(self, until: float) -> _Came | None:
        """None when none comes until then. Meanwhile others are answered: they may be waiting for
        that.
        """
        while True:
            left = until - time.monotonic()
            try:
                item = self._take(self._work.get(timeout=max(0.0, left)))
            except queue.Empty:
                return None
            if isinstance(item, _Asked):
                self._later.append(item)
            elif item:
                return item


def _message(line: Line, kind: Kind, payload: bytes) -> bytearray:
    message = bytearray(HEAD_BYTES + max(len(payload), BLOCK_BYTES - HEAD_BYTES))
    HEAD.pack_into(message, 0, MAGIC, kind, line.rank, line.me, len(payload), 0, 0)
    message[HEAD_BYTES : HEAD_BYTES + len(payload)] = payload
    return message


def _noise() -> bytes:
    """What a bulk has behind its number: no two pieces of it alike, so that what arrives in another
    order has another checksum. To draw all of it would take longer than to send it.
    """
    drawn = os.urandom(_WINDOW + BULK_BYTES // _WINDOW)
    windows = b"".join(drawn[n : n + _WINDOW] for n in range(BULK_BYTES // _WINDOW))
    return windows[_NUMBER:]

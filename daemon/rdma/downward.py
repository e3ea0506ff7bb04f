"""From the stage to its neighbours: each message as it lies in the region, without a look at it."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Mapping

import mlx.core as mx

from daemon.rdma.counters import Counters
from daemon.rdma.line import MOST_BYTES, Kind, Line, Sending
from daemon.rdma.stage_link import BROKEN, StageLink
from daemon.rdma.strand import Strand
from daemon.rdma.watch import Operation
from transports.shared.lanes import Hangup, Piece
from transports.shared.layout import further_pieces
from transports.shared.stage_end import StageEnd


class Downward(threading.Thread):
    def __init__(
        self,
        group: mx.distributed.Group,
        lines: Mapping[int, Line],
        stage: StageLink,
        operation: Operation,
        counters: Counters,
        pause_s: float,
    ) -> None:
        """`pause_s` is how long a stage may pause in the middle of a message."""
        super().__init__(name="downward", daemon=True)
        self._group = group
        self._lines = lines
        self._stage = stage
        self._operation = operation
        self._counters = counters
        self._pause_s = pause_s

    def run(self) -> None:
        self._strand = Strand(self._group, self._operation)
        while True:
            end = self._stage.reading()
            try:
                while True:
                    self._pass_on(end)
            except BROKEN as why:
                self._stage.lost(end, why)

    def _pass_on(self, end: StageEnd) -> None:
        """One message. Hangup, RegionDamaged."""
        first = end.reader.take(wait=True)
        assert first
        head = first.head
        counters = self._counters
        counters.handover.add((time.monotonic_ns() - head.stamp) / 1e9)
        line = self._lines.get(head.dest)
        if line is None or head.kind != Kind.FRAME or head.total > MOST_BYTES:
            counters.dropped["no neighbour" if line is None else "no frame"] += 1
            for _ in further_pieces(head.total):
                self._next(end)
        else:
            sending = Sending(line, self._strand, Kind.FRAME)
            sending.put(first.block, first.stop == head.total)
            if first.stop < head.total:
                self._pass_rest(end, head.total, sending)
            sending.close()
            counters.frames_out += 1
            counters.bytes_out += head.total
        end.reader.free()

    def _pass_rest(self, end: StageEnd, total: int, sending: Sending) -> None:
        """Whatever happens to the stage, the neighbour waits for all of it: zeros in its place make
        a message that its stage drops (transports/shared/message.py).
        """
        rest = list(further_pieces(total))
        for number, (start, stop) in enumerate(rest):
            try:
                piece = self._next(end)
            except BROKEN:
                for missing, until in rest[number:]:
                    sending.put(memoryview(bytes(until - missing)), until == total)
                sending.close()
                raise
            sending.put(piece.payload[start:stop], stop == total)

    def _next(self, end: StageEnd) -> Piece:
        """The next piece of a message that has begun."""
        if not select.select([end.reader.bell], [], [], self._pause_s)[0]:
            raise Hangup("the stage stopped in the middle of a frame")
        piece = end.reader.take(wait=True)
        assert piece
        return piece

"""From a neighbour to the stage, or to who makes probes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import mlx.core as mx

from daemon.rdma.counters import Counters
from daemon.rdma.line import Kind, Line, receive_block, receive_rest
from daemon.rdma.stage_link import BROKEN, StageLink
from daemon.rdma.strand import Strand
from daemon.rdma.watch import Operation
from transports.shared.layout import EAGER_BYTES, HEAD_BYTES, Head, room
from transports.shared.stage_end import StageEnd


class Inward(threading.Thread):
    def __init__(
        self,
        group: mx.distributed.Group,
        line: Line,
        stage: StageLink,
        operation: Operation,
        counters: Counters,
        probe_came: Callable[[int, Head, bytearray], None],
    ) -> None:
        """`probe_came(rank, head, payload)` takes what is no frame."""
        super().__init__(name=f"inward from {line.rank}", daemon=True)
        self._group = group
        self._line = line
        self._stage = stage
        self._operation = operation
        self._counters = counters
        self._probe_came = probe_came

    def run(self) -> None:
        self._strand = Strand(self._group, self._operation)
        while True:
            block = receive_block(self._line, self._strand)
            head = self._line.check(block)
            first = block[HEAD_BYTES : HEAD_BYTES + min(head.total, EAGER_BYTES)]
            if head.kind == Kind.FRAME:
                self._to_stage(head, first)
            elif head.kind != Kind.REST:
                payload = bytearray(head.total)
                payload[: len(first)] = first
                for start, piece in receive_rest(self._line, self._strand, head.total):
                    payload[start : start + len(piece)] = piece
                self._probe_came(self._line.rank, head, payload)

    def _to_stage(self, head: Head, first: memoryview) -> None:
        """Told when all of it is there: the stage does nothing with less. Also what no stage takes
        is received to its end.
        """
        with self._stage.lock:
            end = self._begun(head)
            if end:
                end.writer.payload[: len(first)] = first
            count = 1
            if head.total > EAGER_BYTES:
                for start, piece in receive_rest(self._line, self._strand, head.total):
                    count += 1
                    if end:
                        end.writer.payload[start : start + len(piece)] = piece
            if end and self._told(end, count):
                self._counters.frames_in += 1
                self._counters.bytes_in += head.total
            else:
                self._counters.dropped["no stage"] += 1

    def _begun(self, head: Head) -> StageEnd | None:
        """The stage's end with room made for the message; None when there is none."""
        end = self._stage.end
        if end is None or room(head.total) > end.writer.capacity:
            return None
        stamp = time.monotonic_ns()
        try:
            while not end.writer.begin(head.kind, head.dest, head.source, head.total, stamp):
                end.wait()
        except BROKEN:
            end.hang_up()  # who reads from it finds that out by this
            return None
        return end

    def _told(self, end: StageEnd, count: int) -> bool:
        try:
            while not end.writer.can_publish(count):
                end.wait()
            end.writer.publish(count)
        except BROKEN:
            end.hang_up()
            return False
        return True

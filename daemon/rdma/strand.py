"""One thread's way into MLX: its stream, and sends and receives, none in a graph with others."""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx

from daemon.rdma.ending import PEER, Ending
from daemon.rdma.watch import Operation


class Strand:
    """To be made in the thread that uses it: an MLX stream belongs to one. What goes wrong ends the
    process: after an error the next receive would hang (reference: the ring back end).
    """

    def __init__(self, group: mx.distributed.Group, operation: Operation) -> None:
        self._group = group
        self._operation = operation
        self._stream = mx.new_stream(mx.cpu)

    def sending(self, data: memoryview, rank: int) -> mx.array:
        """What is sent when it is begun, or finished; the data is copied here."""
        copied = mx.array(cast(Any, data))  # its stubs do not know of buffers
        return mx.distributed.send(copied, rank, group=self._group, stream=self._stream)

    def receiving(self, count: int, rank: int) -> mx.array:
        return mx.distributed.recv((count,), mx.uint8, rank, group=self._group, stream=self._stream)

    def begin(self, array: mx.array) -> None:
        """To be finished later: two of MLX's threads are woken, which takes longer than to wait for
        a small one at once.
        """
        mx.async_eval(array)  # type: ignore[no-untyped-call]

    def finish(self, array: mx.array, what: str) -> None:
        """Wait until it is sent, or received: an operation in the sense of the watchdog."""
        self._operation.begin(what)
        self.wait(array, what)
        self._operation.end()

    def wait(self, array: mx.array, what: str) -> None:
        """As long as it takes."""
        try:
            mx.eval(array)
        except (RuntimeError, ValueError) as error:
            raise Ending(PEER, f"{what}: {error}") from error


def content(array: mx.array) -> memoryview:
    """Of an array that is there; nothing is copied."""
    return memoryview(cast(Any, array))

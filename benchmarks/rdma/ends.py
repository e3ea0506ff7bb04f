"""A process at one end of the way between two stages, or of what it is compared with.

`shared`: a stage's end, with its rdma process at the other side of it. `zmq`: the ZeroMQ link.
`ring`: a rank of a bare group of mx.distributed, which must know the sizes beforehand. All answer
the same requests: `echo` and `ping` send small messages to and fro, `take` and `give` MLX arrays
one way.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import mlx.core as mx
import zmq

from benchmarks.hop import BULK, LIMITS, OPTIONS, decode_frame
from benchmarks.worker import pin_self, serve
from transports.base import LinkReceiver, LinkSender
from transports.factory import open_receiver, open_sender
from transports.frame import Frame
from transports.shared.port import SharedPort

PATIENCE_S = 30.0
ELEMENT_BYTES = 4
DONE = 2  # bytes of the answer to many large arrays


class End(Protocol):
    def send(self, size: int) -> None:
        """A small message."""

    def receive(self, size: int) -> None:
        """The next one."""

    def give(self, array: mx.array) -> None:
        """A large array."""

    def take(self) -> mx.array:
        """An array of the same size as was given."""


class LinkEnd:
    """Over a pair of links."""

    def __init__(self, sender: LinkSender | None, receiver: LinkReceiver) -> None:
        self.sender = sender
        self.receiver = receiver

    def send(self, size: int) -> None:
        self._send(decode_frame(size))

    def receive(self, size: int) -> None:
        _ = self._next()

    def give(self, array: mx.array) -> None:
        data = memoryview(cast(Any, array.view(mx.uint8)))
        self._send(decode_frame(array.nbytes, data=data))

    def take(self) -> mx.array:
        tensor = self._next().tensors[0]
        taken = mx.array(cast(Any, memoryview(tensor.data).cast("f")))
        mx.eval(taken)
        return taken

    def _send(self, frame: Frame) -> None:
        assert self.sender, "it is not connected"
        self.sender.send(frame)

    def _next(self) -> Frame:
        frame = self.receiver.receive(PATIENCE_S)
        assert frame is not None, "nothing came"
        return frame


class RingEnd:
    """A rank of two, without anything of ours."""

    def __init__(self, rank: int, hosts: str) -> None:
        os.environ.update(MLX_HOSTFILE=hosts, MLX_RANK=str(rank))
        self._group = mx.distributed.init(strict=True, backend="ring")
        self._other = 1 - rank
        self._small: dict[int, mx.array] = {}

    def send(self, size: int) -> None:
        array = self._small.setdefault(size, mx.zeros((size,), mx.uint8))
        self.give(array)

    def receive(self, size: int) -> None:
        mx.eval(mx.distributed.recv((size,), mx.uint8, self._other, group=self._group))

    def give(self, array: mx.array) -> None:
        mx.eval(mx.distributed.send(array, self._other, group=self._group))

    def take(self) -> mx.array:
        shape = (BULK // ELEMENT_BYTES,)
        taken = mx.distributed.recv(shape, mx.float32, self._other, group=self._group)
        mx.eval(taken)
        return taken


def requests(end: End) -> dict[str, Callable[..., dict[str, Any]]]:
    bulk = mx.arange(BULK // ELEMENT_BYTES, dtype=mx.float32)
    mx.eval(bulk)

    def echo(size: int, times: int) -> dict[str, Any]:
        for _ in range(times):
            end.receive(size)
            end.send(size)
        return {}

    def ping(size: int, times: int) -> dict[str, Any]:
        taken = []
        for _ in range(times):
            began = time.perf_counter()
            end.send(size)
            end.receive(size)
            taken.append(time.perf_counter() - began)
        return {"us": statistics.median(taken) * 1e6}

    def give(times: int) -> dict[str, Any]:
        began = time.perf_counter()
        for _ in range(times):
            end.give(bulk)
        end.receive(DONE)
        return {"MBps": times * BULK / 1e6 / (time.perf_counter() - began)}

    def take(times: int) -> dict[str, Any]:
        for _ in range(times):
            taken = end.take()
        end.send(DONE)
        assert mx.array_equal(taken, bulk).item()
        return {}

    return {"echo": echo, "ping": ping, "give": give, "take": take, "ready": dict}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int)
    parser.add_argument("--kind", choices=("shared", "zmq", "ring"), required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--where", required=True)
    arguments = parser.parse_args()
    pin_self(arguments.core)
    rank, where = arguments.rank, arguments.where
    if arguments.kind == "ring":
        serve(requests(RingEnd(rank, where)))
    elif arguments.kind == "shared":
        serve_shared(Path(where), rank)
    else:
        serve_zmq()


def serve_shared(path: Path, rank: int) -> None:
    port = SharedPort(path, LIMITS, PATIENCE_S, OPTIONS)
    end = LinkEnd(port.sender(1 - rank), port)

    def ready() -> dict[str, Any]:
        while port.peer is None:
            assert port.receive(0.05) is None
        return {}

    def handover() -> dict[str, Any]:
        return {"us": port.handover.percentile(0.5) * 1e6}

    serve({**requests(end), "ready": ready, "handover": handover})


def serve_zmq() -> None:
    context: zmq.Context[Any] = zmq.Context()
    receiver = open_receiver("tcp://127.0.0.1:0", LIMITS, OPTIONS, context=context)
    end = LinkEnd(None, receiver)

    def connect(address: str) -> dict[str, Any]:
        end.sender = open_sender(address, LIMITS, OPTIONS, context=context)
        return {}

    serve({**requests(end), "connect": connect, "ready": lambda: {"address": receiver.address}})


if __name__ == "__main__":
    main()

"""What one hop costs: real frames over our ZeroMQ link against the same bytes over bare TCP.

Two processes, each on a core of its own where the system can pin them. Both ways of sending take
turns within a round, so that a noisy neighbour meets both; what counts is the median of the rounds'
ratios.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import sys
import time
import timeit
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import zmq

from transports.base import LinkReceiver, LinkSender
from transports.factory import open_receiver, open_sender
from transports.frame import DType, Frame, FrameKind, Span, StageTrace, Tensor
from transports.limits import FrameLimits
from transports.options import LinkOptions
from transports.wire import decode, encode

SIZES = {"4KB": 4 << 10, "8KB": 8 << 10, "40KB": 40 << 10, "1MB": 1 << 20}
BULK = 16 << 20
LIMITS = FrameLimits(max_tensor_bytes=BULK)
OPTIONS = LinkOptions(send_timeout_s=30.0)
_PATIENCE_S = 30.0
_BULK_FRAMES = 6


def measure(rounds: int) -> dict[str, float]:
    """Round trips in microseconds (p50) and one-way MB/s, ours and TCP's, and the ratios;
    the codec alone, encode + decode.

    Ratios are ours / TCP: for round trips 1.0 is as fast as TCP and 2.0 twice as slow; for MB/s
    above 1 is faster.
    """
    with _Peer(_link_peer) as link_peer, _Peer(_tcp_peer) as tcp_peer:
        before = _pin(0)
        link, tcp = _Link(link_peer.pipe), _Tcp(tcp_peer.pipe)
        try:
            return _measure(rounds, link, tcp)
        finally:
            link.close()
            tcp.close()
            _pin_to(before)


def _measure(rounds: int, link: _Link, tcp: _Tcp) -> dict[str, float]:
    results = {f"codec_{n}_spans_us": _codec(n) for n in (1, 64)}
    for name, size in SIZES.items():
        times = 60 if size >= 1 << 20 else 300
        frame = decode_frame(size)
        both = _rounds(rounds, partial(link.p50, frame, times), partial(tcp.p50, size, times))
        results |= _summary(f"rtt_{name}", "us", both)
    bulk = decode_frame(BULK)
    both = _rounds(rounds, partial(link.rate, bulk), partial(tcp.rate, BULK))
    return results | _summary("one_way_16MB", "MBps", both)


def _rounds(
    rounds: int, ours: Callable[[], float], theirs: Callable[[], float]
) -> list[tuple[float, float]]:
    ours()  # the first run pays for connections, buffers and imports
    theirs()
    return [(ours(), theirs()) for _ in range(rounds)]


def _summary(name: str, unit: str, both: list[tuple[float, float]]) -> dict[str, float]:
    return {
        f"{name}_link_{unit}": statistics.median(a for a, _ in both),
        f"{name}_tcp_{unit}": statistics.median(b for _, b in both),
        f"{name}_ratio": statistics.median(a / b for a, b in both),
    }


def decode_frame(size: int, spans: int = 1, data: Any = None) -> Frame:
    """A decode frame, past its first stage, with hidden states of that size in all."""
    return Frame(
        FrameKind.WORK,
        term=1,
        epoch=1,
        microbatch=1,
        spans=(Span(b"s" * 16, 1, 100, 1, 12345, 1),) * spans,
        tokens=(17,) * spans,
        traces=(StageTrace(0, 1.0, 1.001, 1.01, 1.011),),
        tensors=(Tensor(DType.BFLOAT16, (spans, size // spans // 2), data or bytearray(size)),),
    )


def _codec(spans: int) -> float:
    """Microseconds to encode and decode a decode frame of so many sequences; the best of five."""
    frame = decode_frame(8192 * spans, spans)

    def both() -> None:
        decode(encode(frame, LIMITS), LIMITS)

    return min(timeit.repeat(both, number=500, repeat=5)) / 500 * 1e6


class _Link:
    """The measuring end of two links, there and back."""

    def __init__(self, pipe: Connection) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.back: LinkReceiver = open_receiver(
            "tcp://127.0.0.1:0", LIMITS, OPTIONS, context=self.context
        )
        pipe.send(self.back.address)
        self.there: LinkSender = open_sender(pipe.recv(), LIMITS, OPTIONS, context=self.context)

    def p50(self, frame: Frame, times: int) -> float:
        taken = []
        for _ in range(times):
            start = time.perf_counter()
            self.there.send(frame)
            assert self.back.receive(_PATIENCE_S) is not None
            taken.append(time.perf_counter() - start)
        return statistics.median(taken) * 1e6

    def rate(self, frame: Frame) -> float:
        start = time.perf_counter()
        for _ in range(_BULK_FRAMES):
            self.there.send(frame)
        self.there.send(Frame(FrameKind.WORK, 1, 1, 1))  # comes back behind all the others
        assert self.back.receive(_PATIENCE_S) is not None
        return _BULK_FRAMES * BULK / 1e6 / (time.perf_counter() - start)

    def close(self) -> None:
        self.there.abort()
        self.back.abort()
        self.context.term()


def _link_peer(pipe: Connection) -> None:
    """Send every frame back, decoded and encoded anew as a stage does; bulk ones are only taken."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    receiver = open_receiver("tcp://127.0.0.1:0", LIMITS, OPTIONS, context=context)
    sender = open_sender(pipe.recv(), LIMITS, OPTIONS, context=context)
    pipe.send(receiver.address)
    while True:
        frame = receiver.receive(_PATIENCE_S)
        if frame is not None and not (frame.tensors and frame.tensors[0].nbytes == BULK):
            sender.send(frame)


class _Tcp:
    """The measuring end of a bare TCP connection. Sizes are known beforehand: no frames at all."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.socket = socket.create_connection(("127.0.0.1", pipe.recv()))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(BULK)

    def p50(self, size: int, times: int) -> float:
        self.pipe.send((size, times, True))
        assert self.pipe.recv()
        payload = bytes(size)
        taken = []
        for _ in range(times):
            start = time.perf_counter()
            self.socket.sendall(payload)
            _fill(self.socket, self.buffer, size)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken) * 1e6

    def rate(self, size: int) -> float:
        self.pipe.send((size, _BULK_FRAMES, False))
        assert self.pipe.recv()
        payload = bytes(size)
        start = time.perf_counter()
        for _ in range(_BULK_FRAMES):
            self.socket.sendall(payload)
        _fill(self.socket, self.buffer, 1)
        return _BULK_FRAMES * size / 1e6 / (time.perf_counter() - start)

    def close(self) -> None:
        self.socket.close()


def _tcp_peer(pipe: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        pipe.send(server.getsockname()[1])
        connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(BULK)
    view = memoryview(buffer)
    while True:
        size, times, echo = pipe.recv()
        pipe.send(True)
        for _ in range(times):
            _fill(connection, buffer, size)
            if echo:
                connection.sendall(view[:size])
        if not echo:
            connection.sendall(b"\0")


def _fill(connection: socket.socket, buffer: bytearray, size: int) -> None:
    view = memoryview(buffer)[:size]
    done = 0
    while done < size:
        got = connection.recv_into(view[done:])
        assert got, "the peer hung up"
        done += got


class _Peer:
    """The process at the other end, until the block ends."""

    def __init__(self, main: Callable[[Connection], None]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_pinned, args=(main, theirs), daemon=True)
        self.process.start()

    def __enter__(self) -> _Peer:
        return self

    def __exit__(self, *reason: object) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _pinned(main: Callable[[Connection], None], pipe: Connection) -> None:
    _pin(1)
    main(pipe)


def _pin(side: int) -> set[int]:
    """Keep this thread, and those it starts, on one core; where it was allowed before."""
    before = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    _pin_to(set(sorted(before)[side % max(len(before), 1) :][:1]))
    return before


def _pin_to(cores: set[int]) -> None:
    if sys.platform == "linux" and cores:  # macOS does not offer it
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    for key, value in measure(5).items():
        print(f"{key:28} {value:10.2f}")

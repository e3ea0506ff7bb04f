"""Programs that are no part of the cluster, talking to its sockets."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Sequence

import psutil
import zmq

from daemon.ring import MAX_CHUNK_TOKENS, WIDEST_ELEMENT
from transports.frame import Frame, FrameKind, Span
from transports.limits import FrameLimits
from transports.wire import encode

HTTP = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
TLS_HELLO = bytes.fromhex(
    "16030100c8010000c40303" + "5a" * 32 + "20" + "a5" * 32 + "0008130213031301" + "00ff0100"
) + bytes(96)
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)  # ZMTP 3.0
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x04"
ENORMOUS = b"\x02" + b"\x7f" + b"\xff" * 7  # a frame that says it has 2**63 - 1 bytes


def listening(pid: int) -> list[str]:
    """Addresses that a process listens on."""
    connections = psutil.Process(pid).net_connections("tcp")
    found = [c.laddr for c in connections if c.status == psutil.CONN_LISTEN]
    return [f"tcp://127.0.0.1:{address.port}" for address in found]


def raw(address: str, seed: int) -> None:
    """TCP clients that do not speak ZeroMQ, or stop in the middle of it."""
    chance = random.Random(seed)
    port = int(address.rpartition(":")[2])
    for data in (
        b"",
        b"\x00",
        chance.randbytes(10),
        chance.randbytes(4000),
        HTTP,
        TLS_HELLO,
        b"SSH-2.0-OpenSSH_9.9\r\n",
        GREETING[:11],
        GREETING,
        GREETING + chance.randbytes(200),
        GREETING + READY + b"PUSH" + ENORMOUS + bytes(1000),
        GREETING + READY + b"DEALER"[:4] + ENORMOUS,
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)


def messages(address: str, kind: int, contents: Sequence[Sequence[bytes]]) -> None:
    """Well-formed ZeroMQ messages; an oversized one costs its connection, so each has its own."""
    context = zmq.Context()
    try:
        for parts in contents:
            client = context.socket(kind)
            client.setsockopt(zmq.LINGER, 5000)
            client.setsockopt(zmq.SNDTIMEO, 10000)
            client.connect(address)
            client.send_multipart(parts)
            client.close()
    finally:
        context.term()


def nonsense(seed: int) -> Iterator[list[bytes]]:
    """Messages that mean nothing to anybody."""
    chance = random.Random(seed)
    yield [b""]
    yield [b"\xc1"]
    yield [b"SBUS"]
    yield [b"\xdf\xff\xff\xff\xff" + bytes(20)]  # msgpack: a map of 2**32 - 1 pairs
    yield [b"\x91" * 3000]  # msgpack: lists in lists
    for count in (1, 2, 5, 40):
        yield [chance.randbytes(chance.randrange(200)) for _ in range(count)]


def frame(term: int, epoch: int, sequence: bytes = b"stranger" * 2) -> Frame:
    span = Span(sequence, 1, 0, 4, 0, 1)
    return Frame(FrameKind.WORK, term, epoch, 7, (span,), (1, 2, 3, 4), {sequence: {}})


def parts_of(made: Frame) -> list[bytes]:
    return [bytes(part) for part in encode(made)]


def broken_frames(term: int, epoch: int, seed: int) -> Iterator[list[bytes]]:
    """Frames of the right layout with one thing wrong, and well-formed ones of others."""
    chance = random.Random(seed)
    head = parts_of(frame(term, epoch))[0]
    for _ in range(12):
        damaged = bytearray(head)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        yield [bytes(damaged)]
    yield [head[:-1]]
    yield [head[: len(head) // 2]]
    yield [head + b"\0"]
    yield [head, b"a payload that the header does not know"]
    yield [head, *[b"x"] * 500]
    yield parts_of(frame(0, 0))
    yield parts_of(frame(term - 1, epoch + 5))
    yield parts_of(frame(term, epoch - 1))
    yield parts_of(frame(term + 1000, 1))


def oversized(hidden: int, vocabulary: int) -> list[bytes]:
    return [
        bytes(
            FrameLimits.for_model(
                hidden * WIDEST_ELEMENT, MAX_CHUNK_TOKENS, vocabulary
            ).max_part_bytes
            + 1
        )
    ]

"""The control plane's messages on the wire."""

from __future__ import annotations

import random
from dataclasses import replace

import msgpack
import pytest

from daemon import messages as msg


def loaded(footprints: list[list[int]], codecs: dict[str, list[float]] | None = None) -> msg.Loaded:
    held, speed = ("d", 0, 4, "tcp://a:1", 100, 9, 0.1), ([[1.0, 0.1]], 0.1, 0.0, True, "spans")
    return msg.Loaded("a", "i", *held, *speed, 1 << 31, 1 << 30, footprints, None, codecs or {})


COUNTS = (1, 2, 3, 4, 0.5, False, 0, 0, 1, 2, 1, 5, 3, {"stale": 1})
BEAT = msg.Heartbeat("a", "i", 9, 1.5, 1, "d", 0, 4, *COUNTS, "up", "rdma", 7)
TAKEN = msg.PathTaken("a", "i", 2, 3, "zmq", "no RDMA here")
LOST = msg.PathLost("a", "i", 2, 1, True, "gone", "it ended")

OFFER = msg.RdmaOffer(
    *("a", "i", "boot", ["jaccl"], "10.0.0.1:7000", ["rdma_en5"], ["rdma_en2"], 2, ""),
    *(7, "jaccl", 1, 3, 4711, 6, "signal", "signal SIGSEGV"),
)

SAMPLES: list[msg.Message] = [
    msg.Welcome(3, "home"),
    msg.Load(1, "m", "/m", "d", 0, 4),
    msg.Revoke(1, b"\x01" * 16, 2),
    msg.Assign(1, 2, 0, "tcp://b:1", 512, 0, 4),
    msg.Prepare(1, 2, "m", "/m", "d", 0, 4, False),
    msg.Prepared("a", "i", 1, 2, 0, 4, "tcp://a:1", "tcp://a:2", 0.5, "", ""),
    msg.Give(1, 2, [{"address": "tcp://b:1", "start": 0, "end": 4}]),
    msg.Giving("a", "i", 1, 2, 100, 7, ""),
    msg.Switch(1, 2, 7, 1, "tcp://c:1", 512, 2, True),
    msg.Settle(1, 2),
    msg.Request(1, 7, "generate", {"prompt": "é", "sampling": {"seed": 2**64 - 1}}),
    msg.Chunk(7, {"tokens": [1, 2], "logprobs": None}),
    msg.LogsReport(1, "a", ["one", "two"]),
    msg.PortsQuery(2, True, "salt"),
    msg.PortsReport(2, "a", {"system": "Darwin", "ports": []}, {"rdma_ctl": "enabled"}),
    loaded([[0, 8, 0], [4, 1, 9]], {"fp8": [1e-4, 1e-5], "int8": [1e-4, 0.0]}),
    msg.DraftHello(1, "0", "a", "n", "i", 9, "small", "d", 1024, "v", None, 3),
    msg.DraftBeat("a", "i", 0.002, 1),
    msg.Propose(1, b"\x01" * 16, 3, (1 << 61) - 2, [5], 8, {"sampling": {"seed": 2**64 - 1}}),
    msg.Proposed("a", "i", b"\x01" * 16, 4, 77, [1, 2]),
    msg.DraftLags("a", "i", b"\x01" * 16, 0),
    BEAT,
    OFFER,
    msg.RdmaStart(1, 7, "jaccl", 0, ["a:1", "b:2"], [[[], ["rdma_en5"]], [["rdma_en2"], []]]),
    msg.RdmaStop(1, 7, "b is lost"),
    msg.RdmaJoined("a", "i", 7, 0, [1], 4711, 0.5),
    msg.RdmaProbe(1, 7, 3, 1),
    msg.RdmaProbed("a", "i", 7, 3, 1, 4e-5, 4e9, ""),
    msg.RdmaBeat("a", "i", 7, 0, True, 9, 900, 8, 800, {"no stage": 1}, 4e-5, 9e-5),
    msg.TakePath(1, 2, 3, "rdma", 1, 2),
    TAKEN,
    LOST,
]


@pytest.mark.parametrize("message", SAMPLES, ids=lambda m: type(m).__name__)
def test_round_trip(message: msg.Message) -> None:
    assert msg.decode(msg.encode(message)) == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        msgpack.packb([1, 2]),
        msgpack.packb({"type": "Welcome", "term": 1}),
        msgpack.packb({"type": "Welcome", "term": "1", "cluster": "x"}),
        msgpack.packb({"type": "Welcome", "term": True, "cluster": "x"}),
        msgpack.packb({"type": "Welcome", "term": 1, "cluster": "x", "more": 1}),
        msgpack.packb({"type": "Welcome", "term": -1, "cluster": "x"}),
        msgpack.packb({"type": "Welcome", "term": 2**64 - 1, "cluster": "x"}),
        msgpack.packb({"type": "HeartbeatAck", "clock": float("nan"), "coordinator_clock": 0.0}),
        msgpack.packb(
            {
                "type": "Load",
                "term": 1,
                "model": "m",
                "folder": "/",
                "digest": "d",
                "start": 5,
                "end": 2,
            }
        ),
        msg.encode(loaded([[8, 1, 2]])),  # exact KV is always possible
        msg.encode(loaded([[0, 1, 2], [8, 1]])),
        msg.encode(loaded([[0, 8, 0]], {"raw": [0.0, 0.0]})),
        msg.encode(loaded([[0, 8, 0]], {"fp8": [0.0]})),
        msg.encode(loaded([[0, 8, 0]], {"fp8": [0.0, -1.0]})),
        msg.encode(msg.Propose(1, b"s", 3, 0, [1, 2], 4, {})),
        msg.encode(msg.Proposed("a", "i", b"s", 4, 0, [])),
        msg.encode(replace(BEAT, path="tcp")),
        msg.encode(replace(TAKEN, path="")),
        msg.encode(replace(LOST, reason="tired")),
        msgpack.packb({"type": "Nothing"}),
        msgpack.packb({"type": ["Welcome"]}),
        msgpack.packb({"type": "LogsReport", "query": 1, "node": "a", "lines": [1]}),
        msgpack.packb({"type": "Chunk", "request": 1, "data": {1: 2}}),
        msgpack.packb({"type": "Chunk", "request": 1, "data": {"x": msgpack.ExtType(4, b"")}}),
    ],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(msg.MessageError):
        msg.decode(body)


def test_damaged_bytes_raise_nothing_else() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        data = bytearray(msg.encode(rng.choice(SAMPLES)))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            msg.decode(bytes(data[: rng.randint(0, len(data))]))
        except msg.MessageError:
            continue

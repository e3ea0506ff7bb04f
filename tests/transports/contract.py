"""The contract of a link as checks. Each takes a place to open links in; all hold everywhere."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from tests.shared.pump import Pump
from transports.base import LinkReceiver, LinkSender, LinkState, LinkStats
from transports.errors import AddressError, EncodeError, LinkClosed, LinkDown, LinkStalled
from transports.factory import open_receiver, open_sender
from transports.frame import (
    Departure,
    DType,
    Fork,
    Frame,
    FrameKind,
    Reason,
    Release,
    Span,
    StageTrace,
    Tensor,
)
from transports.limits import FrameLimits
from transports.network import MemoryNetwork
from transports.options import LinkOptions
from transports.shared.port import SharedPort
from transports.wire import encode

LIMITS = FrameLimits(max_tensor_bytes=16 << 20, max_tokens=1024, max_spans=64)
OPTIONS = LinkOptions(send_timeout_s=2.0, reconnect_s=0.01, reconnect_max_s=0.05)
PATIENCE_S = 10.0
SHARED_BYTES = 20 << 20  # of a lane: a frame of 16 MB and a little


class SharedPair:
    """A LinkSender over shared memory as the contract wants one: its own port, and a group that
    carries its frames to the receiver's. Its state takes in what happens at both ends, each in this
    thread: a port has no thread of its own to do it.
    """

    def __init__(
        self, place: Place, address: str, options: LinkOptions, limits: FrameLimits
    ) -> None:
        path = place.folder / "s" / f"{next(place.numbers)}.sock"
        self._place = place
        self._patience = options.send_timeout_s
        self._port = SharedPort(path, limits, PATIENCE_S, options, SHARED_BYTES)
        self._sender = self._port.sender(1)
        self.pump = Pump([path, Path(address.removeprefix("shared://"))])

    @property
    def address(self) -> str:
        return self._sender.address

    @property
    def stats(self) -> LinkStats:
        return self._sender.stats

    @property
    def pollable(self) -> Any:
        return self._sender.pollable

    @property
    def state(self) -> LinkState:
        for end in self._place.ends:
            if isinstance(end, SharedPort):
                _ = end.state
        return self._sender.state

    def send(self, frame: Frame) -> None:
        waited_until = time.monotonic() + self._patience
        while self.state is LinkState.CONNECTING and time.monotonic() < waited_until:
            time.sleep(0.002)
        self._sender.send(frame)

    def close(self, linger_s: float = 1.0) -> None:
        self._sender.close(linger_s)
        self._port.close()

    def abort(self) -> None:
        self._sender.abort()
        self._port.close()
        self.pump.stop()


@dataclass
class Place:
    """Opens links of one kind and closes them all at the end."""

    scheme: str
    folder: Path
    context: zmq.Context[Any] = field(default_factory=zmq.Context)
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    ends: list[Any] = field(default_factory=list)
    foreign: list[zmq.Socket[Any]] = field(default_factory=list)
    numbers: Any = field(default_factory=count)

    def fresh_address(self) -> str:
        number = next(self.numbers)
        return {
            "tcp": "tcp://127.0.0.1:0",
            "ipc": f"ipc://{self.folder}/{number}",
            "memory": f"memory://link-{number}",
            "shared": f"shared://{self.folder}/r/{number}.sock",
        }[self.scheme]

    def receiver(self, address: str = "", limits: FrameLimits = LIMITS) -> LinkReceiver:
        if self.scheme == "shared":
            path = Path((address or self.fresh_address()).removeprefix("shared://"))
            port = SharedPort(path, limits, PATIENCE_S, OPTIONS, SHARED_BYTES)
            self.ends.append(port)
            return port
        made = open_receiver(
            address or self.fresh_address(),
            limits,
            OPTIONS,
            context=self.context,
            network=self.network,
        )
        self.ends.append(made)
        return made

    def sender(
        self, address: str, options: LinkOptions = OPTIONS, limits: FrameLimits = LIMITS
    ) -> LinkSender:
        made: LinkSender
        if self.scheme == "shared":
            made = SharedPair(self, address, options, limits)
        else:
            made = open_sender(address, limits, options, context=self.context, network=self.network)
        self.ends.append(made)
        return made

    def pair(self, timeout_s: float = 2.0) -> tuple[LinkSender, LinkReceiver]:
        receiver = self.receiver()
        sender = self.sender(receiver.address, replace(OPTIONS, send_timeout_s=timeout_s))
        eventually(lambda: sender.state is LinkState.UP)
        return sender, receiver

    def inject(self, receiver: LinkReceiver, messages: list[list[bytes]]) -> None:
        """Have a program that is not ours send these messages."""
        if self.scheme == "memory":
            for parts in messages:
                self.network.inject(receiver.address.removeprefix("memory://"), list(parts))
            return
        if self.scheme == "shared":
            pump = next(end.pump for end in self.ends if isinstance(end, SharedPair))
            for parts in messages:
                pump.inject(1, parts)
            return
        foreign = self.context.socket(zmq.PUSH)
        self.foreign.append(foreign)
        foreign.connect(receiver.address)
        for parts in messages:
            foreign.send_multipart(parts)

    def close(self) -> None:
        for end in self.ends:
            end.abort()
        for foreign in self.foreign:
            foreign.close(linger=0)
        self.network.check_integrity()
        self.context.term()


def eventually(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait until the condition holds; fail when it does not within the deadline."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.002)


def raised(kind: type[Exception], call: Callable[[], object]) -> float:
    """Seconds until the call raised this."""
    start = time.monotonic()
    try:
        call()
    except kind:
        return time.monotonic() - start
    raise AssertionError(f"did not raise {kind.__name__}")


def work(number: int = 0, payload: Any = b"") -> Frame:
    """A decode frame whose microbatch is `number`."""
    size = memoryview(payload).nbytes
    return Frame(
        FrameKind.WORK,
        term=1,
        epoch=2,
        microbatch=number,
        spans=(Span(b"s" * 16, 1, 7, 1, 99, 1),),
        tokens=(5,),
        tensors=(Tensor(DType.UINT8, (1, size), payload),) if size else (),
    )


def full_frame() -> Frame:
    """A frame with something in every field."""
    a, b = b"a" * 16, b"b" * 16
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    return Frame(
        kind=FrameKind.WORK,
        term=2**64 - 1,
        epoch=3,
        microbatch=2**63,
        spans=(Span(a, 2**32 - 1, 100, 2, (1 << 61) - 2, 1), Span(b, 1, 0, 1, 0)),
        tokens=(0, 2**31 - 1, 7),
        constants={a: {"temperature": 0.7, "seed": 5, "codec": "raw", "stop": [1, 2]}},
        commands=(Release(b"c" * 16, 8), Fork(b"d" * 16, b"f" * 16, 9, 12)),
        departures=(Departure(b"e" * 16, 4, 2, Reason.MISSING, 17),),
        traces=(StageTrace(0, 0.25, 0.5, 0.75, 1.0), StageTrace(1, 1.5, 2.0, 3.0, 4.0)),
        logprobs={b: [[-0.5, [[3, -0.5], [4, -1.5]]]]},
        tensors=(Tensor(DType.FLOAT32, (3, 4), rows), Tensor(DType.BFLOAT16, (3, 0, 2), b"")),
    )


def plain(frame: Frame) -> Frame:
    """The same with the tensors' data as bytes, so that frames can be compared."""
    tensors = tuple(replace(t, data=bytes(memoryview(t.data))) for t in frame.tensors)
    return replace(frame, tensors=tensors)


def take(receiver: LinkReceiver) -> Frame:
    frame = receiver.receive(PATIENCE_S)
    assert frame is not None, f"nothing arrived; {receiver.stats}"
    return frame


def fill(sender: LinkSender, make: Callable[[int], Any]) -> int:
    """Send numbered frames until the link is full; how many it took.

    Full is what refuses a frame twice in a row: on a busy machine the first time may only be slow.
    """
    taken = refused = 0
    while refused < 2:
        try:
            sender.send(work(taken, make(taken)))
        except LinkStalled:
            refused += 1
        else:
            taken += 1
            refused = 0
        assert taken < 1000, "the link takes everything"
    return taken


def megabyte(number: int) -> bytes:
    return bytes(1 << 20)


def check_every_field_arrives(place: Place) -> None:
    sender, receiver = place.pair()
    sender.send(full_frame())
    assert plain(take(receiver)) == plain(full_frame())


def check_order(place: Place) -> None:
    sender, receiver = place.pair()
    payload = os.urandom(3000)

    def send_all() -> None:
        for number in range(300):
            sender.send(work(number, payload))

    thread = threading.Thread(target=send_all)
    thread.start()
    arrived = [take(receiver).microbatch for _ in range(300)]
    thread.join()
    assert arrived == list(range(300))
    assert receiver.receive() is None


def check_empty_and_large(place: Place) -> None:
    sender, receiver = place.pair()
    empty = Frame(FrameKind.RESULT, 0, 0, 0)
    sender.send(empty)
    assert take(receiver) == empty
    payload = np.random.default_rng(0).integers(0, 256, 16 << 20, dtype=np.uint8)
    sender.send(work(1, payload))
    assert take(receiver).tensors[0].data == memoryview(payload)


def check_receive_waits_as_long_as_told(place: Place) -> None:
    receiver = place.receiver()
    assert receiver.receive() is None
    start = time.monotonic()
    assert receiver.receive(0.05) is None
    assert 0.05 <= time.monotonic() - start < 1.0


def check_back_pressure(place: Place) -> None:
    sender, receiver = place.pair(timeout_s=0.2)
    taken = fill(sender, megabyte)
    assert 0 < taken < 64, "the queue is too long"
    assert 0.15 < raised(LinkStalled, lambda: sender.send(work(0, bytes(1 << 20)))) < 1.0
    assert sender.state is LinkState.UP
    assert sender.stats.errors["stalled"] >= 3
    assert [take(receiver).microbatch for _ in range(taken)] == list(range(taken))
    sender.send(work(taken))
    assert take(receiver).microbatch == taken


def check_close_flushes(place: Place) -> None:
    sender, receiver = place.pair()
    for number in range(3):
        sender.send(work(number, bytes(2 << 20)))
    sender.close(linger_s=PATIENCE_S)
    assert [take(receiver).microbatch for _ in range(3)] == [0, 1, 2]


def check_abort_drops(place: Place) -> None:
    sender, receiver = place.pair(timeout_s=0.1)
    taken = fill(sender, megabyte)
    sender.abort()
    arrived = 0
    while receiver.receive(0.5) is not None:
        arrived += 1
    assert arrived < taken


def check_closed_ends_say_so(place: Place) -> None:
    sender, receiver = place.pair()
    for _ in range(2):
        sender.close()
        sender.abort()
        receiver.close()
        receiver.abort()
    assert sender.state is receiver.state is LinkState.CLOSED
    raised(LinkClosed, lambda: sender.send(work()))
    raised(LinkClosed, receiver.receive)


def check_never_connected(place: Place) -> None:
    receiver = place.receiver()
    receiver.close()
    sender = place.sender(receiver.address, replace(OPTIONS, send_timeout_s=0.1))
    assert sender.state is LinkState.CONNECTING
    assert 0.05 < raised(LinkDown, lambda: sender.send(work())) < 1.0
    assert sender.stats.errors["down"] == 1


def check_peer_gone(place: Place) -> None:
    sender, receiver = place.pair(timeout_s=5.0)
    receiver.close()
    eventually(lambda: sender.state is LinkState.DOWN)
    assert raised(LinkDown, lambda: sender.send(work())) < 1.0
    assert sender.stats.disconnects == 1


def check_peer_goes_while_a_send_waits(place: Place) -> None:
    sender, receiver = place.pair(timeout_s=0.1)
    fill(sender, megabyte)
    sender.abort()
    patient = place.sender(receiver.address, replace(OPTIONS, send_timeout_s=30.0))
    eventually(lambda: patient.state is LinkState.UP)
    closer = threading.Timer(0.2, receiver.close)
    closer.start()
    assert raised(LinkDown, lambda: fill(patient, megabyte)) < 5.0
    closer.join()


def check_reborn_receiver(place: Place) -> None:
    sender, receiver = place.pair()
    sender.send(work(1))
    take(receiver)
    for life in range(2, 5):
        receiver.close()
        eventually(lambda: sender.state is LinkState.DOWN)
        receiver = place.receiver(receiver.address)
        eventually(lambda: sender.state is LinkState.UP)
        sender.send(work(life))
        assert take(receiver).microbatch == life


def check_receiver_sees_senders_come_and_go(place: Place) -> None:
    sender, receiver = place.pair()
    eventually(lambda: receiver.state is LinkState.UP)
    sender.close()
    eventually(lambda: receiver.state is LinkState.DOWN)
    place.sender(receiver.address)
    eventually(lambda: receiver.state is LinkState.UP)
    assert (receiver.stats.connects, receiver.stats.disconnects) == (2, 1)


def check_address_is_free_after_close(place: Place) -> None:
    receiver = place.receiver()
    for _ in range(30):
        receiver.close()
        receiver = place.receiver(receiver.address)


def check_address_taken(place: Place) -> None:
    receiver = place.receiver()
    raised(AddressError, lambda: place.receiver(receiver.address))
    sender = place.sender(receiver.address)
    sender.send(work(3))
    assert take(receiver).microbatch == 3, "the first owner lost its address"


def check_garbage(place: Place) -> None:
    sender, receiver = place.pair()
    good = [bytes(p) for p in encode(work(1, bytes(100)))]
    flipped = bytearray(good[0])
    flipped[70] ^= 4
    messages = {
        "foreign": [b"GET / HTTP/1.1\r\n\r\n"],
        "length": [good[0][:-5], good[1]],
        "parts": [good[0]],
        "checksum": [bytes(flipped), good[1]],
        "tensor": [good[0], good[1][:-1]],
        "version": [good[0][:4] + b"\x09\x00" + good[0][6:]],
        "limit": [bytes(p) for p in encode(replace(work(), commands=(Release(b"x" * 16),) * 1025))],
    }
    surplus = [*good, *([b"more"] * 500)]
    place.inject(receiver, [*messages.values(), [b""], surplus])
    sender.send(work(2))
    assert take(receiver).microbatch == 2
    expected = {**dict.fromkeys(messages, 1), "foreign": 2, "parts": 2}
    eventually(lambda: receiver.receive() or dict(receiver.stats.errors) == expected)
    assert receiver.stats.dropped == 9
    assert receiver.stats.last_error
    sender.send(work(3))
    assert take(receiver).microbatch == 3
    assert receiver.stats.frames == 2


def check_sender_keeps_the_limits(place: Place) -> None:
    sender, receiver = place.pair()
    raised(EncodeError, lambda: sender.send(work(1, bytes((16 << 20) + 1))))
    assert sender.stats.errors["encode"] == 1
    sender.send(work(2))
    assert take(receiver).microbatch == 2


def check_no_copy(place: Place) -> None:
    """What the sender changes after sending, too late by contract, arrives: nothing was copied."""
    sender, receiver = place.pair(timeout_s=0.1)
    buffers: dict[int, np.ndarray[Any, Any]] = {}

    def make(number: int) -> np.ndarray[Any, Any]:
        buffers[number] = np.zeros(1 << 20, np.uint8)
        return buffers[number]

    taken = fill(sender, make)
    buffers[taken - 1][:] = 7
    frames = [take(receiver) for _ in range(taken)]
    assert frames[0].tensors[0].data[0] == 0
    assert frames[-1].tensors[0].data[0] == 7


def check_buffers_live_until_sent(place: Place) -> None:
    """Nobody but the link holds on to them."""
    sender, receiver = place.pair(timeout_s=0.1)
    taken = fill(sender, lambda number: np.full(1 << 20, number % 251, np.uint8))
    gc.collect()
    for number in range(taken):
        data = np.frombuffer(take(receiver).tensors[0].data, np.uint8)
        assert data.min() == data.max() == number % 251


def check_stats(place: Place) -> None:
    sender, receiver = place.pair()
    for number in range(5):
        sender.send(work(number, bytes(1000)))
        take(receiver)
    assert sender.stats.frames == receiver.stats.frames == 5
    assert sender.stats.bytes == receiver.stats.bytes > 5000
    assert sender.state is receiver.state is LinkState.UP
    assert sender.stats.connects == receiver.stats.connects == 1
    assert not sender.stats.errors
    assert not receiver.stats.errors


def check_pollable(place: Place) -> None:
    sender, receiver = place.pair()
    poller = zmq.Poller()
    poller.register(receiver.pollable, zmq.POLLIN)
    assert not poller.poll(0)
    sender.send(work(1))
    assert poller.poll(PATIENCE_S * 1000)
    take(receiver)
    assert not poller.poll(0)
    changes = zmq.Poller()
    changes.register(sender.pollable, zmq.POLLIN)
    sender.state  # noqa: B018  reading it takes the news
    assert not changes.poll(0)
    receiver.close()
    assert changes.poll(PATIENCE_S * 1000)
    assert sender.state is LinkState.DOWN


def check_many_senders(place: Place) -> None:
    receiver = place.receiver()
    senders = [place.sender(receiver.address) for _ in range(3)]
    for sender in senders:
        sender.send(work(4))
    for _ in senders:
        assert take(receiver).microbatch == 4


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]

"""What a link is: a one-way path for frames, with a sender at one end and a receiver at the other.

Both ends promise, whatever lies between them:
- frames arrive whole and in the order they were sent, or not at all (unless faults were asked for);
- nothing is acknowledged and nothing is sent twice. A frame that was handed over may still be lost
  with its connection; issuing the work again is the coordinator's business (DESIGN.md §3). The sign
  of it is the sender's `stats.disconnects`: watch `pollable`, because a peer may be back before the
  next send;
- an end belongs to one thread at a time. Different ends may live in different threads.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from transports.frame import Frame


class LinkState(Enum):
    CONNECTING = "connecting"  # no peer yet
    UP = "up"  # a peer is connected and has shaken hands
    DOWN = "down"  # there was a peer; it is gone, and looked for again in the background
    CLOSED = "closed"  # this end was closed or aborted


@dataclass(slots=True)
class LinkStats:
    """Counters of one end since it was opened.

    `bytes` counts parts as they stand on the wire, without the transport's own framing. `errors`
    counts by cause: at a sender "down", "stalled", "encode"; at a receiver FrameError.cause of what
    was dropped, and "handshake" for peers that could not say hello. `connects` and `disconnects`
    count peers that came and went. Whom the transport itself throws out shows only there: the
    sender of a part above MAXMSGSIZE, some programs that speak another protocol. These are as of
    the last look at `state` or at an empty link.
    """

    frames: int = 0
    bytes: int = 0
    connects: int = 0
    disconnects: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    last_error: str = ""

    def count_error(self, cause: str, text: str) -> None:
        self.errors[cause] += 1
        self.last_error = text

    @property
    def dropped(self) -> int:
        """All errors together: at a receiver the messages that were dropped."""
        return sum(self.errors.values())


class LinkSender(Protocol):
    """The end that frames go into."""

    @property
    def address(self) -> str:
        """The peer's address as it was given."""

    @property
    def state(self) -> LinkState:
        """The state now. Reading it also takes in what happened since; read it (or send) every few
        minutes.
        """

    @property
    def stats(self) -> LinkStats:
        """The live counters. Any thread may read them, none but this end changes them."""

    @property
    def pollable(self) -> Any:
        """A zmq socket or a file descriptor for zmq.Poller: readable on a new `state`."""

    def send(self, frame: Frame) -> None:
        """Hand the frame over; return once this end holds it, not when the peer has it.

        The memory of its tensors is not copied and must not change until it is sent. Never blocks
        longer than the link's send timeout. LinkDown without a connection (at once if there was one
        before, after the send timeout if there never was), LinkStalled when the peer takes nothing,
        LinkClosed after close, EncodeError for a frame that must not be sent. After an error the
        frame was not handed over, and the next send may be tried at any time.
        """

    def close(self, linger_s: float = 1.0) -> None:
        """Stop, but let what was handed over still go out for up to `linger_s` seconds, in the
        background.
        """

    def abort(self) -> None:
        """Stop and drop at once what was handed over but has not left. Safe to call twice."""


class LinkReceiver(Protocol):
    """The end that frames come out of. It has the address; senders come to it."""

    @property
    def address(self) -> str:
        """The address as bound, with the port that was chosen."""

    @property
    def state(self) -> LinkState:
        """CONNECTING until the first peer comes, UP while there is one, DOWN when all have gone."""

    @property
    def stats(self) -> LinkStats:
        """The live counters. Any thread may read them, none but this end changes them."""

    @property
    def pollable(self) -> Any:
        """A zmq socket or a file descriptor for zmq.Poller: readable while receive(0) may have a
        frame.
        """

    def receive(self, timeout_s: float = 0.0) -> Frame | None:
        """The next frame, or None if none came in time; 0 does not wait.

        What is not a legal frame is dropped and counted in `stats.errors`; no peer's bytes make
        this raise. LinkClosed after close. The frame's tensors are views of memory that belongs to
        the frame.
        """

    def close(self) -> None:
        """Stop and free the address. What was not yet received is dropped. Safe to call twice."""

    def abort(self) -> None:
        """As close: a receiver has nothing to flush."""

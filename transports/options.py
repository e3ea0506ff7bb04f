"""Time-outs, queue lengths and keys of a link (DESIGN.md §8)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Seconds throughout. The queue is short on purpose: a frame may hold megabytes, and what waits
    in a queue is late.

    Heartbeats are answered by the peer's I/O thread: they prove the machine and the cable, not that
    its compute goes on.
    """

    send_timeout_s: float = 2.0
    queue: int = 4
    heartbeat_s: float = 2.0
    heartbeat_timeout_s: float = 6.0
    handshake_timeout_s: float = 5.0
    reconnect_s: float = 0.1
    reconnect_max_s: float = 1.0
    socket_buffer: int = 0  # SO_SNDBUF and SO_RCVBUF in bytes; 0 leaves the system's
    copy_below: int = (
        65536  # parts shorter than this are copied: cheaper than tracking their lifetime
    )


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """CURVE keys in Z85 of one end. A sender also needs the receiver's public key, `server`.

    A receiver's keys only do what they promise with a ZAP handler running in the same context
    before it is opened; `zap_domain` names the domain that handler serves, and is enforced.
    """

    public: bytes
    secret: bytes = field(repr=False)
    server: bytes | None = None
    zap_domain: bytes = b"shardbus"

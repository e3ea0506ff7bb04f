"""From an address to a link. What a scheme needs (ZeroMQ context, memory network) is passed in."""

from __future__ import annotations

from typing import Any, TypeVar

import zmq

from transports.address import Address
from transports.base import LinkReceiver, LinkSender
from transports.errors import AddressError
from transports.limits import FrameLimits
from transports.memory import MemoryReceiver, MemorySender
from transports.network import MemoryNetwork
from transports.options import CurveKeys, LinkOptions
from transports.zeromq import ZmqReceiver, ZmqSender

_T = TypeVar("_T")


def open_sender(
    address: str | Address,
    limits: FrameLimits,
    options: LinkOptions | None = None,
    *,
    context: zmq.Context[Any] | None = None,
    network: MemoryNetwork | None = None,
    keys: CurveKeys | None = None,
    allow_plain: bool = False,
) -> LinkSender:
    """A sender that connects to `address` in the background; AddressError if it can never do so.

    Without keys only loopback is allowed, unless `allow_plain` says that the cable is private.
    """
    parsed = address if isinstance(address, Address) else Address.parse(address)
    options = options or LinkOptions()
    if parsed.scheme == "memory":
        return MemorySender(_given(parsed, network, "network"), parsed, limits, options)
    _refuse_plain(parsed, keys, allow_plain)
    return ZmqSender(_given(parsed, context, "context"), parsed, limits, options, keys)


def open_receiver(
    address: str | Address,
    limits: FrameLimits,
    options: LinkOptions | None = None,
    *,
    context: zmq.Context[Any] | None = None,
    network: MemoryNetwork | None = None,
    keys: CurveKeys | None = None,
    allow_plain: bool = False,
) -> LinkReceiver:
    """A receiver bound to `address`; AddressError if that is not to be had.

    Without keys only loopback is allowed, unless `allow_plain` says that the cable is private.
    """
    parsed = address if isinstance(address, Address) else Address.parse(address)
    options = options or LinkOptions()
    if parsed.scheme == "memory":
        return MemoryReceiver(_given(parsed, network, "network"), parsed, limits)
    _refuse_plain(parsed, keys, allow_plain)
    return ZmqReceiver(_given(parsed, context, "context"), parsed, limits, options, keys)


def _refuse_plain(address: Address, keys: CurveKeys | None, allowed: bool) -> None:
    if keys is None and not allowed and not address.is_loopback:
        why = "it leaves this machine and there are no keys"
        raise AddressError(
            str(address), why, "make keys, or allow plain links where the cable is private"
        )


def _given(address: Address, value: _T | None, name: str) -> _T:
    if value is None:
        why = f"{address.scheme} links are not set up in this process"
        raise AddressError(str(address), why, f"pass `{name}`")
    return value

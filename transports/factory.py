"""From an address to a link."""

from __future__ import annotations

from typing import Any

import zmq

from transports.address import Address
from transports.base import LinkReceiver, LinkSender
from transports.limits import FrameLimits
from transports.options import CurveKeys, LinkOptions
from transports.zeromq import ZmqReceiver, ZmqSender


def open_sender(
    address: str,
    limits: FrameLimits,
    options: LinkOptions | None = None,
    *,
    context: zmq.Context[Any],
    keys: CurveKeys | None = None,
) -> LinkSender:
    parsed = Address.parse(address)
    return ZmqSender(context, parsed, limits, options or LinkOptions(), keys)


def open_receiver(
    address: str,
    limits: FrameLimits,
    options: LinkOptions | None = None,
    *,
    context: zmq.Context[Any],
    keys: CurveKeys | None = None,
) -> LinkReceiver:
    parsed = Address.parse(address)
    return ZmqReceiver(context, parsed, limits, options or LinkOptions(), keys)

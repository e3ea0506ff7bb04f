"""What both ends of every hop agree on: how large its frames may be, and its time-outs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from transports.address import Address
from transports.limits import FrameLimits
from transports.options import LinkOptions

MAX_CHUNK_TOKENS = 4096  # the longest prefill chunk a frame may ask for
WIDEST_ELEMENT = 4  # bytes: float32
RECONNECT_SECONDS = 0.5


def hop_limits(hidden_size: int, vocabulary: int) -> FrameLimits:
    """For a model whose hidden states have `hidden_size` elements."""
    return FrameLimits.for_model(hidden_size * WIDEST_ELEMENT, MAX_CHUNK_TOKENS, vocabulary)


def hop_options(send_timeout_s: float) -> LinkOptions:
    return LinkOptions(send_timeout_s=send_timeout_s, reconnect_max_s=RECONNECT_SECONDS)


def plain_allowed(
    address: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    """Whether the configuration allows plain frames to this address beyond loopback."""
    try:
        host = ipaddress.ip_address(Address.parse(address).resolved().host)
    except ValueError:
        return False
    return any(host in network for network in networks)

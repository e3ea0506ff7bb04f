"""Where frames and KV may travel without encryption."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from transports.address import Address
from transports.errors import AddressError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def plain_allowed(address: str, networks: Sequence[Network]) -> bool:
    """Whether these networks allow ZeroMQ without CURVE there; loopback needs no word."""
    try:
        host = ipaddress.ip_address(Address.parse(address).resolved().host)
    except ValueError:
        return False
    return any(host in network for network in networks)


def kv_address(address: str, networks: Sequence[Network]) -> Address:
    """Where KV is sent to or read from, beside the ring. AddressError when it may not travel
    there.
    """
    where = Address.parse(address)
    if where.scheme != "tcp":
        raise AddressError(address, "KV travels over TCP", "give a tcp:// address")
    if not where.is_loopback and not plain_allowed(address, networks):
        why = "plain ZeroMQ is not allowed there"
        raise AddressError(address, why, "see security.plain_networks")
    return where.resolved()

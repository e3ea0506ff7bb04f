"""Addresses, and what an operator reads when one is wrong."""

from __future__ import annotations

import pytest
import zmq

from transports.address import Address
from transports.errors import AddressError
from transports.factory import open_receiver, open_sender
from transports.limits import FrameLimits
from transports.network import MemoryNetwork
from transports.options import CurveKeys

LIMITS = FrameLimits(1024)


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("tcp://127.0.0.1:5701", Address("tcp", "127.0.0.1", 5701), True),
        ("tcp://127.8.0.1:0", Address("tcp", "127.8.0.1", 0), True),
        ("tcp://localhost:1", Address("tcp", "localhost", 1), True),
        ("tcp://[::1]:5701", Address("tcp", "::1", 5701), True),
        ("tcp://10.0.0.7:5701", Address("tcp", "10.0.0.7", 5701), False),
        ("tcp://[fd00::7]:65535", Address("tcp", "fd00::7", 65535), False),
        ("tcp://[fe80::1%en5]:5701", Address("tcp", "fe80::1%en5", 5701), False),
        ("tcp://mac-studio.local:5701", Address("tcp", "mac-studio.local", 5701), False),
        ("memory://stage-1", Address("memory", name="stage-1"), True),
        ("ipc:///run/shardbus/a.sock", Address("ipc", name="/run/shardbus/a.sock"), True),
    ],
)
def test_good_addresses(text: str, address: Address, loopback: bool) -> None:
    assert Address.parse(text) == address
    assert str(address) == text
    assert address.is_loopback is loopback


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("10.0.0.1:5701", "no scheme", "tcp://10.0.0.1:5701"),
        ("udp://10.0.0.1:5701", "unknown scheme 'udp'", "tcp://, ipc://, memory://"),
        ("tcp://10.0.0.1", "not host:port", "write for example"),
        ("tcp://:5701", "not host:port", "write for example"),
        ("tcp://10.0.0.1:http", "number as port", "write for example"),
        ("tcp://10.0.0.1:65536", "above 65535", "from 1024 to 65535"),
        ("tcp://10.0.0.1:\u0663", "number as port", "write for example"),
        ("tcp://*:5701", "every interface", "127.0.0.1"),
        ("tcp://0.0.0.0:5701", "every interface", "127.0.0.1"),
        ("tcp://[::]:5701", "every interface", "127.0.0.1"),
        ("tcp://::1:5701", "brackets", "[fd00::1]"),
        ("tcp://[10.0.0.x]:5701", "brackets", "[fd00::1]"),
        ("tcp://a b:5701", "not a host", "write for example"),
        ("tcp://eth0;10.0.0.1:5701", "not a host", "write for example"),
        ("memory://", "no name", "memory://NAME"),
        ("ipc://relative", "absolute path", "ipc:///run"),
        ("ipc:///" + "x" * 110, "103 bytes", "ipc:///run"),
    ],
)
def test_bad_addresses(text: str, why: str, hint: str) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    assert text in str(caught.value)
    assert why in caught.value.why
    assert hint in caught.value.hint


def test_localhost_is_bound_as_an_ip_address() -> None:
    assert Address.parse("tcp://localhost:80").resolved().is_loopback
    with pytest.raises(AddressError, match="is not known"):
        Address.parse("tcp://no-such-host.invalid:80").resolved()


def test_factory_says_what_it_needs() -> None:
    with pytest.raises(AddressError, match="pass `context`"):
        open_sender("tcp://127.0.0.1:1", LIMITS)
    with pytest.raises(AddressError, match="pass `network`"):
        open_receiver("memory://x", LIMITS)
    with pytest.raises(AddressError, match="known ones are"):
        open_receiver("quic://x", LIMITS, network=MemoryNetwork())


def test_bind_errors_help() -> None:
    with zmq.Context() as context:
        first = open_receiver("tcp://127.0.0.1:0", LIMITS, context=context)
        port = Address.parse(first.address).port
        with pytest.raises(AddressError) as caught:
            open_receiver(first.address, LIMITS, context=context)
        assert f"port {port} is in use" in str(caught.value)
        assert f"lsof -nP -iTCP:{port}" in str(caught.value)
        with pytest.raises(AddressError, match=r"no interface of this machine has 203\.0"):
            open_receiver("tcp://203.0.113.77:0", LIMITS, context=context, allow_plain=True)
        first.close()


def test_ipv6_link() -> None:
    with zmq.Context() as context:
        try:
            receiver = open_receiver("tcp://[::1]:0", LIMITS, context=context)
        except AddressError:
            pytest.skip("no IPv6 here")
        assert receiver.address.startswith("tcp://[::1]:")
        receiver.close()


def test_plain_links_stay_on_this_machine_unless_allowed() -> None:
    with zmq.Context() as context:
        with pytest.raises(AddressError, match="no keys; make keys"):
            open_receiver("tcp://203.0.113.77:5701", LIMITS, context=context)
        with pytest.raises(AddressError, match="no keys; make keys"):
            open_sender("tcp://some-node.example:5701", LIMITS, context=context)
        allowed = "tcp://203.0.113.77:5701"
        open_sender(allowed, LIMITS, context=context, allow_plain=True).abort()


def test_bad_keys_are_the_operators_fault() -> None:
    public, secret = zmq.curve_keypair()
    with zmq.Context() as context:
        for keys in (CurveKeys(public, b"short", public), CurveKeys(public, secret, None)):
            with pytest.raises(AddressError, match="key"):
                open_sender("tcp://127.0.0.1:5701", LIMITS, context=context, keys=keys)

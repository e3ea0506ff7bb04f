"""What only real sockets show: programs that are not ours, frozen peers, keys."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zmq
from zmq.auth.thread import ThreadAuthenticator

from tests.transports.contract import LIMITS, OPTIONS, Place, eventually, raised, take, work
from transports.address import Address
from transports.base import LinkReceiver, LinkState
from transports.errors import AddressError, LinkDown
from transports.factory import open_receiver, open_sender
from transports.limits import FrameLimits
from transports.options import CurveKeys, LinkOptions

ZMTP3_NULL = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place("tcp", tmp_path)
    yield made
    made.close()


def raw(receiver: LinkReceiver, data: bytes) -> socket.socket:
    """A plain TCP connection that has sent these bytes."""
    address = Address.parse(receiver.address)
    connection = socket.create_connection((address.host, address.port))
    connection.sendall(data)
    return connection


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: shardbus\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\x05hello\x00" * 40,
        random.Random(0).randbytes(4096),
        ZMTP3_NULL + b"\x04\xff" + bytes(300),
        ZMTP3_NULL[:20],
        b"",
    ],
    ids=["http", "tls", "old-zmtp", "random", "bad-handshake", "half-greeting", "silence"],
)
def test_a_foreign_program_does_not_disturb(place: Place, data: bytes) -> None:
    sender, receiver = place.pair()
    with raw(receiver, data):
        for number in range(20):
            sender.send(work(number))
            assert take(receiver).microbatch == number
    eventually(lambda: receiver.receive() or receiver.stats.disconnects >= 1)
    sender.send(work(99))
    assert take(receiver).microbatch == 99
    assert receiver.stats.frames == 21


def test_a_broken_handshake_is_counted(place: Place) -> None:
    _, receiver = place.pair()
    with raw(receiver, ZMTP3_NULL + b"\x04\xff" + bytes(300)):
        eventually(lambda: receiver.receive() or receiver.stats.errors["handshake"])


def test_http_arrives_as_a_message_and_is_counted(place: Place) -> None:
    """A PULL takes a peer without a greeting for an old ZeroMQ and delivers its bytes."""
    _, receiver = place.pair()
    with raw(receiver, b"GET / HTTP/1.1\r\nHost: shardbus.example\r\n" + b"x" * 200):
        eventually(lambda: receiver.receive() or receiver.stats.errors["foreign"])


def test_an_oversized_part_costs_its_sender_the_connection(place: Place) -> None:
    sender, receiver = place.pair()
    huge = b"\x02" + (1 << 40).to_bytes(8, "big") + bytes(100)
    with raw(receiver, ZMTP3_NULL + READY + huge):
        eventually(lambda: receiver.receive() or receiver.stats.disconnects == 1)
    sender.send(work(1))
    assert take(receiver).microbatch == 1
    assert sender.stats.disconnects == 0


def test_a_flood_of_connections_does_not_block_the_receiver(place: Place) -> None:
    """libzmq stops its I/O thread when the monitor's queue is full: receiving must drain it."""
    sender, receiver = place.pair()
    for number in range(1500):
        raw(receiver, b"").close()
        if number % 50 == 0:
            sender.send(work(number))
            assert take(receiver).microbatch == number
    eventually(lambda: receiver.receive() or receiver.stats.disconnects >= 1500)


def test_many_drops_do_not_keep_receive_from_returning(place: Place) -> None:
    receiver = place.receiver()
    place.inject(receiver, [[b"junk"]] * 500)
    eventually(lambda: receiver.receive() or receiver.stats.errors["foreign"] == 500)


def test_a_frozen_peer_is_noticed_by_heartbeat(place: Place) -> None:
    program = (
        "import zmq, sys\n"
        "from transports.factory import open_receiver\n"
        "from transports.limits import FrameLimits\n"
        "r = open_receiver('tcp://127.0.0.1:0', FrameLimits(1 << 20), context=zmq.Context())\n"
        "print(r.address, flush=True)\n"
        "while True: r.receive(1.0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    ) as peer:
        try:
            assert peer.stdout is not None
            address = peer.stdout.readline().strip()
            quick = replace(OPTIONS, heartbeat_s=0.1, heartbeat_timeout_s=0.4)
            sender = place.sender(address, quick)
            eventually(lambda: sender.state is LinkState.UP)
            peer.send_signal(signal.SIGSTOP)
            eventually(lambda: sender.state is LinkState.DOWN)
            assert raised(LinkDown, lambda: sender.send(work())) < 1.0
            peer.send_signal(signal.SIGCONT)
            eventually(lambda: sender.state is LinkState.UP)
            sender.send(work())
        finally:
            peer.kill()


def keys(server: bytes | None = None) -> CurveKeys:
    public, secret = zmq.curve_keypair()
    return CurveKeys(public, secret, server)


def test_keys_let_in_only_whom_the_handler_knows(place: Place) -> None:
    authenticator = ThreadAuthenticator(place.context)
    authenticator.start()
    try:
        server = keys()
        friend, stranger = keys(server.public), keys(server.public)

        class Known:
            def callback(self, domain: str, key: bytes) -> bool:
                return key == friend.public

        authenticator.configure_curve_callback("shardbus", Known())
        receiver = open_receiver(
            "tcp://127.0.0.1:0", LIMITS, OPTIONS, context=place.context, keys=server
        )
        short = replace(OPTIONS, send_timeout_s=0.3)
        place.ends.append(receiver)
        for who in (stranger, replace(friend, server=keys().public), None):
            outsider = open_sender(receiver.address, LIMITS, short, context=place.context, keys=who)
            place.ends.append(outsider)
            raised(LinkDown, lambda outsider=outsider: outsider.send(work(0)))
            assert outsider.state is LinkState.CONNECTING
        sender = open_sender(receiver.address, LIMITS, OPTIONS, context=place.context, keys=friend)
        place.ends.append(sender)
        sender.send(work(1))
        assert take(receiver).microbatch == 1
        assert receiver.stats.frames == 1
    finally:
        authenticator.stop()


def test_without_a_handler_nobody_gets_in(place: Place) -> None:
    server = keys()
    receiver = open_receiver("tcp://127.0.0.1:0", LIMITS, context=place.context, keys=server)
    short = replace(OPTIONS, send_timeout_s=0.3)
    sender = open_sender(
        receiver.address, LIMITS, short, context=place.context, keys=keys(server.public)
    )
    place.ends += [receiver, sender]
    raised(LinkDown, lambda: sender.send(work()))


def test_secrets_are_not_printed() -> None:
    made = keys()
    assert made.secret.decode() not in repr(made)


def test_the_options_of_the_design_are_set(place: Place) -> None:
    options = LinkOptions()
    limits = FrameLimits(1 << 20)
    receiver = open_receiver("tcp://127.0.0.1:0", limits, options, context=place.context)
    place.ends.append(receiver)
    pull = receiver.pollable
    assert pull.getsockopt(zmq.MAXMSGSIZE) == limits.max_part_bytes
    assert pull.getsockopt(zmq.RCVHWM) == options.queue
    assert pull.getsockopt(zmq.HEARTBEAT_IVL) == 2000
    assert pull.getsockopt(zmq.HEARTBEAT_TIMEOUT) == 6000
    assert pull.getsockopt(zmq.HANDSHAKE_IVL) == 5000
    assert pull.getsockopt(zmq.LINGER) == 0


def test_a_dead_ipc_path_is_taken_over_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "link"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with zmq.Context() as context:
        open_receiver(f"ipc://{path}", LIMITS, context=context).close()
        precious = tmp_path / "notes.txt"
        precious.write_text("mine")
        with pytest.raises(AddressError, match="no socket stands there"):
            open_receiver(f"ipc://{precious}", LIMITS, context=context)
        assert precious.read_text() == "mine"


def test_an_ipc_path_belongs_to_its_user(tmp_path: Path) -> None:
    with zmq.Context() as context:
        receiver = open_receiver(f"ipc://{tmp_path}/link", LIMITS, context=context)
        assert (tmp_path / "link").stat().st_mode & 0o777 == 0o600
        receiver.close()

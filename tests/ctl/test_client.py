"""The client alone, in this process."""

import socket
import time

import pytest
import zmq

from ctl.client import Client
from ctl.endpoint import Endpoint
from ctl.errors import CommandError
from daemon.messages import Chunk, Reply
from tests.ctl.fake import (
    SEQUENCE,
    START,
    FakeCoordinator,
    failure,
    generation,
    other_version,
    reply,
    silent,
)


def connect(fake, timeout=5.0):
    return Client(Endpoint(fake.endpoint, "test"), timeout)


def test_a_request_gets_its_answer(coordinator):
    fake = coordinator(status=reply({"state": "ready"}))
    with connect(fake) as client:
        assert client.request("status") == {"state": "ready"}
        assert client.request("status") == {"state": "ready"}
    assert fake.requests[0].verb == "status"
    assert fake.requests[0].arguments == {}


def test_an_answer_to_something_else_is_not_taken(coordinator):
    def answer(fake, peer, request):
        fake.say(peer, Reply(request.request + 1000, {"wrong": True}))
        fake.say(peer, Reply(request.request, {"right": True}))

    with connect(coordinator(ps=answer)) as client:
        assert client.request("ps") == {"right": True}


def test_a_failure_keeps_its_code_and_words(coordinator):
    fake = coordinator(kv=failure(3, "no stage", "it is down", "wait"))
    with connect(fake) as client, pytest.raises(CommandError) as caught:
        client.request("kv")
    error = caught.value
    assert (error.code, error.what, error.why, error.todo) == (3, "no stage", "it is down", "wait")


@pytest.mark.parametrize("code", [0, 7, 130])
def test_a_code_that_is_none_is_a_plain_failure(coordinator, code):
    with connect(coordinator(kv=failure(code, "odd"))) as client:
        with pytest.raises(CommandError) as caught:
            client.request("kv")
        assert caught.value.code == 1


def test_another_version_is_refused(coordinator):
    with connect(coordinator(status=other_version)) as client:
        with pytest.raises(CommandError) as caught:
            client.request("status")
        assert caught.value.code == 5


def test_bytes_of_another_protocol_are_refused(coordinator):
    def answer(fake, peer, request):
        fake.say(peer, b"\x81\xa1x\x01")

    with connect(coordinator(status=answer)) as client:
        with pytest.raises(CommandError) as caught:
            client.request("status")
        assert caught.value.code == 5


def test_a_refused_connection_is_known_at_once():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{reserved.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(CommandError) as caught, Client(Endpoint(address, "test"), 30.0):
            pass
    assert caught.value.code == 4
    assert "connection refused" in caught.value.line()
    assert "shardctl up" in caught.value.line()
    assert time.monotonic() - began < 5


def test_a_port_that_accepts_and_says_nothing_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(CommandError) as caught, Client(Endpoint(address, "test"), 0.2):
            pass
    assert caught.value.code == 4


def test_a_coordinator_that_does_not_answer_is_a_timeout(coordinator):
    with connect(coordinator(status=silent), 0.2) as client:
        with pytest.raises(CommandError) as caught:
            client.request("status")
        assert caught.value.code == 6


def test_a_stream_gives_chunks_then_the_reply(coordinator):
    with connect(coordinator(generate=generation("a", "b"))) as client:
        messages = list(client.stream("generate", {}))
    assert [type(message) for message in messages] == [Chunk, Chunk, Chunk, Reply]
    assert [message.data.get("text") for message in messages[1:3]] == ["a", "b"]


def test_a_slow_stream_is_kept_alive_and_not_given_up(coordinator):
    """The answer comes after several times the silence that would end the stream."""
    alive = 0

    def start(fake, peer, request):
        fake.scripts["alive"] = lambda f, p, r: beat(f, p, r, request.request)

    def beat(fake, peer, request, stream):
        nonlocal alive
        alive += 1
        fake.say(peer, Reply(request.request, {}))
        if alive == 6:
            fake.say(peer, Reply(stream, {"done": True}))

    with connect(coordinator(generate=start), 0.1) as client:
        messages = list(client.stream("generate", {}))
    assert messages[-1].data == {"done": True}


def test_alive_that_is_refused_is_still_a_sign_of_life(coordinator):
    refusals = 0

    def start(fake, peer, request):
        fake.scripts["alive"] = lambda f, p, r: refuse(f, p, r, request.request)

    def refuse(fake, peer, request, stream):
        nonlocal refusals
        refusals += 1
        failure(2, "unknown verb alive")(fake, peer, request)
        if refusals == 5:
            fake.say(peer, Reply(stream, {}))

    with connect(coordinator(generate=start), 0.1) as client:
        assert len(list(client.stream("generate", {}))) == 1


def test_a_coordinator_that_falls_silent_ends_the_stream(coordinator):
    fake = coordinator(generate=generation("a", end=False), alive=silent)
    with connect(fake, 0.2) as client, pytest.raises(CommandError) as caught:
        list(client.stream("generate", {}))
    assert caught.value.code == 6
    assert fake.wait_for("alive")


def test_a_coordinator_that_dies_ends_the_stream_at_once():
    fake = FakeCoordinator({"generate": generation("a", end=False)})
    with connect(fake, 30.0) as client:
        stream = client.stream("generate", {})
        next(stream)
        fake.close()
        with pytest.raises(CommandError) as caught:
            list(stream)
    assert caught.value.code == 4
    assert "lost" in caught.value.what


def test_cancel_names_the_sequence(coordinator):
    fake = coordinator(generate=generation("a", end=False))
    with connect(fake) as client:
        stream = client.stream("generate", {})
        next(stream)
        assert client.cancel_stream()
    assert fake.wait_for("cancel").arguments == {"sequence": SEQUENCE}


def test_cancel_before_the_first_chunk_waits_for_the_id(coordinator):
    """Interrupted while nothing has come yet: the id comes with the answer to `alive`."""

    def start(fake, peer, request):
        fake.scripts["alive"] = lambda f, p, r: f.say(p, Chunk(request.request, START))

    class Impatient:
        def descriptors(self):
            return [(readable.fileno(), zmq.POLLIN)]

        def check(self):
            raise BrokenPipeError

    fake = coordinator(generate=start)
    readable, writer = socket.socketpair()
    with readable, writer, connect(fake, 0.2) as client:
        writer.send(b"x")
        with pytest.raises(BrokenPipeError):
            list(client.stream("generate", {}, Impatient()))
        client._send("alive", {})
        assert client.cancel_stream()
    assert fake.wait_for("cancel").arguments == {"sequence": SEQUENCE}


def test_cancel_of_a_finished_stream_sends_nothing(coordinator):
    fake = coordinator(generate=generation("a"))
    with connect(fake) as client:
        list(client.stream("generate", {}))
        assert client.cancel_stream()
        client.request("alive")
    assert [request.verb for request in fake.requests] == ["generate", "alive"]


def test_a_request_too_large_is_not_sent(coordinator):
    fake = coordinator(generate=generation("a"))
    with connect(fake) as client, pytest.raises(CommandError) as caught:
        list(client.stream("generate", {"prompt": "x" * (9 << 20)}))
    assert caught.value.code == 1
    assert fake.requests == []


def test_closing_with_a_silent_peer_does_not_hang(coordinator):
    fake = coordinator(status=silent)
    began = time.monotonic()
    client = connect(fake, 0.1)
    with client, pytest.raises(CommandError):
        client.request("status")
    assert time.monotonic() - began < 5

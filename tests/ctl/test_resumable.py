"""A generation goes on when its coordinator comes back, and prints nothing twice."""

import json
import signal
from contextlib import contextmanager

import pytest

from daemon.messages import Chunk, Reply
from tests.ctl.fake import (
    END,
    SEQUENCE,
    START,
    WAIT_SECONDS,
    FakeCoordinator,
    failure,
    generation,
    running,
    shardctl,
    silent,
)


def rest(*texts):
    """The answer to `resume`: the first word again, then what is new."""

    def answer(fake, peer, request):
        for data in (START, *({"text": text, "tokens": [1], "logprobs": None} for text in texts)):
            fake.say(peer, Chunk(request.request, data))
        fake.say(peer, Reply(request.request, END))

    return answer


@pytest.fixture
def successor():
    """Another coordinator at the same place."""
    started = []

    def start(before, **scripts):
        before.close()
        started.append(FakeCoordinator(scripts, before.endpoint))
        return started[-1]

    yield start
    for fake in started:
        fake.close()


def test_it_goes_on_where_it_stopped(coordinator, successor):
    first = coordinator(generate=generation("a", "b", end=False))
    with running("generate", "x", "--endpoint", first.endpoint) as process:
        assert process.stdout.read(2) == b"ab"
        sequence = first.wait_for("generate").arguments["sequence"]
        second = successor(first, resume=rest("c"))
        assert process.wait(WAIT_SECONDS) == 0
        assert process.stdout.read() == b"c\n"
        (note,) = process.stderr.read().splitlines()
    assert b"was lost: trying again for 60 s" in note
    assert second.wait_for("resume").arguments == {"sequence": sequence, "tokens": 2}


def test_programs_see_one_stream(coordinator, successor):
    first = coordinator(generate=generation("a", end=False))
    with running("generate", "x", "--jsonl", "--endpoint", first.endpoint) as process:
        lines = [process.stdout.readline(), process.stdout.readline()]
        successor(first, resume=rest("b"))
        lines += process.stdout.read().splitlines()
        assert process.stderr.read() == b""
    kinds = [(json.loads(line)["type"], json.loads(line).get("text")) for line in lines]
    assert kinds == [("start", None), ("delta", "a"), ("delta", "b"), ("end", "")]


def test_what_never_arrived_is_asked_for_again(coordinator, successor):
    first = coordinator(generate=silent)
    with running("generate", "x", "--endpoint", first.endpoint) as process:
        asked = first.wait_for("generate").arguments
        second = successor(first, resume=failure(1, "no request"), generate=generation("a"))
        assert process.wait(WAIT_SECONDS) == 0
        assert process.stdout.read() == b"a\n"
    assert second.wait_for("generate").arguments == asked


@contextmanager
def reading(coordinator, *words):
    """Of whose answer the first letter has come, and its coordinator."""
    first = coordinator(generate=generation("a", end=False))
    with running("generate", "x", *words, "--endpoint", first.endpoint) as process:
        assert process.stdout.read(1) == b"a"
        yield process, first


def test_what_is_not_known_any_more_is_an_error(coordinator, successor):
    with reading(coordinator) as (process, first):
        successor(first, resume=failure(1, "no request"), generate=generation("wrong"))
        assert process.wait(WAIT_SECONDS) == 1
        assert process.stdout.read() == b"\n"
        assert b"error: no request" in process.stderr.read()


def test_one_that_does_not_come_back_is_unreachable(coordinator):
    with reading(coordinator, "--timeout", "100ms") as (process, first):
        first.close()
        assert process.wait(WAIT_SECONDS) == 4
        assert b"error: the connection" in process.stderr.read()


def interrupted(process):
    process.send_signal(signal.SIGINT)
    return 130, b"not confirmed"


def left(process):
    process.stdout.close()
    return 0, b""


@pytest.mark.parametrize("leave", [interrupted, left])
def test_a_reader_who_leaves_while_it_is_away(coordinator, leave):
    with reading(coordinator) as (process, first):
        first.close()
        assert b"trying again" in process.stderr.readline()
        status, told = leave(process)
        assert process.wait(WAIT_SECONDS) == status
        assert told in process.stderr.read()


def test_the_request_of_somebody_else(coordinator):
    fake = coordinator(resume=rest("a", "b"))
    words = ("generate", "--resume", SEQUENCE[:8], "--received", "5", "--endpoint", fake.endpoint)
    done = shardctl(*words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ab\n", "")
    assert fake.wait_for("resume").arguments == {"sequence": SEQUENCE[:8], "tokens": 5}
    done = shardctl(*words, "a prompt")
    assert done.returncode == 2
    assert "--resume with a prompt" in done.stderr

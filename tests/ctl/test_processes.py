"""What only a process shows: pipes, signals, terminals, imports, start-up time."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios

import pytest

from daemon.messages import Chunk
from tests.ctl.fake import (
    SEQUENCE,
    WAIT_SECONDS,
    environment,
    generation,
    reply,
    running,
    shardctl,
    silent,
)
from tests.ctl.samples import STATUS


def endless(fake, peer, request):
    """Goes on with every sign of life."""
    generation("first\n", end=False)(fake, peer, request)
    number = request.request

    def more(fake, peer, request):
        reply({})(fake, peer, request)
        fake.say(peer, Chunk(number, {"text": "more\n", "tokens": [1], "logprobs": None}))

    fake.scripts["alive"] = more


def test_head_gets_its_line_and_the_server_a_cancel(coordinator):
    fake = coordinator(generate=endless)
    with running("generate", "x", "--endpoint", fake.endpoint) as process:
        assert process.stdout.readline() == b"first\n"
        process.stdout.close()
        assert process.wait(WAIT_SECONDS) == 0
        assert process.stderr.read() == b""
    assert fake.wait_for("cancel").arguments == {"sequence": SEQUENCE}


def test_a_reader_who_leaves_is_noticed_without_writing(coordinator):
    """With --no-stream nothing is written before the end; the cancel comes all the same."""
    fake = coordinator(generate=generation("x", end=False))
    with running("generate", "x", "--no-stream", "--endpoint", fake.endpoint) as process:
        fake.wait_for("generate")
        process.stdout.close()
        assert process.wait(WAIT_SECONDS) == 0
        assert process.stderr.read() == b""
    fake.wait_for("cancel")


def test_a_table_into_a_closed_pipe_is_no_error(coordinator):
    fake = coordinator(status=reply(STATUS))
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with running("status", "--endpoint", fake.endpoint, stdout=writing) as process:
            assert process.wait(WAIT_SECONDS) == 0
            assert process.stderr.read() == b""
    finally:
        os.close(writing)


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["INT", "TERM", "HUP"],
)
def test_a_signal_cancels_on_the_server(coordinator, signum, code):
    fake = coordinator(generate=generation("partial", end=False))
    with running("generate", "x", "--endpoint", fake.endpoint) as process:
        assert process.stdout.read(7) == b"partial"
        process.send_signal(signum)
        assert process.wait(WAIT_SECONDS) == code
        assert process.stdout.read() == b"\n"
        assert process.stderr.read() == b""
    assert fake.wait_for("cancel").arguments == {"sequence": SEQUENCE}


def test_a_second_signal_exits_at_once(coordinator):
    fake = coordinator(generate=generation("partial", end=False), cancel=silent)
    with running("generate", "x", "--timeout", "60s", "--endpoint", fake.endpoint) as process:
        assert process.stdout.read(7) == b"partial"
        process.send_signal(signal.SIGINT)
        fake.wait_for("cancel")
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 130
        assert process.stdout.read() == b""  # no time for the line break


def test_a_cancel_that_is_not_confirmed_is_said(coordinator):
    fake = coordinator(generate=generation("partial", end=False), cancel=silent)
    with running("generate", "x", "--endpoint", fake.endpoint) as process:
        assert process.stdout.read(7) == b"partial"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 130
        assert b"not confirmed" in process.stderr.read()


def test_ctrl_c_with_a_reader_who_pauses(coordinator):
    """A full pipe stops neither the signs of life nor the cancel."""
    fake = coordinator(generate=generation("x" * 300_000, end=False))
    with running("generate", "x", "--timeout", "2s", "--endpoint", fake.endpoint) as process:
        fake.wait_for("alive", 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 130
    fake.wait_for("cancel")


def test_a_coordinator_that_falls_silent_mid_stream(coordinator):
    fake = coordinator(generate=generation("partial", end=False), alive=silent, resume=silent)
    with running("generate", "x", "--timeout", "100ms", "--endpoint", fake.endpoint) as process:
        assert process.wait(WAIT_SECONDS) == 6
        assert process.stdout.read() == b"partial\n"
        note, error = process.stderr.read().splitlines()
    assert b"does not answer: trying again for 1.2 s" in note
    assert b"does not answer: it was silent" in error


def test_a_full_disk_is_said_and_cancels(coordinator):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    fake = coordinator(generate=endless)
    with (
        open("/dev/full", "wb") as full,
        running("generate", "x", "--endpoint", fake.endpoint, stdout=full) as process,
    ):
        assert process.wait(WAIT_SECONDS) == 1
        assert b"error: cannot write the output: No space left" in process.stderr.read()
    fake.wait_for("cancel")


def test_following_events_ends_with_the_reader(coordinator):
    def follow(fake, peer, request):
        event = {"time": 0, "kind": "joined", "node": "a", "text": "hello"}
        fake.say(peer, Chunk(request.request, event))

    fake = coordinator(events=follow)
    with running("events", "--follow", "--endpoint", fake.endpoint) as process:
        assert b"joined a: hello" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(WAIT_SECONDS) == 0


def test_watch_repeats_until_interrupted(coordinator):
    fake = coordinator(status=reply(STATUS))
    words = ("status", "--watch=10ms", "-o", "jsonl", "--endpoint", fake.endpoint)
    with running(*words) as process:
        for _ in range(3):
            assert json.loads(process.stdout.readline())["cluster"] == "home"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 130
        assert process.stderr.read() == b""


@pytest.fixture
def terminal():
    """A pseudo terminal: our end and the program's."""
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_a_bare_generate_on_a_terminal_does_not_hang(terminal):
    with running("generate", stdin=terminal[1]) as process:
        assert process.wait(WAIT_SECONDS) == 2
        error = process.stderr.read().decode()
    assert error.startswith("error: there is no prompt: ")
    assert "shardctl generate 'text'" in error
    assert error.count("\n") == 1


def test_waiting_for_standard_input_is_said(coordinator):
    fake = coordinator(generate=generation("a"))
    with running("generate", "--endpoint", fake.endpoint, stdin=subprocess.PIPE) as process:
        assert b"reading the prompt from standard input" in process.stderr.readline()
        process.stdin.write(b"late")
        process.stdin.close()
        process.stdin = None
        assert process.wait(WAIT_SECONDS) == 0
    assert fake.wait_for("generate").arguments["prompt"] == "late"


def test_loading_shows_bars_on_a_terminal_only_there(coordinator, terminal):
    def load(fake, peer, request):
        chunk = {"stage": 0, "node": "a", "bytes_loaded": 5_000_000, "bytes_total": 10_000_000}
        fake.say(peer, Chunk(request.request, chunk))
        reply({"model": "embedded", "epoch": 2, "layers": [8]})(fake, peer, request)

    fake = coordinator(model_load=load)
    words = ("model", "load", "embedded", "--endpoint", fake.endpoint)
    with running(*words, stderr=terminal[1]) as process:
        assert process.wait(WAIT_SECONDS) == 0
        assert process.stdout.read() == b"loaded embedded, layers 8\n"
    shown = os.read(terminal[0], 4096).decode()
    assert "5.0 MB / 10.0 MB" in shown
    assert shown.endswith("\r\x1b[K")


def test_no_arguments_show_the_help():
    done = shardctl()
    assert done.returncode == 2
    assert "Commands:" in done.stderr + done.stdout


@pytest.mark.parametrize("words", [["--help"], ["generate", "--help"], ["--version"]])
def test_help_needs_no_heavy_imports(words):
    heavy = ("mlx", "numpy", "zmq", "rich", "yaml", "transformers", "asyncio")
    program = (
        "import sys\nfrom ctl.main import run\nfrom ctl.signals import Signals\n"
        f"code = run({words!r}, Signals())\n"
        f"print(code, [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=WAIT_SECONDS,
        check=True,
    )
    assert done.stderr == "0 []\n"


def test_a_command_never_imports_mlx_or_numpy(coordinator):
    fake = coordinator(generate=generation("a"))
    prelude = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write("
        "str([n for n in ('mlx', 'numpy', 'transformers') if n in sys.modules])))"
    )
    done = shardctl("generate", "x", "--endpoint", fake.endpoint, prelude=prelude)
    assert (done.returncode, done.stderr) == (0, "[]")


def test_text_is_utf8_whatever_the_locale(coordinator):
    fake = coordinator(generate=generation("é日", "本"))
    done = shardctl("generate", "x", "--endpoint", fake.endpoint, LC_ALL="C", PYTHONUTF8="0")
    assert done.stdout == "é日本\n"


def test_a_signal_that_comes_while_a_finalizer_runs_is_not_lost(coordinator):
    """Python drops what is raised there."""
    fake = coordinator(generate=endless)
    prelude = """
import signal
from ctl import client
class Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        sum(range(1000))
stream = client.Client.stream
def interrupted(self, *arguments):
    for number, message in enumerate(stream(self, *arguments)):
        if number == 1:
            Finalized()
        yield message
client.Client.stream = interrupted
"""
    done = shardctl("generate", "x", "--endpoint", fake.endpoint, prelude=prelude)
    assert done.returncode == 130
    assert "Exception ignored" not in done.stderr
    fake.wait_for("cancel")

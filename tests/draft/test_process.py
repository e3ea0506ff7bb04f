"""A draft process, and a coordinator that the test plays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
import zmq

from daemon import messages as msg
from daemon.embedded import DRAFT, TARGET
from daemon.engine.digest import weights_digest
from daemon.engine.vocabulary import vocabulary_digest
from daemon.history import History
from tests.draft.talk import GREEDY, PROMPT, S1, S2, continuation

ROOT = Path(__file__).parents[2]
PATIENCE_MS = 60_000
CONSTANTS = {"sampling": GREEDY.to_wire(), "kv_bits": 0, "codecs": []}


class Rig:
    def __init__(self, folder: Path, draft: str = "embedded-draft") -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.LINGER, 0)
        port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.config = folder / "node.yaml"
        settings = {
            "node": {"name": "n", "state_dir": str(folder), "draft": draft},
            "coordinator": {"address": f"tcp://127.0.0.1:{port}"},
            "timeouts": {"heartbeat_s": 0.05},
            "log": {"format": "text"},
        }
        self.config.write_text(yaml.safe_dump(settings))
        self.peer = b""
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, parent: int | None = None) -> subprocess.Popen[str]:
        arguments = [str(self.config), "shardd", str(parent or os.getpid())]
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon.draft", *arguments],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def next(self, *kinds: type) -> Any:
        """The next message of these kinds; others are let pass."""
        while True:
            assert self.router.poll(PATIENCE_MS), f"no {kinds}"
            self.peer, data = self.router.recv_multipart()
            message = msg.decode(data)
            if isinstance(message, kinds):
                return message

    def say(self, *parts: bytes) -> None:
        self.router.send_multipart([self.peer, *parts])

    def ready(self) -> msg.DraftHello:
        """The hello of one that has loaded."""
        while (hello := self.next(msg.DraftHello)).token_seconds is None:
            pass
        self.say(msg.encode(msg.Welcome(5, "test")))
        found: msg.DraftHello = hello
        return found

    def propose(
        self, tokens: list[int], until: int, sequence: bytes = S1, *, since: int = 0, term: int = 5
    ) -> None:
        prefix_hash = History(tokens).hash_at(since)
        ask = msg.Propose(term, sequence, since, prefix_hash, tokens[since:], until, CONSTANTS)
        self.say(msg.encode(ask))

    def guesses(self, tokens: list[int], until: int) -> list[int]:
        """What is guessed after `tokens`; what was guessed of other ones before is let pass."""
        line = History(tokens)
        while len(line) < until:
            said = self.next(msg.Proposed)
            if (said.position, said.prefix_hash) == (len(line), line.hash_at(len(line))):
                line.extend(said.tokens)
        return line.tokens[len(tokens) :]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self.router.close()
        self.context.term()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_it_says_who_it_is_guesses_and_ends(rig: Rig) -> None:
    process = rig.start()
    hello = rig.ready()
    assert (hello.node, hello.node_incarnation, hello.pid) == ("n", "shardd", process.pid)
    assert (hello.model, hello.vocab_size) == ("embedded-draft", 1024)
    assert hello.digest == weights_digest(DRAFT)
    assert hello.vocabulary == vocabulary_digest(TARGET)
    assert hello.token_seconds
    prompt = [*PROMPT]
    rig.propose(prompt, 50)
    assert rig.guesses(prompt, 50) == continuation(DRAFT, PROMPT, 20)
    beat = rig.next(msg.DraftBeat)
    assert (beat.node, beat.incarnation, beat.sequences) == ("n", hello.incarnation, 1)
    rig.propose([*PROMPT, 1], 40, S2, since=30)
    assert rig.next(msg.DraftLags) == msg.DraftLags("n", hello.incarnation, S2, 0)
    process.terminate()
    assert process.wait(30) == 0


def test_a_new_word_replaces_the_one_before(rig: Rig) -> None:
    """A long prompt is being taken in: the other word is heard in between."""
    rig.start()
    rig.ready()
    rig.propose([(7 * n) % 1000 for n in range(3900)], 4000)
    rig.propose([*PROMPT], 60)
    first = rig.guesses([*PROMPT], 31)
    told = [*PROMPT, (first[0] + 1) % 1024]
    rig.propose(told, 36, since=30)
    assert rig.guesses(told, 36) == continuation(DRAFT, tuple(told), 5)


def test_garbage_changes_nothing(rig: Rig) -> None:
    rig.start()
    rig.ready()
    rig.say(b"")
    rig.say(b"GET / HTTP/1.1\r\n\r\n", b"more", bytes(100))
    rig.say(msg.encode(msg.Revoke(5, S1, 2)))
    rig.say(msg.encode(msg.Propose(5, S1, 0, 0, [1 << 40], 2, CONSTANTS)))
    rig.say(msg.encode(msg.Propose(5, S1, 0, 0, [1], 2, {"sampling": []})))
    rig.propose([1, 2, 3], 9, term=4)  # of a coordinator that was replaced
    rig.propose([*PROMPT], 33)
    assert rig.guesses([*PROMPT], 33) == continuation(DRAFT, PROMPT, 3)


def test_another_life_says_hello_again(rig: Rig) -> None:
    first = rig.start()
    before = rig.ready()
    rig.propose([*PROMPT], 64)
    rig.next(msg.Proposed)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    rig.start()
    after = rig.ready()
    assert after.incarnation != before.incarnation
    rig.propose([*PROMPT], 33, since=30)  # it holds nothing
    assert rig.next(msg.DraftLags).held == 0
    rig.propose([*PROMPT], 33)
    assert rig.guesses([*PROMPT], 33) == continuation(DRAFT, PROMPT, 3)


def test_whoever_does_not_know_it_is_told_again(rig: Rig) -> None:
    rig.start()
    hello = rig.ready()
    rig.say(msg.encode(msg.Identify(6)))
    again = rig.next(msg.DraftHello)
    assert (again.incarnation, again.term) == (hello.incarnation, 6)
    assert again.token_seconds


def test_it_ends_when_shardd_is_gone(rig: Rig) -> None:
    process = rig.start(parent=1)
    assert process.wait(60) == 0
    assert process.stderr
    assert "shardd is gone" in process.stderr.read()


@pytest.mark.parametrize(("draft", "why"), [("nothing", "known are embedded"), ("broken", "JSON")])
def test_a_model_that_cannot_be_loaded_is_not_tried_again(
    tmp_path: Path, draft: str, why: str
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{")
    rig = Rig(tmp_path, str(tmp_path / draft) if draft == "broken" else draft)
    try:
        process = rig.start()
        assert process.wait(60) == 78
        assert process.stderr
        assert why in process.stderr.read().splitlines()[-1]
    finally:
        rig.close()

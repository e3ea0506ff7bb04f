"""The draft process: a whole small model that guesses, and its control socket, in one thread.

Between two steps it takes in what has come, so that a new word on a sequence replaces the old one
at once; when nothing is to be guessed it waits.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import zmq

from daemon import logs
from daemon import messages as msg
from daemon.config import Config
from daemon.draft.control import Control
from daemon.draft.drafter import Drafter
from daemon.draft.model import DraftModel
from daemon.draft.watch import Watch
from daemon.engine import kernels
from daemon.service import settle

log = logs.get("draft")
KEPT_SECONDS = 600.0  # after a sequence was last asked for: the next turn may begin like it
AGAIN_SECONDS = 0.05  # between two attempts at saying hello
WEIGHT = 0.125  # of a new measurement


class Stopped(Exception):
    """SIGTERM came while the process was loading."""


class DraftProcess:
    def __init__(self, config: Config, node_incarnation: str, parent: int) -> None:
        """Reads what the model is: UnknownModel or LoadError."""
        self._config = config
        self._model = DraftModel.read(config.node.draft or "", config.models)
        self._node_incarnation = node_incarnation
        self._context: zmq.Context[Any] = zmq.Context()
        self._control = Control(self._context, config.node.name, secrets.token_hex(8))
        self._watch = Watch(parent, config.timeouts.heartbeat_s)
        self._drafter: Drafter | None = None
        self._token_seconds: float | None = None
        self._hello_due = True
        self._next_beat = 0.0
        self._stopping = False

    def stop(self) -> None:
        """From a signal handler: end after the step at hand."""
        self._stopping = True

    def run(self) -> None:
        """Until it is stopped. LoadError when the model cannot be loaded."""
        self._control.socket.connect(self._config.coordinator.address)
        self._watch.start()
        try:
            self._load()
            while not self._stopping:
                self._turn()
        except Stopped:
            log.info("stopped while loading")
        finally:
            self._watch.stop()
            self._control.close()
            self._context.term()

    def _load(self) -> None:
        log.info("loading %s to draft", self._model.name)
        with kernels.warming(f"draft {self._model.name}", lambda: self._loading(0, 0)):
            self._drafter, self._token_seconds = self._model.load(self._config.node, self._loading)
        log.info("%s drafts a token in %.1f ms", self._model.name, self._token_seconds * 1e3)
        self._hello_due = True
        settle()

    def _loading(self, done: int, total: int) -> None:
        if self._stopping:
            raise Stopped
        self._show()

    def _show(self) -> None:
        """Say hello when that is due, else a heartbeat."""
        now = time.monotonic()
        if self._hello_due:
            hello = self._control.hello(self._node_incarnation, self._model, self._token_seconds)
            self._hello_due = not hello
        elif now >= self._next_beat:
            self._next_beat = now + self._config.timeouts.heartbeat_s
            held = 0
            if self._drafter is not None:
                self._drafter.expire(now - KEPT_SECONDS)
                held = len(self._drafter)
            self._control.beat(self._token_seconds, held)

    def _turn(self) -> None:
        assert self._drafter is not None
        self._show()
        busy = self._drafter.busy
        due = AGAIN_SECONDS if self._hello_due else self._next_beat - time.monotonic()
        if self._control.socket.poll(0 if busy else max(1, int(due * 1000))):
            while message := self._control.hear():
                self._take(message, self._drafter)
        elif busy:
            self._step(self._drafter)

    def _take(self, message: msg.Message, drafter: Drafter) -> None:
        match message:
            case msg.Propose():
                self._propose(message, drafter)
            case msg.Welcome():
                log.info("joined cluster %s", message.cluster)
            case msg.Identify():
                self._hello_due = True
            case msg.Refused():
                log.error("refused: %s; %s; %s", message.what, message.why, message.todo)
                self._stopping = True
            case _:
                log.warning("dropped an unexpected %s", type(message).__name__)

    def _propose(self, asked: msg.Propose, drafter: Drafter) -> None:
        try:
            answer = drafter.propose(
                asked.sequence,
                asked.position,
                asked.prefix_hash,
                asked.tokens,
                asked.until,
                asked.constants,
                time.monotonic(),
            )
        except (KeyError, TypeError, ValueError) as error:
            log.warning("dropped a request for %s: %r", asked.sequence.hex(), error)
            return
        if answer:
            self._control.answer(answer)

    def _step(self, drafter: Drafter) -> None:
        began = time.monotonic()
        guesses = drafter.step()
        for guess in guesses:
            self._control.answer(guess)
        if guesses and self._token_seconds is not None:
            took = time.monotonic() - began
            self._token_seconds += WEIGHT * (took - self._token_seconds)

"""A draft's conversation with the coordinator."""

from __future__ import annotations

import os
from typing import Any

import zmq

from daemon import messages as msg
from daemon.control import Listener, dealer_options, say
from daemon.draft.drafter import Guess, Lag
from daemon.draft.model import DraftModel
from daemon.version import VERSION


class Control:
    """What is said while there is no connection is lost; what is heard of an old term is
    dropped.
    """

    def __init__(self, context: zmq.Context[Any], node: str, incarnation: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        dealer_options(self.socket, f"draft:{node}:{incarnation}")
        self._me = node, incarnation
        self._listener = Listener(self.socket)

    def say(self, message: msg.Message) -> bool:
        return say(self.socket, message)

    def hello(self, node_incarnation: str, model: DraftModel, token_seconds: float | None) -> bool:
        """Who this is, and which model it has; False when it has to be said again."""
        node, incarnation = self._me
        hello = msg.DraftHello(
            msg.PROTOCOL,
            VERSION,
            node,
            node_incarnation,
            incarnation,
            os.getpid(),
            model.name,
            model.digest,
            model.info.vocab_size,
            model.vocabulary,
            token_seconds,
            self._listener.term,
        )
        return self.say(hello)

    def beat(self, token_seconds: float | None, sequences: int) -> None:
        self.say(msg.DraftBeat(*self._me, token_seconds, sequences))

    def answer(self, answer: Guess | Lag) -> None:
        match answer:
            case Guess(sequence, position, prefix_hash, tokens):
                self.say(msg.Proposed(*self._me, sequence, position, prefix_hash, list(tokens)))
            case Lag(sequence, held):
                self.say(msg.DraftLags(*self._me, sequence, held))

    def hear(self) -> msg.Message | None:
        """The next message that is to be obeyed; None when none is there."""
        return self._listener.hear()

    def close(self) -> None:
        self.socket.close(linger=200)

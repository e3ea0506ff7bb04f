"""A stage's conversation with the coordinator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

import mlx.core as mx
import zmq

from daemon import logs
from daemon import messages as msg
from daemon.control import dealer_options, say
from daemon.engine.blas import running_blas
from daemon.stage.fence import Fence
from daemon.version import VERSION

log = logs.get("stage")


class Control:
    """What is said while there is no connection is lost; what is heard of an old term is dropped,
    and counted by its cause.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        node: str,
        incarnation: str,
        fence: Fence,
        count: Callable[[str], None],
    ) -> None:
        self.socket = context.socket(zmq.DEALER)
        dealer_options(self.socket, f"stage:{node}:{incarnation}")
        self._node = node
        self._incarnation = incarnation
        self._fence = fence
        self._count = count

    def connect(self, coordinator: str) -> None:
        self.socket.connect(coordinator)

    def say(self, message: msg.Message) -> bool:
        return say(self.socket, message)

    def answer(self, messages: Iterable[msg.Message]) -> None:
        for message in messages:
            self.say(message)

    def hello(self, node_incarnation: str, held: msg.Loaded | None) -> bool:
        """Who this is, and what it holds. False when it has to be said again."""
        hello = msg.StageHello(
            msg.PROTOCOL,
            VERSION,
            self._node,
            node_incarnation,
            self._incarnation,
            os.getpid(),
            metadata.version("mlx"),
            metadata.version("mlx-lm"),
            str(mx.default_device()),
            running_blas(),
            self._fence.term,
        )
        return self.say(hello) and (held is None or self.say(held))

    def hear(self) -> msg.Message | None:
        """The next message that is to be obeyed; one is there."""
        try:
            message = msg.decode(self.socket.recv(zmq.NOBLOCK))
        except msg.MessageError as error:
            self._count("control-malformed")
            log.warning("dropped a control message: %s", error)
            return None
        term = getattr(message, "term", None)
        if term is not None and not self._fence.see(term):
            self._count("control-old-term")
            return None
        return message

    def close(self) -> None:
        self.socket.close(linger=200)

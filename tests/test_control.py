"""What the processes of a node hear of a coordinator."""

from __future__ import annotations

from typing import Any

import zmq

from daemon import messages as msg
from daemon.control import Listener


def test_a_coordinator_that_was_replaced_is_not_obeyed() -> None:
    context: zmq.Context[Any] = zmq.Context()
    said, heard = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    try:
        heard.bind("inproc://said")
        said.connect("inproc://said")
        listener = Listener(heard, term=2)
        assert listener.hear() is None
        for term in (2, 1, 3, 2):
            said.send(msg.encode(msg.Identify(term)))
            said.send(b"no message")
        assert [listener.hear() for _ in range(3)] == [msg.Identify(2), msg.Identify(3), None]
        assert listener.term == 3
    finally:
        said.close(linger=0)
        heard.close(linger=0)
        context.term()

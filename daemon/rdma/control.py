"""The rdma process's conversation with the coordinator."""

from __future__ import annotations

import os
from typing import Any

import zmq

from daemon import messages as msg
from daemon.control import Listener, dealer_options, say
from daemon.rdma.counters import Counters
from daemon.rdma.probing import Finding


class Control:
    """What is said while there is no connection is lost; what is heard of an old term is
    dropped.
    """

    def __init__(
        self, context: zmq.Context[Any], node: str, incarnation: str, start: msg.RdmaStart
    ) -> None:
        """`incarnation` is that of the shardd."""
        self.socket = context.socket(zmq.DEALER)
        dealer_options(self.socket, f"rdma:{node}:{incarnation}:{start.group}")
        self._me = node, incarnation, start.group
        self._rank = start.rank
        self._listener = Listener(self.socket, start.term)

    def joined(self, seconds: float, reach: list[int]) -> bool:
        """False when it has to be said again."""
        return say(self.socket, msg.RdmaJoined(*self._me, self._rank, reach, os.getpid(), seconds))

    def probed(self, found: Finding) -> None:
        numbers = found.round_trip_seconds, found.bytes_per_second
        say(self.socket, msg.RdmaProbed(*self._me, found.probe, found.peer, *numbers, found.why))

    def beat(self, stage: bool, counters: Counters) -> None:
        handover = counters.handover
        say(
            self.socket,
            msg.RdmaBeat(
                *self._me,
                self._rank,
                stage,
                counters.frames_out,
                counters.bytes_out,
                counters.frames_in,
                counters.bytes_in,
                dict(counters.dropped),
                handover.percentile(0.5),
                handover.percentile(0.99),
            ),
        )

    def hear(self) -> msg.Message | None:
        """The next message that is to be obeyed; None when none is there."""
        return self._listener.hear()

    def close(self) -> None:
        self.socket.close(linger=200)

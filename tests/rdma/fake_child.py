"""`python -m tests.rdma.fake_child`: what shardd can be given in the place of `daemon.rdma`, with
the same arguments. How it goes wrong stands in $FAKE_RDMA, as WHAT or WHAT:MORE:

    silent        never joins, never ends
    exit:TEXT     TEXT as the last line of stderr, exit code 1, before it joins
    segfault      joins, connects to the stage, and dies by SIGSEGV at the first frame
    abort         the same by SIGABRT, as when MLX throws where nobody catches it
    spin          joins and connects; at the first frame a core goes to 100 %, and nothing turns
    midframe      joins and connects; at the first frame it gives the stage half a frame, and stops
    lies          the same with what cannot be, in the region
    probes:WHY    joins, connects, takes frames and loses them; every probe ends with WHY
    works         the same, and every probe goes well

Nothing goes from one of them to another: there is no group.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import zmq

from daemon import messages as msg
from daemon.config import Config, load
from daemon.control import dealer_options, say
from transports.shared.folder import socket_path
from transports.shared.greeting import GreetingError, Peer
from transports.shared.lanes import Hangup
from transports.shared.layout import up
from transports.shared.stage_end import StageEnd, connect

BEAT_S = 0.02
HALF = 1 << 20  # of a payload, of which only the first piece comes


class FakeChild:
    def __init__(self, config: Config, incarnation: str, start: msg.RdmaStart, fault: str) -> None:
        self._config = config
        self._incarnation = incarnation
        self._start = start
        self._what, _, self._more = fault.partition(":")
        size = len(start.hosts)
        self._reach = [rank for rank in range(size) if rank != start.rank]
        peer = Peer(start.group, start.rank, size, frozenset(self._reach), os.getpid())
        self._peer = peer
        self._end: StageEnd | None = None
        self._hung = False

    def run(self) -> None:
        if self._what == "exit":
            sys.exit(self._more or "it failed")
        threading.Thread(target=self._serve_stage, daemon=True).start()
        context: zmq.Context[Any] = zmq.Context()
        control = context.socket(zmq.DEALER)
        start = self._start
        me = self._config.node.name, self._incarnation, start.group
        dealer_options(control, f"rdma:{me[0]}:{me[1]}:{me[2]}")
        control.connect(self._config.coordinator.address)
        joined = msg.RdmaJoined(*me, start.rank, self._reach, os.getpid(), 0.0)
        said = self._what == "silent"
        while True:
            if self._hung:
                self._hang()
            said = said or say(control, joined)
            if self._end:
                self._end.beat()
            if not control.poll(int(BEAT_S * 1000)):
                continue
            match msg.decode(control.recv()):
                case msg.RdmaProbe(_, _, probe, peer):
                    why = self._more if self._what == "probes" else ""
                    say(control, msg.RdmaProbed(*me, probe, peer, 1e-4, 1e9, why))
                case msg.Identify() | msg.RdmaStart():
                    said = False

    def _serve_stage(self) -> None:
        while self._what != "silent":
            try:
                self._end = connect(socket_path(self._config.node.state_dir), self._peer, 60.0)
                while piece := self._end.reader.take(wait=True):
                    if piece.stop == piece.head.total:
                        self._end.reader.free()
                    self._frame_came(self._end)
            except (OSError, GreetingError, Hangup):
                time.sleep(BEAT_S)

    def _frame_came(self, end: StageEnd) -> None:
        match self._what:
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "abort":
                os.kill(os.getpid(), signal.SIGABRT)
            case "spin":
                self._hung = True
                self._hang()
            case "midframe":
                end.writer.begin(1, self._start.rank, self._reach[0], HALF, time.monotonic_ns())
                end.writer.publish()
                self._hung = True
                self._hang()
            case "lies":
                slots = up(end.writer.capacity).slots
                end.writer.begin(1, self._start.rank, self._reach[0], 8, time.monotonic_ns())
                end.region.words[slots] = 12345
                end.writer.publish()

    def _hang(self) -> NoReturn:
        """Neither beats nor answers any more, and burns a core if that is asked for."""
        while True:
            if self._what != "spin":
                signal.pause()


def main() -> None:
    start = msg.decode(bytes.fromhex(sys.argv[4]))
    assert isinstance(start, msg.RdmaStart)
    fault = os.environ.get("FAKE_RDMA", "works")
    FakeChild(load(Path(sys.argv[1])), sys.argv[2], start, fault).run()


if __name__ == "__main__":
    main()

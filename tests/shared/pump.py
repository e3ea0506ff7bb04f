"""A group without processes and MLX: a thread for each rank that carries what its stage sends to
the stage it is for.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from transports.shared.greeting import GreetingError, Peer
from transports.shared.lanes import Hangup, Piece
from transports.shared.layout import further_pieces
from transports.shared.message import plan
from transports.shared.stage_end import StageEnd, connect

_BEAT_S = 0.005


class Pump:
    """Connects to the ports at `paths`, as rank i to the i-th, again and again until `stop`. When
    one of them goes, all are left at once, as when a member of a group is lost.
    """

    def __init__(self, paths: Sequence[Path], group: int = 1) -> None:
        self._paths = list(paths)
        self._group = group
        self._ends: list[StageEnd] = []
        self._cut = self._stopping = False
        self._stalled = threading.Event()
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="pump")
        self._keeper.start()

    # --- faults ---

    def stall(self, stalled: bool = True) -> None:
        """Neither carries nor beats, as when it is stopped."""
        (self._stalled.set if stalled else self._stalled.clear)()

    def cut(self) -> None:
        """Leave all ports, and do not come back before `restore`."""
        self._cut = True
        self._over.set()

    def restore(self) -> None:
        self._cut = False

    def stop(self) -> None:
        self._stopping = True
        self._over.set()
        self._stalled.clear()
        self._keeper.join()

    def inject(self, rank: int, parts: Sequence[bytes]) -> None:
        """Give the stage of that rank a message of these parts, whatever they are."""
        while len(self._ends) < len(self._paths):
            time.sleep(_BEAT_S)
        total, buffers = plan(parts)
        writer = self._ends[rank].writer
        assert writer.begin(1, rank, 0, total, 0)
        writer.payload[:] = b"".join(buffers)
        for _ in [0, *further_pieces(total)]:
            writer.publish()

    # --- the group ---

    def _keep(self) -> None:
        while not self._stopping:
            self._over.clear()
            if self._cut or not self._connect():
                self._over.wait(_BEAT_S)
                continue
            threads = [
                threading.Thread(target=self._carry, args=(rank,), name=f"pump {rank}")
                for rank in range(len(self._ends))
            ]
            for thread in threads:
                thread.start()
            while not self._over.wait(_BEAT_S):
                if not self._stalled.is_set():
                    for end in self._ends:
                        end.beat()
            for end in self._ends:
                end.hang_up()
            for thread in threads:
                thread.join()
            for end in self._ends:
                end.close()

    def _connect(self) -> bool:
        self._ends = []
        everyone = frozenset(range(len(self._paths)))
        for rank, path in reversed(list(enumerate(self._paths))):
            peer = Peer(self._group, rank, len(self._paths), everyone - {rank}, os.getpid())
            try:
                self._ends.insert(0, connect(path, peer, 0.2))
            except (OSError, GreetingError):
                for end in self._ends:
                    end.close()
                return False
        return True

    def _carry(self, rank: int) -> None:
        reader = self._ends[rank].reader
        try:
            while piece := reader.take(wait=True):
                while self._stalled.is_set() and not self._over.wait(_BEAT_S):
                    pass
                self._forward(rank, piece)
                if piece.stop == piece.head.total:
                    reader.free()
        except Hangup:
            self._over.set()

    def _forward(self, rank: int, piece: Piece) -> None:
        head, start, stop, _, memory = piece
        end = self._ends[head.dest]
        while start == 0 and not end.writer.begin(
            head.kind, head.dest, rank, head.total, head.stamp
        ):
            end.wait()
        end.writer.payload[start:stop] = memory[start:stop]
        while not end.writer.can_publish():
            end.wait()
        end.writer.publish()

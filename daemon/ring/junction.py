"""Where the two paths to a stage meet: which of them is read, when the sender goes over.

Each path keeps the order of its frames. A sender that goes over says so on both (transports.frame
Turn): the last frame on the path that it leaves, the first on the one that it takes. What comes
behind the first is held until the last has come, so that nothing overtakes. A path can die with
frames on it, so it is held for no longer than HOLD_SECONDS, and not at all when the other path is
closed; what overtakes then is put right by the frame rule (DESIGN.md §3).

    path left      ... frame, Turn(7, last)
    path taken               Turn(7), frame ...         held from here until Turn(7, last)
"""

from __future__ import annotations

from daemon.hop_path import HopPath
from transports.frame import Turn

HOLD_SECONDS = 0.05  # many times what a frame may lag behind on one path, and no pause to a reader

Number = tuple[int, int]  # term and turn
_NONE: Number = (0, 0)


class Junction:
    """`held` is the path that is not to be read now, None: both are; `until` a time, or before."""

    def __init__(self) -> None:
        self.held: HopPath | None = None
        self.until = 0.0
        self._number = _NONE  # of the turn that it is held for
        self._ended = dict.fromkeys(HopPath, _NONE)  # the newest `last` that came by each
        self._open = {HopPath.ZMQ}

    def opened(self, path: HopPath) -> None:
        """Frames may come by it."""
        self._open.add(path)

    def closed(self, path: HopPath) -> None:
        """What has not come by it yet never will."""
        self._open.discard(path)
        if self.held is path.other:
            self.held = None

    def turned(self, path: HopPath, term: int, turn: Turn, now: float) -> None:
        """This came by `path`, which is read now."""
        number = (term, turn.number)
        if turn.last:
            self._ended[path] = max(self._ended[path], number)
            if self.held is path.other and self._number <= number:
                self.held = None
            return
        if self.held is path.other:
            if number <= self._number:
                return  # it came twice
            self.held = None  # a later turn back to this path: the last one before it is lost
        if self._ended[path.other] < number and path.other in self._open:
            self.held, self.until, self._number = path, now + HOLD_SECONDS, number

    def tick(self, now: float) -> None:
        if self.held is not None and now >= self.until:
            self.held = None

    def check_integrity(self) -> None:
        if self.held is not None:
            assert self._number > self._ended[self.held.other], "junction: held for nothing"
            assert self.held.other in self._open, "junction: nothing can come before it"

"""Where the two paths to a stage meet: which of them is read, when the sender goes over.

Each path keeps the order of its frames. A sender that goes over says so on both (transports.frame
Turn): the last frame on the path that it leaves, the first on the one that it takes. What comes
behind the first is held until the last has come, so that nothing overtakes, however slowly what is
there already is read. A path can die with frames on it, so that one that stays empty is not waited
for for ever, and one that is closed not at all; what overtakes then is put right by the frame rule
(DESIGN.md §3).

    path left      ... frame, Turn(7, last)
    path taken               Turn(7), frame ...         held from here until Turn(7, last)
"""

from __future__ import annotations

import math

from daemon.hop_path import HopPath
from transports.frame import Turn

# A frame of 64 MB takes 0.6 s in Gigabit Ethernet, and shows only when it is whole.
HOLD_SECONDS = 1.0
DOWN_SECONDS = 0.05  # when nobody is at the other end any more

Number = tuple[int, int]  # term and turn
_NONE: Number = (0, 0)


class Junction:
    """`held` is the path that is not to be read now, None: both are. `until`: so long, if the other
    one stays empty; infinite before it was found so.
    """

    def __init__(self) -> None:
        self.held: HopPath | None = None
        self.until = math.inf
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

    def turned(self, path: HopPath, term: int, turn: Turn) -> None:
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
            self.held, self.until, self._number = path, math.inf, number

    def busy(self) -> None:
        """The path that is waited for has something to be read."""
        self.until = math.inf

    def empty(self, now: float, up: bool = True) -> None:
        """It was looked at and has nothing; `up`: there is somebody at its other end."""
        self.until = min(self.until, now + (HOLD_SECONDS if up else DOWN_SECONDS))
        if now >= self.until:
            self.held = None

    def check_integrity(self) -> None:
        if self.held is not None:
            assert self._number > self._ended[self.held.other], "junction: held for nothing"
            assert self.held.other in self._open, "junction: nothing can come before it"

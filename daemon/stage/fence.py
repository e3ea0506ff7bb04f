"""Whose frames a stage obeys: only those of the highest term it has seen, and of its own epoch."""

from __future__ import annotations

from collections import Counter, deque
from enum import Enum

from transports.frame import Frame

MAX_HELD = 64  # more than any pipe has in flight


class Verdict(Enum):
    ADMIT = "admit"
    HOLD = "hold"  # kept here until its epoch is assigned
    DROP = "drop"


class Fence:
    """A frame of a layout that this stage has not been told of yet is held: the control message
    that tells may be slower than the frame.
    """

    def __init__(self) -> None:
        self.term = 0
        self.epoch = 0
        self.dropped: Counter[str] = Counter()
        self._held: deque[Frame] = deque()

    @property
    def held(self) -> int:
        return len(self._held)

    def see(self, term: int) -> bool:
        """A control message of `term` came. False when it is of a coordinator that was replaced,
        and must be ignored. A higher term ends the assignment of the lower one.
        """
        if term > self.term:
            self.term, self.epoch = term, 0
            self._drop_held_below()
        return term == self.term

    def assign(self, term: int, epoch: int) -> list[Frame]:
        """This stage has its place in (term, epoch). Returns the frames held for it, in order; the
        caller handles them before any other. An assignment older than the present one changes
        nothing.
        """
        if (term, epoch) <= (self.term, self.epoch):
            return []
        self.term, self.epoch = term, epoch
        self._drop_held_below()
        ready = [f for f in self._held if (f.term, f.epoch) == (term, epoch)]
        self._held = deque(f for f in self._held if (f.term, f.epoch) > (term, epoch))
        return ready

    def judge(self, frame: Frame) -> Verdict:
        """Every frame is shown here first. HOLD means the fence has kept it."""
        layout, own = (frame.term, frame.epoch), (self.term, self.epoch)
        if layout == own:
            return Verdict.ADMIT
        if layout < own:
            self.dropped["old_term" if frame.term < self.term else "old_epoch"] += 1
            return Verdict.DROP
        if len(self._held) >= MAX_HELD:
            self.dropped["held_overflow"] += 1
            return Verdict.DROP
        self._held.append(frame)
        return Verdict.HOLD

    def clear(self) -> None:
        """The model was unloaded: no frame that waits can be computed."""
        self._held.clear()

    def check_integrity(self) -> None:
        assert len(self._held) <= MAX_HELD, "fence: holds too much"
        own = (self.term, self.epoch)
        assert all((f.term, f.epoch) > own for f in self._held), "fence: holds what it may admit"

    def _drop_held_below(self) -> None:
        own = (self.term, self.epoch)
        kept = deque(f for f in self._held if (f.term, f.epoch) >= own)
        if len(kept) < len(self._held):
            self.dropped["held_too_long"] += len(self._held) - len(kept)
        self._held = kept

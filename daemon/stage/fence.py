"""Whose frames a stage obeys: only those of the highest term it has seen, and of its own epoch."""

from __future__ import annotations

from collections import Counter, deque
from enum import Enum

from transports.frame import Frame

MAX_HELD = 8  # frames: the first ones of a layout; what does not fit is issued again


class Verdict(Enum):
    ADMIT = "admit"
    HOLD = "hold"  # kept here until its epoch is assigned
    DROP = "drop"


class Fence:
    """Frames of one layout that this stage has not been told of yet are held, the newest of the own
    term: the control message that tells may be slower than the frames. No epoch is 0: that is a
    stage without a place.
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
            self._drop_held()
        return term == self.term

    def assign(self, term: int, epoch: int) -> list[Frame]:
        """This stage has its place in (term, epoch). Returns the frames held for it, in order; the
        caller handles them before any other. An assignment older than the present one changes
        nothing.
        """
        if (term, epoch) <= (self.term, self.epoch):
            return []
        self.term, self.epoch = term, epoch
        if self._held and (self._held[-1].term, self._held[-1].epoch) < (term, epoch):
            self._drop_held()
        if not self._held or self._held[-1].epoch > epoch:
            return []
        ready = list(self._held)
        self._held.clear()
        return ready

    def judge(self, frame: Frame) -> Verdict:
        """Every frame is shown here first. HOLD means the fence has kept it."""
        if frame.term != self.term:
            self.dropped["old_term" if frame.term < self.term else "unknown_term"] += 1
            return Verdict.DROP
        if frame.epoch == self.epoch > 0:
            return Verdict.ADMIT
        newest = self._held[-1].epoch if self._held else self.epoch + 1
        if frame.epoch <= self.epoch or frame.epoch < newest:
            self.dropped["old_epoch"] += 1
            return Verdict.DROP
        if frame.epoch > newest:
            self._drop_held()
        if len(self._held) >= MAX_HELD:
            self.dropped["held_overflow"] += 1
            return Verdict.DROP
        self._held.append(frame)
        return Verdict.HOLD

    def clear(self) -> None:
        """The model was unloaded: nothing that is held can be computed any more."""
        self._drop_held()

    def check_integrity(self) -> None:
        assert len(self._held) <= MAX_HELD, "fence: holds too much"
        assert len({(f.term, f.epoch) for f in self._held}) <= 1, "fence: holds several layouts"
        assert all(f.term == self.term for f in self._held), "fence: holds another term"
        assert all(f.epoch > self.epoch for f in self._held), "fence: holds what it may admit"

    def _drop_held(self) -> None:
        if self._held:
            self.dropped["held_too_long"] += len(self._held)
            self._held.clear()

"""What may go wrong on an in-memory link, when asked to."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Faults:
    """Probabilities from 0 to 1, per frame; change them at any time, they hold for what is sent
    from then on.

    `drop`: lost without a word. `duplicate`: delivered twice. `reorder`: put at a random place
    among those that wait. `hold`: held back until 1 to `hold_most` others were delivered, or the
    receiver found nothing else as often. `latency_s`: every frame is ready only so long after it
    was sent, on the network's clock. `drop_next`: so many of the next frames are lost, for tests
    that want one certain loss.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    hold: float = 0.0
    hold_most: int = 3
    latency_s: float = 0.0
    drop_next: int = 0

    def copies(self, rng: random.Random) -> int:
        """How often the next frame is put on the link: 0, 1 or 2."""
        if self.drop_next > 0:
            self.drop_next -= 1
            return 0
        if self.drop and rng.random() < self.drop:
            return 0
        return 2 if self.duplicate and rng.random() < self.duplicate else 1

    def place(self, waiting: int, rng: random.Random) -> int:
        """Before which of those that wait it is put; `waiting` is behind all of them."""
        if self.reorder and rng.random() < self.reorder:
            return rng.randint(0, waiting)
        return waiting

    def held(self, rng: random.Random) -> int:
        """How many deliveries it is held back."""
        if self.hold and rng.random() < self.hold:
            return rng.randint(1, self.hold_most)
        return 0

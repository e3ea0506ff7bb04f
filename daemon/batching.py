"""What of several sequences a model can take in one forward: the engine finds it out, the scheduler
goes by it.
"""

from __future__ import annotations

from enum import Enum

MOST_TOGETHER = 64  # positions of a sequence that takes in more go through the forward alone


class Batching(Enum):
    """From the least to the most."""

    ALONE = "alone"  # each sequence has a pass of its own
    PADDED = "padded steps"  # one position of each, with keys filled up to the longest
    STEPS = "steps"  # one position of each
    SPANS = "spans"  # several positions of each

"""What the cluster machine is told when it is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds. A stage is ended when it is silent for `dead_after`, when it sits on an overdue
    frame for `hung_after`, or when its process has not said hello `join_within` after its shardd
    first named it. Nothing is asked of a member twice within `ask_again_after`. A node of the
    layout that is silent for `replan_after` is done without, if the others can hold the model.

    A rebalance is given up when nothing was loaded for `prepare_within`, or when nothing went on
    for `switch_within` once the barrier was sent. Copying ends when each has at most
    `copied_enough` bytes left, which go behind the barrier; how fast it goes is known after
    `measured_after`, and that it never ends when no less is left for `copy_within`.
    """

    cluster: str
    local_node: str
    chunk_tokens: int
    dead_after: float = 2.5
    hung_after: float = 3.0
    join_within: float = 60.0
    load_again_after: float = 10.0
    ask_again_after: float = 2.0
    settle_after: float = 3.0
    replan_after: float = 15.0
    prepare_within: float = 60.0
    copied_enough: int = 1 << 18
    measured_after: float = 2.0
    copy_within: float = 10.0
    switch_within: float = 5.0

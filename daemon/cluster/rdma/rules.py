"""What the machine of RDMA groups is told when it is made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RdmaRules:
    """Seconds. Nothing is asked of a process twice within `ask_again_after`. A pipeline's nodes
    have `gather_within` to say what they offer. A group must stand within `join_within`, and a
    probe be answered within `probe_within`; one that failed is made again `probe_again_after`
    later. A hop comes back to RDMA after `good_to_return` good probes, `between_probes` apart.

    A group that has ended is followed by another after `first_pause`, then twice that, up to
    `longest_pause`, and begins anew once one has lasted for `settled_after`. After `most_failures`
    starts in a row that came to nothing there is none until a machine has changed. Hops leave a
    group that ends as planned for `leave_within` before it does.
    """

    ask_again_after: float = 2.0
    gather_within: float = 5.0
    join_within: float = 35.0
    probe_within: float = 12.0  # the process gives a probe ten
    probe_again_after: float = 30.0
    good_to_return: int = 3
    between_probes: float = 1.0
    first_pause: float = 2.0
    longest_pause: float = 300.0
    settled_after: float = 30.0
    most_failures: int = 2
    leave_within: float = 0.5

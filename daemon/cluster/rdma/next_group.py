"""Over which nodes the next group is to be, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.cluster.rdma.attempts import Attempts
from daemon.cluster.rdma.group import Group, Phase
from daemon.cluster.rdma.offers import Offers


@dataclass(frozen=True, slots=True)
class NextGroup:
    """`members` are none where `why` says why; `soon`: that passes by itself, in seconds."""

    members: tuple[str, ...] = ()
    why: str = ""
    soon: bool = False


def next_group(
    pipeline: tuple[str, ...], offers: Offers, attempts: Attempts, gathering: bool, now: float
) -> NextGroup:
    """`gathering`: nodes that have not said what they offer may still do so."""
    unheard = [node for node in pipeline if offers.of(node) is None]
    if unheard and gathering:
        return NextGroup(why=f"{unheard[0]} has not said what it offers", soon=True)
    run = offers.longest_run(pipeline)
    if not run:
        return NextGroup(why="no two neighbours offer the same")
    if why := attempts.obstacle(run, now):
        return NextGroup(why=why)
    return NextGroup(run)


def newcomers(
    group: Group, pipeline: tuple[str, ...], offers: Offers, attempts: Attempts
) -> list[str]:
    """Who could be in the next group, and is not in this one."""
    run = offers.longest_run(pipeline)
    if group.phase is not Phase.STANDING or group.trial or attempts.quarantined(run):
        return []
    return [node for node in run if node not in group.members]

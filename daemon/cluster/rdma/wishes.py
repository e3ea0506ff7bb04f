"""Which path each hop is to use, and why not RDMA."""

from __future__ import annotations

from daemon.cluster.rdma.events import WishPath
from daemon.cluster.rdma.group import Group, Phase
from daemon.cluster.rdma.offers import Offers
from daemon.cluster.rdma.trials import Trials
from daemon.hop_path import HopPath


def wish(
    sender: str, receiver: str, group: Group | None, offers: Offers, trials: Trials, waits: str
) -> WishPath:
    """Of the hop from the one to the other. `waits`: why there is no group, when there is none."""
    if group is None or group.trial:
        testing = "a test is under way" if group else ""
        return _zmq(sender, testing or offers.between(sender, receiver) or waits)
    strangers = [node for node in (sender, receiver) if node not in group.members]
    if strangers:
        why = offers.obstacle(strangers[0]) or (
            f"{strangers[0]} is not in the group: it comes in when nothing runs"
        )
        return _zmq(sender, why)
    if group.phase is Phase.LEAVING:
        return _zmq(sender, group.why)
    if group.phase is not Phase.STANDING:
        return _zmq(sender, "the group is being started")
    if not group.reaches(sender, receiver):
        return _zmq(sender, "the two are not neighbours in the group")
    if deaf := [node for node in (sender, receiver) if node in group.deaf]:
        return _zmq(sender, f"the stage of {deaf[0]} is not connected to its rdma process")
    trial = trials[sender, receiver]
    if trial is None or not trial.passed:
        why = trial.in_words() if trial else "it is not probed yet"
        return _zmq(sender, why)
    rank = group.rank(receiver)
    assert rank is not None
    return WishPath(sender, HopPath.RDMA, group.number, rank, "")


def _zmq(sender: str, why: str) -> WishPath:
    return WishPath(sender, HopPath.ZMQ, 0, 0, why)

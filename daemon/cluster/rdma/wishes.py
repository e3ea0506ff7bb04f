"""Which path each hop is to use, and why not RDMA."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.cluster.rdma.group import Group, Phase
from daemon.cluster.rdma.offers import Offers, hops
from daemon.cluster.rdma.trials import Trials
from daemon.cluster.wish import NOT_ENABLED, Wish
from daemon.hop_path import HopPath


class Wishes:
    """What is wished of the hops of a pipeline, as they were told last."""

    def __init__(self) -> None:
        self._last: dict[str, Wish] = {}

    def of(self, pipeline: Sequence[str]) -> list[Wish]:
        """In its order."""
        return [self._last[node] for node, _ in hops(pipeline) if node in self._last]

    def forget(self) -> None:
        """The pipeline is another one."""
        self._last.clear()

    def renew(
        self,
        pipeline: Sequence[str],
        group: Group | None,
        offers: Offers,
        trials: Trials,
        waits: str,
        enabled: bool,
    ) -> list[Wish]:
        """Those that are other ones now."""
        found = [
            wish(*hop, group, offers, trials, waits) if enabled else Wish(hop[0], why=NOT_ENABLED)
            for hop in hops(pipeline)
        ]
        fresh = [one for one in found if one != self._last.get(one.sender)]
        self._last.update((one.sender, one) for one in fresh)
        return fresh

    def check_integrity(self, group: Group | None, enabled: bool) -> None:
        used = {wish.group for wish in self._last.values() if wish.path is HopPath.RDMA}
        assert not used or enabled, "a hop uses RDMA, which is not enabled"
        assert used <= {group.number if group else 0}, "a hop uses another group"


def wish(
    sender: str, receiver: str, group: Group | None, offers: Offers, trials: Trials, waits: str
) -> Wish:
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
    return Wish(sender, HopPath.RDMA, group.number, rank, "")


def _zmq(sender: str, why: str) -> Wish:
    return Wish(sender, why=why)

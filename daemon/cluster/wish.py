"""Which path a hop is to use."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.hop_path import HopPath

NOT_ENABLED = "it is not enabled"


@dataclass(frozen=True, slots=True)
class Wish:
    """For the hop that leaves stage `sender`: by RDMA to `rank` of `group`, or by ZeroMQ because of
    `why`.
    """

    sender: str
    path: HopPath = HopPath.ZMQ
    group: int = 0
    rank: int = 0
    why: str = NOT_ENABLED

    @property
    def way(self) -> tuple[HopPath, int, int]:
        return (self.path, self.group, self.rank)

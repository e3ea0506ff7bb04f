"""The ways that frames can take from one stage to the next."""

from __future__ import annotations

from enum import StrEnum


class HopPath(StrEnum):
    """The value is what messages and `shardctl` say."""

    ZMQ = "zmq"  # always there
    RDMA = "rdma"  # by the process of that name, where both ends have one in the same group

    @property
    def other(self) -> HopPath:
        return HopPath.RDMA if self is HopPath.ZMQ else HopPath.ZMQ


class PathLoss(StrEnum):
    """How RDMA can end under a stage."""

    GONE = "gone"  # the process ended
    STALLED = "stalled"  # it is there, but does nothing any more
    DAMAGED = "damaged"  # what it says makes no sense

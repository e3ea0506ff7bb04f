"""The sending end of the ring: by the path in force, and by ZeroMQ the moment that RDMA ends."""

from __future__ import annotations

from dataclasses import dataclass

from daemon import logs
from daemon.hop_path import HopPath, PathLoss
from transports.base import LinkSender
from transports.errors import LinkError, LinkStalled
from transports.frame import Frame, FrameKind, Turn
from transports.shared.port import SharedPort

log = logs.get("ring")


@dataclass(frozen=True, slots=True)
class Broken:
    """RDMA did not take a frame, which went by ZeroMQ instead."""

    reason: PathLoss
    why: str


class Outgoing:
    """`sender` is the way over ZeroMQ, which is always there. `broken` is set when RDMA was left
    because of an error, until the next turn to it.
    """

    def __init__(self, sender: LinkSender, port: SharedPort | None) -> None:
        self.sender = sender
        self.broken: Broken | None = None
        self._port = port
        self._rdma: LinkSender | None = None
        self._rank = 0

    @property
    def path(self) -> HopPath:
        return HopPath.ZMQ if self._rdma is None else HopPath.RDMA

    @property
    def state(self) -> str:
        return (self._rdma or self.sender).state.value

    def send(self, frame: Frame) -> None:
        """A TransportError means that it was not handed over."""
        if self._rdma is not None:
            try:
                self._rdma.send(frame)
                return
            except LinkError as error:
                reason = PathLoss.STALLED if isinstance(error, LinkStalled) else PathLoss.GONE
                self.broken = Broken(reason, str(error))
                self.leave()
        self.sender.send(frame)

    def leave(self) -> None:
        """Nothing more goes by RDMA, also not that it was left."""
        if self._rdma is not None:
            self._rdma.close()
            self._rdma = None

    def take_rdma(self, group: int, rank: int, layout: tuple[int, int], turn: int) -> str:
        """From the next frame on. Returns why not."""
        peer = self._port.peer if self._port else None
        if self._port is None or peer is None:
            return "no rdma process is connected to the stage"
        if peer.group != group:
            return f"the rdma process is of group {peer.group}"
        if rank not in peer.reach:
            return f"the rdma process does not reach rank {rank}"
        if self._rdma is not None:
            return "" if rank == self._rank else f"frames go to rank {self._rank}"
        rdma = self._port.sender(rank)
        try:
            rdma.send(_turn(layout, turn, last=False))
        except LinkError as error:
            return str(error)
        self._say_last(self.sender, layout, turn)
        self._rdma, self._rank, self.broken = rdma, rank, None
        return ""

    def take_zmq(self, layout: tuple[int, int], turn: int) -> str:
        """The same the other way; RDMA goes on to work, for others too."""
        rdma = self._rdma
        if rdma is None:
            return ""
        try:
            self.sender.send(_turn(layout, turn, last=False))
        except LinkError as error:
            return str(error)
        self._say_last(rdma, layout, turn)
        rdma.close()
        self._rdma = None
        return ""

    def close(self, linger: float) -> None:
        self.leave()
        self.sender.close(linger)

    def _say_last(self, link: LinkSender, layout: tuple[int, int], turn: int) -> None:
        try:
            link.send(_turn(layout, turn, last=True))
        except LinkError as error:  # then nobody waits for it for long
            log.info("the path that is left does not work: %s", error)


def _turn(layout: tuple[int, int], number: int, last: bool) -> Frame:
    term, epoch = layout
    return Frame(FrameKind.WORK, term, epoch, 0, commands=(Turn(number, last),))

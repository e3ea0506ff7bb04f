"""What lies between the ends of an in-memory link: the frames under way, and whether they get
through.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from transports.faults import Faults
from transports.frame import Frame
from transports.records import Buffer

Cargo = Frame | list[Buffer]


@dataclass(slots=True)
class Parcel:
    """One frame under way. `owner` is the sender's number, `hold` the deliveries that must come
    first.
    """

    owner: int
    cargo: Cargo
    due: float
    hold: int


class End(Protocol):
    """An end that wants to know when its channel changed."""

    def channel_changed(self) -> None:
        """Called with the network's lock held."""


class Channel:
    """Everything that waits for one name. Its network's lock guards it."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.parcels: list[Parcel] = []
        self.senders: dict[int, End] = {}
        self.receiver: End | None = None
        self.severed = False
        self.stalled = False

    @property
    def connected(self) -> bool:
        return self.receiver is not None and not self.severed

    @property
    def readable(self) -> bool:
        return bool(self.parcels) and not self.stalled

    def waiting_of(self, owner: int) -> int:
        return sum(p.owner == owner for p in self.parcels)

    def put(self, owner: int, cargo: Cargo, now: float, rng: random.Random) -> None:
        for _ in range(self.faults.copies(rng)):
            parcel = Parcel(owner, cargo, now + self.faults.latency_s, self.faults.held(rng))
            self.parcels.insert(self.faults.place(len(self.parcels), rng), parcel)
        self.changed()

    def take(self, now: float) -> Cargo | None:
        """The first parcel that is ready. A miss counts as a delivery, so that nothing is held for
        ever.
        """
        if self.stalled:
            return None
        for i, parcel in enumerate(self.parcels):
            if parcel.hold == 0 and parcel.due <= now:
                del self.parcels[i]
                self._pass(self.parcels[:i])
                self.changed()
                return parcel.cargo
        self._pass(self.parcels)
        return None

    def _pass(self, overtaken: list[Parcel]) -> None:
        for parcel in overtaken:
            parcel.hold = max(0, parcel.hold - 1)

    def drop(self, owner: int | None = None) -> None:
        """Lose what is under way, of one sender or of all."""
        self.parcels = [p for p in self.parcels if owner is not None and p.owner != owner]
        self.changed()

    def changed(self) -> None:
        for end in self.senders.values():
            end.channel_changed()
        if self.receiver is not None:
            self.receiver.channel_changed()

    def check_integrity(self) -> None:
        assert self.connected or not self.parcels, "channel: frames under way without a connection"
        assert all(p.hold >= 0 for p in self.parcels), "channel: negative hold"

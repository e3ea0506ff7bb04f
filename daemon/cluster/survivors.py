"""A layout on the nodes that are left, when one that had layers does not come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daemon.cluster.events import ModelSpec, Slot
from daemon.cluster.member import Member
from daemon.cluster.placement.estimate import load_of
from daemon.cluster.placement.in_order import place_in_order
from daemon.cluster.placement.problem import (
    Hop,
    Host,
    Network,
    Objective,
    PlacementError,
)
from daemon.cluster.placement.search import MOST_NODES, place

KEPT_SHARE = 8  # of a machine's memory, what is left to everything else, where nobody measured

Members = Mapping[str, Member]


class Survivors:
    """Which layout to try when the one that is wanted cannot be had. Nobody is done without before
    all nodes of a layout were there.
    """

    def __init__(self, replan_after: float) -> None:
        self._replan_after = replan_after
        self._proven: tuple[Slot, ...] = ()  # the last layout that was up
        self._hopeless: tuple[list[Host], list[str], str] | None = None

    def begin(self) -> None:
        """Another model is wanted, or the same one anew."""
        self._proven, self._hopeless = (), None

    def up(self, slots: tuple[Slot, ...]) -> None:
        """These nodes hold these layers."""
        self._proven, self._hopeless = slots, None

    def layout(
        self, model: ModelSpec, slots: Sequence[Slot], members: Members, now: float
    ) -> tuple[tuple[Slot, ...], str] | None:
        """Another layout, and in what it differs; None: go on with this one. PlacementError, which
        says who is lost and why the others do not do, when there is none.
        """
        if not self._proven:
            return None
        gone = _lost(slots, members, now, self._replan_after)
        if slots != self._proven:
            gone += [n for n in _refusing(slots, members) if n not in gone]
            if gone and all(_is_there(members.get(slot.node)) for slot in self._proven):
                return self._proven, "as it was"
        if not gone:
            return None
        names, hosts = ", ".join(gone), _hosts(model, slots, members, gone)
        # A search takes up to half a second, and this is asked at every event.
        if self._hopeless and self._hopeless[:2] == (hosts, gone):
            raise PlacementError(self._hopeless[2])
        try:
            found = _layout(model, hosts)
        except PlacementError as error:
            told = [f"{n}: {members[n].trouble}" for n in gone if n in members]
            why = f"{names} is lost, and the others cannot hold the model: {error}"
            self._hopeless = hosts, gone, "; ".join([why, *told])
            raise PlacementError(self._hopeless[2]) from error
        return found, f"without {names}"


def _lost(slots: Sequence[Slot], members: Members, now: float, after: float) -> list[str]:
    """Nodes of the layout that have left, that have been silent for so many seconds, shardd and
    all, or whose shardd has given their stage up.
    """
    found = []
    for slot in slots:
        member = members.get(slot.node)
        if (
            member is None
            or member.given_up
            or (member.stage is None and member.node is None and now - member.beat_at >= after)
        ):
            found.append(slot.node)
    return found


def _refusing(slots: Sequence[Slot], members: Members) -> list[str]:
    """Nodes whose stage has said that it cannot hold what it was asked to: it lacks the files, or
    the memory.
    """
    return [s.node for s in slots if (m := members.get(s.node)) and _refuses(m)]


def _refuses(member: Member) -> bool:
    return member.stage is not None and member.trouble is not None


def _is_there(member: Member | None) -> bool:
    if member is None or member.node is None:
        return False
    return not (member.draining or member.drained or member.given_up)


def _hosts(
    model: ModelSpec, slots: Sequence[Slot], members: Members, gone: Sequence[str]
) -> list[Host]:
    """Every node that is there may take part, those of the layout first, in its order."""
    order = {slot.node: i for i, slot in enumerate(slots)}
    there = sorted(
        (m for m in members.values() if _is_there(m) and not (_refuses(m) or m.name in gone)),
        key=lambda member: (order.get(member.name, len(order)), member.name),
    )
    seconds = tuple(map(float, model.layer_bytes))
    return [Host(m.name, seconds, float(model.head_bytes), _memory(m)) for m in there]


def _layout(model: ModelSpec, hosts: Sequence[Host]) -> tuple[Slot, ...]:
    """Nothing is known here of how fast they are: each stage reads as many bytes a token as memory
    allows, and no more of them than have to take part in that. Of many nodes the order stays.
    PlacementError when the model does not fit them.
    """
    if not hosts:
        raise PlacementError("there are none")
    free = (Hop(0.0),) * len(hosts)
    network = Network(free, (free,) * len(hosts), free)
    load = load_of(model, 0)
    if len(hosts) > MOST_NODES:
        found = place_in_order(hosts, load, network)
    else:
        found = place(hosts, load, network, Objective.THROUGHPUT)
    return tuple(Slot(hosts[seat.host].name, seat.layers) for seat in found.seats)


def _memory(member: Member) -> int:
    """For weights and KV: as its stage has measured, else what its machine has."""
    if member.loaded:
        return member.loaded.memory_bytes
    whole = member.node.memory_bytes if member.node else 0
    return whole - whole // KEPT_SHARE

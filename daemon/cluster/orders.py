"""What the stages are told in a rebalance, again and again until they have done it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from daemon import messages as msg
from daemon.cluster.events import Action, ModelWanted, Slot, ToStage
from daemon.cluster.member import Holding, Member
from daemon.cluster.rules import Rules
from daemon.cluster.transfers import Transfer, changed, transfers

Members = Mapping[str, Member]


@dataclass(frozen=True)
class Move:
    """From one layout to another, in which the new epoch is to be `epoch`: the next one."""

    term: int
    number: int
    epoch: int
    old: tuple[Slot, ...]
    new: tuple[Slot, ...]

    def is_of(self, told: msg.Prepared | msg.Giving) -> bool:
        """Whether a stage has said this of this move, and not of another that is over."""
        return (told.term, told.move) == (self.term, self.number)

    def holds(self, beat: msg.Heartbeat) -> bool:
        """Whether a stage has something for this move."""
        return (beat.move_term, beat.move) == (self.term, self.number)

    @cached_property
    def takers(self) -> tuple[Slot, ...]:
        return changed(self.old, self.new)

    @cached_property
    def transfers(self) -> tuple[Transfer, ...]:
        return transfers(self.old, self.new)

    @cached_property
    def givers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(transfer.giver for transfer in self.transfers))

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """All that have a place before or after, in order."""
        return tuple(dict.fromkeys(slot.node for slot in (*self.old, *self.new)))


class Orders:
    def __init__(self, rules: Rules, wanted: ModelWanted, move: Move) -> None:
        self._rules = rules
        self._wanted = wanted
        self._move = move
        self._asked: dict[str, float] = {}  # when each node was, in this phase

    def anew(self) -> None:
        """Another phase: nobody was asked for anything."""
        self._asked.clear()

    def is_prepared(self, member: Member) -> bool:
        told = member.prepared
        return told is not None and self._move.is_of(told) and not told.why

    def has_switched(self, member: Member, slot: Slot) -> bool:
        need = Holding(self._wanted.model.digest, slot.layers)
        return member.assigned == self._move.epoch and member.holding == need

    def prepare(self, members: Members, now: float) -> list[Action]:
        actions: list[Action] = []
        move, model = self._move, self._wanted.model
        placed = {slot.node for slot in move.old}
        for slot in move.takers:
            member, r = members[slot.node], slot.layers
            beat = member.beat
            at_work = beat is not None and beat.loading and move.holds(beat)
            if self.is_prepared(member) or at_work or not self._due(slot.node, now):
                continue
            digests = {m.digest for m in (member.loaded, beat) if m and m.digest}
            spare = slot.node not in placed
            if spare and digests - {model.digest}:  # it has kept another model
                member.loaded = member.asked = None
                actions.append(ToStage(slot.node, msg.Unload(move.term)))
            what = (model.name, model.folder, model.digest, r.start, r.end, spare)
            actions.append(ToStage(slot.node, msg.Prepare(move.term, move.number, *what)))
        return actions

    def give(self, members: Members, now: float) -> list[Action]:
        actions: list[Action] = []
        move = self._move
        for node in move.givers:
            giver = members[node]
            told = giver.giving is not None and move.is_of(giver.giving)
            lately = now - giver.giving_at < self._rules.ask_again_after
            if (told and lately) or not self._due(node, now):
                continue
            takers = [
                {"address": prepared.kv_address, "start": t.layers.start, "end": t.layers.end}
                for t in move.transfers
                if t.giver == node and (prepared := members[t.taker].prepared)
            ]
            actions.append(ToStage(node, msg.Give(move.term, move.number, takers)))
        return actions

    def switch(self, members: Members, now: float) -> list[Action]:
        move, moved = self._move, self._move.transfers
        placed = {slot.node for slot in move.old}
        onward = [self._address(members[slot.node]) for slot in move.new[1:]]
        onward.append(self._wanted.result_address)
        return [
            ToStage(
                slot.node,
                msg.Switch(
                    move.term,
                    move.number,
                    move.epoch,
                    i,
                    to,
                    self._rules.chunk_tokens,
                    givers=sum(t.taker == slot.node for t in moved),
                    barrier=slot.node in placed,
                ),
            )
            for i, (slot, to) in enumerate(zip(move.new, onward, strict=True))
            if not self.has_switched(members[slot.node], slot) and self._due(slot.node, now)
        ]

    def _due(self, node: str, now: float) -> bool:
        if now - self._asked.get(node, float("-inf")) < self._rules.ask_again_after:
            return False
        self._asked[node] = now
        return True

    def _address(self, member: Member) -> str:
        """Where its frames are to go: a stage that held nothing has opened its ring since."""
        prepared = member.prepared if self.is_prepared(member) else None
        return prepared.data_address if prepared else member.data_address

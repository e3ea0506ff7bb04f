"""The way from a layout to a running pipeline: every stage holds its layers, every stage has its
place in a new epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daemon import messages as msg
from daemon.cluster.events import Action, ModelWanted, Slot, ToStage
from daemon.cluster.member import Holding, Member
from daemon.cluster.rules import Rules


class Launch:
    """`epoch` is the number of the newest layout that stages were told of."""

    def __init__(self, rules: Rules) -> None:
        self.epoch = 0
        self._rules = rules
        self._assigning = False
        self._begun_at = float("-inf")
        self._assigned_at = float("-inf")

    def interrupt(self) -> None:
        """Something of it is gone: the next try has an epoch of its own."""
        self._assigning = False

    def advance(
        self,
        term: int,
        wanted: ModelWanted,
        slots: Sequence[Slot],
        members: Mapping[str, Member],
        now: float,
    ) -> tuple[list[Action], list[Member] | None]:
        """What is to be asked for now; and the stages in their order, when all are in place."""
        actions: list[Action] = []
        ready = []
        for slot in slots:
            member = members.get(slot.node)
            if member is None or member.stage is None:
                continue
            if member.can_take(Holding(wanted.model.digest, slot.layers)):
                ready.append(member)
            else:
                actions += self._ask_to_load(term, wanted, slot, member, now)
        if len(ready) < len(slots):
            return actions, None
        needs = [Holding(wanted.model.digest, slot.layers) for slot in slots]
        actions += self._assign(term, wanted, needs, ready, now)
        pairs = zip(ready, needs, strict=True)
        if not all(m.assigned == self.epoch and m.holding == need for m, need in pairs):
            return actions, None
        self._assigning = False
        return actions, ready

    def _ask_to_load(
        self, term: int, wanted: ModelWanted, slot: Slot, member: Member, now: float
    ) -> list[Action]:
        need = Holding(wanted.model.digest, slot.layers)
        if now < member.load_again_at:
            return []
        at_work = member.beat is not None and member.beat.loading
        lately = now - member.asked_at < self._rules.ask_again_after
        if member.asked == need and (at_work or lately):
            return []
        member.asked, member.asked_at = need, now
        member.settled()  # what it has beside that goes as well
        model, r = wanted.model, slot.layers
        load = msg.Load(term, model.name, model.folder, model.digest, r.start, r.end)
        return [ToStage(slot.node, load)]

    def _assign(
        self,
        term: int,
        wanted: ModelWanted,
        needs: Sequence[Holding],
        ready: Sequence[Member],
        now: float,
    ) -> list[Action]:
        """Begin a new epoch, or ask again who has not answered."""
        if not self._assigning:
            self.epoch += 1
            self._assigning, self._assigned_at, self._begun_at = True, float("-inf"), now
        if now - self._assigned_at < self._rules.ask_again_after:
            return []
        self._assigned_at = now
        onward = [*(m.data_address for m in ready[1:]), wanted.result_address]
        actions: list[Action] = []
        for i, (member, need, to) in enumerate(zip(ready, needs, onward, strict=True)):
            r, chunk = need.layers, self._rules.chunk_tokens
            placed = member.assigned == self.epoch
            if placed and member.holding == need:
                continue
            # In place, or with other layers than it has told: a Loaded was lost.
            if placed or self._holds_others(member, need):
                model = wanted.model
                load = msg.Load(term, model.name, model.folder, model.digest, r.start, r.end)
                actions.append(ToStage(member.name, load))
            else:
                assign = msg.Assign(term, self.epoch, i, to, chunk, r.start, r.end)
                actions.append(ToStage(member.name, assign))
        return actions

    def _holds_others(self, member: Member, need: Holding) -> bool:
        """Whether it has said, since it was first asked to take its place, that it holds other
        layers, and has not got these beside them.
        """
        beat = member.beat
        if beat is None or not beat.digest or member.beat_at <= self._begun_at:
            return False
        others = (beat.digest, beat.start, beat.end) != (
            need.digest,
            need.layers.start,
            need.layers.end,
        )
        return others and not member.has_beside(need)

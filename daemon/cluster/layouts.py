"""The layout in force, and the ways to one: of the wanted model, of the survivors, of a rebalance.

The way to a running pipeline is always the same (DESIGN.md §3, §9): every stage of the layout holds
its layers; every stage has its place in a new epoch; the pipeline is up. While it is up it may be
on its way to another layout, and stays up.
"""

from __future__ import annotations

from collections.abc import Sequence

from daemon import messages as msg
from daemon.cluster.events import (
    Action,
    ModelWanted,
    Note,
    PipelineDown,
    PipelineUp,
    RebalanceEnded,
    RebalanceWanted,
    Slot,
)
from daemon.cluster.launch import Launch
from daemon.cluster.leftovers import Leftovers
from daemon.cluster.member import Holding, Member
from daemon.cluster.orders import Move
from daemon.cluster.placement.problem import PlacementError
from daemon.cluster.plan import NotYet, plan
from daemon.cluster.rebalance import Committed, GivenUp, Phase, Rebalance, Replay
from daemon.cluster.roster import Roster
from daemon.cluster.rules import Rules
from daemon.cluster.survivors import Survivors
from daemon.cluster.transfers import check_layout

IDLE = "no model is loaded"


class Layouts:
    """`slots` are those of the layout that is up or on its way up; none while it is not known."""

    def __init__(self, rules: Rules, term: int, roster: Roster) -> None:
        self.term = term
        self.wanted: ModelWanted | None = None
        self.slots: tuple[Slot, ...] = ()
        self.up = False
        self.why_down = IDLE
        self.rebalance: Rebalance | None = None
        self.last_rebalance: RebalanceEnded | None = None
        self._rules = rules
        self._roster = roster
        self._moves = 0
        self._unloading = False
        self._launch = Launch(rules)
        self._leftovers = Leftovers(rules)
        self._survivors = Survivors(rules.replan_after)

    @property
    def epoch(self) -> int:
        """Of the layout in force, or of the one that is on its way while there is none."""
        return self._launch.epoch

    @property
    def members(self) -> dict[str, Member]:
        return self._roster.members

    def place_of(self, node: str) -> int | None:
        return next((i for i, slot in enumerate(self.slots) if slot.node == node), None)

    # --- events ---

    def want(self, wanted: ModelWanted, now: float) -> list[Action]:
        why = "the model is being loaded"
        actions = self.end_rebalance(why, now) + self.down(why)
        self.wanted, self.slots, self._unloading, self.why_down = wanted, (), False, why
        self._survivors.begin()
        for member in self.members.values():
            member.load_again_at = 0.0
            member.settled()  # of another model, perhaps
        return actions

    def unwant(self, now: float) -> list[Action]:
        actions = self.end_rebalance(IDLE, now) + self.down(IDLE)
        self.wanted, self.slots, self._unloading, self.why_down = None, (), True, IDLE
        for member in self.members.values():
            member.asked_at = float("-inf")
        return actions

    def new_term(self, term: int, now: float) -> list[Action]:
        self.term = term
        why = "the coordinator's term was raised"
        running = self.rebalance is not None and self.up
        return (self.give_up(why, now) if running else []) + self.down(why)

    def lost(self, node: str, why: str, now: float) -> list[Action]:
        """The node's stage, or what it held, is gone."""
        actions: list[Action] = []
        if rebalance := self.rebalance:
            # What is replayed already goes on: a layout with that node is no better.
            new_only = all(slot.node != node for slot in rebalance.move.old)
            if node in rebalance.move.nodes and (self.up or new_only):
                actions += self.give_up(f"{node}: {why}", now, intended=False)
        if self.place_of(node) is not None:
            actions += self.down(f"{node}: {why}", intended=False)
        return actions

    def down(self, why: str, intended: bool = True) -> list[Action]:
        was_up, self.up, self.why_down = self.up, False, why
        self._launch.interrupt()
        return [PipelineDown(why, intended)] if was_up else []

    # --- towards a running pipeline ---

    def advance(self, now: float) -> list[Action]:
        """Ask for whatever is wanted and not reported; take the next step when all of it is.
        SplitError when the wanted split can never be.
        """
        if self.wanted is None:
            everybody = self.members.values()
            return self._leftovers.unload(self.term, everybody, now) if self._unloading else []
        actions = [] if self.up else self._choose(self.wanted, now)
        actions += self._leftovers.advance(self.term, self.members, now)
        if self.up:
            return actions + self._move_on(now)
        if not self.slots:
            return actions
        self._leftovers.keep(slot.node for slot in self.slots)
        more, ready = self._launch.advance(self.term, self.wanted, self.slots, self.members, now)
        return [*actions, *more, *(self._go_up(ready, now) if ready else [])]

    def _choose(self, wanted: ModelWanted, now: float) -> list[Action]:
        """The layout that is wanted; or, when a node of it does not come back, one over who is
        left.
        """
        rules, name = self._rules, wanted.model.name
        try:
            if self.slots:
                found = self._survivors.layout(wanted.model, self.slots, self.members, now)
                if found is None:
                    return []
                self.slots, how = found
                name = f"{name} {how}"
                self._launch.interrupt()
            else:
                settled = now - self._roster.joined_at >= rules.settle_after or wanted.at_once
                self.slots = plan(wanted, self.members.values(), rules.local_node, settled)
        except (NotYet, PlacementError) as error:
            self.why_down = str(error)
            return []
        return [Note("layout", "", f"{name}: {shown(self.slots)}")]

    def _go_up(self, ready: list[Member], now: float, moved: bool = False) -> list[Action]:
        self.up, self.why_down = True, ""
        self._survivors.up(self.slots)
        up = PipelineUp.of(self.term, self.epoch, self.slots, ready, moved)
        text = f"epoch {self.epoch}, {len(ready)} stages"
        actions: list[Action] = [up, Note("pipeline-up", "", text)]
        if self.rebalance:
            reached = self.slots == self.rebalance.move.new
            why = "" if reached else self.rebalance.why or "the new layout did not come up"
            actions += self.end_rebalance(why, now, replayed=reached and not moved)
        return actions

    # --- towards another layout ---

    def rebalance_wanted(self, event: RebalanceWanted, now: float) -> list[Action]:
        if self.wanted is None or not self.up:
            raise PlacementError(f"the pipeline is down: {self.why_down}")
        if self.rebalance:
            raise PlacementError("another rebalance is under way")
        check_layout(event.slots, self.wanted.model.layers, self.members)
        if event.slots == self.slots:
            self.last_rebalance = RebalanceEnded("", 0, replayed=False)
            return [self.last_rebalance]
        self._moves += 1
        move = Move(self.term, self._moves, self.epoch + 1, self.slots, event.slots)
        self.rebalance = Rebalance(self._rules, self.wanted, move, event.replay_seconds, now)
        self._leftovers.keep(move.nodes)
        for node in move.nodes:  # a late word on a move of a coordinator before this one
            self.members[node].settled()
        return [Note("rebalance", "", f"to {shown(move.new)}"), *self.advance(now)]

    def _move_on(self, now: float) -> list[Action]:
        if self.rebalance is None:
            return []
        actions, outcome = self.rebalance.advance(self.members, now)
        move = self.rebalance.move
        match outcome:
            case Committed():
                self.slots = move.new
                self._launch.epoch = move.epoch
                ready = [self.members[slot.node] for slot in move.new]
                return actions + self._go_up(ready, now, moved=True)
            case GivenUp(why):
                return actions + self.give_up(why, now) + self.advance(now)
            case Replay(why):
                self.rebalance.enter(Phase.REPLAY, now)
                self.slots = move.new
                text = f"KV is computed again, not copied: {why}"
                actions += [Note("rebalance", "", text), *self.down(text)]
                return actions + self.advance(now)
        return actions

    def give_up(self, why: str, now: float, intended: bool = True) -> list[Action]:
        """Go on, or begin again, in the layout before. Once it is replayed without a stage that
        was lost, that is a loss like any other.
        """
        rebalance = self.rebalance
        if rebalance is None or rebalance.phase is Phase.RETURN:
            return []
        if rebalance.phase in (Phase.PREPARE, Phase.COPY):
            return self.end_rebalance(why, now)
        rebalance.why, self.slots = why, rebalance.move.old
        self._launch.epoch = max(self._launch.epoch, rebalance.move.epoch)
        rebalance.enter(Phase.RETURN, now)
        return self.down(f"the rebalance is given up: {why}", intended)

    def end_rebalance(self, why: str, now: float, replayed: bool = False) -> list[Action]:
        if self.rebalance is None:
            return []
        rebalance, self.rebalance = self.rebalance, None
        if rebalance.phase is Phase.SWITCH:  # stages may have taken its places
            self._launch.epoch = max(self._launch.epoch, rebalance.move.epoch)
        move = rebalance.move
        copied = 0 if replayed else rebalance.copied_bytes(self.members)
        self.last_rebalance = RebalanceEnded(why, copied, replayed)
        there = [self.members[node] for node in move.nodes if node in self.members]
        actions = self._leftovers.settle(self.term, move.number, there, now)
        placeless = [m for m in there if m.stage and self.place_of(m.name) is None]
        actions += self._leftovers.dismiss(self.term, placeless, now)
        text = f"given up: {why}" if why else f"done: {shown(self.slots)}"
        return [*actions, Note("rebalance", "", text), self.last_rebalance]

    def settle_again(self, beat: msg.Heartbeat, now: float) -> list[Action]:
        """Its stage holds something for a rebalance that is over."""
        member = self.members.get(beat.node)
        over = self.rebalance is None and (self.up or self.wanted is None)
        if member is None or member.beat is not beat or not over:
            return []
        return self._leftovers.heard(self.term, member, beat, now)

    def check_integrity(self) -> None:
        assert not self.up or self.wanted, "a pipeline without a model"
        if self.rebalance:
            self.rebalance.check_integrity(self.slots, self.up)
        if not self.up or not self.wanted:
            return
        switching = self.rebalance is not None and self.rebalance.phase is Phase.SWITCH
        for slot in self.slots:
            member = self.members[slot.node]
            assert member.stage is not None, f"{slot.node} is in the pipeline without a stage"
            if not switching:
                assert member.assigned == self.epoch, f"{slot.node} is in another epoch"
                need = Holding(self.wanted.model.digest, slot.layers)
                assert member.holding == need, f"{slot.node} holds other layers"


def shown(slots: Sequence[Slot]) -> str:
    return ", ".join(f"{slot.node} {slot.layers}" for slot in slots)

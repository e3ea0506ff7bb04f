"""The cluster as a state machine: the layout of the wanted model over the members, and its epoch.

`step(event, now)` returns what is to be done; nothing here reads a clock or a socket. Here it is
decided what an event means; `layouts` has the ways to a running pipeline and to another layout.
Losing a stage, from whatever cause, sends the layout back to the first step.

No message is trusted to arrive. `Layouts.advance` compares what is wanted with what the members
last reported and asks again for what differs, at most every `ask_again_after` seconds; all that is
asked for may be asked for twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from daemon import messages as msg
from daemon.cluster.events import (
    Action,
    BarrierReturned,
    Event,
    FrameOverdue,
    FramesLost,
    LinkLost,
    LoadEnded,
    ModelSpec,
    ModelUnwanted,
    ModelWanted,
    NodesDrained,
    Note,
    RebalanceEnded,
    RebalanceUnwanted,
    RebalanceWanted,
    Slot,
    Tick,
)
from daemon.cluster.layouts import Layouts
from daemon.cluster.member import Member
from daemon.cluster.paths import Paths
from daemon.cluster.rebalance import Phase, Rebalance
from daemon.cluster.roster import Fact, LoadRefused, Roster, StageLost
from daemon.cluster.rules import Rules
from daemon.cluster.split import SplitError
from daemon.hop_path import PathLoss


class Cluster:
    def __init__(self, rules: Rules, term: int) -> None:
        self.rules = rules
        self.roster = Roster(rules)
        self._layouts = Layouts(rules, term, self.roster)
        self.paths = Paths(rules)
        self._answer_due = False

    # --- reading ---

    @property
    def members(self) -> dict[str, Member]:
        return self.roster.members

    @property
    def term(self) -> int:
        return self._layouts.term

    @property
    def epoch(self) -> int:
        """Of the layout in force, or of the one that is on its way while there is none."""
        return self._layouts.epoch

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Of the layout that is up or on its way up; none while it is not known."""
        return self._layouts.slots

    @property
    def up(self) -> bool:
        return self._layouts.up

    @property
    def why_down(self) -> str:
        return self._layouts.why_down

    @property
    def rebalance(self) -> Rebalance | None:
        """The one that is under way."""
        return self._layouts.rebalance

    @property
    def last_rebalance(self) -> RebalanceEnded | None:
        return self._layouts.last_rebalance

    @property
    def model(self) -> ModelSpec | None:
        wanted = self._layouts.wanted
        return wanted.model if wanted else None

    @property
    def state(self) -> str:
        """One of the words of docs/protocol.md."""
        if self.model is None:
            return "idle"
        if self.up:
            leaving = any(self.members[slot.node].draining for slot in self.slots)
            return "draining" if leaving else "ready"
        troubled = any(self.members[s.node].trouble for s in self.slots if s.node in self.members)
        return "loading" if self._answer_due and not troubled else "degraded"

    def slot_of(self, node: str) -> int | None:
        return self._layouts.place_of(node)

    def check_integrity(self) -> None:
        self._layouts.check_integrity()
        self.paths.check_integrity()

    # --- events ---

    def step(self, event: Event, now: float) -> list[Action]:
        match event:
            case ModelWanted():
                return self._model_wanted(event, now)
            case ModelUnwanted():
                return self._model_unwanted(now)
            case NodesDrained():
                self.roster.drain(event.nodes)
                return []
            case FrameOverdue():
                return self._frame_overdue(event, now)
            case msg.LinkFailed():
                return self._link_failed(event)
            case msg.PathTaken() | msg.PathLost():
                return self._path(event, now)
            case RebalanceWanted():
                return self._layouts.rebalance_wanted(event, now)
            case RebalanceUnwanted():
                return self._layouts.give_up(event.why, now) + self._advance(now)
            case BarrierReturned():
                if self.rebalance:
                    self.rebalance.barrier_is_back(event.epoch)
                return self._advance(now)
            case msg.Heartbeat():
                actions = self._learn(self.roster.hear(event, now), now)
                actions += self._shaken(self.paths.beat(event, now), now)
                return actions + self._layouts.settle_again(event, now)
            case Tick():
                self.roster.excuse(event.stalled)
                facts = self.roster.tick(now)
                return self._learn([*facts, *self.roster.executions(self.term, now)], now)
            case _:
                return self._learn(self.roster.hear(event, now), now)

    def new_term(self, term: int, now: float) -> list[Action]:
        """Somebody has obeyed a later coordinator: everything is assigned anew, under this term."""
        actions = self._layouts.new_term(term, now)
        self.paths.new_term()
        return actions + self._advance(now)

    def group_over(self, group: int, reason: str, why: str, now: float) -> list[Action]:
        """A group of rdma processes has lost a member, as others than the stages say."""
        return self._shaken(self.paths.group_over(group, reason, why, now), now)

    def _learn(self, facts: Sequence[Fact], now: float) -> list[Action]:
        actions: list[Action] = []
        for fact in facts:
            match fact:
                case StageLost():
                    actions += self._layouts.lost(fact.node, fact.why, now)
                case LoadRefused():
                    # Later than that, the stage is asked again: the request for it was answered.
                    if not self._answer_due or self.slot_of(fact.node) is None:
                        continue
                    wanted = self._layouts.wanted
                    if wanted and not wanted.at_once:
                        # Nobody waits for an answer: it is tried again until it is mended.
                        self._layouts.why_down = f"{fact.what}: {fact.why}"
                    else:
                        actions += self._load_failed(fact.what, fact.why, fact.todo, now)
                case _:
                    actions.append(fact)
        return actions + self._advance(now)

    def _link_failed(self, event: msg.LinkFailed) -> list[Action]:
        if not self.up or event.epoch != self.epoch or self.roster.speaker(event) is None:
            return []
        note = Note("link-failed", event.node, event.why)
        return [note, LinkLost(event.microbatch, event.why)]

    def _path(self, event: msg.PathTaken | msg.PathLost, now: float) -> list[Action]:
        if self.roster.speaker(event) is None:
            return []
        if isinstance(event, msg.PathTaken):
            return self._shaken(self.paths.taken(event, now), now)
        return self._shaken(self.paths.lost(event, now), now)

    def _shaken(self, actions: list[Action], now: float) -> list[Action]:
        """A barrier that is lost never comes back: then what it was for is given up at once."""
        moving = self.rebalance
        lost = next((action for action in actions if isinstance(action, FramesLost)), None)
        if lost and moving and moving.phase is Phase.SWITCH and not moving.barrier_returned:
            actions = [*actions, *self._layouts.give_up(lost.why, now)]
        return actions + self._advance(now) if actions else []

    def _frame_overdue(self, event: FrameOverdue, now: float) -> list[Action]:
        """End the stage that has sat on this frame, or on one before it; none: the frame was lost,
        and the scheduler issues it again. ZeroMQ says when it loses one: where frames go by a group
        of rdma processes, that is over.
        """
        members = [self.members[slot.node] for slot in self.slots]
        busy = [(member.busy_on(event.microbatch, now), member) for member in members]
        longest, member = max(busy, key=lambda pair: pair[0], default=(0.0, None))
        if not longest and self.paths.group:
            why = "a frame is lost, and nobody has said so"
            return self.group_over(self.paths.group, PathLoss.STALLED.value, why, now)
        if member is None or longest < self.rules.hung_after:
            return []
        why = f"no progress for {longest:.1f} s on one frame"
        facts = self.roster.end_stage(member, why, now)
        return self._learn([*facts, *self.roster.executions(self.term, now)], now)

    # --- the wanted model ---

    def _model_wanted(self, event: ModelWanted, now: float) -> list[Action]:
        self._answer_due = True
        return self._layouts.want(event, now) + self._advance(now)

    def _model_unwanted(self, now: float) -> list[Action]:
        self._answer_due = False
        return self._layouts.unwant(now) + self._advance(now)

    def _load_failed(
        self, what: str, why: str, todo: str, now: float, code: int = 1
    ) -> list[Action]:
        actions = self._model_unwanted(now)
        return [*actions, LoadEnded(msg.Failure(0, code, what, why, todo))]

    def _advance(self, now: float) -> list[Action]:
        try:
            actions = self._layouts.advance(now)
        except SplitError as error:
            assert self.model
            name, layers = self.model.name, self.model.layers
            todo = f"give one number of layers per node that add up to {layers}"
            return self._load_failed(f"cannot split {name}", str(error), todo, now, code=2)
        if self.up:
            actions += self.paths.advance(self.term, self.epoch, self.slots, now)
        if self.up and self._answer_due:
            self._answer_due = False
            actions.append(LoadEnded(None))
        return actions

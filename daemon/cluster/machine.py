"""The cluster as a state machine: the layout of the wanted model over the members, and its epoch.

`step(event, now)` returns what is to be done; nothing here reads a clock or a socket. The way to a
running pipeline is always the same (DESIGN.md §3, §9): every stage of the layout holds its layers;
every stage has its place in a new epoch; the pipeline is up. Losing a stage, from whatever cause,
sends the layout back to the first step.

No message is trusted to arrive. `_advance` compares what is wanted with what the members last
reported and asks again for what differs, at most every `ask_again_after` seconds; all that is asked
for may be asked for twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from daemon import messages as msg
from daemon.cluster.events import (
    Action,
    Event,
    FrameOverdue,
    LinkLost,
    LoadEnded,
    ModelSpec,
    ModelUnwanted,
    ModelWanted,
    Note,
    PipelineDown,
    PipelineUp,
    Slot,
    Tick,
    ToStage,
)
from daemon.cluster.member import Holding, Member
from daemon.cluster.placement.problem import PlacementError
from daemon.cluster.plan import NotYet, plan
from daemon.cluster.roster import Fact, LoadRefused, Roster, StageLost
from daemon.cluster.rules import Rules
from daemon.cluster.split import SplitError
from daemon.cluster.survivors import Survivors

IDLE = "no model is loaded"


class Cluster:
    def __init__(self, rules: Rules, term: int) -> None:
        self.rules = rules
        self.term = term
        self.epoch = 0
        self.roster = Roster(rules)
        self.wanted: ModelWanted | None = None
        self.slots: tuple[Slot, ...] = ()
        self.up = False
        self.why_down = IDLE
        self._answer_due = False
        self._unloading = False
        self._assigning = False
        self._assigned_at = float("-inf")
        self._survivors = Survivors(rules.replan_after)

    # --- reading ---

    @property
    def members(self) -> dict[str, Member]:
        return self.roster.members

    @property
    def model(self) -> ModelSpec | None:
        return self.wanted.model if self.wanted else None

    @property
    def state(self) -> str:
        """One of the words of docs/protocol.md."""
        if self.wanted is None:
            return "idle"
        if self.up:
            leaving = any(self.members[slot.node].draining for slot in self.slots)
            return "draining" if leaving else "ready"
        troubled = any(self.members[s.node].trouble for s in self.slots if s.node in self.members)
        return "loading" if self._answer_due and not troubled else "degraded"

    def slot_of(self, node: str) -> int | None:
        return next((i for i, slot in enumerate(self.slots) if slot.node == node), None)

    def check_integrity(self) -> None:
        assert not self.up or self.wanted, "a pipeline without a model"
        if self.up:
            for slot in self.slots:
                member = self.members[slot.node]
                assert member.stage is not None, f"{slot.node} is in the pipeline without a stage"
                assert member.assigned == self.epoch, f"{slot.node} is in another epoch"
                assert member.holding == self._need(slot), f"{slot.node} holds other layers"

    # --- events ---

    def step(self, event: Event, now: float) -> list[Action]:
        match event:
            case ModelWanted():
                return self._model_wanted(event, now)
            case ModelUnwanted():
                return self._model_unwanted(now)
            case FrameOverdue():
                return self._frame_overdue(event, now)
            case msg.LinkFailed():
                return self._link_failed(event)
            case Tick():
                self.roster.excuse(event.stalled)
                facts = self.roster.tick(now)
                return self._learn([*facts, *self.roster.executions(self.term, now)], now)
            case _:
                return self._learn(self.roster.hear(event, now), now)

    def new_term(self, term: int, now: float) -> list[Action]:
        """Somebody has obeyed a later coordinator: everything is assigned anew, under this term."""
        self.term = term
        return self._down("the coordinator's term was raised") + self._advance(now)

    def _learn(self, facts: Sequence[Fact], now: float) -> list[Action]:
        actions: list[Action] = []
        for fact in facts:
            match fact:
                case StageLost():
                    if self.slot_of(fact.node) is not None:
                        actions += self._down(f"{fact.node}: {fact.why}")
                case LoadRefused():
                    # Later than that, the stage is asked again: the request for it was answered.
                    if not self._answer_due or self.slot_of(fact.node) is None:
                        continue
                    if self.wanted and not self.wanted.at_once:
                        # Nobody waits for an answer: it is tried again until it is mended.
                        self.why_down = f"{fact.what}: {fact.why}"
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

    def _frame_overdue(self, event: FrameOverdue, now: float) -> list[Action]:
        """End the stage that has sat on this frame, or on one before it; none: the frame was lost,
        and the scheduler issues it again.
        """
        members = [self.members[slot.node] for slot in self.slots]
        busy = [(member.busy_on(event.microbatch, now), member) for member in members]
        longest, member = max(busy, key=lambda pair: pair[0], default=(0.0, None))
        if member is None or longest < self.rules.hung_after:
            return []
        why = f"no progress for {longest:.1f} s on one frame"
        facts = self.roster.end_stage(member, why, now)
        return self._learn([*facts, *self.roster.executions(self.term, now)], now)

    # --- the wanted model ---

    def _model_wanted(self, event: ModelWanted, now: float) -> list[Action]:
        why = "the model is being loaded"
        actions = self._down(why)
        self.wanted, self.slots, self._answer_due, self._unloading = event, (), True, False
        self._survivors.begin()
        self.why_down = why
        for member in self.members.values():
            member.load_again_at = 0.0
        return actions + self._advance(now)

    def _model_unwanted(self, now: float) -> list[Action]:
        actions = self._down(IDLE)
        self.wanted, self.slots, self._answer_due, self._unloading = None, (), False, True
        self.why_down = IDLE
        for member in self.members.values():
            member.asked_at = float("-inf")
        return actions + self._advance(now)

    def _load_failed(
        self, what: str, why: str, todo: str, now: float, code: int = 1
    ) -> list[Action]:
        actions = self._model_unwanted(now)
        return [*actions, LoadEnded(msg.Failure(0, code, what, why, todo))]

    def _down(self, why: str) -> list[Action]:
        was_up, self.up, self._assigning = self.up, False, False
        self.why_down = why
        return [PipelineDown(why)] if was_up else []

    # --- towards a running pipeline ---

    def _need(self, slot: Slot) -> Holding:
        assert self.wanted
        return Holding(self.wanted.model.digest, slot.layers)

    def _advance(self, now: float) -> list[Action]:
        """Ask for whatever is wanted and not reported; take the next step when all of it is."""
        if self.wanted is None:
            return self._unload(now) if self._unloading else []
        if self.up:
            return []
        actions: list[Action] = []
        if not self.slots:
            settled = now - self.roster.joined_at >= self.rules.settle_after or self.wanted.at_once
            try:
                self.slots = plan(
                    self.wanted, self.members.values(), self.rules.local_node, settled
                )
            except NotYet as error:
                self.why_down = str(error)
                return []
            except SplitError as error:
                name, layers = self.wanted.model.name, self.wanted.model.layers
                todo = f"give one number of layers per node that add up to {layers}"
                return self._load_failed(f"cannot split {name}", str(error), todo, now, code=2)
            actions.append(self._layout_note(self.wanted.model.name))
        else:
            actions += self._survive(self.wanted.model, now)
        ready = []
        for slot in self.slots:
            member = self.members.get(slot.node)
            if member is None or member.stage is None:
                continue
            if member.holding == self._need(slot):
                ready.append(member)
            else:
                actions += self._ask_to_load(slot, member, now)
        if len(ready) < len(self.slots):
            return actions
        actions += self._assign(ready, now)
        if all(member.assigned == self.epoch for member in ready):
            actions += self._go_up(ready)
        return actions

    def _survive(self, model: ModelSpec, now: float) -> list[Action]:
        """Lay the model out over who is left, when a node of the layout does not come back."""
        try:
            found = self._survivors.layout(model, self.slots, self.members, now)
        except PlacementError as error:
            self.why_down = str(error)
            return []
        if found is None:
            return []
        (self.slots, how), self._assigning = found, False
        return [self._layout_note(f"{model.name} {how}")]

    def _layout_note(self, what: str) -> Note:
        layout = ", ".join(f"{slot.node} {slot.layers}" for slot in self.slots)
        return Note("layout", "", f"{what}: {layout}")

    def _ask_to_load(self, slot: Slot, member: Member, now: float) -> list[Action]:
        need, rules = self._need(slot), self.rules
        if now < member.load_again_at:
            return []
        at_work = member.beat is not None and member.beat.loading
        if member.asked == need and (at_work or now - member.asked_at < rules.ask_again_after):
            return []
        assert self.wanted
        member.asked, member.asked_at = need, now
        model, r = self.wanted.model, slot.layers
        load = msg.Load(self.term, model.name, model.folder, model.digest, r.start, r.end)
        return [ToStage(slot.node, load)]

    def _assign(self, ready: list[Member], now: float) -> list[Action]:
        """Begin a new epoch, or ask again who has not answered."""
        assert self.wanted
        if not self._assigning:
            self.epoch += 1
            self._assigning, self._assigned_at = True, float("-inf")
        if now - self._assigned_at < self.rules.ask_again_after:
            return []
        self._assigned_at = now
        addresses = [m.loaded.data_address for m in ready if m.loaded]
        onward = [*addresses[1:], self.wanted.result_address]
        ranges = [slot.layers for slot in self.slots]
        return [
            ToStage(
                m.name,
                msg.Assign(self.term, self.epoch, i, to, self.rules.chunk_tokens, r.start, r.end),
            )
            for i, (m, to, r) in enumerate(zip(ready, onward, ranges, strict=True))
            if m.assigned != self.epoch
        ]

    def _go_up(self, ready: list[Member]) -> list[Action]:
        self.up, self._assigning, self.why_down = True, False, ""
        self._survivors.up(self.slots)
        up = PipelineUp.of(self.term, self.epoch, self.slots, ready)
        text = f"epoch {self.epoch}, {len(ready)} stages"
        actions: list[Action] = [up, Note("pipeline-up", "", text)]
        if self._answer_due:
            self._answer_due = False
            actions.append(LoadEnded(None))
        return actions

    def _unload(self, now: float) -> list[Action]:
        """Ask every stage that holds or loads something to let go of it, until it does."""
        actions: list[Action] = []
        for member in self.members.values():
            at_work = member.beat is not None and (member.beat.loading or bool(member.beat.digest))
            if member.stage is None or not (member.loaded or member.asked or at_work):
                continue
            if now - member.asked_at >= self.rules.ask_again_after:
                member.loaded = member.asked = None
                member.asked_at = now
                actions.append(ToStage(member.name, msg.Unload(self.term)))
        return actions

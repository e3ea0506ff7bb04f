"""The cluster as a state machine: members, the layout of the wanted model, its epoch.

`step(event, now)` returns what is to be done; nothing here reads a clock or a socket. The way to a
running pipeline is always the same (DESIGN.md §3, §9): every stage of the layout holds its layers;
every stage has its place in a new epoch; the pipeline is up. Losing a stage, from whatever cause,
sends the layout back to the first step.

No message is trusted to arrive. `_advance` compares what is wanted with what the members last
reported and asks again for what differs, at most every `ask_again_after` seconds; all that is asked
for may be asked for twice.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from daemon.cluster.executions import Executions
from daemon.cluster.member import Holding, Member
from daemon.cluster.plan import NotYet, plan
from daemon.cluster.split import SplitError
from daemon.layers import LayerRange

IDLE = "no model is loaded"


@dataclass(frozen=True, slots=True)
class Rules:
    """Seconds. A stage is ended when it is silent for `dead_after`, when it sits on an overdue
    frame for `hung_after`, or when its process has not said hello `join_within` after its shardd
    first named it.
    """

    cluster: str
    local_node: str
    chunk_tokens: int
    dead_after: float = 3.0
    hung_after: float = 3.0
    join_within: float = 60.0
    load_again_after: float = 10.0
    ask_again_after: float = 2.0
    settle_after: float = 3.0


class Cluster:
    def __init__(self, rules: Rules, term: int) -> None:
        self.rules = rules
        self.term = term
        self.epoch = 0
        self.members: dict[str, Member] = {}
        self.wanted: ModelWanted | None = None
        self.slots: tuple[Slot, ...] = ()
        self.up = False
        self.why_down = IDLE
        self._answer_due = False
        self._unloading = False
        self._assigning = False
        self._assigned_at = float("-inf")
        self._joined_at = 0.0
        self._executions = Executions(rules.ask_again_after, rules.join_within)

    # --- reading ---

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
        return "loading" if self._answer_due else "degraded"

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
            case msg.NodeHello():
                return self._node_joined(event, now)
            case msg.StageHello():
                return self._stage_joined(event, now)
            case msg.NodeHeartbeat() | msg.ChildExited() | msg.Goodbye():
                member = self.members.get(event.node)
                if not (member and member.node and member.node.incarnation == event.incarnation):
                    return []  # of another shardd of that name
                return self._from_node(event, member, now)
            case msg.Heartbeat():
                return self._heartbeat(event, now)
            case msg.Loaded() | msg.LoadFailed() | msg.Assigned() | msg.LinkFailed():
                member = self.members.get(event.node)
                if not (member and member.stage and member.stage.incarnation == event.incarnation):
                    return []  # of a process that is already counted as gone
                return self._from_stage(event, member, now)
            case ModelWanted():
                return self._model_wanted(event, now)
            case ModelUnwanted():
                return self._model_unwanted(now)
            case FrameOverdue():
                return self._frame_overdue(event, now)
            case Tick():
                if event.stalled:
                    self._excuse(event.stalled)
                return self._tick(now)

    def new_term(self, term: int, now: float) -> list[Action]:
        """Somebody has obeyed a later coordinator: everything is assigned anew, under this term."""
        self.term = term
        return self._down("the coordinator's term was raised") + self._advance(now)

    def _node_joined(self, hello: msg.NodeHello, now: float) -> list[Action]:
        member = self.members.setdefault(hello.node, Member(hello.node))
        fresh = member.node is None or member.node.incarnation != hello.incarnation
        member.node, member.node_at, member.draining = hello, now, False
        if not fresh:
            return []
        member.joined_at = self._joined_at = now
        note = Note("joined", hello.node, f"shardd {hello.version}, pid {hello.pid}")
        if member.stage and member.stage.node_incarnation != hello.incarnation:
            return [note, *self._stage_lost(member, "its shardd was replaced")]
        return [note]

    def _stage_joined(self, hello: msg.StageHello, now: float) -> list[Action]:
        member = self.members.setdefault(hello.node, Member(hello.node))
        known = member.stage
        if known and known.incarnation == hello.incarnation:
            member.beat_at = now
            return []
        actions = self._stage_lost(member, "its stage process was replaced") if known else []
        member.stage_gone(None)
        member.stage, member.beat_at, self._joined_at = hello, now, now
        self._executions.ended(hello.node)
        note = Note("stage-joined", hello.node, f"pid {hello.pid}")
        # What it holds it says next; a Load that crosses that word is answered by the same word.
        return [*actions, note, *self._advance(now)]

    def _from_node(
        self, event: msg.NodeHeartbeat | msg.ChildExited | msg.Goodbye, member: Member, now: float
    ) -> list[Action]:
        match event:
            case msg.NodeHeartbeat():
                member.node_at, member.memory_free_bytes = now, event.memory_free_bytes
                if event.stage_pid != member.stage_pid:
                    member.stage_pid, member.stage_pid_at = event.stage_pid, now
                return []
            case msg.ChildExited():
                return self._child_exited(event, member, now)
            case msg.Goodbye():
                told, member.draining = member.draining, True
                text = "leaves when its running requests have ended"
                return [] if told else [Note("draining", event.node, text)]

    def _child_exited(self, event: msg.ChildExited, member: Member, now: float) -> list[Action]:
        member.restarts = event.restarts
        if event.child != "stage":
            return [Note("exited", event.node, f"{event.child}: {event.detail}")]
        why = f"stage process {event.pid} ended ({event.detail})"
        given_up = event.retry_seconds < 0
        if given_up:
            why += "; not started again after too many failures: fix it, then restart shardd"
        self._executions.ended(member.name, event.pid)
        actions: list[Action] = [Note("exited", event.node, why)]
        if member.stage and member.stage.pid == event.pid:
            actions += self._stage_lost(member, why)
        elif member.stage is None:
            member.trouble = why
        hopeless = given_up or event.reason == "out-of-memory"
        if hopeless and self._answer_due and self.slot_of(member.name) is not None:
            todo = "give it fewer layers, or look at `shardctl logs`"
            actions += self._load_failed(f"{member.name} cannot load its layers", why, todo, now)
        return actions

    def _heartbeat(self, beat: msg.Heartbeat, now: float) -> list[Action]:
        member = self.members.get(beat.node)
        if member is None:
            return []
        if member.stage is None or member.stage.incarnation != beat.incarnation:
            if beat.pid == member.stage_pid and (beat.loading or 0 < beat.busy_seconds < 60):
                member.stage_pid_at = now  # it cannot say hello yet: it is at work
            return []
        member.beat, member.beat_at, member.suspect = beat, now, False
        lost = member.loaded and not beat.loading and not beat.digest
        if lost and now - member.loaded_at > self.rules.ask_again_after:
            member.loaded = member.asked = None
            if self.slot_of(beat.node) is not None:
                return self._down(f"{beat.node} has let go of its layers") + self._advance(now)
        return []

    def _from_stage(
        self,
        event: msg.Loaded | msg.LoadFailed | msg.Assigned | msg.LinkFailed,
        member: Member,
        now: float,
    ) -> list[Action]:
        match event:
            case msg.Loaded():
                known, member.loaded, member.loaded_at = member.loaded, event, now
                member.trouble = None
                text = f"layers {member.holding.layers if member.holding else ''}"
                note = Note("loaded", event.node, f"{text} in {event.load_seconds:.1f} s")
                return ([] if known == event else [note]) + self._advance(now)
            case msg.LoadFailed():
                if member.asked != Holding(event.digest, LayerRange(event.start, event.end)):
                    return []  # of something that is not wanted any more
                member.loaded, member.trouble = None, f"{event.what}: {event.why}"
                member.load_again_at = now + self.rules.load_again_after
                actions: list[Action] = [Note("load-failed", event.node, member.trouble)]
                if self._answer_due and self.slot_of(event.node) is not None:
                    what = f"{event.node}: {event.what}"
                    actions += self._load_failed(what, event.why, event.todo, now)
                return actions
            case msg.Assigned():
                member.assigned = max(member.assigned, event.epoch)
                return self._advance(now)
            case msg.LinkFailed():
                if not self.up or event.epoch != self.epoch:
                    return []
                lost = LinkLost(event.microbatch, event.why)
                return [Note("link-failed", event.node, event.why), lost]

    # --- the wanted model ---

    def _model_wanted(self, event: ModelWanted, now: float) -> list[Action]:
        why = "the model is being loaded"
        actions = self._down(why)
        self.wanted, self.slots, self._answer_due, self._unloading = event, (), True, False
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

    def _stage_lost(self, member: Member, why: str) -> list[Action]:
        member.stage_gone(why)
        if self.slot_of(member.name) is None:
            return []
        return self._down(f"{member.name}: {why}")

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
            settled = now - self._joined_at >= self.rules.settle_after or self.wanted.at_once
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
            layout = ", ".join(f"{s.node} {s.layers}" for s in self.slots)
            actions.append(Note("layout", "", f"{self.wanted.model.name}: {layout}"))
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
        return [
            ToStage(m.name, msg.Assign(self.term, self.epoch, i, to, self.rules.chunk_tokens))
            for i, (m, to) in enumerate(zip(ready, onward, strict=True))
            if m.assigned != self.epoch
        ]

    def _go_up(self, ready: list[Member]) -> list[Action]:
        self.up, self._assigning, self.why_down = True, False, ""
        loaded = [m.loaded for m in ready if m.loaded]
        up = PipelineUp(
            self.term,
            self.epoch,
            self.slots,
            loaded[0].data_address,
            tuple(one.decode_seconds for one in loaded),
            tuple(one.prefill_token_seconds for one in loaded),
            {m.name: m.stage.incarnation for m in ready if m.stage},
        )
        note = Note("pipeline-up", "", f"epoch {self.epoch}, {len(ready)} stages")
        actions: list[Action] = [up, note]
        if self._answer_due:
            self._answer_due = False
            actions.append(LoadEnded(None))
        return actions

    def _unload(self, now: float) -> list[Action]:
        """Ask every stage that holds or loads something to let go of it, until it says so."""
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

    # --- health ---

    def _frame_overdue(self, event: FrameOverdue, now: float) -> list[Action]:
        """End the stage that has sat on this frame, or on one before it; none: the frame was lost,
        and the scheduler issues it again.
        """
        members = [self.members[slot.node] for slot in self.slots]
        busy = [(member.busy_on(event.microbatch, now), member) for member in members]
        longest, member = max(busy, key=lambda pair: pair[0], default=(0.0, None))
        if member is None or longest < self.rules.hung_after:
            return []
        return self._end_stage(member, f"no progress for {longest:.1f} s on one frame", now)

    def _excuse(self, seconds: float) -> None:
        """Nobody could be heard for so long: it counts against nobody."""
        for member in self.members.values():
            member.beat_at += seconds
            member.node_at += seconds
            member.stage_pid_at += seconds

    def _tick(self, now: float) -> list[Action]:
        rules = self.rules
        actions: list[Action] = []
        for member in list(self.members.values()):
            silent = now - member.beat_at
            if member.stage and silent > rules.dead_after:
                actions += self._end_stage(member, f"silent for {silent:.1f} s", now)
            elif member.stage and silent > rules.dead_after / 2:
                member.suspect = True
            elif self._never_said_hello(member, now):
                member.stage_pid_at = now
                why = f"it has not said hello for {rules.join_within:.0f} s"
                note = self._executions.condemn(member.name, member.stage_pid, why, now)
                actions.append(note)
            if member.node and now - member.node_at > 2 * rules.dead_after:
                actions.append(self._node_gone(member))
        return [*actions, *self._executions.due(self.term, now), *self._advance(now)]

    def _never_said_hello(self, member: Member, now: float) -> bool:
        """A process that was hanging already when this coordinator came."""
        if member.stage or not member.node or not member.stage_pid:
            return False
        return now - member.stage_pid_at > self.rules.join_within

    def _node_gone(self, member: Member) -> Note:
        member.node = None
        if member.draining and self.slot_of(member.name) is None:
            del self.members[member.name]
        left, member.draining = member.draining, False
        if left:
            member.trouble = "it has left"
            return Note("left", member.name, "its shardd has ended")
        return Note("node-lost", member.name, "its shardd is silent")

    def _end_stage(self, member: Member, why: str, now: float) -> list[Action]:
        assert member.stage
        note = self._executions.condemn(member.name, member.stage.pid, why, now)
        return [*self._executions.due(self.term, now), note, *self._stage_lost(member, why)]

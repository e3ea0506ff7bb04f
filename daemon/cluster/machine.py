"""The cluster as a state machine: members, the layout of the wanted model, its epoch.

`step(event, now)` returns what is to be done; nothing here reads a clock or a socket. A layout is
in one of three phases: some stage still loads; every stage was told its place (`Assign`) and not
all have answered; the pipeline is up. A stage that is lost, from whatever cause, sends the layout
back to the first phase, and the way forward is always the same: load, assign with a new epoch, up
(DESIGN.md §3, §9).
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
    ToNode,
    ToStage,
)
from daemon.cluster.member import Holding, Member
from daemon.cluster.split import SplitError, even_split, ranges_of
from daemon.layers import LayerRange


@dataclass(frozen=True, slots=True)
class Rules:
    """`dead_after` seconds without a heartbeat end a stage; `hung_after` seconds on one overdue
    frame do too.
    """

    cluster: str
    local_node: str
    chunk_tokens: int
    dead_after: float = 3.0
    hung_after: float = 3.0
    load_again_after: float = 10.0


class Cluster:
    def __init__(self, rules: Rules, term: int) -> None:
        self.rules = rules
        self.term = term
        self.epoch = 0
        self.members: dict[str, Member] = {}
        self.wanted: ModelWanted | None = None
        self.slots: tuple[Slot, ...] = ()
        self.up = False
        self.why_down = "no model is loaded"
        self._answer_due = False
        self._assigning = False

    # --- reading ---

    @property
    def model(self) -> ModelSpec | None:
        return self.wanted.model if self.wanted else None

    @property
    def state(self) -> str:
        if self.wanted is None:
            return "idle"
        if self.up:
            return "draining" if any(m.draining for m in self.members.values()) else "ready"
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

    def new_term(self, term: int) -> list[Action]:
        """Somebody has obeyed a later coordinator: everything is assigned anew, under this term."""
        self.term = term
        return self._down("the coordinator's term was raised") + self._advance()

    # --- the machine ---

    def step(self, event: Event, now: float) -> list[Action]:
        match event:
            case msg.NodeHello():
                return self._node_joined(event, now)
            case msg.StageHello():
                return self._stage_joined(event, now)
            case msg.NodeHeartbeat():
                member = self.members.get(event.node)
                if member and member.node and member.node.incarnation == event.incarnation:
                    member.node_at, member.memory_free_bytes = now, event.memory_free_bytes
                return []
            case msg.ChildExited():
                return self._child_exited(event)
            case msg.Goodbye():
                return self._goodbye(event)
            case (
                msg.Heartbeat()
                | msg.Loaded()
                | msg.LoadFailed()
                | msg.Assigned()
                | msg.LinkFailed()
            ):
                member = self.members.get(event.node)
                if not (member and member.stage and member.stage.incarnation == event.incarnation):
                    return []  # from a process that is already counted as gone
                return self._from_stage(event, member, now)
            case ModelWanted():
                return self._model_wanted(event)
            case ModelUnwanted():
                return self._model_unwanted()
            case FrameOverdue():
                return self._frame_overdue(event)
            case Tick():
                return self._tick(now)

    def _from_stage(
        self,
        event: msg.Heartbeat | msg.Loaded | msg.LoadFailed | msg.Assigned | msg.LinkFailed,
        member: Member,
        now: float,
    ) -> list[Action]:
        match event:
            case msg.Heartbeat():
                member.beat, member.beat_at, member.suspect = event, now, False
                return []
            case msg.Loaded():
                member.holding = Holding(event.digest, LayerRange(event.start, event.end))
                member.loading, member.loaded, member.trouble = None, event, None
                text = f"layers {member.holding.layers} in {event.load_seconds:.1f} s"
                return [Note("loaded", event.node, text), *self._advance()]
            case msg.LoadFailed():
                member.loading, member.trouble = None, f"{event.what}: {event.why}"
                member.load_again_at = now + self.rules.load_again_after
                actions: list[Action] = [Note("load-failed", event.node, member.trouble)]
                if self._answer_due and self.slot_of(event.node) is not None:
                    what = f"{event.node}: {event.what}"
                    failure = msg.Failure(0, 1, what, event.why, event.todo)
                    actions += [*self._model_unwanted(), LoadEnded(failure)]
                return actions
            case msg.Assigned():
                member.assigned = max(member.assigned, event.epoch)
                return self._advance()
            case msg.LinkFailed():
                if not self.up or event.epoch != self.epoch:
                    return []
                return [Note("link-failed", event.node, event.why), LinkLost(event.why)]

    def _node_joined(self, hello: msg.NodeHello, now: float) -> list[Action]:
        member = self.members.setdefault(hello.node, Member(hello.node))
        fresh = member.node is None or member.node.incarnation != hello.incarnation
        member.node, member.node_at, member.draining = hello, now, False
        if fresh:
            member.joined_at = now
            return [Note("joined", hello.node, f"shardd {hello.version}, pid {hello.pid}")]
        return []

    def _stage_joined(self, hello: msg.StageHello, now: float) -> list[Action]:
        member = self.members.setdefault(hello.node, Member(hello.node))
        known = member.stage
        if known and known.incarnation == hello.incarnation:
            member.beat_at = now
            return []
        actions: list[Action] = []
        if known:
            actions += self._stage_lost(member, "its stage process was replaced")
        member.stage_gone("")
        member.stage, member.beat_at, member.trouble = hello, now, None
        actions.append(Note("stage-joined", hello.node, f"pid {hello.pid}"))
        return actions + self._advance()

    def _child_exited(self, event: msg.ChildExited) -> list[Action]:
        member = self.members.setdefault(event.node, Member(event.node))
        member.restarts = event.restarts
        if event.child != "stage":
            return [Note("exited", event.node, f"{event.child}: {event.detail}")]
        why = f"stage process {event.pid} ended ({event.detail})"
        if event.retry_seconds < 0:
            why += "; not started again after too many failures: fix it, then restart shardd"
        actions: list[Action] = [Note("exited", event.node, why)]
        if member.stage and member.stage.pid == event.pid:
            actions += self._stage_lost(member, why)
        elif member.stage is None:
            member.trouble = why
        return actions

    def _goodbye(self, event: msg.Goodbye) -> list[Action]:
        member = self.members.get(event.node)
        if not member or not member.node or member.node.incarnation != event.incarnation:
            return []
        member.draining = True
        return [Note("draining", event.node, "leaves when its running requests have ended")]

    def _stage_lost(self, member: Member, why: str) -> list[Action]:
        member.stage_gone(why)
        if self.slot_of(member.name) is None:
            return []
        return self._down(f"{member.name}: {why}")

    def _down(self, why: str) -> list[Action]:
        was_up, self.up, self._assigning = self.up, False, False
        self.why_down = why
        return [PipelineDown(why)] if was_up else []

    # --- the wanted model ---

    def _model_wanted(self, event: ModelWanted) -> list[Action]:
        actions = self._down("the model is being loaded")
        self.wanted, self.slots, self._answer_due = event, (), True
        self.why_down = "the model is being loaded"
        try:
            if event.split:
                ranges_of(event.split, event.model.layers)
            if event.split and event.nodes and len(event.split) != len(event.nodes):
                raise SplitError(f"{len(event.split)} stages for {len(event.nodes)} nodes")
        except SplitError as error:
            return actions + self._refuse(str(error))
        return actions + self._advance()

    def _refuse(self, why: str) -> list[Action]:
        assert self.wanted
        what = f"cannot split {self.wanted.model.name}"
        todo = f"give one number of layers per node that add up to {self.wanted.model.layers}"
        actions = self._model_unwanted()
        return [*actions, LoadEnded(msg.Failure(0, 2, what, why, todo))]

    def _model_unwanted(self) -> list[Action]:
        actions: list[Action] = self._down("no model is loaded")
        self.why_down = "no model is loaded"
        self.wanted, self.slots, self._answer_due = None, (), False
        for member in self.members.values():
            if member.stage and (member.holding or member.loading):
                member.holding = member.loading = member.loaded = None
                actions.append(ToStage(member.name, msg.Unload(self.term)))
        return actions

    def _plan(self) -> list[Action]:
        """Choose nodes and ranges once enough stages have joined."""
        assert self.wanted
        model, nodes, split = self.wanted.model, self.wanted.nodes, list(self.wanted.split)
        if not nodes:
            here = [m.name for m in self.members.values() if m.stage and not m.draining]
            here.sort(key=lambda name: (name != self.rules.local_node, name))
            if split and len(here) < len(split):
                self.why_down = f"{len(split)} stages wanted, {len(here)} nodes have joined"
                return []
            nodes = tuple(here[: len(split)] if split else here[: model.layers])
        missing = [n for n in nodes if n not in self.members or not self.members[n].stage]
        if missing or not nodes:
            self.why_down = f"waiting for {', '.join(missing) or 'a first node'}"
            return []
        try:
            split = split or even_split(model.layers, len(nodes))
        except SplitError as error:
            return self._refuse(str(error))
        ranges = ranges_of(split, model.layers)
        self.slots = tuple(Slot(n, r) for n, r in zip(nodes, ranges, strict=True))
        layout = ", ".join(f"{s.node} {s.layers}" for s in self.slots)
        return [Note("layout", "", f"{model.name}: {layout}")]

    def _need(self, slot: Slot) -> Holding:
        assert self.wanted
        return Holding(self.wanted.model.digest, slot.layers)

    def _advance(self) -> list[Action]:
        """Take the next step towards a running pipeline, as far as what is known allows."""
        if self.wanted is None or self.up:
            return []
        actions: list[Action] = [] if self.slots else self._plan()
        if not self.slots:
            return actions
        members = [self.members.get(slot.node) for slot in self.slots]
        for slot, member in zip(self.slots, members, strict=True):
            if member is None or member.stage is None:
                continue
            need = self._need(slot)
            if need not in (member.holding, member.loading) and not member.load_again_at:
                member.loading, member.holding, member.loaded = need, None, None
                actions.append(ToStage(slot.node, self._load_message(slot)))
        ready = [
            m for s, m in zip(self.slots, members, strict=True)
            if m is not None and m.stage is not None and m.holding == self._need(s)
        ]  # fmt: skip
        if len(ready) < len(self.slots):
            return actions
        if not self._assigning:
            return actions + self._assign(ready)
        if all(m.assigned == self.epoch for m in ready):
            actions += self._go_up(ready)
        return actions

    def _load_message(self, slot: Slot) -> msg.Load:
        assert self.wanted
        model, r = self.wanted.model, slot.layers
        return msg.Load(self.term, model.name, model.folder, model.digest, r.start, r.end)

    def _assign(self, ready: list[Member]) -> list[Action]:
        self.epoch += 1
        self._assigning = True
        assert self.wanted
        addresses = [m.loaded.data_address for m in ready if m.loaded]
        onward = [*addresses[1:], self.wanted.result_address]
        return [
            ToStage(m.name, msg.Assign(self.term, self.epoch, i, to, self.rules.chunk_tokens))
            for i, (m, to) in enumerate(zip(ready, onward, strict=True))
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

    # --- health ---

    def _frame_overdue(self, event: FrameOverdue) -> list[Action]:
        """End the stage that has sat on this frame; none: the frame was lost, the scheduler issues
        it again.
        """
        holders = [
            (member.beat.busy_seconds, member)
            for member in (self.members[slot.node] for slot in self.slots)
            if member.stage and member.beat and member.beat.microbatch == event.microbatch
        ]
        # Heartbeats are as old as their interval: of two that name the frame, the longer has it.
        busy, member = max(holders, key=lambda holder: holder[0], default=(0.0, None))
        if member is None or busy < self.rules.hung_after:
            return []
        return self._end_stage(member, f"no progress for {busy:.1f} s on one frame")

    def _tick(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for member in self.members.values():
            silent = now - member.beat_at
            if member.stage and silent > self.rules.dead_after:
                actions += self._end_stage(member, f"silent for {silent:.1f} s")
            elif member.stage and silent > self.rules.dead_after / 2:
                member.suspect = True
            if member.node and now - member.node_at > 2 * self.rules.dead_after:
                member.node = None
                left = "left" if member.draining else "node-lost"
                actions.append(Note(left, member.name, "its shardd is silent"))
            if now >= member.load_again_at:
                member.load_again_at = 0.0
        return actions + self._advance()

    def _end_stage(self, member: Member, why: str) -> list[Action]:
        assert member.stage
        kill = ToNode(member.name, msg.KillStage(self.term, member.stage.pid, why))
        note = Note("ended", member.name, f"stage process {member.stage.pid}: {why}")
        return [kill, note, *self._stage_lost(member, why)]

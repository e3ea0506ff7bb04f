"""Who is there: nodes and their stage processes, as their own messages tell.

The roster knows nothing of layouts. What it hears becomes notes for people and facts for the
cluster machine: a stage is lost, a Load was refused. Stages that hang are ended here, whoever found
them.
"""

from __future__ import annotations

from dataclasses import dataclass

from daemon import messages as msg
from daemon.cluster.events import Note, ToNode
from daemon.cluster.executions import Executions
from daemon.cluster.member import Holding, Member
from daemon.cluster.rules import Rules
from daemon.layers import LayerRange

FromNode = msg.NodeHello | msg.NodeHeartbeat | msg.ChildExited | msg.Goodbye
Said = msg.Loaded | msg.LoadFailed | msg.Assigned | msg.Prepared | msg.Giving
FromStage = msg.StageHello | msg.Heartbeat | Said


@dataclass(frozen=True, slots=True)
class StageLost:
    """What the node's stage held, and its place, are gone."""

    node: str
    why: str


@dataclass(frozen=True, slots=True)
class LoadRefused:
    """The layers that the node was asked to load are not going to be held."""

    node: str
    what: str
    why: str
    todo: str


Fact = Note | ToNode | StageLost | LoadRefused


class Roster:
    def __init__(self, rules: Rules) -> None:
        self.members: dict[str, Member] = {}
        self.joined_at = 0.0
        self._drained: frozenset[str] = frozenset()
        self._rules = rules
        self._executions = Executions(rules.ask_again_after, rules.join_within)

    def hear(self, event: FromNode | FromStage, now: float) -> list[Fact]:
        match event:
            case msg.NodeHello():
                return self._node_joined(event, now)
            case msg.StageHello():
                return self._stage_joined(event, now)
            case msg.Heartbeat():
                return self._heartbeat(event, now)
            case msg.NodeHeartbeat() | msg.ChildExited() | msg.Goodbye():
                member = self.members.get(event.node)
                if member and member.node and member.node.incarnation == event.incarnation:
                    return self._from_node(event, member, now)
                return []  # of another shardd of that name
            case _:
                member = self.speaker(event)
                return self._from_stage(event, member, now) if member else []

    def speaker(self, event: Said | msg.LinkFailed | msg.PathTaken | msg.PathLost) -> Member | None:
        """Whose stage said it; None for a process that is already counted as gone."""
        member = self.members.get(event.node)
        if member and member.stage and member.stage.incarnation == event.incarnation:
            return member
        return None

    def drain(self, nodes: frozenset[str]) -> None:
        """These are to have no layers, whether they are there or not; all others may."""
        self._drained = nodes
        for member in self.members.values():
            member.drained = member.name in nodes

    def _member(self, name: str) -> Member:
        """As it is known, or new."""
        fresh = Member(name, drained=name in self._drained)
        return self.members.setdefault(name, fresh)

    # --- nodes ---

    def _node_joined(self, hello: msg.NodeHello, now: float) -> list[Fact]:
        member = self._member(hello.node)
        fresh = member.node is None or member.node.incarnation != hello.incarnation
        member.node, member.node_at, member.draining = hello, now, False
        if not fresh:
            return []
        member.joined_at, member.given_up = now, False
        self.joined_at = now
        note = Note("joined", hello.node, f"shardd {hello.version}, pid {hello.pid}")
        if member.stage and member.stage.node_incarnation != hello.incarnation:
            return [note, self._lost(member, "its shardd was replaced")]
        return [note]

    def _from_node(
        self, event: msg.NodeHeartbeat | msg.ChildExited | msg.Goodbye, member: Member, now: float
    ) -> list[Fact]:
        match event:
            case msg.NodeHeartbeat():
                member.node_at, member.memory_free_bytes = now, event.memory_free_bytes
                if event.stage_pid != member.stage_pid:
                    member.stage_pid, member.stage_pid_at = event.stage_pid, now
                return []
            case msg.ChildExited():
                return self._child_exited(event, member)
            case msg.Goodbye():
                told, member.draining = member.draining, True
                text = "leaves when its running requests have ended"
                return [] if told else [Note("draining", event.node, text)]

    def _child_exited(self, event: msg.ChildExited, member: Member) -> list[Fact]:
        if event.child != "stage":
            return [Note("exited", event.node, f"{event.child}: {event.detail}")]
        member.restarts = event.restarts
        why = f"stage process {event.pid} ended ({event.detail})"
        given_up = member.given_up = event.retry_seconds < 0 and not member.draining
        if given_up:
            why += "; not started again after too many failures: fix it, then restart shardd"
        self._executions.ended(member.name, event.pid)
        facts: list[Fact] = [Note("exited", event.node, why)]
        if given_up or event.reason == "out-of-memory":
            what = f"{member.name} cannot keep a stage running"
            todo = "give it fewer layers, or look at `shardctl logs`"
            facts.append(LoadRefused(member.name, what, why, todo))
        if member.stage and member.stage.pid == event.pid:
            facts.append(self._lost(member, why))
        elif member.stage is None:
            member.trouble = why
        return facts

    # --- stages ---

    def _stage_joined(self, hello: msg.StageHello, now: float) -> list[Fact]:
        member = self._member(hello.node)
        known = member.stage
        if known and known.incarnation == hello.incarnation:
            member.beat_at = now
            return []
        facts: list[Fact] = []
        if known:
            facts.append(self._lost(member, "its stage process was replaced"))
        member.stage_gone(None)
        member.stage, member.beat_at, self.joined_at = hello, now, now
        self._executions.ended(hello.node)
        # What it holds it says next; a Load that crosses that word is answered by the same word.
        return [*facts, Note("stage-joined", hello.node, f"pid {hello.pid}")]

    def _heartbeat(self, beat: msg.Heartbeat, now: float) -> list[Fact]:
        member = self.members.get(beat.node)
        if member is None:
            return []
        if member.stage is None or member.stage.incarnation != beat.incarnation:
            if beat.pid == member.stage_pid and (beat.loading or 0 < beat.busy_seconds < 60):
                member.stage_pid_at = now  # it cannot say hello yet: it is at work
            return []
        member.beat, member.beat_at, member.suspect = beat, now, False
        if not beat.move and now - member.prepared_at > self._rules.ask_again_after:
            member.prepared = None  # it has been told to let go of it
        empty = member.loaded and not beat.loading and not beat.digest
        if empty and now - member.loaded_at > self._rules.ask_again_after:
            member.loaded = member.asked = None
            return [StageLost(beat.node, "it has let go of its layers")]
        return []

    def _from_stage(self, event: Said, member: Member, now: float) -> list[Fact]:
        match event:
            case msg.Loaded():
                layers = LayerRange(event.start, event.end)
                held = Holding(event.digest, layers)
                if held != member.holding and member.can_take(held):
                    member.asked = held  # it had them beside those before
                known, member.loaded, member.loaded_at = member.loaded, event, now
                member.trouble = None
                text = f"layers {layers} in {event.load_seconds:.1f} s"
                return [] if known == event else [Note("loaded", event.node, text)]
            case msg.LoadFailed():
                if member.asked != Holding(event.digest, LayerRange(event.start, event.end)):
                    return []  # of something that is not wanted any more
                known_trouble, member.trouble = member.trouble, f"{event.what}: {event.why}"
                member.loaded = None
                member.load_again_at = now + self._rules.load_again_after
                what = f"{event.node}: {event.what}"
                refused = LoadRefused(event.node, what, event.why, event.todo)
                note = Note("load-failed", event.node, member.trouble)
                return [refused] if known_trouble == member.trouble else [note, refused]
            case msg.Assigned():
                member.assigned = max(member.assigned, event.epoch)
                return []
            case msg.Prepared():
                before = member.prepared
                if before and (before.term, before.move) > (event.term, event.move):
                    return []
                member.prepared, member.prepared_at = event, now
                layers = LayerRange(event.start, event.end)
                text = event.why or f"layers {layers} in {event.load_seconds:.1f} s"
                return [] if before == event else [Note("prepared", event.node, text)]
            case msg.Giving():
                member.giving, member.giving_at = event, now
                return []

    def _lost(self, member: Member, why: str) -> StageLost:
        member.stage_gone(why)
        return StageLost(member.name, why)

    # --- health ---

    def end_stage(self, member: Member, why: str, now: float) -> list[Fact]:
        """Its process makes no progress: it is killed, and counted as gone from now on."""
        assert member.stage
        note = self._executions.condemn(member.name, member.stage.pid, why, now)
        return [note, self._lost(member, why)]

    def tick(self, now: float) -> list[Fact]:
        """Who was silent for too long."""
        rules = self._rules
        facts: list[Fact] = []
        for member in list(self.members.values()):
            silent = now - member.beat_at
            if member.stage and silent > rules.dead_after:
                facts += self.end_stage(member, f"silent for {silent:.1f} s", now)
            elif member.stage and silent > rules.dead_after / 2:
                member.suspect = True
            elif self._never_said_hello(member, now):
                member.stage_pid_at = now
                why = f"it has not said hello for {rules.join_within:.0f} s"
                facts.append(self._executions.condemn(member.name, member.stage_pid, why, now))
            if member.node and now - member.node_at > rules.dead_after:
                facts.append(self._node_gone(member))
        return facts

    def excuse(self, seconds: float) -> None:
        """The coordinator stood still: what could not be heard so long counts against nobody."""
        for member in self.members.values():
            member.beat_at += seconds
            member.node_at += seconds
            member.stage_pid_at += seconds

    def executions(self, term: int, now: float) -> list[ToNode]:
        """Which processes are to be killed, said until it is done."""
        return self._executions.due(term, now)

    def _never_said_hello(self, member: Member, now: float) -> bool:
        """A process that was hanging already when this coordinator came. One that was heard, and
        has just been counted as gone, is not one of these.
        """
        if member.stage or not member.node or not member.stage_pid:
            return False
        return now - max(member.stage_pid_at, member.beat_at) > self._rules.join_within

    def _node_gone(self, member: Member) -> Note:
        member.node = None
        left, member.draining = member.draining, False
        if not left:
            return Note("node-lost", member.name, "its shardd is silent")
        if member.stage is None:
            del self.members[member.name]
        member.trouble = "it has left"
        return Note("left", member.name, "its shardd has ended")

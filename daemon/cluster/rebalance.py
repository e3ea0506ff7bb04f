"""One change of layout under running requests (DESIGN.md §9); daemon.messages.moving draws it.

Decisions only: `advance` compares what each phase needs with what the members last reported, and
asks again for what is missing. It never touches the layout in force. What it comes to is an
outcome, and the cluster machine acts on it:

    PREPARE   who gets other layers loads them beside those it computes with
    COPY      who gives layers sends their KV, and what grows of it
    SWITCH    places are told, the barrier goes round: committed when it is back, and all switched
    REPLAY    the copy did not pay: the pipeline goes down and comes up in the new layout
    RETURN    given up after the barrier: it goes down and comes up as it was

The last two are the cluster machine's usual way to a running pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from daemon import messages as msg
from daemon.cluster.events import Action, ModelWanted, SendBarrier, Slot
from daemon.cluster.member import Member
from daemon.cluster.orders import Move, Orders
from daemon.cluster.rules import Rules


class Phase(Enum):
    PREPARE = "preparing"
    COPY = "copying"
    SWITCH = "switching"
    REPLAY = "replaying"
    RETURN = "returning"


@dataclass(frozen=True, slots=True)
class Committed:
    """All have switched, and nothing of the old epoch is under way."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    why: str


@dataclass(frozen=True, slots=True)
class Replay:
    """Computing everything again takes less time than copying it, or it was asked for."""

    why: str


Outcome = Committed | GivenUp | Replay
Step = tuple[list[Action], Outcome | None]
Members = Mapping[str, Member]


@dataclass(frozen=True, slots=True)
class Progress:
    """Bytes of weights, and of KV that was handed over and that is left; `seconds` in `phase`."""

    phase: Phase
    seconds: float
    bytes_loaded: int
    bytes_total: int
    sent_bytes: int
    left_bytes: int


class Rebalance:
    """`why` says why it is given up, "" while it is not."""

    def __init__(
        self,
        rules: Rules,
        wanted: ModelWanted,
        move: Move,
        replay_seconds: float,
        now: float,
    ) -> None:
        self.move = move
        self.phase, self.phase_at = Phase.PREPARE, now
        self.why = ""
        self.barrier_returned = False
        self._rules = rules
        self._orders = Orders(rules, wanted, move)
        self._replay_seconds = replay_seconds
        self._sign: object = None  # what shows that this phase goes on
        self._sign_at = now
        self._least_left = float("inf")
        self._least_at = now

    def copied_bytes(self, members: Members) -> int:
        return sum(told.sent_bytes for told in self._giving(members).values())

    def progress(self, members: Members, now: float) -> Progress:
        beats = [m.beat for s in self.move.takers if (m := members.get(s.node)) and m.beat]
        loading = [beat for beat in beats if self.move.holds(beat)]
        giving = self._giving(members).values()
        return Progress(
            self.phase,
            now - self.phase_at,
            sum(beat.bytes_loaded for beat in loading),
            sum(beat.bytes_total for beat in loading),
            sum(told.sent_bytes for told in giving),
            sum(told.left_bytes for told in giving),
        )

    def enter(self, phase: Phase, now: float) -> None:
        self.phase, self.phase_at = phase, now
        self._orders.anew()
        self._sign, self._sign_at = None, now
        self._least_left, self._least_at = float("inf"), now

    def advance(self, members: Members, now: float) -> Step:
        """What is to be asked for now, while the pipeline is up; and what it has come to."""
        if trouble := self._trouble(members):
            return [], GivenUp(trouble)
        actions: list[Action] = []
        outcome: Outcome | None = None
        if self.phase is Phase.PREPARE:
            actions, outcome = self._prepare(members, now)
        if self.phase is Phase.COPY:
            more, outcome = self._copy(members, now)
            actions += more
        if self.phase is Phase.SWITCH:
            more, outcome = self._switch(members, now)
            actions += more
        return actions, outcome

    # --- phases -----------------------------------------------------------------------------------

    def _prepare(self, members: Members, now: float) -> Step:
        actions = self._orders.prepare(members, now)
        takers = [members[slot.node] for slot in self.move.takers]
        prepared = sum(map(self._orders.is_prepared, takers))
        if prepared < len(takers):
            beats = [m.beat for m in takers if m.beat and self.move.holds(m.beat)]
            sign = prepared, sum(beat.bytes_loaded for beat in beats)
            return actions, self._timeout(sign, self._rules.prepare_within, now)
        if self.move.transfers and not self._replay_seconds:
            return actions, Replay("as asked")
        self.enter(Phase.COPY, now)
        return actions, None

    def _copy(self, members: Members, now: float) -> Step:
        actions = self._orders.give(members, now)
        giving = self._giving(members)
        if len(giving) < len(self.move.givers):
            return actions, self._timeout(len(giving), self._rules.copy_within, now)
        if any(told.left_bytes > self._rules.copied_enough for told in giving.values()):
            return actions, self._too_slow(giving, now)
        for slot in self.move.old:
            members[slot.node].former = members[slot.node].holding
        self.enter(Phase.SWITCH, now)
        # Behind their places, as far as that can be: who knows them by then goes on at once.
        actions += self._orders.switch(members, now)
        return [*actions, SendBarrier(self.move.epoch - 1)], None

    def _switch(self, members: Members, now: float) -> Step:
        switched = [self._orders.has_switched(members[s.node], s) for s in self.move.new]
        if self.barrier_returned and all(switched):
            return [], Committed()
        beats = [member.beat for member in members.values() if member.beat]
        # Who computes long before the barrier is slow; that it hangs is found out by its frames.
        computed = sum(beat.frames_finished + beat.busy_seconds for beat in beats)
        sign = self.barrier_returned, sum(switched), computed, self.copied_bytes(members)
        outcome = self._timeout(sign, self._rules.switch_within, now)
        return self._orders.switch(members, now), outcome

    def barrier_is_back(self, epoch: int) -> None:
        if self.phase is Phase.SWITCH and epoch == self.move.epoch - 1:
            self.barrier_returned = True

    def check_integrity(self, slots: tuple[Slot, ...], up: bool) -> None:
        before = self.phase in (Phase.PREPARE, Phase.COPY, Phase.SWITCH)
        assert up == before, f"rebalance: {self.phase.value}, and the pipeline is up: {up}"
        assert not up or slots == self.move.old, "rebalance: from another layout"

    # --- what is reported ---

    def _trouble(self, members: Members) -> str:
        """Why it cannot go on, if so."""
        for node in self.move.nodes:
            member = members.get(node)
            if member is None or member.stage is None:
                return f"{node} is lost"
            told = member.prepared
            if told and self.move.is_of(told) and told.why:
                return f"{node}: {told.why}; {told.todo}"
        for node, giving in self._giving(members).items():
            if giving.why:
                return f"{node}: {giving.why}"
        if self.phase is not Phase.PREPARE:
            for slot in self.move.takers:
                if not self._orders.is_prepared(members[slot.node]):
                    return f"{slot.node} has let go of what it had prepared"
        return ""

    def _giving(self, members: Members) -> dict[str, msg.Giving]:
        told = {n: m.giving for n in self.move.givers if (m := members.get(n)) and m.giving}
        return {node: giving for node, giving in told.items() if self.move.is_of(giving)}

    # --- rules ---

    def _timeout(self, sign: object, within: float, now: float) -> GivenUp | None:
        """Nothing has changed for too long."""
        if sign != self._sign:
            self._sign, self._sign_at = sign, now
        if now - self._sign_at < within:
            return None
        return GivenUp(f"nothing went on for {within:.0f} s while {self.phase.value}")

    def _too_slow(self, giving: Mapping[str, msg.Giving], now: float) -> Replay | None:
        left = sum(told.left_bytes for told in giving.values())
        sent = sum(told.sent_bytes for told in giving.values())
        elapsed = now - self.phase_at
        if left < self._least_left:
            self._least_left, self._least_at = left, now
        if now - self._least_at >= self._rules.copy_within:
            return Replay(f"{left} bytes of KV are left, and that does not get less")
        rest = left * elapsed / sent if sent else float("inf")
        if elapsed < self._rules.measured_after or rest <= self._replay_seconds:
            return None
        return Replay(
            f"to copy the {left} bytes of KV that are left takes {rest:.1f} s, to compute "
            f"everything again {self._replay_seconds:.1f} s"
        )

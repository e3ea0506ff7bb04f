"""Another layout while people read their answers: what it takes, where it is, what it was like."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.cluster import events as cl
from daemon.cluster.events import ModelSpec, Slot
from daemon.cluster.placement.problem import Objective, PlacementError
from daemon.cluster.rebalance import Phase
from daemon.coordinator.answer import EXIT_DEGRADED, EXIT_FAILED, EXIT_REFUSED, Answer, Refusal
from daemon.coordinator.change import Change, change_of
from daemon.coordinator.gaps import GapWatch
from daemon.coordinator.models import ServedModel
from daemon.coordinator.move import Move
from daemon.coordinator.proposal import Proposal

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

SETTLE_SECONDS = 5.0  # that clients have to be given a token before the longest gap is told
# To compute nothing again takes time too: nobody is given a token until the pipeline is up.
LEAST_REPLAY_SECONDS = 2.0
BEGINNING = {
    "phase": Phase.PREPARE.value,
    "seconds": 0.0,
    "bytes_loaded": 0,
    "bytes_total": 0,
    "sent_bytes": 0,
    "left_bytes": 0,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """How a rebalance is to go. `objective` and `by_hand`, whether an operator has said what the
    layout is to be, are remembered; None: as before. `wait`: the answer comes at the end, and not
    when it has begun. `replay`: what could be copied is computed again.
    """

    objective: Objective | None = None
    by_hand: bool | None = None
    wait: bool = True
    replay: bool = False


class Rebalancing:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._move: Move | None = None
        self._last: dict[str, Any] | None = None

    # --- what others ask for ---

    @property
    def under_way(self) -> bool:
        return self._move is not None or self._of.cluster.rebalance is not None

    def movable(self) -> ServedModel:
        """What is served. Refusal when its layers cannot be moved now."""
        cluster, model = self._of.cluster, self._of.model
        if model is None:
            what, why = "nothing can be moved", "no model is loaded"
            raise Refusal(EXIT_FAILED, what, why, "shardctl model load NAME")
        if self.under_way:
            what, why = "another rebalance is under way", "there is one at a time"
            todo = "see `shardctl status`; `shardctl rebalance --abort` ends it"
            raise Refusal(EXIT_REFUSED, what, why, todo)
        if self._of.stopping or not cluster.up:
            why = "the coordinator is about to end" if self._of.stopping else cluster.why_down
            what = "nothing can be moved now"
            raise Refusal(EXIT_DEGRADED, what, why, "wait until `shardctl status` says ready")
        return model

    def view(self, found: Proposal) -> dict[str, Any]:
        """What is known of the change beforehand, but for who is left out."""
        present = found.known.promise(self._of.cluster.slots)
        change = self.change(found.known.model, found.slots)
        return {
            **self._of.clients.planning.view(found),
            **change.to_wire(),
            "changed": change.old != change.new,
            "present": present.to_wire() if present else None,
            "gap_seconds": found.promise.round_seconds,
            "replay_seconds": self._replay_seconds(),
        }

    def change(self, model: ModelSpec, slots: tuple[Slot, ...]) -> Change:
        cluster, rates = self._of.cluster, []
        for wire in self._of.scheduler.hops.as_dict():
            if wire["bytes_per_second"]:
                rates.append(wire["bytes_per_second"])
        return change_of(model, cluster.slots, slots, cluster.members, rates)

    def ask(
        self,
        slots: tuple[Slot, ...],
        told: dict[str, Any],
        asked: Asked,
        answer: Answer,
        settled: Callable[[str], object] = lambda why: None,
    ) -> None:
        """The same as `begin`, but that a Refusal goes to who has asked. Nothing begins when they
        have gone meanwhile: they would not know of it.
        """
        if not answer.chunk({"moving": BEGINNING}):
            return
        try:
            self.begin(slots, told, asked, answer, settled)
        except Refusal as refusal:
            answer.refuse(refusal)

    def begin(
        self,
        slots: tuple[Slot, ...],
        told: dict[str, Any],
        asked: Asked,
        answer: Answer | None,
        settled: Callable[[str], object],
    ) -> None:
        """`told` as of `view`, for who has asked. `settled` is called at the end, with why it was
        given up, or "". Refusal when it cannot begin now.
        """
        model = self.movable()
        now, watch = time.monotonic(), GapWatch()

        def done(why: str) -> None:
            if not why:
                loading = self._of.clients.loading
                objective = asked.objective or loading.objective
                by_hand = loading.by_hand if asked.by_hand is None else asked.by_hand
                loading.moved(self._of.cluster.slots, objective, by_hand)
            settled(why)

        change = self.change(model.spec, slots)
        move = self._move = Move(change, told, now, watch, answer, done)
        self._of.clients.streams.watch = watch
        replay = 0.0 if asked.replay else max(LEAST_REPLAY_SECONDS, self._replay_seconds())
        try:
            self._of.happened(cl.RebalanceWanted(slots, replay))
        except PlacementError as error:
            self._forget()
            what, todo = "the layout cannot change now", "see `shardctl status`, and ask again"
            raise Refusal(EXIT_REFUSED, what, str(error), todo) from error
        if answer and not asked.wait and move.ended is None:
            answer.reply(told | {"dry_run": False, "begun": True})
            move.answer = None

    def _replay_seconds(self) -> float:
        """To compute again all that the stages hold, at the pace of the slowest."""
        cluster, scheduler = self._of.cluster, self._of.scheduler
        held = sum(sequence.confirmed for sequence in scheduler.sequences())
        held += sum(len(entry.tokens) for entry in scheduler.residency.index.kept)
        members = (cluster.members[slot.node] for slot in cluster.slots)
        paces = [m.loaded.prefill_token_seconds for m in members if m.loaded]
        return held * max(paces, default=0.0)

    # --- what happens ---

    def look(self) -> None:
        """Something has happened to the cluster."""
        move, rebalance = self._move, self._of.cluster.rebalance
        if move and not move.ended and rebalance:
            move.enter(rebalance.phase.value, time.monotonic())
            if not self._of.cluster.up:
                move.why = self._of.cluster.why_down

    def ended(self, ended: cl.RebalanceEnded) -> None:
        move = self._move
        if move is None or move.ended:
            return
        move.end(ended, time.monotonic())
        move.settled(ended.why)
        if ended.why:
            self._forget()
            if move.answer:
                what, todo = "the layout is as it was", "see `shardctl events`"
                move.answer.fail(EXIT_FAILED, what, ended.why, todo)

    def tick(self, now: float) -> None:
        """Progress for who waits, and the result once nobody waits for a token any more."""
        move = self._move
        if move is None:
            return
        if move.ended:
            behind = self._of.clients.streams.behind(move.ended_at)
            if behind and now - move.ended_at < SETTLE_SECONDS:
                return
            for stream in behind:
                if stream.last_at is not None:
                    move.watch.waited(stream.sequence, now - stream.last_at, stream.gaps)
            self._result(move)
        elif move.answer and not move.answer.chunk({"moving": self.moving(now)}):
            move.answer = None  # it goes on all the same

    def _result(self, move: Move) -> None:
        self._forget()
        self._last = move.result(self._of.cluster.epoch)
        self._of.note("rebalanced", "", _in_words(self._last))
        if move.answer:
            move.answer.reply(move.told | {"dry_run": False, "begun": True} | self._last)

    def _forget(self) -> None:
        self._move = self._of.clients.streams.watch = None

    # --- people ---

    def moving(self, now: float) -> dict[str, Any] | None:
        """Where the rebalance is that is under way, in the shape of docs/protocol.md."""
        cluster = self._of.cluster
        if cluster.rebalance is None:
            return None
        progress = cluster.rebalance.progress(cluster.members, now)
        return {
            "phase": progress.phase.value,
            "seconds": progress.seconds,
            "bytes_loaded": progress.bytes_loaded,
            "bytes_total": progress.bytes_total,
            "sent_bytes": progress.sent_bytes,
            "left_bytes": progress.left_bytes,
        }

    def status(self, now: float) -> dict[str, Any]:
        automatic = self._of.clients.automatic
        return {
            "mode": automatic.mode,
            "moving": self.moving(now),
            "last": self._last,
            "decision": automatic.decision(now),
        }


def _in_words(result: dict[str, Any]) -> str:
    gap = result["longest_gap"]
    text = f"epoch {result['epoch']}, in {sum(result['seconds'].values()):.2f} s"
    text += ", computed again" if result["replayed"] else f", {result['copied_bytes']} bytes copied"
    return text + (f", the longest gap of a client {gap['seconds']:.3f} s" if gap else "")

"""The automatic mode: a better layout is looked for every so often, and moved to when it pays."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon.cluster.autopilot import Autopilot, Layout
from daemon.cluster.placement.wishes import Wishes
from daemon.coordinator.answer import Refusal
from daemon.coordinator.models import ServedModel
from daemon.coordinator.planning import Survey, unplaceable
from daemon.coordinator.proposal import Known, Proposal, propose_change
from daemon.coordinator.rebalancing import Asked

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

LOOK_SECONDS = 30.0
BY_HAND = "an operator has said the layout: `shardctl rebalance --auto` sets it free"


class Automatic:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self.mode: str = coordinator.config.coordinator.rebalance
        self._autopilot = Autopilot()
        self._next = 0.0
        self._looking = False
        self._decided: tuple[float, str] | None = None

    def decision(self, now: float) -> dict[str, Any] | None:
        """The last one, and how long ago it was, in the shape of docs/protocol.md."""
        if self._decided is None:
            return None
        at, why = self._decided
        return {"why": why, "age": now - at}

    def tick(self, now: float) -> None:
        of = self._of
        if self.mode == "off" or self._looking or now < self._next:
            return
        self._next = now + LOOK_SECONDS
        if of.model is None or not of.cluster.up or of.closing:
            return
        if of.clients.rebalancing.under_way or of.clients.draining.going:
            self._decide("layers are moving already")
        elif of.clients.loading.by_hand:
            self._decide(BY_HAND)
        elif of.idle:
            self._decide("nothing runs, so nothing is measured")
        else:
            self._look(of.model)

    def _look(self, model: ServedModel) -> None:
        self._looking = True
        wishes = Wishes(self._of.clients.loading.objective)

        def surveyed(known: Known, missing: dict[str, str]) -> None:
            self._of.desk.submit(
                partial(propose_change, known, wishes, self._of.cluster.slots),
                self._found,
                lambda error: self._cannot(unplaceable(error, missing, "rebalance")),
            )

        order = tuple(slot.node for slot in self._of.cluster.slots)
        survey = Survey(
            model, wishes, surveyed, self._cannot, lambda nodes: None, order=order, served=True
        )
        self._of.clients.planning.survey(survey)

    def _cannot(self, refusal: Refusal) -> None:
        self._looking = False
        self._decide(f"{refusal.what}: {refusal.why}")

    def _found(self, found: Proposal) -> None:
        self._looking = False
        cluster, rebalancing = self._of.cluster, self._of.clients.rebalancing
        known, objective = found.known, found.wishes.objective
        present = known.promise(cluster.slots) if cluster.up else None
        if present is None:
            self._decide("not all nodes of the layout were measured")
            return
        now = present.seconds(objective)

        def gain(layout: Layout) -> float:
            promise = known.promise(layout)
            return now / promise.seconds(objective) - 1 if promise else -1.0

        def cost(layout: Layout) -> float:
            change = rebalancing.change(known.model, layout)
            return (change.load_seconds or 0.0) + (change.copy_seconds or 0.0) + now

        decision = self._autopilot.look(cluster.slots, found.slots, gain, cost, time.monotonic())
        self._decide(decision.why)
        if decision.layout:
            self._of.note("rebalance", "", f"automatic: {decision.why}")
            try:
                rebalancing.begin(decision.layout, {}, Asked(), None, self._moved)
            except Refusal as refusal:
                self._moved(refusal.why)

    def _moved(self, why: str) -> None:
        self._autopilot.moved(time.monotonic())
        self._decide(f"not moved: {why}" if why else "moved to a better layout")

    def _decide(self, why: str) -> None:
        self._decided = time.monotonic(), why

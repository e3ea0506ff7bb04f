"""Nodes that are to have no layers: drained by an operator, or about to leave. Their layers move to
the others while requests run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.placement.problem import PlacementError
from daemon.cluster.placement.wishes import Wishes
from daemon.coordinator.answer import EXIT_REFUSED, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, typed
from daemon.coordinator.drained import Drained
from daemon.coordinator.models import ServedModel
from daemon.coordinator.planning import Survey, unplaceable
from daemon.coordinator.proposal import Known, Proposal, propose_change
from daemon.coordinator.rebalancing import Asked

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator


class Draining:
    """`nodes` are drained, written down; `going` are about to leave, and their layers are moved
    before.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._memory = Drained(coordinator.config.node.state_dir / "drained.json")
        self.nodes = self._memory.recall()
        self.going: set[str] = set()
        self._planned: set[str] = set()  # about to leave; a layout without them is looked for
        self._staying: set[str] = set()  # about to leave, and their layers are not moved

    def begin(self) -> None:
        """The coordinator has started."""
        self._of.happened(cl.NodesDrained(self.nodes))

    # --- verbs ---

    def drain(self, answer: Answer, arguments: dict[str, Any]) -> None:
        node, dry_run = self._node(arguments), typed(arguments, "dry_run", bool, False)
        rebalancing = self._of.clients.rebalancing
        told = {"node": node, "dry_run": dry_run, "begun": False}
        if node in self.nodes:
            answer.reply(told | {"changed": False})
            return
        if self._of.cluster.slot_of(node) is None and not rebalancing.under_way:
            if not dry_run:
                self._drain(self.nodes | {node})
            answer.reply(told | {"changed": True, "nodes": []})
            return
        model = rebalancing.movable()
        asked = Asked(wait=typed(arguments, "wait", bool, True))

        def found(proposal: Proposal) -> None:
            view = told | rebalancing.view(proposal)
            if dry_run:
                answer.reply(view)
                return
            drained = self.nodes | {node}
            rebalancing.ask(
                proposal.slots,
                view,
                asked,
                answer,
                lambda why: None if why else self._drain(drained),
            )

        def failed(refusal: Refusal) -> None:
            todo = "add a node, give the others more memory, or load a smaller model"
            answer.refuse(Refusal(EXIT_REFUSED, f"{node} cannot be drained", refusal.why, todo))

        self._without(node, model, found, failed, answer.measuring)

    def undrain(self, answer: Answer, arguments: dict[str, Any]) -> None:
        node, dry_run = self._node(arguments), typed(arguments, "dry_run", bool, False)
        changed = node in self.nodes
        if changed and not dry_run:
            self._drain(self.nodes - {node})
        answer.reply({"node": node, "changed": changed, "dry_run": dry_run})

    def _node(self, arguments: dict[str, Any]) -> str:
        node: str | None = typed(arguments, "node", str, None)
        known = self._of.cluster.members.keys() | self.nodes
        if node not in known:
            raise BadArguments(f"no node {node}; known are {', '.join(sorted(known))}")
        return node

    # --- nodes that leave ---

    @property
    def staying(self) -> bool:
        """Whether a stage is about to leave and its layers are not moved: requests are to end. Once
        it has left, those that come wait for it.
        """
        cluster = self._of.cluster
        if not cluster.up:
            return False
        members = [m for s in cluster.slots if (m := cluster.members.get(s.node))]
        return any(m.draining and m.name not in self.going for m in members)

    def leaving(self, node: str) -> None:
        """A shardd has said, or says again, that it is about to leave. One that is not the node's
        present one says nothing about it.
        """
        member = self._of.cluster.members.get(node)
        if member is None or not member.draining:
            return
        if node in self._staying | self._planned or self._of.stopping:
            return
        if self._of.cluster.slot_of(node) is None:
            return
        rebalancing = self._of.clients.rebalancing
        if rebalancing.under_way:  # of it, or of another: it says so again in a second
            self.going.add(node)
            return
        try:
            model = rebalancing.movable()
        except Refusal:
            self.going.discard(node)
            return
        self.going.add(node)
        self._planned.add(node)
        due = time.monotonic() + self._of.config.timeouts.drain_s

        def found(proposal: Proposal) -> None:
            self._planned.discard(node)
            change = rebalancing.change(model.spec, proposal.slots)
            left = due - time.monotonic()
            needed = (change.load_seconds or 0.0) + (change.copy_seconds or 0.0)
            if needed > left:
                self._stay(node, f"to move them takes {needed:.0f} s, it leaves in {left:.0f}")
                return
            try:
                settled = partial(self._left, node)
                rebalancing.begin(proposal.slots, {}, Asked(), None, settled)
            except Refusal as refusal:
                self._stay(node, refusal.why)

        def failed(refusal: Refusal) -> None:
            self._planned.discard(node)
            self._stay(node, refusal.why)

        self._without(node, model, found, failed, lambda nodes: None)

    def tick(self) -> None:
        """Let those go that nobody needs any more. Who has left, or is here again, may leave
        another time.
        """
        cluster = self._of.cluster
        leaving = {name for name, member in cluster.members.items() if member.draining}
        self.going &= leaving
        self._staying &= leaving
        for name in leaving:
            needed = name in self.going or not self._of.idle
            if not needed or cluster.slot_of(name) is None:
                self._of.to_node(name, msg.Drained(name))

    def _left(self, node: str, why: str) -> None:
        if why:
            self._stay(node, why)
        else:
            self.going.discard(node)

    def _stay(self, node: str, why: str) -> None:
        self.going.discard(node)
        self._staying.add(node)
        self._of.note("draining", node, f"its layers are not moved: {why}")

    # --- layouts without a node ---

    def _without(
        self,
        node: str,
        model: ServedModel,
        found: Callable[[Proposal], object],
        failed: Callable[[Refusal], object],
        measuring: Callable[[list[str]], object],
    ) -> None:
        """The best one, with room for the whole context where that is possible."""
        wishes = Wishes(self._of.clients.loading.objective)

        def surveyed(known: Known, missing: dict[str, str]) -> None:
            others = tuple(name for name in known.candidates if name != node)
            without = replace(known, candidates=others)
            self._of.desk.submit(
                partial(_propose, without, wishes, self._of.cluster.slots),
                found,
                lambda error: failed(unplaceable(error, missing, "nodes drain")),
            )

        order = tuple(slot.node for slot in self._of.cluster.slots)
        survey = Survey(model, wishes, surveyed, failed, measuring, order=order, served=True)
        self._of.clients.planning.survey(survey)

    def _drain(self, nodes: frozenset[str]) -> None:
        self.nodes = nodes
        self._memory.keep(nodes)
        self._of.happened(cl.NodesDrained(nodes))


def _propose(known: Known, wishes: Wishes, present: Sequence[cl.Slot]) -> Proposal:
    """The model on fewer nodes may leave too little memory for the whole context: it is served all
    the same, with what is left.
    """
    try:
        return propose_change(known, wishes, present)
    except PlacementError:
        return propose_change(replace(known, context=0, kv_bytes=0), wishes, present)

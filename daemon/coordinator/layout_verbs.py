"""The verbs `rebalance` and `rebalance.abort`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon.cluster import events as cl
from daemon.cluster.placement.wishes import Wishes
from daemon.coordinator.answer import EXIT_FAILED, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, placement_wishes, typed, typed_context
from daemon.coordinator.planning import Survey, left_out_view, unplaceable
from daemon.coordinator.proposal import LEAST_GAIN, Known, Proposal, propose_change
from daemon.coordinator.rebalancing import Asked

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator


class LayoutVerbs:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator

    def rebalance(self, answer: Answer, arguments: dict[str, Any]) -> None:
        rebalancing = self._of.clients.rebalancing
        model = rebalancing.movable()
        wishes, context = placement_wishes(arguments), typed_context(arguments)
        nodes = self._named(arguments, wishes)
        by_hand = bool(wishes.split or wishes.pins or wishes.memory or wishes.exclude or nodes)
        wait, replay = typed(arguments, "wait", bool, True), typed(arguments, "replay", bool, False)
        asked = Asked(wishes.objective, by_hand, wait, replay)
        dry_run = typed(arguments, "dry_run", bool, False)

        def surveyed(known: Known, missing: dict[str, str]) -> None:
            present = self._of.cluster.slots

            def work() -> tuple[Proposal, dict[str, str]]:
                found = propose_change(known, wishes, present)
                return found, found.left_out() if dry_run else {}

            def then(solved: tuple[Proposal, dict[str, str]]) -> None:
                found, why = solved
                told = rebalancing.view(found) | {"left_out": left_out_view(why | missing)}
                told["changed"] &= by_hand or self._gains(found)
                if told["changed"] and not dry_run:
                    rebalancing.ask(found.slots, told, asked, answer)
                    return
                if not dry_run:  # it is the wish that counts from now on
                    slots = self._of.cluster.slots
                    self._of.clients.loading.moved(slots, wishes.objective, by_hand)
                answer.reply(told | {"dry_run": dry_run, "begun": False})

            self._of.desk.submit(
                work, then, lambda error: answer.refuse(unplaceable(error, missing, "rebalance"))
            )

        survey = Survey(
            model,
            wishes,
            surveyed,
            answer.refuse,
            answer.measuring,
            order=nodes or tuple(slot.node for slot in self._of.cluster.slots),
            only=bool(nodes),
            context=context,
            served=True,
        )
        self._of.clients.planning.survey(survey)

    def abort(self, answer: Answer, arguments: dict[str, Any]) -> None:
        if self._of.cluster.rebalance is None:
            what, why = "nothing to abort", "no rebalance is under way"
            raise Refusal(EXIT_FAILED, what, why, "see `shardctl status`")
        self._of.happened(cl.RebalanceUnwanted("an operator has ended it"))
        answer.reply({})

    def _gains(self, found: Proposal) -> bool:
        """Whether it is better than the present layout, which may be as good but for the noise."""
        objective = found.wishes.objective
        present = found.known.promise(self._of.cluster.slots)
        best = found.promise.seconds(objective)
        return present is None or present.seconds(objective) > best * (1 + LEAST_GAIN)

    def _named(self, arguments: dict[str, Any], wishes: Wishes) -> tuple[str, ...]:
        """The argument `nodes`: those that are to have layers, first stage first."""
        nodes = typed(arguments, "nodes", list, [])
        known = self._of.cluster.members
        for name in nodes:
            if name not in known:
                raise BadArguments(f"no node {name}; known are {', '.join(sorted(known))}")
        if len(set(nodes)) < len(nodes):
            raise BadArguments("a node is named twice")
        if nodes and wishes.split and len(nodes) != len(wishes.split):
            raise BadArguments(
                f"the split is for {len(wishes.split)} nodes, {len(nodes)} are named"
            )
        return tuple(nodes)

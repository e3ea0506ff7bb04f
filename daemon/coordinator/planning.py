"""What is known of the nodes, measured first where it is not; and the verb `plan`: which of them
should hold which layers, and what that would give.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon import messages as msg
from daemon.cluster.member import Member
from daemon.cluster.placement.estimate import COORDINATOR, Measured
from daemon.cluster.placement.problem import Hop, PlacementError
from daemon.cluster.placement.wishes import Wishes
from daemon.cluster.split import SplitError
from daemon.coordinator.answer import EXIT_FAILED, EXIT_USAGE, Answer, Refusal
from daemon.coordinator.arguments import placement_wishes, typed, typed_context
from daemon.coordinator.loading import explained
from daemon.coordinator.models import ServedModel
from daemon.coordinator.profiles import Profile, Profiles
from daemon.coordinator.proposal import Known, Proposal, propose
from daemon.coordinator.rounds import Rounds

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

PROFILE_SECONDS = 60.0  # that a node has to measure itself


@dataclass(frozen=True, slots=True)
class Survey:
    """What somebody wants to place, and what is to be done with what is known: `then` is told also,
    by node, why it could not be measured. `order` are nodes that go first, and with `only` there
    are no others; `context` None: the most tokens. `served`: nodes that serve are as fast as they
    have shown lately, not as they were when they loaded.
    """

    model: ServedModel
    wishes: Wishes
    then: Callable[[Known, dict[str, str]], object]
    failed: Callable[[Refusal], object]
    measuring: Callable[[list[str]], object]
    order: tuple[str, ...] = ()
    only: bool = False
    context: int | None = None
    served: bool = False


class Planning:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._profiles = Profiles(coordinator.config.node.state_dir / "profiles.json")
        # Not from 1: stages may still answer a coordinator that was here before.
        self._rounds: Rounds[msg.Profiled] = Rounds(secrets.randbits(48))
        self._measuring = False
        self._behind: list[Callable[[], object]] = []  # surveys that wait for the round of another

    def tick(self, now: float) -> None:
        self._rounds.tick(now)

    def loaded(self, message: msg.Loaded) -> None:
        member = self._of.cluster.members.get(message.node)
        if member and member.stage and member.stage.incarnation == message.incarnation:
            self._profiles.loaded(message, _machine(member))

    def profiled(self, message: msg.Profiled) -> None:
        member = self._of.cluster.members.get(message.node)
        if member and member.stage and not message.why and message.start < message.end:
            self._profiles.profiled(message, _machine(member))
        self._rounds.report(message.query, message.node, message)

    # --- the verb ---

    def plan(self, answer: Answer, arguments: dict[str, Any]) -> None:
        wishes, context = placement_wishes(arguments), typed_context(arguments)
        reference = typed(arguments, "model", str, None)
        model = self._of.model

        def ask(model: ServedModel) -> None:
            then = partial(self._propose, answer, wishes)
            order = self._of.clients.loading.nodes_of(wishes.split)
            tell = answer.refuse, answer.measuring
            self.survey(Survey(model, wishes, then, *tell, order=order, context=context))

        if model and reference in (None, model.spec.name):
            ask(model)
        elif reference is None:
            what, why = "no model to plan for", "none is loaded"
            raise Refusal(EXIT_FAILED, what, why, "shardctl plan MODEL")
        else:
            self._of.desk.submit(
                partial(self._of.catalogue.prepare, reference),
                ask,
                lambda error: answer.refuse(explained(f"cannot plan for {reference}", error)),
            )

    def _propose(
        self, answer: Answer, wishes: Wishes, known: Known, missing: dict[str, str]
    ) -> None:
        def work() -> tuple[Proposal, dict[str, str]]:
            found = propose(known, wishes)
            return found, found.left_out()

        def reply(solved: tuple[Proposal, dict[str, str]]) -> None:
            found, why = solved
            answer.reply(self.view(found) | {"left_out": left_out_view(why | missing)})

        self._of.desk.submit(
            work, reply, lambda error: answer.refuse(unplaceable(error, missing, "plan"))
        )

    def view(self, found: Proposal) -> dict[str, Any]:
        """In the shape of docs/protocol.md, but for who is left out."""
        stages = found.stages()
        self._beside(stages)
        return {
            "model": found.known.model.name,
            "context": found.known.context,
            "objective": found.wishes.objective.value,
            "stages": stages,
            "hops_assumed": found.hops_assumed,
            **found.promise.to_wire(),
        }

    # --- what is known ---

    def survey(self, asked: Survey) -> None:
        """Have those that are not known measure themselves, unless requests would wait for it."""
        there = [m for m in self._there(asked) if m.name not in asked.wishes.exclude]
        if not there:
            why = "no node has a stage that could hold layers"
            asked.failed(Refusal(EXIT_FAILED, "nothing to plan with", why, "see `shardctl nodes`"))
            return
        unknown = [m for m in there if self._profile(asked.model, m) is None]
        idle = [m.name for m in unknown if self._of.cluster.slot_of(m.name) is None]

        def ended(
            reports: Mapping[str, msg.Profiled], silent: Collection[str], given_up: bool
        ) -> None:
            why = {m.name: "it serves another model, and was not measured" for m in unknown}
            why |= dict.fromkeys(silent, f"it did not answer within {PROFILE_SECONDS:g} s")
            why |= {name: report.why for name, report in reports.items()}
            self._surveyed(asked, why)
            if idle:
                self._next()

        if not idle:
            ended({}, (), False)
            return
        asked.measuring(idle)
        if self._measuring:  # a stage does one thing after another, and what it tells serves all
            self._behind.append(partial(self.survey, asked))
            return
        self._measuring = True
        number = self._rounds.begin(idle, time.monotonic() + PROFILE_SECONDS, ended)
        spec, term = asked.model.spec, self._of.cluster.term
        for name in idle:
            profile = msg.Profile(term, number, spec.name, spec.folder, spec.digest)
            self._of.to_stage(name, profile)

    def _next(self) -> None:
        self._measuring = False
        behind, self._behind = self._behind, []
        for survey in behind:
            survey()

    def _there(self, asked: Survey) -> list[Member]:
        """Nodes that could hold layers: those that go first, this one, the others by name."""
        order = {name: i for i, name in enumerate(asked.order)}
        local = self._of.cluster.rules.local_node
        members = self._of.cluster.members.values()
        there = [m for m in members if m.stage and not (m.draining or m.drained)]
        there = [m for m in there if m.name in order or not asked.only]
        return sorted(there, key=lambda m: (order.get(m.name, len(order)), m.name != local, m.name))

    def _profile(self, model: ServedModel, member: Member) -> Profile | None:
        return self._profiles.get(model.spec.digest, member.name, _machine(member))

    def _surveyed(self, asked: Survey, unmeasured: Mapping[str, str]) -> None:
        model, spec = asked.model, asked.model.spec
        measured, missing = {}, {}
        there = self._there(asked)
        for member in self._of.cluster.members.values():
            if profile := self._profile(model, member):
                measured[member.name] = Measured(
                    member.name,
                    profile.layer_seconds(spec.layer_bytes),
                    profile.head_seconds,
                    profile.memory_bytes,
                )
            elif member in there and member.name not in asked.wishes.exclude:
                missing[member.name] = unmeasured.get(member.name) or "it was not measured"
        if asked.served:
            measured |= self._shown(measured)
        context = asked.context or self._of.context_of(model)
        known = Known(
            spec,
            context,
            context * model.info.kv_bytes_per_token_per_layer,
            tuple(member.name for member in there),
            tuple(measured.values()),
            self._hops(),
        )
        asked.then(known, missing)

    def _shown(self, measured: Mapping[str, Measured]) -> dict[str, Measured]:
        """Those of the present layout, as fast as they are now on the layers that they have."""
        slots = self._of.cluster.slots if self._of.cluster.up else ()
        found = {}
        for slot, seconds in zip(slots, self._learnt(), strict=False):
            if (one := measured.get(slot.node)) is None or not seconds:
                continue
            expected = sum(one.layer_seconds[slot.layers.start : slot.layers.end])
            if slot is slots[-1]:
                expected += one.head_seconds or 0.0
            if expected:
                slower = seconds / expected
                head = None if one.head_seconds is None else one.head_seconds * slower
                layers = tuple(s * slower for s in one.layer_seconds)
                found[slot.node] = replace(one, layer_seconds=layers, head_seconds=head)
        return found

    def _learnt(self) -> list[float | None]:
        """Seconds of a step of one token on each stage of the present layout, while it served."""
        steps = self._of.scheduler.status()["predicted"].get("steps", [])
        return [step.get("1") for step in steps]

    def _hops(self) -> dict[tuple[str, str], Hop]:
        """Of the links that are in use, what was measured."""
        of = self._of
        if not of.cluster.up:
            return {}  # what is known is of a layout that is not there any more
        times = of.scheduler.stats.as_dict(time.monotonic())["hops"]
        names = [COORDINATOR, *(slot.node for slot in of.cluster.slots), COORDINATOR]
        between = [None, *of.scheduler.hops.as_dict(), None]
        found = {}
        for i, time_of in enumerate(times):
            if len(times) != len(names) - 1 or time_of["link"]["p50"] is None:
                continue
            wire = between[i] if len(between) == len(times) else None
            rate = wire["bytes_per_second"] if wire else None
            busy = wire["row_bytes"] / rate if wire and rate else 0.0
            found[names[i], names[i + 1]] = Hop(time_of["link"]["p50"], busy)
        return found

    def _beside(self, stages: list[dict[str, Any]]) -> None:
        """What the stages of the present layout that are the same take, as learnt while serving."""
        for stage in stages:
            stage["measured_seconds"] = None
            for slot, seconds in zip(self._of.cluster.slots, self._learnt(), strict=False):
                if (slot.node, str(slot.layers)) == (stage["node"], stage["layers"]):
                    stage["measured_seconds"] = seconds


def left_out_view(why: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"node": name, "why": why[name]} for name in sorted(why)]


def unplaceable(error: BaseException, missing: Mapping[str, str], command: str) -> Refusal:
    """Why there is no layout under these wishes."""
    if isinstance(error, PlacementError | SplitError):
        why = "; ".join([str(error), *(f"{name}: {text}" for name, text in missing.items())])
        todo = f"see `shardctl {command} --help`"
        return Refusal(EXIT_USAGE, "there is no such placement", why, todo)
    return explained(f"cannot {command}", error)


def _machine(member: Member) -> str:
    stage = member.stage
    return f"{stage.device} {stage.blas} mlx {stage.mlx}" if stage else ""

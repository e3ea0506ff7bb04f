"""The verb `plan`: which nodes should hold which layers, and what that would give."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon import messages as msg
from daemon.cluster.events import ModelSpec
from daemon.cluster.member import Member
from daemon.cluster.placement.estimate import (
    COORDINATOR,
    Measured,
    hosts_of,
    left_out,
    load_of,
    network_of,
)
from daemon.cluster.placement.problem import Hop, Objective, Placement, PlacementError
from daemon.cluster.placement.search import place
from daemon.cluster.placement.wishes import Wishes
from daemon.cluster.split import SplitError
from daemon.coordinator.answer import EXIT_FAILED, EXIT_USAGE, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, typed
from daemon.coordinator.loading import explained
from daemon.coordinator.models import ServedModel
from daemon.coordinator.profiles import Profile, Profiles
from daemon.coordinator.rounds import Rounds
from daemon.layers import LayerRange

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

PROFILE_SECONDS = 60.0  # that a node has to measure itself


class Planning:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._profiles = Profiles(coordinator.config.node.state_dir / "profiles.json")
        # Not from 1: stages may still answer a coordinator that was here before.
        self._rounds: Rounds[msg.Profiled] = Rounds(secrets.randbits(48))
        self._measuring = False
        self._behind: list[Callable[[], object]] = []  # plans that wait for the round of another

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

    def plan(self, answer: Answer, arguments: dict[str, Any]) -> None:
        wishes, context = _wishes(arguments), typed(arguments, "context", int, None)
        if context is not None and context < 1:
            raise BadArguments(f"context is {context}, must be 1 or more")
        reference = typed(arguments, "model", str, None)
        model = self._of.model
        if model and reference in (None, model.spec.name):
            self._measure(answer, model, wishes, context)
        elif reference is None:
            what, why = "no model to plan for", "none is loaded"
            raise Refusal(EXIT_FAILED, what, why, "shardctl plan MODEL")
        else:
            self._of.desk.submit(
                partial(self._of.catalogue.prepare, reference),
                lambda found: self._measure(answer, found, wishes, context),
                lambda error: answer.refuse(explained(f"cannot plan for {reference}", error)),
            )

    def _measure(
        self, answer: Answer, model: ServedModel, wishes: Wishes, context: int | None
    ) -> None:
        """Have those that are not known measure themselves, unless requests would wait for it."""
        there = [m for m in self._there(wishes) if m.name not in wishes.exclude]
        if not there:
            why = "no node has a stage that could hold layers"
            answer.fail(EXIT_FAILED, "nothing to plan with", why, "see `shardctl nodes`")
            return
        unknown = [m for m in there if self._profile(model, m) is None]
        idle = [m.name for m in unknown if self._of.cluster.slot_of(m.name) is None]

        def ended(
            reports: Mapping[str, msg.Profiled], silent: Collection[str], given_up: bool
        ) -> None:
            why = {m.name: "it serves another model, and was not measured" for m in unknown}
            why |= dict.fromkeys(silent, f"it did not answer within {PROFILE_SECONDS:g} s")
            why |= {name: report.why for name, report in reports.items()}
            self._place(answer, model, wishes, context, why)
            if idle:
                self._next()

        if not idle:
            ended({}, (), False)
            return
        answer.chunk({"measuring": idle})
        if self._measuring:  # a stage does one thing after another, and what it tells serves all
            self._behind.append(partial(self._measure, answer, model, wishes, context))
            return
        self._measuring = True
        number = self._rounds.begin(idle, time.monotonic() + PROFILE_SECONDS, ended)
        spec, term = model.spec, self._of.cluster.term
        for name in idle:
            asked = msg.Profile(term, number, spec.name, spec.folder, spec.digest)
            self._of.to_stage(name, asked)

    def _next(self) -> None:
        self._measuring = False
        behind, self._behind = self._behind, []
        for measure in behind:
            measure()

    def _there(self, wishes: Wishes) -> list[Member]:
        """Nodes that could hold layers, in the order in which `model load` takes them."""
        named = self._of.nodes_of(wishes.split)
        order, local = {name: i for i, name in enumerate(named)}, self._of.cluster.rules.local_node
        members = self._of.cluster.members.values()
        there = [m for m in members if m.stage and not m.draining]
        return sorted(there, key=lambda m: (order.get(m.name, len(order)), m.name != local, m.name))

    def _profile(self, model: ServedModel, member: Member) -> Profile | None:
        return self._profiles.get(model.spec.digest, member.name, _machine(member))

    def _place(
        self,
        answer: Answer,
        model: ServedModel,
        wishes: Wishes,
        context: int | None,
        unmeasured: Mapping[str, str],
    ) -> None:
        spec = model.spec
        measured, missing = [], {}
        there = self._there(wishes)
        for member in there:
            if profile := self._profile(model, member):
                measured.append(
                    Measured(
                        member.name,
                        profile.layer_seconds(spec.layer_bytes),
                        profile.head_seconds,
                        profile.memory_bytes,
                    )
                )
            elif member.name not in wishes.exclude:
                missing[member.name] = unmeasured.get(member.name) or "it was not measured"
        context = context or self._of.context_of(model)
        names = [member.name for member in there]
        kv_bytes = context * model.info.kv_bytes_per_token_per_layer
        work = partial(_solve, measured, names, spec, wishes, kv_bytes, self._hops())

        def reply(solved: dict[str, Any]) -> None:
            self._beside(solved["stages"])
            why = solved.pop("left_out") | missing
            solved["left_out"] = [{"node": name, "why": why[name]} for name in sorted(why)]
            answer.reply({"model": spec.name, "context": context, **solved})

        self._of.desk.submit(work, reply, lambda error: answer.refuse(_refusal(error, missing)))

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
        learnt = self._of.scheduler.status()["predicted"].get("steps", [])
        for stage in stages:
            stage["measured_seconds"] = None
            for slot, steps in zip(self._of.cluster.slots, learnt, strict=False):
                if (slot.node, str(slot.layers)) == (stage["node"], stage["layers"]):
                    stage["measured_seconds"] = steps.get("1")


def _solve(
    measured: list[Measured],
    names: list[str],
    model: ModelSpec,
    wishes: Wishes,
    kv_bytes: int,
    known: Mapping[tuple[str, str], Hop],
) -> dict[str, Any]:
    hosts, load = wishes.apply(hosts_of(measured, model), names), load_of(model, kv_bytes)
    network, assumed = network_of([host.name for host in hosts], known)
    best = place(hosts, load, network, wishes.objective)
    return {
        "objective": wishes.objective.value,
        "stages": [
            {
                "stage": i,
                "node": hosts[seat.host].name,
                "layers": str(seat.layers),
                "weights_bytes": _weights(model, seat.layers),
                "kv_bytes": kv_bytes * len(seat.layers),
                "memory_bytes": hosts[seat.host].memory_bytes,
                "seconds": seat.seconds,
            }
            for i, seat in enumerate(best.seats)
        ],
        "hops_assumed": assumed,
        **_promised(best),
        "left_out": left_out(hosts, load, network, wishes.objective, best),
    }


def _promised(best: Placement) -> dict[str, Any]:
    return {
        "round_seconds": best.round_seconds,
        "slowest_seconds": best.slowest_seconds,
        "tokens_per_second": 1 / best.round_seconds if best.round_seconds else None,
        "tokens_per_second_full": 1 / best.slowest_seconds if best.slowest_seconds else None,
    }


def _weights(model: ModelSpec, layers: LayerRange) -> int:
    nbytes = sum(model.layer_bytes[layers.start : layers.end])
    nbytes += model.embedding_bytes if layers.start == 0 else 0
    return nbytes + (model.head_bytes if layers.end == len(model.layer_bytes) else 0)


def _refusal(error: BaseException, missing: Mapping[str, str]) -> Refusal:
    if isinstance(error, PlacementError | SplitError):
        why = "; ".join([str(error), *(f"{name}: {text}" for name, text in missing.items())])
        return Refusal(EXIT_USAGE, "there is no such placement", why, "see `shardctl plan --help`")
    return explained("cannot plan", error)


def _machine(member: Member) -> str:
    stage = member.stage
    return f"{stage.device} {stage.blas} mlx {stage.mlx}" if stage else ""


def _wishes(arguments: Mapping[str, Any]) -> Wishes:
    try:
        objective = Objective(typed(arguments, "objective", str, Objective.BALANCED.value))
        pins = {
            str(node): LayerRange(start, end)
            for node, (start, end) in typed(arguments, "pins", dict, {}).items()
        }
    except (TypeError, ValueError) as error:
        raise BadArguments(str(error)) from error
    split, memory = typed(arguments, "split", list, []), typed(arguments, "memory", dict, {})
    exclude = typed(arguments, "exclude", list, [])
    if not all(type(n) is int for n in (*split, *memory.values())):
        raise BadArguments("layers and bytes are whole numbers")
    if not all(isinstance(name, str) for name in exclude):
        raise BadArguments("exclude is a list of nodes")
    return Wishes(objective, tuple(split), pins, memory, frozenset(exclude))

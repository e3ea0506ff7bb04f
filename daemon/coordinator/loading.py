"""Models by request: list, load, unload, and the one that was or is to be served when the
coordinator starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from daemon import logs
from daemon import messages as msg
from daemon.cluster.events import Slot
from daemon.cluster.placement.problem import Objective
from daemon.cluster.split import SplitError, ranges_of
from daemon.coordinator import views
from daemon.coordinator.answer import EXIT_FAILED, EXIT_USAGE, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, typed
from daemon.coordinator.models import ServedModel, UnknownModel
from daemon.coordinator.remembered import Memory, Remembered
from daemon.coordinator.stream import Stream
from daemon.engine.errors import LoadError
from transports.errors import AddressError

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

log = logs.get("models")


def explained(what: str, error: BaseException) -> Refusal:
    """What went wrong at the desk, for the client; what should not have gone wrong, for the log
    too.
    """
    match error:
        case Refusal():
            return error
        case UnknownModel():
            todo = "see `shardctl model list`"
            return Refusal(EXIT_FAILED, f"{what}: unknown model", str(error), todo)
        case LoadError():
            return Refusal(EXIT_FAILED, f"{what}: {error.path}", error.cause, error.remedy)
        case _:
            log.error("work at the desk failed", exc_info=error)
            return Refusal(EXIT_FAILED, what, str(error), "see the coordinator's log")


@dataclass(eq=False, slots=True)
class Job:
    """One model on its way in: `wanted` is remembered when it is there. `answer` is None when
    nobody waits for it; `preparing` while its folder is read.
    """

    wanted: Remembered
    answer: Answer | None
    preparing: bool = True


class Loading:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._job: Job | None = None
        self._memory = Memory(coordinator.config.node.state_dir / "model.json")
        self._served: Remembered | None = None

    @property
    def preparing(self) -> bool:
        return self._job is not None and self._job.preparing

    @property
    def objective(self) -> Objective:
        """What the present layout was chosen for."""
        return self._served.objective if self._served else Objective.BALANCED

    @property
    def by_hand(self) -> bool:
        """Whether an operator has said what the present layout is to be."""
        return self._served is not None and self._served.by_hand

    def listing(self, answer: Answer, arguments: dict[str, Any]) -> None:
        loaded = self._of.model.spec.name if self._of.model else None
        self._of.desk.submit(
            partial(self._of.catalogue.listing, loaded),
            lambda models: answer.reply({"models": models}),
            lambda error: answer.refuse(explained("model list", error)),
        )

    def load(self, answer: Answer, arguments: dict[str, Any]) -> None:
        reference = typed(arguments, "model", str, None)
        split = typed(arguments, "split", list, [])
        if reference is None:
            raise BadArguments("which model? give its name or folder")
        if not all(type(n) is int for n in split):
            raise BadArguments("split is a list of numbers of layers")
        if self._job and self._job.answer:
            what, why = "another model is being loaded", "one at a time"
            raise Refusal(EXIT_FAILED, what, why, "wait for it, or unload it")
        self._prepare(Job(self._wanted(reference, split), answer))

    def load_at_start(self) -> None:
        """What was served before a restart, or what the configuration names."""
        coordinator = self._of.config.coordinator
        if before := self._memory.recall(self._configured()):
            self._prepare(Job(before, None))
        elif coordinator.model:
            self._prepare(Job(self._wanted(coordinator.model, coordinator.split or ()), None))

    def _wanted(self, reference: str, split: Sequence[int]) -> Remembered:
        by_hand = len(split) > 0
        return Remembered(reference, tuple(split), self._configured(), by_hand=by_hand)

    def _configured(self) -> str:
        """What the configuration wishes; with another wish what was served does not count."""
        c = self._of.config.coordinator
        return f"{c.model} {c.split} {c.nodes}"

    def _prepare(self, job: Job) -> None:
        self._job = job
        reference = job.wanted.reference
        self._of.desk.submit(
            partial(self._of.catalogue.prepare, reference),
            partial(self._prepared, job),
            lambda error: self._fail(job, explained(f"cannot load {reference}", error)),
        )

    def _prepared(self, job: Job, model: ServedModel) -> None:
        """What a coordinator before this one left goes on with it at once: before the stages say
        what they hold.
        """
        self._of.clients.resuming.make_ready(model, partial(self._serve, job, model))

    def _serve(self, job: Job, model: ServedModel, left: list[Stream]) -> None:
        """Nothing that runs is touched before it is known that this one can be loaded."""
        if job is not self._job:
            return  # it was unloaded, or another took its place, meanwhile
        reference, split, nodes = job.wanted.reference, job.wanted.split, job.wanted.nodes
        try:
            if split:
                ranges_of(split, model.info.layers)
            if job.answer:
                self._check_nodes(len(split))
            nodes = nodes or self.nodes_of(split)
            self._of.want(model, nodes, split, at_once=job.answer is not None)
            self._of.clients.resuming.go_on(left)
        except SplitError as error:
            todo = f"give one number of layers per node that add up to {model.info.layers}"
            self._fail(job, Refusal(EXIT_USAGE, f"cannot split {reference}", str(error), todo))
        except AddressError as error:
            what = f"cannot load {reference}: results cannot be taken at {error.address}"
            self._fail(job, Refusal(EXIT_FAILED, what, error.why, error.hint))
        job.preparing = False

    def nodes_of(self, split: Sequence[int]) -> tuple[str, ...]:
        """Who holds it, in order, as configured; none: this node, then the others by name."""
        drained = self._of.clients.draining.nodes
        nodes = tuple(n for n in self._of.config.coordinator.nodes if n not in drained)
        if split and len(split) != len(nodes):
            nodes = nodes[: len(split)] if len(split) < len(nodes) else ()
        return nodes

    def _check_nodes(self, wanted: int) -> None:
        """Somebody waits for it: not for nodes that are not there, while nothing is served."""
        members = self._of.cluster.members.values()
        there = sum(1 for m in members if m.node and not (m.draining or m.drained))
        if wanted > there:
            raise SplitError(f"{wanted} stages, but {there} nodes have joined")

    def _fail(self, job: Job, refusal: Refusal) -> None:
        if job is self._job:
            failure = msg.Failure(0, refusal.code, refusal.what, refusal.why, refusal.todo)
            self.ended(failure)

    def ended(self, failure: msg.Failure | None) -> None:
        """The model is in place, or will not be."""
        job, self._job = self._job, None
        if failure:
            self._of.note("load-failed", "", f"{failure.what}: {failure.why}; {failure.todo}")
            if job and job.answer:
                job.answer.fail(failure.code, failure.what, failure.why, failure.todo)
            return
        cluster = self._of.cluster
        split = tuple(len(slot.layers) for slot in cluster.slots)
        if job:
            self._remember(replace(job.wanted, split=split))
        if job and job.answer:
            name = cluster.model.name if cluster.model else None
            job.answer.reply({"model": name, "epoch": cluster.epoch, "layers": list(split)})

    def moved(self, slots: Sequence[Slot], objective: Objective, by_hand: bool) -> None:
        """The layers are elsewhere, and are to be there after a restart too."""
        if self._served:
            nodes = tuple(slot.node for slot in slots)
            split = tuple(len(slot.layers) for slot in slots)
            served = replace(self._served, nodes=nodes, split=split)
            self._remember(replace(served, objective=objective, by_hand=by_hand))

    def _remember(self, remembered: Remembered) -> None:
        self._served = remembered
        self._memory.keep(remembered)

    def unload(self, answer: Answer, arguments: dict[str, Any]) -> None:
        name = self._of.model.spec.name if self._of.model else None
        self._served = None
        self._memory.forget()
        self._of.unwant()
        if self._job:
            why = "it was unloaded meanwhile"
            self._fail(self._job, Refusal(EXIT_FAILED, "not loaded", why, "load it again"))
        answer.reply({"model": name})

    def tick(self) -> None:
        """Progress for who waits."""
        job = self._job
        for data in views.loading_view(self._of.cluster) if job and job.answer else ():
            if job and job.answer and not job.answer.chunk(data):
                job.answer = None  # it is loaded all the same

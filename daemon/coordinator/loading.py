"""Models by request: list, load, unload, and the one that the configuration names."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from daemon import logs
from daemon import messages as msg
from daemon.coordinator import views
from daemon.coordinator.answer import EXIT_FAILED, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, typed
from daemon.coordinator.models import ServedModel, UnknownModel
from daemon.engine.errors import LoadError

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

log = logs.get("models")


def explained(what: str, error: BaseException) -> Refusal:
    """What went wrong at the desk, for the client; what should not have gone wrong, for the log
    too.
    """
    match error:
        case UnknownModel():
            todo = "see `shardctl model list`"
            return Refusal(EXIT_FAILED, f"{what}: unknown model", str(error), todo)
        case LoadError():
            return Refusal(EXIT_FAILED, f"{what}: {error.path}", error.cause, error.remedy)
        case _:
            log.error("work at the desk failed", exc_info=error)
            return Refusal(EXIT_FAILED, what, str(error), "see the coordinator's log")


class Loading:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._answer: Answer | None = None
        self.preparing: str | None = None  # the model whose folder is being read

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
        if self._answer:
            what, why = "another model is being loaded", "one at a time"
            raise Refusal(EXIT_FAILED, what, why, "wait for it, or unload it")
        self._answer = answer
        self._prepare(reference, tuple(split))

    def load_at_start(self, reference: str) -> None:
        """The configuration names a model."""
        self._prepare(reference, tuple(self._of.config.coordinator.split or ()))

    def _prepare(self, reference: str, split: tuple[int, ...]) -> None:
        self.preparing = reference

        def prepared(model: ServedModel) -> None:
            self.preparing = None
            self._of.want(model, split)

        def failed(error: BaseException) -> None:
            self.preparing = None
            refusal = explained(f"cannot load {reference}", error)
            self.ended(msg.Failure(0, refusal.code, refusal.what, refusal.why, refusal.todo))

        self._of.desk.submit(
            partial(self._of.catalogue.prepare, reference),
            prepared,
            failed,
        )

    def ended(self, failure: msg.Failure | None) -> None:
        """The model is in place, or will not be."""
        if failure:
            self._of.note("load-failed", "", f"{failure.what}: {failure.why}; {failure.todo}")
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if failure:
            answer.fail(failure.code, failure.what, failure.why, failure.todo)
            return
        cluster = self._of.cluster
        layers = [len(slot.layers) for slot in cluster.slots]
        name = cluster.model.name if cluster.model else None
        answer.reply({"model": name, "epoch": cluster.epoch, "layers": layers})

    def unload(self, answer: Answer, arguments: dict[str, Any]) -> None:
        name = self._of.model.spec.name if self._of.model else None
        self._of.unwant()
        if self._answer:
            todo = "load it again"
            failure = msg.Failure(0, EXIT_FAILED, "not loaded", "it was unloaded meanwhile", todo)
            self.ended(failure)
        answer.reply({"model": name})

    def tick(self) -> None:
        """Progress for who waits."""
        if self._answer:
            for data in views.loading_view(self._of.cluster):
                self._answer.chunk(data)

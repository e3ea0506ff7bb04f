"""What shardctl asks for: every verb of docs/protocol.md, and the streams of running requests."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

from daemon import logs
from daemon import messages as msg
from daemon.coordinator import views
from daemon.coordinator.arguments import BadArguments, Generate, typed
from daemon.coordinator.models import ServedModel, UnknownModel
from daemon.coordinator.stop import StopMatcher
from daemon.coordinator.stream import Stream
from daemon.engine.errors import LoadError
from daemon.scheduler import actions as sc
from daemon.scheduler.request import FinishReason, Refusal, Request, RequestError

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

log = logs.get("clients")

SILENT_SECONDS = 10.0  # after which a client that waits for tokens is taken for gone
ANSWER_SECONDS = 3.0  # that nodes have to answer a query
RATE_SECONDS = 5.0  # over which tokens per second are counted
EXIT_FAILED, EXIT_USAGE, EXIT_DEGRADED, EXIT_REFUSED = 1, 2, 3, 5


@dataclass(slots=True)
class Query:
    """A question to nodes, whose answers are gathered for one client."""

    client: bytes
    request: int
    missing: set[str]
    due: float
    answers: list[dict[str, Any]] = field(default_factory=list)


class Clients:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self._streams: dict[bytes, Stream] = {}  # by sequence
        self._preparing: dict[tuple[bytes, int], float] = {}
        self._queries: dict[int, Query] = {}
        self._followers: set[tuple[bytes, int]] = set()
        self._loader: tuple[bytes, int] | None = None
        self._waiting: str | None = None
        self._delivered: deque[tuple[float, int]] = deque()
        self._verbs: dict[str, Callable[[bytes, msg.Request], None]] = {
            "status": self._status,
            "nodes": self._nodes,
            "pipeline": self._pipeline,
            "kv": self._kv,
            "model.list": self._model_list,
            "model.load": self._model_load,
            "model.unload": self._model_unload,
            "generate": self._generate,
            "ps": self._ps,
            "cancel": self._cancel,
            "events": self._events,
            "logs": self._logs,
            "alive": self._alive,
        }

    # --- in and out ---

    def request(self, client: bytes, request: msg.Request) -> None:
        if request.protocol != msg.PROTOCOL:
            version = metadata.version("shardbus")
            self._fail(
                client, request.request, EXIT_REFUSED,
                f"the coordinator is shardbus {version} and speaks protocol {msg.PROTOCOL}",
                f"this shardctl speaks protocol {request.protocol}",
                "install the same version on both sides",
            )  # fmt: skip
            return
        verb = self._verbs.get(request.verb)
        if verb is None:
            self._fail(
                client, request.request, EXIT_USAGE,
                f"unknown verb {request.verb!r}", "this coordinator does not know it",
                f"known are {', '.join(self._verbs)}",
            )  # fmt: skip
            return
        try:
            verb(client, request)
        except BadArguments as error:
            self._fail(
                client, request.request, EXIT_USAGE,
                f"{request.verb}: {error}", "the arguments cannot be used", "see docs/protocol.md",
            )  # fmt: skip

    def _fail(self, client: bytes, request: int, code: int, what: str, why: str, todo: str) -> None:
        self._of.say(client, msg.Failure(request, code, what, why, todo))

    def _reply(self, client: bytes, request: msg.Request | int, data: dict[str, Any]) -> None:
        number = request if isinstance(request, int) else request.request
        self._of.say(client, msg.Reply(number, data))

    def tick(self, now: float) -> None:
        for stream in [s for s in self._streams.values() if now - s.alive_at > SILENT_SECONDS]:
            self._gone(stream, "its client is silent")
        for number, query in list(self._queries.items()):
            if now >= query.due:
                self._answer(number, query)
        if self._loader and self._of.cluster.slots:
            for data in views.loading_view(self._of.cluster):
                self._of.say(self._loader[0], msg.Chunk(self._loader[1], data))

    def close(self) -> None:
        for stream in self._streams.values():
            self._fail(
                stream.client, stream.request, EXIT_FAILED,
                "the coordinator has stopped", "it was asked to", "start it, then ask again",
            )  # fmt: skip

    # --- what there is ---

    def _status(self, client: bytes, request: msg.Request) -> None:
        now, of = time.monotonic(), self._of
        scheduler = of.scheduler.status()
        cluster = of.cluster
        nodes = views.nodes_view(cluster, now)
        self._reply(client, request, {
            "cluster": cluster.rules.cluster,
            "version": metadata.version("shardbus"),
            "protocol": msg.PROTOCOL,
            "term": cluster.term,
            "epoch": cluster.epoch,
            "uptime": now - of.began,
            "state": "draining" if of.draining else cluster.state,
            "reason": cluster.why_down or None,
            "model": views.model_view(of.model),
            "active": scheduler["running"],
            "queued": scheduler["waiting"],
            "in_flight": scheduler["in_flight"],
            "tokens_per_second": self._rate(now),
            "reissues": sum(scheduler["reissues"].values()),
            "nodes": nodes,
            "hops": views.hops_view(cluster, of.scheduler.stats, now),
            "warnings": views.warnings(nodes),
        })  # fmt: skip

    def _rate(self, now: float) -> float:
        while self._delivered and now - self._delivered[0][0] > RATE_SECONDS:
            self._delivered.popleft()
        return sum(count for _, count in self._delivered) / RATE_SECONDS

    def _nodes(self, client: bytes, request: msg.Request) -> None:
        nodes = views.nodes_view(self._of.cluster, time.monotonic())
        self._reply(client, request, {"nodes": nodes})

    def _pipeline(self, client: bytes, request: msg.Request) -> None:
        of, now = self._of, time.monotonic()
        status = of.scheduler.status()
        self._reply(client, request, {
            "epoch": of.cluster.epoch,
            "in_flight": status["in_flight"],
            "window": status["window"],
            "reissues": status["reissues"],
            "stages": views.stages_view(of.cluster, of.scheduler.stats, now),
            "hops": views.hops_view(of.cluster, of.scheduler.stats, now),
        })  # fmt: skip

    def _ps(self, client: bytes, request: msg.Request) -> None:
        now = time.monotonic()
        rows = [views.sequence_view(s, now) for s in self._of.scheduler.sequences()]
        self._reply(client, request, {"sequences": rows})

    def _kv(self, client: bytes, request: msg.Request) -> None:
        slots = self._of.cluster.slots
        number = self._ask(client, request, {s.node for s in slots})
        for slot in slots:
            self._of.to_stage(slot.node, msg.KvQuery(number))

    def _logs(self, client: bytes, request: msg.Request) -> None:
        arguments = request.arguments
        known = self._of.cluster.members
        node = typed(arguments, "node", str, self._of.cluster.rules.local_node)
        child = typed(arguments, "child", str, "stage")
        lines = typed(arguments, "lines", int, 100)
        if node not in known:
            raise BadArguments(f"no node {node!r}; known are {', '.join(sorted(known))}")
        if child not in ("shardd", "stage", "coordinator"):
            raise BadArguments(f"no child {child!r}; there are shardd, stage and coordinator")
        if not 1 <= lines <= 2000:
            raise BadArguments(f"lines is {lines}, must be 1 to 2000")
        number = self._ask(client, request, {node})
        self._of.to_node(node, msg.LogsQuery(number, child, lines))

    def _ask(self, client: bytes, request: msg.Request, nodes: set[str]) -> int:
        number = max(self._queries, default=0) + 1
        due = time.monotonic() + (ANSWER_SECONDS if nodes else 0.0)
        self._queries[number] = Query(client, request.request, nodes, due)
        return number

    def report(self, report: msg.KvReport | msg.LogsReport) -> None:
        """A node answers a query."""
        query = self._queries.get(report.query)
        if query is None or report.node not in query.missing:
            return
        query.missing.discard(report.node)
        if isinstance(report, msg.LogsReport):
            query.answers.append({"node": report.node, "lines": report.lines})
        else:
            place = {"stage": self._of.cluster.slot_of(report.node), "node": report.node}
            query.answers += [place | entry for entry in report.sequences]
        if not query.missing:
            self._answer(report.query, query)

    def _answer(self, number: int, query: Query) -> None:
        del self._queries[number]
        if query.answers and "lines" in query.answers[0]:
            self._reply(query.client, query.request, query.answers[0])
            return
        rows = sorted(query.answers, key=lambda e: (e.get("sequence", ""), e.get("stage") or 0))
        silent = sorted(query.missing)
        self._reply(query.client, query.request, {"sequences": rows, "silent": silent})

    # --- events ---

    def _events(self, client: bytes, request: msg.Request) -> None:
        limit = typed(request.arguments, "limit", int, 100)
        for event in list(self._of.events)[-limit:] if limit > 0 else ():
            self._of.say(client, msg.Chunk(request.request, event))
        if typed(request.arguments, "follow", bool, False):
            self._followers.add((client, request.request))
        else:
            self._reply(client, request, {})

    def event(self, event: dict[str, Any]) -> None:
        """Something was noted: followers see it."""
        for client, number in list(self._followers):
            if not self._of.say(client, msg.Chunk(number, event)):
                self._followers.discard((client, number))

    # --- models ---

    def _model_list(self, client: bytes, request: msg.Request) -> None:
        loaded = self._of.model.spec.name if self._of.model else None
        self._of.desk.submit(
            partial(self._of.catalogue.listing, loaded),
            lambda models: self._reply(client, request, {"models": models}),
            lambda error: self._unprepared(client, request.request, "model list", error),
        )

    def _model_load(self, client: bytes, request: msg.Request) -> None:
        reference = typed(request.arguments, "model", str, None)
        split = typed(request.arguments, "split", list, [])
        if reference is None:
            raise BadArguments("which model? give its name or folder")
        if not all(type(n) is int for n in split):
            raise BadArguments("split is a list of numbers of layers")
        if self._loader:
            self._fail(
                client, request.request, EXIT_FAILED,
                "another model is being loaded", "one at a time", "wait for it, or unload it",
            )  # fmt: skip
            return
        self._loader = (client, request.request)
        self._of.desk.submit(
            partial(self._of.catalogue.prepare, reference),
            lambda model: self._of.want(model, tuple(split)),
            lambda error: self._not_loaded(reference, error),
        )

    def load_at_start(self, reference: str) -> None:
        """The configuration names a model."""
        split = tuple(self._of.config.coordinator.split or ())

        def failed(error: BaseException) -> None:
            self._of.note("load-failed", "", f"{reference}: {error}")
            self._raise_unexpected(error)

        self._of.desk.submit(
            partial(self._of.catalogue.prepare, reference),
            lambda model: self._of.want(model, split),
            failed,
        )

    def load_ended(self, failure: msg.Failure | None) -> None:
        if failure:
            self._of.note("load-failed", "", f"{failure.what}: {failure.why}; {failure.todo}")
            self._of.model = None
        if self._loader is None:
            return
        client, number = self._loader
        self._loader = None
        if failure:
            self._fail(client, number, failure.code, failure.what, failure.why, failure.todo)
            return
        cluster = self._of.cluster
        layers = [len(slot.layers) for slot in cluster.slots]
        name = cluster.model.name if cluster.model else None
        data = {"model": name, "epoch": cluster.epoch, "layers": layers}
        self._reply(client, number, data)

    def _not_loaded(self, reference: str, error: BaseException) -> None:
        self._of.note("load-failed", "", f"{reference}: {error}")
        if self._loader:
            client, number = self._loader
            self._loader = None
            self._unprepared(client, number, f"cannot load {reference}", error)

    def _unprepared(self, client: bytes, number: int, what: str, error: BaseException) -> None:
        match error:
            case UnknownModel():
                self._fail(client, number, EXIT_FAILED, f"{what}: unknown model", str(error),
                           "see `shardctl model list`")  # fmt: skip
            case LoadError():
                where = f"{what}: {error.path}"
                self._fail(client, number, EXIT_FAILED, where, error.cause, error.remedy)
            case _:
                self._fail(client, number, EXIT_FAILED, what, str(error), "see the logs")
                self._raise_unexpected(error)

    def _raise_unexpected(self, error: BaseException) -> None:
        if not isinstance(error, (UnknownModel, LoadError)):
            log.error("work at the desk failed", exc_info=error)

    def _model_unload(self, client: bytes, request: msg.Request) -> None:
        name = self._of.model.spec.name if self._of.model else None
        for stream in list(self._streams.values()):
            self._of.perform(self._of.scheduler.cancel(stream.sequence, time.monotonic()))
        self._of.unwant()
        self._reply(client, request, {"model": name})

    # --- generate ---

    def _generate(self, client: bytes, request: msg.Request) -> None:
        wanted = Generate.parse(request.arguments)
        model = self._of.model
        if self._of.draining:
            self._fail(client, request.request, EXIT_REFUSED, "the cluster is draining",
                       "it takes no new request before it stops", "ask again later")  # fmt: skip
            return
        if model is None:
            self._fail(client, request.request, EXIT_FAILED, "no model is loaded",
                       "nothing can be generated without one",
                       "shardctl model load NAME")  # fmt: skip
            return
        if wanted.messages and not model.tokenizer.has_chat_template and not wanted.raw:
            self._fail(client, request.request, EXIT_USAGE,
                       f"{model.spec.name} has no chat template", "it is not a chat model",
                       "use a plain prompt (--raw)")  # fmt: skip
            return
        self._preparing[client, request.request] = time.monotonic()
        self._of.desk.submit(
            partial(encode, model, wanted),
            lambda prompt: self._begin(client, request.request, model, wanted, prompt),
            lambda error: self._unprepared(client, request.request, "cannot read prompt", error),
        )

    def _begin(
        self, client: bytes, number: int, model: ServedModel, wanted: Generate, prompt: list[int]
    ) -> None:
        began = self._preparing.pop((client, number), None)
        if began is None or model is not self._of.model:
            self._fail(client, number, EXIT_FAILED, "the model was unloaded",
                       "another took its place meanwhile", "ask again")  # fmt: skip
            return
        now, sequence = time.monotonic(), self._of.new_sequence()
        room = (model.info.context_length or len(prompt) + 4096) - len(prompt)
        stops = model.tokenizer.eos_tokens if wanted.stop_at_eos else frozenset[int]()
        most = wanted.max_tokens or max(1, room)
        try:
            started = self._of.scheduler.submit(
                Request(sequence, tuple(prompt), most, wanted.sampling, stops), now
            )
        except RequestError as error:
            code = EXIT_DEGRADED if error.refusal is Refusal.BUSY else EXIT_USAGE
            todo = "ask again later" if error.refusal is Refusal.BUSY else "shorten the prompt"
            self._fail(client, number, code, "the request cannot be taken", str(error), todo)
            return
        detokenizer, matcher = model.tokenizer.detokenizer(), StopMatcher(wanted.stop)
        stream = Stream(client, number, sequence, len(prompt), detokenizer, matcher, began, now)
        self._streams[sequence] = stream
        self._tell(stream, {
            "sequence": sequence.hex(),
            "prompt_tokens": len(prompt),
            "cached_tokens": 0,
            "seed": wanted.sampling.seed,
        })  # fmt: skip
        if self._waiting:
            self._tell(stream, {"waiting": self._waiting})
        self._of.perform(started)

    def _tell(self, stream: Stream, data: dict[str, Any]) -> None:
        if not self._of.say(stream.client, msg.Chunk(stream.request, data)):
            self._gone(stream, "its client is gone")

    def _gone(self, stream: Stream, why: str) -> None:
        if self._streams.pop(stream.sequence, None):
            self._of.note("cancelled", "", f"{stream.sequence.hex()[:8]}: {why}")
            self._of.perform(self._of.scheduler.cancel(stream.sequence, time.monotonic()))

    def waiting(self, why: str | None) -> None:
        """The pipeline went down, or (None) is up again."""
        self._waiting = why
        if why:
            for stream in list(self._streams.values()):
                self._tell(stream, {"waiting": why})

    def deliver(self, action: sc.Deliver) -> None:
        now = time.monotonic()
        stream = self._streams.get(action.sequence)
        if stream is None:
            return
        self._delivered.append((now, len(action.tokens)))
        text = stream.take(action.tokens, now)
        logprobs = list(action.logprobs) if action.logprobs is not None else None
        self._tell(stream, {"text": text, "tokens": list(action.tokens), "logprobs": logprobs})
        if stream.stopped:
            finish = self._of.scheduler.finish(action.sequence, FinishReason.STOP, now)
            self._of.perform(finish)

    def finished(self, action: sc.Finished) -> None:
        stream = self._streams.pop(action.sequence, None)
        if stream is None:
            return
        if action.reason in (FinishReason.FAILED, FinishReason.CONTEXT):
            self._fail(stream.client, stream.request, EXIT_FAILED, "the request failed",
                       action.error, "shardctl logs NODE; then ask again")  # fmt: skip
            return
        usage = action.usage
        summary = stream.summary(time.monotonic(), usage.reissues, usage.cached_tokens)
        ending = {"text": stream.rest(), "finish_reason": action.reason.value}
        self._reply(stream.client, stream.request, summary | ending)

    def _alive(self, client: bytes, request: msg.Request) -> None:
        now = time.monotonic()
        for stream in self._streams.values():
            if stream.client == client:
                stream.alive_at = now

    def _cancel(self, client: bytes, request: msg.Request) -> None:
        wanted = typed(request.arguments, "sequence", str, None)
        if not wanted:
            raise BadArguments("which sequence? give its id, the beginning of it, or 'all'")
        known = [s.id for s in self._of.scheduler.sequences()]
        found = known if wanted == "all" else [s for s in known if s.hex().startswith(wanted)]
        if not found and wanted != "all":
            self._fail(client, request.request, EXIT_FAILED, f"no sequence {wanted}",
                       "it has ended, or never was", "see `shardctl ps`")  # fmt: skip
            return
        if len(found) > 1 and wanted != "all":
            raise BadArguments(f"{wanted} is the beginning of {len(found)} sequences")
        for sequence in found:
            self._of.perform(self._of.scheduler.cancel(sequence, time.monotonic()))
        self._reply(client, request, {"cancelled": [s.hex() for s in found]})


def encode(model: ServedModel, wanted: Generate) -> list[int]:
    """The prompt's tokens."""
    tokenizer = model.tokenizer
    if wanted.messages and not wanted.raw:
        return tokenizer.encode_chat(wanted.messages)
    if wanted.messages:
        return tokenizer.encode("\n".join(m["content"] for m in wanted.messages))
    prompt = wanted.prompt or ""
    if wanted.raw or not tokenizer.has_chat_template:
        return tokenizer.encode(prompt)
    return tokenizer.encode_chat([{"role": "user", "content": prompt}])

"""What shardctl asks for: the verbs of docs/protocol.md, and who carries each out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from daemon import logs
from daemon import messages as msg
from daemon.coordinator import views
from daemon.coordinator.answer import EXIT_FAILED, EXIT_REFUSED, EXIT_USAGE, Answer, Refusal
from daemon.coordinator.arguments import BadArguments, typed
from daemon.coordinator.automatic import Automatic
from daemon.coordinator.conversations import Conversations
from daemon.coordinator.draining import Draining
from daemon.coordinator.intake import Intake
from daemon.coordinator.keeping import Keeping
from daemon.coordinator.kv_verbs import KvVerbs
from daemon.coordinator.layout_verbs import LayoutVerbs
from daemon.coordinator.loading import Loading
from daemon.coordinator.planning import Planning
from daemon.coordinator.ports import Ports
from daemon.coordinator.queries import Queries
from daemon.coordinator.rdma_verbs import RdmaVerbs
from daemon.coordinator.rebalancing import Rebalancing
from daemon.coordinator.resuming import Resuming
from daemon.coordinator.streams import Streams
from daemon.version import VERSION

if TYPE_CHECKING:
    from daemon.coordinator.process import Coordinator

log = logs.get("clients")

CHILDREN = ("shardd", "stage", "draft", "rdma", "coordinator")
MOST_LINES = 2000


class Clients:
    def __init__(self, coordinator: Coordinator) -> None:
        self._of = coordinator
        self.intake = Intake(coordinator)
        self.streams = Streams(coordinator)
        self.loading = Loading(coordinator)
        self.conversations = Conversations(coordinator)
        self.keeping = Keeping(coordinator)
        self.queries = Queries()
        self.ports = Ports(coordinator, self.queries)
        self.planning = Planning(coordinator)
        self.resuming = Resuming(coordinator)
        self.rebalancing = Rebalancing(coordinator)
        self.draining = Draining(coordinator)
        self.automatic = Automatic(coordinator)
        self.rdma = RdmaVerbs(coordinator)
        saved, layouts = KvVerbs(coordinator), LayoutVerbs(coordinator)
        self._followers: dict[tuple[bytes, int], Answer] = {}
        self._verbs: dict[str, Callable[[Answer, dict[str, Any]], None]] = {
            "status": self._status,
            "nodes": self._nodes,
            "nodes.drain": self.draining.drain,
            "nodes.undrain": self.draining.undrain,
            "pipeline": self._pipeline,
            "kv": self._kv,
            "kv.pin": self.keeping.pin,
            "kv.evict": self.keeping.evict,
            "kv.save": saved.save,
            "kv.load": saved.load,
            "plan": self.planning.plan,
            "rebalance": layouts.rebalance,
            "rebalance.abort": layouts.abort,
            "rdma.enable": self.rdma.enable,
            "rdma.disable": self.rdma.disable,
            "rdma.test": self.rdma.test,
            "model.list": self.loading.listing,
            "model.load": self.loading.load,
            "model.unload": self.loading.unload,
            "conversation.list": self.conversations.listing,
            "conversation.forget": self.conversations.forget,
            "generate": self.intake.generate,
            "resume": self.resuming.resume,
            "ps": self._ps,
            "cancel": self.streams.cancel,
            "events": self._events,
            "logs": self._logs,
            "rdma.status": self.ports.status,
            "rdma.report": self.ports.report,
            "rdma.ports": self.ports.facts,
            "alive": self.streams.alive,
        }

    def request(self, client: bytes, request: msg.Request) -> None:
        answer = Answer(self._of.say, client, request.request)
        try:
            self._verb_of(request)(answer, request.arguments)
        except Refusal as refusal:
            answer.refuse(refusal)
        except BadArguments as error:
            what, why = f"{request.verb}: {error}", "the arguments cannot be used"
            command = request.verb.partition(".")[0]
            answer.fail(EXIT_USAGE, what, why, f"see `shardctl {command} --help`")
        except Exception as error:  # a fault in one verb must not end everybody's requests
            log.exception("%s failed", request.verb)
            what, why = f"{request.verb} failed", f"{type(error).__name__}: {error}"
            answer.fail(EXIT_FAILED, what, why, "see `shardctl logs` of the coordinator's node")

    def _verb_of(self, request: msg.Request) -> Callable[[Answer, dict[str, Any]], None]:
        version = VERSION
        if request.protocol != msg.PROTOCOL:
            raise Refusal(
                EXIT_REFUSED,
                f"the coordinator is shardbus {version} and speaks protocol {msg.PROTOCOL}",
                f"this shardctl speaks protocol {request.protocol}",
                "install the same version on both sides",
            )
        verb = self._verbs.get(request.verb)
        if verb is None:
            why = f"this coordinator (shardbus {version}) does not know it"
            todo = f"known are {', '.join(self._verbs)}"
            raise Refusal(EXIT_USAGE, f"unknown verb {request.verb!r}", why, todo)
        return verb

    def tick(self, now: float) -> None:
        self.intake.tick(now)
        self.streams.tick(now)
        self.resuming.tick(now)
        self.queries.tick(now)
        self.loading.tick()
        self.planning.tick(now)
        self.rebalancing.tick(now)
        self.draining.tick()
        self.automatic.tick(now)
        self.rdma.tick(now)

    # --- what there is ---

    def _status(self, answer: Answer, arguments: dict[str, Any]) -> None:
        now, of, cluster = time.monotonic(), self._of, self._of.cluster
        scheduler = of.scheduler.status()
        nodes = views.nodes_view(cluster, now)
        data = {
            "cluster": cluster.rules.cluster,
            "version": VERSION,
            "protocol": msg.PROTOCOL,
            "term": cluster.term,
            "epoch": cluster.epoch,
            "uptime": now - of.began,
            "state": of.state,
            "reason": cluster.why_down or None,
            "model": views.model_view(of.model),
            "active": scheduler["running"],
            "queued": scheduler["waiting"] + len(self.intake.waiting),
            "in_flight": scheduler["in_flight"],
            "tokens_per_second": self.streams.rate(now),
            "reissues": sum(scheduler["reissues"].values()),
            "nodes": nodes,
            "rebalance": self.rebalancing.status(now),
            "drafts": of.drafting.view(),
            "hops": views.hops_view(cluster, of.scheduler.stats, of.scheduler.hops, now),
            "warnings": views.warnings(nodes),
        }
        answer.reply(data)

    def _nodes(self, answer: Answer, arguments: dict[str, Any]) -> None:
        answer.reply({"nodes": views.nodes_view(self._of.cluster, time.monotonic())})

    def _pipeline(self, answer: Answer, arguments: dict[str, Any]) -> None:
        of, now = self._of, time.monotonic()
        status = of.scheduler.status()
        data = {
            "epoch": of.cluster.epoch,
            "in_flight": status["in_flight"],
            "window": status["window"],
            "reissues": status["reissues"],
            "refills": status["refills"],
            "dropped": of.dropped,
            "speculation": status["speculation"],
            "stages": views.stages_view(of.cluster, of.scheduler.stats, now),
            "hops": views.hops_view(of.cluster, of.scheduler.stats, of.scheduler.hops, now),
        }
        answer.reply(data)

    def _ps(self, answer: Answer, arguments: dict[str, Any]) -> None:
        now = time.monotonic()
        rows = [views.sequence_view(s, now) for s in self._of.scheduler.sequences()]
        answer.reply({"sequences": rows + self.intake.views(now)})

    # --- what the nodes know ---

    def _kv(self, answer: Answer, arguments: dict[str, Any]) -> None:
        nodes = {slot.node for slot in self._of.cluster.slots}

        def ended(reports: list[msg.KvReport], silent: list[str]) -> None:
            held = {"sequences": views.kv_view(self._of.cluster, reports), "silent": silent}
            answer.reply(held | self.keeping.view(time.monotonic()))

        number = self.queries.ask(msg.KvReport, nodes, time.monotonic(), ended)
        for node in nodes:
            self._of.to_stage(node, msg.KvQuery(number))

    def _logs(self, answer: Answer, arguments: dict[str, Any]) -> None:
        known = self._of.cluster.members
        node = typed(arguments, "node", str, self._of.cluster.rules.local_node)
        child = typed(arguments, "child", str, "stage")
        lines = typed(arguments, "lines", int, 100)
        if node not in known:
            raise BadArguments(f"no node {node!r}; known are {', '.join(sorted(known))}")
        if child not in CHILDREN:
            raise BadArguments(f"no child {child!r}; there are {', '.join(CHILDREN)}")
        if not 1 <= lines <= MOST_LINES:
            raise BadArguments(f"lines is {lines}, must be 1 to {MOST_LINES}")

        def ended(reports: list[msg.LogsReport], silent: list[str]) -> None:
            found = reports[0].lines if reports else []
            answer.reply({"node": node, "lines": found, "silent": silent})

        number = self.queries.ask(msg.LogsReport, {node}, time.monotonic(), ended)
        self._of.to_node(node, msg.LogsQuery(number, child, lines))

    # --- events ---

    def _events(self, answer: Answer, arguments: dict[str, Any]) -> None:
        limit = typed(arguments, "limit", int, 100)
        for event in list(self._of.events)[-limit:] if limit > 0 else ():
            answer.chunk(event)
        if typed(arguments, "follow", bool, False):
            self._followers[answer.client, answer.request] = answer
        else:
            answer.reply({})

    def event(self, event: dict[str, Any]) -> None:
        """Something was noted: followers see it."""
        for key, answer in list(self._followers.items()):
            if not answer.chunk(event):
                del self._followers[key]

"""A stand-in of the coordinator with the real cluster machine, and stages that answer at once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from daemon import messages as msg
from daemon.cluster import events as cl
from daemon.cluster.machine import Cluster
from daemon.cluster.rules import Rules
from daemon.coordinator.models import ServedModel
from daemon.coordinator.tokenizer import Tokenizer
from daemon.engine.quantization import KVQuantization
from daemon.scheduler.pipeline import Pipeline, StageCost
from tests.coordinator.stand_in import StandIn
from tests.machine.world import beat, loaded, node, stage

MODEL = cl.ModelSpec("toy", "/models/toy", "d1", (10,) * 8, 5, 3)


class Nodes(StandIn):
    """The first is the coordinator's. Each layer takes `seconds` of a step, each stage has `memory`
    bytes. Messages of a kind in `deaf` are not answered until `hear`.
    """

    def __init__(
        self,
        state_dir: Path,
        *names: str,
        memory: int = 1 << 31,
        seconds: dict[str, float] | None = None,
        automatic: bool = False,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        super().__init__(state_dir)
        self.clients.automatic.mode = "auto" if automatic else "off"
        self.busy, self.ticks = False, 0.0
        self.config.timeouts.drain_s = 30.0
        self.catalogue = SimpleNamespace(prepare=lambda reference: self.toy)
        self.began, self.stopping, self.memory, self.seconds = 0.0, False, memory, seconds or {}
        self.deaf: set[type] = set()
        self.unheard: list[tuple[str, msg.Message]] = []
        self.to_nodes: list[tuple[str, msg.Message]] = []
        self.gone: set[str] = set()  # nodes that are not connected
        self.rdma: Any = SimpleNamespace(view=lambda: {"enabled": False, "hops": []})
        self.prepared: dict[str, msg.Prepare] = {}
        self.switches: dict[str, msg.Switch] = {}
        info = SimpleNamespace(
            layers=8, kv_bytes_per_token_per_layer=1, context_length=16,
            kv_quantization=KVQuantization(32, ""),
        )  # fmt: skip
        self.scheduler.configure(None, 0.0)
        self.toy = ServedModel(MODEL, cast(Any, info), cast(Any, tokenizer))
        self.cluster: Any = Cluster(Rules("home", names[0], 512), term=1)
        for name in names:
            self.join(name)

    @property
    def idle(self) -> bool:
        return not self.busy

    # --- what the coordinator's parts call ---

    def happened(self, event: cl.Event) -> None:
        self.do(self.cluster.step(event, time.monotonic()))
        self.cluster.check_integrity()
        self.clients.rebalancing.look()

    def do(self, actions: Iterable[cl.Action]) -> None:
        for action in actions:
            match action:
                case cl.ToStage():
                    self.to_stage(action.node, action.message)
                case cl.PipelineUp():
                    costs = zip(action.step_seconds, action.prefill_token_seconds, strict=True)
                    stages = tuple(StageCost(steps, prefill) for steps, prefill in costs)
                    pipeline = Pipeline(action.term, action.epoch, stages, 4096, 512)
                    self.perform(self.scheduler.configure(pipeline, time.monotonic()))
                case cl.SendBarrier():
                    self.barrier(action.epoch)
                case cl.RebalanceEnded():
                    self.clients.rebalancing.ended(action)
                case cl.LoadEnded():
                    self.clients.loading.ended(action.failure)
                case cl.Note():
                    self.note(action.kind, action.node, action.text)

    def to_node(self, node: str, message: msg.Message) -> bool:
        self.to_nodes.append((node, message))
        return node not in self.gone

    def to_stage(self, node: str, message: msg.Message) -> None:
        if type(message) in self.deaf:
            self.unheard.append((node, message))
        else:
            self.answers(node, message)

    def want(
        self, model: ServedModel, nodes: tuple[str, ...], split: tuple[int, ...], at_once: bool
    ) -> None:
        self.model = model
        self.happened(cl.ModelWanted(model.spec, "tcp://a:9", nodes, split, at_once))

    def context_of(self, model: ServedModel) -> int:
        return 16

    # --- what stages do ---

    def answers(self, node: str, message: msg.Message) -> None:
        match message:
            case msg.Load():
                self.happened(self.loaded(node, message))
            case msg.Assign():
                if prepared := self.prepared.pop(node, None):
                    self.happened(self.loaded(node, prepared))
                self.happened(msg.Assigned(node, "s1", message.epoch))
            case msg.Profile():
                told = msg.Profiled(
                    message.query, node, message.digest, 0, 4, 4 * self.seconds.get(node, 0.01),
                    0.001, 0.002, self.memory, "",
                )  # fmt: skip
                self.clients.planning.profiled(told)
            case msg.Prepare():
                self.prepared[node] = message
                told = msg.Prepared(
                    node, "s1", message.term, message.move, message.start, message.end,
                    f"tcp://{node}:1", f"tcp://{node}:2", 0.1, "", "",
                )  # fmt: skip
                self.happened(told)
            case msg.Give():
                self.happened(msg.Giving(node, "s1", message.term, message.move, 500, 0, ""))
            case msg.Switch():
                self.switches[node] = message
                if not message.barrier:
                    self.switched(node)

    def loaded(self, node: str, what: msg.Load | msg.Prepare) -> msg.Loaded:
        layers, load = what.end - what.start, msg.Load(1, "", "", what.digest, what.start, what.end)
        head = 0.002 if what.end == 8 else 0.0
        seconds = layers * self.seconds.get(node, 0.01) + head
        told = loaded(node, load)
        told = replace(told, head_seconds=head, step_seconds=[[1.0, seconds]])
        told = replace(told, weights_bytes=10 * layers, load_seconds=1.0, memory_bytes=self.memory)
        self.clients.planning.loaded(told)
        return told

    def switched(self, node: str) -> None:
        switch = self.switches.pop(node)
        if prepared := self.prepared.pop(node, None):
            self.happened(self.loaded(node, prepared))
        self.happened(msg.Assigned(node, "s1", switch.epoch))

    def barrier(self, epoch: int) -> None:
        for name in list(self.switches):
            self.switched(name)
        self.happened(cl.BarrierReturned(epoch))

    # --- what tests do ---

    def hear(self) -> None:
        self.deaf.clear()
        while self.unheard:
            self.answers(*self.unheard.pop(0))

    def join(self, name: str) -> None:
        self.happened(node(name))
        self.happened(stage(name))

    def serve_toy(self, *split: int) -> None:
        self.ask(self.clients.loading.load, model="toy", split=list(split))
        assert self.cluster.up

    def layout(self) -> list[tuple[str, str]]:
        return [(slot.node, str(slot.layers)) for slot in self.cluster.slots]

    def holds(self, name: str, kv_bytes: int) -> None:
        self.happened(beat(name, digest="d1", kv_bytes=kv_bytes))

    def tick(self) -> None:
        self.clients.tick(time.monotonic())
        self.desk.run()

    def status(self) -> dict[str, Any]:
        return self.clients.rebalancing.status(time.monotonic())

    def replies(self) -> list[dict[str, Any]]:
        return [heard.data for heard in self.heard if isinstance(heard, msg.Reply)]
